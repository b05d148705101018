//! [`DkimSigner`]: a domain, its key, and how to sign.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{DkimKey, DkimRecord};
use crate::text::quoted;
use crate::{Error, Result, idna};

/// The maximum length of a domain name in bytes (RFC 1035, 3.1), without a trailing dot.
const MAX_NAME: usize = 253;
/// The maximum length of a label in bytes (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// The fields that are signed by default, and to which none may be added: those that say what the
/// message is and how it is shown (RFC 6376, 5.4.1). Another one of these would be shown in place
/// of the signed one by some programs, or change how the body is read.
const OVERSIGNED: [&str; 13] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];

/// The other fields that are signed by default: further ones of RFC 6376, 5.4.1, and those by which
/// recipients unsubscribe (RFC 8058, 4) and give feedback.
const SIGNED: [&str; 18] = [
    "Content-ID",
    "Content-Description",
    "Resent-Date",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Message-ID",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
    "Feedback-ID",
    "Autocrypt",
];

/// The fields that the server may add to a message without them (RFC 6409, 8), so that their
/// absence is not signed.
const ADDED_BY_SERVERS: [&str; 3] = ["Sender", "Date", "Message-ID"];

/// How a part of the message is brought into one form before it is signed, so that some changes on
/// the way do not matter (RFC 6376, 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Canonicalization {
    /// Nothing may change, but empty lines at the end of the body are ignored.
    Simple,
    /// White space and the case of header names may change. Servers do change these.
    #[default]
    Relaxed,
}

impl Canonicalization {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Canonicalization::Simple => "simple",
            Canonicalization::Relaxed => "relaxed",
        }
    }
}

/// Signs messages for a domain. Cheap to clone: make one, and clone it for each message.
///
/// By default the signature is relaxed in header and body, covers the fields that matter, allows no
/// second one of most of them, and does not expire.
///
/// ```no_run
/// use std::time::Duration;
/// use envoi::dkim::{DkimKey, DkimSigner};
///
/// let key = DkimKey::from_file("/etc/dkim/2026.pem")?;
/// let signer = DkimSigner::new("example.org", "2026", key)?
///     .expires_after(Duration::from_secs(14 * 24 * 3600));
/// # Ok::<(), envoi::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a method returns the changed value"]
pub struct DkimSigner {
    domain: Arc<str>,
    selector: Arc<str>,
    key: DkimKey,
    header: Canonicalization,
    body: Canonicalization,
    headers: Arc<[String]>,
    oversigned: Arc<[String]>,
    identity: Option<Arc<str>>,
    expires_after: Option<Duration>,
    signed_at: Option<SystemTime>,
}

impl DkimSigner {
    /// Creates a signer for a domain, which should be that of the From header or a parent of it,
    /// for DMARC to accept it (RFC 7489, 3.1.1). The selector names the key: the public one is at
    /// `SELECTOR._domainkey.DOMAIN` in DNS.
    ///
    /// Names beyond ASCII become A-labels (RFC 8616; feature `idna`).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request): the domain or the selector is not a valid
    /// name, or the domain has one label only.
    pub fn new(domain: impl AsRef<str>, selector: impl AsRef<str>, key: DkimKey) -> Result<Self> {
        let domain = domain_name("domain", domain.as_ref())?;
        let selector = name("selector", selector.as_ref())?;
        if record_name(&selector, &domain).len() > MAX_NAME {
            return Err(invalid("selector", &selector)
                .with_hint("With the domain, its name in DNS is too long."));
        }
        let oversigned = OVERSIGNED.map(str::to_owned);
        let headers = [&oversigned[..], &SIGNED.map(str::to_owned)].concat();
        Ok(DkimSigner {
            domain: domain.into(),
            selector: selector.into(),
            key,
            header: Canonicalization::Relaxed,
            body: Canonicalization::Relaxed,
            headers: headers.into(),
            oversigned: oversigned.into(),
            identity: None,
            expires_after: None,
            signed_at: None,
        })
    }

    /// Sets the canonicalization of the header and of the body; the default is relaxed for both.
    pub fn canonicalization(mut self, header: Canonicalization, body: Canonicalization) -> Self {
        (self.header, self.body) = (header, body);
        self
    }

    /// Sets the header fields to sign, in place of the default list. All fields of a name are
    /// signed, and From always is (RFC 6376, 5.4).
    ///
    /// Do not name fields that servers add or change: Received, Return-Path,
    /// Authentication-Results.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request): something is not the name of a field.
    pub fn headers<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>) -> Result<Self> {
        self.headers = field_names(vec!["From".to_owned()], names)?;
        Ok(self)
    }

    /// Sets the header fields that are oversigned, in place of the default list: they are signed,
    /// and a signature becomes invalid if another one of them is added (RFC 6376, 8.15). This holds
    /// for a field that the message does not have, too, except for Sender, Date and Message-ID,
    /// which the first server may add (RFC 6409, 8).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request): something is not the name of a field.
    ///
    /// ```no_run
    /// # fn example(signer: envoi::dkim::DkimSigner) -> envoi::Result<()> {
    /// // Others may add any field, as mailing lists do.
    /// let signer = signer.oversigned_headers(["From"])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn oversigned_headers<N: AsRef<str>>(
        mut self,
        names: impl IntoIterator<Item = N>,
    ) -> Result<Self> {
        self.oversigned = field_names(Vec::new(), names)?;
        Ok(self)
    }

    /// Sets the user or agent for whom the domain signs (`i=`): an address, or `@` and a domain.
    /// Its domain is the signer's or one below it. By default there is none, which means the
    /// domain.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request): it is of another domain, or its local
    /// part is not ASCII.
    pub fn identity(mut self, identity: impl AsRef<str>) -> Result<Self> {
        let identity = identity.as_ref();
        let (local, domain) = identity.rsplit_once('@').unwrap_or(("", ""));
        let domain = domain_name("identity", domain).ok().filter(|domain| {
            let (own, domain) = (self.domain.to_lowercase(), domain.to_lowercase());
            domain == own || domain.ends_with(&format!(".{own}"))
        });
        let is_text = local.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        match domain.filter(|_| is_text) {
            None => Err(invalid("identity", identity).with_hint(format!(
                "Give an address of {0} or of a domain below it, or @{0}.",
                self.domain
            ))),
            Some(domain) => {
                self.identity = Some(format!("{}@{domain}", quoted_printable(local)).into());
                Ok(self)
            }
        }
    }

    /// Sets the time after which the signature is no longer valid (`x=`), from when it is made, in
    /// whole seconds and at least one.
    /// Leave enough time for the queues of servers: they try for five days. By default it does not
    /// expire.
    pub fn expires_after(mut self, time: Duration) -> Self {
        self.expires_after = Some(time);
        self
    }

    /// Sets the time of the signature (`t=`), for signatures that can be repeated; by default it is
    /// the time at which the message is prepared.
    pub fn signed_at(mut self, time: SystemTime) -> Self {
        self.signed_at = Some(time);
        self
    }

    /// The domain, in ASCII (`d=`).
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The selector, in ASCII (`s=`).
    pub fn selector(&self) -> &str {
        &self.selector
    }

    /// The key.
    pub fn key(&self) -> &DkimKey {
        &self.key
    }

    /// The canonicalization of the header and of the body.
    pub fn get_canonicalization(&self) -> (Canonicalization, Canonicalization) {
        (self.header, self.body)
    }

    /// The header fields that are signed.
    pub fn get_headers(&self) -> &[String] {
        &self.headers
    }

    /// The header fields that are oversigned.
    pub fn get_oversigned_headers(&self) -> &[String] {
        &self.oversigned
    }

    /// The user or agent for whom the domain signs, encoded as in `i=`.
    pub fn get_identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    /// The time after which the signature is no longer valid.
    pub fn get_expires_after(&self) -> Option<Duration> {
        self.expires_after
    }

    /// The time of the signature, where it is set.
    pub fn get_signed_at(&self) -> Option<SystemTime> {
        self.signed_at
    }

    /// The DNS record with the public key, which must be published before the first message is
    /// signed. `None` if the key does not tell its public key: one from PEM always does.
    ///
    /// ```
    /// # #[cfg(any(feature = "aws-lc-rs", feature = "ring"))] {
    /// use envoi::dkim::{DkimKey, DkimSigner};
    ///
    /// # let pem = "-----BEGIN PRIVATE KEY-----\n\
    /// #     MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
    /// #     -----END PRIVATE KEY-----\n";
    /// let signer = DkimSigner::new("example.org", "2026", DkimKey::from_pem(pem)?)?;
    /// assert_eq!(
    ///     signer.dns_record().unwrap().to_string(),
    ///     "2026._domainkey.example.org. IN TXT \
    ///      ( \"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\" )",
    /// );
    /// # }
    /// # Ok::<(), envoi::Error>(())
    /// ```
    pub fn dns_record(&self) -> Option<DkimRecord> {
        let key = self.key.public_key()?;
        Some(DkimRecord {
            name: record_name(&self.selector, &self.domain),
            value: format!("v=DKIM1; k={}; p={key}", self.key.algorithm().key_type()),
        })
    }

    /// The names in `h=`, of a message that has `count` fields of a name: once for each of them,
    /// and once more for one that may not be added.
    pub(super) fn signed_names<'a>(&'a self, count: &dyn Fn(&str) -> usize) -> Vec<&'a str> {
        let mut signed = Vec::with_capacity(2 * self.headers.len());
        let others = self.oversigned.iter();
        let others = others.filter(|name| !contains(&self.headers, name));
        for name in self.headers.iter().chain(others) {
            let count = count(name);
            let may_be_added = count == 0
                && ADDED_BY_SERVERS
                    .iter()
                    .any(|added| added.eq_ignore_ascii_case(name));
            let is_oversigned = contains(&self.oversigned, name) && !may_be_added;
            let times = count + usize::from(is_oversigned);
            signed.extend(std::iter::repeat_n(&**name, times));
        }
        signed
    }
}

/// Whether the name of a field is in a list.
fn contains(names: &[String], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn record_name(selector: &str, domain: &str) -> String {
    format!("{selector}._domainkey.{domain}")
}

fn invalid(what: &str, text: &str) -> Error {
    let what = match what {
        "identity" => "an identity",
        "domain" => "a domain",
        "selector" => "a selector",
        _ => "the name of a header",
    };
    Error::request(format!("{} is not {what} for DKIM", quoted(text)))
}

/// Checks a domain, and returns it in ASCII. It has at least two labels (RFC 6376, 3.5).
fn domain_name(what: &str, text: &str) -> Result<String> {
    let name = name(what, text)?;
    match name.contains('.') {
        true => Ok(name),
        false => Err(invalid(what, text)
            .with_hint("Give a whole domain, such as example.org: it comes before the selector.")),
    }
}

/// Checks a name of labels, and returns it in ASCII. Underscores are allowed, since selectors have
/// them.
fn name(what: &str, text: &str) -> Result<String> {
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty()
            && label.len() <= MAX_LABEL
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(is_allowed)
    };
    idna::checked(text)
        .filter(|name| name.len() <= MAX_NAME && name.split('.').all(is_label))
        .map(|name| name.into_owned())
        .ok_or_else(|| {
            invalid(what, text).with_hint(
                "Give it as in DNS: letters, digits and hyphens, with dots between the labels and \
                    none at the end.",
            )
        })
}

/// Adds the names of header fields to a list, each once. They are written into `h=` (RFC 6376,
/// 3.5).
fn field_names<N: AsRef<str>>(
    mut list: Vec<String>,
    names: impl IntoIterator<Item = N>,
) -> Result<Arc<[String]>> {
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b';');
    for name in names {
        let name = name.as_ref();
        if name.is_empty() || !name.bytes().all(is_allowed) {
            return Err(invalid("header", name)
                .with_hint("A name is made of letters, digits and hyphens, without the colon."));
        }
        if !contains(&list, name) {
            list.push(name.to_owned());
        }
    }
    Ok(list.into())
}

/// Encodes the local part of an identity (RFC 6376, 2.11).
fn quoted_printable(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '!'..=':' | '<' | '>'..='~' => encoded.push(c),
            c => encoded.push_str(&format!("={:02X}", u32::from(c))),
        }
    }
    encoded
}
