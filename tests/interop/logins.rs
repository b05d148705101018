//! Logins by all that Dovecot knows, through Postfix.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use envoi::proto::Mechanism;
use envoi::{Connection, Credentials, Endpoint, ErrorKind};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::servers::{NO_LOGIN, Server, special};

const USER: &str = "bob@envoi.test";
const PASSWORD: &str = "Grüße@1%20?#&";

fn endpoint(server: &Server) -> Endpoint {
    Endpoint::from_url(&server.starttls(NO_LOGIN)).unwrap()
}

/// A token that is good from an hour ago, for so many seconds (RFC 7519).
fn token(user: &str, seconds: i64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64;
    let since = now - 3600;
    let claims = format!(
        r#"{{"sub":"{user}","iat":{since},"exp":{}}}"#,
        since + seconds
    );
    let signed = [r#"{"alg":"HS256","typ":"JWT"}"#, &claims]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let mut mac = Hmac::<Sha256>::new_from_slice(b"envoi tests").unwrap();
    mac.update(signed.as_bytes());
    format!(
        "{signed}.{}",
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    )
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn every_mechanism_accepts_only_the_right_secret() {
    let server = special("LOGINS");
    for mechanism in [
        Mechanism::Plain,
        Mechanism::Login,
        Mechanism::CramMd5,
        Mechanism::ScramSha1,
        Mechanism::ScramSha256,
        Mechanism::OAuthBearer,
        Mechanism::XOAuth2,
    ] {
        let is_token = matches!(mechanism, Mechanism::OAuthBearer | Mechanism::XOAuth2);
        let [right, wrong] = match is_token {
            true => [
                Credentials::token(USER, token(USER, 7200)),
                Credentials::token(USER, token(USER, 60)),
            ],
            false => [
                Credentials::new(USER, PASSWORD),
                Credentials::new(USER, "Gruesse"),
            ],
        };
        let endpoint = endpoint(&server).mechanism(mechanism);
        let connection = Connection::connect(&endpoint.clone().credentials(right)).await;
        let connection = connection.unwrap_or_else(|error| panic!("{mechanism}: {error:?}"));
        assert_eq!(connection.mechanism(), Some(mechanism));
        connection.quit().await;
        let error = Connection::connect(&endpoint.credentials(wrong))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.reply().map(|reply| reply.code())),
            (ErrorKind::Auth, Some(535)),
            "{error}"
        );
        assert_eq!(
            error.message().contains("does not accept the token"),
            is_token,
            "{error}"
        );
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn the_strongest_mechanism_is_chosen() {
    let server = special("LOGINS");
    let connection =
        Connection::connect(&endpoint(&server).credentials(Credentials::new(USER, PASSWORD)))
            .await
            .unwrap();
    // Dovecot 2.3 cannot tie a login to Postfix's TLS connection.
    assert_eq!(connection.mechanism(), Some(Mechanism::ScramSha256));
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn an_escaped_user_name_is_understood() {
    let server = special("LOGINS");
    const ESCAPED: &str = "x=1,y@envoi.test";
    for mechanism in [
        Mechanism::Plain,
        Mechanism::CramMd5,
        Mechanism::ScramSha1,
        Mechanism::ScramSha256,
        Mechanism::OAuthBearer,
        Mechanism::XOAuth2,
    ] {
        let credentials = match mechanism {
            Mechanism::OAuthBearer | Mechanism::XOAuth2 => {
                Credentials::token(ESCAPED, token(ESCAPED, 7200))
            }
            _ => Credentials::new(ESCAPED, "=,dummy"),
        };
        let endpoint = endpoint(&server)
            .mechanism(mechanism)
            .credentials(credentials);
        let connection = Connection::connect(&endpoint)
            .await
            .unwrap_or_else(|error| panic!("{mechanism}: {error:?}"));
        connection.quit().await;
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn the_authorization_identity_is_understood() {
    // Only an administrator may act for another one; all may act for themselves.
    let server = special("LOGINS");
    for mechanism in [
        Mechanism::Plain,
        Mechanism::ScramSha1,
        Mechanism::ScramSha256,
        Mechanism::OAuthBearer,
    ] {
        let credentials = match mechanism {
            Mechanism::OAuthBearer => Credentials::token(USER, token(USER, 7200)),
            _ => Credentials::new(USER, PASSWORD),
        };
        for (user, may) in [(USER, true), ("alice@envoi.test", false)] {
            let credentials = credentials.clone().authorize_as(user);
            let endpoint = endpoint(&server)
                .mechanism(mechanism)
                .credentials(credentials);
            let outcome = Connection::connect(&endpoint).await;
            assert_eq!(
                outcome.is_ok(),
                may,
                "{mechanism}, for {user}: {:?}",
                outcome.err()
            );
        }
    }
}
