#!/usr/bin/env bash
# Stops the server that start.sh started with this DIR, by its process id, and waits until it is gone.
#
#   tests/postgres/stop.sh DIR [fast|immediate]
#
# `fast` (the default) ends transactions and checkpoints; `immediate` is a crash: the next start recovers. The data stay in DIR.
set -euo pipefail
case $# in 1 | 2) ;; *) echo "usage: $0 DIR [fast|immediate]" >&2; exit 2 ;; esac
[ -e "$1/server.pid" ] || exit 0
pid=$(cat "$1/server.pid")
signal=INT
if [ "${2:-fast}" = immediate ]; then signal=QUIT; fi
kill -"$signal" "$pid" 2>/dev/null || true
for _ in $(seq 300); do
  kill -0 "$pid" 2>/dev/null || { rm -f "$1/server.pid"; exit 0; }
  sleep 0.1
done
kill -9 "$pid" 2>/dev/null || true
rm -f "$1/server.pid"
