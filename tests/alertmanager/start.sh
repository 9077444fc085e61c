#!/usr/bin/env bash
# Starts a real Alertmanager on this machine for tests, on a loopback port.
#
#   tests/alertmanager/start.sh DIR [PORT]     on that port, or on a free one; prints `url=127.0.0.1:PORT` when it is ready
#   tests/alertmanager/start.sh DIR tls        on a free port, under a certificate of its own, DIR/server.crt, for 127.0.0.1
#   tests/alertmanager/start.sh --tool         prints the path of the executable, and starts nothing
#
# DIR holds its log and its process id; `tests/alertmanager/stop.sh DIR` stops it. The executable is `alertmanager` or `prometheus-alertmanager`
# of the PATH; else that of Debian's package, which is unpacked once into $STARLING_ALERTMANAGER_CACHE (default: ~/.cache/starling/alertmanager) and
# not installed, so that no service is started. Debian's reads its templates from /usr/share, so there it runs in a mount namespace of its own in
# which the package's /usr/share lies over the machine's. Exits with 77 where neither is to be had, as a test that was skipped.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

inside=() # what the executable is started by
find_tool() { # sets `tool` and `inside`
  local name
  for name in prometheus-alertmanager alertmanager; do
    tool=$(command -v "$name") && return 0
  done
  local cache=${STARLING_ALERTMANAGER_CACHE:-$HOME/.cache/starling/alertmanager}
  tool=$cache/root/usr/bin/prometheus-alertmanager
  enter "$cache/root/usr/share" && return 0
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  if command -v flock >/dev/null; then flock 9; fi
  if [ ! -x "$tool" ]; then
    rm -f "$cache"/*.deb
    (cd "$cache" && apt-get -qq download prometheus-alertmanager) >&2 || return 1
    dpkg-deb -x "$cache"/prometheus-alertmanager_*.deb "$cache/unpacking"
    rm -rf "$cache/root"
    mv "$cache/unpacking" "$cache/root"
    rm -f "$cache"/*.deb
  fi
  exec 9>&-
  enter "$cache/root/usr/share"
}

enter() { # whether the unpacked executable can be started with this folder as /usr/share; sets `inside`
  [ -x "$tool" ] && [ -d "$1" ] || return 1
  local unshare=(unshare --mount)
  [ "$(id -u)" = 0 ] || unshare+=(--map-root-user)
  inside=("${unshare[@]}" bash -c 'mount --bind "$0" /usr/share && exec "$@"' "$1")
  "${inside[@]}" true 2>/dev/null
}

find_tool || { echo "skipped: Alertmanager is neither installed nor to be had from apt-get and started in a mount namespace"; exit 77; }
if [ "${1:-}" = --tool ]; then
  echo "$tool"
  exit 0
fi
[ $# = 1 ] || [ $# = 2 ] || { echo "usage: $0 DIR [PORT|tls] | --tool" >&2; exit 2; }
wanted=${2:-}
mkdir -p "$1"
dir=$(cd "$1" && pwd)
if [ -e "$dir/alertmanager.pid" ]; then
  echo "$0: $dir has an Alertmanager already; stop it with stop.sh first" >&2
  exit 1
fi
printf 'route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n' >"$dir/alertmanager.yml"
more=()
if [ "$wanted" = tls ]; then
  wanted=
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext "subjectAltName=IP:127.0.0.1" \
    -addext "basicConstraints=critical,CA:FALSE" -keyout "$dir/server.key" -out "$dir/server.crt" 2>"$dir/openssl.log"
  printf 'tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n' >"$dir/web.yml"
  more=("--web.config.file=$dir/web.yml")
fi

# Asked over bash's own TCP: curl may not be there. Under TLS only that somebody listens.
is_ready() {
  if [ ${#more[@]} = 0 ]; then
    exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'GET /-/ready HTTP/1.0\r\n\r\n' >&3 && head -n 1 <&3 | grep -q ' 200 '
  else
    exec 3<>"/dev/tcp/127.0.0.1/$port"
  fi
}

for _ in $(seq 5); do
  port=$wanted
  if [ -z "$port" ]; then
    for _ in $(seq 200); do
      port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
      if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    done
  fi
  nohup "${inside[@]}" "$tool" --config.file="$dir/alertmanager.yml" --storage.path="$dir/data" --cluster.listen-address= \
    --web.listen-address="127.0.0.1:$port" --log.level=debug "${more[@]}" >"$dir/alertmanager.log" 2>&1 </dev/null &
  echo $! >"$dir/alertmanager.pid"
  for _ in $(seq 3000); do
    kill -0 "$(cat "$dir/alertmanager.pid")" 2>/dev/null || break
    if (is_ready) 2>/dev/null; then
      echo "url=127.0.0.1:$port" | tee "$dir/url"
      exit 0
    fi
    sleep 0.1
  done
  # Somebody took the port in between: again with another one.
  grep -q "address already in use" "$dir/alertmanager.log" || break
done
echo "$0: Alertmanager did not start; the end of $dir/alertmanager.log:" >&2
tail -n 20 "$dir/alertmanager.log" >&2
"$here/stop.sh" "$dir"
exit 1
