#!/usr/bin/env bash
# Starts a PostgreSQL of its own for tests, on a free loopback port, with a random password (scram-sha-256) and TLS.
#
#   tests/postgres/start.sh DIR
#   tests/postgres/start.sh --check     only says whether a server could be started
#
# Prints one line, `url=postgres://starling:PASSWORD@127.0.0.1:PORT/postgres`, when the server answers. DIR holds its data, log, password and
# certificate; `tests/postgres/stop.sh DIR` stops it, and start.sh with the same DIR starts it again on the same port; `database.sh DIR`
# makes an empty database in it. The server may not
# run as root: called by root, it runs as `postgres` or `nobody`. Exits with 77 when no server is installed, as a test that was skipped.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)

# --- the server's programs: the newest that Debian installed, or what is on the PATH ------------------------------------------
bin=""
for candidate in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV); do
  if [ -x "$candidate/initdb" ] && [ -x "$candidate/pg_ctl" ]; then bin=$candidate; break; fi
done
if [ -z "$bin" ]; then
  if command -v initdb >/dev/null && command -v pg_ctl >/dev/null; then
    bin=$(dirname "$(command -v initdb)")
  else
    echo "skipped: no PostgreSQL server here; Debian: apt-get install postgresql"
    exit 77
  fi
fi

if [ "$1" = --check ]; then echo "$bin"; exit 0; fi

# --- an unprivileged user -----------------------------------------------------------------------------------------------------
as=()
if [ "$(id -u)" = 0 ]; then
  for user in postgres nobody; do
    if id "$user" >/dev/null 2>&1; then break; fi
  done
  as=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups env "HOME=/nonexistent" "PATH=$PATH")
fi

mkdir -p "$1"
dir=$(cd "$1" && pwd)
if [ ${#as[@]} -gt 0 ]; then
  chown "$user" "$dir"
  if ! "${as[@]}" test -x "$dir"; then
    echo "$0: the server runs as $user, who may not enter $dir: choose a folder whose parents others may pass through" >&2
    exit 1
  fi
fi
cd "$dir"
echo "$bin" >"$dir/bin"

# --- data, once ---------------------------------------------------------------------------------------------------------------
if [ ! -e "$dir/data/PG_VERSION" ]; then
  password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  (umask 077; echo "$password" >"$dir/password")
  if [ ${#as[@]} -gt 0 ]; then chown "$user" "$dir/password"; fi
  "${as[@]}" "$bin/initdb" --pgdata="$dir/data" --username=starling --pwfile="$dir/password" --auth=scram-sha-256 --encoding=UTF8 \
    --no-locale --no-sync >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; exit 1; }
  # A certificate for 127.0.0.1 and localhost, signed by itself: `sslrootcert` for those who check it.
  if command -v openssl >/dev/null; then
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost -addext "subjectAltName=DNS:localhost,IP:127.0.0.1" \
      -addext "basicConstraints=critical,CA:FALSE" -keyout "$dir/server.key" -out "$dir/server.crt" 2>"$dir/openssl.log"
    chmod 600 "$dir/server.key"
    if [ ${#as[@]} -gt 0 ]; then chown "$user" "$dir/server.key"; fi
    printf "ssl = on\nssl_cert_file = '%s'\nssl_key_file = '%s'\n" "$dir/server.crt" "$dir/server.key" >>"$dir/data/postgresql.conf"
  fi
  # fsync stays on, as in production: what is measured and killed here is meant. Few resources: the machine is shared.
  cat >>"$dir/data/postgresql.conf" <<EOF
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 100
shared_buffers = 32MB
max_wal_size = 256MB
logging_collector = off
log_line_prefix = '%m [%p] '
log_statement = none
EOF
fi

# --- start, on the port it had before, or on a free one ------------------------------------------------------------------------
"$here/stop.sh" "$dir"
for _ in $(seq 20); do
  if [ -e "$dir/port" ]; then port=$(cat "$dir/port"); else port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000)); fi
  if "${as[@]}" "$bin/pg_ctl" start --pgdata="$dir/data" --log="$dir/data/log" --options="-p $port" --wait --timeout=300 \
    >"$dir/pg_ctl.log" 2>&1 </dev/null; then
    echo "$port" >"$dir/port"
    head -n 1 "$dir/data/postmaster.pid" >"$dir/server.pid"
    echo "url=postgres://starling:$(cat "$dir/password")@127.0.0.1:$port/postgres"
    exit 0
  fi
  grep -q "could not bind\|Address already in use" "$dir/data/log" 2>/dev/null || break
  if [ -e "$dir/port" ]; then sleep 0.5; fi
done
echo "$0: PostgreSQL did not start; the end of $dir/data/log:" >&2
tail -n 20 "$dir/data/log" "$dir/pg_ctl.log" >&2 || true
exit 1
