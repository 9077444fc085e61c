#!/usr/bin/env bash
# Starts PostgreSQL, runs a command with STARLING_METASTORE__URL naming it, stops PostgreSQL, and exits as the command did.
#
#   tests/postgres/run.sh COMMAND...
#   tests/postgres/run.sh cargo run --release -- demo
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || { echo "usage: $0 COMMAND..." >&2; exit 2; }
dir=$(mktemp -d "${TMPDIR:-/tmp}/starling-postgres.XXXXXX")
trap '"$here/stop.sh" "$dir"; rm -rf "$dir"' EXIT
answer=$("$here/start.sh" "$dir") || { code=$?; echo "$answer"; exit "$code"; }
export STARLING_METASTORE__URL=${answer#url=}
"$@"
