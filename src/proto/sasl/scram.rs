//! SCRAM (RFC 5802, RFC 7677): both sides prove that they know the password, without sending it.
//!
//! ```text
//! C: n,,n=user,r=nonce                          the client's first message, after its GS2 header
//! S: r=nonce and the server's,s=salt,i=4096
//! C: c=header and binding,r=both nonces,p=proof
//! S: v=the server's proof, or e=error           answered by nothing
//! ```

use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::exchange::saslname;
use super::{ExchangeFault, Mechanism, SaslExchange, SaslFailure, SaslSession};
use crate::Secret;
use crate::secret::Credentials;

/// A key or a proof.
pub(crate) type Key = Zeroizing<Vec<u8>>;

/// The hash function of a mechanism, and what is derived with it.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    pub(crate) fn digest(self, data: &[u8]) -> Key {
        Zeroizing::new(match self {
            Hash::Sha1 => Sha1::digest(data).to_vec(),
            Hash::Sha256 => Sha256::digest(data).to_vec(),
        })
    }

    pub(crate) fn hmac(self, key: &[u8], data: &[u8]) -> Key {
        Zeroizing::new(match self {
            Hash::Sha1 => mac::<Hmac<Sha1>>(key, data)
                .finalize()
                .into_bytes()
                .to_vec(),
            Hash::Sha256 => mac::<Hmac<Sha256>>(key, data)
                .finalize()
                .into_bytes()
                .to_vec(),
        })
    }

    /// Verifies an HMAC in constant time.
    fn is_hmac(self, key: &[u8], data: &[u8], expected: &[u8]) -> bool {
        match self {
            Hash::Sha1 => mac::<Hmac<Sha1>>(key, data).verify_slice(expected).is_ok(),
            Hash::Sha256 => mac::<Hmac<Sha256>>(key, data)
                .verify_slice(expected)
                .is_ok(),
        }
    }

    /// The salted password, by PBKDF2.
    pub(crate) fn salted(self, password: &str, salt: &[u8], iterations: u32) -> Key {
        let password = password.as_bytes();
        match self {
            Hash::Sha1 => {
                let mut key = Zeroizing::new(vec![0; 20]);
                pbkdf2::pbkdf2_hmac::<Sha1>(password, salt, iterations, &mut key);
                key
            }
            Hash::Sha256 => {
                let mut key = Zeroizing::new(vec![0; 32]);
                pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut key);
                key
            }
        }
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], data: &[u8]) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(data);
    mac
}

/// The bytewise XOR.
pub(crate) fn xor(one: &[u8], other: &[u8]) -> Key {
    Zeroizing::new(one.iter().zip(other).map(|(a, b)| a ^ b).collect())
}

/// SASLprep (RFC 4013). The error does not name the character, which may be part of the password.
pub(crate) fn prepared(text: &str, what: &str) -> Result<Zeroizing<String>, SaslFailure> {
    match stringprep::saslprep(text) {
        Ok(prepared) if !prepared.is_empty() => Ok(Zeroizing::new(prepared.into_owned())),
        Ok(_) => Err(format!("{what} is empty").into()),
        Err(_) => {
            Err(format!("{what} has a character that SCRAM does not allow (RFC 4013)").into())
        }
    }
}

pub(super) struct Scram {
    mechanism: Mechanism,
    hash: Hash,
    user: Zeroizing<String>,
    authorization: Option<Zeroizing<String>>,
    password: Zeroizing<String>,
    state: State,
    fault: Option<ExchangeFault>,
}

enum State {
    Fresh,
    /// The client's first message has been sent.
    First(First),
    /// The client's proof has been sent.
    Proved {
        server_key: Key,
        auth_message: Zeroizing<String>,
        /// The client's proof and the server's, with which passwords can be guessed offline.
        proofs: [Secret; 2],
    },
    /// The server's proof was correct.
    Verified,
    /// The server sent an error (RFC 5802, 7).
    Refused(String),
}

/// Why the exchange cannot continue.
struct Failure(ExchangeFault, String);

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        Failure(ExchangeFault::Broken, text.into())
    }
}

fn distrusted(text: impl Into<String>) -> Failure {
    Failure(ExchangeFault::Distrusted, text.into())
}

/// What the second message is computed from.
struct First {
    /// The first message, and whether the server has requested it again.
    message: Zeroizing<Vec<u8>>,
    repeated: bool,
    /// The GS2 header and the channel binding data.
    binding: Vec<u8>,
    /// The first message without its header.
    bare: Zeroizing<String>,
    nonce: String,
    iterations: RangeInclusive<u32>,
}

impl Scram {
    pub(super) fn new(
        mechanism: Mechanism,
        credentials: &Credentials,
    ) -> Result<Self, SaslFailure> {
        let authorization = credentials
            .authorization()
            .map(|user| prepared(user, "the user to act for"));
        Ok(Scram {
            mechanism,
            hash: match mechanism {
                Mechanism::ScramSha1 | Mechanism::ScramSha1Plus => Hash::Sha1,
                _ => Hash::Sha256,
            },
            user: prepared(credentials.user(), "the user name")?,
            authorization: authorization.transpose()?,
            password: prepared(credentials.secret(), "the password")?,
            state: State::Fresh,
            fault: None,
        })
    }

    /// The channel binding flag of the client (RFC 5802, 6), and the data if it is used. `p` means
    /// that it is used. `y` means that it would be if the server offered it, so that a server that
    /// does can detect that its offer was removed. `n` is for a client without a binding, or a
    /// mechanism that was chosen explicitly in spite of an offer.
    fn binding(&self, session: &SaslSession<'_>) -> Result<(String, Vec<u8>), SaslFailure> {
        if self.mechanism.is_bound() {
            let channel = session
                .channel
                .ok_or("there is nothing known of the TLS connection to tie the login to")?;
            return Ok((format!("p={}", channel.name()), channel.data().to_vec()));
        }
        // An unknown `-PLUS` mechanism could have been put in the place of the known ones.
        let offered = session.capabilities.auth();
        let offered = Mechanism::ALL
            .iter()
            .any(|known| known.is_bound() && offered.iter().any(|name| name == known.as_str()));
        let flag = if session.channel.is_some() && !offered {
            "y"
        } else {
            "n"
        };
        Ok((flag.into(), Vec::new()))
    }

    /// The response to `r=…,s=…,i=…`, and the expected server proof.
    fn prove(&self, first: &First, challenge: &str) -> Result<(Vec<u8>, State), Failure> {
        let malformed = || {
            let text = format!("the server's first message is not as SCRAM has it: {challenge:?}");
            Failure(ExchangeFault::Broken, text)
        };
        if challenge.starts_with("m=") {
            return Err("the server demands an extension of SCRAM that is not known".into());
        }
        let mut fields = challenge.split(',');
        let mut field = |name| {
            fields
                .next()
                .and_then(|field| field.strip_prefix(name))
                .ok_or_else(malformed)
        };
        let (nonce, salt, iterations) = (field("r=")?, field("s=")?, field("i=")?);
        if !nonce
            .strip_prefix(&first.nonce)
            .is_some_and(|own| !own.is_empty() && own.bytes().all(|b| b.is_ascii_graphic()))
        {
            let text = "the server's nonce does not continue the client's: the answer belongs to \
                another login";
            return Err(distrusted(text));
        }
        let salt = BASE64.decode(salt).map_err(|_| malformed())?;
        let iterations = iterations.parse::<u32>().map_err(|_| malformed())?;
        if iterations < *first.iterations.start() {
            return Err(distrusted(format!(
                "the server wants the password hashed {iterations} times, and fewer than {} times \
                    let it be guessed too fast",
                first.iterations.start()
            )));
        }
        if iterations > *first.iterations.end() {
            let limit = first.iterations.end();
            let text = format!(
                "the server wants the password hashed {iterations} times, and the limit is {limit}"
            );
            return Err(Failure(ExchangeFault::Broken, text));
        }

        let salted = self.hash.salted(&self.password, &salt, iterations);
        let client_key = self.hash.hmac(&salted, b"Client Key");
        let stored_key = self.hash.digest(&client_key);
        let without_proof = format!("c={},r={nonce}", BASE64.encode(&first.binding));
        let auth_message = Zeroizing::new(format!("{},{challenge},{without_proof}", *first.bare));
        let proof = xor(
            &client_key,
            &self.hash.hmac(&stored_key, auth_message.as_bytes()),
        );
        let proof = Secret::new(format!("p={}", *Zeroizing::new(BASE64.encode(&proof))));
        let response = [&without_proof, ",", proof.expose()].concat();

        let server_key = self.hash.hmac(&salted, b"Server Key");
        let signature = self.hash.hmac(&server_key, auth_message.as_bytes());
        let signature = Secret::new(format!("v={}", BASE64.encode(&signature)));
        Ok((
            response.into_bytes(),
            State::Proved {
                server_key,
                auth_message,
                proofs: [proof, signature],
            },
        ))
    }

    /// Handles the server's final message, `v=…` or `e=…`.
    fn conclude(
        &self,
        server_key: &[u8],
        auth_message: &str,
        challenge: &str,
    ) -> Result<State, Failure> {
        let field = challenge.split(',').next().unwrap_or_default();
        if let Some(error) = field.strip_prefix("e=") {
            return Ok(State::Refused(error.into()));
        }
        // A proof that cannot be parsed proves nothing.
        let Some(signature) = field
            .strip_prefix("v=")
            .and_then(|signature| BASE64.decode(signature).ok())
        else {
            return Err(distrusted(format!(
                "the server's last message is not as SCRAM has it: {challenge:?}"
            )));
        };
        if !self
            .hash
            .is_hmac(server_key, auth_message.as_bytes(), &signature)
        {
            return Err(distrusted(
                "the server could not prove that it knows the password: another server may be \
                    answering in its place",
            ));
        }
        Ok(State::Verified)
    }

    /// The response to a challenge, and the next state.
    fn answer(&mut self, challenge: &[u8]) -> Result<(Vec<u8>, State), Failure> {
        let challenge =
            std::str::from_utf8(challenge).map_err(|_| "the server's challenge is not UTF-8")?;
        match &self.state {
            State::First(_) if challenge.starts_with("e=") => {
                Ok((Vec::new(), self.conclude(&[], "", challenge)?))
            }
            State::First(first) => self.prove(first, challenge),
            State::Proved {
                server_key,
                auth_message,
                ..
            } => Ok((
                Vec::new(),
                self.conclude(server_key, auth_message, challenge)?,
            )),
            State::Fresh | State::Verified | State::Refused(_) => {
                Err("the server sent a challenge that SCRAM does not have".into())
            }
        }
    }
}

impl SaslExchange for Scram {
    fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    fn start(&mut self, session: &SaslSession<'_>) -> Result<Option<Vec<u8>>, SaslFailure> {
        let (flag, channel_data) = self.binding(session)?;
        let authorization = self
            .authorization
            .as_deref()
            .map(|user| format!("a={}", saslname(user)));
        let header = format!("{flag},{},", authorization.unwrap_or_default());
        let nonce = match &session.settings.nonce {
            Some(nonce)
                if nonce.is_empty()
                    || !nonce
                        .bytes()
                        .all(|byte| byte.is_ascii_graphic() && byte != b',') =>
            {
                return Err("a nonce is printable ASCII without a comma".into());
            }
            Some(nonce) => nonce.clone(),
            None => random_nonce()?,
        };
        let bare = Zeroizing::new(format!("n={},r={nonce}", saslname(&self.user)));
        let message = Zeroizing::new(format!("{header}{}", *bare).into_bytes());
        let binding = [header.into_bytes(), channel_data].concat();
        let iterations = session.settings.limits.scram_iterations.clone();
        let initial = message.to_vec();
        self.state = State::First(First {
            message,
            repeated: false,
            binding,
            bare,
            nonce,
            iterations,
        });
        Ok(Some(initial))
    }

    fn respond(&mut self, challenge: &[u8]) -> Result<Vec<u8>, SaslFailure> {
        // A server that did not read the initial response requests it (RFC 4954, 4).
        if let State::First(first) = &mut self.state
            && challenge.is_empty()
            && !std::mem::replace(&mut first.repeated, true)
        {
            return Ok(first.message.to_vec());
        }
        match self.answer(challenge) {
            Ok((response, state)) => {
                self.state = state;
                Ok(response)
            }
            Err(Failure(fault, text)) => {
                self.fault = Some(fault);
                Err(text.into())
            }
        }
    }

    fn verify(&self) -> Result<(), SaslFailure> {
        match &self.state {
            State::Verified => Ok(()),
            State::Refused(error) => Err(format!(
                "{}; and then it says that the login succeeded",
                refusal(error).0
            )
            .into()),
            _ => Err(
                "the server says that the login succeeded, and has not proved that it knows \
                the password"
                    .into(),
            ),
        }
    }

    fn reason(&self) -> Option<String> {
        match &self.state {
            State::Refused(error) => Some(refusal(error).0),
            _ => None,
        }
    }

    fn fault(&self) -> Option<ExchangeFault> {
        match &self.state {
            State::Refused(error) => refusal(error).1,
            _ => self.fault,
        }
    }

    fn secrets(&self) -> Vec<Secret> {
        match &self.state {
            // With their names, since they are in the base64, and without.
            State::Proved { proofs, .. } => proofs
                .iter()
                .flat_map(|proof| [proof.clone(), Secret::new(&proof.expose()[2..])])
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// The text for a server error (RFC 5802, 7), and the fault that it indicates.
fn refusal(error: &str) -> (String, Option<ExchangeFault>) {
    use ExchangeFault::{Broken, Distrusted};
    let (text, fault) = match error {
        "invalid-proof" => ("the password is wrong", None),
        "unknown-user" => ("the server does not know the user", None),
        "server-does-support-channel-binding" => (
            "the server can tie the login to the TLS connection, and its offer of that did not \
                arrive: something in between may have removed it",
            Some(Distrusted),
        ),
        "channel-bindings-dont-match" => (
            "the TLS connection that the server has is not this one: another server is in \
                between, with a certificate that is trusted here",
            Some(Distrusted),
        ),
        "unsupported-channel-binding-type" => (
            "the server ties logins to the TLS connection in another way; a mechanism without \
                -PLUS does without it",
            Some(Broken),
        ),
        "channel-binding-not-supported" | "extensions-not-supported" | "invalid-encoding" => {
            return (format!("the server says {error:?}"), Some(Broken));
        }
        other => return (format!("the server says {other:?}"), None),
    };
    (text.into(), fault)
}

/// 144 bits: neither guessable nor repeated.
fn random_nonce() -> Result<String, SaslFailure> {
    let mut bytes = [0; 18];
    getrandom::fill(&mut bytes)
        .map_err(|error| format!("the system gives no random bytes: {error}"))?;
    Ok(BASE64.encode(bytes))
}
