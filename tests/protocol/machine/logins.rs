//! Who can log in, how, and what is no challenge.

use envoi::proto::{Event, Mechanism, SaslExchange, SaslFailure, SaslSession, Step};
use envoi::{Credentials, Error, ErrorKind, Phase};

use super::Client;

/// A mechanism of another maker.
struct Echo;

impl SaslExchange for Echo {
    fn mechanism(&self) -> Mechanism {
        Mechanism::Other("X-ECHO")
    }

    fn start(&mut self, session: &SaslSession<'_>) -> Result<Option<Vec<u8>>, SaslFailure> {
        assert!(session.capabilities.offers("AUTH"));
        Ok(None)
    }

    fn respond(&mut self, challenge: &[u8]) -> Result<Vec<u8>, SaslFailure> {
        Ok(challenge.to_vec())
    }
}

#[test]
fn a_custom_mechanism_logs_in() {
    let mut client = Client::ready_with(&["AUTH X-ECHO"], |settings| settings.secure = true);
    client.machine.login_with(Box::new(Echo)).unwrap();
    client.feed("334 aGVsbG8=\r\n").unwrap();
    let steps = client.feed("535 5.7.8 No\r\n").unwrap();
    assert!(
        matches!(
            &steps[..],
            [Step::Event(Event::Login { reason: None, .. }), Step::Ready]
        ),
        "{steps:?}"
    );
    assert!(client.wire.ends_with("AUTH X-ECHO\r\naGVsbG8=\r\n"));
    let other = Mechanism::Other("X-ECHO");
    assert!(!other.is_built() && Mechanism::Plain.is_built() && Mechanism::Anonymous.is_built());
    let error = client
        .machine
        .login(other, &Credentials::new("u", "p"))
        .map_err(Error::from)
        .unwrap_err();
    assert!(
        error
            .message()
            .contains("X-ECHO is not a mechanism that envoi implements"),
        "{error}"
    );
}

#[test]
fn usable_mechanisms_depend_on_credentials_and_tls() {
    let offer = "AUTH LOGIN XOAUTH2 EXTERNAL PLAIN ANONYMOUS X-OTHER SCRAM-SHA-256-PLUS CRAM-MD5";
    let mechanisms = |credentials: Credentials, secure| {
        let client = Client::ready_with(&[offer], |settings| settings.secure = secure);
        let names: Vec<_> = client
            .machine
            .mechanisms(&credentials)
            .iter()
            .map(|m| m.as_str())
            .collect();
        names.join(" ")
    };
    assert_eq!(
        mechanisms(Credentials::new("u", "p"), true),
        "PLAIN LOGIN CRAM-MD5"
    );
    assert_eq!(
        mechanisms(Credentials::new("u", "p"), false),
        "CRAM-MD5 PLAIN LOGIN",
        "what shows it comes last"
    );
    assert_eq!(
        mechanisms(Credentials::new("u", "p").authorize_as("v"), true),
        "PLAIN"
    );
    assert_eq!(mechanisms(Credentials::token("u", "t"), true), "XOAUTH2");
    assert_eq!(mechanisms(Credentials::external(), true), "EXTERNAL");
    assert_eq!(mechanisms(Credentials::anonymous("me"), true), "ANONYMOUS");

    let mut client = Client::ready_with(&[offer], |settings| settings.secure = true);
    for (mechanism, credentials, says) in [
        (
            Mechanism::External,
            Credentials::new("u", "p"),
            "EXTERNAL is not a mechanism for a password",
        ),
        (
            Mechanism::Plain,
            Credentials::token("u", "t"),
            "PLAIN is not a mechanism for a token",
        ),
        (
            Mechanism::Plain,
            Credentials::external(),
            "PLAIN is not a mechanism for an external login",
        ),
        (
            Mechanism::Login,
            Credentials::anonymous("me"),
            "LOGIN is not a mechanism for an anonymous login",
        ),
        (
            Mechanism::Login,
            Credentials::new("u", "p").authorize_as("v"),
            "acts for \"v\"",
        ),
    ] {
        let error = client
            .machine
            .login(mechanism, &credentials)
            .map_err(Error::from)
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Request, Phase::Auth)
        );
        assert!(error.message().contains(says), "{error}");
    }
    assert_eq!(client.steps().unwrap(), [Step::Ready], "nothing was sent");
}

/// 354 is a go-ahead for a message, and nothing that a secret answers.
#[test]
fn a_354_during_a_login_is_a_violation() {
    let mut client = Client::ready_with(&["AUTH LOGIN"], |settings| settings.secure = true);
    client
        .machine
        .login(Mechanism::Login, &Credentials::new("alice", "secret"))
        .unwrap();
    let error = client.feed("354 VXNlcm5hbWU6\r\n").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(
        client.wire.ends_with("AUTH LOGIN\r\n"),
        "nothing more was said"
    );
}

#[test]
fn an_oversized_challenge_is_a_violation() {
    let login = || {
        let mut client = Client::ready_with(&["AUTH LOGIN"], |settings| {
            (settings.secure, settings.limits.line) = (true, 100);
        });
        client
            .machine
            .login(Mechanism::Login, &Credentials::new("u", "p"))
            .unwrap();
        client
    };
    // Each line keeps to the limit, and all of them together do not.
    let line = format!("334-{}\r\n", "A".repeat(48));
    let mut client = login();
    client.feed(&format!("{line}{line}334 AAAA\r\n")).unwrap();
    assert!(
        client.wire.ends_with("AUTH LOGIN\r\ndQ==\r\n"),
        "{}",
        client.wire
    );
    let error = login()
        .feed(&format!("{line}{line}334 AAAAA\r\n"))
        .unwrap_err();
    assert!(
        error
            .message()
            .contains("a challenge longer than the limit of 100 bytes"),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

/// What is shown of a line that is no reply ends somewhere, and nothing of a secret is left before
/// that.
#[test]
fn a_truncated_line_shows_no_part_of_a_secret() {
    for before in [0, 70, 75] {
        let mut client = Client::ready_with(&["AUTH PLAIN"], |settings| settings.secure = true);
        client
            .machine
            .login(
                Mechanism::Plain,
                &Credentials::new("alice", "correct-horse"),
            )
            .unwrap();
        let error = client
            .feed(&format!("{}correct-horse\r\n", "x".repeat(before)))
            .unwrap_err();
        assert!(
            error.message().contains("***") && !error.message().contains("corr"),
            "{error}"
        );
    }
}
