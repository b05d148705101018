//! AUTH (RFC 4954): the server side of the mechanisms.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::ServerSession;
#[cfg(feature = "sasl")]
use super::scram::Scram;
use crate::proto::Mechanism;
#[cfg(feature = "sasl")]
use crate::proto::sasl::{cram_md5, scram::Hash};

/// Why a login failed: with a reply, or by an I/O error.
enum Failure {
    Reply(&'static str),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

/// The server side of a mechanism.
enum Handler {
    Plain,
    Login,
    #[cfg(feature = "sasl")]
    CramMd5,
    #[cfg(feature = "sasl")]
    Scram(Mechanism),
    Token,
}

impl Handler {
    /// The handler of a mechanism. A mechanism without one cannot be offered.
    fn of(mechanism: Mechanism) -> Option<Handler> {
        match mechanism {
            Mechanism::Plain => Some(Handler::Plain),
            Mechanism::Login => Some(Handler::Login),
            #[cfg(feature = "sasl")]
            Mechanism::CramMd5 => Some(Handler::CramMd5),
            #[cfg(feature = "sasl")]
            Mechanism::ScramSha256Plus
            | Mechanism::ScramSha1Plus
            | Mechanism::ScramSha256
            | Mechanism::ScramSha1 => Some(Handler::Scram(mechanism)),
            #[cfg(not(feature = "sasl"))]
            Mechanism::CramMd5
            | Mechanism::ScramSha256Plus
            | Mechanism::ScramSha1Plus
            | Mechanism::ScramSha256
            | Mechanism::ScramSha1 => None,
            Mechanism::OAuthBearer | Mechanism::XOAuth2 => Some(Handler::Token),
            Mechanism::External | Mechanism::Anonymous | Mechanism::Other(_) => None,
        }
    }
}

/// Whether the server can handle this mechanism in this build.
pub(in crate::testing) fn is_handled(mechanism: Mechanism) -> bool {
    Handler::of(mechanism).is_some()
}

const INVALID: Failure = Failure::Reply("535 5.7.8 Authentication credentials invalid");

impl ServerSession {
    /// The mechanisms listed in the reply to EHLO; none if AUTH is not offered at this point.
    pub(super) fn offered_mechanisms(&self) -> Vec<&'static str> {
        let settings = &self.server.settings;
        let has_logins = !settings.logins.is_empty() || !settings.tokens.is_empty();
        if !has_logins
            || (self.tls.is_none() && !settings.auth_in_clear)
            || !self.server.offers("AUTH")
        {
            return Vec::new();
        }
        let names = settings
            .mechanisms
            .iter()
            .map(|mechanism| mechanism.as_str());
        names
            .filter(|name| self.tls.is_some() || !name.ends_with("-PLUS"))
            .collect()
    }

    pub(super) async fn auth(&mut self, argument: &str) -> io::Result<&'static str> {
        if !self.is_extended {
            return Ok("503 5.5.1 Say EHLO first");
        }
        let offered = self.offered_mechanisms();
        if offered.is_empty() {
            let needs_tls = self.tls.is_none() && !self.server.settings.logins.is_empty();
            return Ok(match needs_tls {
                true => "538 5.7.11 Encryption required for requested authentication mechanism",
                false => "502 5.5.1 Command not implemented",
            });
        }
        if self.login.is_some() || self.transaction.is_some() {
            return Ok("503 5.5.1 Already logged in, or in the middle of a transaction");
        }
        let (mechanism, initial) = match argument.split_once(' ') {
            Some((mechanism, initial)) => (mechanism, Some(initial)),
            None => (argument, None),
        };
        let known = mechanism.parse::<Mechanism>().ok();
        let is_offered = |mechanism: &Mechanism| offered.contains(&mechanism.as_str());
        let Some(handler) = known.filter(is_offered).and_then(Handler::of) else {
            return Ok("504 5.5.4 Unrecognized authentication type");
        };
        let user = match handler {
            Handler::Plain => self.plain(initial).await,
            Handler::Login => self.login(initial).await,
            #[cfg(feature = "sasl")]
            Handler::CramMd5 => self.cram_md5().await,
            #[cfg(feature = "sasl")]
            Handler::Scram(mechanism) => self.scram(mechanism, initial).await,
            Handler::Token => self.token(initial).await,
        };
        match user {
            Ok(user) => {
                self.login = Some(user);
                Ok("235 2.7.0 Authentication successful")
            }
            Err(Failure::Reply(reply)) => Ok(reply),
            Err(Failure::Io(error)) => Err(error),
        }
    }

    async fn plain(&mut self, initial: Option<&str>) -> Result<String, Failure> {
        let response = self.initial(initial).await?;
        match response.split('\0').collect::<Vec<_>>()[..] {
            [identity, user, password] if identity.is_empty() || identity == user => {
                self.check_login(user, password)
            }
            [_, _, _] => Err(Failure::Reply(
                "535 5.7.8 Not allowed to act for another user",
            )),
            _ => Err(Failure::Reply(
                "501 5.5.2 Not identity, NUL, user, NUL, password",
            )),
        }
    }

    async fn login(&mut self, initial: Option<&str>) -> Result<String, Failure> {
        let user = match initial {
            Some(initial) => decode_response(initial)?,
            None => self.challenge("Username:").await?,
        };
        let password = self.challenge("Password:").await?;
        self.check_login(&user, &password)
    }

    #[cfg(feature = "sasl")]
    async fn cram_md5(&mut self) -> Result<String, Failure> {
        let challenge = format!("<{}@localhost>", self.number);
        let response = self.challenge(&challenge).await?;
        let (user, signature) = response.rsplit_once(' ').ok_or(INVALID)?;
        let login = self
            .server
            .settings
            .logins
            .iter()
            .find(|(known, _)| known == user);
        match login {
            Some((_, password))
                if cram_md5::signature(password, challenge.as_bytes()) == signature =>
            {
                Ok(user.into())
            }
            _ => Err(INVALID),
        }
    }

    #[cfg(feature = "sasl")]
    async fn scram(
        &mut self,
        mechanism: Mechanism,
        initial: Option<&str>,
    ) -> Result<String, Failure> {
        let scram = Scram {
            hash: if mechanism.as_str().contains("SHA-256") {
                Hash::Sha256
            } else {
                Hash::Sha1
            },
            is_plus: mechanism.as_str().ends_with("-PLUS"),
            offers_plus: self
                .offered_mechanisms()
                .iter()
                .any(|name| name.ends_with("-PLUS")),
            channel_bindings: self.channel_bindings.clone(),
        };
        let message = self.initial(initial).await?;
        let first = scram.client_first(&message, &self.server.settings.logins);
        let (answer, state) = match first {
            Ok(state) => state,
            Err(error) => return self.scram_error(error).await,
        };
        let message = self.challenge(&answer).await?;
        match scram.client_final(&state, &message) {
            Ok(answer) => {
                self.challenge(&answer).await?;
                Ok(state.user)
            }
            Err(error) => self.scram_error(error).await,
        }
    }

    /// The client acknowledges the error with an empty response.
    #[cfg(feature = "sasl")]
    async fn scram_error(&mut self, error: &str) -> Result<String, Failure> {
        self.challenge(&format!("e={error}")).await?;
        Err(INVALID)
    }

    async fn token(&mut self, initial: Option<&str>) -> Result<String, Failure> {
        let response = self.initial(initial).await?;
        let mut parts = response.split('\x01');
        let header = parts.next().unwrap_or_default();
        let token = parts.find_map(|part| part.strip_prefix("auth=Bearer "));
        // If the GS2 header has no name, the token identifies the user (RFC 7628, 3.1).
        let named = header.strip_prefix("user=").map(str::to_owned).or_else(|| {
            let name = header.strip_prefix("n,a=")?.strip_suffix(',')?;
            Some(name.replace("=2C", ",").replace("=3D", "="))
        });
        let is_good = |(known, good): &&(String, String)| {
            Some(good.as_str()) == token
                && named.as_ref().map_or(header == "n,,", |name| name == known)
        };
        if let Some((user, _)) = self.server.settings.tokens.iter().find(is_good) {
            return Ok(user.clone());
        }
        // RFC 7628, 3.2.2.
        self.challenge(r#"{"status":"invalid_token","scope":"mail"}"#)
            .await?;
        Err(INVALID)
    }

    fn check_login(&self, user: &str, password: &str) -> Result<String, Failure> {
        let logins = &self.server.settings.logins;
        let is_known = logins
            .iter()
            .any(|(known, right)| known == user && right == password);
        if is_known {
            Ok(user.into())
        } else {
            Err(INVALID)
        }
    }

    /// The initial response, which is either in AUTH or requested.
    async fn initial(&mut self, initial: Option<&str>) -> Result<String, Failure> {
        match initial {
            // An empty response (RFC 4954, 4).
            Some("=") => Ok(String::new()),
            Some(initial) => decode_response(initial),
            None => self.challenge("").await,
        }
    }

    async fn challenge(&mut self, challenge: &str) -> Result<String, Failure> {
        self.output
            .extend_from_slice(format!("334 {}\r\n", BASE64.encode(challenge)).as_bytes());
        let Some(response) = self.line().await? else {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the client closed in the middle of AUTH",
            )
            .into());
        };
        self.record("***");
        match response {
            Ok(response) if response == "*" => {
                Err(Failure::Reply("501 5.7.0 Authentication aborted"))
            }
            Ok(response) => decode_response(&response),
            Err(reply) => Err(Failure::Reply(reply)),
        }
    }
}

fn decode_response(response: &str) -> Result<String, Failure> {
    let bytes = BASE64
        .decode(response)
        .map_err(|_| Failure::Reply("501 5.5.2 Cannot decode the response"))?;
    String::from_utf8(bytes).map_err(|_| Failure::Reply("501 5.5.2 The response is not UTF-8"))
}
