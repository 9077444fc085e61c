"""Reads a kept answer as its users do, and prints what it holds as JSON.

    kept.py TABLE
"""

import sys

import duckdb
from deltalake import DeltaTable

from tell import tell

table = DeltaTable(sys.argv[1])
database = duckdb.connect()
database.register("answer", table.to_pyarrow_dataset())
answer = database.sql("SELECT * FROM answer")


def plain(value):
    return value.isoformat().removesuffix("+00:00") if hasattr(value, "isoformat") else value


tell({
    "description": table.metadata().description,
    "told": sum(table.get_add_actions(flatten=True)["num_records"].to_pylist()),
    "rows": [dict(zip(answer.columns, map(plain, row))) for row in answer.fetchall()],
})
