#!/usr/bin/env bash
# Stops the Prometheus that start.sh started with this DIR.
#
#   tests/prometheus/stop.sh DIR
#
# The data stay in DIR.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
exec "$(dirname "$0")/../stop.sh" "$1/prometheus.pid" 20
