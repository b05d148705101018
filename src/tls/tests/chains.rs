//! A chain that was verified holds for the same name and time alone.

use tokio_rustls::rustls::pki_types::{ServerName, UnixTime};

use super::*;
use crate::tls::chains::KnownChains;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

#[test]
fn a_verified_chain_is_known_until_a_certificate_of_it_expires() {
    let root = Party::authority("Root", None);
    let mut params = named("Middle", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    let end = u64::try_from(params.not_after.unix_timestamp()).unwrap();
    let middle = Party::new(params, Some(&root));
    let (server, other) = (Party::server(Some(&middle)), Party::server(Some(&middle)));
    let chain = [server.der.clone(), middle.der.clone()];
    let name = ServerName::try_from(HOST).unwrap();
    let known = KnownChains::default();
    assert_eq!(known.anchor(&name, &chain, at(end)), None);
    known.add_verified(&name, &chain, "CN=Root".into(), at(1000));
    for (now, is_known) in [(999, false), (1000, true), (end, true), (end + 1, false)] {
        let anchor = known.anchor(&name, &chain, at(now));
        assert_eq!(anchor.is_some(), is_known, "{now}");
    }
    assert!(!known.has_expired(&name, at(end)) && known.has_expired(&name, at(end + 1)));
    // A pinned key is accepted after the end of its certificate, too.
    known.add_verified(&name, &chain, "the pinned key".into(), at(end + 1));
    assert!(!known.has_expired(&name, at(end + 2)));
    known.add_verified(&name, &chain, "CN=Root".into(), at(1000));
    let others = [
        vec![other.der.clone(), middle.der.clone()],
        vec![server.der.clone()],
        vec![server.der.clone(), middle.der.clone(), root.der.clone()],
        vec![],
    ];
    for chain in others {
        assert_eq!(known.anchor(&name, &chain, at(end)), None);
    }
    let other_name = ServerName::try_from("mx.example.com").unwrap();
    assert_eq!(known.anchor(&other_name, &chain, at(end)), None);
    // Its certificates are kept once.
    let certificates = known.certificates(&name, &chain);
    assert!(Arc::ptr_eq(
        &certificates,
        &known.certificates(&name, &chain)
    ));
    assert!(known.anchor(&name, &chain, at(end)).is_some());
    // One that was not verified is known, but not accepted.
    let strange = [other.der.clone()];
    assert_eq!(known.certificates(&name, &strange).len(), 1);
    assert_eq!(known.anchor(&name, &strange, at(end)), None);
}

#[tokio::test]
async fn a_server_that_is_known_must_still_prove_its_key() {
    let root = Party::authority("Root", None);
    let (server, impostor) = (Party::server(Some(&root)), Party::server(None));
    let connector = connector(&trusting(&root)).without_resumption();
    assert!(connect(&connector, server_config(&[&server])).await.is_ok());
    let key = PrivateKeyDer::try_from(impostor.key.clone()).unwrap();
    let key = provider().key_provider.load_private_key(key).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![server.der.clone()], key);
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12, &TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    let error = connect(&connector, config).await.unwrap_err();
    assert_says(&error, &["does not hold the key of the certificate"]);
}

#[test]
fn the_number_of_known_servers_is_limited() {
    let chain = [Party::server(None).der];
    let known = KnownChains::default();
    let name = |number| ServerName::try_from(format!("mx{number}.example.com")).unwrap();
    let first: Vec<_> = (0..1000)
        .map(|number| Arc::downgrade(&known.certificates(&name(number), &chain)))
        .collect();
    let kept = first.iter().filter(|one| one.strong_count() > 0).count();
    assert!((1..=256).contains(&kept), "{kept}");
}
