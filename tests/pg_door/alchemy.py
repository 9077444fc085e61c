"""What SQLAlchemy finds at this door, with nothing told to it but the address.

    alchemy.py HOST PORT USER     (the password is in PGPASSWORD)

Prints {"schemas", "tables", "columns", "comment", "keys", "rows", "private"} as JSON.
"""

import json
import os
import sys

from sqlalchemy import MetaData, Table, create_engine, func, inspect, select
from sqlalchemy.engine import URL

TABLE = "people_served_daily"


def main():
    host, port, user = sys.argv[1:]
    engine = create_engine(URL.create("postgresql+psycopg", user, os.environ["PGPASSWORD"], host, int(port), "starling"))
    found = inspect(engine)
    told = {
        "schemas": found.get_schema_names(),
        "tables": found.get_table_names(schema="stats"),
        "columns": [[c["name"], str(c["type"]), c["nullable"], c["comment"]] for c in found.get_columns(TABLE, schema="stats")],
        "comment": found.get_table_comment(TABLE, schema="stats")["text"],
        "views": found.get_view_names(schema="stats"),
        "private": found.get_table_names(schema="private"),
        "has_private": found.has_table("person_day", schema="private"),
    }
    served = Table(TABLE, MetaData(), schema="stats", autoload_with=engine)
    told["keys"] = [len(served.primary_key), len(served.foreign_keys), len(served.indexes), len(served.constraints) - 1]
    asked = select(served.c.status, func.count().label("n")).where(served.c.value > 1.5, served.c.status.in_(["released", "it's"]))
    with engine.connect() as connection:
        # Often enough that the driver prepares it.
        for _ in range(7):
            told["rows"] = [list(row) for row in connection.execute(asked.group_by(served.c.status).limit(5))]
    print(json.dumps(told))


main()
