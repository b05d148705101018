//! TLSA records: their forms, and what matches them.

use super::*;
use crate::tls::dane::{Dane, TlsaRecord};

fn spki(der: &[u8]) -> Vec<u8> {
    use x509_cert::der::{Decode as _, Encode as _};
    let parsed = x509_cert::Certificate::from_der(der).unwrap();
    let key = parsed.tbs_certificate().subject_public_key_info();
    key.to_der().unwrap()
}

#[test]
fn rdata_is_three_fields_and_the_rest() {
    for short in [&[][..], &[3], &[3, 1]] {
        assert_eq!(TlsaRecord::from_rdata(short), None);
    }
    let record = TlsaRecord::from_rdata(&[3, 1, 1, 0x0A, 0xFF]).unwrap();
    assert_eq!(
        (record.usage(), record.selector(), record.matching()),
        (3, 1, 1)
    );
    assert_eq!(record.data(), [0x0A, 0xFF]);
    assert_eq!(record.to_string(), "3 1 1 0aff");
    let empty = TlsaRecord::from_rdata(&[3, 1, 0]).unwrap();
    assert!(empty.data().is_empty() && !empty.is_usable());
}

/// RFC 7672, 3.1.3: usages 0 and 1 are unusable; RFC 7671, 10: so are unknown values and data that
/// cannot be right.
#[test]
fn usable_records_have_known_fields_and_data_of_their_form() {
    let certificate = Party::server(None).der.to_vec();
    let key = spki(&certificate);
    for (usage, selector, matching, data, is_usable) in [
        (0, 0, 1, vec![1; 32], false),
        (1, 1, 1, vec![1; 32], false),
        (2, 0, 1, vec![1; 32], true),
        (3, 1, 1, vec![1; 32], true),
        (3, 1, 2, vec![1; 64], true),
        (4, 1, 1, vec![1; 32], false),
        (255, 1, 1, vec![1; 32], false),
        (3, 2, 1, vec![1; 32], false),
        (3, 1, 3, vec![1; 32], false),
        (3, 1, 1, vec![1; 31], false),
        (3, 1, 1, vec![1; 64], false),
        (3, 1, 2, vec![1; 32], false),
        (3, 0, 0, certificate.clone(), true),
        (3, 0, 0, key.clone(), false),
        (2, 1, 0, key.clone(), true),
        (2, 1, 0, certificate.clone(), false),
        (3, 0, 0, [&certificate[..], &[0]].concat(), false),
        (3, 1, 0, [&key[..], &[0]].concat(), false),
        (
            3,
            0,
            0,
            certificate[..certificate.len() - 1].to_vec(),
            false,
        ),
    ] {
        let record = TlsaRecord::new(usage, selector, matching, data);
        assert_eq!(record.is_usable(), is_usable, "{record}");
    }
}

#[test]
fn a_record_matches_the_certificate_or_key_that_it_is_of() {
    use sha2::{Digest as _, Sha256, Sha512};
    let (server, other) = (Party::server(None), Party::server(None));
    let read = |party: &Party| Certificate::read(&party.der).unwrap();
    let (certificate, key) = (server.der.to_vec(), spki(&server.der));
    for usage in [2, 3] {
        for (selector, content) in [(0, &certificate), (1, &key)] {
            for (matching, data) in [
                (0, content.clone()),
                (1, Sha256::digest(content).to_vec()),
                (2, Sha512::digest(content).to_vec()),
            ] {
                let record = TlsaRecord::new(usage, selector, matching, data);
                assert!(record.matches(&read(&server)), "{record}");
                assert!(!record.matches(&read(&other)), "{record}");
            }
        }
    }
    let of_key = TlsaRecord::of_key(&read(&server));
    assert!(of_key.to_string().starts_with("3 1 1 "));
    assert!(of_key.matches(&read(&server)));
    let unusable = TlsaRecord::new(1, 1, 1, of_key.data());
    assert!(!unusable.matches(&read(&server)));
}

/// The parties of the cases below.
struct Parties {
    root: Party,
    /// Another authority of the same name.
    impostor: Party,
    middle: Party,
    server: Party,
    /// Issued by the root itself.
    direct: Party,
    self_signed: Party,
    expired: Party,
    expired_middle: Party,
    below_expired_middle: Party,
    expired_root: Party,
    below_expired_root: Party,
    /// Not an authority, but it issued one.
    no_authority: Party,
    below_no_authority: Party,
    /// An authority with no other below it.
    limited: Party,
    below_limited: Party,
    server_below_limited: Party,
    for_clients: Party,
    below_for_clients: Party,
    other_name: Party,
    wildcard: Party,
    common_name: Party,
    common_name_wildcard: Party,
    below_impostor: Party,
    authority_itself: Party,
}

fn expired(mut params: CertificateParams) -> CertificateParams {
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = named(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

impl Parties {
    fn new() -> Self {
        let server = || named("server", &[HOST]);
        let root = Party::authority("Root", None);
        let impostor = Party::authority("Root", None);
        let middle = Party::authority("Middle", Some(&root));
        let expired_middle = Party::new(expired(authority("Old Middle")), Some(&root));
        let expired_root = Party::new(expired(authority("Old Root")), None);
        let no_authority = Party::new(named("None", &[]), Some(&root));
        let mut params = authority("Limited");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let limited = Party::new(params, None);
        let below_limited = Party::authority("Below", Some(&limited));
        let mut params = authority("Clients");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let for_clients = Party::new(params, None);
        Parties {
            server: Party::new(server(), Some(&middle)),
            direct: Party::new(server(), Some(&root)),
            self_signed: Party::new(named("self", &["other.example.net"]), None),
            expired: Party::new(expired(server()), Some(&root)),
            below_expired_middle: Party::new(server(), Some(&expired_middle)),
            below_expired_root: Party::new(server(), Some(&expired_root)),
            below_no_authority: Party::new(server(), Some(&no_authority)),
            server_below_limited: Party::new(server(), Some(&below_limited)),
            below_for_clients: Party::new(server(), Some(&for_clients)),
            other_name: Party::new(named("mail", &["example.org"]), Some(&root)),
            wildcard: Party::new(named("mail", &["*.example.com"]), Some(&root)),
            common_name: Party::new(named(HOST, &[]), Some(&root)),
            common_name_wildcard: Party::new(named("*.example.com", &[]), Some(&root)),
            below_impostor: Party::new(server(), Some(&impostor)),
            authority_itself: Party::new(authority(HOST), None),
            root,
            impostor,
            middle,
            expired_middle,
            expired_root,
            no_authority,
            limited,
            below_limited,
            for_clients,
        }
    }
}

/// A record as the server's administrator would publish it for a certificate.
fn record(usage: u8, selector: u8, matching: u8, party: &Party) -> TlsaRecord {
    use sha2::{Digest as _, Sha256, Sha512};
    let selected = match selector {
        0 => party.der.to_vec(),
        _ => spki(&party.der),
    };
    let data = match matching {
        0 => selected,
        1 => Sha256::digest(selected).to_vec(),
        _ => Sha512::digest(selected).to_vec(),
    };
    TlsaRecord::new(usage, selector, matching, data)
}

struct Case<'a> {
    what: &'static str,
    records: Vec<TlsaRecord>,
    chain: Vec<&'a Party>,
    is_accepted: bool,
}

/// What each chain is worth with each set of records, by RFC 7671 and RFC 7672.
fn cases<'p>(parties: &'p Parties) -> Vec<Case<'p>> {
    let Parties {
        root,
        impostor,
        middle,
        server,
        direct,
        self_signed,
        expired,
        expired_middle,
        below_expired_middle,
        expired_root,
        below_expired_root,
        no_authority,
        below_no_authority,
        limited,
        below_limited,
        server_below_limited,
        for_clients,
        below_for_clients,
        other_name,
        wildcard,
        common_name,
        common_name_wildcard,
        below_impostor,
        authority_itself,
    } = parties;
    let mut cases = Vec::new();
    let mut case =
        |what: &'static str, is_accepted, records: &[TlsaRecord], chain: &[&'p Party]| {
            cases.push((what, is_accepted, records.to_vec(), chain.to_vec()));
        };
    // Every selector and matching type.
    for (selector, matching) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
        let of = |usage, party| record(usage, selector, matching, party);
        let full = [server, middle, root];
        case("the server itself", true, &[of(3, server)], &[server]);
        case("the server, with a chain", true, &[of(3, server)], &full);
        case("the server, not that", false, &[of(3, server)], &[direct]);
        case("the root, sent", true, &[of(2, root)], &full);
        case("the intermediate, sent", true, &[of(2, middle)], &full);
        case(
            "the intermediate, last",
            true,
            &[of(2, middle)],
            &[server, middle],
        );
        case(
            "the issuer of the server",
            true,
            &[of(2, root)],
            &[direct, root],
        );
        case(
            "in another order",
            true,
            &[of(2, root)],
            &[server, root, middle],
        );
        let is_held = matching == 0;
        case(
            "the root, not sent",
            is_held,
            &[of(2, root)],
            &[server, middle],
        );
        case("the issuer, not sent", is_held, &[of(2, middle)], &[server]);
        case("two below the root", false, &[of(2, root)], &[server]);
        case("an authority as server", false, &[of(3, root)], &full);
        case(
            "the server as authority",
            false,
            &[of(2, server)],
            &[server],
        );
        case(
            "an authority beside",
            false,
            &[of(2, impostor)],
            &[server, middle, impostor],
        );
        case(
            "an impostor of the name",
            false,
            &[of(2, root)],
            &[below_impostor, root],
        );
        case(
            "an impostor, sent too",
            false,
            &[of(2, root)],
            &[below_impostor, impostor, root],
        );
        case("the wrong authority", false, &[of(2, limited)], &full);
    }
    // Usage 3 is for the key alone.
    for party in [
        self_signed,
        expired,
        other_name,
        below_expired_root,
        authority_itself,
    ] {
        case(
            "names, dates, issuers",
            true,
            &[record(3, 1, 1, party)],
            &[party],
        );
        case(
            "for itself as authority",
            false,
            &[record(2, 1, 1, party)],
            &[party],
        );
        let twice = [party, party];
        case("sent twice", false, &[record(2, 1, 1, party)], &twice);
    }
    // Usage 2 is for the chain up to the authority.
    let below = |party| [record(2, 0, 1, party)];
    case("expired", false, &below(root), &[expired, root]);
    case(
        "expired above",
        false,
        &below(root),
        &[below_expired_middle, expired_middle, root],
    );
    case(
        "expired anchor",
        false,
        &below(expired_middle),
        &[below_expired_middle, expired_middle],
    );
    case(
        "expired root",
        false,
        &below(expired_root),
        &[below_expired_root, expired_root],
    );
    case(
        "expired root, held",
        false,
        &[record(2, 0, 0, expired_root)],
        &[below_expired_root],
    );
    case(
        "no authority",
        false,
        &below(root),
        &[below_no_authority, no_authority, root],
    );
    case(
        "no authority, anchor",
        false,
        &below(no_authority),
        &[below_no_authority, no_authority],
    );
    let chain = [server_below_limited, below_limited, limited];
    case("too many authorities", false, &below(limited), &chain);
    case("one below the limit", true, &below(below_limited), &chain);
    case(
        "not for servers",
        false,
        &below(for_clients),
        &[below_for_clients, for_clients],
    );
    case("another name", false, &below(root), &[other_name, root]);
    case("a wildcard", true, &below(root), &[wildcard, root]);
    case("a common name", true, &below(root), &[common_name, root]);
    case(
        "a common name, wild",
        true,
        &below(root),
        &[common_name_wildcard, root],
    );
    // Several records: one is enough.
    let other = record(3, 1, 1, direct);
    case(
        "the next key, too",
        true,
        &[other.clone(), record(3, 1, 1, server)],
        &[server],
    );
    case(
        "a new key, and an authority",
        true,
        &[other.clone(), record(2, 1, 1, root)],
        &[server, middle, root],
    );
    case(
        "none of two",
        false,
        &[other, record(2, 1, 1, limited)],
        &[server, middle, root],
    );
    // RFC 7671, 9: the strongest digest decides.
    let weak_right = [record(3, 1, 1, server), record(3, 1, 2, direct)];
    case("a weaker digest", false, &weak_right, &[server]);
    case(
        "the strongest digest",
        true,
        &[record(3, 1, 2, server), record(3, 1, 1, direct)],
        &[server],
    );
    case(
        "of another selector",
        true,
        &[record(3, 0, 1, server), record(3, 1, 2, direct)],
        &[server],
    );
    case(
        "of another usage",
        true,
        &[record(3, 1, 1, server), record(2, 1, 2, root)],
        &[server],
    );
    case(
        "without a digest",
        true,
        &[record(3, 1, 0, server), record(3, 1, 2, direct)],
        &[server],
    );
    let unusable = TlsaRecord::new(3, 1, 2, vec![0; 63]);
    case(
        "an unusable stronger one",
        true,
        &[record(3, 1, 1, server), unusable],
        &[server],
    );
    let pkix = record(1, 1, 1, server);
    case(
        "usage 1 beside another",
        false,
        &[pkix.clone(), record(3, 1, 1, direct)],
        &[server],
    );
    case(
        "usage 1 beside the right one",
        true,
        &[pkix, record(3, 1, 1, server)],
        &[server],
    );
    let cases = cases.into_iter();
    cases
        .map(|(what, is_accepted, records, chain)| Case {
            what,
            records,
            chain,
            is_accepted,
        })
        .collect()
}

fn verify(dane: &Dane, chain: &[&Party]) -> Result<String> {
    let chain: Vec<_> = chain.iter().map(|party| &party.der).collect();
    dane.verify(&chain, SystemTime::now())
}

async fn handshake(dane: &Dane, chain: &[&Party]) -> Result<TlsInfo> {
    let settings = TlsSettings::default().dane(dane.clone());
    connect(&connector(&settings), server_config(chain)).await
}

#[tokio::test]
async fn a_chain_is_verified_by_the_records_as_the_rfcs_say() {
    let parties = Parties::new();
    for Case {
        what,
        records,
        chain,
        is_accepted,
    } in cases(&parties)
    {
        let texts: Vec<_> = records.iter().map(TlsaRecord::to_string).collect();
        let dane = Dane::new(HOST, records.clone());
        let result = verify(&dane, &chain);
        assert_eq!(result.is_ok(), is_accepted, "{what}: {texts:?}: {result:?}");
        let info = handshake(&dane, &chain).await;
        assert_eq!(info.is_ok(), is_accepted, "{what}: {texts:?}: {info:?}");
        match (result, info) {
            (Ok(by), Ok(info)) => {
                assert!(info.is_verified());
                assert_eq!(info.verified_by.as_ref(), Some(&by));
                let is_named = |text: &String| by.starts_with(&format!("the TLSA record {text}"));
                assert!(texts.iter().any(is_named), "{what}: {by}");
            }
            (Err(error), Err(other)) => {
                assert_eq!((error.kind(), error.phase()), (ErrorKind::Tls, Phase::Tls));
                assert_eq!(error.to_string(), other.to_string());
                assert_says(
                    &error,
                    &[&format!("DANE does not verify {HOST}: "), "TLSA record"],
                );
                assert!(!error.to_string().contains("Trust::"), "{error}");
            }
            _ => unreachable!("both agree"),
        }
    }
}

#[tokio::test]
async fn every_reference_name_is_accepted_and_no_other() {
    let root = Party::authority("Root", None);
    for (names, is_accepted) in [
        (&["example.org"][..], true),
        (&["alias.example.net"], true),
        (&["MX1.Example.NET"], true),
        (&["other.example.com", "example.org"], true),
        (&["*.example.net"], true),
        (&["*.org"], false),
        (&["*.net"], false),
        (&["a.example.org"], false),
        (&["*.example.org"], false),
        (&["m*.example.net"], false),
        (&["org"], false),
    ] {
        let dane = Dane::new("mx1.example.net", [record(2, 1, 1, &root)])
            .name("example.org")
            .name("alias.example.net");
        // With DNS names, and with none but the common name.
        let with_names = Party::new(named("CN", names), Some(&root));
        let with_common_name = Party::new(named(names[names.len() - 1], &[]), Some(&root));
        for server in [with_names, with_common_name] {
            let result = verify(&dane, &[&server, &root]);
            assert_eq!(result.is_ok(), is_accepted, "{names:?}: {result:?}");
            if let Err(error) = result {
                assert_says(
                    &error,
                    &[
                        &format!("is for {}", names[0]),
                        "not for mx1.example.net or example.org or alias.example.net",
                    ],
                );
                assert_eq!(cause(&error).problem, CertificateProblem::WrongName);
            }
        }
    }
    // A common name does not count beside a DNS name.
    let server = Party::new(named("example.org", &["example.com"]), Some(&root));
    let dane = Dane::new("example.org", [record(2, 1, 1, &root)]);
    assert!(verify(&dane, &[&server, &root]).is_err());
}

/// webpki does not apply them to a common name.
#[test]
fn a_common_name_does_not_count_below_name_constraints() {
    use rcgen::{GeneralSubtree, NameConstraints};
    let mut params = authority("Limited");
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("example.org".into())],
        excluded_subtrees: Vec::new(),
    });
    let root = Party::authority("Root", None);
    let limited = Party::new(params, Some(&root));
    let common_name = Party::new(named(HOST, &[]), Some(&limited));
    let outside = Party::new(named("mail", &[HOST]), Some(&limited));
    let inside = Party::new(named("mail", &["mx.example.org"]), Some(&limited));
    for anchor in [&root, &limited] {
        let dane = Dane::new(HOST, [record(2, 0, 1, anchor)]).name("mx.example.org");
        assert!(verify(&dane, &[&common_name, &limited, &root]).is_err());
        assert!(verify(&dane, &[&outside, &limited, &root]).is_err());
        assert!(verify(&dane, &[&inside, &limited, &root]).is_ok());
    }
}

#[tokio::test]
async fn with_unusable_records_alone_any_certificate_will_do() {
    let (server, expired) = (
        Party::server(None),
        Party::new(expired(named("old", &[])), None),
    );
    for record in [
        record(0, 0, 1, &server),
        record(1, 1, 1, &server),
        TlsaRecord::new(3, 1, 1, [0; 20]),
        TlsaRecord::new(3, 1, 9, [0; 32]),
        TlsaRecord::new(2, 0, 0, [0; 32]),
    ] {
        let dane = Dane::new(HOST, [record.clone()]);
        assert!(!dane.is_usable());
        for party in [&server, &expired] {
            let info = handshake(&dane, &[party]).await.unwrap();
            assert!(!info.is_verified() && info.verified_by.is_none());
            let reason = info.not_verified_reason.unwrap().to_string();
            let expected = format!(
                "DANE cannot verify {HOST}: its TLSA record is {record}, and none is usable"
            );
            assert_eq!(reason, expected);
            assert!(verify(&dane, &[party]).is_err());
        }
    }
}

#[test]
fn a_failure_names_records_chain_and_remedy() {
    let parties = Parties::new();
    let Parties {
        root,
        server,
        direct,
        middle,
        expired,
        ..
    } = &parties;
    let own = record(3, 1, 1, server).to_string();
    let error = verify(
        &Dane::new(HOST, [record(3, 1, 1, direct), record(2, 0, 1, root)]),
        &[server, middle],
    )
    .unwrap_err();
    assert_eq!(cause(&error).problem, CertificateProblem::WrongKey);
    assert_says(
        &error,
        &[
            &format!("it presents the certificate \"CN=server\" with the key {own}, and no"),
            &format!(
                "its TLSA records are {}, {}",
                record(2, 0, 1, root),
                record(3, 1, 1, direct)
            ),
            &format!("publish a TLSA record for the key in use ({own})"),
        ],
    );
    let error = verify(&Dane::new(HOST, [record(2, 0, 1, root)]), &[server, root]).unwrap_err();
    assert_eq!(cause(&error).problem, CertificateProblem::UnknownIssuer);
    assert_says(
        &error,
        &["was not issued under the authority of a TLSA record, even if that"],
    );
    let error = verify(&Dane::new(HOST, [record(2, 0, 1, root)]), &[expired, root]).unwrap_err();
    assert_eq!(cause(&error).problem, CertificateProblem::Expired);
    assert_says(
        &error,
        &[
            "expired",
            "ago, at 2021-01-01",
            "or publish a record for the server's",
        ],
    );
    let error = verify(&Dane::new(HOST, [record(3, 0, 0, root)]), &[server]).unwrap_err();
    assert!(error.to_string().len() < 1000, "{error}");
    let error = verify(&Dane::new(HOST, [record(3, 1, 1, root)]), &[]).unwrap_err();
    assert_says(&error, &["sent no certificate"]);
}

#[tokio::test]
async fn the_base_domain_is_sent_as_server_name() {
    let server = Party::server(None);
    let dane = Dane::new("base.example.net", [record(3, 1, 1, &server)]).name(HOST);
    let settings = TlsSettings::default().dane(dane);
    assert_eq!(settings.get_server_name(), Some("base.example.net"));
    let hello = connector(&settings).client_hello(HOST).unwrap();
    let contains = |name: &str| {
        hello
            .windows(name.len())
            .any(|part| part == name.as_bytes())
    };
    assert!(contains("base.example.net") && !contains(HOST));
}

#[tokio::test]
async fn sessions_are_resumed_with_the_same_records_alone() {
    let (server, other) = (Party::server(None), Party::server(None));
    let config = Arc::new(server_config(&[&server]));
    let right = record(3, 1, 1, &server);
    let next = record(3, 1, 1, &other);
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let client = async |records: &[&TlsaRecord], host: &str| {
            let dane = Dane::new(host, records.iter().copied().cloned());
            let settings = TlsSettings::default().dane(dane);
            let settings = settings.min_version(version).max_version(version);
            let shared = SharedConnector::of(&settings, VerifyMode::Verified);
            let connector = shared.load(file::time_limit()).await?;
            let stream = serve(&config);
            let (mut stream, info) = connector.handshake(HOST, stream, TlsMode::StartTls).await?;
            stream.read_exact(&mut [0; 11]).await.unwrap();
            Ok::<_, Error>((shared.clone(), info.resumed))
        };
        let (_one, resumed) = client(&[&right], HOST).await.unwrap();
        assert!(!resumed);
        let (_same, resumed) = client(&[&right], HOST).await.unwrap();
        assert!(resumed, "{version}");
        // The order of an answer does not matter.
        let (_two, resumed) = client(&[&right, &next], HOST).await.unwrap();
        assert!(!resumed, "{version}");
        let (_two, resumed) = client(&[&next, &right, &next], HOST).await.unwrap();
        assert!(resumed, "{version}");
        let (_base, resumed) = client(&[&right], "mx.example.com").await.unwrap();
        assert!(!resumed, "{version}");
        assert!(client(&[&next], HOST).await.is_err());
    }
}

/// RFC 7672, 3.1.1: nothing but the key counts, so the form of the rest does not, either. The key
/// still has to sign the handshake.
#[tokio::test]
async fn a_certificate_that_webpki_cannot_parse_is_known_by_its_key() {
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    // Made by `openssl x509 -req -signkey`: X.509 version 1.
    let der = CertificateDer::from_pem_slice(include_bytes!("version1.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("version1.pem")).unwrap();
    assert!(webpki::EndEntityCert::try_from(&der).is_err());
    let certificate = Certificate::read(&der).unwrap();
    let another = Party::server(None);
    for version in [&TLS12, &TLS13] {
        let config = |key: PrivateKeyDer<'static>| {
            let key = provider().key_provider.load_private_key(key).unwrap();
            let own = tokio_rustls::rustls::sign::CertifiedKey::new(vec![der.clone()], key);
            ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[version])
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(
                    tokio_rustls::rustls::sign::SingleCertAndKey::from(own),
                ))
        };
        for record in [
            TlsaRecord::of_key(&certificate),
            TlsaRecord::new(3, 0, 1, certificate.hash()),
        ] {
            let dane = Dane::new(HOST, [record]);
            let connector = connector(&TlsSettings::default().dane(dane));
            let info = connect(&connector, config(key.clone_key())).await.unwrap();
            assert!(info.is_verified());
            let other = PrivateKeyDer::try_from(another.key.clone()).unwrap();
            let error = connect(&connector, config(other)).await.unwrap_err();
            assert_says(&error, &["signature"]);
        }
    }
    let dane = Dane::new(
        "old.example.net",
        [TlsaRecord::new(2, 0, 1, certificate.hash())],
    );
    assert!(dane.verify(&[&der], SystemTime::now()).is_err());
}

#[tokio::test]
async fn opportunistic_tls_with_records_is_strict() {
    let settings = TlsSettings::default().dane(Dane::new(HOST, []));
    assert!(settings.demands_key());
    let endpoint = crate::Endpoint::new(HOST).tls(settings);
    assert!(
        endpoint
            .clone()
            .security(Security::Opportunistic)
            .demands_trust()
    );
    assert!(endpoint.security(Security::None).check().is_err());
}

#[test]
fn a_rustls_config_does_not_go_with_records() {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let settings = TlsSettings::default().rustls_config(Arc::new(config));
    let endpoint = |settings| crate::Endpoint::new(HOST).tls(settings);
    assert!(endpoint(settings.clone()).check().is_ok());
    let records = Dane::new(HOST, [TlsaRecord::new(3, 1, 1, [0; 32])]);
    let error = endpoint(settings.dane(records)).check().unwrap_err();
    assert!(error.message().contains("TLSA"), "{error}");
}

/// Whether `openssl s_client`, which Postfix's verification is part of, accepts a chain.
async fn openssl_accepts(records: &[TlsaRecord], chain: &[&Party]) -> bool {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let acceptor = TlsAcceptor::from(Arc::new(server_config(chain)));
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        if let Ok(mut stream) = acceptor.accept(stream).await {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let mut command = tokio::process::Command::new("openssl");
    command
        .args(["s_client", "-brief", "-verify_return_error", "-connect"])
        .arg(address)
        .args(["-dane_ee_no_namechecks", "-dane_tlsa_domain", HOST]);
    for record in records.iter().filter(|record| record.is_usable()) {
        command.args(["-dane_tlsa_rrdata", &record.to_string()]);
    }
    let output = command.stdin(std::process::Stdio::null()).output();
    let output = output.await.expect("openssl is installed");
    server.abort();
    let text = String::from_utf8_lossy(&output.stderr);
    let is_accepted = output.status.success();
    assert_eq!(text.contains("Verification: OK"), is_accepted, "{text}");
    is_accepted
}

#[tokio::test]
#[ignore = "needs openssl"]
async fn openssl_comes_to_the_same_decisions() {
    let parties = Parties::new();
    let mut differences = Vec::new();
    for case in cases(&parties) {
        if openssl_accepts(&case.records, &case.chain).await != case.is_accepted {
            differences.push(case.what);
        }
    }
    // OpenSSL does not look at the dates of an authority that is not self-signed where a record is
    // of it, and does where it is self-signed or below another.
    assert_eq!(differences, ["expired anchor"]);
}
