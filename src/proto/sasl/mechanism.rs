//! The mechanisms by name, in order, and which credentials they take.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "sasl")]
use super::cram_md5::CramMd5;
use super::login::LoginExchange;
#[cfg(feature = "sasl")]
use super::oauth::OAuth;
#[cfg(feature = "sasl")]
use super::scram::Scram;
use super::single::Single;
use super::{SaslExchange, SaslFailure};
#[cfg(feature = "client")]
use crate::proto::ProtocolError;
use crate::secret::{Credentials, Proof};
use crate::text::quoted;

/// A way to log in. SCRAM, CRAM-MD5 and those with a token need the feature `sasl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mechanism {
    /// SCRAM with SHA-256 (RFC 7677), tied to the TLS connection: not even somebody whose
    /// certificate is trusted can pass the login on.
    ScramSha256Plus,
    /// SCRAM with SHA-1, tied to the TLS connection.
    ScramSha1Plus,
    /// SCRAM with SHA-256 (RFC 7677): the password is never sent, and the server must prove that it
    /// knows it, too.
    ScramSha256,
    /// SCRAM with SHA-1 (RFC 5802), which is good enough for this use.
    ScramSha1,
    /// User and password in one response (RFC 4616). The password crosses the wire.
    Plain,
    /// The older form of the same, user and password one after the other.
    Login,
    /// The password is not sent (RFC 2195), but whoever listens can try passwords against the
    /// answer.
    CramMd5,
    /// A token of OAuth 2 (RFC 7628).
    OAuthBearer,
    /// The older form of the same, by Google and Microsoft.
    XOAuth2,
    /// The server knows who it is, from the client's certificate or else (RFC 4422, A).
    External,
    /// Nobody in particular (RFC 4505).
    Anonymous,
    /// One that envoi has not, by its registered name: see [`SaslExchange`].
    Other(&'static str),
}

impl Mechanism {
    /// All that envoi knows, the strongest first. Inside TLS they are tried in this order.
    ///
    /// CRAM-MD5 stands behind PLAIN: inside TLS it protects nothing that is not protected, and it
    /// fails as if the password were wrong at servers that keep a hash of it, though they offer it.
    /// Outside TLS, where that is allowed at all, it stands before PLAIN.
    pub const ALL: [Mechanism; 11] = [
        Mechanism::ScramSha256Plus,
        Mechanism::ScramSha1Plus,
        Mechanism::ScramSha256,
        Mechanism::ScramSha1,
        Mechanism::Plain,
        Mechanism::Login,
        Mechanism::CramMd5,
        Mechanism::OAuthBearer,
        Mechanism::XOAuth2,
        Mechanism::External,
        Mechanism::Anonymous,
    ];

    /// The name in the registry of SASL mechanisms.
    pub fn as_str(self) -> &'static str {
        match self {
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Mechanism::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha1 => "SCRAM-SHA-1",
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::CramMd5 => "CRAM-MD5",
            Mechanism::OAuthBearer => "OAUTHBEARER",
            Mechanism::XOAuth2 => "XOAUTH2",
            Mechanism::External => "EXTERNAL",
            Mechanism::Anonymous => "ANONYMOUS",
            Mechanism::Other(name) => name,
        }
    }

    /// This build of envoi has it.
    pub fn is_built(self) -> bool {
        match self {
            Mechanism::Plain | Mechanism::Login | Mechanism::External | Mechanism::Anonymous => {
                true
            }
            Mechanism::ScramSha256Plus
            | Mechanism::ScramSha1Plus
            | Mechanism::ScramSha256
            | Mechanism::ScramSha1
            | Mechanism::CramMd5
            | Mechanism::OAuthBearer
            | Mechanism::XOAuth2 => cfg!(feature = "sasl"),
            Mechanism::Other(_) => false,
        }
    }

    /// It proves a token, not a password.
    pub(crate) fn takes_token(self) -> bool {
        matches!(self, Mechanism::OAuthBearer | Mechanism::XOAuth2)
    }

    /// Whoever listens has the password or the token then.
    pub(crate) fn shows_secret(self) -> bool {
        matches!(self, Mechanism::Plain | Mechanism::Login) || self.takes_token()
    }

    /// It is tied to the connection (channel binding).
    pub(crate) fn is_bound(self) -> bool {
        matches!(self, Mechanism::ScramSha256Plus | Mechanism::ScramSha1Plus)
    }

    /// It is for credentials of this sort.
    #[cfg(feature = "client")]
    pub(crate) fn suits(self, credentials: &Credentials) -> bool {
        self.proves(credentials) && (credentials.authorization().is_none() || self.authorizes())
    }

    /// Some mechanism can log in with these credentials: one of those in the order, or any where
    /// there is none. What none can say is found before anything is connected to.
    ///
    /// # Errors
    ///
    /// Why they cannot; it is said elsewhere where no mechanism is for this sort of credentials.
    #[cfg(feature = "client")]
    pub(crate) fn check(
        order: &[Mechanism],
        credentials: &Credentials,
    ) -> Result<(), ProtocolError> {
        let order = if order.is_empty() {
            &Mechanism::ALL
        } else {
            order
        };
        let fits = |mechanism: &Mechanism| mechanism.is_built() && mechanism.suits(credentials);
        let mut failure = None;
        for mechanism in order.iter().copied().filter(fits) {
            match mechanism.exchange(credentials) {
                Ok(_) => return Ok(()),
                // The last ones take the most.
                Err(reason) => failure = Some(reason),
            }
        }
        match failure {
            Some(failure) => Err(ProtocolError::login_unusable(failure)),
            None => Ok(()),
        }
    }

    fn proves(self, credentials: &Credentials) -> bool {
        match credentials.proof() {
            Proof::Password(_) => {
                !matches!(self, Mechanism::External | Mechanism::Anonymous) && !self.takes_token()
            }
            Proof::Token(_) => self.takes_token(),
            Proof::External => self == Mechanism::External,
            Proof::Anonymous => self == Mechanism::Anonymous,
        }
    }

    /// It can say that the user acts for another one.
    fn authorizes(self) -> bool {
        !matches!(
            self,
            Mechanism::Login | Mechanism::CramMd5 | Mechanism::XOAuth2 | Mechanism::Anonymous
        )
    }

    /// An exchange that logs in with these credentials.
    ///
    /// # Errors
    ///
    /// They do not fit, with the reason; or the mechanism is not built in.
    pub(in crate::proto) fn exchange(
        self,
        credentials: &Credentials,
    ) -> Result<Box<dyn SaslExchange>, SaslFailure> {
        if !self.proves(credentials) {
            let given = match credentials.proof() {
                Proof::Password(_) => "a password",
                Proof::Token(_) => "a token",
                Proof::External => "neither password nor token",
                Proof::Anonymous => "no credentials at all",
            };
            return Err(format!("{self} is no mechanism for {given}").into());
        }
        match credentials.authorization() {
            Some("") => return Err("the user to act for is empty".into()),
            // RFC 4422, 3.4.1.
            Some(other) if other.contains('\0') => {
                return Err("the user to act for contains a NUL character".into());
            }
            _ => {}
        }
        if let Some(other) = credentials.authorization().filter(|_| !self.authorizes()) {
            return Err(
                format!("{self} cannot say that the user acts for {}", quoted(other)).into(),
            );
        }
        Ok(match self {
            Mechanism::Plain => Box::new(Single::plain(credentials)?),
            Mechanism::External => Box::new(Single::external(credentials)?),
            Mechanism::Anonymous => Box::new(Single::anonymous(credentials)?),
            Mechanism::Login => Box::new(LoginExchange::new(credentials)?),
            #[cfg(feature = "sasl")]
            Mechanism::CramMd5 => Box::new(CramMd5::new(credentials)?),
            #[cfg(feature = "sasl")]
            Mechanism::OAuthBearer | Mechanism::XOAuth2 => Box::new(OAuth::new(self, credentials)?),
            #[cfg(feature = "sasl")]
            Mechanism::ScramSha256Plus
            | Mechanism::ScramSha1Plus
            | Mechanism::ScramSha256
            | Mechanism::ScramSha1 => Box::new(Scram::new(self, credentials)?),
            Mechanism::Other(name) => {
                return Err(format!("{name} is no mechanism that envoi has").into());
            }
            #[cfg(not(feature = "sasl"))]
            _ => {
                return Err(format!(
                    "this build has no {self}: envoi needs its feature `sasl` for it"
                )
                .into());
            }
        })
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a mechanism that envoi does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMechanism(String);

impl UnknownMechanism {
    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UnknownMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is no mechanism that envoi knows", quoted(&self.0))
    }
}

impl std::error::Error for UnknownMechanism {}

impl FromStr for Mechanism {
    type Err = UnknownMechanism;

    fn from_str(name: &str) -> Result<Self, UnknownMechanism> {
        let known = Mechanism::ALL
            .into_iter()
            .find(|mechanism| mechanism.as_str().eq_ignore_ascii_case(name));
        known.ok_or_else(|| UnknownMechanism(name.to_owned()))
    }
}
