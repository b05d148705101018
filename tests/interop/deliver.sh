#!/bin/sh
# deliver.sh FOLDER [RECIPIENT]: keeps the message on stdin as FOLDER/RECIPIENT/new/<unique name>.
# Postfix gives the recipient as an argument, Exim in the environment.
#
# Both servers deliver through it, so that a test finds its mail in one way. It is renamed when it
# is complete: what is in new/ can be read.
set -eu
umask 022
# A recipient is the client's text: a slash in it must not lead out of the folder.
box=$1/$(printf %s "${2:-$RECIPIENT}" | tr / _)
mkdir -p "$box/tmp" "$box/new"
name=$(date +%s.%N).$$
cat >"$box/tmp/$name"
mv "$box/tmp/$name" "$box/new/$name"
