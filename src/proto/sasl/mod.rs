//! SASL logins: challenges and responses (RFC 4422, RFC 4954).
//!
//! A [`SaslExchange`] produces the responses, with a file for each mechanism; `mechanism.rs` has
//! the table of all mechanisms. [`Login`] encodes responses as lines. The machine decides when a
//! login may start and what its reply means; nothing here does I/O.

#[cfg(feature = "sasl")]
pub(crate) mod cram_md5;
mod exchange;
mod json;
mod login;
mod mechanism;
mod oauth;
#[cfg(feature = "sasl")]
pub(crate) mod scram;
mod single;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD as BASE64};
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::redact::Secrets;
#[cfg(all(feature = "sasl", feature = "testing"))]
pub(crate) use exchange::saslname;
pub use exchange::{ChannelBinding, ExchangeFault, SaslExchange, SaslFailure, SaslSession};
pub use mechanism::{Mechanism, UnknownMechanism};

/// A line of a login without its CRLF. It is secret, and wiped when dropped.
pub(super) type SecretLine = Zeroizing<Vec<u8>>;

/// The maximum length of AUTH with an initial response. A longer response is sent separately, after
/// an empty challenge: the command is limited by RFC 5321, 4.5.3.1.4, responses are not (RFC 4954,
/// 4).
const COMMAND: usize = 512;

/// Challenges are accepted with and without padding, which some servers omit.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A login in progress.
pub(super) struct Login {
    exchange: Box<dyn SaslExchange>,
    /// The initial response, if it was too long for the command.
    deferred: Option<Zeroizing<Vec<u8>>>,
    challenges: usize,
    /// Why the client cancelled the login.
    cancel_reason: Option<String>,
}

impl Login {
    /// Starts the login. Returns the command, with the initial response if there is one, and its
    /// redacted form.
    ///
    /// # Errors
    ///
    /// The error of the mechanism: nothing is to be sent.
    pub(super) fn begin(
        mut exchange: Box<dyn SaslExchange>,
        session: &SaslSession<'_>,
        secrets: &mut Secrets,
    ) -> Result<(Self, SecretLine, String), SaslFailure> {
        let initial = exchange.start(session)?.map(Zeroizing::new);
        let verb = format!("AUTH {}", exchange.mechanism());
        let mut login = Login {
            exchange,
            deferred: None,
            challenges: 0,
            cancel_reason: None,
        };
        let (line, shown) = match initial {
            None => (secret_line(&verb, b""), verb),
            // An empty response (RFC 4954, 4).
            Some(response) if response.is_empty() => {
                (secret_line(&format!("{verb} ="), b""), format!("{verb} ="))
            }
            Some(response) => {
                let line = secret_line(&format!("{verb} "), &response);
                if line.len() > COMMAND {
                    login.deferred = Some(response);
                    (secret_line(&verb, b""), verb)
                } else {
                    login.keep_secret(&response, secrets);
                    (line, format!("{verb} ***"))
                }
            }
        };
        Ok((login, line, shown))
    }

    pub(super) fn mechanism(&self) -> Mechanism {
        self.exchange.mechanism()
    }

    /// The number of challenges that the server has sent.
    pub(super) fn challenges(&self) -> usize {
        self.challenges
    }

    /// Returns the response to a challenge from the server and its redacted form: `*`, which
    /// cancels the login (RFC 4954, 4), if the mechanism has no response.
    pub(super) fn respond(
        &mut self,
        challenge: &str,
        secrets: &mut Secrets,
    ) -> (SecretLine, &'static str) {
        self.challenges += 1;
        match self.response(challenge) {
            Ok(response) => {
                self.keep_secret(&response, secrets);
                (
                    secret_line("", &response),
                    if response.is_empty() { "" } else { "***" },
                )
            }
            Err(failure) => {
                // The first reason counts.
                self.cancel_reason.get_or_insert(failure.to_string());
                (secret_line("*", b""), "*")
            }
        }
    }

    /// Handles a success reported by the server.
    ///
    /// # Errors
    ///
    /// The login cannot have succeeded, or the server did not prove its identity.
    pub(super) fn verify(&self) -> Result<(), SaslFailure> {
        match &self.cancel_reason {
            Some(reason) => Err(reason.clone().into()),
            None => self.exchange.verify(),
        }
    }

    /// Handles a failure reported by the server: its reason, if the exchange knows more than the
    /// reply says.
    pub(super) fn reason(&self) -> Option<String> {
        self.cancel_reason
            .clone()
            .or_else(|| self.exchange.reason())
    }

    /// Handles a failure reported by the server: the fault, if it is not about the credentials.
    pub(super) fn fault(&self) -> Option<ExchangeFault> {
        self.exchange.fault().or(self
            .cancel_reason
            .is_some()
            .then_some(ExchangeFault::Broken))
    }

    fn response(&mut self, challenge: &str) -> Result<Zeroizing<Vec<u8>>, SaslFailure> {
        if let Some(reason) = &self.cancel_reason {
            return Err(reason.clone().into());
        }
        if let Some(initial) = self.deferred.take() {
            return Ok(initial);
        }
        let challenge = match LENIENT.decode(challenge.trim()) {
            Ok(challenge) => challenge,
            Err(_) if self.exchange.ignores_challenges() => Vec::new(),
            Err(_) => return Err("the server's challenge is not base64".into()),
        };
        self.exchange.respond(&challenge).map(Zeroizing::new)
    }

    /// Registers what the server could echo, for redaction.
    fn keep_secret(&self, response: &[u8], secrets: &mut Secrets) {
        let line = Zeroizing::new(BASE64.encode(response));
        // A challenge may echo it.
        secrets.add_base64(&line);
        secrets.add(line);
        for secret in self.exchange.secrets() {
            secrets.add_with_base64(secret.expose());
        }
    }
}

/// Allocated once in the right size: a growing buffer would leave copies of the secret.
fn secret_line(prefix: &str, secret: &[u8]) -> SecretLine {
    let (start, encoded) = (prefix.len(), secret.len().div_ceil(3) * 4);
    let mut line = Zeroizing::new(Vec::with_capacity(start + encoded + 2));
    line.extend_from_slice(prefix.as_bytes());
    line.resize(start + encoded, 0);
    BASE64
        .encode_slice(secret, &mut line[start..])
        .expect("the line has room for the response in base64");
    line.extend_from_slice(b"\r\n");
    line
}
