"""A session of psycopg's, led by JSON on standard input: one step a line, one answer a line.

    client.py DSN [transactions]

{"sql": ..., "binary": true}     -> {"rows": [...], "types": [oid, ...], "notices": [...]}, or {"code", "message", "detail", "hint"}
{"sql": ..., "equals": FILE}     -> {"rows": number, "differ": [...]}: beside the rows of `starling sql --format json` in FILE
{"sql": ..., "cancel": seconds}  -> the same, with a cancel request after so long, and again until it has come to its end
{"status": true}                 -> {"status": "IDLE"}
"""

import datetime
import json
import sys
import threading

import psycopg


def plain(value):
    if isinstance(value, datetime.datetime):
        text = value.replace(tzinfo=None).isoformat()
        return text.rstrip("0").rstrip(".") if "." in text else text
    return value.isoformat() if isinstance(value, datetime.date) else value


def told(value):
    """A value of `starling sql`, which writes moments with as many digits as there are."""
    is_moment = isinstance(value, str) and len(value) > 19 and value[10] == "T" and "." in value
    return value.rstrip("Z").rstrip("0").rstrip(".") if is_moment else value


def shown(rows):
    return sorted(json.dumps(row) for row in rows)


def cancel(connection, seconds, ended):
    """One request alone may come before the server is at the statement, and then ends nothing."""
    while not ended.wait(seconds):
        connection.cancel_safe()
        seconds = 0.3


def ask(connection, step, notices):
    notices.clear()
    ended, canceller = threading.Event(), None
    if "cancel" in step:
        canceller = threading.Thread(target=cancel, args=(connection, step["cancel"], ended))
        canceller.start()
    try:
        cursor = connection.execute(step["sql"], step.get("parameters"), binary=step.get("binary", False))
        if cursor.description is None:
            return {"rows": None, "status": cursor.statusmessage, "notices": list(notices)}
        rows = [[plain(value) for value in row] for row in cursor.fetchall()]
        if "equals" in step:
            names = [column.name for column in cursor.description]
            with open(step["equals"]) as lines:
                expected = [[told(json.loads(line)[name]) for name in names] for line in lines]
            pairs = zip(shown(rows), shown(expected))
            differ = [pair for pair in pairs if pair[0] != pair[1]]
            return {"rows": len(rows), "expected": len(expected), "differ": differ[:3]}
        types = [column.type_code for column in cursor.description]
        return {"rows": rows, "types": types, "notices": list(notices)}
    except psycopg.Error as error:
        diag = error.diag
        return {"code": diag.sqlstate, "message": diag.message_primary or str(error), "detail": diag.message_detail, "hint": diag.message_hint}
    finally:
        ended.set()
        if canceller is not None:
            # None of its requests may meet the next statement.
            canceller.join()


def main():
    notices = []
    with psycopg.connect(sys.argv[1], autocommit="transactions" not in sys.argv[2:]) as connection:
        connection.add_notice_handler(lambda diag: notices.append(f"{diag.severity} {diag.message_primary}"))
        print(json.dumps({"version": connection.info.server_version, "user": connection.info.user}), flush=True)
        for line in sys.stdin:
            step = json.loads(line)
            if "status" in step:
                answer = {"status": connection.info.transaction_status.name}
            else:
                answer = ask(connection, step, notices)
            print(json.dumps(answer), flush=True)


main()
