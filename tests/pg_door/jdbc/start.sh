#!/usr/bin/env bash
# Runs Catalogue.java with pgjdbc against a server.
#
#   tests/pg_door/jdbc/start.sh HOST:PORT USER     (the password is in PGPASSWORD)
#
# pgjdbc comes from Maven Central once, into $STARLING_JDBC_CACHE (default: ~/.cache/starling/pgjdbc-VERSION). Without USER it only gets it.
# Exits with 77 when a tool or the driver is not to be had, as a test that was skipped.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
version=42.7.13
cache=${STARLING_JDBC_CACHE:-$HOME/.cache/starling/pgjdbc-$version}
for tool in java mvn; do
  command -v "$tool" >/dev/null || { echo "skipped: $tool is not installed"; exit 77; }
done
mkdir -p "$cache"
exec 9>"$cache/lock"
if command -v flock >/dev/null; then flock 9; fi
if [ ! -e "$cache/complete" ]; then
  cat >"$cache/pom.xml" <<EOF
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>starling</groupId>
  <artifactId>pgjdbc-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.postgresql</groupId><artifactId>postgresql</artifactId><version>$version</version></dependency>
  </dependencies>
</project>
EOF
  mvn -q -B -f "$cache/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$cache/lib" >&2 ||
    { echo "skipped: pgjdbc $version is not to be had from Maven Central"; exit 77; }
  touch "$cache/complete"
fi
exec 9>&-
[ $# -eq 2 ] || exit 0
exec java -cp "$cache/lib/*" "$here/Catalogue.java" "$1" "$2"
