#!/bin/sh
# Makes the key stores of the tests with the tools that everybody makes them with: openssl 3 and Java's keytool.
# Usage: make.sh FOLDER
#
# Not made here: oracle-ewallet.p12 and oracle-cwallet.sso are a wallet that orapki made, of public authorities (its password is
# asdf1234), and secret-bags.p12 is in the form of a wallet with a stored credential (changeit1).
set -eu
cd "$1"
password=changeit
# A character beyond the 16 bits of a BMPString. keytool takes it in the encoding of the locale.
emoji='pässwörd😀'
export LC_ALL=C.UTF-8

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 36500 \
    -subj "/O=Example/CN=Example CA" -keyout ca.key -out ca.pem
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/CN=client" -keyout client.key -out client.csr
openssl x509 -req -in client.csr -CA ca.pem -CAkey ca.key -set_serial 2 -days 36500 -out client-v1.pem
echo "basicConstraints = CA:FALSE" > v3
openssl x509 -req -in client.csr -CA ca.pem -CAkey ca.key -set_serial 2 -days 36500 -extfile v3 -out client.pem
openssl x509 -in ca.pem -outform DER -out ca.der

# Only certificates, without Java's mark that they are trusted.
openssl pkcs12 -export -nokeys -in ca.pem -passout pass:$password -out openssl.p12
openssl pkcs12 -export -nokeys -in ca.pem -passout pass:$password -legacy -out openssl-legacy.p12
openssl pkcs12 -export -nokeys -in ca.pem -passout pass: -out no-password.p12
openssl pkcs12 -export -nokeys -in ca.pem -passout pass: -certpbe NONE -nomac -out bare.p12
openssl pkcs12 -export -nokeys -in ca.pem -passout "pass:$emoji" -out openssl-emoji.p12
openssl pkcs12 -export -nokeys -in ca.pem -passout "pass:$emoji" -legacy -out openssl-emoji-legacy.p12
# A key with its chain.
openssl pkcs12 -export -inkey client.key -in client.pem -certfile ca.pem -passout pass:$password -out client.p12
openssl pkcs12 -export -inkey client.key -in client.pem -certfile ca.pem -passout pass:$password -legacy -out client-legacy.p12
# The key is encrypted, and nothing else of the store is; then a key without a certificate.
openssl pkcs12 -export -inkey client.key -in client.pem -nomac -certpbe NONE -passout pass:$password -out no-mac.p12
openssl pkcs12 -export -inkey client.key -nocerts -passout pass:$password -out key-alone.p12

import() {
    keytool -importcert -noprompt -alias ca -file ca.pem -keystore "$1" -storetype "$2" -storepass "${3:-$password}"
}
import java.p12 PKCS12
import java.jks JKS
import java.jceks JCEKS
cp java.jceks secret-key.jceks
keytool -genseckey -alias secret -keyalg AES -keysize 128 -keystore secret-key.jceks -storetype JCEKS \
    -storepass $password -keypass $password
# In PKCS12, Java takes ASCII only.
import java-emoji.jks JKS "$emoji"
# A key with its chain, and the authority as trusted beside it: what an Oracle wallet holds, with the same marks.
for type in PKCS12 JKS JCEKS; do
    keytool -importkeystore -noprompt -srckeystore client.p12 -srcstoretype PKCS12 -srcstorepass $password \
        -destkeystore keys.$type -deststoretype $type -deststorepass $password
done
cp keys.PKCS12 ewallet.p12
import ewallet.p12 PKCS12
mv keys.PKCS12 keys.p12
mv keys.JKS keys.jks
mv keys.JCEKS keys.jceks
# A key with a password of its own.
cp keys.jks other-key.jks
keytool -keypasswd -alias 1 -keystore other-key.jks -storepass $password -keypass $password -new "other$password"
rm ca.key client.csr v3
