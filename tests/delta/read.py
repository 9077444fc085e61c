"""Reads one Delta table as its users do, and prints what it holds as JSON.

    read.py TABLE

The log is read by delta-rs. The rows are asked for by DuckDB over delta-rs' dataset, and where STARLING_TEST_DELTA_EXTENSION is set through its own
`delta_scan` too, whose extension comes from a server of DuckDB's; `by` says which did.
"""

import os
import sys

import duckdb
from deltalake import DeltaTable

from tell import tell

path = sys.argv[1]
table = DeltaTable(path)
dataset = table.to_pyarrow_dataset()
questions = {
    "rows": "SELECT CAST(day AS VARCHAR), status, value, low, high, stddev, epsilon, delta FROM {t} ORDER BY ALL",
    "days": "SELECT CAST(day AS VARCHAR), count(*) FROM {t} GROUP BY ALL ORDER BY ALL",
    "one_day": "SELECT count(*) FROM {t} WHERE day = DATE '2026-01-06'",
}


def answers(database, name):
    return {key: [list(row) for row in database.sql(text.format(t=name)).fetchall()] for key, text in questions.items()}


database = duckdb.connect()
database.register("released", dataset)
out = {
    "version": table.version(),
    "name": table.metadata().name,
    "append_only": table.metadata().configuration.get("delta.appendOnly"),
    "columns": {field.name: field.type.type for field in table.schema().fields},
    "comments": sum(1 for field in table.schema().fields if field.metadata.get("comment")),
    "files": len(table.file_uris()),
    "told": sum(table.get_add_actions(flatten=True)["num_records"].to_pylist()),
    "answers": answers(database, "released"),
    "by": ["deltalake"],
}
if os.environ.get("STARLING_TEST_DELTA_EXTENSION"):
    database.sql("INSTALL delta")
    database.sql("LOAD delta")
    assert answers(database, f"delta_scan('{path}')") == out["answers"]
    out["by"].append("delta_scan")
tell(out)
