//! What clients with equal settings share, and what they never share.

use std::fs::File;
use std::path::Path;

use super::*;
use crate::tls::registry::{Registry, trust_store};

/// A client of its own that connects: it has nothing but its settings.
async fn client(settings: &TlsSettings, config: &Arc<ServerConfig>) -> Result<TlsInfo> {
    client_with(settings, VerifyMode::Verified, HOST, config).await
}

async fn client_with(
    settings: &TlsSettings,
    verify_mode: VerifyMode,
    host: &str,
    config: &Arc<ServerConfig>,
) -> Result<TlsInfo> {
    let shared = SharedConnector::of(settings, verify_mode);
    let connector = shared.load(file::time_limit()).await?;
    handshake(connector, host, config).await
}

/// A handshake after which the tickets of TLS 1.3 have arrived.
async fn handshake(
    connector: &Connector,
    host: &str,
    config: &Arc<ServerConfig>,
) -> Result<TlsInfo> {
    let (mut stream, info) = connector
        .handshake(host, serve(config), TlsMode::Implicit)
        .await?;
    stream.read_exact(&mut [0; 11]).await.unwrap();
    Ok(info)
}

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Writes a file, and sets its time to an hour ago: recent ones are always read again.
fn write_old(path: &Path, text: &str) {
    write_at(SystemTime::now() - HOUR, path, text);
}

fn write_at(time: SystemTime, path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

#[tokio::test]
async fn clients_with_equal_settings_resume_each_others_sessions() {
    let root = Party::authority("Root", None);
    let config = Arc::new(server_config(&[&Party::server(Some(&root))]));
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let settings = || trusting(&root).min_version(version).max_version(version);
        // Other tests may take its place among those that are kept.
        let _shared = SharedConnector::of(&settings(), VerifyMode::Verified);
        for resumed in [false, true, true] {
            let settings = settings();
            let info = client(&settings, &config).await.unwrap();
            assert_eq!(info.resumed, resumed, "{version}");
            assert!(info.is_verified());
            assert_eq!(info.verified_by.as_deref(), Some("CN=Root"));
        }
    }
}

#[tokio::test]
async fn no_session_is_resumed_with_other_settings() {
    let (root, other) = (Party::authority("Root", None), Party::authority("B", None));
    let server = Party::new(named("server", &[HOST, "mx.example.com"]), Some(&root));
    let config = Arc::new(server_config(&[&server]));
    let settings = trusting(&root);
    let own = |party: &Party| {
        let key = PrivateKeyDer::try_from(party.key.clone()).unwrap();
        ClientCertificate::pem(&party.pem).key_pem(key.secret_der())
    };
    let two = Trust::empty().pem(&root.pem).pem(&other.pem);
    let shared = SharedConnector::of(&settings, VerifyMode::Verified);
    assert!(!client(&settings, &config).await.unwrap().resumed);
    for (what, settings) in [
        ("trust", settings.clone().trust(two)),
        ("versions", settings.clone().min_version(TlsVersion::Tls13)),
        (
            "server name",
            settings.clone().server_name("mx.example.com"),
        ),
        (
            "certificate",
            settings.clone().client_certificate(own(&server)),
        ),
        (
            "other one",
            settings.clone().client_certificate(own(&other)),
        ),
        ("provider", settings.clone().crypto_provider(provider())),
    ] {
        // One with a key is not kept otherwise.
        let _shared = SharedConnector::of(&settings, VerifyMode::Verified);
        for resumed in [false, true] {
            let info = client(&settings, &config).await.unwrap();
            assert_eq!(info.resumed, resumed, "{what}");
        }
    }
    // Another host, and a client that only reports whether the server is verified.
    let (verified, reported) = (VerifyMode::Verified, VerifyMode::Reported);
    for (mode, host) in [(verified, "mx.example.com"), (reported, HOST)] {
        let info = client_with(&settings, mode, host, &config).await.unwrap();
        assert!(!info.resumed, "{mode:?}, {host}");
    }
    // What a client that only reports has accepted is not resumed where verification is required.
    let strange = Arc::new(server_config(&[&Party::server(Some(&other))]));
    let _reported = SharedConnector::of(&settings, reported);
    for resumed in [false, true] {
        let info = client_with(&settings, reported, HOST, &strange)
            .await
            .unwrap();
        assert_eq!((info.resumed, info.is_verified()), (resumed, false));
    }
    assert!(client(&settings, &strange).await.is_err());
    // The sessions of these settings are still there.
    let connector = shared.renewed().await;
    for _ in 0..2 {
        handshake(connector, HOST, &config).await.unwrap();
    }
    assert!(handshake(connector, HOST, &config).await.unwrap().resumed);
}

#[tokio::test]
async fn equal_trust_is_parsed_once_until_its_file_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let (old, new) = (Party::authority("Old", None), Party::authority("New", None));
    write_old(&path, &old.pem);
    let trust = Trust::empty().path(&path);
    let store = || trust_store(&trust, trust.files(), file::time_limit()).unwrap();
    let first = store();
    assert!(Arc::ptr_eq(&first, &store()));
    // Its anchors are those of the file as it is.
    write_old(&path, &new.pem);
    let second = store();
    assert_eq!(second.summary.anchors[0].certificate.subject, "CN=New");
    assert!(!Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&second, &store()));
    // A file that was just written may be written again within the same tick of its time stamp.
    std::fs::write(&path, &new.pem).unwrap();
    assert!(!Arc::ptr_eq(&store(), &store()));
    // One with a time in the future is read once, too, and its changes are noticed.
    write_at(SystemTime::now() + HOUR, &path, &old.pem);
    let third = store();
    assert_eq!(third.summary.anchors[0].certificate.subject, "CN=Old");
    assert!(Arc::ptr_eq(&third, &store()));
    write_at(SystemTime::now() + 2 * HOUR, &path, &new.pem);
    assert!(!Arc::ptr_eq(&third, &store()));
    write_at(SystemTime::now() + Duration::from_secs(1), &path, &new.pem);
    assert!(!Arc::ptr_eq(&store(), &store()));
    // The system's store is read once.
    let system = Trust::system();
    let store = || trust_store(&system, system.files(), file::time_limit()).unwrap();
    let kept = store();
    assert!(!system.files().is_settled() || Arc::ptr_eq(&kept, &store()));
}

#[tokio::test]
async fn a_changed_file_is_noticed_by_new_clients_at_once_and_by_others_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let (old, new) = (Party::authority("Old", None), Party::authority("New", None));
    let config = Arc::new(server_config(&[&Party::server(Some(&new))]));
    let settings = TlsSettings::new(Trust::empty().path(&path));
    write_old(&path, &old.pem);
    let shared = SharedConnector::of(&settings, VerifyMode::Verified);
    let connector = shared.load(file::time_limit()).await.unwrap();
    assert!(handshake(connector, HOST, &config).await.is_err());

    write_old(&path, &new.pem);
    assert!(
        handshake(shared.renewed().await, HOST, &config)
            .await
            .is_err()
    );
    shared.renew_after(Duration::ZERO).await;
    assert!(handshake(connector, HOST, &config).await.is_ok());
    // Nothing changed, so the session is resumed.
    shared.renew_after(Duration::ZERO).await;
    assert!(handshake(connector, HOST, &config).await.unwrap().resumed);

    // A file that cannot be used fails for new clients alone.
    write_old(&path, "not a certificate");
    shared.renew_after(Duration::ZERO).await;
    assert!(handshake(connector, HOST, &config).await.unwrap().resumed);
    let error = client(&settings, &config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    std::fs::remove_file(&path).unwrap();
    shared.renew_after(Duration::ZERO).await;
    assert!(handshake(connector, HOST, &config).await.unwrap().resumed);

    // A new client reads the file, and the others use what it has read.
    write_old(&path, &old.pem);
    assert!(client(&settings, &config).await.is_err());
    assert!(handshake(connector, HOST, &config).await.is_err());
}

/// Also one that waits while the client before it looks in vain.
#[tokio::test]
async fn a_new_client_gets_the_error_of_a_file_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    write_old(&path, &Party::authority("Root", None).pem);
    let settings = TlsSettings::new(Trust::empty().path(&path));
    let shared = SharedConnector::of(&settings, VerifyMode::Verified);
    shared.load(file::time_limit()).await.unwrap();
    write_old(&path, "not a certificate");
    for _ in 0..100 {
        let renewed = shared.renew_after(Duration::ZERO);
        let ((), loaded) = tokio::join!(renewed, shared.load(file::time_limit()));
        assert_eq!(loaded.unwrap_err().kind(), ErrorKind::Config);
    }
}

#[tokio::test]
async fn a_client_certificate_is_renewed_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("client.pem");
    let root = Party::authority("Root", None);
    let write = |party: &Party| {
        let key = KeyPair::try_from(party.key.as_slice()).unwrap();
        write_old(&path, &format!("{}{}", party.pem, key.serialize_pem()));
    };
    let settings = trusting(&root).client_certificate(ClientCertificate::file(&path));
    write(&Party::server(Some(&root)));
    let config = Arc::new(server_config(&[&Party::server(Some(&root))]));
    let shared = SharedConnector::of(&settings, VerifyMode::Verified);
    let connector = shared.load(file::time_limit()).await.unwrap();
    for resumed in [false, true] {
        let info = handshake(connector, HOST, &config).await.unwrap();
        assert_eq!(info.resumed, resumed);
    }
    // The sessions of the old certificate are not resumed with the new one.
    write(&Party::server(Some(&root)));
    shared.renew_after(Duration::ZERO).await;
    assert!(!handshake(connector, HOST, &config).await.unwrap().resumed);
}

#[tokio::test]
async fn clients_that_start_together_read_the_files_once() {
    let root = Party::authority("Root", None);
    let settings = trusting(&root);
    let load = || async {
        let shared = SharedConnector::of(&settings, VerifyMode::Verified);
        shared
            .load(file::time_limit())
            .await
            .map(|_| shared.clone())
    };
    let loaded = futures::future::join_all((0..50).map(|_| load())).await;
    let first = loaded[0].as_ref().unwrap();
    for shared in &loaded {
        assert!(Arc::ptr_eq(shared.as_ref().unwrap(), first));
    }
}

/// A key or a password does not outlive the clients that use it.
#[test]
fn secrets_are_dropped_with_the_last_client() {
    let root = Party::authority("Root", None);
    let with_password = TlsSettings::new(Trust::empty().pem(&root.pem).password("secret"));
    let with_key = trusting(&root).client_certificate(ClientCertificate::pem(&root.pem));
    for settings in [with_password, with_key] {
        let shared = Arc::downgrade(&SharedConnector::of(&settings, VerifyMode::Verified));
        assert!(shared.upgrade().is_none());
    }
}

#[test]
fn the_last_values_are_kept() {
    let mut registry = Registry::default();
    for value in 0..100 {
        let value = Arc::new(value);
        registry.add(*value, &value);
        registry.keep(value);
        // The first one is used again and again.
        let first = registry.find(0, |value| *value == 0).unwrap();
        registry.keep(first);
    }
    let kept: Vec<_> = (0..100)
        .filter(|key| registry.find(*key, |_| true).is_some())
        .collect();
    assert_eq!(kept, [0, 93, 94, 95, 96, 97, 98, 99]);
}

#[test]
fn the_registry_does_not_grow_with_values_out_of_use() {
    let mut registry = Registry::default();
    let used: Vec<_> = (0..10).map(Arc::new).collect();
    for value in &used {
        registry.add(*value.as_ref(), value);
    }
    for value in 10..100_000 {
        registry.add(value, &Arc::new(value));
        registry.keep(Arc::new(value));
    }
    assert!(registry.size() < 100, "{}", registry.size());
    for value in &used {
        let found = registry
            .find(**value, |other| other == value.as_ref())
            .unwrap();
        assert!(Arc::ptr_eq(&found, value));
    }
    // Two keys may have the same hash.
    assert!(registry.find(3, |other| *other == 4).is_none());
}
