//! The sources of trust anchors, and their summary.

use super::*;
use std::fs;

pub(super) fn config_error(trust: Trust) -> Error {
    let error = trust.load().unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Config, Phase::Setup)
    );
    assert!(error.hint().is_some(), "{error}");
    error
}

#[test]
fn trust_files_are_recognised_by_their_content() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Party::authority("A", None), Party::authority("B", None));
    let utf16: Vec<u8> = [0xFEFF]
        .into_iter()
        .chain(a.pem.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    for (name, content, subjects) in [
        ("pem", a.pem.clone().into_bytes(), &["CN=A"][..]),
        (
            "two.der",
            format!("{}junk\n{}", a.pem, b.pem).into_bytes(),
            &["CN=A", "CN=B"],
        ),
        ("twice", format!("{0}{0}", a.pem).into_bytes(), &["CN=A"]),
        ("der.pem", a.der.to_vec(), &["CN=A"]),
        ("crlf", a.pem.replace('\n', "\r\n").into_bytes(), &["CN=A"]),
        (
            "byte-order-mark",
            format!("\u{FEFF}{}", a.pem).into_bytes(),
            &["CN=A"],
        ),
        ("utf-16", utf16, &["CN=A"]),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, &content).unwrap();
        for trust in [
            Trust::empty().file(&path),
            Trust::empty().path(&path),
            Trust::empty().pem(&content),
        ] {
            let summary = trust
                .load()
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let found: Vec<_> = summary
                .anchors
                .iter()
                .map(|anchor| anchor.certificate.subject.as_str())
                .collect();
            assert_eq!(found, subjects, "{name}");
            assert!(summary.warnings.is_empty(), "{summary}");
        }
    }
}

#[test]
fn files_without_a_certificate_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let a = Party::authority("A", None);
    let key = pem("PRIVATE KEY", &a.key);
    let cut = a.pem.split_at(a.pem.len() / 2).0;
    for (content, text) in [
        (&b""[..], "is empty"),
        (b" \r\n", "is empty"),
        (b"hello", "holds no certificate"),
        (key.as_bytes(), "holds a private key, not a certificate"),
        (&a.key, "holds a private key, not a certificate"),
        (
            pem("ENCRYPTED PRIVATE KEY", &a.key).as_bytes(),
            "holds a private key, not a certificate",
        ),
        (
            cut.as_bytes(),
            "has a PEM section that is cut off or damaged",
        ),
        (pem("CERTIFICATE", b"nonsense").as_bytes(), "can be read"),
        (
            &a.der[..a.der.len() - 1],
            "is DER, but not a certificate that can be read",
        ),
        (
            pem("PUBLIC KEY", &a.key).as_bytes(),
            "is PEM, but holds no certificate",
        ),
        (pem("PKCS7", &a.key).as_bytes(), "is a PKCS#7 bundle"),
        (
            pem("TRUSTED CERTIFICATE", &a.der).as_bytes(),
            "that openssl alone reads",
        ),
        (b"\xFE\xED\xFE\xED\0\0\0\x02", "is a Java key store (JKS)"),
        (b"\xA1\xF8\x4E\x36", "auto-login wallet of Oracle"),
        (
            b"\x30\x82\x01\x00\x02\x01\x03\x30",
            "is a key store (PKCS#12)",
        ),
    ] {
        let path = folder.path().join("file.pem");
        fs::write(&path, content).unwrap();
        let error = config_error(Trust::empty().file(&path));
        assert_says(&error, &[text, &path.display().to_string()]);
    }
    assert_says(
        &config_error(Trust::empty().file(folder.path().join("none"))),
        &["/none: No such file"],
    );
    assert_says(
        &config_error(Trust::empty().path(folder.path().join("none"))),
        &["/none: No such file", "Check the path"],
    );
    assert_says(
        &config_error(Trust::empty().file(folder.path())),
        &["use Trust::folder or Trust::path"],
    );
    assert_says(
        &config_error(Trust::empty()),
        &["no trusted certificate was found"],
    );
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
}

#[test]
fn folders_skip_files_without_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let a = Party::authority("A", None);
    assert_says(
        &config_error(Trust::empty().folder(folder.path())),
        &["holds no certificate: it is empty"],
    );
    fs::write(folder.path().join("README"), "no certificate").unwrap();
    fs::create_dir(folder.path().join("more")).unwrap();
    assert_says(
        &config_error(Trust::empty().path(folder.path())),
        &["holds no certificate; README holds no certificate; more is not a file"],
    );
    fs::write(folder.path().join("a.pem"), &a.pem).unwrap();
    fs::write(folder.path().join("same.pem"), &a.pem).unwrap();
    let summary = Trust::empty().path(folder.path()).load().unwrap();
    assert_eq!(summary.anchors.len(), 1);
    assert!(summary.anchors[0].origin.ends_with("a.pem"));
    assert_eq!(summary.warnings.len(), 2, "{summary}");
    assert!(
        summary.warnings[0].ends_with("README was skipped: it holds no certificate"),
        "{summary}"
    );
    assert!(
        summary
            .to_string()
            .starts_with("1 trusted certificate\n  CN=A (expires 4096-01-01T00:00:00Z; "),
        "{summary}"
    );
}

/// Only a little is read from a large folder that was given by mistake.
#[test]
fn folders_are_read_up_to_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..17 {
        let file = fs::File::create(folder.path().join(format!("{number}.pem"))).unwrap();
        file.set_len(16 * 1024 * 1024).unwrap();
    }
    let error = config_error(Trust::empty().folder(folder.path()));
    assert_says(
        &error,
        &[
            "has more than 10000 files, or 256 MiB, which is too much for a trust store",
            "into a folder of their own",
        ],
    );
    // A file that is too large by itself is skipped unread.
    let a = Party::authority("A", None);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.pem"), &a.pem).unwrap();
    let large = folder.path().join("film.mp4");
    fs::File::create(&large)
        .unwrap()
        .set_len(200 * 1024 * 1024)
        .unwrap();
    let summary = Trust::empty().folder(folder.path()).load().unwrap();
    assert_eq!(summary.anchors.len(), 1);
    assert!(
        summary.warnings[0]
            .ends_with("film.mp4 was skipped: it cannot be read: it is larger than 16 MiB"),
        "{summary}"
    );
    assert_says(
        &config_error(Trust::empty().file(&large)),
        &["it is larger than 16 MiB, and so no trust store"],
    );
}

#[test]
fn expired_anchors_give_a_warning() {
    let mut params = named("Old", &[]);
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let old = Party::new(params.clone(), None);
    params.not_after = (SystemTime::now() + Duration::from_secs(20 * 86_400 + 60)).into();
    let soon = Party::new(params, None);
    let summary = Trust::empty().pem(old.pem).pem(soon.pem).load().unwrap();
    assert_eq!(summary.warnings.len(), 2, "{summary}");
    assert!(
        summary.warnings[0].contains("years ago, at 2002-01-01T00:00:00Z"),
        "{summary}"
    );
    assert!(
        summary.warnings[1].contains("expires in 20 days, at 2"),
        "{summary}"
    );
}

#[test]
fn other_contents_of_a_file_are_reported() {
    let a = Party::authority("A", None);
    let summary = Trust::empty()
        .pem(format!("{}{}", pem("PRIVATE KEY", &a.key), a.pem))
        .load()
        .unwrap();
    assert_eq!(
        summary.warnings,
        ["what was given in memory holds a private key too; only its certificates are used"]
    );
}

#[test]
fn the_system_store_is_read_only_if_configured() {
    let a = Party::authority("A", None);
    assert_eq!(Trust::empty().pem(&a.pem).load().unwrap().anchors.len(), 1);
    // A machine may have no store; if it has one, all of it can be read.
    let native = rustls_native_certs::load_native_certs().certs;
    let summary = Trust::system().pem(&a.pem).load().unwrap();
    let unreadable = native
        .iter()
        .filter(|der| Certificate::read(der).is_none())
        .count();
    assert_eq!(unreadable, 0);
    assert_eq!(summary.anchors.len(), native.len() + 1, "{summary}");
}

#[test]
fn malformed_pins_are_refused() {
    for pin in [
        "",
        "sha256//",
        "abc",
        "sha256//AAAA",
        "sha1//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ] {
        let error = config_error(Trust::empty().pin(pin));
        assert_says(&error, &["is not a pin", "openssl x509"]);
    }
}

#[test]
fn getters_return_what_was_set() {
    let trust = Trust::empty();
    assert!(!trust.get_system() && !trust.get_accepts_any_certificate());
    assert_eq!(trust.get_paths().count(), 0);
    let trust = Trust::system()
        .file("a.pem")
        .pem("in memory")
        .folder("b")
        .path("c")
        .pin("sha256//pin")
        .revocation_list("d.crl")
        .password_file("e");
    assert!(trust.get_system());
    assert_eq!(trust.get_password_file(), Some(std::path::Path::new("e")));
    let paths: Vec<_> = trust.get_paths().collect();
    assert_eq!(paths, ["a.pem", "b", "c"].map(std::path::Path::new));
    assert_eq!(trust.get_pins(), ["sha256//pin"]);
    assert_eq!(
        trust.get_revocation_lists(),
        [std::path::PathBuf::from("d.crl")]
    );
    #[cfg(feature = "mozilla-roots")]
    assert!(!trust.get_mozilla() && trust.with_mozilla().get_mozilla());
    assert!(Trust::dangerous_accept_any_certificate().get_accepts_any_certificate());
}
