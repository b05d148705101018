//! The keys of settings: one table for URLs, for files in TOML or JSON, and for environment
//! variables.

use std::path::PathBuf;
use std::time::Duration;

use super::settings::Settings;
use super::url;
use crate::Secret;
use crate::error::{Error, Result};
use crate::proto::{ClientName, Mechanism};
use crate::text::quoted;
use crate::tls::{Security, TlsVersion};

/// Sets a value; the last argument is the name of the key, for errors.
type Setter = fn(&mut Settings, Value, &str) -> Result<()>;

/// A key and its meaning.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// Whether it is a key in the query of a URL. The others are other parts of the URL, or the
    /// URL itself.
    pub(super) in_query: bool,
    set: Setter,
    /// The value that is set, unless it is secret.
    get: fn(&Settings) -> Option<Value>,
}

/// A key that is not known, and the advice about it.
pub(super) struct UnknownKey<'a> {
    name: &'a str,
    is_eligible: fn(&Key) -> bool,
}

impl UnknownKey<'_> {
    /// Names the nearest key or else all keys, each as it is written in the source of the settings.
    pub(super) fn hint_with(&self, written: impl Fn(&str) -> String) -> String {
        let keys = KEYS.iter().filter(|key| (self.is_eligible)(key));
        let names: Vec<&str> = keys.map(|key| key.name).collect();
        match nearest(self.name, &names) {
            Some(nearest) => format!("Did you mean {}?", written(nearest)),
            None => {
                let names: Vec<String> = names.into_iter().map(written).collect();
                format!("The settings are {}.", names.join(", "))
            }
        }
    }
}

impl From<UnknownKey<'_>> for Error {
    fn from(unknown: UnknownKey<'_>) -> Self {
        Error::request(format!("the key {} is not known", quoted(unknown.name)))
            .with_hint(unknown.hint_with(str::to_owned))
    }
}

impl Key {
    /// Returns the key with this name.
    pub(super) fn find(
        name: &str,
        is_eligible: fn(&Key) -> bool,
    ) -> Result<&'static Key, UnknownKey<'_>> {
        let is_meant = |key: &&Key| is_eligible(key) && key.name == name;
        let unknown = UnknownKey { name, is_eligible };
        KEYS.iter().find(is_meant).ok_or(unknown)
    }

    /// Sets the value of this key.
    ///
    /// # Errors
    ///
    /// The value is not valid, or the key was set before and cannot be repeated.
    pub(super) fn set(&self, settings: &mut Settings, value: Value) -> Result<()> {
        let is_set = (self.get)(settings).is_some()
            // The value of a secret is never returned.
            || self.name == "password" && settings.password.is_some();
        if is_set && self.name != "trust" {
            return Err(
                Error::request(format!("the key {} is given twice", self.name))
                    .with_hint("Give it once. A URL contains other keys."),
            );
        }
        (self.set)(settings, value, self.name)
    }
}

/// The keys that are set and not secret, with their values, in the order of the table.
pub(super) fn given(settings: &Settings) -> impl Iterator<Item = (&'static Key, Value)> {
    let value = |key: &'static Key| Some((key, (key.get)(settings)?));
    KEYS.iter().filter_map(value)
}

#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name)
}

/// A value, as it is in a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    List(Vec<String>),
    Number(f64),
    Flag(bool),
}

/// The value is of another kind. It is not shown, as it may be a password.
fn takes(key: &str, what: &str) -> Error {
    Error::request(format!("{key} takes {what}"))
}

impl Value {
    /// The value as it is written in a URL, once for each element of a list.
    pub(super) fn into_texts(self) -> Vec<String> {
        match self {
            Value::Text(text) => vec![text],
            Value::List(list) => list,
            Value::Number(number) => vec![number.to_string()],
            Value::Flag(yes) => vec![if yes { "yes" } else { "no" }.to_owned()],
        }
    }

    fn text(self, key: &str) -> Result<String> {
        match self {
            Value::Text(text) => Ok(text),
            _ => Err(takes(key, "a text").with_hint("Put the value into quotes.")),
        }
    }

    fn path(self, key: &str) -> Result<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// A number, or the text of one.
    fn number(self, key: &str) -> Result<String> {
        match self {
            Value::Number(number) => Ok(number.to_string()),
            value => value.text(key),
        }
    }
}

impl From<&PathBuf> for Value {
    fn from(path: &PathBuf) -> Self {
        Value::Text(path.display().to_string())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Value::Text(text.clone())
    }
}

fn put<T>(field: &mut Option<T>, value: T) -> Result<()> {
    *field = Some(value);
    Ok(())
}

fn version(value: Value, key: &str) -> Result<TlsVersion> {
    value.number(key)?.parse()
}

fn version_value(version: TlsVersion) -> Value {
    Value::Text(version.to_string().replace("TLSv", ""))
}

/// A key in the query of a URL.
const fn in_query(name: &'static str, set: Setter, get: fn(&Settings) -> Option<Value>) -> Key {
    Key {
        name,
        in_query: true,
        set,
        get,
    }
}

/// Another part of a URL.
const fn part(name: &'static str, set: Setter, get: fn(&Settings) -> Option<Value>) -> Key {
    Key {
        in_query: false,
        ..in_query(name, set, get)
    }
}

/// Another part of a URL, with a password.
const fn secret(name: &'static str, set: Setter) -> Key {
    part(name, set, |_| None)
}

/// A bound of time-outs: some decades.
const MAX_SECONDS: f64 = 1e9;

const KEYS: [Key; 22] = [
    secret("url", |s, v, key| url::parse_into(s, &v.text(key)?)),
    part(
        "scheme",
        |s, v, key| put(&mut s.scheme, v.text(key)?.parse()?),
        |s| Some(Value::Text(s.scheme?.as_str().to_owned())),
    ),
    part(
        "host",
        |s, v, key| put(&mut s.host, v.text(key)?),
        |s| s.host.as_ref().map(Value::from),
    ),
    part(
        "port",
        |s, v, key| match v.number(key)?.parse() {
            Ok(port) if port > 0 => put(&mut s.port, port),
            _ => Err(takes(key, "a number from 1 to 65535")),
        },
        |s| s.port.map(|port| Value::Number(port.into())),
    ),
    part(
        "socket",
        |s, v, key| put(&mut s.socket, v.path(key)?),
        |s| s.socket.as_ref().map(Value::from),
    ),
    part(
        "user",
        |s, v, key| put(&mut s.user, v.text(key)?),
        |s| s.user.as_ref().map(Value::from),
    ),
    secret("password", |s, v, key| {
        put(&mut s.password, Secret::new(v.text(key)?))
    }),
    in_query(
        "password-file",
        |s, v, key| put(&mut s.password_file, v.path(key)?),
        |s| s.password_file.as_ref().map(Value::from),
    ),
    in_query(
        "tls",
        |s, v, key| put(&mut s.tls, v.text(key)?.parse::<Security>()?),
        |s| Some(Value::Text(s.tls?.to_string())),
    ),
    in_query(
        "trust",
        |s, v, key| {
            match v {
                Value::List(paths) => s.trust.extend(paths.into_iter().map(PathBuf::from)),
                path => s.trust.push(path.path(key)?),
            }
            Ok(())
        },
        |s| {
            let paths = s.trust.iter().map(|path| path.display().to_string());
            (!s.trust.is_empty()).then(|| Value::List(paths.collect()))
        },
    ),
    in_query(
        "pin",
        |s, v, key| put(&mut s.pin, v.text(key)?),
        |s| s.pin.as_ref().map(Value::from),
    ),
    in_query(
        "trust-password-file",
        |s, v, key| put(&mut s.trust_password_file, v.path(key)?),
        |s| s.trust_password_file.as_ref().map(Value::from),
    ),
    in_query(
        "server-name",
        |s, v, key| put(&mut s.server_name, v.text(key)?),
        |s| s.server_name.as_ref().map(Value::from),
    ),
    in_query(
        "min-tls",
        |s, v, key| put(&mut s.min_tls, version(v, key)?),
        |s| s.min_tls.map(version_value),
    ),
    in_query(
        "max-tls",
        |s, v, key| put(&mut s.max_tls, version(v, key)?),
        |s| s.max_tls.map(version_value),
    ),
    in_query(
        "client-cert",
        |s, v, key| put(&mut s.client_cert, v.path(key)?),
        |s| s.client_cert.as_ref().map(Value::from),
    ),
    in_query(
        "client-key",
        |s, v, key| put(&mut s.client_key, v.path(key)?),
        |s| s.client_key.as_ref().map(Value::from),
    ),
    in_query(
        "client-password-file",
        |s, v, key| put(&mut s.client_password_file, v.path(key)?),
        |s| s.client_password_file.as_ref().map(Value::from),
    ),
    in_query(
        "auth",
        |s, v, key| {
            let names = match v {
                Value::List(names) => names,
                names => {
                    let names = names.text(key)?;
                    let names = names
                        .split(',')
                        .map(|name| name.trim_matches(' ').to_owned());
                    names.collect()
                }
            };
            let mechanisms = names.iter().map(|name| name.parse());
            put(
                &mut s.auth,
                mechanisms.collect::<Result<Vec<Mechanism>, _>>()?,
            )
        },
        |s| {
            let names = s.auth.as_ref()?.iter().map(|name| name.as_str().to_owned());
            Some(Value::List(names.collect()))
        },
    ),
    in_query(
        "auth-in-clear",
        |s, v, key| {
            s.auth_in_clear = match v {
                Value::Flag(yes) => yes,
                Value::Text(word) if word == "yes" => true,
                _ => return Err(takes(key, "yes, or is left out")),
            };
            Ok(())
        },
        |s| s.auth_in_clear.then_some(Value::Flag(true)),
    ),
    in_query(
        "helo",
        |s, v, key| put(&mut s.helo, ClientName::new(v.text(key)?)?),
        |s| Some(Value::Text(s.helo.as_ref()?.as_str().to_owned())),
    ),
    in_query(
        "timeout",
        |s, v, key| {
            let text = v.number(key)?;
            match text.parse::<f64>() {
                Ok(seconds) if seconds > 0.0 && seconds < MAX_SECONDS => {
                    put(&mut s.timeout, Duration::from_secs_f64(seconds))
                }
                _ => Err(Error::request(format!(
                    "timeout={} is not a number of seconds above 0 and below {MAX_SECONDS}",
                    quoted(&text)
                ))),
            }
        },
        |s| Some(Value::Number(s.timeout?.as_secs_f64())),
    ),
];

/// Names that other programs have for these keys.
const OTHER_NAMES: [(&str, &str); 24] = [
    ("ca", "trust"),
    ("ca-file", "trust"),
    ("cafile", "trust"),
    ("cert", "client-cert"),
    ("certificate", "client-cert"),
    ("ehlo", "helo"),
    ("encryption", "tls"),
    ("host-password", "password"),
    ("host-user", "user"),
    ("hostname", "host"),
    ("key", "client-key"),
    ("login", "user"),
    ("mechanism", "auth"),
    ("pass", "password"),
    ("protocol", "scheme"),
    ("pwd", "password"),
    ("secure", "tls"),
    ("server", "host"),
    ("ssl", "scheme"),
    ("starttls", "tls"),
    ("use-ssl", "scheme"),
    ("use-tls", "tls"),
    ("username", "user"),
    ("verify-name", "server-name"),
];

/// The name that was probably meant.
fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase().replace('_', "-");
    let other = OTHER_NAMES.iter().find(|(other, _)| *other == name);
    if let Some((_, meant)) = other {
        return names.iter().copied().find(|known| known == meant);
    }
    let distances = names.iter().map(|known| (distance(&name, known), *known));
    let (distance, known) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + known.len() / 4).then_some(known)
}

/// The number of characters to insert, delete or replace, where two that are exchanged count once
/// (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    // Longer ones are not near.
    let from: Vec<char> = from.chars().take(40).collect();
    let to: Vec<char> = to.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let is_other = usize::from(from[i - 1] != to[j - 1]);
            let mut least = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + is_other);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}
