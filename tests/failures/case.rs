//! A case: a server that fails, a client that meets it, and what must come of it.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use envoi::mail_builder::MessageBuilder;
use envoi::tls::Trust;
use envoi::{Client, Endpoint, Error, ErrorKind, Message, Phase, Timeouts};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::servers::{Server, start};

/// No case takes longer, unless the client hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits no longer than a case of silence should take. Only where there is no handshake, which may
/// have to wait for a processor.
pub fn hurried(endpoint: Endpoint, _: &World) -> Endpoint {
    endpoint.timeouts(Timeouts::uniform(Duration::from_millis(700)))
}

/// One failure: how it comes about, and what kind of error it must be. The words are in the
/// snapshot.
pub struct Case {
    name: &'static str,
    server: Server,
    /// `{port}` stands for the server's.
    url: &'static str,
    expected: (ErrorKind, Phase, u8),
    endpoint: fn(Endpoint, &World) -> Endpoint,
    message: fn() -> Message<'static>,
}

/// The server fails the client that this URL describes; the error is of this kind, in this phase,
/// and gives this exit code (sysexits.h, as the `send` example exits).
pub fn case(
    name: &'static str,
    server: Server,
    url: &'static str,
    kind: ErrorKind,
    phase: Phase,
    exit: u8,
) -> Case {
    Case {
        name,
        server,
        url,
        expected: (kind, phase, exit),
        endpoint: |endpoint, _| endpoint,
        message: hello,
    }
}

impl Case {
    /// What the URL cannot say.
    pub fn with(mut self, endpoint: fn(Endpoint, &World) -> Endpoint) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// Another message than a small one from me to you.
    pub fn message(mut self, message: fn() -> Message<'static>) -> Self {
        self.message = message;
        self
    }

    /// What is to be pinned, and what is wrong with it in any case.
    async fn play(&self, world: &World) -> (String, Vec<String>) {
        let running = start(&self.server, world).await;
        let url = self.url.replace("{port}", &running.port.to_string());
        let mut endpoint =
            Endpoint::from_url(&url).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        endpoint = endpoint
            .timeouts(Timeouts::uniform(Duration::from_secs(20)))
            .trust(Trust::empty().pem(&world.root.pem));
        let client = Client::new((self.endpoint)(endpoint, world));
        let result = timeout(PATIENCE, client.send((self.message)())).await;
        let result = result.unwrap_or_else(|_| panic!("{}: the client hangs", self.name));
        let error = result
            .err()
            .unwrap_or_else(|| panic!("{}: it was sent", self.name));

        (self.describe(&error, running.port), self.faults(&error))
    }

    fn faults(&self, error: &Error) -> Vec<String> {
        let (text, hint) = (error.to_string(), error.hint().unwrap_or_default());
        let found = (error.kind(), error.phase(), error.exit_code());
        let words = error.reply().map(ToString::to_string).unwrap_or_default();
        let faults = [
            (
                found != self.expected,
                format!("{found:?} in place of {:?}", self.expected),
            ),
            (
                hint.is_empty() || !text.ends_with(hint),
                "no advice at the end".into(),
            ),
            (
                !hint.ends_with(['.', ')']),
                "the advice is no whole sentence".into(),
            ),
            (
                text.contains(".. ") || text.contains('\n'),
                "stops or lines too many".into(),
            ),
            (!text.contains(&words), "not with the server's words".into()),
        ];
        let faults = faults.into_iter().filter(|(is_one, _)| *is_one);
        faults
            .map(|(_, what)| format!("{}: {what}: {text}\n", self.name))
            .collect()
    }

    /// What is pinned. The text is that of `Display`, with a new line for the advice at its end.
    fn describe(&self, error: &Error, port: u16) -> String {
        let (text, hint) = (error.to_string(), error.hint().unwrap_or_default());
        let what = text.strip_suffix(hint).unwrap_or(&text).trim_end();
        let lasting = match (error.outcome_unknown(), error.is_transient()) {
            (true, _) => "outcome unknown",
            (_, true) => "transient",
            (_, false) => "permanent",
        };
        let (kind, phase) = (error.kind(), error.phase());
        let mut section = String::new();
        writeln!(section, "== {}", self.name).unwrap();
        writeln!(section, "   {}", self.url).unwrap();
        writeln!(
            section,
            "   {kind}, in phase {phase}, {lasting}, exit code {}\n",
            error.exit_code()
        )
        .unwrap();
        writeln!(section, "{}", masked(what, port)).unwrap();
        writeln!(section, "-> {}\n", masked(hint, port)).unwrap();
        section
    }
}

/// Plays all cases of a table, and compares what they say with the snapshot.
pub async fn play(table: &str, cases: Vec<Case>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/failures/snapshots")
        .join(format!("{table}.txt"));
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let pinned: Vec<&str> = text
        .split_inclusive("\n\n== ")
        .map(|section| section.trim_end_matches("== "))
        .collect();
    let pinned = |name: &str| {
        pinned
            .iter()
            .find(|section| section.trim_start_matches("== ").lines().next() == Some(name))
    };

    let world = World::new();
    let (mut told, mut faults, mut changes) = (String::new(), String::new(), String::new());
    for case in &cases {
        let before =
            pinned(case.name).map(|section| format!("== {}", section.trim_start_matches("== ")));
        let (section, more) = case.play(&world).await;
        faults.extend(more);
        if before.as_ref() != Some(&section) {
            changes += &format!(
                "It was pinned:\n{}\nIt is now:\n{section}",
                before.unwrap_or_default()
            );
        }
        told += &section;
    }
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &told).unwrap();
    } else {
        assert!(
            changes.is_empty(),
            "{changes}If that is meant: UPDATE_SNAPSHOTS=1"
        );
        assert!(
            told == text,
            "{} has cases that the test has not: UPDATE_SNAPSHOTS=1",
            path.display()
        );
    }
    assert!(faults.is_empty(), "{faults}");
}

/// What differs from run to run: in a pattern, 9 stands for a digit, F for a hexadecimal one, + for
/// one of Base64.
fn masked(text: &str, port: u16) -> String {
    let fingerprint = ["FF"; 32].join(":");
    let text = mask(text, "9999-99-99T99:99:99Z", "{date}");
    let text = mask(&text, &format!("sha256//{}=", "+".repeat(43)), "{key}");
    let text = mask(&text, &fingerprint, "{fingerprint}");
    let text = text
        .replace(&format!("port {port}"), "port {port}")
        .replace(&format!(":{port}"), ":{port}")
        .replace(&format!(":{port}"), ":{port}");
    // How the resolver puts it, if there is one at all.
    match (text.find("(failed to lookup"), text.find(')')) {
        (Some(from), Some(to)) => text[..from].to_owned() + "({reason})" + &text[to + 1..],
        _ => text,
    }
}

fn mask(text: &str, pattern: &str, name: &str) -> String {
    let fits = |(at, wanted): (u8, u8)| match wanted {
        b'9' => at.is_ascii_digit(),
        b'F' => at.is_ascii_hexdigit(),
        b'+' => at.is_ascii_alphanumeric() || at == b'+' || at == b'/',
        _ => at == wanted,
    };
    let mut masked = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if rest.len() >= pattern.len() && rest.bytes().zip(pattern.bytes()).all(fits) {
            masked += name;
            rest = &rest[pattern.len()..];
        } else {
            masked.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    masked
}

pub fn hello() -> Message<'static> {
    let message = MessageBuilder::new()
        .from("me@example.org")
        .to("you@example.com");
    message.subject("Hello").text_body("Hello.\n").into()
}

/// The authorities of all cases: this root is trusted, the other one is not.
pub struct World {
    pub root: Party,
    pub middle: Party,
    pub other: Party,
    pub folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let root = Party::authority("Example Root", None);
        let middle = Party::authority("Example Intermediate", Some(&root));
        let other = Party::authority("Unknown Root", None);
        World {
            root,
            middle,
            other,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A server's certificate as it should be.
    pub fn good(&self) -> Party {
        Party::new(leaf(&["localhost", "127.0.0.1", "::1"]), Some(&self.root))
    }
}

/// An authority, or a server: a certificate, its key, and how it issues others.
pub struct Party {
    pub der: CertificateDer<'static>,
    pub pem: String,
    pub key: KeyPair,
    pub issuer: Issuer<'static, KeyPair>,
}

impl Party {
    pub fn new(params: CertificateParams, above: Option<&Party>) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = match above {
            Some(above) => params.signed_by(&key, &above.issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        let copy = KeyPair::try_from(key.serialize_der()).unwrap();
        Party {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            key: copy,
            issuer: Issuer::new(params, key),
        }
    }

    pub fn authority(name: &str, above: Option<&Party>) -> Self {
        Party::new(authority(name), above)
    }
}

pub fn authority(name: &str) -> CertificateParams {
    let mut params = leaf(&[]);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// The first name is the common name, too.
pub fn leaf(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>(),
    )
    .unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(
        DnType::CommonName,
        names.first().copied().unwrap_or("localhost"),
    );
    params
}
