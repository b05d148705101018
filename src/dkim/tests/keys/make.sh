#!/bin/sh
# Makes the keys of the tests with openssl 3 and ssh-keygen.
# Usage: make.sh FOLDER
set -eu
cd "$1"
for bits in 1024 2048 3072 4096 8192; do
    openssl genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:$bits -out rsa-$bits.pem
done
# The same key in PKCS#1.
openssl rsa -in rsa-2048.pem -traditional -out rsa-2048-pkcs1.pem
openssl pkey -in rsa-2048.pem -pubout -out rsa-2048-public.pem
openssl genpkey -algorithm ed25519 -out ed25519.pem
openssl pkey -in ed25519.pem -aes256 -passout pass:changeit -out encrypted.pem
openssl rsa -in rsa-2048.pem -traditional -aes256 -passout pass:changeit -out encrypted-pkcs1.pem
openssl genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-256 -out ec.pem
openssl ec -in ec.pem -out ec-sec1.pem
openssl genpkey -algorithm x25519 -out x25519.pem
openssl req -x509 -key ed25519.pem -days 36500 -subj "/CN=example.org" -out certificate.pem
ssh-keygen -q -t ed25519 -N "" -C example -f openssh.pem
rm openssh.pem.pub
