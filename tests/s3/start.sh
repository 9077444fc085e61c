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
# credentials and objects: an outage, for a test. Exits with 77 when there is no Go, as a test that was skipped.
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
    GOBIN="$cache/building" CGO_ENABLED=0 go install "github.com/versity/versitygw/cmd/versitygw@v$version" >&2
    mv "$cache/building/versitygw" "$cache/versitygw"
  fi
  exec 9>&-
fi

# --- port and credentials, the same ones at a restart -------------------------------------------------------------------------
if [ ! -e "$dir/server" ]; then
  for tries in $(seq 200); do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    [ "$tries" != 200 ] || { echo "$0: no free port found" >&2; exit 1; }
  done
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
ROOT_ACCESS_KEY_ID=$(setting access_key) ROOT_SECRET_ACCESS_KEY=$(setting secret_key) \
  nohup "$cache/versitygw" --port "127.0.0.1:$port" --keep-alive --quiet \
  --access-log "$dir/access.log" posix --sidecar "$dir/metadata" "$dir/objects" >>"$dir/server.log" 2>&1 </dev/null &
echo $! >"$dir/server.pid"
for tenth in $(seq 300); do
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
  if ! kill -0 "$(cat "$dir/server.pid")" 2>/dev/null || [ "$tenth" = 300 ]; then
    echo "$0: the server did not start; the end of $dir/server.log:" >&2
    tail -n 20 "$dir/server.log" >&2
    "$(dirname "$0")/stop.sh" "$dir"
    exit 1
  fi
  sleep 0.1
done
cat "$dir/server"
