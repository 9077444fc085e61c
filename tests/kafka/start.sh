#!/usr/bin/env bash
# Starts Apache Kafka on this machine for tests: one or three brokers in KRaft mode, each broker and controller in one, on free
# loopback ports.
#
#   [SECURITY=sasl_ssl] [PROXY_PORTS=PORT[,...]] tests/kafka/start.sh [BROKERS=1] DIR
#   tests/kafka/start.sh --check     only gets what Kafka is made of, and starts nothing
#
# Prints `bootstrap=127.0.0.1:PORT[,...]` as the last line, when every broker answers. DIR holds the brokers' data, logs and process
# ids; `tests/kafka/stop.sh DIR` stops them, `tests/kafka/broker.sh start DIR ID` starts one of them again. Kafka itself comes from Maven
# Central once, into $STARLING_KAFKA_CACHE (default: ~/.cache/starling/kafka-VERSION). Exits with 77 when a tool is missing or Maven Central
# cannot be reached, as a test that was skipped.
#
# SECURITY=sasl_ssl opens two more listeners on each broker and makes an authority, certificates and users for them (security.sh):
#
#   sasl_ssl=localhost:PORT[,...]   TLS, and SCRAM-SHA-256 or SCRAM-SHA-512
#   ssl=localhost:PORT[,...]        TLS with a client certificate
#   tls=DIR/tls                     what they need: see security.sh
#
# Access rules are in force then: `admin` may do everything, `stranger` and `starling` nothing until a rule is made for them. The open listener remains for
# brokers and tests among themselves, and whoever comes by it may do everything.
#
# PROXY_PORTS opens one more listener on each broker, which tells its clients to come to that port instead of its own. A test that listens
# there and forwards to the address printed stands between client and broker. It speaks SASL_SSL with SECURITY=sasl_ssl, else plain.
#
#   proxied=127.0.0.1:PORT[,...]    where to forward to, in the order of PROXY_PORTS
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
version=${STARLING_KAFKA_VERSION:-4.1.0}
log4j=2.24.3 # what this Kafka is built with
heap=${STARLING_KAFKA_HEAP:--Xms128m -Xmx512m}
security=${SECURITY:-plain}
proxy_ports=(${PROXY_PORTS:+${PROXY_PORTS//,/ }})

case $# in
  1) brokers=1 dir=$1 ;; # or --check
  2) brokers=$1 dir=$2 ;;
  *) echo "usage: $0 [1|3] DIR" >&2; exit 2 ;;
esac
case $brokers in 1 | 3) ;; *) echo "$0: BROKERS is 1 or 3" >&2; exit 2 ;; esac
tools="java mvn"
case $security in
  plain) ;;
  sasl_ssl) tools+=" openssl" ;;
  *) echo "$0: SECURITY is plain or sasl_ssl" >&2; exit 2 ;;
esac
case ${#proxy_ports[@]} in 0 | "$brokers") ;; *) echo "$0: PROXY_PORTS names one port for each broker" >&2; exit 2 ;; esac
for tool in $tools; do
  command -v "$tool" >/dev/null || { echo "skipped: $tool is not installed, so no Kafka can be started"; exit 77; }
done
if [ "$dir" != --check ]; then
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  if compgen -G "$dir/broker-*.pid" >/dev/null; then
    echo "$0: $dir has brokers already; stop them with stop.sh first" >&2
    exit 1
  fi
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
    for try in 1 2 3; do
      if mvn -q -B -f "$cache/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$cache/lib" \
        >"$cache/mvn.log" 2>&1; then
        touch "$cache/complete"
        break
      fi
      sleep $((try * 2))
    done
    if [ ! -e "$cache/complete" ]; then
      tail -n 20 "$cache/mvn.log" >&2
      # Only what Maven calls not to be had is skipped; anything else is a fault.
      grep -qiE 'could not (be resolved|resolve|transfer|find artifact)|no plugin found for prefix' "$cache/mvn.log" || exit 1
      echo "skipped: Kafka is not to be had from Maven Central"
      exit 77
    fi
  fi
  exec 9>&-
fi
if [ "$dir" = --check ]; then exit 0; fi
classpath="$cache/lib/*"
echo "$classpath" >"$dir/classpath"

# --- ports --------------------------------------------------------------------------------------------------------------------
taken=" ${proxy_ports[*]} "
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
declare -a ports controllers sasl_ports ssl_ports behind_proxy
voters="" bootstrap="" sasl_ssl="" ssl="" proxied=""
for id in $(seq "$brokers"); do
  free_port; ports[id]=$port
  free_port; controllers[id]=$port
  voters+="${voters:+,}$id@127.0.0.1:${controllers[id]}"
  bootstrap+="${bootstrap:+,}127.0.0.1:${ports[id]}"
  if [ "$security" = sasl_ssl ]; then
    free_port; sasl_ports[id]=$port
    free_port; ssl_ports[id]=$port
    # By name, because the brokers' certificate holds the name and no address.
    sasl_ssl+="${sasl_ssl:+,}localhost:${sasl_ports[id]}"
    ssl+="${ssl:+,}localhost:${ssl_ports[id]}"
  fi
  if [ ${#proxy_ports[@]} -gt 0 ]; then
    free_port; behind_proxy[id]=$port
    proxied+="${proxied:+,}127.0.0.1:${behind_proxy[id]}"
  fi
done

# --- configuration ------------------------------------------------------------------------------------------------------------
scram=()
if [ "$security" = sasl_ssl ]; then
  "$here/security.sh" "$dir/tls"
  for user in admin starling stranger; do
    for mechanism in SCRAM-SHA-256 SCRAM-SHA-512; do
      scram+=(--add-scram "$mechanism=[name=$user,password=$(cat "$dir/tls/$user.password")]")
    done
  done
fi
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
  listeners="PLAINTEXT://127.0.0.1:${ports[id]}"
  advertised=$listeners
  protocols="PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
  if [ "$security" = sasl_ssl ]; then
    listeners+=",SASL_SSL://127.0.0.1:${sasl_ports[id]},MUTUAL://127.0.0.1:${ssl_ports[id]}"
    advertised+=",SASL_SSL://localhost:${sasl_ports[id]},MUTUAL://localhost:${ssl_ports[id]}"
    protocols+=",SASL_SSL:SASL_SSL,MUTUAL:SSL"
  fi
  if [ -n "$proxied" ]; then
    listeners+=",PROXIED://127.0.0.1:${behind_proxy[id]}"
    if [ "$security" = sasl_ssl ]; then
      advertised+=",PROXIED://localhost:${proxy_ports[id - 1]}"
      protocols+=",PROXIED:SASL_SSL"
    else
      advertised+=",PROXIED://127.0.0.1:${proxy_ports[id - 1]}"
      protocols+=",PROXIED:PLAINTEXT"
    fi
  fi
  cat >"$dir/broker-$id.properties" <<EOF
process.roles=broker,controller
node.id=$id
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
listeners=$listeners,CONTROLLER://127.0.0.1:${controllers[id]}
advertised.listeners=$advertised
listener.security.protocol.map=$protocols
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
  if [ "$brokers" = 3 ]; then
    cat >>"$dir/broker-$id.properties" <<EOF
auto.leader.rebalance.enable=true
leader.imbalance.check.interval.seconds=2
leader.imbalance.per.broker.percentage=0
EOF
  fi
  if [ "$security" = sasl_ssl ]; then
    cat >>"$dir/broker-$id.properties" <<EOF
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512
ssl.keystore.type=PEM
ssl.keystore.location=$dir/tls/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=$dir/tls/ca.pem
listener.name.mutual.ssl.client.auth=required
listener.name.mutual.ssl.principal.mapping.rules=RULE:^CN=([^,]+).*\$/\$1/
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:admin
EOF
    for listener in sasl_ssl proxied; do
      for mechanism in scram-sha-256 scram-sha-512; do
        echo "listener.name.$listener.$mechanism.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;"
      done
    done >>"$dir/broker-$id.properties"
  fi
  java $heap -Dlog4j2.configurationFile="$dir/log4j2.properties" -cp "$classpath" \
    kafka.tools.StorageTool format -t "$cluster" -c "$dir/broker-$id.properties" "${scram[@]}" >"$dir/format-$id.log" 2>&1 \
    || { cat "$dir/format-$id.log" >&2; exit 1; }
done

# --- start, and wait until all are ready --------------------------------------------------------------------------------------
for id in $(seq "$brokers"); do "$here/broker.sh" start "$dir" "$id"; done
for id in $(seq "$brokers"); do
  "$here/broker.sh" await "$dir" "$id" || { "$here/stop.sh" "$dir"; exit 1; }
done
if [ "$security" = sasl_ssl ]; then printf '%s\n' "sasl_ssl=$sasl_ssl" "ssl=$ssl" "tls=$dir/tls"; fi
if [ -n "$proxied" ]; then echo "proxied=$proxied"; fi
echo "bootstrap=$bootstrap" | tee "$dir/bootstrap"
