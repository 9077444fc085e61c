#!/usr/bin/env bash
# How long after a kill -9 in the middle of a backlog ingest commits again, with little and with much state behind it, on a real broker.
#   benches/restart.sh [PEOPLE=150000] > benches/results/DATE-restart.txt
set -euo pipefail
cd "$(dirname "$0")/.."
people="${1:-150000}"
cargo build --release --workspace
starling=target/release/starling
dir="$(mktemp -d)"
trap 'kill -9 "${pid:-0}" 2>/dev/null || true; tests/kafka/stop.sh "$dir/kafka" >/dev/null 2>&1 || true; rm -rf "$dir"' EXIT
started="$(tests/kafka/start.sh 1 "$dir/kafka")"
brokers="$(sed -n 's/^bootstrap=//p' <<<"$started")"
echo "# $(date -u +%Y-%m-%dT%H:%MZ)  commit $(git rev-parse --short HEAD)  benches/restart.sh $people"
echo "# $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), load before: $(cut -d' ' -f1-3 /proc/loadavg)"
"$starling" simulate --people "$people" --seed 1 --brokers "$brokers" --topic events | sed 's/^/# /'
# Small ranges: many segments, and a backlog that lasts.
printf '[ingest]\nmax_events = 500\n[metrics]\nlisten = ""\n' >"$dir/starling.toml"
# Offsets begin at 0, so their sum is what is committed.
events() { "$starling" ingest status --json --data-dir "$dir/data" 2>/dev/null | grep -o '"next_offset":[0-9]*' | awk -F: '{ sum += $2 } END { print sum + 0 }'; }
begin() { "$starling" ingest --config "$dir/starling.toml" --brokers "$brokers" --topic events --data-dir "$dir/data" --log error & pid=$!; }
begin
for share in 2 20 50; do
  until [ "$(events || echo 0)" -gt $((people * 16 * share / 100)) ] 2>/dev/null; do sleep 0.2; done
  kill -9 "$pid"; wait "$pid" 2>/dev/null || true
  before="$(events)"
  segments="$(find "$dir/data/files/segments" -type f | wc -l)"
  from="$(date +%s%N)"
  begin
  until [ "$(events || echo 0)" -gt "$before" ] 2>/dev/null; do sleep 0.02; done
  echo "{\"events_committed\":$before,\"segments\":$segments,\"seconds_until_the_next_commit\":$(awk -v from="$from" -v to="$(date +%s%N)" 'BEGIN { printf "%.2f", (to - from) / 1e9 }')}"
done
echo "# load after: $(cut -d' ' -f1-3 /proc/loadavg)"
