#!/usr/bin/env bash
# Private statistics on the same workload at the same promise: peers from PyPI, work by hand, and Starling.
#   benches/peers/run.sh [ROWS=2000000] [SEEDS=3] > benches/results/DATE-peers.txt
#
# Needs Linux, Python 3.11 and, for Tumult, Java 17. Each peer gets an environment of its own below ~/.cache/starling/peers (STARLING_PEERS_HOME names another place),
# with the versions below. The workload and every answer are kept there too, and what has an answer is not run again: after a change remove its
# files from answers-ROWS/. The seeds are of the noise; the data is that of seed 1. Peers marked slow run once.
#
# STARLING names a program that answers as a peer does:  $STARLING WORKLOAD.parquet --question w1|w2 --seed N --out ANSWER.csv
# (columns: common.py). It is called as one word or several, so "target/release/starling ask --quiet" will do.
set -euo pipefail
export PYTHONDONTWRITEBYTECODE=1
here="$(cd "$(dirname "$0")" && pwd)"
rows="${1:-2000000}"
seeds="${2:-3}"
home="${STARLING_PEERS_HOME:-$HOME/.cache/starling/peers}"
workload="$home/workload-$rows.parquet"
answers="$home/answers-$rows"
mkdir -p "$answers"

# install ENVIRONMENT PACKAGE...: says why on failure, with the installer's last line.
install() {
  local name="$1"
  shift
  [ "$(cat "$home/$name/complete" 2>/dev/null)" = "$*" ] && return
  rm -rf "${home:?}/$name"
  python3 -m venv "$home/$name" && "$home/$name/bin/pip" install --quiet "$@" >"$home/$name.log" 2>&1 && echo "$*" >"$home/$name/complete" && return
  echo "not run: pip install $* failed: $(tail -n 1 "$home/$name.log")" >&2
  return 1
}

# peer NAME RUNS QUESTIONS COMMAND...: NAME-QUESTION-SEED.csv and .json (what it cost), or .why.
peer() {
  local name="$1" runs="$2" questions="$3" question seed out
  shift 3
  for question in $questions; do
    for seed in $(seq "$runs"); do
      out="$answers/$name-$question-$seed"
      [ -s "$out.csv" ] && [ -s "$out.json" ] && continue
      echo "$(date -u +%H:%M:%S) $name $question $seed" >&2
      rm -f "$out".*
      python3 "$here/measure.py" --log "$out.log" "$@" "$workload" --question "$question" --seed "$seed" --out "$out.csv" >"$out.json"
      grep -q '"status": 0' "$out.json" || { echo "not run: failed: $(tail -n 1 "$out.log")" >"$out.why"; rm -f "$out.json" "$out.csv"; break; }
    done
  done
}

# with ENVIRONMENT "PACKAGES" RUNS QUESTIONS SCRIPT VARIANT...
with() {
  local name="$1" packages="$2" runs="$3" questions="$4" script="$5" variant why
  shift 5
  # shellcheck disable=SC2086
  if why="$(install "$name" $packages 2>&1)"; then
    for variant in "$@"; do peer "$name-$variant" "$runs" "$questions" "$home/$name/bin/python" "$here/$script" --variant "$variant"; done
  else
    echo "$why" >"$answers/$name-all-1.why"
  fi
}

install judge numpy==2.4.6 pyarrow==26.0.1
"$home/judge/bin/python" "$here/test_judge.py" 2>&1 | tail -n 1 | grep -qx OK || { echo "the judge is wrong: $home/judge/bin/python $here/test_judge.py" >&2; exit 1; }
[ -s "$workload" ] || "$home/judge/bin/python" "$here/workload.py" --rows "$rows" --seed 1 --out "$workload"

echo "# $(date -u +%Y-%m-%dT%H:%MZ)  commit $(git -C "$here" rev-parse --short HEAD)  benches/peers/run.sh $rows $seeds"
echo "# $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), load before: $(cut -d' ' -f1-3 /proc/loadavg)"

if [ -n "${STARLING:-}" ]; then
  # shellcheck disable=SC2086
  peer starling "$seeds" "w1 w2" $STARLING
else
  echo "not run: STARLING names no program" >"$answers/starling-all-1.why"
fi
with datafusion "datafusion==55.0.0 numpy==2.4.6 pyarrow==26.0.1" "$seeds" "w1 w2" with_datafusion.py plain
with datafusion "datafusion==55.0.0 numpy==2.4.6 pyarrow==26.0.1" "$seeds" "w1" with_datafusion.py window
with byhand "polars==2.1.0 numpy==2.4.6 pyarrow==26.0.1" "$seeds" "w1 w2" by_hand.py no-noise gaussian
opendp="opendp[polars]==0.16.0 polars==1.36.1 numpy==2.4.6 pyarrow==26.0.1"
with opendp "$opendp" "$seeds" "w1 w2" with_opendp.py two-laplace two-gaussian
with opendp "$opendp" "$seeds" "w1" with_opendp.py one-laplace one-gaussian
# Slow: once.
with pipelinedp "pipeline-dp==0.3.1 python-dp==1.1.5 numpy==2.4.6 pyarrow==26.0.1" 1 "w1 w2" with_pipelinedp.py laplace
with smartnoise "smartnoise-sql==1.0.10 opendp==0.14.2 pandas==2.3.3 SQLAlchemy==2.1.9 numpy==2.4.6 pyarrow==26.0.1" 1 "w1" with_smartnoise.py rows-40 rows-4
if command -v java >/dev/null; then
  with tumult "tmlt.analytics==0.21.0 tmlt.core==0.19.1 pyspark==3.5.9 pandas==1.5.3 numpy==1.26.4 pyarrow==18.1.0" 1 "w1 w2" with_tumult.py default
else
  echo "not run: Spark needs Java 17, which is not here" >"$answers/tumult-all-1.why"
fi

"$home/judge/bin/python" "$here/table.py" "$workload" "$answers"
echo "# load after: $(cut -d' ' -f1-3 /proc/loadavg)"
