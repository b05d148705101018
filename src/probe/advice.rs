//! Recommends settings: a URL and lines of Rust.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Port, PortSecurity};
use crate::Endpoint;
use crate::config::login::LoginWith;
use crate::proto::Protocol;
use crate::tls::Security;

/// The characters that are not escaped in the user of a URL, and in the value of a key.
const USER: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const VALUE: &AsciiSet = &USER
    .remove(b'/')
    .remove(b':')
    .remove(b',')
    .remove(b'[')
    .remove(b']');

/// The recommended settings, as text to copy. It contains no password.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Advice {
    /// The port to use.
    pub port: u16,
    /// Whether the settings work now. Otherwise the port's [failure](Port::failure) has to be fixed
    /// first.
    pub usable: bool,
    /// The URL, with the user and without the password.
    pub url: String,
    /// The lines of Rust, which also contain what a URL cannot express.
    pub rust: String,
}

/// Returns `None` if no mail server was found.
pub(super) fn advise(endpoint: &Endpoint, port: &Port) -> Option<Advice> {
    let refused = port
        .failure
        .as_ref()
        .is_some_and(|failure| failure.reply().is_some());
    if port.speaks == Some(PortSecurity::Plaintext) && port.greeting.is_none() && !refused {
        return None;
    }
    let verified = port.tls.as_ref().is_some_and(|tls| tls.is_verified());
    let (scheme, usual_port) = match (endpoint.protocol(), port.speaks?) {
        (Protocol::Lmtp, _) => ("lmtp", 24),
        (Protocol::Smtp, PortSecurity::Tls) => ("smtps", 465),
        (Protocol::Smtp, PortSecurity::Plaintext) => ("smtp", 587),
    };
    let (mut keys, mut calls) = endpoint.tls.settings.to_url_query();
    if scheme == "smtp" && port.is_usable() && !verified {
        let policy = if port.tls.is_some() {
            endpoint.security
        } else {
            Security::None
        };
        keys.insert(0, ("tls", policy.to_string()));
        if policy == Security::None {
            keys.truncate(1);
            calls.clear();
        }
    }
    // LMTP is used without TLS unless TLS is requested, and no URL can request it from the first
    // byte.
    match (scheme, port.speaks?) {
        ("lmtp", PortSecurity::Tls) => calls.insert(0, ".security(Security::Implicit)".into()),
        ("lmtp", _) if verified => keys.insert(0, ("tls", Security::Required.to_string())),
        ("lmtp", _) => {
            keys.clear();
            calls.clear();
        }
        _ => {}
    }
    if !endpoint.login.mechanisms.is_empty() {
        let names: Vec<&str> = endpoint
            .login
            .mechanisms
            .iter()
            .map(|mechanism| mechanism.as_str())
            .collect();
        keys.push(("auth", names.join(",")));
    }
    if let Some(name) = endpoint.get_client_name() {
        keys.push(("helo", name.as_str().to_owned()));
    }

    let mut url = format!("{scheme}://");
    let offers_login = port
        .inside_tls
        .as_ref()
        .is_some_and(|offered| !offered.auth().is_empty());
    let login = match (
        endpoint.login.chosen().ok().flatten(),
        endpoint.login.name(),
    ) {
        (Some(LoginWith::Tokens { .. }), user) => Some((user, ".token_source(token)")),
        (Some(LoginWith::File { .. }), user) => Some((user, ".password_file(password_file)")),
        (Some(LoginWith::Exchange(_)), _) => Some((None, ".login_with(exchange)")),
        (Some(LoginWith::Credentials(_)), Some(user)) => Some((Some(user), ".password(password)")),
        (Some(LoginWith::Credentials(_)), None) => None,
        (None, _) => offers_login.then_some((
            None,
            ".credentials(Credentials::new(\"USER\", \"PASSWORD\"))",
        )),
    };
    if let Some((user, call)) = login {
        if let Some(user) = user {
            url += &format!("{}@", utf8_percent_encode(user, USER));
        }
        calls.insert(0, call.into());
    }
    url += &if endpoint.host.contains(':') {
        format!("[{}]", endpoint.host)
    } else {
        endpoint.host.clone()
    };
    if port.number != usual_port {
        url += &format!(":{}", port.number);
    }
    for (index, (key, value)) in keys.iter().enumerate() {
        let separator = if index == 0 { '?' } else { '&' };
        url += &format!("{separator}{key}={}", utf8_percent_encode(value, VALUE));
    }

    let rust = match &calls[..] {
        [] => format!("let client = Client::from_url({url:?})?;"),
        calls => {
            let calls = calls.join("\n    ");
            format!(
                "let endpoint = Endpoint::from_url({url:?})?\n    {calls};\nlet client = \
                    Client::new(endpoint);"
            )
        }
    };
    Some(Advice {
        port: port.number,
        usable: port.is_usable(),
        url,
        rust,
    })
}
