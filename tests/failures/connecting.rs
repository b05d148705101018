//! From the host's name to the answer to EHLO.

use envoi::{ErrorKind, Phase};

use crate::case::{case, hurried, play};
use crate::servers::Server::{self, Answers, Implicit, NotListening, Plain, Says};
use crate::servers::{CLOSE, SILENCE, Script};

const URL: &str = "smtp://127.0.0.1:{port}";

#[tokio::test]
async fn connection_failures_have_their_pinned_texts() {
    let row = |name, server: Server, kind, phase, exit| case(name, server, URL, kind, phase, exit);
    let greets = |name, script: Script, exit| {
        row(
            name,
            Plain(script),
            ErrorKind::Refused,
            Phase::Greeting,
            exit,
        )
    };
    let inside = |name, server, kind, phase, exit| {
        case(name, server, "smtps://localhost:{port}", kind, phase, exit)
    };
    let cases = vec![
        case(
            "the name is not found",
            NotListening,
            "smtp://mail.example.invalid:{port}",
            ErrorKind::Connect,
            Phase::Connect,
            75,
        ),
        row(
            "the connection is refused",
            NotListening,
            ErrorKind::Connect,
            Phase::Connect,
            75,
        ),
        row(
            "no answer to the connection",
            Server::Full,
            ErrorKind::Timeout,
            Phase::Connect,
            75,
        )
        .with(hurried),
        // Silence.
        row(
            "no greeting",
            Says(""),
            ErrorKind::Timeout,
            Phase::Greeting,
            75,
        )
        .with(hurried),
        row(
            "no answer to EHLO",
            Plain(&[("EHLO", SILENCE)]),
            ErrorKind::Timeout,
            Phase::Hello,
            75,
        )
        .with(hurried),
        row(
            "closed after EHLO",
            Plain(&[("EHLO", CLOSE)]),
            ErrorKind::Closed,
            Phase::Hello,
            75,
        ),
        inside(
            "no greeting inside TLS",
            Implicit(&[("GREETING", SILENCE)]),
            ErrorKind::Timeout,
            Phase::Greeting,
            75,
        )
        .with(|endpoint, _| {
            let mut timeouts = envoi::Timeouts::uniform(std::time::Duration::from_secs(20));
            timeouts.greeting = std::time::Duration::from_millis(300);
            endpoint.timeouts(timeouts)
        }),
        inside(
            "closed inside TLS",
            Implicit(&[("GREETING", CLOSE)]),
            ErrorKind::Closed,
            Phase::Greeting,
            75,
        ),
        // Other protocols.
        row(
            "a web server",
            Says("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"),
            ErrorKind::Protocol,
            Phase::Greeting,
            76,
        ),
        row(
            "an SSH server",
            Says("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
            ErrorKind::Protocol,
            Phase::Greeting,
            76,
        ),
        row(
            "an IMAP server",
            Says("* OK [CAPABILITY IMAP4rev1] Dovecot ready.\r\n"),
            ErrorKind::Protocol,
            Phase::Greeting,
            76,
        ),
        row(
            "a POP3 server",
            Says("+OK Dovecot ready.\r\n"),
            ErrorKind::Protocol,
            Phase::Greeting,
            76,
        ),
        row(
            "an FTP server",
            Plain(&[
                ("GREETING", "220 (vsFTPd 3.0.3)"),
                ("EHLO", "530 Please login with USER and PASS."),
            ]),
            ErrorKind::Refused,
            Phase::Hello,
            69,
        ),
        row(
            "something unknown",
            Says("\x00\x01\x02 hello\r\n"),
            ErrorKind::Protocol,
            Phase::Greeting,
            76,
        ),
        inside(
            "a web server where TLS should begin",
            Answers(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            ErrorKind::Tls,
            Phase::Tls,
            76,
        ),
        inside(
            "an SSH server where TLS should begin",
            Says("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
            ErrorKind::Tls,
            Phase::Tls,
            76,
        ),
        inside(
            "an IMAP server where TLS should begin",
            Says("* OK IMAP4rev1 ready\r\n"),
            ErrorKind::Tls,
            Phase::Tls,
            76,
        ),
        inside(
            "a POP3 server where TLS should begin",
            Says("+OK ready\r\n"),
            ErrorKind::Tls,
            Phase::Tls,
            76,
        ),
        inside(
            "an IMAP server inside TLS",
            Implicit(&[("GREETING", "* OK IMAP4rev1 ready")]),
            ErrorKind::Protocol,
            Phase::Greeting,
            76,
        ),
        // Not wanted here.
        greets(
            "greeting 554",
            &[("GREETING", "554 5.3.2 No SMTP service here")],
            69,
        ),
        row(
            "a greeting with another code",
            Plain(&[("GREETING", "250 mail.example.org")]),
            ErrorKind::Protocol,
            Phase::Greeting,
            76,
        ),
        greets(
            "greeting 421",
            &[(
                "GREETING",
                "421 4.3.2 mail.example.org Service not available, closing transmission channel",
            )],
            75,
        ),
        greets(
            "greeting 421, too many connections",
            &[(
                "GREETING",
                "421 4.7.0 mail.example.org Error: too many connections from 192.0.2.7",
            )],
            75,
        ),
        greets(
            "on a block list",
            &[(
                "GREETING",
                "554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using \
                    zen.spamhaus.org; https://www.spamhaus.org/query/ip/192.0.2.7",
            )],
            69,
        ),
        greets(
            "no name for the address",
            &[(
                "GREETING",
                "554-mx.example.org ESMTP Service not available\r\n554-No SMTP service\r\n554 Bad \
                    DNS PTR resource record.",
            )],
            69,
        ),
        row(
            "EHLO is refused",
            Plain(&[("EHLO", "550 5.7.1 Access denied - Invalid HELO name")]),
            ErrorKind::Refused,
            Phase::Hello,
            69,
        ),
        row(
            "neither EHLO nor HELO is known",
            Plain(&[
                ("EHLO", "502 5.5.1 Command not implemented"),
                ("HELO", "502 5.5.1 Command not implemented"),
            ]),
            ErrorKind::Refused,
            Phase::Hello,
            69,
        ),
        row(
            "421 to EHLO",
            Plain(&[("EHLO", "421 4.3.0 Try again later")]),
            ErrorKind::Refused,
            Phase::Hello,
            75,
        ),
        row(
            "the answer to EHLO is cut off",
            Says("220 mail.example.org\r\n250-mail.example.org\r\nwhat?\r\n"),
            ErrorKind::Protocol,
            Phase::Hello,
            76,
        ),
    ];
    play("connecting", cases).await;
}
