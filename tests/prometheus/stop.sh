#!/usr/bin/env bash
# Stops the Prometheus that start.sh started with this DIR, by its process id, and waits until it is gone.
#
#   tests/prometheus/stop.sh DIR
#
# The data stay in DIR. One that does not stop within 20 s is killed.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
[ -e "$1/prometheus.pid" ] || exit 0
pid=$(cat "$1/prometheus.pid")
kill "$pid" 2>/dev/null || true
for _ in $(seq 200); do
  kill -0 "$pid" 2>/dev/null || break
  sleep 0.1
done
kill -9 "$pid" 2>/dev/null || true
rm -f "$1/prometheus.pid"
