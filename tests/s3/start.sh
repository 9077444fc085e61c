#!/usr/bin/env bash
# Starts an S3 server on this machine for tests, on a free loopback port, with random credentials and one bucket.
#
#   tests/s3/start.sh DIR
#
# Prints, when it answers, and leaves in DIR/server:
#
#   endpoint=http://127.0.0.1:PORT
#   bucket=starling
#   access_key=...
#   secret_key=...
#
# DIR holds the server's data, log and process id; `tests/s3/stop.sh DIR` stops it. Started again with the same DIR it has the same port,
# credentials and objects: an outage, for a test. Exits with 77 when there is no Go or no module proxy to be had, as a test that was skipped.
#
# The server is Versity's S3 gateway over a folder (Apache-2.0), built once from the Go module proxy into $STARLING_S3_CACHE
# (default: ~/.cache/starling/versitygw-VERSION). Of the servers that package registries have, it honours `If-None-Match` under a lock
# (its own tests race for it), lists and aborts unfinished uploads, checks signatures, and is one executable.
set -euo pipefail

version=${STARLING_S3_VERSION:-1.8.0}
[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
cache=${STARLING_S3_CACHE:-$HOME/.cache/starling/versitygw-$version}
if [ ! -x "$cache/versitygw" ]; then
  command -v go >/dev/null || { echo "skipped: Go is not installed (Debian: apt-get install golang), so no S3 server can be built"; exit 77; }
fi
mkdir -p "$1"
dir=$(cd "$1" && pwd)
if [ -e "$dir/server.pid" ]; then
  echo "$0: $dir has a server already; stop it with stop.sh first" >&2
  exit 1
fi

# --- the server's executable, once --------------------------------------------------------------------------------------------
if [ ! -x "$cache/versitygw" ]; then
  mkdir -p "$cache/building"
  exec 9>"$cache/lock"
  if command -v flock >/dev/null; then flock 9; fi
  if [ ! -x "$cache/versitygw" ]; then
    for try in 1 2 3; do
      if GOBIN="$cache/building" CGO_ENABLED=0 go install "github.com/versity/versitygw/cmd/versitygw@v$version" \
        >"$cache/go.log" 2>&1; then
        mv "$cache/building/versitygw" "$cache/versitygw"
        break
      fi
      sleep $((try * 2))
    done
    if [ ! -x "$cache/versitygw" ]; then
      tail -n 20 "$cache/go.log" >&2
      # What was got and does not build, which Go tells by package behind a `#`, is a fault and not skipped.
      if grep -q '^# ' "$cache/go.log"; then exit 1; fi
      echo "skipped: the S3 server is not to be had from the Go module proxy"
      exit 77
    fi
  fi
  exec 9>&-
fi

# --- port and credentials, the same ones at a restart -------------------------------------------------------------------------
free_port() { # sets `port`
  local tries
  for tries in $(seq 200); do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return 0; fi
  done
  echo "$0: no free port found" >&2
  exit 1
}
is_new=
if [ ! -e "$dir/server" ]; then
  is_new=yes
  free_port
  random() { od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }
  mkdir -p "$dir/objects/starling" "$dir/metadata" # a folder is a bucket to this server
  (
    umask 077
    printf 'endpoint=http://127.0.0.1:%s\nbucket=starling\naccess_key=%s\nsecret_key=%s\n' \
      "$port" "TEST$(random 8)" "$(random 20)" >"$dir/server.new"
  )
  mv "$dir/server.new" "$dir/server"
fi
setting() { sed -n "s/^$1=//p" "$dir/server"; }
port=$(setting endpoint | sed 's/.*://')

# --- start, and wait until it answers -----------------------------------------------------------------------------------------
# Credentials through the environment: a command line can be read by everybody. Metadata in files beside the objects, since not every
# file system has extended attributes.
for _ in $(seq 5); do
  if [ -e "$dir/server.log" ]; then cat "$dir/server.log" >>"$dir/earlier.log"; fi
  ROOT_ACCESS_KEY_ID=$(setting access_key) ROOT_SECRET_ACCESS_KEY=$(setting secret_key) \
    nohup "$cache/versitygw" --port "127.0.0.1:$port" --keep-alive --quiet \
    --access-log "$dir/access.log" posix --sidecar "$dir/metadata" "$dir/objects" >"$dir/server.log" 2>&1 </dev/null &
  echo $! >"$dir/server.pid"
  for _ in $(seq 3000); do
    kill -0 "$(cat "$dir/server.pid")" 2>/dev/null || break
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      # It may be somebody else who answers there, and ours about to find the port taken.
      sleep 0.2
      kill -0 "$(cat "$dir/server.pid")" 2>/dev/null || break
      cat "$dir/server"
      exit 0
    fi
    sleep 0.1
  done
  # Somebody took the port in between: again with another one, or once more with the one it had before.
  grep -q "address already in use" "$dir/server.log" || break
  if [ -n "$is_new" ]; then
    free_port
    sed -i "s|^endpoint=.*|endpoint=http://127.0.0.1:$port|" "$dir/server"
  else
    sleep 0.5
  fi
done
echo "$0: the server did not start; the end of $dir/server.log:" >&2
tail -n 20 "$dir/server.log" >&2
"$(dirname "$0")/stop.sh" "$dir"
exit 1
