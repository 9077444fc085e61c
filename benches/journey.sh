#!/usr/bin/env bash
# Kafka → durable committed person rows, beside a bare drain of the same topic by the same library, on a real broker, in one run.
#   benches/journey.sh [PEOPLE=60000] > benches/results/DATE-journey.txt
set -euo pipefail
cd "$(dirname "$0")/.."
people="${1:-60000}"
cargo build --release --workspace
starling=target/release/starling
dir="$(mktemp -d)"
trap 'tests/kafka/stop.sh "$dir/kafka" >/dev/null 2>&1 || true; rm -rf "$dir"' EXIT
started="$(tests/kafka/start.sh 1 "$dir/kafka")"
brokers="$(sed -n 's/^bootstrap=//p' <<<"$started")"
echo "# $(date -u +%Y-%m-%dT%H:%MZ)  commit $(git rev-parse --short HEAD)  benches/journey.sh $people"
echo "# $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), load before: $(cut -d' ' -f1-3 /proc/loadavg)"
"$starling" simulate --people "$people" --seed 1 --brokers "$brokers" --topic events | sed 's/^/# /'
"$starling" measure --brokers "$brokers" --topic events --data-dir "$dir/data" --log error
# One partition on one core, two on two. The broker has whatever is left of both.
for n in 1 2; do
  echo "# $n of $(nproc) cores, a topic of $n partitions"
  "$starling" simulate --people "$people" --seed 1 --brokers "$brokers" --topic "events-$n" --partitions "$n" >/dev/null
  taskset --cpu-list "0-$((n - 1))" "$starling" measure --brokers "$brokers" --topic "events-$n" --data-dir "$dir/data" --log error | grep -v poll
done
echo "# load after: $(cut -d' ' -f1-3 /proc/loadavg)"
