#!/usr/bin/env bash
# Starling as benches/peers/run.sh calls a peer:
#   STARLING="benches/peers/with_starling.sh target/release/starling" benches/peers/run.sh
#
# The file is declared as a dataset, with the bounds and the promise all peers have, and asked in SQL: epsilon 1 and delta 1e-8 in total, of which half
# is the delta epsilon is told at and half finds groups. One sum of bytes counts 25,000 at most in each of four groups (rows are clamped to 20,000).
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
program="$1"
shift
workload=""
while [ $# -gt 0 ]; do
  case "$1" in
    --question) question="$2"; shift 2 ;;
    --out) out="$2"; shift 2 ;;
    --variant | --seed) shift 2 ;; # noise takes no seed here
    *) workload="$1"; shift ;;
  esac
done
home="$(mktemp -d)"
trap 'rm -rf "$home"' EXIT
countries="$(sed -n '/^COUNTRIES = (/,/)/p' "$here/workload.py" | grep -o '"[^"]*"' | tr -d '"' | tr ' ' '\n' | grep . | sed 's/.*/"&"/' | paste -sd,)"
cat >"$home/datasets.toml" <<TOML
[workload]
description = "events of a made-up messenger"
privacy_unit = "one person: all rows of theirs in the file"
rho_limit = 1.0
delta = 5e-9
threshold_delta_limit = 5e-9
[workload.questions]
groups_per_person = 4
rows_per_group = 10
# Fewer values of a person make less noise of a quantile, and they are drawn evenly from theirs.
values_per_person = 7
rho = 0.01
threshold_delta = 5e-9
[workload.questions.source]
parquet = "$(realpath "$workload")"
person = "user_id"
[workload.questions.dimensions.country]
description = "country"
values = [$countries]
[workload.questions.dimensions.platform]
description = "client platform"
[workload.questions.dimensions.version]
description = "client version"
[workload.questions.measures.bytes]
description = "size"
unit = "bytes"
row = [0, 20000]
person = [0, 25000]
TOML
printf '[catalogue]\ndatasets = "%s"\n' "$home/datasets.toml" >"$home/starling.toml"
case "$question" in
  w1) sql="SELECT country, platform, version, COUNT(*) AS count, SUM(bytes) AS sum, COUNT(DISTINCT person) AS people FROM private.workload GROUP BY country, platform, version SETTINGS epsilon = 1" ;;
  w2) sql="SELECT country, MEDIAN(bytes) AS p50, PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY bytes) AS p90 FROM private.workload GROUP BY country SETTINGS epsilon = 1" ;;
esac
"$program" --data-dir "$home/data" --config "$home/starling.toml" sql --format csv "$sql" >"$out"
