"""Sends one message for each script with Python's smtplib, and prints what became of it, a line each.

Usage: peer.py PORT SCRIPTS. The server on the loopback interface plays the next script to each connection.
"""

import smtplib
import sys

TO = ["one@example.com", "two@example.com"]
MESSAGE = b"Subject: Hello\r\n\r\nHello.\r\n.\r\n"


def of_code(code):
    if 400 <= code <= 499:
        return "transient"
    if 500 <= code <= 599:
        return "permanent"
    return "protocol"


def outcome(port):
    client = smtplib.SMTP(local_hostname="client.example.org", timeout=20)
    try:
        code, words = client.connect("127.0.0.1", port)
        if code != 220:
            # As the constructor does where it connects by itself.
            raise smtplib.SMTPConnectError(code, words)
        refused = client.sendmail("me@example.org", TO, MESSAGE)
        return "sent " + " ".join("-" if to in refused else "+" for to in TO)
    except smtplib.SMTPServerDisconnected:
        return "closed"
    except smtplib.SMTPRecipientsRefused as error:
        # The last one that was asked for, as envoi tells it.
        return of_code(list(error.recipients.values())[-1][0])
    except smtplib.SMTPResponseException as error:
        return of_code(error.smtp_code)
    except OSError:
        return "closed"
    except Exception as error:
        return "raised " + type(error).__name__
    finally:
        client.close()


port, scripts = int(sys.argv[1]), int(sys.argv[2])
for _ in range(scripts):
    print(outcome(port), flush=True)
