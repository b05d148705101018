//! Certificates that are refused, or accepted.

use super::*;

#[tokio::test]
async fn a_missing_intermediate_is_named() {
    let (root, other) = (
        Party::authority("Root", None),
        Party::authority("Other", None),
    );
    let middle = Party::authority("Middle", Some(&root));
    let server = Party::server(Some(&middle));
    let error = failure(&other, &[&server]).await;
    assert_says(
        &error,
        &[
            "the certificate of mail.example.com, \"CN=mail.example.com\", was issued by \
                \"CN=Middle\", which is missing",
            "the server sent no other certificate",
            "what is trusted (one certificate, \"CN=Other\", from what was given in memory)",
            "If \"CN=Middle\" is an authority of your own, get its certificate from its operator",
        ],
    );
    assert_eq!(cause(&error).problem, CertificateProblem::UnknownIssuer);
    assert_eq!(cause(&error).index, Some(0));
    assert_eq!(cause(&error).chain[0].der(), server.der.as_ref());
    let mut params = named(HOST, &[HOST]);
    let mut access = rcgen::CustomExtension::from_oid_content(
        &[1, 3, 6, 1, 5, 5, 7, 1, 1],
        issuer_at("http://ca.example/1.crt"),
    );
    access.set_criticality(false);
    params.custom_extensions = vec![access];
    let error = failure(&other, &[&Party::new(params, Some(&middle))]).await;
    assert_says(
        &error,
        &[
            "most likely left out an intermediate certificate",
            "the missing one is at http://ca.example/1.crt",
        ],
    );
    // With the right root, the intermediate is still missing.
    assert_says(
        &failure(&root, &[&server]).await,
        &["\"CN=Middle\", which is missing"],
    );
}

/// The extension that states where the issuer's certificate is (RFC 5280, 4.2.2.1).
fn issuer_at(address: &str) -> Vec<u8> {
    let length = address.len() as u8;
    let mut der = vec![
        0x30,
        length + 14,
        0x30,
        length + 12,
        6,
        8,
        0x2B,
        6,
        1,
        5,
        5,
        7,
        0x30,
        2,
        0x86,
        length,
    ];
    der.extend_from_slice(address.as_bytes());
    der
}

#[tokio::test]
async fn an_unknown_issuer_of_an_intermediate_is_named() {
    let (root, other) = (
        Party::authority("Root", None),
        Party::authority("Other", None),
    );
    let middle = Party::authority("Middle", Some(&root));
    let server = Party::server(Some(&middle));
    let error = failure(&other, &[&server, &middle]).await;
    assert_says(
        &error,
        &[
            "leads to \"CN=Middle\", whose issuer \"CN=Root\" is missing",
            "it is not among the 2 certificates that the server sent",
        ],
    );
    assert_eq!(cause(&error).index, Some(1));
    // The root is sent too, which proves nothing.
    let error = failure(&other, &[&server, &middle, &root]).await;
    assert_says(
        &error,
        &["was issued under \"CN=Root\", which is not among what is trusted"],
    );
    assert_eq!(cause(&error).index, Some(2));
    assert_eq!(cause(&error).chain.len(), 3);
}

#[tokio::test]
async fn a_self_signed_certificate_is_named() {
    let other = Party::authority("Other", None);
    // As rcgen creates it, and as `openssl req -x509` does, which marks it as an authority.
    for server in [Party::server(None), {
        let mut params = named(HOST, &[HOST]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Party::new(params, None)
    }] {
        let error = failure(&other, &[&server]).await;
        assert_eq!(cause(&error).problem, CertificateProblem::SelfSigned);
        let fingerprint = &cause(&error).chain[0].sha256;
        assert_says(
            &error,
            &[
                "\"CN=mail.example.com\", is self-signed: no authority vouches for it",
                fingerprint,
            ],
        );

        let info = connect(&connector(&trusting(&server)), server_config(&[&server]))
            .await
            .unwrap();
        assert_eq!(info.verified_by.as_deref(), Some("CN=mail.example.com"));
    }
}

#[tokio::test]
async fn trusted_server_certificate_must_be_valid_and_match_the_name() {
    let mut params = named("other.example.com", &["other.example.com"]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let server = Party::new(params.clone(), None);
    assert_eq!(
        cause(&failure(&server, &[&server]).await).problem,
        CertificateProblem::WrongName
    );
    params.not_after = rcgen::date_time_ymd(2001, 2, 3);
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    let server = Party::new(params, None);
    assert_eq!(
        cause(&failure(&server, &[&server]).await).problem,
        CertificateProblem::Expired
    );
}

#[tokio::test]
async fn expired_and_not_yet_valid_certificates_are_refused() {
    let root = Party::authority("Root", None);
    let mut params = named(HOST, &[HOST]);
    params.not_after = (SystemTime::now() - Duration::from_secs(3 * 86_400 + 60)).into();
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    let error = failure(&root, &[&Party::new(params.clone(), Some(&root))]).await;
    assert_says(
        &error,
        &[
            "the certificate of mail.example.com, \"CN=mail.example.com\", expired 3 days ago, at \
                2",
            "(now it is 2",
        ],
    );
    assert_says(
        &error,
        &["The server's administrator must install a new one"],
    );
    assert_eq!(
        (cause(&error).problem, cause(&error).index),
        (CertificateProblem::Expired, Some(0))
    );

    params.not_after = rcgen::date_time_ymd(4000, 1, 1);
    params.not_before = (SystemTime::now() + Duration::from_secs(5 * 3600 + 60)).into();
    let error = failure(&root, &[&Party::new(params, Some(&root))]).await;
    assert_says(
        &error,
        &[
            "is not valid yet: it will be in 5 hours, from 2",
            "set this machine's clock",
        ],
    );
    assert_eq!(cause(&error).problem, CertificateProblem::NotYetValid);
}

#[tokio::test]
async fn an_expired_intermediate_is_named() {
    let root = Party::authority("Root", None);
    let mut params = named("Middle", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let middle = Party::new(params, Some(&root));
    let error = failure(&root, &[&Party::server(Some(&middle)), &middle]).await;
    assert_says(
        &error,
        &[
            "a certificate in the chain that mail.example.com sent, \"CN=Middle\" (not the \
                server's own), expired",
        ],
    );
    assert_says(&error, &["at 2002-01-01T00:00:00Z"]);
    assert_eq!(cause(&error).index, Some(1));
}

#[tokio::test]
async fn a_wrong_name_lists_the_names_of_the_certificate() {
    let root = Party::authority("Root", None);
    let names: Vec<_> = (1..=20)
        .map(|number| format!("mx{number}.example.net"))
        .collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let error = failure(&root, &[&Party::new(named("mx", &names), Some(&root))]).await;
    assert_says(
        &error,
        &[
            "is for mx1.example.net, mx2.example.net, ",
            "mx8.example.net and 12 more, not for mail.example.com",
        ],
    );
    assert_says(&error, &["server-name= in the URL"]);
    assert_eq!(cause(&error).problem, CertificateProblem::WrongName);

    let error = failure(&root, &[&Party::new(named(HOST, &[]), Some(&root))]).await;
    assert_says(
        &error,
        &[
            "\"CN=mail.example.com\", names no server at all",
            "with mail.example.com as subject alternative name",
        ],
    );
}

#[tokio::test]
async fn a_wrong_signature_is_refused() {
    let (old, new) = (
        Party::authority("Root", None),
        Party::authority("Root", None),
    );
    let error = failure(&old, &[&Party::server(Some(&new))]).await;
    assert_eq!(cause(&error).problem, CertificateProblem::BadSignature);
    assert_says(
        &error,
        &[
            "says that \"CN=Root\" issued it, but its signature is not by the key",
            "has probably got a new key",
        ],
    );
}

#[tokio::test]
async fn a_certificate_for_another_purpose_is_refused() {
    let root = Party::authority("Root", None);
    let mut params = named(HOST, &[HOST]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let error = failure(&root, &[&Party::new(params, Some(&root))]).await;
    assert_eq!(cause(&error).problem, CertificateProblem::WrongPurpose);
    assert_says(&error, &["lacks serverAuth"]);

    let mut params = named(HOST, &[HOST]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let error = failure(&root, &[&Party::new(params, Some(&root))]).await;
    assert_says(
        &error,
        &["is that of an authority (CA:TRUE), not of a server"],
    );

    let server = Party::server(Some(&root));
    let error = failure(&root, &[&Party::server(Some(&server)), &server]).await;
    assert_says(&error, &["issued by one that may not issue any"]);
}

#[tokio::test]
async fn an_unverified_certificate_can_be_accepted_and_is_reported() {
    let (root, other) = (
        Party::authority("Root", None),
        Party::authority("Other", None),
    );
    let server = Party::server(Some(&root));
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let settings = trusting(&other).min_version(version).max_version(version);
        let connector = Connector::new(&settings, VerifyMode::Reported).unwrap();
        let config = Arc::new(server_config(&[&server]));
        for round in 0..2 {
            let (mut stream, info) = connector
                .handshake(HOST, serve(&config), TlsMode::StartTls)
                .await
                .unwrap();
            stream.read_exact(&mut [0; 11]).await.unwrap();
            assert!(!info.is_verified());
            assert_eq!(info.resumed, round == 1);
            assert!(
                info.not_verified_reason
                    .as_ref()
                    .unwrap()
                    .to_string()
                    .contains("was issued by \"CN=Root\", which is missing")
            );
        }
        let info = connect(
            &Connector::new(&trusting(&root), VerifyMode::Reported).unwrap(),
            server_config(&[&server]),
        )
        .await
        .unwrap();
        assert!(info.is_verified());
        assert_eq!(info.verified_by.as_deref(), Some("CN=Root"));
    }
}

#[tokio::test]
async fn a_pinned_key_is_required_or_sufficient() {
    let root = Party::authority("Root", None);
    let server = Party::server(Some(&root));
    let pin = Certificate::read(&server.der).unwrap().pin();
    let hash = Certificate::read(&server.der).unwrap().key_hash();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let colons: Vec<_> = hash.iter().map(|byte| format!("{byte:02X}")).collect();
    let other = Certificate::read(&root.der).unwrap().pin();

    // Without other trust, in every form: neither issuer nor name count.
    let forms = [
        &pin,
        pin.trim_start_matches("sha256//"),
        pin.trim_end_matches('='),
        &hex,
        &colons.join(":"),
    ]
    .map(str::to_owned);
    for form in forms {
        let settings =
            TlsSettings::new(Trust::empty().pin(&other).pin(form)).server_name("other.example.com");
        let info = connect(&connector(&settings), server_config(&[&server]))
            .await
            .unwrap();
        assert_eq!(info.verified_by.unwrap(), format!("the pinned key {pin}"));
    }
    let error = connect(
        &connector(&TlsSettings::new(Trust::empty().pin(&other))),
        server_config(&[&server]),
    )
    .await
    .unwrap_err();
    assert_eq!(cause(&error).problem, CertificateProblem::WrongKey);
    assert_says(
        &error,
        &[&format!(
            "the key of mail.example.com is {pin}, and not the one that is pinned, {other}"
        )],
    );

    // The fingerprint of the certificate, given by mistake.
    let fingerprint = &cause(&error).chain[0].sha256;
    let error = connect(
        &connector(&TlsSettings::new(Trust::empty().pin(fingerprint))),
        server_config(&[&server]),
    )
    .await
    .unwrap_err();
    assert_says(
        &error,
        &[&format!("Pin the hash of its key instead, which is {pin}")],
    );

    // With other trust, both are checked.
    let on_top = |trusted: &Party, pin: &str| {
        connector(&TlsSettings::new(Trust::empty().pem(&trusted.pem).pin(pin)))
    };
    let info = connect(&on_top(&root, &pin), server_config(&[&server]))
        .await
        .unwrap();
    assert_eq!(info.verified_by.as_deref(), Some("CN=Root"));
    assert!(
        connect(&on_top(&root, &other), server_config(&[&server]))
            .await
            .is_err()
    );
    let error = connect(
        &on_top(&Party::authority("Other", None), &pin),
        server_config(&[&server]),
    )
    .await
    .unwrap_err();
    assert_eq!(cause(&error).problem, CertificateProblem::UnknownIssuer);
}

/// As in a container without the package ca-certificates: the pin was meant as an additional check.
#[tokio::test]
async fn a_pin_with_an_empty_store_is_refused() {
    let server = Party::server(None);
    let pin = Certificate::read(&server.der).unwrap().pin();
    let mut settings = TlsSettings::new(Trust::system().pin(&pin));
    let mut store = settings.trust.read(crate::file::time_limit()).unwrap();
    assert!(!store.only_pins);
    (store.roots, store.summary) = Default::default();
    assert_says(
        &store.require_anchors().unwrap_err(),
        &["no trusted certificate was found", "ca-certificates"],
    );
    let verifier = verify::Verifier {
        #[cfg(feature = "mx")]
        dane: None,
        store: store.into(),
        verify_mode: VerifyMode::Verified,
        algorithms: provider().signature_verification_algorithms,
        known: Arc::default(),
    };
    let name = rustls::pki_types::ServerName::try_from(HOST).unwrap();
    let failure = verifier.verify(
        std::slice::from_ref(&server.der),
        &name,
        rustls::pki_types::UnixTime::now(),
    );
    assert_eq!(failure.unwrap_err().problem, CertificateProblem::SelfSigned);

    settings.trust = Trust::empty().pin(&pin);
    assert!(
        settings
            .trust
            .read(crate::file::time_limit())
            .unwrap()
            .only_pins
    );
    assert!(
        connect(&connector(&settings), server_config(&[&server]))
            .await
            .unwrap()
            .is_verified()
    );
}

#[tokio::test]
async fn a_revoked_certificate_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.pem");
    let root = Party::authority("Root", None);
    let mut params = named(HOST, &[HOST]);
    params.serial_number = Some(77.into());
    let server = Party::new(params, Some(&root));
    let list = |serial: u64, until: i32| {
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2001, 1, 1),
            next_update: rcgen::date_time_ymd(until, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![rcgen::RevokedCertParams {
                serial_number: serial.into(),
                revocation_time: rcgen::date_time_ymd(2001, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        std::fs::write(&path, list.signed_by(&root.issuer).unwrap().pem().unwrap()).unwrap();
    };
    list(77, 4000);
    let trust = Trust::empty().pem(&root.pem).revocation_list(&path);
    let error = connect(
        &connector(&TlsSettings::new(trust.clone())),
        server_config(&[&server]),
    )
    .await
    .unwrap_err();
    assert_eq!(cause(&error).problem, CertificateProblem::Revoked);
    assert_says(
        &error,
        &["was revoked by its issuer. Do not send anything to it"],
    );

    // With a pin alone, and if the certificate itself is trusted.
    let pin = Certificate::read(&server.der).unwrap().pin();
    for trust in [Trust::empty().pin(pin), Trust::empty().pem(&server.pem)] {
        let trust = trust.revocation_list(&path);
        let settings = TlsSettings::new(trust.clone());
        let shared = SharedConnector::of(&settings, VerifyMode::Verified);
        let connector = shared.load(file::time_limit()).await.unwrap();
        let error = connect(connector, server_config(&[&server]))
            .await
            .unwrap_err();
        assert_eq!(cause(&error).problem, CertificateProblem::Revoked);
        list(78, 4000);
        shared.reload().await.unwrap();
        assert!(
            connect(connector, server_config(&[&server]))
                .await
                .unwrap()
                .is_verified()
        );
        list(77, 4000);
    }

    list(78, 2002);
    assert!(
        trust.load().unwrap().warnings[0]
            .contains("list.pem is out of date: a newer list was due ")
    );
    assert!(
        connect(
            &connector(&TlsSettings::new(trust.clone())),
            server_config(&[&server])
        )
        .await
        .unwrap()
        .is_verified()
    );
    std::fs::write(&path, &root.pem).unwrap();
    assert_eq!(trust.load().unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn any_certificate_is_accepted_if_configured() {
    let server = Party::server(None);
    let settings = TlsSettings::new(Trust::dangerous_accept_any_certificate());
    let info = connect(&connector(&settings), server_config(&[&server]))
        .await
        .unwrap();
    assert!(!info.is_verified());
    assert!(
        info.not_verified_reason
            .unwrap()
            .to_string()
            .contains("is self-signed")
    );
    let settings = TlsSettings::new(Trust::dangerous_accept_any_certificate().pem(&server.pem));
    assert!(
        connect(&connector(&settings), server_config(&[&server]))
            .await
            .unwrap()
            .is_verified()
    );
}

#[tokio::test]
async fn changed_trust_files_are_loaded_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let (old, new) = (Party::authority("Old", None), Party::authority("New", None));
    let server = Party::server(Some(&new));
    std::fs::write(&path, &old.pem).unwrap();
    let settings = TlsSettings::new(Trust::empty().path(&path));
    let connector = SharedConnector::of(&settings, VerifyMode::Verified);
    let clone = connector.load(file::time_limit()).await.unwrap().clone();
    assert!(connect(&clone, server_config(&[&server])).await.is_err());

    std::fs::write(&path, &new.pem).unwrap();
    assert_eq!(
        connector.reload().await.unwrap().anchors[0]
            .certificate
            .subject,
        "CN=New"
    );
    let config = Arc::new(server_config(&[&server]));
    let (mut stream, _) = clone
        .handshake(HOST, serve(&config), TlsMode::Implicit)
        .await
        .unwrap();
    stream.read_exact(&mut [0; 11]).await.unwrap();

    // A failed reload changes nothing.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        connector.reload().await.unwrap_err().kind(),
        ErrorKind::Config
    );
    let (mut stream, info) = clone
        .handshake(HOST, serve(&config), TlsMode::Implicit)
        .await
        .unwrap();
    stream.read_exact(&mut [0; 11]).await.unwrap();
    assert!(info.resumed);

    // A session that other anchors verified is not resumed.
    std::fs::write(&path, &old.pem).unwrap();
    connector.reload().await.unwrap();
    assert!(
        clone
            .handshake(HOST, serve(&config), TlsMode::Implicit)
            .await
            .is_err()
    );
}
