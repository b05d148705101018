//! The server side of SCRAM (RFC 5802), without lines and base64 around it.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use tokio_rustls::rustls::{ProtocolVersion, ServerConnection};

use crate::proto::ChannelBinding;
use crate::proto::sasl::saslname;
use crate::proto::sasl::scram::{Hash, Key, prepared, xor};

/// The mechanism, and what the server offers on this connection.
pub(super) struct Scram {
    pub(super) hash: Hash,
    /// The mechanism is a `-PLUS` one.
    pub(super) is_plus: bool,
    /// A `-PLUS` mechanism was offered.
    pub(super) offers_plus: bool,
    pub(super) channel_bindings: Vec<ChannelBinding>,
}

/// The state after the first messages.
pub(super) struct ScramState {
    pub(super) user: String,
    header: String,
    channel: Vec<u8>,
    nonce: String,
    /// Both first messages, the client's without its GS2 header.
    messages: String,
    salted: Key,
}

const SALT: &[u8] = b"envoi testing";
const ITERATIONS: u32 = 4096;

/// The channel bindings of a TLS connection.
pub(super) fn channel_bindings(
    end_point: Vec<u8>,
    tls: &ServerConnection,
) -> io::Result<Vec<ChannelBinding>> {
    let mut bindings = vec![ChannelBinding::tls_server_end_point(end_point)];
    if tls.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
        let exported = tls.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""));
        bindings.push(ChannelBinding::tls_exporter(
            exported.map_err(io::Error::other)?,
        ));
    }
    Ok(bindings)
}

impl Scram {
    /// The reply to the client's first message and the state to keep, or the SCRAM error.
    pub(super) fn client_first(
        &self,
        message: &str,
        logins: &[(String, String)],
    ) -> Result<(String, ScramState), &'static str> {
        let mut fields = message.splitn(3, ',');
        let mut field = || fields.next().ok_or("other-error");
        let (flag, authorization, bare) = (field()?, field()?, field()?);
        let channel = match (flag, flag.strip_prefix("p=")) {
            (_, Some(name)) if self.is_plus => {
                let channel = self
                    .channel_bindings
                    .iter()
                    .find(|channel| channel.name() == name);
                channel
                    .ok_or("unsupported-channel-binding-type")?
                    .data()
                    .to_vec()
            }
            ("y", _) if self.offers_plus => return Err("server-does-support-channel-binding"),
            ("n" | "y", _) if !self.is_plus => Vec::new(),
            _ => return Err("channel-binding-not-supported"),
        };
        let (user, nonce) = bare
            .strip_prefix("n=")
            .and_then(|rest| rest.split_once(",r="))
            .ok_or("other-error")?;
        let user = user.replace("=2C", ",").replace("=3D", "=");
        let login = logins
            .iter()
            .find(|(known, _)| prepared(known, "").is_ok_and(|known| *known == user));
        let (user, password) = login.ok_or("unknown-user")?;
        let password = prepared(password, "").map_err(|_| "other-error")?;
        if !authorization.is_empty() && *authorization != format!("a={}", saslname(user)) {
            return Err("other-error");
        }
        // It need not be random, since the client's is.
        let nonce = format!("{nonce}testing");
        let answer = format!("r={nonce},s={},i={ITERATIONS}", BASE64.encode(SALT));
        let state = ScramState {
            user: user.clone(),
            header: format!("{flag},{authorization},"),
            channel,
            nonce,
            messages: format!("{bare},{answer}"),
            salted: self.hash.salted(&password, SALT, ITERATIONS),
        };
        Ok((answer, state))
    }

    /// The reply to the client's second message, which proves that the server knows the password;
    /// or the SCRAM error.
    pub(super) fn client_final(
        &self,
        state: &ScramState,
        message: &str,
    ) -> Result<String, &'static str> {
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or("other-error")?;
        let binding = BASE64.encode([state.header.as_bytes(), &state.channel].concat());
        if without_proof != format!("c={binding},r={}", state.nonce) {
            return Err("channel-bindings-dont-match");
        }
        let proof = BASE64.decode(proof).map_err(|_| "invalid-encoding")?;
        let messages = format!("{},{without_proof}", state.messages);
        let client_key = self.hash.hmac(&state.salted, b"Client Key");
        let stored_key = self.hash.digest(&client_key);
        let given_key = xor(&proof, &self.hash.hmac(&stored_key, messages.as_bytes()));
        if *self.hash.digest(&given_key) != *stored_key {
            return Err("invalid-proof");
        }
        let server_key = self.hash.hmac(&state.salted, b"Server Key");
        Ok(format!(
            "v={}",
            BASE64.encode(self.hash.hmac(&server_key, messages.as_bytes()))
        ))
    }
}
