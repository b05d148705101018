//! Key stores that real tools made: those stored in this folder, and new ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::trust::config_error;
use super::*;

fn stored_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tls/tests/stores")
}

fn subjects(trust: Trust) -> Vec<String> {
    let summary = trust.load().unwrap_or_else(|error| panic!("{error}"));
    assert!(summary.warnings.is_empty(), "{summary}");
    summary
        .anchors
        .into_iter()
        .map(|anchor| anchor.certificate.subject)
        .collect()
}

fn check(folder: &Path) {
    let ca = "CN=Example CA,O=Example";
    for name in [
        "ca.pem",
        "ca.der",
        "openssl.p12",
        "openssl-legacy.p12",
        "java.p12",
        "java.jks",
        "java.jceks",
        "ewallet.p12",
    ] {
        let path = folder.join(name);
        assert_eq!(
            subjects(Trust::empty().path(&path).password("changeit")),
            [ca],
            "{name}"
        );
        assert_eq!(
            subjects(
                Trust::empty()
                    .pem(fs::read(&path).unwrap())
                    .password("changeit")
            ),
            [ca],
            "{name}"
        );
    }
    // Java opens JKS without the password, and so does envoi; the other two require it.
    for name in ["java.jks", "java.jceks", "no-password.p12", "bare.p12"] {
        assert_eq!(
            subjects(Trust::empty().file(folder.join(name))),
            [ca],
            "{name}"
        );
    }
    for name in [
        "openssl.p12",
        "openssl-legacy.p12",
        "java.p12",
        "java.jks",
        "java.jceks",
        "ewallet.p12",
    ] {
        let path = folder.join(name);
        let error = config_error(Trust::empty().file(&path).password("wrong"));
        assert_says(
            &error,
            &[
                name,
                "that the password given does not open",
                "trust-password-file=",
            ],
        );
        if name.ends_with("p12") {
            assert_says(
                &config_error(Trust::empty().file(&path)),
                &["that needs a password, and none was given"],
            );
        }
    }
    // Beyond the 16 bits of a BMPString, as openssl and Java encode it.
    for name in [
        "openssl-emoji.p12",
        "openssl-emoji-legacy.p12",
        "java-emoji.jks",
    ] {
        let path = folder.join(name);
        assert_eq!(
            subjects(
                Trust::empty()
                    .path(&path)
                    .password("p\u{e4}ssw\u{f6}rd\u{1f600}")
            ),
            [ca],
            "{name}"
        );
        let error = config_error(
            Trust::empty()
                .path(&path)
                .password("p\u{e4}ssw\u{f6}rd\u{1f601}"),
        );
        assert_says(&error, &[name, "that the password given does not open"]);
    }
    for name in ["keys.jks", "keys.jceks"] {
        let own = ClientCertificate::file(folder.join(name)).password("changeit");
        assert_eq!(
            own.load()
                .unwrap_or_else(|error| panic!("{name}: {error}"))
                .subject,
            "CN=client"
        );
    }
    let error = ClientCertificate::file(folder.join("other-key.jks"))
        .password("changeit")
        .load()
        .unwrap_err();
    assert_says(
        &error,
        &[
            "other-key.jks is a key store (JKS) whose key has another password",
            "keytool -keypasswd",
        ],
    );
    let own = |password: &str| {
        let own = ClientCertificate::file(folder.join("no-mac.p12"));
        let own = if password.is_empty() {
            own
        } else {
            own.password(password)
        };
        own.load().map(|certificate| certificate.subject)
    };
    assert_eq!(own("changeit").unwrap(), "CN=client");
    assert_says(
        &own("").unwrap_err(),
        &["that needs a password, and none was given"],
    );
    assert_says(
        &own("wrong").unwrap_err(),
        &["that the password given does not open"],
    );
    let error = config_error(
        Trust::empty()
            .file(folder.join("key-alone.p12"))
            .password("changeit"),
    );
    assert_says(
        &error,
        &[
            "is a key store that holds a key, but no certificate",
            "keytool -importcert",
        ],
    );
    // Java objects among the other entries.
    assert_eq!(
        subjects(
            Trust::empty()
                .file(folder.join("secret-key.jceks"))
                .password("changeit")
        ),
        [ca]
    );
    let mut other = fs::read(folder.join("secret-key.jceks")).unwrap();
    let object = other
        .windows(4)
        .position(|window| window == [0xAC, 0xED, 0, 5])
        .unwrap();
    other[object + 3] = 6;
    let error = config_error(Trust::empty().pem(other));
    assert_says(
        &error,
        &[
            "is a Java key store (JKS) with a secret key, whose end is not found",
            "keytool -importkeystore",
        ],
    );
    for name in [
        "client.p12",
        "client-legacy.p12",
        "keys.p12",
        "keys.jks",
        "keys.jceks",
    ] {
        let error = config_error(Trust::empty().file(folder.join(name)).password("changeit"));
        assert_says(
            &error,
            &[
                "holds a key with its certificates, but no trusted certificate",
                "keytool -importcert",
            ],
        );
    }
}

#[test]
fn stored_key_stores_are_read() {
    check(&stored_folder());
}

#[test]
#[ignore = "needs openssl and keytool"]
fn newly_made_key_stores_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new(stored_folder().join("make.sh"))
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    check(folder.path());
}

#[test]
fn an_oracle_wallet_is_read() {
    let wallet = tempfile::tempdir().unwrap();
    let path = wallet.path();
    fs::write(path.join("cwallet.sso"), b"\xA1\xF8\x4E\x37\0\0\0\x06").unwrap();
    fs::write(path.join("cwallet.sso.lck"), "").unwrap();
    fs::write(path.join("ewallet.p12.lck"), "").unwrap();

    // The auto-login form alone, of which there is only the beginning.
    let error = config_error(Trust::empty().path(path));
    assert_says(
        &error,
        &[
            "cwallet.sso is an auto-login wallet of Oracle",
            "is damaged",
            "Use the ewallet.p12 beside it",
        ],
    );
    assert_says(
        &config_error(Trust::empty().path(path.join("cwallet.sso"))),
        &["is an auto-login wallet of Oracle"],
    );

    fs::copy(
        stored_folder().join("ewallet.p12"),
        path.join("ewallet.p12"),
    )
    .unwrap();
    let file = path.join("ewallet.p12").display().to_string();
    let folder = path.display().to_string();
    for path in [
        &file,
        &folder,
        &format!("file:{file}"),
        &format!("file:{folder}"),
        &format!("file://{folder}"),
    ] {
        let summary = Trust::empty()
            .path(path)
            .password("changeit")
            .load()
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(summary.anchors.len(), 1, "{path}");
        assert_eq!(summary.anchors[0].origin, file);
    }
    // The folder was given for the wallet, so a failure to open it is an error.
    let error = config_error(Trust::empty().path(path).password("wrong"));
    assert_says(
        &error,
        &[
            "ewallet.p12 is a key store that the password given does not open; ",
            "cwallet.sso is an auto-login",
        ],
    );
    let summary = Trust::empty()
        .folder(path)
        .password("changeit")
        .load()
        .unwrap();
    assert!(summary.warnings.is_empty(), "{summary}");
}

/// The origins of the anchors without duplicates, and the warnings other than those about expired
/// certificates.
fn origins(trust: Trust) -> (Vec<String>, Vec<String>) {
    let summary = trust.load().unwrap_or_else(|error| panic!("{error}"));
    let mut origins: Vec<_> = summary
        .anchors
        .into_iter()
        .map(|anchor| anchor.origin)
        .collect();
    assert_eq!(origins.len(), 10);
    origins.dedup();
    (
        origins,
        summary
            .warnings
            .into_iter()
            .filter(|warning| !warning.contains(" expired "))
            .collect(),
    )
}

#[test]
fn a_wallet_made_by_orapki_is_read() {
    let wallet = tempfile::tempdir().unwrap();
    let (p12, sso) = (
        wallet.path().join("ewallet.p12"),
        wallet.path().join("cwallet.sso"),
    );
    fs::copy(stored_folder().join("oracle-cwallet.sso"), &sso).unwrap();
    let (p12_name, sso_name) = (p12.display().to_string(), sso.display().to_string());
    let folder = wallet.path().display().to_string();
    // Without a password, by file and by folder.
    for path in [
        &sso_name,
        &folder,
        &format!("file:{sso_name}"),
        &format!("file:{folder}"),
    ] {
        assert_eq!(
            origins(Trust::empty().path(path)),
            (vec![sso_name.clone()], vec![]),
            "{path}"
        );
    }
    assert_eq!(
        Trust::empty()
            .pem(fs::read(&sso).unwrap())
            .load()
            .unwrap()
            .anchors
            .len(),
        10
    );
    // The kind only tells how it was made.
    let mut other = fs::read(&sso).unwrap();
    other[3] = b'7';
    assert_eq!(Trust::empty().pem(&other).load().unwrap().anchors.len(), 10);
    other[3] = b'9';
    assert_says(
        &config_error(Trust::empty().pem(&other)),
        &[
            "is an auto-login wallet",
            "of a kind that is not known (39)",
        ],
    );

    // With both stores, the password decides which one is read.
    fs::copy(stored_folder().join("oracle-ewallet.p12"), &p12).unwrap();
    for trust in [
        Trust::empty().path(&folder),
        Trust::empty().folder(wallet.path()),
    ] {
        assert_eq!(origins(trust.clone()), (vec![sso_name.clone()], vec![]));
        assert_eq!(
            origins(trust.clone().password("asdf1234")),
            (vec![p12_name.clone()], vec![])
        );
        let (origins, warnings) = origins(trust.password("wrong"));
        assert_eq!(origins, std::slice::from_ref(&sso_name));
        assert_eq!(
            warnings,
            [format!(
                "{p12_name} is a key store that the password given does not open"
            )]
        );
    }
    // A file is read itself, and not the other one.
    assert_eq!(
        origins(Trust::empty().path(&p12).password("asdf1234")).0,
        std::slice::from_ref(&p12_name)
    );
    assert_says(
        &config_error(Trust::empty().path(&p12)),
        &["that needs a password, and none was given"],
    );
    fs::remove_file(&sso).unwrap();
    assert_says(
        &config_error(Trust::empty().path(&folder)),
        &["ewallet.p12 is a key store that needs a password"],
    );
}

/// The store of `secret-bags.p12`, which is not encrypted, with another password.
fn with_password(password: &[u8]) -> Vec<u8> {
    use ::pkcs12::kdf::{Pkcs12KeyType, derive_key};
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use x509_cert::der::asn1::OctetString;
    use x509_cert::der::{Decode as _, Encode as _};

    let mut pfx =
        ::pkcs12::pfx::Pfx::from_der(&fs::read(stored_folder().join("secret-bags.p12")).unwrap())
            .unwrap();
    let content = pfx.auth_safe.content.decode_as::<OctetString>().unwrap();
    let mac = pfx.mac_data.as_mut().unwrap();
    let utf16: Vec<u8> = password
        .iter()
        .chain(&[0])
        .flat_map(|byte| [0, *byte])
        .collect();
    let key = derive_key::<sha1::Sha1>(
        &utf16,
        mac.mac_salt.as_bytes(),
        Pkcs12KeyType::Mac,
        mac.iterations,
        20,
    );
    let digest = Hmac::<sha1::Sha1>::new_from_slice(&key)
        .unwrap()
        .chain_update(content.as_bytes())
        .finalize();
    mac.mac.digest = OctetString::new(digest.into_bytes().to_vec()).unwrap();
    pfx.to_der().unwrap()
}

fn wallet_of(kind: u8, secret: &[u8], store: &[u8]) -> Vec<u8> {
    let header = [
        &[
            0xA1,
            0xF8,
            0x4E,
            kind,
            0,
            0,
            0,
            6,
            0,
            0,
            0,
            secret.len() as u8,
        ][..],
        secret,
    ]
    .concat();
    [&header[..], store].concat()
}

/// The password of a wallet, encrypted with AES.
fn encrypt_password_aes(key: [u8; 16], password: [u8; 16]) -> Vec<u8> {
    use cbc::cipher::{BlockModeEncrypt as _, KeyIvInit as _, block_padding::NoPadding};
    let iv = 0xC034_D831_1C02_CEF8_51F0_144B_81ED_4BF2_u128.to_be_bytes();
    let cipher = cbc::Encryptor::<aes::Aes128>::new(&key.into(), &iv.into());
    [
        &[6][..],
        &key,
        &cipher.encrypt_padded_vec::<NoPadding>(&password),
    ]
    .concat()
}

fn encrypt_password_des(key: [u8; 8], password: &[u8]) -> Vec<u8> {
    use cbc::cipher::{BlockModeEncrypt as _, KeyIvInit as _, block_padding::Pkcs7};
    let cipher = cbc::Encryptor::<des::Des>::new(&key.into(), &[0; 8].into());
    let sealed = cipher.encrypt_padded_vec::<Pkcs7>(password);
    let digits = key
        .iter()
        .chain(&sealed)
        .map(|byte| format!("{byte:02X}"))
        .collect::<String>();
    format!("5{digits}").into_bytes()
}

/// The password of a local wallet.
fn local_password(host: &str, user: &str, password: [u8; 16]) -> Vec<u8> {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mac = Hmac::<sha1::Sha1>::new_from_slice(format!("{host}{user}").as_bytes()).unwrap();
    let bytes = mac.chain_update(password).finalize().into_bytes();
    bytes
        .iter()
        .take(16)
        .map(|byte| u8::try_from((u32::from(*byte) + 128) % 128 % 127 + 1).unwrap())
        .collect()
}

#[test]
fn every_form_of_auto_login_is_read() {
    // As in a real wallet, with control characters.
    let password = *b"\x01\x7fabc\x1f\x0aXYZ 019~\x02";
    let (aes, des) = (
        encrypt_password_aes([7; 16], password),
        encrypt_password_des([9; 8], &password),
    );
    let store = with_password(&password);
    for (name, wallet) in [
        ("6", wallet_of(b'6', &aes, &store)),
        ("7", wallet_of(b'7', &aes, &store)),
        ("older", wallet_of(b'6', &des, &store)),
    ] {
        let summary = Trust::empty()
            .pem(&wallet)
            .load()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(summary.anchors.len(), 2, "{name}");
        // A password is not needed, and is ignored.
        assert_eq!(
            Trust::empty()
                .pem(&wallet)
                .password("any")
                .load()
                .unwrap()
                .anchors
                .len(),
            2,
            "{name}"
        );
        for at in 0..wallet.len() - store.len() {
            let mut damaged = wallet.clone();
            damaged[at] ^= 0x40;
            let _ = Trust::empty().pem(&damaged).load();
            config_error(Trust::empty().pem(&wallet[..at]));
        }
    }
    let unknown = wallet_of(b'6', &[&[4][..], &[0; 32]].concat(), &store);
    assert_says(
        &config_error(Trust::empty().pem(unknown)),
        &["is hidden in a way that is not known (04)"],
    );
    let wrong = wallet_of(b'6', &aes, &with_password(b"another"));
    assert_says(
        &config_error(Trust::empty().pem(wrong)),
        &["is an auto-login wallet of Oracle (cwallet.sso) that is damaged"],
    );
}

#[test]
fn a_local_auto_login_wallet_is_read() {
    let (password, host) = ([0x42; 16], whoami::hostname().unwrap());
    let (host, user) = (host.split('.').next().unwrap(), whoami::username().unwrap());
    for hidden in [
        encrypt_password_aes([7; 16], password),
        encrypt_password_des([9; 8], &password),
    ] {
        let store = with_password(&local_password(host, &user, password));
        let wallet = wallet_of(b'8', &hidden, &store);
        assert_eq!(Trust::empty().pem(&wallet).load().unwrap().anchors.len(), 2);
        // It was made on another host.
        for (other, user) in [("elsewhere", &*user), (host, "oracle")] {
            let store = with_password(&local_password(other, user, password));
            let error = config_error(Trust::empty().pem(wallet_of(b'8', &hidden, &store)));
            let here = format!(
                "on this host, {host:?}, for this user, {:?}",
                whoami::username().unwrap()
            );
            assert_says(
                &error,
                &[
                    "is an auto-login local wallet of Oracle",
                    &here,
                    "orapki wallet create -wallet FOLDER -auto_login",
                ],
            );
        }
    }
}

#[test]
fn secret_bags_are_skipped() {
    let expected = ["CN=Harness Root CA", "CN=Harness Intermediate CA"];
    let path = stored_folder().join("secret-bags.p12");
    assert_eq!(
        subjects(Trust::empty().path(&path).password("changeit1")),
        expected
    );
    assert_says(
        &config_error(Trust::empty().path(&path).password("wrong")),
        &["that the password given does not open"],
    );
}

#[test]
fn a_wallet_is_read_as_client_certificate() {
    let wallet = tempfile::tempdir().unwrap();
    fs::copy(
        stored_folder().join("ewallet.p12"),
        wallet.path().join("ewallet.p12"),
    )
    .unwrap();
    fs::copy(
        stored_folder().join("oracle-cwallet.sso"),
        wallet.path().join("cwallet.sso"),
    )
    .unwrap();
    let folder = wallet.path().display().to_string();
    for path in [
        folder.clone(),
        format!("file:{folder}"),
        format!("file:{folder}/ewallet.p12"),
    ] {
        assert_eq!(
            ClientCertificate::file(&path)
                .password("changeit")
                .load()
                .unwrap()
                .subject,
            "CN=client",
            "{path}"
        );
    }
    // The store that opens without a password contains certificates only.
    let error = ClientCertificate::file(wallet.path().join("cwallet.sso"))
        .load()
        .unwrap_err();
    assert_says(
        &error,
        &[
            "cwallet.sso is an auto-login wallet of Oracle (cwallet.sso) without a key that has a \
                certificate",
        ],
    );
    let error = ClientCertificate::file(stored_folder()).load().unwrap_err();
    assert_says(
        &error,
        &["ewallet.p12 is a key store that needs a password, and none was given"],
    );
}

#[test]
#[ignore = "needs Debian's ca-certificates-java"]
fn javas_cacerts_is_read() {
    let cacerts = Path::new("/etc/ssl/certs/java/cacerts");
    let without = Trust::empty().file(cacerts).load().unwrap();
    assert!(without.anchors.len() > 50, "{without}");
    assert_eq!(
        Trust::empty()
            .file(cacerts)
            .password("changeit")
            .load()
            .unwrap()
            .anchors
            .len(),
        without.anchors.len()
    );
}

#[test]
fn a_damaged_store_is_an_error() {
    // Deriving a key is slow, so not every byte of a PKCS#12 store is tested.
    for (name, step) in [
        ("java.jks", 1),
        ("keys.jks", 1),
        ("ewallet.p12", 101),
        ("bare.p12", 7),
        ("secret-bags.p12", 41),
        ("secret-key.jceks", 1),
    ] {
        let whole = fs::read(stored_folder().join(name)).unwrap();
        for at in (0..whole.len()).step_by(step) {
            let _ = Trust::empty().pem(&whole[..at]).password("changeit").load();
            let mut changed = whole.clone();
            changed[at] ^= 0xFF;
            let _ = Trust::empty().pem(changed).load();
        }
    }
    // An entry that claims 4 GiB.
    let mut jks = fs::read(stored_folder().join("java.jks")).unwrap();
    let type_at = jks
        .windows(5)
        .position(|window| window == b"X.509")
        .unwrap();
    jks[type_at + 5..type_at + 9].fill(0xFF);
    assert_says(
        &config_error(Trust::empty().pem(jks)),
        &["is a Java key store (JKS) that is damaged"],
    );
}

#[cfg(feature = "mozilla-roots")]
#[test]
fn mozillas_roots_can_be_trusted() {
    let summary = Trust::empty().with_mozilla().load().unwrap();
    assert!(summary.anchors.len() > 100, "{summary}");
    let limited = Trust::empty()
        .with_mozilla()
        .read(crate::file::time_limit())
        .unwrap();
    assert!(
        limited
            .roots
            .iter()
            .any(|root| root.name_constraints.is_some())
    );
    assert_eq!(limited.roots.len(), summary.anchors.len());
}
