//! Up to the first command: greeting, EHLO or LHLO, STARTTLS.

use envoi::proto::{Protocol, StartTls, Step};
use envoi::{Kind, Phase};

use crate::Client;

#[test]
fn a_server_that_begins_with_tls_is_recognised() {
    let mut client = Client::new(|_| {});
    client.steps().unwrap();
    // A handshake failure alert, as TLS servers answer what is no TLS.
    client.read(&[0x15]);
    assert!(client.steps().is_ok(), "one byte is not enough to tell, or what is told would hang on the cut");
    client.read(&[0x03, 0x01, 0x00, 0x02, 0x02, 0x28]);
    let error = client.steps().unwrap_err();
    assert!(error.to_string().contains("TLS"), "{error}");
}

/// What LMTP's first command is refused with says whether there is LMTP at all.
#[test]
fn a_server_without_lmtp_is_named() {
    for (reply, kind, says) in [
        ("500 what?\r\n", Kind::Refused, "the server does not know LHLO, with which LMTP begins"),
        ("550 not you\r\n", Kind::Refused, "the server refused LHLO from this client, me"),
        ("354 go\r\n", Kind::Protocol, "expected the answer to LHLO (250), but the server sent 354 go"),
    ] {
        let mut client = Client::new(|settings| settings.protocol = Protocol::Lmtp);
        client.hear("220 hello\r\n").unwrap();
        let error = client.hear(reply).unwrap_err();
        assert_eq!((error.kind(), error.message()), (kind, says));
    }
}

/// A go-ahead that came before STARTTLS went does not overtake it.
#[test]
fn the_handshake_comes_after_starttls() {
    let mut client = Client::new(|settings| settings.starttls = StartTls::Required);
    client.hear("220 hello\r\n").unwrap();
    client.read(b"250-mail.example.org\r\n250 STARTTLS\r\n220 Go ahead\r\n");
    assert!(matches!(client.machine.step().unwrap(), Step::Wait { .. }));
    assert!(client.machine.upgraded().unwrap_err().message().contains("STARTTLS has not gone"));
    assert_eq!(client.steps().unwrap(), [Step::Wait { phase: Phase::Tls }]);
    assert!(client.wire.ends_with("STARTTLS\r\n"));
    assert_eq!(client.steps().unwrap(), [Step::Upgrade]);
    client.machine.upgraded().unwrap();
    assert!(client.machine.is_secure());
}

#[test]
fn bytes_behind_the_go_ahead_for_tls_are_named() {
    let mut client = Client::new(|settings| settings.starttls = StartTls::IfOffered);
    client.hear("220 hello\r\n").unwrap();
    client.hear("250-mail.example.org\r\n250 STARTTLS\r\n").unwrap();
    assert_eq!(client.hear("220 Go ahead\r\n").unwrap(), [Step::Upgrade]);
    // The driver had read them, and did not ask for a step before it made the handshake.
    client.read(b"250 AUTH PLAIN\r\n");
    let error = client.machine.upgraded().unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
    assert!(!client.machine.is_secure());
    assert_eq!(client.steps().unwrap(), [Step::Closed]);
}
