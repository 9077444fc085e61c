#!/usr/bin/env bash
# Looks for inputs that break a reader of foreign bytes: every target for so many seconds, beginning with the checked-in corpus.
#
#   tests/fuzz/run.sh [SECONDS=60] [TARGET...]     look; 1 when something was found, and how to see it again
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

found=0
for target in "${targets[@]}"; do
  program=$built/$triple/release/$target
  checked_in=$here/corpus/$target work=target/fuzz/corpus/$target crashes=target/fuzz/crashes/$target
  mkdir -p "$work" "$crashes"
  case $target in canonical | plans) longest=64 ;; framing) longest=128 ;; decoder | range) longest=1024 ;; *) longest=4096 ;; esac
  dictionary=(); case $target in decoder | range) dictionary=("-dict=$here/event.dict") ;; esac
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
  echo "$target: $seconds s"
  if ! "$program" -max_total_time="$seconds" -max_len="$longest" -timeout=20 -rss_limit_mb=1024 -print_final_stats=1 \
    -artifact_prefix="$crashes/" "${dictionary[@]}" "$work" "$checked_in" >"$scratch/log" 2>&1; then
    found=1
    cat "$scratch/log"
    echo "$target: an input breaks it. See it again: tests/fuzz/run.sh --replay $(ls -t "$crashes"/* | head -n 1) $target"
    echo "Once it is mended, keep the input as $checked_in/found-NAME: cargo test replays it."
  else
    grep -E '^#[0-9]+.*DONE|exec/s|^stat::(number_of_executed_units|average_exec_per_sec|peak_rss_mb)' "$scratch/log" | tail -n 4
  fi
done
exit $found
