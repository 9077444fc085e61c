#!/usr/bin/env bash
# Starts one broker of those that start.sh made in DIR, such as one that a test has stopped or killed, or waits until it answers.
#
#   tests/kafka/broker.sh start DIR ID    starts it and returns at once; its process id is in DIR/broker-ID.pid
#   tests/kafka/broker.sh await DIR ID    returns when it is ready
set -euo pipefail

case ${1:-} in start | await) ;; *) echo "usage: $0 start|await DIR ID" >&2; exit 2 ;; esac
[ $# = 3 ] || { echo "usage: $0 start|await DIR ID" >&2; exit 2; }
dir=$(cd "$2" && pwd) id=$3
log=$dir/broker-$id.log
heap=${STARLING_KAFKA_HEAP:--Xms128m -Xmx512m}
started() { grep -c "Kafka Server started" "$log" 2>/dev/null || true; }

if [ "$1" = start ]; then
  # The serial collector: few threads on a small machine.
  echo "$(($(started) + 0))" >"$dir/broker-$id.starts"
  nohup java $heap -XX:+UseSerialGC -Dlog4j2.configurationFile="$dir/log4j2.properties" -cp "$(cat "$dir/classpath")" \
    kafka.Kafka "$dir/broker-$id.properties" >>"$log" 2>&1 </dev/null &
  echo $! >"$dir/broker-$id.pid"
  exit 0
fi
for tenth in $(seq 3000); do
  if [ "$(($(started) + 0))" -gt "$(cat "$dir/broker-$id.starts")" ]; then exit 0; fi
  if ! kill -0 "$(cat "$dir/broker-$id.pid")" 2>/dev/null || [ "$tenth" = 3000 ]; then
    echo "$0: broker $id did not start; the end of $log:" >&2
    tail -n 20 "$log" >&2
    exit 1
  fi
  sleep 0.1
done
