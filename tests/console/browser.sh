#!/usr/bin/env bash
# Prints the folder of the packages in package.json, and on a second line the path of a Chromium.
#
#   tests/console/browser.sh
#
# The packages lie in $STARLING_CONSOLE_CACHE (default: ~/.cache/starling/console), installed once a set of versions, from npm as it is set up
# to find them. Exits with 77 where Node.js, npm, the packages or Chromium are missing, as a test that was skipped.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
skip() { echo "skipped: $1"; exit 77; }

command -v node >/dev/null || skip "Node.js is not installed (Debian: apt-get install nodejs npm)"
[ "$(node -p 'Number(process.versions.node.split(".")[0]) >= 18')" = true ] || skip "Node.js is older than 18"
command -v npm >/dev/null || skip "npm is not installed (Debian: apt-get install npm)"
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || skip "no Chromium (Debian: apt-get install chromium)"
cache=${STARLING_CONSOLE_CACHE:-$HOME/.cache/starling/console}
name=$(node -e 'process.stdout.write(require("crypto").createHash("sha256").update(require("fs").readFileSync(process.argv[1])).digest("hex").slice(0, 16))' "$here/package.json")
mkdir -p "$cache"
exec 9>"$cache/lock"
if command -v flock >/dev/null; then flock 9; fi
if [ ! -e "$cache/$name/complete" ]; then
  rm -rf "${cache:?}/$name"
  mkdir -p "$cache/$name"
  cp "$here/package.json" "$cache/$name/"
  (cd "$cache/$name" && npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts) >&2 || skip "the packages of tests/console/package.json are not to be had from npm"
  touch "$cache/$name/complete"
fi
exec 9>&-
echo "$cache/$name/node_modules"
echo "$chromium"
