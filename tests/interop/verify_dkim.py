"""Verifies each DKIM signature of the message on standard input by dkimpy, and prints their number.

The argument is a file of DNS records: in each line a name, a space and the value."""

import sys

import dkim

records = {}
for line in open(sys.argv[1], "rb"):
    name, value = line.rstrip(b"\n").split(b" ", 1)
    records[name + b"."] = value
message = sys.stdin.buffer.read()
section = message.split(b"\r\n\r\n")[0]
count = sum(line.lower().startswith(b"dkim-signature:") for line in section.split(b"\r\n"))
for index in range(count):
    if not dkim.DKIM(message).verify(idx=index, dnsfunc=lambda name, timeout: records[name]):
        sys.exit(f"signature {index} is not valid")
print(count)
