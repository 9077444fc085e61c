#!/usr/bin/env bash
# Makes what a Kafka with TLS and SCRAM needs, for tests only: keys that are worth nothing and live for two days.
#
#   tests/kafka/security.sh DIR
#
#   ca.pem                     the authority that signed all of the following
#   broker.pem                 the brokers' key and certificate, for the name `localhost`
#   client.pem, client.key     the certificate of `starling` and its key, encrypted under the password in client.key.password
#   admin.password, starling.password, stranger.password    of the SCRAM users of these names
#   other-ca.pem               an authority that signed nothing here
#   other-client.pem, .key     a certificate of `starling` signed by that other authority
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
umask 077
mkdir -p "$1"
cd "$1"

quietly() { "$@" 2>>openssl.log || { tail -n 5 openssl.log >&2; exit 1; }; }
key() { quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }
authority() { # NAME
  key "$1.key"
  quietly openssl req -x509 -new -key "$1.key" -subj "/CN=$1" -days 2 -out "$1.pem" \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign"
}
signed() { # NAME COMMON-NAME AUTHORITY EXTENSIONS
  key "$1.key"
  quietly openssl req -new -key "$1.key" -subj "/CN=$2" -out "$1.csr"
  printf '%s\n' "basicConstraints=CA:FALSE" "$4" >"$1.extensions"
  quietly openssl x509 -req -in "$1.csr" -CA "$3.pem" -CAkey "$3.key" -CAcreateserial -days 2 -extfile "$1.extensions" -out "$1.pem"
}
authority ca
authority other-ca
signed broker localhost ca "subjectAltName=DNS:localhost"
cat broker.key >>broker.pem # as Kafka reads it: one file with both
signed client starling ca "extendedKeyUsage=clientAuth"
signed other-client starling other-ca "extendedKeyUsage=clientAuth"
for secret in client.key admin starling stranger; do quietly openssl rand -hex 16 | tr -d '\n' >"$secret.password"; done
quietly openssl pkcs8 -topk8 -in client.key -out client.encrypted -v2 aes-256-cbc -passout file:client.key.password
mv client.encrypted client.key
rm -f -- *.csr *.extensions *.srl
