//! Login: challenge → response (RFC 4422, RFC 4954).
//!
//! A mechanism says what to answer to the server's challenges. When a login may be tried, and what
//! its reply means, the machine knows; nothing here touches the wire.

mod login;
mod plain;

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use crate::address::quoted;
use crate::error::{Error, Result};
use crate::secret::Credentials;

/// A way to log in that envoi knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mechanism {
    /// User and password in one response (RFC 4616). The password crosses the wire: only inside TLS.
    Plain,
    /// The older form of the same, user and password one after the other. Only inside TLS.
    Login,
}

impl Mechanism {
    /// All of them, the preferred one first.
    pub const ALL: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];

    /// The name in the registry of SASL mechanisms.
    pub fn as_str(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mechanism {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Mechanism::ALL.into_iter().find(|mechanism| mechanism.as_str().eq_ignore_ascii_case(name));
        known.ok_or_else(|| {
            let names: Vec<&str> = Mechanism::ALL.iter().map(|mechanism| mechanism.as_str()).collect();
            Error::request(format!("{} is no mechanism that envoi knows", quoted(name)))
                .with_hint(format!("It knows {}.", names.join(" and ")))
        })
    }
}

/// A line of a login without its CRLF: secret, and wiped when it went.
pub(super) type SecretLine = Zeroizing<Vec<u8>>;

/// A login under way.
pub(super) struct Login {
    mechanism: Mechanism,
    credentials: Credentials,
    challenges: usize,
}

impl Login {
    /// # Errors
    ///
    /// A NUL in the user's name or the password: PLAIN has it as its separator (RFC 4616, 2).
    pub(super) fn new(mechanism: Mechanism, credentials: &Credentials) -> Result<Self> {
        if credentials.user().contains('\0') || credentials.secret().contains('\0') {
            return Err(Error::request("the user name or the password contains a NUL character"));
        }
        Ok(Login { mechanism, credentials: credentials.clone(), challenges: 0 })
    }

    pub(super) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The command as it may be shown.
    pub(super) fn shown(&self) -> &'static str {
        match self.mechanism {
            Mechanism::Plain => "AUTH PLAIN ***",
            Mechanism::Login => "AUTH LOGIN",
        }
    }

    /// What a server could echo and nobody may see.
    pub(super) fn secrets(&self) -> [Zeroizing<String>; 3] {
        let encoded = |secret: &[u8]| Zeroizing::new(BASE64.encode(secret));
        let password = self.credentials.secret();
        [
            Zeroizing::new(password.to_owned()),
            encoded(password.as_bytes()),
            encoded(&plain::response(&self.credentials)),
        ]
    }

    /// How many challenges the server has sent.
    pub(super) fn challenges(&self) -> usize {
        self.challenges
    }

    /// The AUTH command, with the initial response where the mechanism has one (RFC 4954, 4).
    pub(super) fn command(&self) -> SecretLine {
        let verb = format!("AUTH {}", self.mechanism);
        match self.mechanism {
            Mechanism::Plain => secret_line(&[verb.as_bytes(), b" "], &plain::response(&self.credentials)),
            Mechanism::Login => secret_line(&[verb.as_bytes()], b""),
        }
    }

    /// The answer to a challenge; `*`, which gives up, where the mechanism has no more to say.
    pub(super) fn respond(&mut self) -> SecretLine {
        let response = match self.mechanism {
            Mechanism::Plain => plain::respond(&self.credentials, self.challenges),
            Mechanism::Login => login::respond(&self.credentials, self.challenges),
        };
        self.challenges += 1;
        match response {
            Some(response) => secret_line(&[], &response),
            None => secret_line(&[b"*"], b""),
        }
    }
}

/// Made in one allocation of the right size, so that no copy of a secret is left behind by a growing buffer.
fn secret_line(prefix: &[&[u8]], secret: &[u8]) -> SecretLine {
    let encoded = secret.len().div_ceil(3) * 4;
    let start: usize = prefix.iter().map(|part| part.len()).sum();
    let mut line = Zeroizing::new(Vec::with_capacity(start + encoded + 2));
    prefix.iter().for_each(|part| line.extend_from_slice(part));
    line.resize(start + encoded, 0);
    BASE64.encode_slice(secret, &mut line[start..]).expect("the line has room for the response in base64");
    line.extend_from_slice(b"\r\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(mechanism: Mechanism, user: &str, password: &str, challenges: usize) -> Vec<String> {
        let mut login = Login::new(mechanism, &Credentials::new(user, password)).unwrap();
        let mut lines = vec![login.command()];
        lines.extend((0..challenges).map(|_| login.respond()));
        lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    #[test]
    fn plain_as_rfc_4616_has_it() {
        // RFC 4616, 4: authcid "tim", password "tanstaaftanstaaf".
        assert_eq!(
            lines(Mechanism::Plain, "tim", "tanstaaftanstaaf", 2),
            ["AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n", "AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n", "*\r\n"]
        );
    }

    #[test]
    fn login_as_servers_have_it() {
        assert_eq!(
            lines(Mechanism::Login, "alice@example.org", "dummy123", 3),
            ["AUTH LOGIN\r\n", "YWxpY2VAZXhhbXBsZS5vcmc=\r\n", "ZHVtbXkxMjM=\r\n", "*\r\n"]
        );
    }

    #[test]
    fn a_nul_cannot_be_sent() {
        assert!(Login::new(Mechanism::Plain, &Credentials::new("a\0b", "c")).is_err());
        assert!(Login::new(Mechanism::Login, &Credentials::new("a", "b\0c")).is_err());
    }

    #[test]
    fn names_are_read_in_any_case() {
        assert_eq!("login".parse::<Mechanism>().unwrap(), Mechanism::Login);
        assert!("NTLM".parse::<Mechanism>().unwrap_err().to_string().contains("PLAIN and LOGIN"));
    }
}
