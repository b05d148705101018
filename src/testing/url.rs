//! The URLs of servers.

use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::builder::Security;
use crate::proto::Protocol;

/// The characters that are not escaped in the user, password or path of a URL.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');

/// The parts of the URL of a server on this machine.
pub(super) struct Url<'a> {
    pub(super) protocol: Protocol,
    pub(super) security: Security,
    pub(super) login: Option<(&'a str, &'a str)>,
    pub(super) auth_in_clear: bool,
    pub(super) ca_file: &'a Path,
}

impl Url<'_> {
    /// The URL of a server on this port.
    pub(super) fn with_port(&self, host: &str, port: u16) -> String {
        let scheme = match (self.protocol, self.security) {
            (Protocol::Lmtp, _) => "lmtp",
            (Protocol::Smtp, Security::Implicit) => "smtps",
            (Protocol::Smtp, _) => "smtp",
        };
        let (login, query) = (self.login(), self.query());
        let (open, close) = if host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        format!("{scheme}://{login}{open}{host}{close}:{port}?{query}")
    }

    /// The URL of a server at this Unix socket.
    pub(super) fn with_socket(&self, path: &Path) -> String {
        let path = path.to_string_lossy();
        let path = utf8_percent_encode(&path, PATH);
        format!("lmtp+unix://{}{path}?{}", self.login(), self.query())
    }

    fn login(&self) -> String {
        let Some((user, password)) = self.login else {
            return String::new();
        };
        let escape = |text| utf8_percent_encode(text, UNRESERVED);
        format!("{}:{}@", escape(user), escape(password))
    }

    fn query(&self) -> String {
        let path = self.ca_file.to_string_lossy();
        let trust = format!("trust={}", utf8_percent_encode(&path, PATH));
        if self.security == Security::StartTls && self.protocol == Protocol::Lmtp {
            format!("tls=required&{trust}")
        } else if self.security != Security::Plaintext {
            trust
        } else if self.auth_in_clear && self.login.is_some() {
            "tls=none&auth-in-clear=yes".into()
        } else {
            "tls=none".into()
        }
    }
}
