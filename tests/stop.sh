#!/usr/bin/env bash
# Stops a server that a start.sh started, by the id in its file, and waits until it is gone.
#
#   tests/stop.sh PID_FILE SECONDS
#
# One that does not stop in time is killed.
set -euo pipefail
[ $# = 2 ] || { echo "usage: $0 PID_FILE SECONDS" >&2; exit 2; }
[ -e "$1" ] || exit 0
pid=$(cat "$1")
kill "$pid" 2>/dev/null || true
for _ in $(seq $(($2 * 10))); do
  kill -0 "$pid" 2>/dev/null || break
  sleep 0.1
done
kill -9 "$pid" 2>/dev/null || true
rm -f "$1"
