#!/usr/bin/env bash
# Makes an empty database in the server that start.sh started with this DIR, and prints its address.
#
#   tests/postgres/database.sh DIR [OPTIONS OF CREATE DATABASE]
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: $0 DIR [OPTIONS]" >&2; exit 2; }
dir=$1
shift
name=t$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
PGPASSWORD=$(cat "$dir/password") "$(cat "$dir/bin")/psql" --no-psqlrc --quiet --set ON_ERROR_STOP=1 \
  "host=127.0.0.1 port=$(cat "$dir/port") user=starling dbname=postgres" --command "CREATE DATABASE $name $*" >&2
echo "url=postgres://starling:$(cat "$dir/password")@127.0.0.1:$(cat "$dir/port")/$name"
