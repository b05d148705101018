//! LMTP: what is another protocol, and answers that are missing or all negative.

use envoi::mail_builder::MessageBuilder;
use envoi::tls::Security;
use envoi::{ErrorKind, Message, Phase};

use crate::case::{case, hurried, play};
use crate::servers::Server::{NotListening, Plain};
use crate::servers::{CLOSE, Script};

const URL: &str = "lmtp://127.0.0.1:{port}";

fn to_three() -> Message<'static> {
    let to = vec!["a@example.com", "b@example.com", "c@example.com"];
    MessageBuilder::new()
        .from("me@example.org")
        .to(to)
        .subject("Hello")
        .text_body("Hello.\n")
        .into()
}

#[tokio::test]
async fn lmtp_failures_have_their_pinned_texts() {
    let row = |name, script: Script, kind, phase, exit| {
        case(name, Plain(script), URL, kind, phase, exit).message(to_three)
    };
    let unknown = |name, script, kind| row(name, script, kind, Phase::EndOfData, 79);
    let cases = vec![
        case(
            "no such socket",
            NotListening,
            "lmtp+unix:///nonexistent/lmtp.sock",
            ErrorKind::Connect,
            Phase::Connect,
            75,
        ),
        row(
            "implicit TLS, and the server speaks plaintext",
            &[],
            ErrorKind::Tls,
            Phase::Tls,
            76,
        )
        .with(|endpoint, _| endpoint.security(Security::Implicit)),
        row(
            "implicit TLS, and the server closes",
            &[("GREETING", CLOSE)],
            ErrorKind::Tls,
            Phase::Tls,
            76,
        )
        .with(|endpoint, _| endpoint.security(Security::Implicit)),
        row(
            "the server speaks SMTP",
            &[("LHLO", "502 5.5.2 Error: command not recognized")],
            ErrorKind::Refused,
            Phase::Hello,
            69,
        ),
        row(
            "LHLO is refused",
            &[("LHLO", "550 5.7.1 Access denied")],
            ErrorKind::Refused,
            Phase::Hello,
            69,
        ),
        row(
            "closed after LHLO",
            &[("LHLO", CLOSE)],
            ErrorKind::Closed,
            Phase::Hello,
            75,
        ),
        row(
            "every mailbox is full",
            &[(
                ".",
                "552 5.2.2 <a@example.com> Full\r\n552 5.2.2 <b@example.com> Full\r\n452 4.2.2 \
                    <c@example.com> Quota exceeded",
            )],
            ErrorKind::Refused,
            Phase::EndOfData,
            75,
        ),
        unknown(
            "421 between the answers",
            &[(
                ".",
                "250 2.0.0 <a@example.com> Saved\r\n421 4.3.2 Shutting down",
            )],
            ErrorKind::Closed,
        ),
        row(
            "TLS first, and STARTTLS is offered",
            &[
                ("LHLO", "250-mail.example.org\r\n250 STARTTLS"),
                ("MAIL", "530 5.7.0 Must issue a STARTTLS command first"),
            ],
            ErrorKind::Refused,
            Phase::Mail,
            69,
        ),
        row(
            "TLS first, and STARTTLS is not offered",
            &[("MAIL", "530 5.7.0 Must issue a STARTTLS command first")],
            ErrorKind::Refused,
            Phase::Mail,
            69,
        ),
        case(
            "STARTTLS is required and not offered",
            Plain(&[]),
            "lmtp://127.0.0.1:{port}?tls=required",
            ErrorKind::Tls,
            Phase::StartTls,
            76,
        ),
        unknown(
            "garbage between the answers",
            &[(".", "250 2.0.0 <a@example.com> Saved\r\nwhat?")],
            ErrorKind::Protocol,
        ),
        unknown(
            "one answer for all",
            &[(".", "250 2.0.0 Ok: queued")],
            ErrorKind::Timeout,
        )
        .with(hurried),
    ];
    play("lmtp", cases).await;
}
