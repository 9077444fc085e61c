#!/usr/bin/env bash
# Stops the server that start.sh started with this DIR, by its process id, and waits until it is gone.
#
#   tests/s3/stop.sh DIR
#
# The objects stay in DIR. A server that does not stop within 2 s (it waits for its clients' connections) is killed: it
# keeps nothing in memory.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
[ -e "$1/server.pid" ] || exit 0
pid=$(cat "$1/server.pid")
kill "$pid" 2>/dev/null || true
for _ in $(seq 20); do
  kill -0 "$pid" 2>/dev/null || break
  sleep 0.1
done
kill -9 "$pid" 2>/dev/null || true
rm -f "$1/server.pid"
