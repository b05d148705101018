//! Mechanisms by themselves, with the examples of the RFCs. Whole sessions are in
//! `tests/dialogues`.

use super::*;
use crate::Credentials;
use crate::proto::{Capabilities, ClientName, Limits, ReplyParser, Settings};
use bytes::BytesMut;

/// The parts of a session that an exchange needs.
struct Setting {
    settings: Settings,
    capabilities: Capabilities,
    channel: Option<ChannelBinding>,
}

impl Setting {
    fn new(offered: &str) -> Self {
        let mut answer =
            BytesMut::from(format!("250-mail.example.org\r\n250 AUTH {offered}\r\n").as_str());
        let reply = ReplyParser::new(Limits::default())
            .parse(&mut answer)
            .unwrap()
            .unwrap();
        Setting {
            settings: Settings::new(ClientName::new("client.example.org").unwrap()),
            capabilities: Capabilities::from_reply(&reply),
            channel: None,
        }
    }

    #[cfg(feature = "sasl")]
    fn nonce(mut self, nonce: &str) -> Self {
        self.settings.nonce = Some(nonce.into());
        self
    }

    fn begin(&self, mechanism: Mechanism, credentials: &Credentials) -> Trial {
        let (settings, capabilities, channel) =
            (&self.settings, &self.capabilities, self.channel.as_ref());
        let session = SaslSession {
            settings,
            capabilities,
            channel,
            secure: true,
        };
        let exchange = mechanism.exchange(credentials).unwrap();
        let mut secrets = Secrets::default();
        let (login, line, _) = Login::begin(exchange, &session, &mut secrets).unwrap();
        Trial {
            login,
            line: text(&line),
            secrets,
        }
    }
}

struct Trial {
    login: Login,
    /// The last line of the client: AUTH, or a response.
    line: String,
    secrets: Secrets,
}

impl Trial {
    /// Passes on a challenge and returns the response, both without base64.
    fn ask(&mut self, challenge: &str) -> String {
        let line = text(
            &self
                .login
                .respond(&BASE64.encode(challenge), &mut self.secrets)
                .0,
        );
        self.line = line;
        self.output()
    }

    #[cfg(feature = "sasl")]
    fn ask_all(&mut self, challenges: &[&str]) -> String {
        challenges
            .iter()
            .fold(String::new(), |_, challenge| self.ask(challenge))
    }

    /// The last line of the client, without base64.
    fn output(&self) -> String {
        let word = self.line.split(' ').next_back().unwrap().trim_end();
        BASE64
            .decode(word)
            .map_or_else(|_| word.into(), |bytes| text(&bytes))
    }

    fn reason(&self) -> String {
        self.login.reason().unwrap_or_default()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lines(mechanism: Mechanism, credentials: &Credentials, challenges: usize) -> Vec<String> {
    let mut trial = Setting::new("").begin(mechanism, credentials);
    let mut lines = vec![trial.line.clone()];
    lines.extend((0..challenges).map(|_| text(&trial.login.respond("", &mut trial.secrets).0)));
    lines
}

#[test]
fn plain_matches_the_examples_of_rfc_4616() {
    let tim = Credentials::new("tim", "tanstaaftanstaaf");
    assert_eq!(
        lines(Mechanism::Plain, &tim, 2),
        [
            "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n",
            "AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n",
            "*\r\n"
        ]
    );
    let kurt = Credentials::new("Kurt", "xipj3plmq").authorize_as("Ursel");
    assert_eq!(
        Setting::new("").begin(Mechanism::Plain, &kurt).output(),
        "Ursel\0Kurt\0xipj3plmq"
    );
}

#[test]
fn plain_and_login_do_not_apply_saslprep() {
    // SASLprep would turn these into "IX" and "ª".
    let credentials = Credentials::new("I\u{AD}X", "\u{2168}\u{E000}");
    assert_eq!(
        Setting::new("")
            .begin(Mechanism::Plain, &credentials)
            .output(),
        "\0I\u{AD}X\0\u{2168}\u{E000}"
    );
    let mut login = Setting::new("").begin(Mechanism::Login, &credentials);
    assert_eq!(
        [login.ask("User:"), login.ask("Password:")],
        ["I\u{AD}X", "\u{2168}\u{E000}"]
    );
}

#[test]
fn login_answers_both_prompts() {
    assert_eq!(
        lines(
            Mechanism::Login,
            &Credentials::new("alice@example.org", "dummy123"),
            3
        ),
        [
            "AUTH LOGIN\r\n",
            "YWxpY2VAZXhhbXBsZS5vcmc=\r\n",
            "ZHVtbXkxMjM=\r\n",
            "*\r\n"
        ]
    );
}

#[test]
fn a_nul_in_credentials_is_refused() {
    assert!(
        Mechanism::Plain
            .exchange(&Credentials::new("a\0b", "c"))
            .is_err()
    );
    assert!(
        Mechanism::Plain
            .exchange(&Credentials::new("a", "c").authorize_as("b\0"))
            .is_err()
    );
    assert!(
        Mechanism::Login
            .exchange(&Credentials::new("a", "b\0c"))
            .is_err()
    );
}

#[test]
fn empty_user_or_password_is_refused() {
    for mechanism in [Mechanism::Plain, Mechanism::Login] {
        let says = |user, password| {
            mechanism
                .exchange(&Credentials::new(user, password))
                .err()
                .map(|failure| failure.to_string())
        };
        assert_eq!(says("", "p").as_deref(), Some("the user name is empty"));
        assert_eq!(says("u", "").as_deref(), Some("the password is empty"));
        assert_eq!(says("u", "p"), None);
    }
}

#[test]
fn mechanism_names_are_case_insensitive() {
    assert_eq!("login".parse::<Mechanism>().unwrap(), Mechanism::Login);
    for &mechanism in Mechanism::ALL {
        assert_eq!(mechanism.as_str().parse::<Mechanism>().unwrap(), mechanism);
    }
    let error = "NTLM".parse::<Mechanism>().unwrap_err();
    assert_eq!(error.name(), "NTLM");
}

#[test]
fn external_and_anonymous_send_identity_and_trace() {
    assert_eq!(
        lines(Mechanism::External, &Credentials::external(), 1),
        ["AUTH EXTERNAL =\r\n", "\r\n"]
    );
    let fred = Credentials::external().authorize_as("fred@example.com");
    assert_eq!(
        Setting::new("").begin(Mechanism::External, &fred).output(),
        "fred@example.com"
    );
    let trace = Credentials::anonymous("sirhc");
    assert_eq!(
        lines(Mechanism::Anonymous, &trace, 0),
        ["AUTH ANONYMOUS c2lyaGM=\r\n"]
    );
}

#[test]
fn unsuitable_credentials_are_refused_with_the_reason() {
    let password = Credentials::new("u", "p");
    for (mechanism, credentials, says) in [
        (Mechanism::External, &password, "a password"),
        (Mechanism::Plain, &Credentials::token("u", "t"), "a token"),
        (
            Mechanism::Anonymous,
            &Credentials::external(),
            "an external login",
        ),
        (
            Mechanism::Login,
            &password.clone().authorize_as("bob"),
            "acts for \"bob\"",
        ),
    ] {
        let error = mechanism.exchange(credentials).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[cfg(feature = "client")]
#[test]
fn suitable_mechanisms_depend_on_credentials_and_identity() {
    let password = Credentials::new("u", "p");
    let token = Credentials::token("u", "t");
    for (mechanism, credentials, suits) in [
        (Mechanism::Plain, password.clone(), true),
        (Mechanism::Plain, password.clone().authorize_as("v"), true),
        (Mechanism::Plain, token.clone(), false),
        (Mechanism::Login, password.clone(), true),
        (Mechanism::Login, password.authorize_as("v"), false),
        (
            Mechanism::OAuthBearer,
            token.clone().authorize_as("v"),
            true,
        ),
        (Mechanism::XOAuth2, token.authorize_as("v"), false),
    ] {
        assert_eq!(mechanism.suits(&credentials), suits, "{mechanism}");
    }
}

#[cfg(feature = "client")]
#[test]
fn credentials_unusable_by_all_mechanisms_are_refused_early() {
    let check = |order: &[Mechanism], credentials: &Credentials| {
        Mechanism::check(order, credentials).is_ok()
    };
    let unsayable = Credentials::new("a\0b", "c");
    assert!(!check(&[Mechanism::Plain], &unsayable) && !check(&[], &unsayable));
    let password = Credentials::new("u", "p");
    assert!(check(&[Mechanism::Plain], &password) && check(&[], &password));
    assert!(
        check(&[Mechanism::External], &password),
        "that it is for another sort is said elsewhere"
    );
}

const TOKEN: &str = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==";

#[test]
fn oauthbearer_matches_the_example_of_rfc_7628() {
    let mut setting = Setting::new("OAUTHBEARER");
    setting.settings.server = Some(("server.example.com".into(), 143));
    let credentials = Credentials::token("user@example.com", TOKEN);
    let mut trial = setting.begin(Mechanism::OAuthBearer, &credentials);
    assert_eq!(
        trial.line,
        "AUTH OAUTHBEARER \
            bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyI\
         HZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB\r\n"
    );
    let error = r#"{"status":"invalid_token","scope":"example_scope","openid-configuration":"https://example.com/.well-known/openid-configuration"}"#;
    assert_eq!(trial.ask(error), "\x01");
    assert_eq!(
        trial.reason(),
        "the server does not accept the token: \"invalid_token\" \
         (openid-configuration \"https://example.com/.well-known/openid-configuration\", \
         scope \"example_scope\")"
    );
    assert!(trial.login.verify().is_err());
}

#[test]
fn xoauth2_matches_googles_example() {
    let mut trial = Setting::new("").begin(
        Mechanism::XOAuth2,
        &Credentials::token("someuser@example.com", "ya29.vF9"),
    );
    assert_eq!(
        trial.output(),
        "user=someuser@example.com\x01auth=Bearer ya29.vF9\x01\x01"
    );
    let error = r#"{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}"#;
    assert_eq!(trial.ask(error), "");
    assert!(
        trial
            .reason()
            .ends_with("\"400\" (schemes \"Bearer\", scope \"https://mail.google.com/\")")
    );
}

#[test]
fn a_refusal_that_is_not_json_is_shown_as_text() {
    let mut trial = Setting::new("").begin(Mechanism::XOAuth2, &Credentials::token("u", "t"));
    assert_eq!(trial.ask("no \x1b[1mway"), "");
    assert!(
        trial.reason().ends_with("\"no \u{FFFD}[1mway\""),
        "{}",
        trial.reason()
    );
}

#[test]
fn a_token_with_separators_is_refused() {
    for token in ["", "a b", "a\x01host=x", "a\r\n", "é"] {
        assert!(
            Mechanism::XOAuth2
                .exchange(&Credentials::token("u", token))
                .is_err(),
            "{token:?}"
        );
    }
    assert!(
        Mechanism::OAuthBearer
            .exchange(&Credentials::token("u\x01auth=Bearer x", "t"))
            .is_err()
    );
}

#[test]
fn a_long_token_waits_for_the_empty_challenge() {
    let token = "x".repeat(2000);
    let mut trial = Setting::new("").begin(
        Mechanism::OAuthBearer,
        &Credentials::token("u", token.as_str()),
    );
    assert_eq!(trial.line, "AUTH OAUTHBEARER\r\n");
    assert_eq!(
        trial.ask(""),
        format!("n,a=u,\x01auth=Bearer {token}\x01\x01")
    );
}

#[cfg(feature = "sasl")]
mod with_feature {
    use proptest::prelude::*;

    use super::*;

    fn user() -> Credentials {
        Credentials::new("user", "pencil")
    }

    #[test]
    fn cram_md5_matches_the_example_of_rfc_2195() {
        let mut trial = Setting::new("").begin(
            Mechanism::CramMd5,
            &Credentials::new("tim", "tanstaaftanstaaf"),
        );
        assert_eq!(trial.line, "AUTH CRAM-MD5\r\n");
        let response = trial.ask("<1896.697170952@postoffice.reston.mci.net>");
        assert_eq!(response, "tim b913a602c7eda7a495b4e6e7334d3890");
        assert_eq!(trial.ask("<again>"), "*");
        assert_eq!(trial.reason(), "the server sent a second challenge");
    }

    #[test]
    fn scram_sha_1_matches_the_example_of_rfc_5802() {
        let setting = Setting::new("SCRAM-SHA-1").nonce("fyko+d2lbbFgONRv9qkxdawL");
        let mut trial = setting.begin(Mechanism::ScramSha1, &user());
        assert_eq!(trial.output(), "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
        assert_eq!(
            trial.ask("r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096"),
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
        );
        assert!(
            trial.login.verify().is_err(),
            "the server has not proved anything"
        );
        assert_eq!(trial.ask("v=rmF9pqV8S7suAoZWja4dJRkFsKQ="), "");
        trial.login.verify().unwrap();
    }

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const LAST: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    #[test]
    fn scram_sha_256_matches_the_example_of_rfc_7677() {
        let mut trial = Setting::new("SCRAM-SHA-256")
            .nonce(NONCE)
            .begin(Mechanism::ScramSha256, &user());
        assert_eq!(trial.output(), format!("n,,n=user,r={NONCE}"));
        assert_eq!(
            trial.ask(FIRST),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        // What passwords could be guessed from is secret before the server sends it.
        assert_eq!(trial.secrets.redacted(&BASE64.encode(LAST)).unwrap(), "***");
        assert_eq!(trial.ask(LAST), "");
        trial.login.verify().unwrap();
        assert_eq!(trial.ask("v=more"), "*");
        assert!(trial.login.verify().is_err());
    }

    #[test]
    fn scram_aborts_on_bad_challenges_with_the_reason() {
        for (challenges, says) in [
            (
                &["r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"][..],
                "another login",
            ),
            (
                &["r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"],
                "another login",
            ),
            (
                &["r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4095"],
                "fewer than 4096",
            ),
            (
                &["r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=600001"],
                "limit is 600000",
            ),
            (
                &["r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=99999999999"],
                "first message",
            ),
            (&["r=rOprNGfwEbeRWgbNEkqOx,s=?,i=4096"], "first message"),
            (
                &["m=x,r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"],
                "extension",
            ),
            (&["", ""], "first message"),
            (&[FIRST, "v=AAAA"], "in its place"),
            (
                &[FIRST, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="],
                "last message",
            ),
            (&[FIRST, ""], "last message"),
        ] {
            let mut trial = Setting::new("")
                .nonce(NONCE)
                .begin(Mechanism::ScramSha256, &user());
            let last = trial.ask_all(challenges);
            assert_eq!(last, "*", "{challenges:?}");
            assert!(
                trial.reason().contains(says),
                "{challenges:?}: {}",
                trial.reason()
            );
            assert!(trial.login.verify().is_err(), "{challenges:?}");
        }
    }

    #[test]
    fn scram_reports_the_servers_error() {
        for (challenges, says) in [
            (&[FIRST, "e=invalid-proof"][..], "password is wrong"),
            (&["e=unknown-user"], "does not know the user"),
            (
                &[FIRST, "e=server-does-support-channel-binding"],
                "something in between",
            ),
            (&[FIRST, "e=odd"], "\"odd\""),
        ] {
            let mut trial = Setting::new("")
                .nonce(NONCE)
                .begin(Mechanism::ScramSha256, &user());
            let last = trial.ask_all(challenges);
            assert_eq!(last, "", "{challenges:?}");
            assert!(
                trial.reason().contains(says),
                "{challenges:?}: {}",
                trial.reason()
            );
            let contradiction = trial.login.verify().unwrap_err().to_string();
            assert!(
                contradiction.contains(says) && contradiction.contains("and then"),
                "{contradiction}"
            );
        }
    }

    #[test]
    fn broken_and_distrusted_exchanges_are_distinguished() {
        use ExchangeFault::{Broken, Distrusted};
        let salt = "s=W22ZaJ0SNY7soEsUEjb6gQ==";
        let first = |nonce: &str, rounds: u32| format!("r={nonce},{salt},i={rounds}");
        for (challenges, fault) in [
            (vec![first("another", 4096)], Some(Distrusted)),
            (vec![first(NONCE, 4096)], Some(Distrusted)),
            (vec![first(&format!("{NONCE}x"), 4095)], Some(Distrusted)),
            (vec![FIRST.into(), "v=AAAA".into()], Some(Distrusted)),
            (vec![FIRST.into(), "v=?".into()], Some(Distrusted)),
            (
                vec![FIRST.into(), "e=channel-bindings-dont-match".into()],
                Some(Distrusted),
            ),
            (
                vec!["e=server-does-support-channel-binding".into()],
                Some(Distrusted),
            ),
            (vec![first(&format!("{NONCE}x"), 600_001)], Some(Broken)),
            (vec!["m=x".into()], Some(Broken)),
            (vec!["r=x".into()], Some(Broken)),
            (
                vec![FIRST.into(), "e=unsupported-channel-binding-type".into()],
                Some(Broken),
            ),
            (vec!["e=extensions-not-supported".into()], Some(Broken)),
            (vec![FIRST.into(), "e=invalid-proof".into()], None),
            (vec!["e=unknown-user".into()], None),
            (vec!["e=other-error".into()], None),
            (vec![FIRST.into()], None),
        ] {
            let mut trial = Setting::new("")
                .nonce(NONCE)
                .begin(Mechanism::ScramSha256, &user());
            for challenge in &challenges {
                trial.ask(challenge);
            }
            assert_eq!(trial.login.fault(), fault, "{challenges:?}");
        }
        // What is not base64 does not reach the exchange.
        let mut trial = Setting::new("").begin(Mechanism::CramMd5, &user());
        assert_eq!(&*trial.login.respond("<>", &mut trial.secrets).0, b"*\r\n");
        assert_eq!(trial.login.fault(), Some(Broken));
    }

    #[test]
    fn proofs_are_redacted_like_passwords() {
        let mut trial = Setting::new("").begin(
            Mechanism::CramMd5,
            &Credentials::new("tim", "tanstaaftanstaaf"),
        );
        let response = trial.ask("<1896.697170952@postoffice.reston.mci.net>");
        for echo in [
            response.clone(),
            response.to_uppercase().replace("TIM ", "tim "),
            BASE64.encode(&response),
        ] {
            let shown = trial.secrets.redacted(&echo);
            assert!(
                shown
                    .as_deref()
                    .is_none_or(|shown| !shown.contains("b913a602c7eda7a495b4e6e7334d3890")),
                "{shown:?}"
            );
        }
        assert_eq!(
            trial.secrets.redacted(&response).as_deref(),
            Some("tim ***")
        );
        let mut trial = Setting::new("")
            .nonce(NONCE)
            .begin(Mechanism::ScramSha256, &user());
        let response = trial.ask(FIRST);
        assert!(
            !trial
                .secrets
                .redacted(&response)
                .unwrap()
                .contains("dHzbZapWIk4jUhN")
        );
        let (_, proof) = response.rsplit_once(",p=").unwrap();
        assert_eq!(
            trial
                .secrets
                .redacted(&format!("proof: {proof}"))
                .as_deref(),
            Some("proof: ***")
        );
    }

    #[test]
    fn no_credential_adds_a_field() {
        let mut setting = Setting::new("");
        let token = Credentials::token("", "vF9d");
        assert_eq!(
            setting.begin(Mechanism::OAuthBearer, &token).output(),
            "n,,\x01auth=Bearer vF9d\x01\x01"
        );
        setting.settings.server = Some(("host\x01auth=Bearer other".into(), 587));
        setting.settings.nonce = Some("a,b".into());
        let (settings, capabilities) = (&setting.settings, &setting.capabilities);
        let session = SaslSession {
            settings,
            capabilities,
            channel: None,
            secure: true,
        };
        for (mechanism, credentials) in [
            (Mechanism::OAuthBearer, token),
            (Mechanism::ScramSha1, user()),
        ] {
            let exchange = mechanism.exchange(&credentials).unwrap();
            assert!(
                Login::begin(exchange, &session, &mut Secrets::default()).is_err(),
                "{mechanism}"
            );
        }
        for name in ["a,b", "a=b", "a=2Cb", ",=,", "=3D,"] {
            let escaped = crate::proto::sasl::exchange::saslname(name);
            assert!(!escaped.contains(','), "{escaped}");
            assert_eq!(escaped.replace("=2C", ",").replace("=3D", "="), name);
        }
    }

    #[test]
    fn scram_iterations_stay_within_the_limits() {
        for (iterations, is_answered) in [(4095, false), (4096, true), (4097, true), (4098, false)]
        {
            let mut setting = Setting::new("").nonce(NONCE);
            setting.settings.limits.scram_iterations = 4096..=4097;
            let mut trial = setting.begin(Mechanism::ScramSha256, &user());
            let response = trial.ask(&format!(
                "r={NONCE}x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i={iterations}"
            ));
            assert_eq!(
                response.starts_with("c=biws,r="),
                is_answered,
                "{iterations}: {response}"
            );
        }
    }

    #[test]
    fn the_scram_header_states_channel_binding_support() {
        let channel = Some(ChannelBinding::tls_exporter(*b"0123"));
        for (offered, channel, mechanism, begins) in [
            ("SCRAM-SHA-256", None, Mechanism::ScramSha256, "n,,n="),
            (
                "SCRAM-SHA-256",
                channel.clone(),
                Mechanism::ScramSha256,
                "y,,n=",
            ),
            // Not one that this client supports: in the place of one that it does, it would hide
            // that the server has it.
            (
                "SCRAM-SHA-256 SCRAM-SHA-512-PLUS",
                channel.clone(),
                Mechanism::ScramSha256,
                "y,,n=",
            ),
            (
                "SCRAM-SHA-256 SCRAM-SHA-1-PLUS",
                channel.clone(),
                Mechanism::ScramSha256,
                "n,,n=",
            ),
            (
                "SCRAM-SHA-1-PLUS",
                channel,
                Mechanism::ScramSha1Plus,
                "p=tls-exporter,,n=",
            ),
        ] {
            let setting = Setting {
                channel,
                ..Setting::new(offered)
            };
            let said = setting.begin(mechanism, &user()).output();
            assert!(said.starts_with(begins), "{offered}: {said}");
        }
        let setting = Setting::new("SCRAM-SHA-1-PLUS");
        let (settings, capabilities) = (&setting.settings, &setting.capabilities);
        let session = SaslSession {
            settings,
            capabilities,
            channel: None,
            secure: true,
        };
        let exchange = Mechanism::ScramSha1Plus.exchange(&user()).unwrap();
        assert!(Login::begin(exchange, &session, &mut Secrets::default()).is_err());
    }

    #[test]
    fn the_final_scram_message_has_header_and_binding() {
        let channel = Some(ChannelBinding::tls_server_end_point(*b"\xff\0"));
        let setting = Setting {
            channel,
            ..Setting::new("").nonce(NONCE)
        };
        let credentials = user().authorize_as("a,b=c");
        let mut trial = setting.begin(Mechanism::ScramSha256Plus, &credentials);
        assert_eq!(
            trial.output(),
            format!("p=tls-server-end-point,a=a=2Cb=3Dc,n=user,r={NONCE}")
        );
        let binding = BASE64.encode(b"p=tls-server-end-point,a=a=2Cb=3Dc,\xff\0");
        assert!(
            trial
                .ask(FIRST)
                .starts_with(&format!("c={binding},r={NONCE}"))
        );
    }

    #[test]
    fn each_exchange_has_a_new_nonce() {
        let nonce = || {
            Setting::new("")
                .begin(Mechanism::ScramSha1, &user())
                .output()
        };
        assert_ne!(nonce(), nonce());
        assert_eq!(nonce().len(), "n,,n=user,r=".len() + 24);
    }

    #[test]
    fn scram_applies_saslprep_and_hides_the_password() {
        // RFC 4013, 3: soft hyphen to nothing, Roman nine to IX, private use forbidden.
        let same = |a: &str, b: &str| *scram::prepared(a, "").unwrap() == b;
        assert!(
            same("I\u{AD}X", "IX")
                && same("\u{2168}", "IX")
                && same("\u{AA}", "a")
                && same("user", "user")
        );
        let error = Mechanism::ScramSha1
            .exchange(&Credentials::new("user", "pen\u{7}cil"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("the password") && !error.contains('\u{7}'),
            "{error}"
        );
        assert!(
            Mechanism::ScramSha1
                .exchange(&Credentials::new("", "pencil"))
                .is_err()
        );
    }

    /// What a server might send: nearly valid, or not at all.
    fn challenge() -> impl Strategy<Value = Vec<u8>> {
        let scram =
            "(r=abc?[!-~]{0,6})?,?(s=[A-Za-z0-9+/]{0,8}=?)?,?(i=[0-9]{0,3})?(,[a-z]=.{0,5})?";
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            proptest::string::string_regex(scram)
                .unwrap()
                .prop_map(String::into_bytes),
            "[ve]=[A-Za-z0-9+/]{0,44}=?".prop_map(String::into_bytes),
            r#"\{"status": ?("[a-z_]{0,9}"|[0-9]{0,4}|\[|null),?("[a-z]{0,3}":"[^"]{0,9}")?\}"#
                .prop_map(String::into_bytes),
            Just(Vec::new()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Every challenge gets one line, and a cancelled login stays cancelled with its reason.
        #[test]
        fn every_challenge_gets_one_line(
            challenges in proptest::collection::vec((challenge(), any::<bool>()), 0..6),
            mechanism in proptest::sample::select(Mechanism::ALL),
        ) {
            let mut setting = Setting::new("").nonce("abc");
            setting.settings.limits.scram_iterations = 1..=500;
            setting.channel = Some(ChannelBinding::tls_exporter([7; 32]));
            let credentials = match mechanism {
                Mechanism::External => Credentials::external(),
                Mechanism::Anonymous => Credentials::anonymous("x"),
                mechanism if mechanism.takes_token() => Credentials::token("user", "token"),
                _ => user(),
            };
            let mut trial = setting.begin(mechanism, &credentials);
            let mut given_up = false;
            for (challenge, encoded) in challenges {
                let challenge = if encoded { BASE64.encode(&challenge) } else { text(&challenge) };
                let line = text(&trial.login.respond(&challenge, &mut trial.secrets).0);
                prop_assert!(line.ends_with("\r\n") && line.matches('\n').count() == 1);
                prop_assert!(!given_up || line == "*\r\n");
                given_up |= line == "*\r\n";
                prop_assert_eq!(given_up && trial.login.verify().is_ok(), false);
                prop_assert!(!given_up || trial.login.reason().is_some());
            }
        }
    }
}

#[test]
fn a_long_initial_response_waits_for_its_challenge() {
    let begins_with = |password: usize| {
        let credentials = Credentials::new("alice", "x".repeat(password));
        Setting::new("PLAIN")
            .begin(Mechanism::Plain, &credentials)
            .line
    };
    // `AUTH PLAIN ` and CRLF are 13 of the 512 bytes (RFC 5321, 4.5.3.1.4); "\0alice\0" is 7 of
    // what is encoded.
    let longest = (512 - 13) / 4 * 3 - 7;
    assert!(begins_with(longest).starts_with("AUTH PLAIN "));
    assert_eq!(begins_with(longest + 1).trim_end(), "AUTH PLAIN");
    // With this user name, exactly 512 bytes are possible.
    let begins_with = |user: usize| {
        let credentials = Credentials::external().authorize_as("x".repeat(user));
        Setting::new("")
            .begin(Mechanism::External, &credentials)
            .line
    };
    assert_eq!(begins_with(372).len(), 512);
    assert_eq!(begins_with(373).trim_end(), "AUTH EXTERNAL");
}
