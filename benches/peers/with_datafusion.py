#!/usr/bin/env python3
"""DataFusion without privacy, from Python.

`plain`: the questions as they are; the yardstick for what privacy costs.
`window`: bounds by row_number() over a random order, the way SQL offers, and no noise.
"""

import datafusion

import common

PLAIN = {
    "w1": "SELECT country, platform, version, count(*) AS n, sum(bytes) AS total, count(DISTINCT user_id) AS people FROM events GROUP BY country, platform, version",
    "w2": "SELECT country, approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY bytes), approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY bytes) FROM events GROUP BY country",
}
WINDOW = {
    "w1": f"""
        WITH some_events AS (
            SELECT user_id, country, platform, version, least(bytes, {common.BYTES_MAX}) AS bytes,
                   row_number() OVER (PARTITION BY user_id, country, platform, version ORDER BY random()) AS event
            FROM events),
        pairs AS (
            SELECT user_id, country, platform, version, count(*) AS n, sum(bytes) AS total
            FROM some_events WHERE event <= {common.EVENTS_PER_GROUP} GROUP BY user_id, country, platform, version),
        some_pairs AS (SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY random()) AS pair FROM pairs)
        SELECT country, platform, version, sum(n) AS n, sum(total) AS total, count(*) AS people
        FROM some_pairs WHERE pair <= {common.GROUPS_PER_PERSON} GROUP BY country, platform, version""",
}


def main():
    asked = common.asked(__doc__, variants=("plain", "window"))
    queries = PLAIN if asked.variant == "plain" else WINDOW
    if asked.question not in queries:
        raise SystemExit(f"{asked.variant} answers {', '.join(queries)} only")
    context = datafusion.SessionContext()
    context.register_parquet("events", asked.workload)
    batches = context.sql(queries[asked.question]).collect()
    common.answer(asked, [row for batch in batches for row in zip(*(column.to_pylist() for column in batch.columns))])


if __name__ == "__main__":
    main()
