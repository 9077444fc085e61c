#!/usr/bin/env bash
# Starts Apache Kafka on this machine for tests: one or three brokers in KRaft mode, each broker and controller in one, on free
# loopback ports.
#
#   tests/kafka/start.sh [BROKERS=1] DIR
#
# Prints one line, `bootstrap=127.0.0.1:PORT[,...]`, when every broker answers. DIR holds the brokers' data, logs and process ids;
# `tests/kafka/stop.sh DIR` stops them. Kafka itself comes from Maven Central once, into $STARLING_KAFKA_CACHE
# (default: ~/.cache/starling/kafka-VERSION). Exits with 77 when java or mvn is missing, as a test that was skipped.
set -euo pipefail

version=${STARLING_KAFKA_VERSION:-4.1.0}
log4j=2.24.3 # what this Kafka is built with
heap=${STARLING_KAFKA_HEAP:--Xms128m -Xmx512m}

case $# in
  1) brokers=1 dir=$1 ;;
  2) brokers=$1 dir=$2 ;;
  *) echo "usage: $0 [1|3] DIR" >&2; exit 2 ;;
esac
case $brokers in 1 | 3) ;; *) echo "$0: BROKERS is 1 or 3" >&2; exit 2 ;; esac
for tool in java mvn; do
  command -v "$tool" >/dev/null || { echo "skipped: $tool is not installed, so no Kafka can be started"; exit 77; }
done
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
if compgen -G "$dir/broker-*.pid" >/dev/null; then
  echo "$0: $dir has brokers already; stop them with stop.sh first" >&2
  exit 1
fi

# --- Kafka's jars, once -------------------------------------------------------------------------------------------------------
cache=${STARLING_KAFKA_CACHE:-$HOME/.cache/starling/kafka-$version}
if [ ! -e "$cache/complete" ]; then
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  if command -v flock >/dev/null; then flock 9; fi
  if [ ! -e "$cache/complete" ]; then
    cat >"$cache/pom.xml" <<EOF
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>starling</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>$log4j</version></dependency>
  </dependencies>
</project>
EOF
    mvn -q -B -f "$cache/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$cache/lib" >&2
    touch "$cache/complete"
  fi
  exec 9>&-
fi
classpath="$cache/lib/*"

# --- ports --------------------------------------------------------------------------------------------------------------------
taken=" "
free_port() { # sets `port`
  local tries
  for tries in $(seq 200); do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    [[ $taken == *" $port "* ]] && continue
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      taken+="$port "
      return 0
    fi
  done
  echo "$0: no free port found" >&2
  exit 1
}
declare -a ports controllers
voters="" bootstrap=""
for id in $(seq "$brokers"); do
  free_port; ports[id]=$port
  free_port; controllers[id]=$port
  voters+="${voters:+,}$id@127.0.0.1:${controllers[id]}"
  bootstrap+="${bootstrap:+,}127.0.0.1:${ports[id]}"
done

# --- configuration ------------------------------------------------------------------------------------------------------------
cat >"$dir/log4j2.properties" <<'EOF'
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
EOF
cluster=$(java $heap -cp "$classpath" kafka.tools.StorageTool random-uuid | tail -n 1)
copies=$((brokers == 3 ? 3 : 1))
in_sync=$((brokers == 3 ? 2 : 1))
for id in $(seq "$brokers"); do
  cat >"$dir/broker-$id.properties" <<EOF
process.roles=broker,controller
node.id=$id
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:${ports[id]},CONTROLLER://127.0.0.1:${controllers[id]}
advertised.listeners=PLAINTEXT://127.0.0.1:${ports[id]}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/data-$id
num.partitions=4
default.replication.factor=$copies
min.insync.replicas=$in_sync
offsets.topic.replication.factor=$copies
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$copies
transaction.state.log.min.isr=$in_sync
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=$copies
share.coordinator.state.topic.min.isr=$in_sync
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
log.retention.check.interval.ms=5000
log.initial.task.delay.ms=1000
num.network.threads=2
num.io.threads=2
EOF
  java $heap -Dlog4j2.configurationFile="$dir/log4j2.properties" -cp "$classpath" \
    kafka.tools.StorageTool format -t "$cluster" -c "$dir/broker-$id.properties" >"$dir/format-$id.log" 2>&1 \
    || { cat "$dir/format-$id.log" >&2; exit 1; }
done

# --- start, and wait until all are ready --------------------------------------------------------------------------------------
for id in $(seq "$brokers"); do
  # The serial collector: few threads on a small machine.
  nohup java $heap -XX:+UseSerialGC \
    -Dlog4j2.configurationFile="$dir/log4j2.properties" -cp "$classpath" kafka.Kafka "$dir/broker-$id.properties" \
    >"$dir/broker-$id.log" 2>&1 </dev/null &
  echo $! >"$dir/broker-$id.pid"
done
for id in $(seq "$brokers"); do
  for tenth in $(seq 1200); do
    if grep -q "Kafka Server started" "$dir/broker-$id.log" 2>/dev/null; then break; fi
    if ! kill -0 "$(cat "$dir/broker-$id.pid")" 2>/dev/null || [ "$tenth" = 1200 ]; then
      echo "$0: broker $id did not start; the end of $dir/broker-$id.log:" >&2
      tail -n 20 "$dir/broker-$id.log" >&2
      "$(dirname "$0")/stop.sh" "$dir"
      exit 1
    fi
    sleep 0.1
  done
done
echo "bootstrap=$bootstrap" | tee "$dir/bootstrap"
