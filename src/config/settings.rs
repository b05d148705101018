//! The settings of an endpoint as plain values, from a URL, environment variables, or, with the
//! feature `serde`, a file.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::keys::{self, Key, Value};
use super::url;
use crate::error::{Error, Result};
use crate::proto::{ClientName, Mechanism};
use crate::text::quoted;
use crate::tls::{ClientCertificate, Security, TlsVersion, Trust};
use crate::{Endpoint, Secret, Timeouts};

/// The settings of an [`Endpoint`] as they are configured: by a URL, by environment variables, or,
/// with the feature `serde`, in TOML, JSON or another format.
///
/// All of them have the same keys, which are those of the [URL](Endpoint::from_url):
///
/// | Key | Value |
/// |---|---|
/// | `url` | a whole URL, which may contain all other keys |
/// | `scheme` | `smtp` (the default), `smtps`, `lmtp` or `lmtp+unix` |
/// | `host`, `port` | the server |
/// | `socket` | the path of a Unix socket, for `lmtp+unix` |
/// | `user`, `password`, `password-file` | the login; the file is read at [each login] |
/// | `tls` | `none`, `opportunistic` or `required` |
/// | `trust` | files or folders of certificates; a list, or one path |
/// | `pin` | the SHA-256 of the server's public key |
/// | `trust-password-file` | the file with the password of the key stores |
/// | `server-name` | the name to verify, if it is not the host |
/// | `min-tls`, `max-tls` | `1.2` or `1.3` |
/// | `client-cert`, `client-key` | the client certificate, and its key if in another file |
/// | `client-password-file` | the file with the password of its key store |
/// | `auth` | mechanisms in order of preference; a list, or separated by commas |
/// | `auth-in-clear` | `yes` (or `true` in a file) allows a login without TLS |
/// | `helo` | the name of this client |
/// | `timeout` | seconds, as [`Timeouts::uniform`] |
///
/// A key that is not known is refused, with the nearest one that is. No message has a password in
/// it; note that `Display` of an error of the crate `toml` adds the line of the file, which may
/// have one, and `message` does not. `Debug` shows that there is a password, and nothing of it;
/// `Serialize` leaves it out.
///
/// [each login]: Endpoint::password_file
///
/// ```
/// use envoi::{Client, Settings};
///
/// # #[cfg(feature = "serde")] {
/// let settings: Settings = toml::from_str(
///     r#"
///     host = "mail.example.org"
///     user = "alice@example.org"
///     password-file = "/run/secrets/smtp"
///     trust = ["/etc/company/ca.pem"]
///     timeout = 20
///     "#,
/// )?;
/// let client = Client::new(settings.endpoint()?);
///
/// // As a part of the settings of a program; a URL alone will do, too:
/// #[derive(serde::Deserialize)]
/// struct Config {
///     mail: Settings,
/// }
/// let config: Config = toml::from_str("mail = 'smtps://mail.example.org'")?;
/// assert_eq!(config.mail.endpoint()?.get_port(), 465);
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct Settings {
    pub(super) scheme: Option<Scheme>,
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) socket: Option<PathBuf>,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) tls: Option<Security>,
    pub(super) trust: Vec<PathBuf>,
    pub(super) pin: Option<String>,
    pub(super) trust_password_file: Option<PathBuf>,
    pub(super) server_name: Option<String>,
    pub(super) min_tls: Option<TlsVersion>,
    pub(super) max_tls: Option<TlsVersion>,
    pub(super) client_cert: Option<PathBuf>,
    pub(super) client_key: Option<PathBuf>,
    pub(super) client_password_file: Option<PathBuf>,
    pub(super) auth: Option<Vec<Mechanism>>,
    pub(super) auth_in_clear: bool,
    pub(super) helo: Option<ClientName>,
    pub(super) timeout: Option<Duration>,
}

impl Settings {
    /// Reads the settings from a URL; see [`Endpoint::from_url`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request): the URL is not valid. It is not quoted.
    pub fn from_url(url: &str) -> Result<Self> {
        let mut settings = Settings::default();
        url::parse_into(&mut settings, url)?;
        Ok(settings)
    }

    /// Reads the settings from the environment variables whose names begin with a prefix. The rest
    /// of a name is a key in capitals, with underscores for hyphens: with the prefix `MAIL_`, the
    /// password file is `MAIL_PASSWORD_FILE`. An empty variable counts as one that is not set.
    ///
    /// Each variable with the prefix must be a key, so that no misspelt one is ignored. If the
    /// program has others, give these settings a prefix of their own, such as `APP_SMTP_`.
    ///
    /// ```no_run
    /// use envoi::{Client, Settings};
    ///
    /// // MAIL_HOST=mail.example.org MAIL_USER=alice MAIL_PASSWORD_FILE=/run/secrets/smtp
    /// let client = Client::new(Settings::from_env("MAIL_")?.endpoint()?);
    /// # Ok::<(), envoi::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request), with the name of the variable: it is not
    /// a key, or its value is not valid. The value of a variable with a password is never shown.
    pub fn from_env(prefix: &str) -> Result<Self> {
        Settings::from_vars(prefix, std::env::vars_os())
    }

    /// Like [`from_env`](Self::from_env), with these variables, as of a `.env` file.
    ///
    /// ```
    /// use envoi::Settings;
    ///
    /// let vars = [("MAIL_HOST", "mail.example.org"), ("MAIL_TLS", "none"), ("HOME", "/")];
    /// let settings = Settings::from_vars("MAIL_", vars)?;
    /// assert_eq!(settings.endpoint()?.host(), "mail.example.org");
    /// let error = Settings::from_vars("MAIL_", [("MAIL_PASWORD", "secret")]).unwrap_err();
    /// assert!(error.to_string().contains("Did you mean MAIL_PASSWORD?"));
    /// # Ok::<(), envoi::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env).
    pub fn from_vars<N, V>(prefix: &str, vars: impl IntoIterator<Item = (N, V)>) -> Result<Self>
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let variable = |key: &str| format!("{prefix}{}", key.replace('-', "_").to_uppercase());
        let mut settings = Settings::default();
        for (name, value) in vars {
            let (name, value) = (name.into(), value.into());
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(prefix)) else {
                continue;
            };
            if value.is_empty() {
                continue;
            }
            let name = quoted(&name.to_string_lossy());
            let key = rest.replace('_', "-").to_lowercase();
            let key = Key::find(&key, |_| true).map_err(|unknown| {
                Error::request(format!("the environment variable {name} is not a setting"))
                    .with_hint(unknown.hint_with(variable))
            })?;
            let text = value.into_string().map_err(|_| {
                Error::request(format!("the environment variable {name} is not UTF-8"))
                    .with_hint("Set it to text in UTF-8.")
            })?;
            key.set(&mut settings, Value::Text(text)).map_err(|error| {
                let error = match error.hint() {
                    Some(_) => error,
                    None => error.with_hint("The documentation of envoi::Settings has the values."),
                };
                error.context(format!("the environment variable {name}"))
            })?;
        }
        Ok(settings)
    }

    /// Returns the endpoint with these settings. No file is read yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request): there is no host, or two settings
    /// contradict each other.
    pub fn endpoint(&self) -> Result<Endpoint> {
        let mut endpoint = self.server()?;
        if let Some(port) = self.port {
            endpoint = endpoint.port(port);
        }
        if let Some(user) = &self.user {
            endpoint = endpoint.user(user);
        }
        endpoint = match (&self.password, &self.password_file) {
            (None, None) => endpoint,
            (Some(password), None) => endpoint.password(password.clone()),
            (None, Some(path)) => endpoint.password_file(path),
            (Some(_), Some(_)) => return Err(both("password", "password-file")),
        };
        if let Some(security) = self.tls {
            endpoint = endpoint.security(security);
        }
        let mut tls = endpoint.get_tls().clone();
        if !self.trust.is_empty() {
            tls = tls.trust(self.trust.iter().fold(Trust::empty(), Trust::path));
        } else if self.pin.is_some() {
            // The key is pinned, so no authority is needed.
            tls = tls.trust(Trust::empty());
        }
        if let Some(pin) = &self.pin {
            tls = tls.map_trust(|trust| trust.pin(pin));
        }
        if let Some(path) = &self.trust_password_file {
            tls = tls.map_trust(|trust| trust.password_file(path));
        }
        if let Some(name) = &self.server_name {
            tls = tls.server_name(name);
        }
        if let Some(version) = self.min_tls {
            tls = tls.min_version(version);
        }
        if let Some(version) = self.max_tls {
            tls = tls.max_version(version);
        }
        if let Some(certificate) = self.client_certificate()? {
            tls = tls.client_certificate(certificate);
        }
        endpoint = endpoint.tls(tls);
        if let Some(mechanisms) = &self.auth {
            endpoint = endpoint.mechanisms(mechanisms.iter().copied());
        }
        if let Some(name) = &self.helo {
            endpoint = endpoint.client_name(name.clone());
        }
        if let Some(limit) = self.timeout {
            endpoint = endpoint.timeouts(Timeouts::uniform(limit));
        }
        Ok(endpoint.auth_in_clear(self.auth_in_clear))
    }

    /// The endpoint with its defaults.
    fn server(&self) -> Result<Endpoint> {
        let scheme = match (self.scheme, &self.socket) {
            (Some(scheme), _) => scheme,
            (None, Some(_)) => Scheme::LmtpUnix,
            (None, None) => Scheme::Smtp,
        };
        match (scheme, &self.socket, &self.host) {
            (Scheme::LmtpUnix, Some(_), Some(_)) => return Err(both("socket", "host")),
            (Scheme::LmtpUnix, Some(_), None) if self.port.is_some() => {
                return Err(both("socket", "port"));
            }
            (Scheme::LmtpUnix, Some(socket), None) => return at_socket(socket),
            (Scheme::LmtpUnix, None, _) => {
                return Err(Error::request("there is no socket to connect to")
                    .with_hint("Set socket to its path, such as /run/dovecot/lmtp."));
            }
            (_, Some(_), _) => {
                return Err(Error::request(format!(
                    "the scheme {} has no socket",
                    scheme.as_str()
                ))
                .with_hint("Set scheme to lmtp+unix, or leave it out; or set host."));
            }
            (_, None, _) => {}
        }
        let Some(host) = &self.host else {
            return Err(Error::request("there is no host to connect to")
                .with_hint("Set host to the server's name, or url to its URL."));
        };
        match scheme {
            Scheme::Lmtp => Ok(Endpoint::lmtp(host)),
            Scheme::Smtps if self.tls.is_some() => Err(Error::request(
                "smtps:// is TLS already: the key tls goes with smtp:// and lmtp://",
            )
            .with_hint("Leave tls out, or change the scheme to smtp.")),
            Scheme::Smtps => Ok(Endpoint::new(host).security(Security::Implicit)),
            _ => Ok(Endpoint::new(host)),
        }
    }

    fn client_certificate(&self) -> Result<Option<ClientCertificate>> {
        let Some(path) = &self.client_cert else {
            return match (&self.client_key, &self.client_password_file) {
                (None, None) => Ok(None),
                _ => Err(Error::request("there is no client certificate for the key")
                    .with_hint("Set client-cert to the file with the certificate.")),
            };
        };
        let mut certificate = ClientCertificate::file(path);
        if let Some(path) = &self.client_key {
            certificate = certificate.key(path);
        }
        if let Some(path) = &self.client_password_file {
            certificate = certificate.password_file(path);
        }
        Ok(Some(certificate))
    }
}

#[cfg(unix)]
fn at_socket(path: &std::path::Path) -> Result<Endpoint> {
    Ok(Endpoint::lmtp_unix(path))
}

#[cfg(not(unix))]
fn at_socket(path: &std::path::Path) -> Result<Endpoint> {
    let path = quoted(&path.to_string_lossy());
    let message = format!("this system has no Unix sockets such as {path}");
    Err(Error::request(message))
}

fn both(one: &str, other: &str) -> Error {
    Error::request(format!("{one} and {other} are both set"))
        .with_hint(format!("Leave {one} or {other} out."))
}

impl FromStr for Settings {
    type Err = Error;

    /// Reads a URL as [`from_url`](Self::from_url) does.
    fn from_str(url: &str) -> Result<Self> {
        Settings::from_url(url)
    }
}

impl TryFrom<&Settings> for Endpoint {
    type Error = Error;

    /// See [`Settings::endpoint`].
    fn try_from(settings: &Settings) -> Result<Self> {
        settings.endpoint()
    }
}

impl TryFrom<Settings> for Endpoint {
    type Error = Error;

    /// See [`Settings::endpoint`].
    fn try_from(settings: Settings) -> Result<Self> {
        settings.endpoint()
    }
}

impl fmt::Debug for Settings {
    /// Shows the keys that are set; of the password, only that it is set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (key, value) in keys::given(self) {
            map.entry(&format_args!("{}", key.name), &value);
        }
        if let Some(password) = &self.password {
            map.entry(&format_args!("password"), password);
        }
        map.finish()
    }
}

/// The scheme of a URL.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scheme {
    Smtp,
    Smtps,
    Lmtp,
    LmtpUnix,
}

impl Scheme {
    const ALL: [Scheme; 4] = [Scheme::Smtp, Scheme::Smtps, Scheme::Lmtp, Scheme::LmtpUnix];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Scheme::Smtp => "smtp",
            Scheme::Smtps => "smtps",
            Scheme::Lmtp => "lmtp",
            Scheme::LmtpUnix => "lmtp+unix",
        }
    }
}

impl FromStr for Scheme {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Scheme::ALL
            .into_iter()
            .find(|scheme| scheme.as_str() == name);
        known.ok_or_else(|| {
            Error::request(format!("{} is not a scheme that envoi knows", quoted(name)))
                .with_hint("The schemes are smtp, smtps, lmtp and lmtp+unix.")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::login::LoginSettings;
    use crate::tls::TlsSettings;

    /// All settings of an endpoint, secrets included. In full, so that a new setting is compared.
    fn described(endpoint: &Endpoint) -> String {
        let LoginSettings {
            user,
            password,
            password_file,
            credentials,
            tokens,
            exchanges,
            mechanisms,
        } = &endpoint.login;
        assert!(credentials.is_none() && tokens.is_none() && exchanges.is_none());
        let login = (
            user,
            password.as_ref().map(Secret::expose),
            password_file.as_ref().map(|file| file.path()),
            mechanisms,
        );
        let TlsSettings {
            trust,
            min,
            max,
            server_name,
            client_certificate,
            provider,
            config,
            #[cfg(feature = "mx")]
                dane: _,
        } = endpoint.get_tls();
        assert!(provider.is_none() && config.is_none());
        let certificate = client_certificate
            .as_ref()
            .map(|found| found.paths().unwrap());
        let tls = (
            trust,
            trust.get_password_file(),
            min,
            max,
            server_name,
            certificate,
        );
        let destination = (
            endpoint.protocol(),
            endpoint.destination(),
            endpoint.get_port(),
        );
        let policy = (
            endpoint.get_security(),
            endpoint.get_auth_in_clear(),
            endpoint.get_all_or_nothing(),
            endpoint.get_client_name(),
        );
        let limits = (
            endpoint.get_timeouts(),
            endpoint.get_limits(),
            endpoint.get_check_after_idle(),
            endpoint.get_send_window(),
            endpoint.get_socket_options(),
        );
        format!("{login:#?}{tls:#?}{destination:#?}{policy:#?}{limits:#?}")
    }

    /// Settings that set each key but `url`, as variables with the prefix `X_`.
    const VARIABLES: [(&str, &str); 19] = [
        ("X_SCHEME", "smtp"),
        ("X_HOST", "mail.example.org"),
        ("X_PORT", "2525"),
        ("X_USER", "alice@example.org"),
        ("X_PASSWORD", "p@ss/w%rd"),
        ("X_TLS", "opportunistic"),
        ("X_TRUST", "/etc/ca.pem"),
        ("X_PIN", "sha256//abc"),
        ("X_TRUST_PASSWORD_FILE", "/run/store"),
        ("X_SERVER_NAME", "smtp.example.org"),
        ("X_MIN_TLS", "1.3"),
        ("X_MAX_TLS", "1.3"),
        ("X_CLIENT_CERT", "/etc/client.p12"),
        ("X_CLIENT_KEY", "/etc/client.key"),
        ("X_CLIENT_PASSWORD_FILE", "/run/client"),
        ("X_AUTH", "SCRAM-SHA-256, PLAIN"),
        ("X_AUTH_IN_CLEAR", "yes"),
        ("X_HELO", "client.example.org"),
        ("X_TIMEOUT", "2.5"),
    ];

    const URL: &str = "smtp://alice%40example.org:p%40ss%2Fw%25rd@mail.example.org:2525\
        ?tls=opportunistic&trust=/etc/ca.pem&pin=sha256//abc&trust-password-file=/run/store\
        &server-name=smtp.example.org&min-tls=1.3&max-tls=1.3&client-cert=/etc/client.p12\
        &client-key=/etc/client.key&client-password-file=/run/client\
        &auth=SCRAM-SHA-256,PLAIN&auth-in-clear=yes&helo=client.example.org&timeout=2.5";

    #[test]
    fn url_settings_and_builder_result_in_equal_endpoints() {
        let certificate = ClientCertificate::file("/etc/client.p12")
            .key("/etc/client.key")
            .password_file("/run/client");
        let tls = TlsSettings::new(Trust::empty().path("/etc/ca.pem").pin("sha256//abc"))
            .server_name("smtp.example.org")
            .min_version(TlsVersion::Tls13)
            .max_version(TlsVersion::Tls13)
            .client_certificate(certificate);
        let built = Endpoint::new("mail.example.org")
            .port(2525)
            .user("alice@example.org")
            .password("p@ss/w%rd")
            .security(Security::Opportunistic)
            .tls(tls)
            .trust_password_file("/run/store")
            .mechanisms([Mechanism::ScramSha256, Mechanism::Plain])
            .auth_in_clear(true)
            .client_name("client.example.org")
            .timeouts(Timeouts::uniform(Duration::from_millis(2500)));
        let built = described(&built);
        let from_vars = Settings::from_vars("X_", VARIABLES).unwrap();
        assert_eq!(described(&from_vars.endpoint().unwrap()), built);
        assert_eq!(described(&Endpoint::from_url(URL).unwrap()), built);
        assert_eq!(Settings::from_url(URL).unwrap(), from_vars);
        let by_variable = Settings::from_vars("X_", [("X_URL", URL)]).unwrap();
        assert_eq!(by_variable, from_vars);

        // The keys that exclude others.
        let built = Endpoint::new("h").user("u").password_file("/run/p");
        for settings in [
            Settings::from_url("smtp://u@h?password-file=/run/p"),
            Settings::from_vars(
                "",
                [("HOST", "h"), ("USER", "u"), ("PASSWORD_FILE", "/run/p")],
            ),
            Settings::from_vars(
                "",
                [("URL", "smtp://h?password-file=/run/p"), ("USER", "u")],
            ),
        ] {
            let endpoint = settings.unwrap().endpoint().unwrap();
            assert_eq!(described(&endpoint), described(&built));
        }
        for (scheme, built) in [
            ("smtps", Endpoint::new("h").security(Security::Implicit)),
            ("lmtp", Endpoint::lmtp("h")),
        ] {
            let vars = [("SCHEME", scheme), ("HOST", "h"), ("TLS", ""), ("PORT", "")];
            let settings = Settings::from_vars("", vars).unwrap();
            let url = Endpoint::from_url(&format!("{scheme}://h")).unwrap();
            assert_eq!(described(&settings.endpoint().unwrap()), described(&built));
            assert_eq!(described(&url), described(&built));
        }
        #[cfg(unix)]
        for settings in [
            Settings::from_vars("", [("SOCKET", "/run/lmtp")]),
            Settings::from_vars("", [("SCHEME", "lmtp+unix"), ("SOCKET", "/run/lmtp")]),
            Settings::from_url("lmtp+unix:///run/lmtp"),
        ] {
            let endpoint = settings.unwrap().endpoint().unwrap();
            assert_eq!(
                described(&endpoint),
                described(&Endpoint::lmtp_unix("/run/lmtp"))
            );
        }
    }

    #[test]
    fn unknown_variables_are_refused_with_the_nearest_key() {
        for (name, nearest) in [
            ("X_PASWORD", "Did you mean X_PASSWORD?"),
            ("X_HOSTS", "Did you mean X_HOST?"),
            ("X_TSL", "Did you mean X_TLS?"),
            ("X_PASSWORD_FLIE", "Did you mean X_PASSWORD_FILE?"),
            ("X_USERNAME", "Did you mean X_USER?"),
            ("X_HOST_PASSWORD", "Did you mean X_PASSWORD?"),
            ("X_PASS", "Did you mean X_PASSWORD?"),
            ("X_HOSTNAME", "Did you mean X_HOST?"),
            ("X_USE_TLS", "Did you mean X_TLS?"),
            ("X_PROTOCOL", "Did you mean X_SCHEME?"),
            (
                "X_FROM_ADDRESS",
                "The settings are X_URL, X_SCHEME, X_HOST,",
            ),
        ] {
            let error = Settings::from_vars("X_", [(name, "hunter2")]).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(
                text.contains(nearest) && text.contains(name),
                "{name}: {text}"
            );
            assert!(!text.contains("hunter2"), "{text}");
        }
        let url = "smtp://mail.example.org?tsl=none";
        let hint = Settings::from_url(url)
            .unwrap_err()
            .hint()
            .map(str::to_owned);
        assert_eq!(hint.as_deref(), Some("Did you mean tls?"));
        // A part of a URL is not a key of its query.
        assert!(Settings::from_url("smtp://mail.example.org?password=p").is_err());
        // Other variables, and empty ones, do not count.
        let others = [
            ("PATH", "/bin"),
            ("XPORT", "1"),
            ("x_port", "1"),
            ("X_PORT", ""),
            ("X_", ""),
        ];
        assert_eq!(
            Settings::from_vars("X_", others).unwrap(),
            Settings::default()
        );
    }

    #[test]
    fn errors_name_the_setting_and_show_no_secret() {
        const SECRET: &str = "hunter2";
        let secret_url = format!("smtp://u:{SECRET}@h?tls=maybe");
        let two = format!("smtp://u:{SECRET}@h");
        for (vars, says) in [
            (&[("X_PORT", "0")][..], "X_PORT"),
            (&[("X_PORT", "smtp")], "from 1 to 65535"),
            (
                &[("X_TIMEOUT", "soon")],
                "timeout=\"soon\" is not a number of seconds",
            ),
            (&[("X_TLS", "implicit")], "smtps://"),
            (&[("X_AUTH_IN_CLEAR", "true")], "takes yes, or is left out"),
            (&[("X_AUTH", "NTLM")], "NTLM"),
            (&[("X_SCHEME", "http")], "smtp, smtps, lmtp and lmtp+unix"),
            (&[("X_HELO", "a b")], "X_HELO"),
            (&[("X_URL", "mail.example.org")], "X_URL"),
            (&[("X_URL", &*secret_url)], "maybe"),
            (&[("X_URL", &*two), ("X_HOST", "h")], "host is given twice"),
            (
                &[("X_URL", &*two), ("X_PASSWORD", SECRET)],
                "password is given twice",
            ),
            (
                &[("X_PASSWORD", SECRET), ("X_URL", &*two)],
                "password is given twice",
            ),
            (&[], "no host"),
            (&[("X_SCHEME", "lmtp+unix")], "no socket"),
            (&[("X_SOCKET", "/s"), ("X_SCHEME", "smtp")], "has no socket"),
            (&[("X_SOCKET", "/s"), ("X_HOST", "h")], "socket and host"),
            (&[("X_SOCKET", "/s"), ("X_PORT", "24")], "socket and port"),
            (
                &[("X_HOST", "h"), ("X_SCHEME", "smtps"), ("X_TLS", "none")],
                "Leave tls out",
            ),
            (&[("X_HOST", "h"), ("X_CLIENT_KEY", "/k")], "client-cert"),
            (
                &[("X_HOST", "h"), ("X_CLIENT_PASSWORD_FILE", "/k")],
                "client-cert",
            ),
            (
                &[
                    ("X_HOST", "h"),
                    ("X_PASSWORD", SECRET),
                    ("X_PASSWORD_FILE", "/p"),
                ],
                "password and password-file",
            ),
        ] {
            let settings = Settings::from_vars("X_", vars.iter().copied());
            let error = settings
                .and_then(|settings| settings.endpoint())
                .unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains(says), "{vars:?}: {text}");
            assert!(!text.contains(SECRET), "{vars:?}: {text}");
            assert!(error.hint().is_some(), "{vars:?}: {text}");
        }
        let settings = Settings::from_url(&two).unwrap();
        let endpoint = settings.endpoint().unwrap();
        let shown = format!("{settings:?} {settings:#?} {endpoint:?}");
        assert!(
            shown.contains("\"h\"") && shown.contains("password"),
            "{shown}"
        );
        assert!(!shown.contains(SECRET), "{shown}");
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStringExt as _;
            let not_text = OsString::from_vec(b"p\xffss".to_vec());
            let error = Settings::from_vars("X_", [("X_PASSWORD", not_text)]).unwrap_err();
            assert!(
                error.message().ends_with("X_PASSWORD\" is not UTF-8"),
                "{error}"
            );
        }
    }

    /// The table in the documentation has each key.
    #[test]
    fn every_key_is_documented() {
        let documented = include_str!("settings.rs")
            .split("pub struct")
            .next()
            .unwrap();
        for key in keys::names() {
            assert!(documented.contains(&format!("`{key}`")), "{key}");
        }
    }

    #[cfg(feature = "serde")]
    mod files {
        use super::*;

        const TOML: &str = r#"
            scheme = "smtp"
            host = "mail.example.org"
            port = 2525
            user = "alice@example.org"
            password = "p@ss/w%rd"
            tls = "opportunistic"
            trust = ["/etc/ca.pem"]
            pin = "sha256//abc"
            trust-password-file = "/run/store"
            server-name = "smtp.example.org"
            min-tls = 1.3
            max-tls = "1.3"
            client-cert = "/etc/client.p12"
            client-key = "/etc/client.key"
            client-password-file = "/run/client"
            auth = ["SCRAM-SHA-256", "PLAIN"]
            auth-in-clear = true
            helo = "client.example.org"
            timeout = 2.5
        "#;

        const JSON: &str = r#"{
            "host": "mail.example.org", "port": "2525", "scheme": "smtp",
            "user": "alice@example.org", "password": "p@ss/w%rd", "tls": "opportunistic",
            "trust": "/etc/ca.pem", "pin": "sha256//abc", "trust-password-file": "/run/store",
            "server-name": "smtp.example.org", "min-tls": "1.3", "max-tls": 1.3,
            "client-cert": "/etc/client.p12", "client-key": "/etc/client.key",
            "client-password-file": "/run/client", "auth": "SCRAM-SHA-256,PLAIN",
            "auth-in-clear": "yes", "helo": "client.example.org", "timeout": 2.5,
            "password-file": null
        }"#;

        #[test]
        fn files_and_urls_result_in_equal_settings() {
            let expected = Settings::from_url(URL).unwrap();
            let json = |text: &str| serde_json::from_str::<Settings>(text).unwrap();
            assert_eq!(toml::from_str::<Settings>(TOML).unwrap(), expected);
            assert_eq!(json(JSON), expected);
            assert_eq!(json(&format!("{URL:?}")), expected);
            assert_eq!(json(&format!(r#"{{"url": {URL:?}}}"#)), expected);

            // What is written is read, without the password.
            let written = serde_json::to_string(&expected).unwrap();
            assert!(!written.contains("p@ss"), "{written}");
            let without = Settings {
                password: None,
                ..expected
            };
            assert_eq!(json(&written), without);
            let default = Settings::default();
            assert_eq!(serde_json::to_string(&default).unwrap(), "{}");
            assert_eq!(json(r#"{"auth-in-clear": false}"#), default);
        }

        #[test]
        fn files_with_mistakes_are_refused_without_showing_a_secret() {
            for (toml, says) in [
                ("pasword = 'hunter2'", "Did you mean password?"),
                ("password_file = 'hunter2'", "Did you mean password-file?"),
                (
                    "password = 12345",
                    "password takes a text. Put the value into quotes.",
                ),
                ("password = true", "password takes a text"),
                ("password = ['hunter2']", "password takes a text"),
                ("password = [12345]", "an element of password is not a text"),
                ("trust = ['a', ['b']]", "an element of trust is not a text"),
                (
                    "password = { value = 'hunter2' }",
                    "invalid type: map, expected password to be a text",
                ),
                ("port = 1979-05-27", "expected port to be a text, a number"),
                ("port = 70000", "port takes a number from 1 to 65535"),
                ("port = 25.5", "port takes a number from 1 to 65535"),
                ("port = -1", "port takes a number from 1 to 65535"),
                ("timeout = 0", "is not a number of seconds"),
                ("auth-in-clear = 'no'", "yes, or is left out"),
                ("url = 'smtp://u:hunter2@h?tls=maybe'", "maybe"),
                (
                    "url = 'smtp://u:hunter2@h'\nhost = 'h'",
                    "host is given twice",
                ),
            ] {
                let error = toml::from_str::<Settings>(toml).unwrap_err();
                let text = error.message();
                assert!(text.contains(says), "{toml}: {text}");
                assert!(
                    !text.contains("hunter2") && !text.contains("12345"),
                    "{toml}: {text}"
                );
            }
            let error = serde_json::from_str::<Settings>("3")
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("settings of a mail server, or its URL"),
                "{error}"
            );
        }
    }
}
