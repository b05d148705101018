#!/bin/sh
# Makes the certificates here anew: keys of 1,024 bits and signatures with SHA-1, which rcgen does not make. It needs openssl.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
printf 'basicConstraints=critical,CA:TRUE\n' >"$work/ca.ext"
printf 'subjectAltName=DNS:mail.example.com\n' >"$work/leaf.ext"

self() { # name, bits, common name
    openssl genrsa -out "$work/$1.key" "$2"
    openssl req -new -key "$work/$1.key" -subj "/CN=$3" -out "$work/$1.csr"
    openssl x509 -req -sha256 -days 36500 -in "$work/$1.csr" -signkey "$work/$1.key" -extfile "$work/ca.ext" -out "$1.pem"
}
issue() { # name, common name, issuer, hash, extensions
    openssl req -new -key "$work/$1.key" -subj "/CN=$2" -out "$work/$1.csr"
    openssl x509 -req "-$4" -days 36500 -in "$work/$1.csr" -CA "$3.pem" -CAkey "$work/$3.key" -set_serial "0x$(openssl rand -hex 8)" \
        -extfile "$work/$5.ext" -out "$1.pem"
}

self root 2048 Root
self short-root 1024 "Short Root"
openssl genrsa -out "$work/short-leaf.key" 1024
openssl pkcs8 -topk8 -nocrypt -in "$work/short-leaf.key" -out short-leaf.key
issue short-leaf mail.example.com root sha256 leaf
for name in leaf-of-short-root sha1-leaf sha1-middle leaf-of-sha1-middle; do
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/$name.key"
done
issue leaf-of-short-root mail.example.com short-root sha256 leaf
issue sha1-leaf mail.example.com root sha1 leaf
issue sha1-middle "Old Middle" root sha1 ca
issue leaf-of-sha1-middle mail.example.com sha1-middle sha256 leaf
for name in leaf-of-short-root sha1-leaf leaf-of-sha1-middle; do
    cp "$work/$name.key" "$name.key"
done
