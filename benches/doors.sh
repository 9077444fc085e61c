#!/usr/bin/env bash
# A released statistic from the PostgreSQL door, beside PostgreSQL itself serving the same rows in the same run, by pgbench.
#   benches/doors.sh [CLIENTS=50] [SECONDS=30] [A_SECOND=300] > benches/results/DATE-doors.txt
# Needs psql and pgbench (Debian: apt-get install postgresql). Prints a line a run: server, statements a second, and percentiles of
# the time from when a statement was due to its last row, in milliseconds: with clients that ask without a pause, and with as many that ask so often
# a second together. "again": one of five statements, as dashboards ask; "new": each statement is another text. Runs of the two servers take turns, each
# alone on the machine. Last, what a user of ours waits while another one asks three long statements all the time.
set -euo pipefail
cd "$(dirname "$0")/.."
clients="${1:-50}" seconds="${2:-30}" a_second="${3:-300}"
for tool in psql pgbench; do
  command -v "$tool" >/dev/null || { echo "missing: $tool. Debian: apt-get install postgresql" >&2; exit 77; }
done
cargo build --release --workspace --bin starling
starling=target/release/starling
dir="$(mktemp -d)"
# The server may run as another user.
chmod 755 "$dir"
pid='' asking=()
trap 'kill $pid "${asking[@]}" 2>/dev/null || true; tests/postgres/stop.sh "$dir/postgres" >/dev/null 2>&1 || true; rm -rf "$dir"' EXIT
echo "# $(date -u +%Y-%m-%dT%H:%MZ)  commit $(git rev-parse --short HEAD)  benches/doors.sh $clients $seconds $a_second"
echo "# $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), load before: $(cut -d' ' -f1-3 /proc/loadavg)"

# --- seven days of released statistics, and a user ------------------------------------------------------------------------------
"$starling" simulate --people 4000 --days 7 --seed 1 --out "$dir/trace" >/dev/null
printf '[postgres]\nlisten = "127.0.0.1:0"\n[serve]\nlisten = "127.0.0.1:0"\n[metrics]\nlisten = ""\n' >"$dir/starling.toml"
"$starling" run --config "$dir/starling.toml" --data-dir "$dir/data" --trace "$dir/trace" --log error >/dev/null
password="$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')"
for user in ada joe; do
  echo "$password" | "$starling" users add "$user" --role product --team product --data-dir "$dir/data" >/dev/null
done
"$starling" serve --config "$dir/starling.toml" --data-dir "$dir/data" --log error >"$dir/served" &
pid=$!
until grep -q '^SQL:' "$dir/served"; do sleep 0.2; kill -0 "$pid"; done
port="$(sed -n 's/^SQL: psql -h [^ ]* -p \([0-9]*\).*/\1/p' "$dir/served")"
ours=(-h 127.0.0.1 -p "$port" -U ada starling)

# --- the same rows in PostgreSQL ------------------------------------------------------------------------------------------------
started="$(tests/postgres/start.sh "$dir/postgres")"
url="$(sed -n 's/^url=//p' <<<"$started")"
their_password="$(sed -E 's|.*://[^:]*:([^@]*)@.*|\1|' <<<"$url")"
theirs=(-h 127.0.0.1 -p "$(sed -E 's|.*@[^:]*:([0-9]*)/.*|\1|' <<<"$url")" -U starling postgres)
export PGSSLMODE=disable
"$starling" sql --data-dir "$dir/data" --format csv "SELECT * FROM stats.messages_daily" >"$dir/messages.csv"
columns="$("$starling" sql --data-dir "$dir/data" --format csv \
  "SELECT column_name, data_type FROM meta.columns WHERE table_schema = 'stats' AND table_name = 'messages_daily' ORDER BY ordinal_position" |
  tail -n +2 | tr -d '"' | sed 's/,double$/ double precision/; s/,/ /' | paste -sd,)"
PGPASSWORD="$their_password" psql -q -v ON_ERROR_STOP=1 "${theirs[@]}" -c "CREATE SCHEMA stats" -c "CREATE TABLE stats.messages_daily ($columns)" \
  -c "\\copy stats.messages_daily FROM '$dir/messages.csv' CSV HEADER" -c "CREATE INDEX ON stats.messages_daily (day)" -c "ANALYZE"
rows="$(PGPASSWORD="$their_password" psql -qAt "${theirs[@]}" -c "SELECT count(*) FROM stats.messages_daily")"

# --- what a dashboard asks: one day by platform, and all days of one ------------------------------------------------------------
cat >"$dir/ask.sql" <<'SQL'
\set d random(5, 9)
SELECT * FROM stats.messages_daily WHERE day = '2026-01-0:d' ORDER BY 2 LIMIT 50;
SQL
cat >"$dir/ask-new.sql" <<'SQL'
\set d random(5, 9)
\set n random(1, 1000000000)
SELECT * FROM stats.messages_daily WHERE day = '2026-01-0:d' AND value < 1e9 + :n ORDER BY 2 LIMIT 50;
SQL
one() { # again|new rate server password target...
  local what="$1" rate="$2" server="$3" password="$4" file=ask.sql; shift 4
  case "$what" in new*) file=ask-new.sql ;; esac
  local paced=(); [ "$rate" = 0 ] || paced=(-R "$rate")
  rm -f "$dir"/log.*
  (cd "$dir" && PGPASSWORD="$password" pgbench -n -c "$clients" -j 2 "${paced[@]}" -T "$seconds" -f "$file" -l --log-prefix=log "$@") >"$dir/told" 2>&1 || { cat "$dir/told" >&2; exit 1; }
  cat "$dir"/log.* | awk '{ print $3 }' | sort -n >"$dir/times"
  awk -v what="$what" -v rate="$rate" -v server="$server" -v seconds="$seconds" -v clients="$clients" '
    { t[NR] = $1 / 1000 }
    function at(share) { i = int(NR * share); return t[i < 1 ? 1 : i] }
    END { printf "{\"server\":\"%s\",\"statements_are\":\"%s\",\"asked_a_second\":%s,\"clients\":%d,\"statements_a_second\":%d,\"p50_ms\":%.2f,\"p90_ms\":%.2f,\"p99_ms\":%.2f,\"most_ms\":%.2f,\"statements\":%d}\n", server, what, rate ? rate : "null", clients, NR / seconds, at(0.5), at(0.9), at(0.99), t[NR], NR }' "$dir/times"
}
echo "# $rows rows; SELECT * FROM stats.messages_daily WHERE day = … ORDER BY 2 LIMIT 50, $clients clients, $seconds s each"
for what in again new again new; do
  for rate in 0 "$a_second"; do
    one "$what" "$rate" starling "$password" "${ours[@]}"
    one "$what" "$rate" postgresql "$their_password" "${theirs[@]}"
  done
done
# --- the same beside three statements of another user, each longer than its ten seconds and asked again when it was ended ----------
long="SELECT count(*) FROM stats.messages_daily a, stats.messages_daily b, stats.messages_daily c WHERE a.epsilon + b.epsilon + c.epsilon < 0"
for _ in 1 2 3; do
  (while true; do PGPASSWORD="$password" psql -h 127.0.0.1 -p "$port" -U joe starling -c "$long" >/dev/null 2>&1 || true; done) &
  asking+=($!)
done
sleep 1
for what in again new; do one "$what beside long ones" "$a_second" starling "$password" "${ours[@]}"; done
kill "${asking[@]}"
echo "# load after: $(cut -d' ' -f1-3 /proc/loadavg)"
