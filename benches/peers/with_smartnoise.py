#!/usr/bin/env python3
"""SmartNoise SQL over a pandas frame (docs.smartnoise.org/sql), which it copies into SQLite. It has no quantiles, so no W2.

It bounds the rows of a person in the whole table and knows no bound on groups; that many rows may all be in one group or each in its own. `rows-40` allows what the promise allows (4 groups of 10);
`rows-4` keeps 4 random rows a person, for a lower threshold. Each of the three columns takes a third of epsilon; delta is for the threshold ("censor_dims") on distinct people.
"""

import pyarrow.parquet as pq
from snsql import Privacy, from_connection

import common

QUERY = "SELECT country, platform, version, COUNT(*) AS n, SUM(bytes) AS total, COUNT(DISTINCT user_id) AS people FROM app.events GROUP BY country, platform, version"


def main():
    asked = common.asked(__doc__, variants=("rows-40", "rows-4"), questions=("w1",))
    table = {
        "max_ids": int(asked.variant.removeprefix("rows-")),
        "sample_max_ids": True,
        "censor_dims": True,
        "clamp_columns": True,
        "user_id": {"type": "int", "private_id": True},
        **{key: {"type": "string"} for key in common.KEYS},
        "bytes": {"type": "int", "lower": 0, "upper": common.BYTES_MAX},
    }
    events = pq.read_table(asked.workload).to_pandas()
    privacy = Privacy(epsilon=common.EPSILON / 3, delta=common.DELTA)
    reader = from_connection(events, privacy=privacy, metadata={"": {"app": {"events": table}}})
    _, *rows = reader.execute(QUERY)
    common.answer(asked, [tuple(row) for row in rows])


if __name__ == "__main__":
    main()
