"""Reads a statement's rows in parts, through asyncpg: prepared, bound, and executed once a part.

    parts.py HOST PORT USER STATEMENT ROWS     (the password is in PGPASSWORD)

Prints {"parts": [rows of each], "bound": rows of a statement with parameters}.
"""

import asyncio
import datetime
import json
import sys

import asyncpg


async def main():
    host, port, user, statement, rows = sys.argv[1:]
    connection = await asyncpg.connect(host=host, port=int(port), user=user, database="starling", ssl=False)
    parts = []
    async with connection.transaction():
        cursor = await connection.cursor(statement)
        while part := await cursor.fetch(int(rows)):
            parts.append(len(part))
    # Prepared, described, and bound in binary, each value of the type that the server tells.
    day = datetime.date(2026, 1, 5)
    sql = "SELECT day FROM stats.messages_daily WHERE status = $1 AND day >= $2 AND epsilon > $3 LIMIT $4"
    bound = len(await connection.fetch(sql, "released", day, 0.0, 7))
    await connection.close()
    print(json.dumps({"parts": parts, "bound": bound}))


asyncio.run(main())
