//! Up to the first command: greeting, EHLO or LHLO, STARTTLS.

use envoi::proto::{Protocol, StartTls, Step};
use envoi::{Error, ErrorKind, Phase};

use super::Client;

#[test]
fn implicit_tls_is_recognised_in_the_greeting() {
    let mut client = Client::new(|_| {});
    client.steps().unwrap();
    // A handshake failure alert, as TLS servers answer what is no TLS.
    client.read(&[0x15]);
    assert!(
        client.steps().is_ok(),
        "one byte is not enough to tell, or what is told would depend on the split"
    );
    client.read(&[0x03, 0x01, 0x00, 0x02, 0x02, 0x28]);
    let error = client.steps().unwrap_err();
    assert!(error.to_string().contains("TLS"), "{error}");
}

/// What LMTP's first command is refused with says whether there is LMTP at all.
#[test]
fn a_server_without_lmtp_is_recognised() {
    for (reply, kind, says) in [
        (
            "500 what?\r\n",
            ErrorKind::Refused,
            "the server does not know LHLO, with which LMTP begins",
        ),
        (
            "550 not you\r\n",
            ErrorKind::Refused,
            "the server refused LHLO from this client, me",
        ),
        (
            "354 go\r\n",
            ErrorKind::Protocol,
            "expected the answer to LHLO (250), but the server sent 354 go",
        ),
    ] {
        let mut client = Client::new(|settings| settings.protocol = Protocol::Lmtp);
        client.feed("220 hello\r\n").unwrap();
        let error = client.feed(reply).unwrap_err();
        assert_eq!((error.kind(), error.message()), (kind, says));
    }
}

/// A go-ahead that came before STARTTLS was written is none.
#[test]
fn a_go_ahead_before_starttls_is_a_violation() {
    for (cut, phase) in [
        ("220 Go ahead\r\n", Phase::StartTls),
        ("220 Go", Phase::StartTls),
    ] {
        let mut client = Client::new(|settings| settings.starttls = StartTls::Required);
        client.feed("220 hello\r\n").unwrap();
        client.read(b"250-mail.example.org\r\n250 STARTTLS\r\n");
        client.read(cut.as_bytes());
        let mut result = client.machine.step();
        if !cut.ends_with('\n') {
            assert_eq!(result.unwrap(), Step::Wait { phase });
            assert!(
                client.machine.output().is_empty(),
                "what is unread was not asked for"
            );
            client.read(b" ahead\r\n");
            result = client.machine.step();
        }
        let error = Error::from(result.unwrap_err());
        assert_eq!(
            error.message(),
            "the server sent 220 Go ahead, and nothing was asked"
        );
        assert_eq!((error.kind(), error.phase()), (ErrorKind::Protocol, phase));
        assert!(!client.wire.contains("STARTTLS"), "{}", client.wire);
    }
}

/// Nothing but QUIT follows a refusal of the session, and it may be said at once.
#[test]
fn a_refused_session_ends_with_quit() {
    let greeting = "220 hello\r\n";
    for replies in [
        &["554 no\r\n"][..],
        &[greeting, "550 not you\r\n"],
        &[greeting, "250-hi\r\n250 STARTTLS\r\n", "454 no\r\n"],
    ] {
        let mut client = Client::new(|settings| settings.starttls = StartTls::Required);
        let (last, before) = replies.split_last().unwrap();
        before
            .iter()
            .for_each(|reply| drop(client.feed(reply).unwrap()));
        client.feed(last).unwrap_err();
        assert_eq!(client.steps().unwrap(), [Step::Closed]);
        assert_eq!(
            client
                .machine
                .noop()
                .map_err(Error::from)
                .unwrap_err()
                .kind(),
            ErrorKind::Closed
        );
        client.machine.quit().unwrap();
        assert_eq!(client.steps().unwrap(), [Step::Wait { phase: Phase::Quit }]);
        assert!(client.wire.ends_with("QUIT\r\n"), "{}", client.wire);
        assert_eq!(client.feed("221 bye\r\n").unwrap(), [Step::Closed]);
        assert_eq!(
            client
                .machine
                .quit()
                .map_err(Error::from)
                .unwrap_err()
                .kind(),
            ErrorKind::Closed
        );
    }
    // Not after what is no refusal: a 421, a violation, and a refusal with more after it.
    for last in ["421 bye\r\n", "354 go\r\n", "554 no\r\n250 yes\r\n"] {
        let mut client = Client::new(|_| {});
        client.feed(last).unwrap_err();
        assert_ne!(
            client
                .machine
                .quit()
                .map_err(Error::from)
                .unwrap_err()
                .kind(),
            ErrorKind::Request,
            "{last}"
        );
        assert_eq!(client.wire, "", "{last}");
    }
}

/// Some empty lines are skipped, and none where TLS is to begin.
#[test]
fn empty_lines_before_a_reply_are_skipped() {
    let ready = |lines: usize| {
        let mut client = Client::new(|settings| settings.starttls = StartTls::Required);
        let empty = "\r\n".repeat(lines);
        client.feed(&format!("{empty}220 hello\r\n{empty}"))?;
        client.feed(&format!("250-mail.example.org\r\n250 STARTTLS\r\n{empty}"))?;
        client.feed("220 Go\r\n")?;
        Ok::<_, envoi::Error>(client)
    };
    let mut client = ready(16).unwrap();
    client.machine.upgraded().unwrap();
    let steps = client.feed("\r\n\n250 mail.example.org\r\n").unwrap();
    assert_eq!(steps, [Step::Ready]);
    client.read(b"\r\n\n");
    client.machine.noop().unwrap();
    let error = ready(17).unwrap_err();
    assert!(error.message().contains("an empty line came"), "{error}");
    let mut client = ready(0).unwrap();
    client.read(b"\r\n");
    assert_eq!(
        client
            .machine
            .step()
            .map_err(Error::from)
            .unwrap_err()
            .kind(),
        ErrorKind::Protocol
    );
    let mut client = Client::new(|_| {});
    let error = client.feed("220-hello\r\n\r\n220 hello\r\n").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "not within a reply");
}

#[test]
fn bytes_after_the_go_ahead_for_tls_are_a_violation() {
    let mut client = Client::new(|settings| settings.starttls = StartTls::IfOffered);
    client.feed("220 hello\r\n").unwrap();
    client
        .feed("250-mail.example.org\r\n250 STARTTLS\r\n")
        .unwrap();
    assert_eq!(client.feed("220 Go ahead\r\n").unwrap(), [Step::Upgrade]);
    // The driver had read them, and did not ask for a step before it made the handshake.
    client.read(b"250 AUTH PLAIN\r\n");
    let error = client.machine.upgraded().map_err(Error::from).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(!client.machine.is_secure());
    assert_eq!(client.steps().unwrap(), [Step::Closed]);
}
