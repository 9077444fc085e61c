#!/usr/bin/env bash
# Prints the path of a Python that has dp-accounting, in the versions of requirements.txt, or the packages of another such file.
#
#   tests/accounting/python.sh [REQUIREMENTS]
#
# It is a virtual environment in $STARLING_ACCOUNTING_CACHE (default: ~/.cache/starling/accounting), made once a set of versions, from PyPI
# as pip is set up to find it. Exits with 77 where Python, venv or PyPI is missing, as a test that was skipped.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
requirements=${1:-$here/requirements.txt}
skip() { echo "skipped: $1"; exit 77; }

command -v python3 >/dev/null || skip "python3 is not installed"
python3 -c 'import ensurepip, venv' 2>/dev/null || skip "python3 has no venv (Debian: apt-get install python3-venv)"
cache=${STARLING_ACCOUNTING_CACHE:-$HOME/.cache/starling/accounting}
name=$(python3 -c 'import hashlib, sys
versions = open(sys.argv[1], "rb").read() + sys.version.encode()
print(hashlib.sha256(versions).hexdigest()[:16])' "$requirements")
mkdir -p "$cache"
exec 9>"$cache/lock"
if command -v flock >/dev/null; then flock 9; fi
if [ ! -e "$cache/$name/complete" ]; then
  rm -rf "${cache:?}/$name"
  python3 -m venv "$cache/$name" >&2 || skip "a virtual environment cannot be made"
  "$cache/$name/bin/python" -m pip install --quiet --disable-pip-version-check --retries 2 --only-binary :all: -r "$requirements" >&2 ||
    skip "the packages of ${requirements#"$here/../../"} are not to be had from PyPI"
  touch "$cache/$name/complete"
fi
exec 9>&-
echo "$cache/$name/bin/python"
