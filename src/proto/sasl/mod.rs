//! Login: challenge → response (RFC 4422, RFC 4954).
//!
//! A [`SaslExchange`] gives the answers to the server's challenges, each mechanism in its file, and
//! `mechanism.rs` has the table of all. [`Login`] puts the answers into lines. When a login may be
//! tried, and what its reply means, the machine knows; nothing here does I/O.

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

/// A line of a login without its CRLF: secret, and wiped when it went.
pub(super) type SecretLine = Zeroizing<Vec<u8>>;

/// AUTH with a longer initial response does without it, and gives it as the answer to the empty
/// challenge that comes then: the command is under the limit of RFC 5321, 4.5.3.1.4, responses are
/// not (RFC 4954, 4).
const COMMAND: usize = 512;

/// Challenges are read with and without the padding at their end; not every server gives it.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A login under way.
pub(super) struct Login {
    exchange: Box<dyn SaslExchange>,
    /// The initial response, where it was too long for the command.
    held_back: Option<Zeroizing<Vec<u8>>>,
    challenges: usize,
    /// Why the client gave it up.
    given_up: Option<String>,
}

impl Login {
    /// Begins, and says the command with the initial response, if the mechanism has one, and what
    /// may be shown of it.
    ///
    /// # Errors
    ///
    /// The mechanism's own: nothing is to be sent.
    pub(super) fn begin(
        mut exchange: Box<dyn SaslExchange>,
        session: &SaslSession<'_>,
        secrets: &mut Secrets,
    ) -> Result<(Self, SecretLine, String), SaslFailure> {
        let initial = exchange.start(session)?.map(Zeroizing::new);
        let verb = format!("AUTH {}", exchange.mechanism());
        let mut login = Login {
            exchange,
            held_back: None,
            challenges: 0,
            given_up: None,
        };
        let (line, shown) = match initial {
            None => (secret_line(&verb, b""), verb),
            // RFC 4954, 4: a response of no bytes.
            Some(response) if response.is_empty() => {
                (secret_line(&format!("{verb} ="), b""), format!("{verb} ="))
            }
            Some(response) => {
                let line = secret_line(&format!("{verb} "), &response);
                if line.len() > COMMAND {
                    login.held_back = Some(response);
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

    /// How many challenges the server has sent.
    pub(super) fn challenges(&self) -> usize {
        self.challenges
    }

    /// The answer to a challenge, as the server sent it, and what may be shown of it: `*`, which
    /// gives up (RFC 4954, 4), where the mechanism has none.
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
                // The first reason is the one that counts.
                self.given_up.get_or_insert(failure.to_string());
                (secret_line("*", b""), "*")
            }
        }
    }

    /// The server says that the login succeeded.
    ///
    /// # Errors
    ///
    /// It cannot have, or the server did not prove who it is.
    pub(super) fn verify(&self) -> Result<(), SaslFailure> {
        match &self.given_up {
            Some(reason) => Err(reason.clone().into()),
            None => self.exchange.verify(),
        }
    }

    /// The server says that it failed: why, where that is known better than by the reply.
    pub(super) fn reason(&self) -> Option<String> {
        self.given_up.clone().or_else(|| self.exchange.reason())
    }

    /// The server says that it failed: what that speaks against, where it is not the credentials.
    pub(super) fn fault(&self) -> Option<ExchangeFault> {
        self.exchange
            .fault()
            .or(self.given_up.is_some().then_some(ExchangeFault::Broken))
    }

    fn response(&mut self, challenge: &str) -> Result<Zeroizing<Vec<u8>>, SaslFailure> {
        if let Some(reason) = &self.given_up {
            return Err(reason.clone().into());
        }
        if let Some(initial) = self.held_back.take() {
            return Ok(initial);
        }
        let challenge = match LENIENT.decode(challenge.trim()) {
            Ok(challenge) => challenge,
            Err(_) if self.exchange.ignores_challenges() => Vec::new(),
            Err(_) => return Err("the server's challenge is not base64".into()),
        };
        self.exchange.respond(&challenge).map(Zeroizing::new)
    }

    /// What a server could echo and nobody may see.
    fn keep_secret(&self, response: &[u8], secrets: &mut Secrets) {
        let line = Zeroizing::new(BASE64.encode(response));
        // A challenge may say it back.
        secrets.add_base64(&line);
        secrets.add(line);
        for secret in self.exchange.secrets() {
            secrets.add_with_base64(secret.expose());
        }
    }
}

/// Made in one allocation of the right size, so that no copy of a secret is left behind by a
/// growing buffer.
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
