//! The table of mechanisms: names, order, and which credentials they take.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "sasl")]
use super::cram_md5::CramMd5;
use super::login::LoginExchange;
use super::oauth::OAuth;
#[cfg(feature = "sasl")]
use super::scram::Scram;
use super::single::Single;
use super::{SaslExchange, SaslFailure};
#[cfg(feature = "client")]
use crate::proto::ProtocolError;
use crate::secret::{Credentials, ProofKind};
use crate::text::quoted;

/// Defines [`Mechanism`] and its properties from one table, the strongest mechanism first. A
/// mechanism with `requires` is built with that feature only.
macro_rules! mechanisms {
    ($(
        $(#[$doc:meta])*
        $variant:ident = $name:literal {
            proof: $proof:ident,
            is_bound: $is_bound:literal,
            shows_secret: $shows_secret:literal,
            authorizes: $authorizes:literal,
            new: $new:path $(, requires: $feature:literal)?
        }
    )*) => {
        /// A SASL mechanism. SCRAM and CRAM-MD5 need the feature `sasl`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Mechanism {
            $($(#[$doc])* $variant,)*
            /// A mechanism that envoi does not implement, by its registered name: see
            /// [`SaslExchange`].
            Other(&'static str),
        }

        impl Mechanism {
            /// All mechanisms that envoi implements, the strongest first. Inside TLS they are tried
            /// in this order.
            ///
            /// CRAM-MD5 comes after PLAIN: inside TLS it adds nothing, and servers that store only
            /// password hashes offer it and then reject it. Outside TLS, if a login is allowed
            /// there, it comes before PLAIN.
            pub const ALL: &'static [Mechanism] = &[$(Mechanism::$variant),*];

            /// The row of the table; `None` for a mechanism that envoi does not implement.
            fn properties(self) -> Option<&'static Properties> {
                match self {
                    $(Mechanism::$variant => Some(const { &Properties {
                        name: $name,
                        proof: ProofKind::$proof,
                        is_bound: $is_bound,
                        shows_secret: $shows_secret,
                        authorizes: $authorizes,
                        new: {
                            #[cfg(all($(feature = $feature)?))]
                            {
                                Ok(|mechanism, credentials| {
                                    Ok(Box::new($new(mechanism, credentials)?))
                                })
                            }
                            #[cfg(not(all($(feature = $feature)?)))]
                            {
                                Err(concat!($($feature)?))
                            }
                        },
                    } }),)*
                    Mechanism::Other(_) => None,
                }
            }
        }
    };
}

/// The properties of a mechanism.
struct Properties {
    /// The name in the registry of SASL mechanisms.
    name: &'static str,
    /// The kind of credentials that it needs.
    proof: ProofKind,
    /// The login is bound to the TLS connection (channel binding).
    is_bound: bool,
    /// Whether an eavesdropper gets the password or the token.
    shows_secret: bool,
    /// Whether it can express that the user acts for another user.
    authorizes: bool,
    /// Starts an exchange; or the feature that this build lacks for the mechanism.
    new: Result<Constructor, &'static str>,
}

type Constructor = fn(Mechanism, &Credentials) -> Result<Box<dyn SaslExchange>, SaslFailure>;

mechanisms! {
    /// SCRAM with SHA-256 (RFC 7677), bound to the TLS connection: even an attacker with a trusted
    /// certificate cannot relay the login.
    ScramSha256Plus = "SCRAM-SHA-256-PLUS" {
        proof: Password,
        is_bound: true,
        shows_secret: false,
        authorizes: true,
        new: Scram::new,
        requires: "sasl"
    }
    /// SCRAM with SHA-1, bound to the TLS connection.
    ScramSha1Plus = "SCRAM-SHA-1-PLUS" {
        proof: Password,
        is_bound: true,
        shows_secret: false,
        authorizes: true,
        new: Scram::new,
        requires: "sasl"
    }
    /// SCRAM with SHA-256 (RFC 7677): the password is not sent, and the server must prove that it
    /// knows it.
    ScramSha256 = "SCRAM-SHA-256" {
        proof: Password,
        is_bound: false,
        shows_secret: false,
        authorizes: true,
        new: Scram::new,
        requires: "sasl"
    }
    /// SCRAM with SHA-1 (RFC 5802), which is still secure for this purpose.
    ScramSha1 = "SCRAM-SHA-1" {
        proof: Password,
        is_bound: false,
        shows_secret: false,
        authorizes: true,
        new: Scram::new,
        requires: "sasl"
    }
    /// User and password in one response (RFC 4616). The server gets the password.
    Plain = "PLAIN" {
        proof: Password,
        is_bound: false,
        shows_secret: true,
        authorizes: true,
        new: Single::plain
    }
    /// The predecessor of PLAIN: user and password in two responses.
    Login = "LOGIN" {
        proof: Password,
        is_bound: false,
        shows_secret: true,
        authorizes: false,
        new: LoginExchange::new
    }
    /// The password is not sent (RFC 2195), but an eavesdropper can guess it offline from the
    /// response.
    CramMd5 = "CRAM-MD5" {
        proof: Password,
        is_bound: false,
        shows_secret: false,
        authorizes: false,
        new: CramMd5::new,
        requires: "sasl"
    }
    /// An OAuth 2 token (RFC 7628).
    OAuthBearer = "OAUTHBEARER" {
        proof: Token,
        is_bound: false,
        shows_secret: true,
        authorizes: true,
        new: OAuth::new
    }
    /// The predecessor of OAUTHBEARER, by Google and Microsoft.
    XOAuth2 = "XOAUTH2" {
        proof: Token,
        is_bound: false,
        shows_secret: true,
        authorizes: false,
        new: OAuth::new
    }
    /// The server identifies the client by other means, such as its certificate (RFC 4422, A).
    External = "EXTERNAL" {
        proof: External,
        is_bound: false,
        shows_secret: false,
        authorizes: true,
        new: Single::external
    }
    /// Anonymous login (RFC 4505).
    Anonymous = "ANONYMOUS" {
        proof: Anonymous,
        is_bound: false,
        shows_secret: false,
        authorizes: false,
        new: Single::anonymous
    }
}

impl Mechanism {
    /// The name in the registry of SASL mechanisms.
    pub fn as_str(self) -> &'static str {
        match self {
            Mechanism::Other(name) => name,
            known => known.properties().map_or("", |row| row.name),
        }
    }

    /// Whether this build of envoi can log in with it.
    pub fn is_built(self) -> bool {
        self.has(|row| row.new.is_ok())
    }

    /// The feature that this build lacks for the mechanism.
    #[cfg(feature = "client")]
    pub(crate) fn missing_feature(self) -> Option<&'static str> {
        self.properties()?.new.err()
    }

    /// Whether the mechanism uses a token instead of a password.
    #[cfg(any(feature = "client", all(test, feature = "sasl")))]
    pub(crate) fn takes_token(self) -> bool {
        self.has(|row| row.proof == ProofKind::Token)
    }

    /// Whether an eavesdropper gets the password or the token.
    pub(crate) fn shows_secret(self) -> bool {
        self.has(|row| row.shows_secret)
    }

    /// Whether the login is bound to the TLS connection (channel binding).
    pub(crate) fn is_bound(self) -> bool {
        self.has(|row| row.is_bound)
    }

    fn has(self, property: impl FnOnce(&Properties) -> bool) -> bool {
        self.properties().is_some_and(property)
    }

    /// Whether it is for credentials of this kind.
    #[cfg(feature = "client")]
    pub(crate) fn suits(self, credentials: &Credentials) -> bool {
        self.proves(credentials) && (credentials.authorization().is_none() || self.authorizes())
    }

    /// Checks that some mechanism can log in with these credentials: one of `order`, or any if it
    /// is empty. So credentials that no mechanism can express are reported before connecting.
    ///
    /// # Errors
    ///
    /// Why they cannot. If no mechanism is for this kind of credentials, the error is reported
    /// elsewhere.
    #[cfg(feature = "client")]
    pub(crate) fn check(
        order: &[Mechanism],
        credentials: &Credentials,
    ) -> Result<(), ProtocolError> {
        let order = if order.is_empty() {
            Mechanism::ALL
        } else {
            order
        };
        let fits = |mechanism: &Mechanism| mechanism.is_built() && mechanism.suits(credentials);
        let mut failure = None;
        for mechanism in order.iter().copied().filter(fits) {
            match mechanism.exchange(credentials) {
                Ok(_) => return Ok(()),
                // The last mechanisms have the fewest restrictions.
                Err(reason) => failure = Some(reason),
            }
        }
        match failure {
            Some(failure) => Err(ProtocolError::login_unusable(failure)),
            None => Ok(()),
        }
    }

    fn proves(self, credentials: &Credentials) -> bool {
        match self {
            // It is not known whether a custom mechanism uses a password.
            Mechanism::Other(_) => credentials.proof_kind() == ProofKind::Password,
            known => known.has(|row| row.proof == credentials.proof_kind()),
        }
    }

    /// Whether it can express that the user acts for another user.
    fn authorizes(self) -> bool {
        self.properties().is_none_or(|row| row.authorizes)
    }

    /// Creates an exchange that logs in with these credentials.
    ///
    /// # Errors
    ///
    /// The credentials do not fit, with the reason; or the mechanism is not part of this build.
    pub(in crate::proto) fn exchange(
        self,
        credentials: &Credentials,
    ) -> Result<Box<dyn SaslExchange>, SaslFailure> {
        if !self.proves(credentials) {
            let given = match credentials.proof_kind() {
                ProofKind::Password => "a password",
                ProofKind::Token => "a token",
                ProofKind::External => "an external login",
                ProofKind::Anonymous => "an anonymous login",
            };
            return Err(format!("{self} is not a mechanism for {given}").into());
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
        match self.properties().map(|row| row.new) {
            Some(Ok(new)) => new(self, credentials),
            Some(Err(feature)) => Err(format!(
                "{self} needs envoi's feature `{feature}`, which is not enabled"
            )
            .into()),
            None => Err(format!("{self} is not a mechanism that envoi implements").into()),
        }
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
        write!(f, "{} is not a mechanism that envoi knows", quoted(&self.0))
    }
}

impl std::error::Error for UnknownMechanism {}

impl FromStr for Mechanism {
    type Err = UnknownMechanism;

    fn from_str(name: &str) -> Result<Self, UnknownMechanism> {
        let known = Mechanism::ALL
            .iter()
            .copied()
            .find(|mechanism| mechanism.as_str().eq_ignore_ascii_case(name));
        known.ok_or_else(|| UnknownMechanism(name.to_owned()))
    }
}
