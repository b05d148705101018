//! Passwords and tokens: they are wiped when dropped, and never printed.

use std::fmt;

use zeroize::Zeroizing;

/// A password or token. `Debug` prints `Secret(***)`, there is no `Display`, and its memory is wiped
/// when it is dropped.
///
/// ```
/// let password = envoi::Secret::new("correct horse battery staple");
/// let credentials = envoi::Credentials::new("alice@example.org", password);
/// assert_eq!(credentials.user(), "alice@example.org");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret over.
    pub fn new(secret: impl Into<String>) -> Self {
        Secret(Zeroizing::new(secret.into()))
    }

    /// Reads a secret from a file, of which it is all but one line end at its end. The file is
    /// UTF-8, or UTF-16 with a byte order mark, as PowerShell writes it.
    ///
    /// It blocks as reading a file does. Of a FIFO or a device the end is waited for, for 5 seconds
    /// at most.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): the file cannot be read, has more than 64
    /// KiB, or is not text.
    ///
    /// ```no_run
    /// let password = envoi::Secret::from_file("/run/secrets/smtp-password")?;
    /// let endpoint = envoi::Endpoint::new("mail.example.org").user("alice@example.org").password(password);
    /// # Ok::<(), envoi::Error>(())
    /// ```
    #[cfg(feature = "client")]
    pub fn from_file(path: impl AsRef<std::path::Path>) -> crate::Result<Self> {
        Secret::read(path.as_ref(), "the password", crate::file::time_limit())
    }

    /// The same, but it waits for the end of a FIFO or a device for this time at most.
    ///
    /// # Errors
    ///
    /// As [`from_file`](Self::from_file).
    #[cfg(feature = "client")]
    pub fn from_file_within(
        path: impl AsRef<std::path::Path>,
        time: std::time::Duration,
    ) -> crate::Result<Self> {
        let now = std::time::Instant::now();
        // A century is more than any file takes.
        let century = std::time::Duration::from_secs(100 * 365 * 24 * 60 * 60);
        Secret::read(path.as_ref(), "the password", now + time.min(century))
    }

    /// Reads a secret to the end of a reader, such as standard input, as
    /// [`from_file`](Self::from_file) reads it from a file. It blocks as the reader does, without a
    /// limit of time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): the reader fails, gives more than 64 KiB,
    /// or what it gives is not text.
    ///
    /// ```
    /// assert!(envoi::Secret::from_reader(&b"secret\n"[..])? == envoi::Secret::new("secret"));
    /// # Ok::<(), envoi::Error>(())
    /// ```
    #[cfg(feature = "client")]
    pub fn from_reader(reader: impl std::io::Read) -> crate::Result<Self> {
        use crate::{Error, ErrorKind, Phase};
        let bytes = crate::file::read_all(reader, Self::LIMIT);
        bytes
            .and_then(|bytes| Secret::decode(&bytes))
            .map_err(|error| {
                Error::new(
                    ErrorKind::Config,
                    Phase::Setup,
                    format!("the password cannot be read: {error}"),
                )
                .with_hint("Give the password as text, and close the stream after it.")
                .with_source(error)
            })
    }

    /// Bytes that are read as a secret at most.
    #[cfg(feature = "client")]
    const LIMIT: u64 = 64 * 1024;

    /// `what` is the secret, for an error.
    #[cfg(feature = "client")]
    pub(crate) fn read(
        path: &std::path::Path,
        what: &str,
        until: std::time::Instant,
    ) -> crate::Result<Self> {
        use crate::{Error, ErrorKind, Phase, file};
        let cannot = |error: std::io::Error| {
            let shown = crate::text::quoted(&path.to_string_lossy());
            let hint = match error.kind() {
                std::io::ErrorKind::NotFound => "Check the path.",
                std::io::ErrorKind::PermissionDenied => {
                    "Let the user that runs this program read it."
                }
                _ => "Give a regular file that holds the password.",
            };
            Error::new(
                ErrorKind::Config,
                Phase::Setup,
                format!("the file {shown} with {what} cannot be read: {error}"),
            )
            .with_hint(hint)
            .with_source(error)
        };
        file::read(path, Self::LIMIT, until)
            .and_then(|bytes| Secret::decode(&bytes))
            .map_err(cannot)
    }

    /// The text of a file, without one line end at its end.
    #[cfg(feature = "client")]
    fn decode(bytes: &[u8]) -> std::io::Result<Self> {
        let owned;
        let text = match crate::file::utf8(bytes) {
            std::borrow::Cow::Owned(text) => {
                owned = Zeroizing::new(text);
                &owned[..]
            }
            std::borrow::Cow::Borrowed(text) => text,
        };
        let text = std::str::from_utf8(text).map_err(|_| {
            std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not text in UTF-8")
        })?;
        let line = text
            .strip_suffix('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line));
        Ok(Secret::new(line.unwrap_or(text)))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl<S: Into<String>> From<S> for Secret {
    fn from(secret: S) -> Self {
        Secret::new(secret)
    }
}

/// Who logs in, and with what. What is given decides which [mechanisms](crate::proto::Mechanism)
/// can be used.
///
/// ```
/// use envoi::Credentials;
///
/// // A password: SCRAM, CRAM-MD5, PLAIN or LOGIN.
/// let password = Credentials::new("alice@example.org", "correct horse");
/// // A token of OAuth 2: OAUTHBEARER or XOAUTH2.
/// let token = Credentials::token("alice@example.org", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg");
/// // The client's certificate, or whatever else the server knows of the connection: EXTERNAL.
/// let external = Credentials::external();
/// // An administrator who sends as somebody else.
/// let proxy = Credentials::new("admin", "secret").authorize_as("alice@example.org");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a method returns the changed value"]
pub struct Credentials {
    user: String,
    authorize_as: Option<String>,
    proof: Proof,
}

/// What proves that it is the user who logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Proof {
    Password(Secret),
    Token(Secret),
    External,
    Anonymous,
}

/// What sort of [`Proof`] it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProofKind {
    Password,
    Token,
    External,
    Anonymous,
}

impl Credentials {
    /// A user name as the server knows it (often the whole address), and the password.
    pub fn new(user: impl Into<String>, secret: impl Into<Secret>) -> Self {
        Self::with(user, Proof::Password(secret.into()))
    }

    /// A user name, and an access token of OAuth 2 (RFC 6750) as it came, without `Bearer`.
    pub fn token(user: impl Into<String>, token: impl Into<Secret>) -> Self {
        Self::with(user, Proof::Token(token.into()))
    }

    /// What the server knows already tells who it is: the client's certificate, or the user at the
    /// other end of a Unix socket (EXTERNAL; RFC 4422, A).
    pub fn external() -> Self {
        Self::with("", Proof::External)
    }

    /// Nobody in particular (RFC 4505). The trace, an address or any word, is for the server's log,
    /// and may be empty.
    pub fn anonymous(trace: impl Into<String>) -> Self {
        Self::with(trace, Proof::Anonymous)
    }

    /// Acts for another user than the one who logs in; the server decides whether that is allowed.
    /// PLAIN, SCRAM, OAUTHBEARER and EXTERNAL can say it, and only they are used then.
    pub fn authorize_as(mut self, user: impl Into<String>) -> Self {
        self.authorize_as = Some(user.into());
        self
    }

    /// The user name.
    pub fn user(&self) -> &str {
        &self.user
    }

    fn with(user: impl Into<String>, proof: Proof) -> Self {
        Credentials {
            user: user.into(),
            authorize_as: None,
            proof,
        }
    }

    /// For whom the user acts, where that is another one.
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.authorize_as.as_deref()
    }

    pub(crate) fn proof_kind(&self) -> ProofKind {
        match self.proof {
            Proof::Password(_) => ProofKind::Password,
            Proof::Token(_) => ProofKind::Token,
            Proof::External => ProofKind::External,
            Proof::Anonymous => ProofKind::Anonymous,
        }
    }

    /// The password or token; empty where there is none.
    pub(crate) fn secret(&self) -> &str {
        match &self.proof {
            Proof::Password(secret) | Proof::Token(secret) => secret.expose(),
            Proof::External | Proof::Anonymous => "",
        }
    }
}

#[cfg(all(test, feature = "client"))]
mod tests {
    use super::*;

    #[test]
    fn a_secret_from_a_reader_equals_one_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let utf16 = |text: &[u16]| {
            [0xFEFF]
                .iter()
                .chain(text)
                .flat_map(|unit| unit.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        for (bytes, secret) in [
            (b"secret".to_vec(), Some("secret")),
            (b"secret\r\n".to_vec(), Some("secret")),
            (b"two\n\n".to_vec(), Some("two\n")),
            ("\u{FEFF}päss\n".into(), Some("päss")),
            (
                utf16(&"päss\r\n".encode_utf16().collect::<Vec<_>>()),
                Some("päss"),
            ),
            (b"".to_vec(), Some("")),
            // Half a character would be another password.
            (utf16(&[0x70, 0xD83D]), None),
            (b"p\xE4ss".to_vec(), None),
            (vec![b'x'; 65_537], None),
        ] {
            std::fs::write(&path, &bytes).unwrap();
            let second = std::time::Duration::from_secs(1);
            for read in [
                Secret::from_reader(&*bytes),
                Secret::from_file(&path),
                Secret::from_file_within(&path, second),
            ] {
                match (read, secret) {
                    (Ok(read), Some(secret)) => assert_eq!(read.expose(), secret),
                    (Err(error), None) => assert_eq!(error.kind(), crate::ErrorKind::Config),
                    (read, _) => panic!("{bytes:?} {:?}", read.err()),
                }
            }
        }
    }
}
