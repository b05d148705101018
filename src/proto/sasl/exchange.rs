//! What a mechanism is to the machine, so that others can be written elsewhere.

use std::fmt;

use super::Mechanism;
use crate::Secret;
use crate::proto::{Capabilities, Settings};

/// Why an exchange cannot go on, in words for people.
pub type SaslFailure = Box<dyn std::error::Error + Send + Sync>;

/// One login by one mechanism: challenge → response (RFC 4422, 5). envoi's own mechanisms are such
/// exchanges, and others, such as GSSAPI or NTLM, can be written in other crates:
/// [`Machine::login_with`](crate::proto::Machine::login_with) takes them.
///
/// Challenges and responses come and go as bytes; base64 and lines are envoi's business. What is
/// called when: first [`start`](Self::start), then [`respond`](Self::respond) for each challenge,
/// at last [`verify`](Self::verify) or [`reason`](Self::reason), by the server's verdict.
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

    /// Begins, and gives the initial response; `None` where the server speaks first.
    ///
    /// # Errors
    ///
    /// The exchange cannot begin: nothing is sent then.
    fn start(&mut self, session: &SaslSession<'_>) -> Result<Option<Vec<u8>>, SaslFailure>;

    /// The answer to a challenge. It is wiped when it went.
    ///
    /// # Errors
    ///
    /// There is none: the login is given up then, and fails for this reason.
    fn respond(&mut self, challenge: &[u8]) -> Result<Vec<u8>, SaslFailure>;

    /// Whether only the order of the challenges counts, as for LOGIN, whose prompts are in any
    /// language: [`respond`](Self::respond) then gets an empty challenge in place of one that is
    /// not base64. Otherwise such a challenge ends the exchange.
    fn ignores_challenges(&self) -> bool {
        false
    }

    /// The server says that the login succeeded.
    ///
    /// # Errors
    ///
    /// It has not proved who it is, though the mechanism has it do so: the session is ended then.
    fn verify(&self) -> Result<(), SaslFailure> {
        Ok(())
    }

    /// The server says that the login failed. What it said about it in the exchange, if it did.
    fn reason(&self) -> Option<String> {
        None
    }

    /// What a failure speaks against, where the exchange knows. It is asked for after
    /// [`respond`](Self::respond) failed, and after the server said that the login failed.
    fn fault(&self) -> Option<ExchangeFault> {
        None
    }

    /// What nobody may see if the server says it, as it is or in base64; responses are taken care
    /// of anyway. It is asked for after each response.
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

/// What is wrong with an exchange that failed for another reason than the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExchangeFault {
    /// The server does not keep to the mechanism, or does not support what the client uses of it.
    /// What cannot be understood says nothing about the credentials. It is assumed where an
    /// exchange fails and does not know better.
    Broken,
    /// The server did not prove who it is, or the login is tied to another TLS connection: a
    /// foreign nonce, a wrong signature, a hash that could be tried too fast. Another server may be
    /// between.
    Distrusted,
}

/// What an exchange may know of the session that it is a part of.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SaslSession<'a> {
    /// How the session is conducted: the [server's name](Settings::server), limits.
    pub settings: &'a Settings,
    /// What the server offers.
    pub capabilities: &'a Capabilities,
    /// What ties the login to the TLS connection, if the driver told.
    pub channel: Option<&'a ChannelBinding>,
}

/// Bytes that both ends of one TLS connection know, and nobody between them who has one connection
/// to each (RFC 5056). A login that proves them cannot be passed on over another connection.
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

    /// The hash of the server's certificate, by the hash of its signature, or SHA-256 where that is
    /// MD5 or SHA-1 (RFC 5929, 4.1).
    pub fn tls_server_end_point(data: impl Into<Vec<u8>>) -> Self {
        ChannelBinding {
            name: "tls-server-end-point",
            data: data.into(),
        }
    }

    /// The registered name of this kind of binding.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The bytes.
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

/// A name as GS2 and SCRAM have it: commas and equals signs are escaped (RFC 5801, 4; RFC 5802,
/// 5.1).
pub(crate) fn saslname(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}
