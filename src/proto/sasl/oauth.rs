//! OAUTHBEARER (RFC 7628) and XOAUTH2, its predecessor: a token of an authorization server.

use zeroize::Zeroizing;

use super::json::{self, Value};
use super::{Mechanism, SaslExchange, SaslFailure, SaslSession};
use crate::secret::Credentials;
use crate::text::{printable, printable_bytes};

/// Ends each part of a response: ^A.
const END: &str = "\x01";

pub(super) struct OAuth {
    mechanism: Mechanism,
    credentials: Credentials,
    initial: Zeroizing<Vec<u8>>,
    repeated: bool,
    /// The server's error about the token.
    refusal: Option<String>,
}

impl OAuth {
    pub(super) fn new(
        mechanism: Mechanism,
        credentials: &Credentials,
    ) -> Result<Self, SaslFailure> {
        // RFC 6750, 2.1; the user name is UTF-8 without the characters that would end it.
        if !credentials
            .secret()
            .bytes()
            .all(|byte| byte.is_ascii_graphic())
            || credentials.secret().is_empty()
        {
            return Err(
                "the token is empty, or has a character that no token can have: a blank or line \
                    end, as a rule"
                    .into(),
            );
        }
        if credentials.user().contains(char::is_control) {
            return Err("the user name contains a control character".into());
        }
        if credentials
            .authorization()
            .is_some_and(|user| user.contains(char::is_control))
        {
            return Err("the user to act for contains a control character".into());
        }
        if mechanism == Mechanism::XOAuth2 && credentials.user().is_empty() {
            return Err("the user name is empty".into());
        }
        let (credentials, initial) = (credentials.clone(), Zeroizing::default());
        Ok(OAuth {
            mechanism,
            credentials,
            initial,
            repeated: false,
            refusal: None,
        })
    }
}

impl SaslExchange for OAuth {
    fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    fn start(&mut self, session: &SaslSession<'_>) -> Result<Option<Vec<u8>>, SaslFailure> {
        let (user, token) = (self.credentials.user(), self.credentials.secret());
        let response = if self.mechanism == Mechanism::XOAuth2 {
            ["user=", user, END, "auth=Bearer ", token, END, END].concat()
        } else {
            // The user takes the place of the authorization identity in the GS2 header (RFC 7628,
            // 3.1).
            let user = super::exchange::saslname(self.credentials.authorization().unwrap_or(user));
            let place = match &session.settings.server {
                Some((host, _)) if host.contains(char::is_control) => {
                    return Err("the server's name contains a control character".into());
                }
                Some((host, port)) => format!("host={host}{END}port={port}{END}"),
                None => String::new(),
            };
            // A name that is present must not be empty (RFC 5801, 4).
            let prefix = if user.is_empty() { "n," } else { "n,a=" };
            [
                prefix,
                &user,
                ",",
                END,
                &place,
                "auth=Bearer ",
                token,
                END,
                END,
            ]
            .concat()
        };
        self.initial = Zeroizing::new(response.into_bytes());
        Ok(Some(self.initial.to_vec()))
    }

    /// An empty challenge asks for the initial response, which the server did not read. Any other
    /// one is the server's error and must be answered before the login fails: by ^A (RFC 7628,
    /// 3.2.3), or an empty response for XOAUTH2.
    fn respond(&mut self, challenge: &[u8]) -> Result<Vec<u8>, SaslFailure> {
        if self.refusal.is_some() {
            return Err("the server asks on after it refused the token".into());
        }
        if challenge.is_empty() {
            if std::mem::replace(&mut self.repeated, true) {
                return Err("the server asks for the token again and again".into());
            }
            return Ok(self.initial.to_vec());
        }
        self.refusal = Some(format!(
            "the server does not accept the token: {}",
            describe(challenge)
        ));
        Ok(if self.mechanism == Mechanism::XOAuth2 {
            Vec::new()
        } else {
            END.into()
        })
    }

    fn verify(&self) -> Result<(), SaslFailure> {
        match &self.refusal {
            Some(refusal) => {
                Err(format!("{refusal}; and then it says that the login succeeded").into())
            }
            None => Ok(()),
        }
    }

    fn reason(&self) -> Option<String> {
        self.refusal.clone()
    }
}

/// Formats the JSON error (RFC 7628, 3.2.2): the status first, then the other members by name.
fn describe(challenge: &[u8]) -> String {
    let members = std::str::from_utf8(challenge).ok().and_then(json::members);
    let Some(mut members) = members else {
        return format!("{:?}", printable_bytes(challenge));
    };
    members.sort_by(|(one, _), (other, _)| one.cmp(other));
    let text = |value: &Value| match value {
        Value::String(text) => format!("{text:?}"),
        Value::Other(text) => printable(text.as_str()),
    };
    let status = match members.iter().position(|(name, _)| name == "status") {
        Some(at) => text(&members.remove(at).1),
        None => "no reason is given".into(),
    };
    let rest: Vec<_> = members
        .iter()
        .take(8)
        .map(|(name, value)| format!("{} {}", printable(name.as_str()), text(value)))
        .collect();
    if rest.is_empty() {
        status
    } else {
        format!("{status} ({})", rest.join(", "))
    }
}
