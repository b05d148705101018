//! The examples of the RFCs, the field, and keys. The properties of canonical forms are in
//! `tests/client/dkim.rs`.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_rustls::rustls::pki_types::{SubjectPublicKeyInfoDer, alg_id};
use tokio_rustls::rustls::sign::{Signer, SigningKey, public_key_to_spki};
use tokio_rustls::rustls::{self, SignatureAlgorithm, SignatureScheme};

use super::body::BodyHash;
use super::header::Fields;
use super::*;
use Canonicalization::{Relaxed, Simple};

/// A key that "signs" by returning what it is given, and remembers it.
#[derive(Debug)]
struct Recorder {
    algorithm: SignatureAlgorithm,
    scheme: SignatureScheme,
    public: Option<Vec<u8>>,
    signed: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Recorder {
    fn rsa() -> Self {
        Recorder {
            algorithm: SignatureAlgorithm::RSA,
            scheme: SignatureScheme::RSA_PKCS1_SHA256,
            public: None,
            signed: Arc::default(),
        }
    }
}

impl SigningKey for Recorder {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let (signed, scheme) = (self.signed.clone(), self.scheme);
        (offered == [scheme]).then(|| Box::new(Recording { signed, scheme }) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        let public = self.public.as_deref()?;
        Some(public_key_to_spki(&alg_id::RSA_ENCRYPTION, public))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }
}

#[derive(Debug)]
struct Recording {
    signed: Arc<Mutex<Vec<Vec<u8>>>>,
    scheme: SignatureScheme,
}

impl Signer for Recording {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.signed.lock().unwrap().push(message.to_vec());
        Ok(message.to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

fn signer() -> DkimSigner {
    let key = DkimKey::from_signing_key(Arc::new(Recorder::rsa())).unwrap();
    DkimSigner::new("example.org", "2026", key)
        .unwrap()
        .signed_at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_528_637_909))
}

/// The value of a tag, without white space.
fn tag(field: &str, name: &str) -> String {
    let (_, tags) = field.split_once(':').unwrap();
    let compact: String = tags.chars().filter(|c| !c.is_whitespace()).collect();
    let value = compact.split(';').find_map(|tag| tag.strip_prefix(name));
    value.unwrap_or_default().to_owned()
}

/// The bytes that were signed for the last signature in these fields.
fn signed_bytes(fields: &str) -> String {
    let bytes = STANDARD.decode(tag(fields, "b=")).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn sign(signer: DkimSigner, message: &str) -> String {
    let mut signing = MessageSigner::new([signer]);
    signing.update(message);
    signing.finish().unwrap()
}

fn body_hash(canonicalization: Canonicalization, pieces: &[&[u8]]) -> [u8; 32] {
    let mut hash = BodyHash::new(canonicalization);
    pieces.iter().for_each(|piece| hash.update(piece));
    hash.finish()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

/// RFC 6376, 3.4.5.
#[test]
fn the_examples_of_canonicalization_are_met() {
    let body = b" C \r\nD \t E\r\n\r\n\r\n";
    assert_eq!(body_hash(Relaxed, &[body]), sha256(b" C\r\nD E\r\n"));
    assert_eq!(body_hash(Simple, &[body]), sha256(b" C \r\nD \t E\r\n"));
    let fields = Fields::read(b"A: X\r\nB : Y\t\r\n\tZ  \r\n\r\n");
    let signature = "DKIM-Signature:  a=b; \r\n\tb=";
    assert_eq!(
        fields.hash_input(&["A", "b"], Relaxed, signature),
        b"a:X\r\nb:Y Z\r\ndkim-signature:a=b; b="
    );
    assert_eq!(
        fields.hash_input(&["A", "b"], Simple, signature),
        b"A: X\r\nB : Y\t\r\n\tZ  \r\nDKIM-Signature:  a=b; \r\n\tb="
    );
}

/// RFC 6376, 3.4.3 and 3.4.4.
#[test]
fn an_empty_body_has_the_hashes_of_the_rfc() {
    let hashes = [
        (Simple, "frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY="),
        (Relaxed, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
    ];
    for (canonicalization, expected) in hashes {
        for body in [&b""[..], b"\r\n", b"\r\n\r\n\r\n"] {
            let hash = body_hash(canonicalization, &[body]);
            assert_eq!(STANDARD.encode(hash), expected, "{body:?}");
        }
    }
}

/// The message of RFC 8463, A.3, which is that of RFC 6376, A.
const DINNER: &str = "From: Joe SixPack <joe@football.example.com>\r\n\
    To: Suzie Q <suzie@shopping.example.net>\r\n\
    Subject: Is dinner ready?\r\n\
    Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
    Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\
    \r\n\
    Hi.\r\n\
    \r\n\
    We lost the game.  Are you hungry yet?\r\n\
    \r\n\
    Joe.\r\n";

const DINNER_NAMES: [&str; 8] = [
    "from",
    "to",
    "subject",
    "date",
    "message-id",
    "from",
    "subject",
    "date",
];

const DINNER_BODY: &str = "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=";

fn dinner_input(signature: &str) -> Vec<u8> {
    let (section, body) = DINNER.split_once("\r\n\r\n").unwrap();
    for canonicalization in [Simple, Relaxed] {
        let hash = body_hash(canonicalization, &[body.as_bytes()]);
        let expected = match canonicalization {
            Relaxed => "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=",
            Simple => &STANDARD.encode(sha256(body.as_bytes())),
        };
        assert_eq!(STANDARD.encode(hash), expected);
    }
    let section = format!("{section}\r\n");
    Fields::read(section.as_bytes()).hash_input(&DINNER_NAMES, Relaxed, signature)
}

/// RFC 8463, A.3: the signature is deterministic.
/// The private key of RFC 8463, A.1, which is that of RFC 8032, 7.1, in PKCS#8.
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
const ED25519: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
    -----END PRIVATE KEY-----\n";

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
#[test]
fn the_example_for_ed25519_is_met() {
    let input = dinner_input(
        "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n \
         d=football.example.com; i=@football.example.com;\r\n \
         q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n \
         subject : date : message-id : from : subject : date;\r\n \
         bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=",
    );
    let key = DkimKey::from_pem(ED25519).unwrap();
    let signature = key.sign(&input, &sha256(&input)).unwrap();
    assert_eq!(
        STANDARD.encode(signature),
        "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\
         Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw=="
    );
    let signer = DkimSigner::new("football.example.com", "brisbane", key).unwrap();
    let record = signer.dns_record().unwrap();
    assert_eq!(record.name, "brisbane._domainkey.football.example.com");
    assert_eq!(
        record.value,
        "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    );
}

/// RFC 8463, A.3. Its RSA key has 1024 bits, with which no provider of rustls signs: the published
/// signature is verified over what would be signed, and as it is deterministic (RFC 8017, 8.2),
/// that is the same test.
#[test]
fn the_example_for_rsa_is_met() {
    let public = STANDARD
        .decode(
            "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2\
             jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvH\
             O9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
        )
        .unwrap();
    let signature = STANDARD
        .decode(
            "F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\
             DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\
             dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=",
        )
        .unwrap();
    let input = dinner_input(
        "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n \
         d=football.example.com; i=@football.example.com;\r\n \
         q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n \
         date : message-id : from : subject : date;\r\n \
         bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=",
    );
    // The bare key follows the algorithm, in 22 bytes.
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(
        &aws_lc_rs::signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        &public[22..],
    );
    key.verify(&input, &signature).unwrap();
}

#[test]
fn a_field_has_all_tags_and_short_lines() {
    let signer = signer()
        .identity("alice;b=c d@mail.example.org")
        .unwrap()
        .expires_after(Duration::from_secs(91));
    let field = sign(signer, DINNER);
    assert!(field.ends_with("\r\n") && field.matches("DKIM-Signature:").count() == 1);
    assert!(field.lines().all(|line| line.len() <= 76), "{field}");
    for (name, value) in [
        ("v=", "1"),
        ("a=", "rsa-sha256"),
        ("c=", "relaxed/relaxed"),
        ("d=", "example.org"),
        ("s=", "2026"),
        ("i=", "alice=3Bb=3Dc=20d@mail.example.org"),
        ("t=", "1528637909"),
        ("x=", "1528638000"),
        ("bh=", DINNER_BODY),
        ("l=", ""),
        (
            "h=",
            "From:From:Reply-To:To:To:Cc:Subject:Subject:Date:Date:Message-ID:Message-ID:\
             In-Reply-To:References:MIME-Version:Content-Type:Content-Transfer-Encoding",
        ),
    ] {
        assert_eq!(tag(&field, name), value, "{name} of {field}");
    }
    let (before, _) = field.rsplit_once("b=").unwrap();
    let own = before.split_whitespace().collect::<Vec<_>>().join(" ");
    let own = own.replacen("DKIM-Signature: ", "dkim-signature:", 1);
    let input = signed_bytes(&field);
    assert!(input.ends_with(&format!("\r\n{own} b=")), "{input}");
}

/// RFC 6376, 5.4.2: the last field of a name is signed first.
#[test]
fn all_fields_of_a_name_are_signed_from_the_last_one() {
    let signer = signer()
        .headers(["Resent-To", "X-Absent", "from"])
        .unwrap()
        .oversigned_headers(["To", "Sender"])
        .unwrap()
        .canonicalization(Simple, Relaxed);
    let message = "Resent-To: a@x\r\nresent-to :  b@x\r\n c@x\r\nOther: x\r\nFROM: d@x\r\n\r\n";
    let field = sign(signer, message);
    assert_eq!(tag(&field, "h="), "From:Resent-To:Resent-To:To");
    let input = signed_bytes(&field);
    let expected =
        "FROM: d@x\r\nresent-to :  b@x\r\n c@x\r\nResent-To: a@x\r\nDKIM-Signature: v=1;";
    assert!(input.starts_with(expected), "{input}");
}

#[test]
fn each_signer_signs_the_message_alone() {
    let simple = signer().canonicalization(Simple, Simple);
    let mut signing = MessageSigner::new([signer(), simple.clone(), signer()]);
    signing.update(DINNER);
    let fields = signing.finish().unwrap();
    let one = sign(signer(), DINNER);
    assert_eq!(fields, format!("{one}{}{one}", sign(simple, DINNER)));
}

#[test]
fn a_message_without_from_is_refused() {
    for message in [
        "",
        "\r\n",
        "\r\nFrom: a@x\r\n",
        "To: a@x\r\n\r\nFrom: a@x\r\n",
    ] {
        let mut signing = MessageSigner::new([signer()]);
        signing.update(message);
        let error = signing.finish().unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Request);
        assert!(error.to_string().contains("From"), "{error}");
    }
}

#[track_caller]
fn assert_refused<T: Debug>(result: crate::Result<T>, text: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Request);
    assert!(
        error.hint().is_some() && error.to_string().contains(text),
        "{error}"
    );
}

#[test]
fn names_are_checked() {
    let key = || DkimKey::from_signing_key(Arc::new(Recorder::rsa())).unwrap();
    let new = |domain: &str, selector: &str| DkimSigner::new(domain, selector, key());
    for domain in [
        "",
        "org",
        "example..org",
        "example.org.",
        "a b.org",
        "-a.org",
        "a;b.org",
    ] {
        assert_refused(new(domain, "s"), "is not a domain for DKIM");
    }
    for selector in ["", ".", "a.", "a b", "a;b", &"a".repeat(64), "a\r\nb"] {
        assert_refused(new("example.org", selector), "is not a selector for DKIM");
    }
    let long = [
        "a".repeat(60),
        "b".repeat(60),
        "c".repeat(60),
        "d".repeat(60),
    ]
    .join(".");
    assert_refused(new(&long, "s"), "is not a selector for DKIM");
    assert!(new("mail.example.org", "s1_2026.mail").is_ok());
    #[cfg(feature = "idna")]
    {
        let signer = new("b\u{fc}cher.example", "s\u{fc}d").unwrap();
        assert_eq!(signer.domain(), "xn--bcher-kva.example");
        assert_eq!(signer.selector(), "xn--sd-xka");
        assert_eq!(
            signer
                .identity("@b\u{fc}cher.example")
                .unwrap()
                .get_identity(),
            Some("@xn--bcher-kva.example")
        );
    }
    for identity in [
        "",
        "alice",
        "alice@example.com",
        "alice@notexample.org",
        "\u{e4}@example.org",
        "a\r\n@example.org",
    ] {
        assert_refused(signer().identity(identity), "is not an identity for DKIM");
    }
    let identity = signer().identity("alice@Mail.EXAMPLE.org").unwrap();
    assert_eq!(identity.get_identity(), Some("alice@Mail.EXAMPLE.org"));
    for name in ["", "a b", "a:", "a;b", "\u{e4}", "a\r\n"] {
        assert_refused(signer().headers([name]), "is not the name of a header");
        assert_refused(
            signer().oversigned_headers([name]),
            "is not the name of a header",
        );
    }
}

#[test]
fn keys_that_do_not_fit_dkim_are_refused() {
    let key = |change: fn(&mut Recorder)| {
        let mut key = Recorder::rsa();
        change(&mut key);
        DkimKey::from_signing_key(Arc::new(key))
    };
    let error = key(|key| key.algorithm = SignatureAlgorithm::ECDSA).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Config);
    let error = key(|key| key.scheme = SignatureScheme::RSA_PSS_SHA256).unwrap_err();
    assert!(error.to_string().contains("neither for RSA"), "{error}");
    // RSAPublicKey: a modulus, and the exponent 65537.
    fn public(bytes: usize) -> Option<Vec<u8>> {
        fn element(kind: u8, content: &[u8]) -> Vec<u8> {
            let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
            let length = match content.len() {
                0..0x80 => vec![low],
                0x80..0x100 => vec![0x81, low],
                _ => vec![0x82, high, low],
            };
            [&[kind][..], &length, content].concat()
        }
        let modulus = [vec![0], vec![0xff; bytes]].concat();
        let numbers = [element(0x02, &modulus), element(0x02, &[1, 0, 1])].concat();
        Some(element(0x30, &numbers))
    }
    let error = key(|key| key.public = public(64)).unwrap_err();
    assert!(error.to_string().contains("RSA with 512 bits"), "{error}");
    let error = key(|key| key.public = public(1024)).unwrap_err();
    assert!(error.to_string().contains("RSA with 8192 bits"), "{error}");
    let key = key(|key| key.public = public(512)).unwrap();
    let signer = DkimSigner::new("example.org", "2026", key).unwrap();
    let record = signer.dns_record().unwrap();
    assert!(record.value.starts_with("v=DKIM1; k=rsa; p=MIICI"));
    let line = record.to_string();
    let strings: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
    assert_eq!(strings.concat(), record.value);
    assert!(
        strings.len() > 1 && strings.iter().all(|string| string.len() <= 255),
        "{line}"
    );
}

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod keys {
    use super::*;

    fn pem(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dkim/tests/keys");
        std::fs::read(format!("{folder}/{name}.pem")).unwrap()
    }

    fn record(key: DkimKey) -> String {
        let signer = DkimSigner::new("example.org", "2026", key).unwrap();
        signer.dns_record().unwrap().value
    }

    #[test]
    fn keys_for_rsa_and_ed25519_are_read() {
        for (name, algorithm) in [
            ("rsa-2048", DkimAlgorithm::RsaSha256),
            ("rsa-2048-pkcs1", DkimAlgorithm::RsaSha256),
            ("rsa-3072", DkimAlgorithm::RsaSha256),
            ("rsa-4096", DkimAlgorithm::RsaSha256),
            ("ed25519", DkimAlgorithm::Ed25519Sha256),
        ] {
            let key = DkimKey::from_pem(pem(name)).unwrap();
            assert_eq!(key.algorithm(), algorithm, "{name}");
            assert!(!key.sign(b"input", &[0; 32]).unwrap().is_empty());
            let shown = format!("{key:?}");
            assert_eq!(shown, format!("DkimKey {{ algorithm: {algorithm:?}, .. }}"));
        }
    }

    #[test]
    fn the_record_has_the_public_key_as_openssl_writes_it() {
        let public = String::from_utf8(pem("rsa-2048-public")).unwrap();
        let lines = public.lines().filter(|line| !line.starts_with("-----"));
        let expected = format!("v=DKIM1; k=rsa; p={}", lines.collect::<String>());
        for name in ["rsa-2048", "rsa-2048-pkcs1"] {
            assert_eq!(record(DkimKey::from_pem(pem(name)).unwrap()), expected);
        }
    }

    /// As editors and shells write it: other line ends, a byte order mark, UTF-16, text around it.
    #[test]
    fn a_key_is_found_in_any_text() {
        let text = String::from_utf8(pem("ed25519")).unwrap();
        let expected = record(DkimKey::from_pem(&text).unwrap());
        let utf16: Vec<u8> = format!("\u{feff}{text}")
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        for form in [
            text.replace('\n', "\r\n").into_bytes(),
            format!("\u{feff}{text}").into_bytes(),
            format!("The key of 2026:\n\n{text}\n").into_bytes(),
            [pem("certificate"), pem("ed25519")].concat(),
            utf16,
        ] {
            assert_eq!(record(DkimKey::from_pem(form).unwrap()), expected);
        }
    }

    #[test]
    fn an_unusable_key_is_explained() {
        let cut = |name: &str| {
            let pem = pem(name);
            pem[..pem.len() - 60].to_vec()
        };
        let changed = String::from_utf8(pem("rsa-2048")).unwrap();
        let changed = changed.replacen("MII", "MIJ", 1).into_bytes();
        for (pem, says) in [
            (
                pem("rsa-1024"),
                "holds an RSA key of 1024 bits; 2048 are needed",
            ),
            (pem("rsa-8192"), "8192 bits"),
            (pem("rsa-2048-public"), "holds a public key"),
            (pem("certificate"), "holds a certificate"),
            (pem("encrypted"), "holds a key that is encrypted"),
            (pem("encrypted-pkcs1"), "holds a key that is encrypted"),
            (pem("ec"), "neither for RSA with SHA-256 nor for Ed25519"),
            (pem("ec-sec1"), "holds an ECDSA key"),
            (pem("x25519"), "X25519"),
            (pem("openssh"), "in the format of OpenSSH"),
            (cut("ed25519"), "cut off or damaged"),
            (changed, "cut off or damaged"),
            (b"".to_vec(), "holds no private key in PEM"),
            (b"hello".to_vec(), "holds no private key in PEM"),
        ] {
            let error = DkimKey::from_pem(&pem).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Config);
            let text = error.to_string();
            assert!(text.contains(says), "{text} should say {says}");
            assert!(error.hint().is_some(), "{text}");
            // No piece of the file is in the error.
            let shown = format!("{text} {error:?}");
            let file = String::from_utf8_lossy(&pem);
            let lines = file
                .lines()
                .filter(|line| line.len() > 20 && !line.contains(' '));
            assert!(lines.clone().all(|line| !shown.contains(line)), "{shown}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("missing.pem"), folder.path().to_owned()] {
            let error = DkimKey::from_file(&path).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Config);
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(error.to_string().contains(name), "{error}");
        }
        let path = folder.path().join("key.pem");
        std::fs::write(&path, pem("ed25519")).unwrap();
        assert!(DkimKey::from_file(path).is_ok());
    }
}
