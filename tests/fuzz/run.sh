#!/usr/bin/env bash
# Looks for inputs that break a reader of foreign bytes: every target for so many seconds, beginning with the checked-in corpus.
#
#   tests/fuzz/run.sh [SECONDS=60] [TARGET...]     look somewhere new; 1 when something was found, and how to see it again
#   tests/fuzz/run.sh --same [TARGET...]           look where everybody looks: one seed, so many inputs, about a minute each. What a change must pass: it
#                                                  finds what the change broke, and not by chance what was broken before
#   tests/fuzz/run.sh --merge [TARGET...]          take what target/fuzz/corpus has beyond the checked-in corpus into it, as little as covers it
#   tests/fuzz/run.sh --replay FILE TARGET         one input
#
# The stable toolchain will do: the coverage that libFuzzer needs is a pass of LLVM's, and stable has it. There is no AddressSanitizer, which
# would take nightly: what is fuzzed is safe Rust, and a panic, an overflow, a hang and memory without bound are found without it.
# 77 says which tool is missing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
all=(decoder canonical plans trace framing range)

mode=look seconds=60 input=
case ${1:-} in
  --merge) mode=merge; shift ;;
  --same) mode=same; shift ;;
  --replay) mode=replay; input=${2:?a file}; shift 2 ;;
  '' | *[!0-9]*) ;;
  *) seconds=$1; shift ;;
esac
targets=("${@:-${all[@]}}")
for target in "${targets[@]}"; do
  [[ " ${all[*]} " == *" $target "* ]] || { echo "no target \`$target\`; there are: ${all[*]}" >&2; exit 2; }
done

for tool in cargo c++; do
  command -v "$tool" >/dev/null || { echo "skipped: fuzzing needs $tool (Rust 1.94 or newer, and a C++ compiler for libFuzzer; Debian: apt-get install g++)"; exit 77; }
done
triple=$(rustc -vV | sed -n 's/^host: //p')
case $triple in *-linux-gnu | *-apple-darwin) ;; *) echo "skipped: fuzzing is set up for Linux (glibc) and macOS, this is $triple"; exit 77 ;; esac

# What cargo-fuzz passes too, without having to be installed. `--target` keeps it away from build scripts and procedural macros.
RUSTFLAGS="--cfg fuzzing -Cdebug-assertions -Ccodegen-units=4 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
built=target/fuzz/build
export RUSTFLAGS CARGO_INCREMENTAL=0
bins=(); for target in "${targets[@]}"; do bins+=(--bin "$target"); done
echo "building ${targets[*]} (a few minutes the first time)"
cargo build --quiet --release --locked --package starling-fuzz --features engine \
  --target "$triple" --target-dir "$built" "${bins[@]}"

# Scratch files of the `trace` target, in memory where there is a place for it.
scratch=$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")/starling-fuzz.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
export TMPDIR=$scratch
# Buffers of a reader are kept by the allocator instead of being given back to the system after each input.
export MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TRIM_THRESHOLD_=536870912

# For the same look every time: hash tables without a random seed, and addresses that do not move. Where the system does not allow the latter (a
# container may not), `plans` and `trace` would go slightly different ways each time: what they found would be chance, so they only go through
# the checked-in corpus.
same=() moves=yes
if [ "$mode" = same ] && [[ $triple == *-linux-gnu ]]; then
  echo '#include <string.h>
#include <sys/types.h>
ssize_t getrandom(void *to, size_t bytes, unsigned flags) { (void)flags; memset(to, 1, bytes); return (ssize_t)bytes; }' >"$scratch/seedless.c"
  c++ -x c -shared -fPIC -o "$scratch/seedless.so" "$scratch/seedless.c"
  same=(env LD_PRELOAD="$scratch/seedless.so")
  if setarch -R true 2>/dev/null; then same+=(setarch -R) moves=; fi
fi

# How far one target is taken; what it came to is on its standard output, and 1 says that something was found.
look() {
  local target=$1 program=$2 checked_in=$3 work=$4 crashes=$5 longest=$6 runs
  local dictionary=() reach corpora log=$scratch/log.$1
  case $target in decoder | range) dictionary=("-dict=$here/event.dict") ;; esac
  if [ "$mode" = same ]; then
    # The checked-in corpus alone, in one order, and one seed: where it goes from there depends on the code alone.
    case $target in decoder) runs=4000000 ;; canonical) runs=4000000 ;; plans) runs=60000 ;; trace) runs=150000 ;; framing) runs=20000000 ;; *) runs=250000 ;;
    esac
    if [ -n "$moves" ]; then
      case $target in plans | trace) runs=0 ;; esac
    fi
    find "$checked_in" -type f | LC_ALL=C sort | paste -sd, >"$scratch/seeds.$target"
    reach=(-seed=1 -runs="$runs" -seed_inputs=@"$scratch/seeds.$target") corpora=()
    if [ "$runs" = 0 ]; then echo "$target: the checked-in corpus alone, as addresses move here"; else echo "$target: $runs inputs"; fi
  else
    reach=(-max_total_time="$seconds") corpora=("$work" "$checked_in")
    echo "$target: $seconds s"
  fi
  if ! "${same[@]}" "$program" "${reach[@]}" -max_len="$longest" -timeout=120 -rss_limit_mb=1024 -print_final_stats=1 \
    -artifact_prefix="$crashes/" "${dictionary[@]}" "${corpora[@]}" >"$log" 2>&1; then
    cat "$log"
    echo "$target: an input breaks it. See it again: tests/fuzz/run.sh --replay $(ls -t "$crashes"/* | head -n 1) $target"
    echo "Once it is mended, keep the input as $checked_in/found-NAME: cargo test replays it."
    return 1
  fi
  grep -E '^#[0-9]+.*DONE|exec/s|^stat::(number_of_executed_units|average_exec_per_sec|peak_rss_mb)' "$log" | tail -n 4 || true
}

# As many at a time as there are cores: a target takes one.
running=()
found=0
ended() {
  local target=${running[0]%%:*} pid=${running[0]##*:}
  running=("${running[@]:1}")
  wait "$pid" || found=1
  cat "$scratch/told.$target"
}
for target in "${targets[@]}"; do
  program=$built/$triple/release/$target
  checked_in=$here/corpus/$target work=target/fuzz/corpus/$target crashes=target/fuzz/crashes/$target
  mkdir -p "$work" "$crashes"
  case $target in canonical | plans) longest=64 ;; framing) longest=128 ;; decoder | range) longest=1024 ;; *) longest=4096 ;; esac
  case $mode in
    replay) "$program" "$input"; continue ;;
    merge)
      # By lines of code reached, not by how often: a few dozen inputs instead of thousands. libFuzzer names a file by its SHA-1.
      fresh=$(mktemp -d "$scratch/merge.XXXXXX")
      "$program" -set_cover_merge=1 -use_counters=0 -max_len="$longest" "$fresh" "$checked_in" "$work" 2>&1 | tail -n 1
      find "$checked_in" -type f ! -name 'seed-*' ! -name 'found-*' -delete
      kept=$(cat "$checked_in"/* | wc -c)
      find "$checked_in" -type f -exec sha1sum {} + | cut -c1-40 >"$scratch/kept"
      for input in "$fresh"/*; do
        grep -q "$(basename "$input")" "$scratch/kept" || cp "$input" "$checked_in/$(basename "$input" | cut -c1-12)"
      done
      echo "$target: $(find "$checked_in" -type f | wc -l) inputs, $(cat "$checked_in"/* | wc -c) bytes ($kept of them seeds)"
      continue ;;
  esac
  look "$target" "$program" "$checked_in" "$work" "$crashes" "$longest" >"$scratch/told.$target" 2>&1 &
  running+=("$target:$!")
  [ "${#running[@]}" -lt "$(nproc 2>/dev/null || echo 1)" ] || ended
done
while [ "${#running[@]}" -gt 0 ]; do ended; done
exit $found
