#!/usr/bin/env bash
# Stops the brokers that start.sh started with this DIR, by their process ids, and waits until they are gone.
#
#   tests/kafka/stop.sh DIR
#
# The data stay in DIR. A broker that does not stop within 20 s is killed.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }

shopt -s nullglob
pids=("$1"/broker-*.pid)
for file in "${pids[@]}"; do kill "$(cat "$file")" 2>/dev/null || true; done
for file in "${pids[@]}"; do
  pid=$(cat "$file")
  for _ in $(seq 200); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null || true
  rm -f "$file"
done
