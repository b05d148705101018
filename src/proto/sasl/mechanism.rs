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
        /// A way to log in. SCRAM and CRAM-MD5 need the feature `sasl`.
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
            /// CRAM-MD5 comes after PLAIN: inside TLS it protects nothing that is not protected,
            /// and it fails as if the password were wrong at servers that keep a hash of it, though
            /// they offer it. Outside TLS, where a login is allowed at all, it comes before PLAIN.
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
                                Some(|mechanism, credentials| {
                                    Ok(Box::new($new(mechanism, credentials)?))
                                })
                            }
                            #[cfg(not(all($(feature = $feature)?)))]
                            {
                                None
                            }
                        },
                    } }),)*
                    Mechanism::Other(_) => None,
                }
            }
        }
    };
}

/// What is known of a mechanism without beginning an exchange.
struct Properties {
    /// The name in the registry of SASL mechanisms.
    name: &'static str,
    /// What the credentials must prove the identity with.
    proof: ProofKind,
    /// The login is bound to the TLS connection (channel binding).
    is_bound: bool,
    /// An eavesdropper has the password or the token.
    shows_secret: bool,
    /// It can state that the user acts for another one.
    authorizes: bool,
    /// Begins an exchange; `None` where this build does not have it.
    new: Option<Constructor>,
}

type Constructor = fn(Mechanism, &Credentials) -> Result<Box<dyn SaslExchange>, SaslFailure>;

mechanisms! {
    /// SCRAM with SHA-256 (RFC 7677), bound to the TLS connection: not even an attacker whose
    /// certificate is trusted can pass the login on.
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
    /// SCRAM with SHA-256 (RFC 7677): the password is never sent, and the server must prove that it
    /// knows it, too.
    ScramSha256 = "SCRAM-SHA-256" {
        proof: Password,
        is_bound: false,
        shows_secret: false,
        authorizes: true,
        new: Scram::new,
        requires: "sasl"
    }
    /// SCRAM with SHA-1 (RFC 5802), which is good enough for this use.
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
    /// The older form of PLAIN: user and password in a response each.
    Login = "LOGIN" {
        proof: Password,
        is_bound: false,
        shows_secret: true,
        authorizes: false,
        new: LoginExchange::new
    }
    /// The password is not sent (RFC 2195), but an eavesdropper can try passwords against the
    /// answer.
    CramMd5 = "CRAM-MD5" {
        proof: Password,
        is_bound: false,
        shows_secret: false,
        authorizes: false,
        new: CramMd5::new,
        requires: "sasl"
    }
    /// A token of OAuth 2 (RFC 7628).
    OAuthBearer = "OAUTHBEARER" {
        proof: Token,
        is_bound: false,
        shows_secret: true,
        authorizes: true,
        new: OAuth::new
    }
    /// The older form of OAUTHBEARER, by Google and Microsoft.
    XOAuth2 = "XOAUTH2" {
        proof: Token,
        is_bound: false,
        shows_secret: true,
        authorizes: false,
        new: OAuth::new
    }
    /// The server knows the client already, by its certificate or otherwise (RFC 4422, A).
    External = "EXTERNAL" {
        proof: External,
        is_bound: false,
        shows_secret: false,
        authorizes: true,
        new: Single::external
    }
    /// A login without an identity (RFC 4505).
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
        self.has(|row| row.new.is_some())
    }

    /// It proves a token, not a password.
    #[cfg(any(feature = "client", test))]
    pub(crate) fn takes_token(self) -> bool {
        self.has(|row| row.proof == ProofKind::Token)
    }

    /// An eavesdropper has the password or the token.
    pub(crate) fn shows_secret(self) -> bool {
        self.has(|row| row.shows_secret)
    }

    /// The login is bound to the TLS connection (channel binding).
    pub(crate) fn is_bound(self) -> bool {
        self.has(|row| row.is_bound)
    }

    fn has(self, property: impl FnOnce(&Properties) -> bool) -> bool {
        self.properties().is_some_and(property)
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
            Mechanism::ALL
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
        match self {
            // Whether another maker's mechanism takes a password is not known.
            Mechanism::Other(_) => credentials.proof_kind() == ProofKind::Password,
            known => known.has(|row| row.proof == credentials.proof_kind()),
        }
    }

    /// It can state that the user acts for another one.
    fn authorizes(self) -> bool {
        self.properties().is_none_or(|row| row.authorizes)
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
            let given = match credentials.proof_kind() {
                ProofKind::Password => "a password",
                ProofKind::Token => "a token",
                ProofKind::External => "neither password nor token",
                ProofKind::Anonymous => "no credentials at all",
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
            Some(Some(new)) => new(self, credentials),
            Some(None) => Err(format!(
                "this build has no {self}: envoi needs its feature `sasl` for it"
            )
            .into()),
            None => Err(format!("{self} is not a mechanism that envoi has").into()),
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
