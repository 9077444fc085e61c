#!/usr/bin/env bash
# Starts a real Prometheus on this machine for tests, on a free loopback port, with the rules of jobs/deploy.
#
#   tests/prometheus/start.sh DIR HOST:PORT      scrapes HOST:PORT every second; prints `url=127.0.0.1:PORT` when it is ready
#   tests/prometheus/start.sh --tools            prints the folder of `prometheus` and `promtool`, and starts nothing
#
# DIR holds its data, its log and its process id; `tests/prometheus/stop.sh DIR` stops it. The tools are those of the PATH; else those of
# Debian's package, which is unpacked once into $STARLING_PROMETHEUS_CACHE (default: ~/.cache/starling/prometheus) and not installed, so that no
# service is started. Exits with 77 where neither is to be had, as a test that was skipped.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
deploy=$here/../../jobs/deploy

find_tools() { # sets `tools`
  if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    tools=$(dirname "$(command -v prometheus)")
    return 0
  fi
  local cache=${STARLING_PROMETHEUS_CACHE:-$HOME/.cache/starling/prometheus}
  tools=$cache/root/usr/bin
  [ -x "$tools/prometheus" ] && [ -x "$tools/promtool" ] && return 0
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  if command -v flock >/dev/null; then flock 9; fi
  if [ ! -x "$tools/promtool" ]; then
    rm -f "$cache"/*.deb
    (cd "$cache" && apt-get -qq download prometheus) >&2 || return 1
    dpkg-deb -x "$cache"/prometheus_*.deb "$cache/unpacking"
    rm -rf "$cache/root"
    mv "$cache/unpacking" "$cache/root"
    rm -f "$cache"/*.deb
  fi
  exec 9>&-
}

find_tools || { echo "skipped: prometheus and promtool are neither installed nor to be had from apt-get"; exit 77; }
if [ "${1:-}" = --tools ]; then
  echo "$tools"
  exit 0
fi
[ $# = 2 ] || { echo "usage: $0 DIR HOST:PORT | --tools" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
if [ -e "$dir/prometheus.pid" ]; then
  echo "$0: $dir has a Prometheus already; stop it with stop.sh first" >&2
  exit 1
fi

# The settings of jobs/deploy, with this target and a second's pace.
cp "$deploy/alerts.yaml" "$dir/"
sed -e 's/scrape_interval: .*/scrape_interval: 1s/' -e 's/evaluation_interval: .*/evaluation_interval: 1s/' \
  -e "s/127\.0\.0\.1:9464/$2/" "$deploy/prometheus.yaml" >"$dir/prometheus.yaml"
sed -i 's/interval: 30s/interval: 1s/' "$dir/alerts.yaml"
grep -q "$2" "$dir/prometheus.yaml" || { echo "$0: jobs/deploy/prometheus.yaml has no target to replace" >&2; exit 1; }

for _ in $(seq 5); do
  for _ in $(seq 200); do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
  done
  nohup "$tools/prometheus" --config.file="$dir/prometheus.yaml" --storage.tsdb.path="$dir/data" \
    --web.listen-address="127.0.0.1:$port" --log.level=warn >"$dir/prometheus.log" 2>&1 </dev/null &
  echo $! >"$dir/prometheus.pid"
  for _ in $(seq 3000); do
    kill -0 "$(cat "$dir/prometheus.pid")" 2>/dev/null || break
    # Asked over bash's own TCP: curl may not be there.
    if (exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'GET /-/ready HTTP/1.0\r\n\r\n' >&3 && head -n 1 <&3 | grep -q ' 200 ') 2>/dev/null; then
      echo "url=127.0.0.1:$port" | tee "$dir/url"
      exit 0
    fi
    sleep 0.1
  done
  # Somebody took the port in between: again with another one.
  grep -q "address already in use" "$dir/prometheus.log" || break
done
echo "$0: Prometheus did not start; the end of $dir/prometheus.log:" >&2
tail -n 20 "$dir/prometheus.log" >&2
"$here/stop.sh" "$dir"
exit 1
