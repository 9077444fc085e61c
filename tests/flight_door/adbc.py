"""A session of ADBC's, led by JSON on standard input: one step a line, one answer a line.

    adbc.py URI        with TOKEN, or NAME and PASSWORD, and where TLS is spoken ROOTS, in the environment

{"sql": ..., "parameters": [...]}  -> {"rows": [[...]], "columns": [...]}, or {"error": class, "message": text}
{"sql": ..., "arrow": FILE}        -> the same, with the table in FILE as an Arrow stream
{"sql": ..., "cancel": true}       -> the same, given up as soon as it was asked
{"objects": true}                  -> {"tables": {"schema.table": ["column", ...]}}
{"info": true}                     -> what the server says of itself
{"autocommit": false}, {"ingest": TABLE}, {"update": SQL}, {"substrait": TEXT} -> {"error": ...}, one hopes
"""

import datetime
import json
import os
import sys
import threading

import adbc_driver_flightsql.dbapi as dbapi
import adbc_driver_manager
import pyarrow
from adbc_driver_flightsql import DatabaseOptions


def plain(value):
    return value.isoformat() if isinstance(value, (datetime.date, datetime.datetime)) else value


def options():
    found = {}
    if "TOKEN" in os.environ:
        found[DatabaseOptions.AUTHORIZATION_HEADER.value] = "Bearer " + os.environ["TOKEN"]
    else:
        found |= {"username": os.environ["NAME"], "password": os.environ["PASSWORD"]}
    if "ROOTS" in os.environ:
        with open(os.environ["ROOTS"]) as roots:
            found[DatabaseOptions.TLS_ROOT_CERTS.value] = roots.read()
    return found


def moment(text):
    """A day or a moment as Python has it; JSON has neither."""
    if isinstance(text, dict):
        kind, value = next(iter(text.items()))
        return {"day": datetime.date, "moment": datetime.datetime}[kind].fromisoformat(value)
    return text


def objects(connection):
    tables = {}
    for catalogue in connection.adbc_get_objects(depth="all").read_all().to_pylist():
        for schema in catalogue["catalog_db_schemas"] or []:
            for table in schema["db_schema_tables"] or []:
                name = f"{catalogue['catalog_name']}.{schema['db_schema_name']}.{table['table_name']}"
                tables[name] = [column["column_name"] for column in table["table_columns"]]
    return {"tables": tables}


def step(connection, asked):
    if "objects" in asked:
        return objects(connection)
    if "info" in asked:
        return {str(name): value for name, value in connection.adbc_get_info().items()}
    if "autocommit" in asked:
        connection.adbc_connection.set_autocommit(asked["autocommit"])
        return {}
    with connection.cursor() as cursor:
        if "ingest" in asked:
            return {"rows": cursor.adbc_ingest(asked["ingest"], pyarrow.table({"a": ["c4n4ry"]}), mode="create")}
        if "update" in asked:
            cursor.adbc_statement.set_sql_query(asked["update"])
            return {"rows": cursor.adbc_statement.execute_update()}
        if "substrait" in asked:
            cursor.adbc_statement.set_substrait_plan(asked["substrait"].encode())
            return {"rows": str(cursor.adbc_statement.execute_query())}
        if asked.get("cancel"):
            threading.Timer(1, cursor.adbc_cancel).start()
        cursor.execute(asked["sql"], [moment(value) for value in asked.get("parameters", [])] or None)
        table = cursor.fetch_arrow_table()
        if "arrow" in asked:
            with pyarrow.ipc.new_stream(asked["arrow"], table.schema) as stream:
                stream.write_table(table)
        return {"columns": table.column_names, "rows": [[plain(value) for value in row.values()] for row in table.to_pylist()]}


def told(error):
    return {"error": type(error).__name__, "status": getattr(getattr(error, "status_code", None), "name", None), "message": str(error)}


def main():
    try:
        connection = dbapi.connect(sys.argv[1], db_kwargs=options(), autocommit=True)
    except adbc_driver_manager.Error as error:
        print(json.dumps(told(error)), flush=True)
        return
    with connection:
        print(json.dumps({"open": True}), flush=True)
        for line in sys.stdin:
            try:
                answer = step(connection, json.loads(line))
            except adbc_driver_manager.Error as error:
                answer = told(error)
            print(json.dumps(answer), flush=True)


main()
