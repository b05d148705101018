//! The interface between a mechanism and the machine, which other crates can implement.

use std::fmt;

use super::Mechanism;
use crate::Secret;
use crate::proto::{Capabilities, Settings};

/// Why an exchange cannot continue, as a readable text.
pub type SaslFailure = Box<dyn std::error::Error + Send + Sync>;

/// A login with one mechanism: challenges and responses (RFC 4422, 5). envoi's own mechanisms
/// implement this trait, and so can other crates, for example for GSSAPI or NTLM:
/// [`Machine::login_with`](crate::proto::Machine::login_with) accepts them.
///
/// Challenges and responses are bytes; envoi handles base64 and lines. The order of calls: first
/// [`start`](Self::start), then [`respond`](Self::respond) for each challenge, finally
/// [`verify`](Self::verify) after a success or [`reason`](Self::reason) after a failure.
///
/// ```
/// use envoi::proto::{Mechanism, SaslExchange, SaslFailure, SaslSession};
///
/// /// The mechanism of RFC 2444 with its answers known: word and number are looked up in a list.
/// struct Otp { user: String, list: Vec<(String, String)> }
///
/// impl SaslExchange for Otp {
///     fn mechanism(&self) -> Mechanism {
///         Mechanism::Other("OTP")
///     }
///     fn start(&mut self, _: &SaslSession<'_>) -> Result<Option<Vec<u8>>, SaslFailure> {
///         Ok(Some(format!("\0{}", self.user).into_bytes()))
///     }
///     fn respond(&mut self, challenge: &[u8]) -> Result<Vec<u8>, SaslFailure> {
///         let known = self.list.iter().find(|(asked, _)| asked.as_bytes() == challenge);
///         let (_, answer) = known.ok_or("this challenge is not on the list")?;
///         Ok(format!("hex:{answer}").into_bytes())
///     }
/// }
/// ```
pub trait SaslExchange: Send + Sync {
    /// The mechanism; [`Mechanism::Other`] with its registered name, in capitals.
    fn mechanism(&self) -> Mechanism;

    /// Starts the exchange and returns the initial response; `None` if the server sends the first
    /// message.
    ///
    /// # Errors
    ///
    /// The exchange cannot start: nothing is sent.
    fn start(&mut self, session: &SaslSession<'_>) -> Result<Option<Vec<u8>>, SaslFailure>;

    /// Returns the response to a challenge. It is wiped after it has been sent.
    ///
    /// # Errors
    ///
    /// No response can be given; the login is cancelled with this reason.
    fn respond(&mut self, challenge: &[u8]) -> Result<Vec<u8>, SaslFailure>;

    /// Whether only the order of the challenges counts, as for LOGIN, whose prompts are in any
    /// language: [`respond`](Self::respond) then gets an empty challenge in place of one that is
    /// not base64. Otherwise such a challenge ends the exchange.
    fn ignores_challenges(&self) -> bool {
        false
    }

    /// Called when the server reports success.
    ///
    /// # Errors
    ///
    /// The server has not proved its identity, although the mechanism requires it: the session is
    /// ended.
    fn verify(&self) -> Result<(), SaslFailure> {
        Ok(())
    }

    /// Called when the server reports failure. Returns what the server said about it during the
    /// exchange, if anything.
    fn reason(&self) -> Option<String> {
        None
    }

    /// Returns the fault if the failure is not about the credentials. Called after
    /// [`respond`](Self::respond) has failed, and when the server reports failure.
    fn fault(&self) -> Option<ExchangeFault> {
        None
    }

    /// Returns further secrets to redact if the server echoes them, plain or in base64. Responses
    /// are redacted already. Called after each response.
    fn secrets(&self) -> Vec<Secret> {
        Vec::new()
    }
}

impl fmt::Debug for dyn SaslExchange {
    /// The mechanism alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SaslExchange({})", self.mechanism())
    }
}

/// Why an exchange failed, if not because of the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExchangeFault {
    /// The server violates the mechanism, or does not support what the client uses of it. This says
    /// nothing about the credentials. It is assumed if a failed exchange reports no fault.
    Broken,
    /// The server did not prove its identity, or the login is bound to another TLS connection: a
    /// wrong nonce, a wrong signature, too few hash rounds. Another server may be in between.
    Distrusted,
}

/// What an exchange may know about its session.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SaslSession<'a> {
    /// The settings of the session: the [server's name](Settings::server), limits.
    pub settings: &'a Settings,
    /// The extensions that the server offers.
    pub capabilities: &'a Capabilities,
    /// The channel binding, if the driver has set one.
    pub channel: Option<&'a ChannelBinding>,
    /// Whether TLS is active.
    pub secure: bool,
}

/// Bytes that both ends of a TLS connection know, but not a third party with a separate connection
/// to each (RFC 5056). A login that proves them cannot be relayed over another connection.
#[derive(Clone, PartialEq, Eq)]
pub struct ChannelBinding {
    name: &'static str,
    data: Vec<u8>,
}

impl ChannelBinding {
    /// 32 bytes of keying material, exported by TLS 1.3 with the label `EXPORTER-Channel-Binding`
    /// and an empty context (RFC 9266).
    pub fn tls_exporter(data: impl Into<Vec<u8>>) -> Self {
        ChannelBinding {
            name: "tls-exporter",
            data: data.into(),
        }
    }

    /// The hash of the server's certificate, with the hash function of its signature, or SHA-256 if
    /// that is MD5 or SHA-1 (RFC 5929, 4.1).
    pub fn tls_server_end_point(data: impl Into<Vec<u8>>) -> Self {
        ChannelBinding {
            name: "tls-server-end-point",
            data: data.into(),
        }
    }

    /// The registered name of the binding type.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The binding data.
    pub fn data(&self) -> &[u8] {
        &self.data
    }
}

impl fmt::Debug for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelBinding")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Escapes commas and equals signs in a name for GS2 and SCRAM (RFC 5801, 4; RFC 5802, 5.1).
pub(crate) fn saslname(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}
