//! Key stores that real tools made: those kept beside this file, and fresh ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::trust::config_error;
use super::*;

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tls/tests/stores")
}

fn subjects(trust: Trust) -> Vec<String> {
    let summary = trust.load().unwrap_or_else(|error| panic!("{error}"));
    assert!(summary.warnings.is_empty(), "{summary}");
    summary.anchors.into_iter().map(|anchor| anchor.certificate.subject).collect()
}

fn check(folder: &Path) {
    let ca = "CN=Example CA,O=Example";
    for name in
        ["ca.pem", "ca.der", "openssl.p12", "openssl-legacy.p12", "java.p12", "java.jks", "java.jceks", "ewallet.p12"]
    {
        let path = folder.join(name);
        assert_eq!(subjects(Trust::empty().path(&path).password("changeit")), [ca], "{name}");
        assert_eq!(subjects(Trust::empty().pem(fs::read(&path).unwrap()).password("changeit")), [ca], "{name}");
    }
    // Java opens JKS without the password, and so do we; the other two have none.
    for name in ["java.jks", "java.jceks", "no-password.p12", "bare.p12"] {
        assert_eq!(subjects(Trust::empty().file(folder.join(name))), [ca], "{name}");
    }
    for name in ["openssl.p12", "openssl-legacy.p12", "java.p12", "java.jks", "java.jceks", "ewallet.p12"] {
        let path = folder.join(name);
        let error = config_error(Trust::empty().file(&path).password("wrong"));
        says(&error, &[name, "that the password given does not open", "trust-password-file="]);
        if name.ends_with("p12") {
            says(&config_error(Trust::empty().file(&path)), &["that needs a password, and none was given"]);
        }
    }
    for name in ["client.p12", "client-legacy.p12", "keys.p12", "keys.jks"] {
        let error = config_error(Trust::empty().file(folder.join(name)).password("changeit"));
        says(&error, &["holds a key with its certificates, but no trusted certificate", "keytool -importcert"]);
    }
}

#[test]
fn stores_that_are_kept() {
    check(&kept());
}

#[test]
#[ignore = "needs openssl and keytool"]
fn stores_made_afresh() {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new(kept().join("make.sh")).arg(folder.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    check(folder.path());
}

#[test]
fn an_oracle_wallet() {
    let wallet = tempfile::tempdir().unwrap();
    let path = wallet.path();
    fs::write(path.join("cwallet.sso"), b"\xA1\xF8\x4E\x37\0\0\0\x06").unwrap();
    fs::write(path.join("cwallet.sso.lck"), "").unwrap();
    fs::write(path.join("ewallet.p12.lck"), "").unwrap();

    // The auto-login form alone.
    let error = config_error(Trust::empty().path(path));
    says(&error, &["cwallet.sso is an auto-login wallet of Oracle", "Use the ewallet.p12 beside it"]);
    says(&config_error(Trust::empty().path(path.join("cwallet.sso"))), &["is an auto-login wallet of Oracle"]);

    fs::copy(kept().join("ewallet.p12"), path.join("ewallet.p12")).unwrap();
    let file = path.join("ewallet.p12").display().to_string();
    let folder = path.display().to_string();
    for path in [&file, &folder, &format!("file:{file}"), &format!("file:{folder}"), &format!("file://{folder}")] {
        let summary = Trust::empty().path(path).password("changeit").load().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(summary.anchors.len(), 1, "{path}");
        assert_eq!(summary.anchors[0].origin, file);
    }
    // It is why the folder was named: not to open it is not to be passed over.
    let error = config_error(Trust::empty().path(path).password("wrong"));
    says(&error, &["ewallet.p12 is a key store that the password given does not open"]);
    let summary = Trust::empty().folder(path).password("changeit").load().unwrap();
    assert_eq!(summary.warnings.len(), 3, "{summary}");
}

#[test]
#[ignore = "needs Debian's ca-certificates-java"]
fn the_cacerts_of_java() {
    let cacerts = Path::new("/etc/ssl/certs/java/cacerts");
    let without = Trust::empty().file(cacerts).load().unwrap();
    assert!(without.anchors.len() > 50, "{without}");
    assert_eq!(Trust::empty().file(cacerts).password("changeit").load().unwrap().anchors.len(), without.anchors.len());
}

#[test]
fn a_damaged_store_is_an_error_and_no_more() {
    // To derive a key takes its time: not every byte of a PKCS#12 store.
    for (name, step) in [("java.jks", 1), ("keys.jks", 1), ("ewallet.p12", 101), ("bare.p12", 7)] {
        let whole = fs::read(kept().join(name)).unwrap();
        for at in (0..whole.len()).step_by(step) {
            let _ = Trust::empty().pem(&whole[..at]).password("changeit").load();
            let mut changed = whole.clone();
            changed[at] ^= 0xFF;
            let _ = Trust::empty().pem(changed).load();
        }
    }
    // An entry that claims 4 GiB.
    let mut jks = fs::read(kept().join("java.jks")).unwrap();
    let type_at = jks.windows(5).position(|window| window == b"X.509").unwrap();
    jks[type_at + 5..type_at + 9].fill(0xFF);
    says(&config_error(Trust::empty().pem(jks)), &["is a Java key store (JKS) that is damaged"]);
}

#[test]
fn mozillas_roots() {
    let summary = Trust::empty().with_mozilla().load().unwrap();
    assert!(summary.anchors.len() > 100, "{summary}");
    let limited = Trust::empty().with_mozilla().read().unwrap();
    assert!(limited.roots.iter().any(|root| root.name_constraints.is_some()));
    assert_eq!(limited.roots.len(), summary.anchors.len());
}
