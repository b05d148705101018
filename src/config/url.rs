//! Parses the URL of an endpoint: everything that a program has to know about its server, in one
//! line of configuration.
//!
//! No message quotes the URL, since it may contain a password.

use std::str::FromStr;

use percent_encoding::percent_decode_str;

use super::keys::{Key, Value};
use super::settings::{Scheme, Settings};
use crate::error::{Error, Result};
use crate::idna;
use crate::text::quoted;
use crate::tls::Security;

const HINT: &str = "A URL looks like smtp://user:password@mail.example.org:587 (STARTTLS), \
    smtps://user:password@mail.example.org:465 \
    (TLS from the first byte), smtp://mail.example.org:25?tls=none, lmtp://mail.example.org:24 or \
    lmtp+unix:///run/lmtp.sock. Characters such as @ : / ? # % in user and password are \
    percent-encoded (%40 %3A %2F %3F %23 %25).";

/// Sets what the URL contains, in addition to what is set.
pub(super) fn parse_into(settings: &mut Settings, url: &str) -> Result<()> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(no_scheme(url));
    };
    let scheme = scheme.to_ascii_lowercase();
    if !scheme
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '+')
    {
        return Err(no_scheme(url));
    }
    set(settings, "scheme", scheme)?;
    if rest.contains('#') {
        return Err(fault("the URL has a fragment (#)"));
    }
    let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = location.split_once('/').unwrap_or((location, ""));
    let (user_info, host_and_port) = match authority.rsplit_once('@') {
        Some((user_info, host_and_port)) => (Some(user_info), host_and_port),
        None => (None, authority),
    };
    if settings.scheme == Some(Scheme::LmtpUnix) {
        if !host_and_port.is_empty() || path.is_empty() {
            return Err(fault(
                "a socket is named by its whole path: lmtp+unix:///run/lmtp.sock",
            ));
        }
        // If the password has a / and an @, this is a part of it.
        if path.contains('@') {
            return Err(fault(
                "there is an @ in the socket's path; if it belongs there, it is written %40",
            ));
        }
        set(settings, "socket", format!("/{}", decode(path, "path")?))?;
    } else {
        if !path.is_empty() {
            return Err(fault("the URL has a path after the host"));
        }
        let (host, port) = split_port(host_and_port)?;
        set(settings, "host", host)?;
        if let Some(port) = port {
            set(settings, "port", port.to_string())?;
        }
    }
    if let Some(user_info) = user_info {
        set_user(settings, user_info)?;
    }
    // If the password has an unencoded @ and ?, the query is a part of it and must not be quoted.
    set_query(settings, query).map_err(|error| match query.contains('@') {
        true => fault(
            "the part after the ? cannot be used; if the ? belongs to the password, write it as \
                %3F",
        ),
        false => error,
    })
}

/// Sets a part of the URL.
fn set(settings: &mut Settings, key: &str, value: String) -> Result<()> {
    let key = Key::find(key, |_| true)?;
    key.set(settings, Value::Text(value)).map_err(with_url_hint)
}

/// Handles common inputs that are not URLs.
fn no_scheme(text: &str) -> Error {
    let error = Error::request("the server's URL does not begin with smtp:// or smtps://");
    match text.to_ascii_uppercase().starts_with("STARTTLS:") {
        true => error.with_hint(
            "For STARTTLS write smtp:// and the host: STARTTLS on port 587 is what smtp:// does \
                by default.",
        ),
        false => error.with_hint(HINT),
    }
}

pub(super) fn split_port(text: &str) -> Result<(String, Option<u16>)> {
    let (host, port) = if let Some(literal) = text.strip_prefix('[') {
        let Some((address, rest)) = literal.split_once(']') else {
            return Err(fault("the bracket around the IPv6 address is not closed"));
        };
        // The zone of a link-local address: `%25` (RFC 6874), or `%` as people paste it.
        let address = address.replacen("%25", "%", 1);
        if !idna::is_ipv6(&address) {
            // It may be part of a password.
            return Err(fault("what stands in brackets is not an IPv6 address"));
        }
        match rest {
            "" => (address, None),
            rest => match rest.strip_prefix(':') {
                Some(port) => (address, Some(port)),
                None => {
                    return Err(fault(
                        "there is something between the IPv6 address and the port",
                    ));
                }
            },
        }
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let host = decode(host, "host")?;
        // Not quoted: with `:` and `@` percent-encoded, user and password are a part of it.
        let fine = |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || "-._".contains(c);
        if !host.chars().all(fine) {
            return Err(fault(
                "the host contains a character that host names do not have; between user, \
                    password and host, : and @ are not percent-encoded",
            ));
        }
        (host, port)
    };
    if host.is_empty() {
        return Err(fault("the URL names no host"));
    }
    let port = match port {
        None => None,
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
            // Not quoted: if the password has an unencoded @, this is a part of it.
            _ => return Err(fault("the port is not a number from 1 to 65535")),
        },
    };
    Ok((host, port))
}

fn set_user(settings: &mut Settings, user_info: &str) -> Result<()> {
    let (user, password) = match user_info.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (user_info, None),
    };
    let user = decode(user, "user")?;
    if user.is_empty() {
        return Err(fault("the URL has an empty user name"));
    }
    set(settings, "user", user)?;
    match password {
        Some(password) => set(settings, "password", decode(password, "password")?),
        None => Ok(()),
    }
}

fn set_query(settings: &mut Settings, query: &str) -> Result<()> {
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key, "query")?, decode(value, &quoted(key))?);
        let key = Key::find(&key, |key| key.in_query)?;
        key.set(settings, Value::Text(value))
            .map_err(with_url_hint)?;
    }
    Ok(())
}

/// Adds the advice about URLs, unless there is better advice.
fn with_url_hint(error: Error) -> Error {
    match error.hint() {
        Some(_) => error,
        None => error.with_hint(HINT),
    }
}

impl FromStr for Security {
    type Err = Error;

    /// Parses a value of the URL's key `tls`: `none`, `opportunistic` or `required`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) for any other word, including `implicit`,
    /// which is expressed by the scheme `smtps:`.
    fn from_str(word: &str) -> Result<Self> {
        match word {
            "none" => Ok(Security::None),
            "opportunistic" => Ok(Security::Opportunistic),
            "required" => Ok(Security::Required),
            "implicit" => Err(
                Error::request("tls=implicit is not a policy of a smtp: URL")
                    .with_hint("Write smtps://host:465 for TLS from the first byte."),
            ),
            other => Err(Error::request(format!(
                "tls={} is not known; it is none, opportunistic or required",
                quoted(other)
            ))),
        }
    }
}

/// `what` names the part in errors.
pub(super) fn decode(text: &str, what: &str) -> Result<String> {
    let stray = text.split('%').skip(1).any(|rest| {
        let digits = rest.as_bytes().get(..2);
        !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if stray {
        return Err(fault(format!(
            "a % in the {what} is not followed by two hexadecimal digits"
        )));
    }
    let decode = percent_decode_str(text).decode_utf8();
    decode
        .map(|text| text.into_owned())
        .map_err(|_| fault(format!("the {what} is not UTF-8 when decoded")))
}

fn fault(message: impl Into<String>) -> Error {
    Error::request(message).with_hint(HINT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::login::LoginWith;
    use crate::proto::Mechanism;
    use crate::{Credentials, Endpoint};

    fn parse(url: &str) -> Result<Endpoint> {
        Endpoint::from_url(url)
    }

    #[test]
    fn schemes_set_port_and_security() {
        for (url, host, port, security) in [
            (
                "smtp://mail.example.org",
                "mail.example.org",
                587,
                Security::Required,
            ),
            (
                "SMTP://mail.example.org/",
                "mail.example.org",
                587,
                Security::Required,
            ),
            (
                "smtp://mail.example.org:25?tls=none",
                "mail.example.org",
                25,
                Security::None,
            ),
            (
                "smtp://mail.example.org:25?tls=opportunistic",
                "mail.example.org",
                25,
                Security::Opportunistic,
            ),
            (
                "smtps://mail.example.org",
                "mail.example.org",
                465,
                Security::Implicit,
            ),
            ("smtps://[::1]:10465", "::1", 10465, Security::Implicit),
            (
                "smtp://[fe80::1%25lo]:25",
                "fe80::1%lo",
                25,
                Security::Required,
            ),
            ("smtp://[fe80::1%lo]", "fe80::1%lo", 587, Security::Required),
            (
                "smtp://[2001:db8::1]",
                "2001:db8::1",
                587,
                Security::Required,
            ),
            (
                "lmtp://mail.example.org",
                "mail.example.org",
                24,
                Security::None,
            ),
            (
                "lmtp://mail.example.org:2024?tls=required",
                "mail.example.org",
                2024,
                Security::Required,
            ),
            (
                "lmtp+unix:///run/lmtp.sock",
                "localhost",
                24,
                Security::None,
            ),
        ] {
            let endpoint = parse(url).unwrap();
            assert_eq!(
                (endpoint.host(), endpoint.get_port()),
                (host, port),
                "{url}"
            );
            assert_eq!(endpoint.security, security, "{url}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_socket_url_has_a_path() {
        for (url, path) in [
            ("lmtp+unix:///run/dovecot/lmtp", "/run/dovecot/lmtp"),
            ("LMTP+Unix:///tmp/a%20b%3Fc%25?helo=me", "/tmp/a b?c%"),
            ("lmtp+unix:///run/a%40b", "/run/a@b"),
            ("lmtp+unix://alice:p%2F@/run/lmtp.sock", "/run/lmtp.sock"),
        ] {
            assert_eq!(
                parse(url).unwrap().socket().unwrap().to_str(),
                Some(path),
                "{url}"
            );
        }
        assert!(parse("lmtp://mail.example.org").unwrap().socket().is_none());
    }

    #[cfg(feature = "idna")]
    #[test]
    fn non_ascii_hosts_become_a_labels() {
        for url in [
            "smtp://mail.b\u{fc}cher.example",
            "smtp://mail.b%C3%BCcher.example:25",
        ] {
            let endpoint = parse(url).unwrap();
            assert_eq!(endpoint.host(), "mail.xn--bcher-kva.example", "{url}");
            endpoint.check().unwrap();
        }
        assert!(parse("smtp://-\u{fc}.example").unwrap().check().is_err());
    }

    /// A FIFO would block here.
    #[test]
    fn parsing_a_url_reads_no_file() {
        assert!(
            parse("smtp://mail.example.org?trust=/nowhere&trust-password-file=/nowhere").is_ok()
        );
    }

    #[test]
    fn an_at_sign_may_stand_in_a_path() {
        assert!(parse("smtp://mail.example.org?trust=/etc/ca@home.pem").is_ok());
    }

    fn credentials(endpoint: &Endpoint) -> Credentials {
        match endpoint.login.chosen().unwrap() {
            Some(LoginWith::Credentials(credentials)) => credentials,
            _ => panic!("no credentials"),
        }
    }

    #[test]
    fn the_mechanism_decides_the_meaning_of_user_and_password() {
        for (url, expected) in [
            ("smtp://u:p@h", Credentials::new("u", "p")),
            ("smtp://u:p@h?auth=login", Credentials::new("u", "p")),
            ("smtp://u:p@h?auth=XOAUTH2", Credentials::token("u", "p")),
            (
                "smtp://u:p@h?auth=OAUTHBEARER,xoauth2",
                Credentials::token("u", "p"),
            ),
            (
                "smtp://u:p@h?auth=OAUTHBEARER,PLAIN",
                Credentials::new("u", "p"),
            ),
            ("smtp://h?auth=EXTERNAL", Credentials::external()),
            (
                "smtp://u@h?auth=EXTERNAL",
                Credentials::external().authorize_as("u"),
            ),
            ("smtp://h?auth=ANONYMOUS", Credentials::anonymous("")),
        ] {
            assert!(credentials(&parse(url).unwrap()) == expected, "{url}");
        }
        let order = parse("smtp://u:p@h?auth=SCRAM-SHA-256,PLAIN")
            .unwrap()
            .login
            .mechanisms;
        assert_eq!(order, [Mechanism::ScramSha256, Mechanism::Plain]);
        assert!(parse("smtp://u:p@h?auth=PLAIN,").is_err());
    }

    #[test]
    fn user_and_password_are_decoded() {
        let endpoint =
            parse("smtp://alice%40example.org:p%40ss%3A%2F%3F%25@mail.example.org").unwrap();
        let given = credentials(&endpoint);
        assert_eq!(given.user(), "alice@example.org");
        assert_eq!(given.secret(), "p@ss:/?%");
        // An unencoded @: the last one precedes the host.
        let endpoint = parse("smtp://alice@example.org:pass@mail.example.org").unwrap();
        assert_eq!(credentials(&endpoint).user(), "alice@example.org");
        assert!(
            parse("smtp://alice@mail.example.org")
                .unwrap()
                .login
                .chosen()
                .is_err()
        );
    }

    #[test]
    fn url_errors_name_the_fault_and_show_no_password() {
        for (url, says) in [
            ("mail.example.org:587", "smtp://"),
            ("STARTTLS:mail.example.org", "by default"),
            ("imap://mail.example.org", "imap"),
            ("smtp://", "no host"),
            ("smtp://u:hunter2@", "no host"),
            ("smtp://u:hunter2@mail.example.org:0", "port"),
            ("smtp://u:hunter2@mail.example.org:99999", "port"),
            ("smtp://u:hunt/er2@mail.example.org", "path"),
            ("smtp://u:hunt?er2@mail.example.org", "port"),
            ("smtp://u:25?hunter2@mail.example.org", "%3F"),
            ("smtp://u:p@25?tls=hunter2@mail.example.org", "%3F"),
            ("smtp:u:hunter2://x@mail.example.org", "smtp://"),
            ("smtp://u:hunter2#x@mail.example.org", "fragment"),
            ("smtp://u:hunter2%zz@mail.example.org", "hexadecimal"),
            ("smtp://u:hunter2@mail.example.org/path", "path"),
            ("smtp://u:hunter2@mail.example.org?colour=red", "colour"),
            (
                "smtp://u:hunter2@mail.example.org?tls=none&tls=required",
                "twice",
            ),
            ("smtp://u:hunter2@mail.example.org?tls=maybe", "maybe"),
            (
                "smtp://u:hunter2@mail.example.org?tls=implicit",
                "smtps://host:465",
            ),
            ("smtps://u:hunter2@mail.example.org?tls=required", "smtps"),
            ("smtp://u:hunter2@mail.example.org?auth=NTLM", "NTLM"),
            (
                "smtp://u:hunter2@mail.example.org?auth-in-clear=true",
                "yes",
            ),
            ("smtp://u:hunter2@mail.example.org?helo=a%0d%0ab", "EHLO"),
            ("smtp://u:hunter2@mail.example.org?timeout=soon", "soon"),
            ("smtp://u:hunter2@[::1", "bracket"),
            ("lmtp+unix://u:hunter2@run/lmtp.sock", "whole path"),
            ("lmtp+unix://", "whole path"),
            ("lmtp+unix://alice@/home:hunter2@/run/lmtp.sock", "%40"),
            ("lmtp+unix:///run/a%zz", "hexadecimal"),
            ("smtp+unix:///run/smtp.sock", "smtp+unix"),
            ("lmtp://u:hunter2@h/run/lmtp.sock", "path"),
            ("smtp://u:hunter2@[fe80]:25", "IPv6"),
            ("smtp://u:hunter2@[fe80::1%25]", "IPv6"),
            ("smtp://u%3Ahunter2%40h", "host names do not have"),
            ("smtp://u:p@a%2Fhunter2", "host names do not have"),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Request);
            let text = format!("{error} {error:?}");
            assert!(text.contains(says), "{url}: {text}");
            assert!(
                !text.contains("hunter2") && !text.contains("er2@"),
                "{url}: {text}"
            );
        }
    }
}
