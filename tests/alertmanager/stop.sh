#!/usr/bin/env bash
# Stops the Alertmanager that start.sh started with this DIR.
#
#   tests/alertmanager/stop.sh DIR
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
exec "$(dirname "$0")/../stop.sh" "$1/alertmanager.pid" 20
