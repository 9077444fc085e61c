#!/usr/bin/env bash
# Starts an S3 server, runs a command with STARLING_TEST_S3 naming the file with its address, stops it, and exits as the command did.
#
#   tests/s3/run.sh COMMAND...
#   tests/s3/run.sh cargo test -p starling-store --test both_stores
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || { echo "usage: $0 COMMAND..." >&2; exit 2; }
dir=$(mktemp -d "${TMPDIR:-/tmp}/starling-s3.XXXXXX")
trap '"$here/stop.sh" "$dir"; rm -rf "$dir"' EXIT
answer=$("$here/start.sh" "$dir") || { code=$?; echo "$answer"; exit "$code"; }
export STARLING_TEST_S3=$dir/server
"$@"
