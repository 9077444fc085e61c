#!/usr/bin/env bash
# Starts Kafka, runs a command with STARLING_TEST_BROKERS set, stops Kafka, and exits as the command did.
#
#   tests/kafka/run.sh [1|3] COMMAND...
#   tests/kafka/run.sh cargo test -p starling-ingest --test real_kafka
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
brokers=1
case ${1:-} in 1 | 3) brokers=$1; shift ;; esac
[ $# -gt 0 ] || { echo "usage: $0 [1|3] COMMAND..." >&2; exit 2; }
dir=$(mktemp -d "${TMPDIR:-/tmp}/starling-kafka.XXXXXX")
trap '"$here/stop.sh" "$dir"; rm -rf "$dir"' EXIT
answer=$("$here/start.sh" "$brokers" "$dir") || { code=$?; echo "$answer"; exit "$code"; }
export STARLING_TEST_BROKERS=${answer##*bootstrap=}
"$@"
