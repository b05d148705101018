//! What to improve about a session that works.

use crate::proto::{Capabilities, Mechanism};
use crate::receipt::{PlaintextReason, TlsInfo};

/// What is known of the session and its settings.
pub(crate) struct SessionFacts<'a> {
    pub(crate) tls: Option<&'a TlsInfo>,
    pub(crate) plaintext_reason: Option<&'a PlaintextReason>,
    /// TLS is switched off.
    pub(crate) tls_is_off: bool,
    /// The server is at a Unix socket.
    pub(crate) is_local: bool,
    pub(crate) lmtp: bool,
    pub(crate) offered: &'a Capabilities,
    pub(crate) mechanism: Option<Mechanism>,
}

/// Advice about a session, the most important first.
pub(crate) fn for_session(facts: &SessionFacts<'_>) -> Vec<String> {
    let mut advice = Vec::new();
    let is_exposed = facts.tls.is_none() && !facts.is_local;
    if let Some(mechanism) = facts.mechanism
        && is_exposed
        && mechanism.shows_secret()
    {
        advice.push(format!(
            "The password went unencrypted (AUTH {mechanism}): {INSTEAD}"
        ));
    }
    match (facts.tls, facts.plaintext_reason) {
        (None, Some(reason)) => advice.push(format!(
            "The connection is not encrypted: {reason}. Require TLS once the server has it \
             (tls=required)."
        )),
        (None, None) if facts.tls_is_off && is_exposed && facts.offered.offers("STARTTLS") => {
            // LMTP is without TLS by default.
            let setting = match facts.lmtp {
                true => "Say tls=required.",
                false => "Leave out tls=none.",
            };
            advice.push(format!("{COULD_BE_ENCRYPTED} {setting}"));
        }
        _ => {}
    }
    if let Some(reason) = facts.tls.and_then(|tls| tls.not_verified_reason.as_ref()) {
        advice.push(format!(
            "The server is not verified: {reason}. {}",
            reason.hint()
        ));
    }
    if facts.mechanism.is_none() && !facts.lmtp && !facts.offered.auth().is_empty() {
        advice.push(NO_LOGIN.into());
    }
    advice
}

const INSTEAD: &str = "use TLS, or a mechanism that does not show it (SCRAM).";

const COULD_BE_ENCRYPTED: &str =
    "The connection is not encrypted, and could be: the server offers STARTTLS.";

const NO_LOGIN: &str = "The server offers a login, and the endpoint has no credentials: without a \
    login, it may refuse recipients of other domains.";
