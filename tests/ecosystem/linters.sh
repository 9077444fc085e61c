#!/usr/bin/env bash
# Prints the path of a linter, which is built once from the Go module proxy into $STARLING_LINTERS_CACHE (default: ~/.cache/starling/linters).
#
#   STARLING_TEST_LINTERS=1 tests/ecosystem/linters.sh kube-score | compose
#
# kube-score (MIT) knows what goes wrong in clusters and asks none. `compose` is the reader of compose files that Docker Compose is made of
# (compose-go, Apache-2.0): it holds a file against the specification's schema. Building takes minutes, so it is done where it is asked for; one that
# is built already is used either way. Exits with 77 where it was not asked for, or Go or the proxy is missing, as a test that was skipped.
set -euo pipefail
case ${1:-} in
  kube-score) package=github.com/zegl/kube-score/cmd/kube-score version=v1.20.0 ;;
  compose) package=github.com/compose-spec/compose-go/v2/cmd version=v2.16.2 ;;
  *) echo "usage: $0 kube-score | compose" >&2; exit 2 ;;
esac
skip() { echo "skipped: $1"; exit 77; }
cache=${STARLING_LINTERS_CACHE:-$HOME/.cache/starling/linters}
program=$cache/$1-$version
if [ ! -x "$program" ]; then
  [ "${STARLING_TEST_LINTERS:-}" = 1 ] || skip "$1 is not built yet, which takes minutes; STARLING_TEST_LINTERS=1 asks for it"
  command -v go >/dev/null || skip "Go is not installed (Debian: apt-get install golang), so $1 cannot be built"
  mkdir -p "$cache/building"
  exec 9>"$cache/lock"
  if command -v flock >/dev/null; then flock 9; fi
  if [ ! -x "$program" ]; then
    log=$cache/$1.log code=0
    GOBIN="$cache/building" CGO_ENABLED=0 timeout 900 go install "$package@$version" >"$log" 2>&1 || code=$?
    if [ "$code" != 0 ]; then
      tail -n 20 "$log" >&2
      # What was got and does not build, which Go tells by package behind a `#`, is a fault and not skipped.
      if grep -q '^# ' "$log"; then exit 1; fi
      if [ "$code" = 124 ]; then skip "$1 did not come from the Go module proxy within a quarter of an hour"; fi
      skip "$1 is not to be had from the Go module proxy"
    fi
    mv "$cache/building/${package##*/}" "$program"
  fi
  exec 9>&-
fi
echo "$program"
