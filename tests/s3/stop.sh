#!/usr/bin/env bash
# Stops the server that start.sh started with this DIR.
#
#   tests/s3/stop.sh DIR
#
# The objects stay in DIR. It waits for its clients' connections, and keeps nothing in memory, so it is killed soon.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
exec "$(dirname "$0")/../stop.sh" "$1/server.pid" 2
