//! Lookups in the zones of the lab: what each answer is, secure or not, records or their absence.

use std::time::Duration;

use envoi::mx::{Absence, Answer, DomainName, LookupErrorKind, Resolver};

use crate::lab::lab;

use Absence::{NoRecords, NoSuchName};

/// What an answer is, without its records.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Secure,
    Absent(Absence),
    Insecure,
    InsecureAbsent(Absence),
    Failed(LookupErrorKind),
}

const BOGUS: Is = Is::Failed(LookupErrorKind::Bogus);
const SERVFAIL: Is = Is::Failed(LookupErrorKind::ServerFailure);

fn is<T>(answer: &Answer<T>) -> Is {
    match answer {
        Answer::Secure(_) => Is::Secure,
        Answer::SecureAbsence(absence) => Is::Absent(*absence),
        Answer::Insecure(Ok(_)) => Is::Insecure,
        Answer::Insecure(Err(absence)) => Is::InsecureAbsent(*absence),
        Answer::Failed(error) => Is::Failed(error.kind()),
    }
}

pub fn resolver() -> Resolver {
    Resolver::new(lab().resolver())
        .anchors(&lab().anchors)
        .unwrap()
}

pub fn name(text: &str) -> DomainName {
    DomainName::new(text).unwrap()
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn mx_records() {
    let resolver = resolver();
    for (domain, expected) in [
        ("signed.example", Is::Secure),
        ("null.signed.example", Is::Secure),
        ("text.signed.example", Is::Absent(NoRecords)),
        ("absent.signed.example", Is::Absent(NoSuchName)),
        ("a.b.absent.signed.example", Is::Absent(NoSuchName)),
        ("example", Is::Absent(NoRecords)),
        ("absent", Is::Absent(NoSuchName)),
        // CNAMEs.
        ("alias.signed.example", Is::Secure),
        ("dangling.signed.example", Is::Absent(NoSuchName)),
        ("circle.signed.example", SERVFAIL),
        ("enters.unsigned.example", Is::Insecure),
        // Wildcards, DNAME.
        ("a.wild.signed.example", Is::Secure),
        ("b.a.wild.signed.example", Is::Secure),
        ("mail.dname.signed.example", Is::Secure),
        ("absent.dname.signed.example", Is::Absent(NoSuchName)),
        ("a.wild.nsec3.example", Is::Secure),
        // NSEC3.
        ("nsec3.example", Is::Secure),
        ("text.nsec3.example", Is::Absent(NoRecords)),
        ("absent.nsec3.example", Is::Absent(NoSuchName)),
        ("a.b.absent.nsec3.example", Is::Absent(NoSuchName)),
        // Opt-out: what is in the zone is proven, absence is not.
        ("optout.example", Is::Secure),
        ("text.optout.example", Is::Absent(NoRecords)),
        ("absent.optout.example", Is::InsecureAbsent(NoSuchName)),
        ("sub.optout.example", Is::Insecure),
        ("absent.sub.optout.example", Is::InsecureAbsent(NoSuchName)),
        // Not signed, and signed with algorithms that do not exist or are not implemented.
        ("unsigned.example", Is::Insecure),
        ("text.unsigned.example", Is::InsecureAbsent(NoRecords)),
        ("absent.unsigned.example", Is::InsecureAbsent(NoSuchName)),
        ("nokeys.example", Is::Insecure),
        ("text.nokeys.example", Is::InsecureAbsent(NoRecords)),
        ("absent.nokeys.example", Is::InsecureAbsent(NoSuchName)),
        // Other algorithms than those of RSA and ECDSA with P-256.
        ("ed25519.example", Is::Secure),
        ("mx.ed25519.example", Is::Absent(NoRecords)),
        ("absent.ed25519.example", Is::Absent(NoSuchName)),
        ("p384.example", Is::Secure),
        ("absent.p384.example", Is::Absent(NoSuchName)),
        ("ed448.example", Is::Insecure),
        ("absent.ed448.example", Is::InsecureAbsent(NoSuchName)),
        // Broken.
        ("expired.example", BOGUS),
        ("absent.expired.example", BOGUS),
        ("forged.example", BOGUS),
        ("absent.forged.example", BOGUS),
        ("wrongds.example", BOGUS),
        ("missing.example", SERVFAIL),
        ("absent.missing.example", SERVFAIL),
    ] {
        let answer = resolver.mx(&name(domain)).await;
        assert_eq!(is(&answer), expected, "{domain}: {answer:?}");
        // From the cache, too.
        let again = resolver.mx(&name(domain)).await;
        assert_eq!(is(&again), expected, "{domain}");
    }
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn mx_records_have_preferences_hosts_and_aliases() {
    let resolver = resolver();
    let mx = async |domain: &str| resolver.mx(&name(domain)).await.records().unwrap().clone();

    let signed = mx("signed.example").await;
    let mut hosts: Vec<_> = signed
        .exchanges
        .iter()
        .map(|mx| (mx.preference, mx.host.clone()))
        .collect();
    hosts.sort();
    let expected = [(10, "mx1.signed.example"), (20, "mx2.signed.example")];
    assert_eq!(
        hosts,
        expected.map(|(preference, host)| (preference, Some(name(host))))
    );
    assert_eq!(
        (signed.name, signed.aliases),
        (name("signed.example"), vec![])
    );

    let alias = mx("alias.signed.example").await;
    let aliases = ["alias.signed.example", "alias2.signed.example"].map(name);
    assert_eq!(
        (alias.name, alias.aliases),
        (name("signed.example"), aliases.to_vec())
    );

    let dname = mx("mail.dname.signed.example").await;
    assert_eq!(dname.name, name("mail.wild2.signed.example"));

    let null = mx("null.signed.example").await;
    assert_eq!((null.exchanges.len(), &null.exchanges[0].host), (1, &None));

    // Only the host that is a name.
    let odd = mx("odd.signed.example").await;
    assert_eq!(odd.exchanges.len(), 1);
    assert_eq!(odd.exchanges[0].host, Some(name("mx1.signed.example")));
    assert_eq!(mx("worse.signed.example").await.exchanges, []);
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn addresses() {
    let resolver = resolver();
    for (host, expected, is_name_secure) in [
        ("mx1.signed.example", Is::Secure, true),
        ("mx2.signed.example", Is::Secure, true),
        ("alias.signed.example", Is::Absent(NoRecords), false),
        ("dangling.signed.example", Is::Absent(NoSuchName), false),
        ("b.a.wild.signed.example", Is::Secure, true),
        // A secure CNAME into an unsigned zone, and an unsigned one into a signed zone.
        ("mx.leaves.signed.example", Is::Insecure, true),
        ("mx.enters.unsigned.example", Is::Insecure, false),
        ("mx.unsigned.example", Is::Insecure, false),
        ("mx.forged.example", Is::Secure, true),
        ("address.forged.example", BOGUS, false),
        ("alias.forged.example", BOGUS, false),
        ("mx.expired.example", BOGUS, false),
        ("mx.missing.example", SERVFAIL, false),
    ] {
        let answer = resolver.addresses(&name(host)).await;
        assert_eq!(is(&answer), expected, "{host}: {answer:?}");
        let found = answer.records().is_some_and(|found| found.is_name_secure);
        assert_eq!(found, is_name_secure, "{host}: {answer:?}");
    }
    let both = resolver.addresses(&name("mx1.signed.example")).await;
    let expected: [std::net::IpAddr; 2] = [lab().address(10).into(), "::1".parse().unwrap()];
    assert_eq!(both.records().unwrap().addresses, expected);
    let leaves = resolver.addresses(&name("mx.leaves.signed.example")).await;
    let leaves = leaves.records().unwrap();
    assert_eq!(leaves.name, name("mx.unsigned.example"));
    assert_eq!(leaves.aliases, [name("mx.leaves.signed.example")]);
    // One family suffices, and the failure of the other is told.
    let half = resolver.addresses(&name("half.forged.example")).await;
    assert_eq!(is(&half), Is::Secure, "{half:?}");
    let incomplete = half.records().unwrap().incomplete.as_ref().unwrap();
    assert_eq!(incomplete.kind(), LookupErrorKind::Bogus);
    assert_eq!(incomplete.record_type(), "AAAA");
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn tlsa_records() {
    let resolver = resolver();
    for (base, expected) in [
        ("mx1.signed.example", Is::Secure),
        ("mx2.signed.example", Is::Secure),
        ("host.signed.example", Is::Absent(NoSuchName)),
        ("a.wild.signed.example", Is::Absent(NoRecords)),
        ("mx.nsec3.example", Is::Secure),
        ("nsec3.example", Is::Absent(NoSuchName)),
        ("big.signed.example", Is::Secure),
        ("mx.unsigned.example", Is::Insecure),
        ("mx.ed25519.example", Is::Secure),
        ("ed25519.example", Is::Absent(NoSuchName)),
        ("tlsa.forged.example", BOGUS),
        ("stripped.forged.example", BOGUS),
        ("mx.missing.example", SERVFAIL),
    ] {
        let answer = resolver.tlsa(&name(base), 25).await;
        assert_eq!(is(&answer), expected, "{base}: {answer:?}");
    }
    let records = resolver.tlsa(&name("mx1.signed.example"), 25).await;
    let mut texts: Vec<_> = records
        .records()
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    texts.sort();
    let tlsa = |usage, selector| {
        lab()
            .certificates
            .tlsa("mx1.signed.example", usage, selector, 1)
    };
    assert_eq!(
        texts,
        [tlsa(2, 0), tlsa(3, 1)].map(|text| text.to_lowercase())
    );
    // Too long for UDP.
    let big = resolver.tlsa(&name("big.signed.example"), 25).await;
    assert_eq!(big.records().unwrap().len(), 5);
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn texts() {
    let resolver = resolver();
    let answer = resolver.txt(&name("signed.example")).await;
    let mut texts = answer.records().unwrap().clone();
    texts.sort();
    assert_eq!(texts, [b"two strings".to_vec(), b"v=spf1 mx -all".to_vec()]);
    let big = resolver.txt(&name("big.signed.example")).await;
    assert_eq!(big.records().unwrap()[0].len(), 4 * 130);
    assert_eq!(
        is(&resolver.txt(&name("mx1.signed.example")).await),
        Is::Absent(NoRecords)
    );
}

/// The resolver is asked by IPv6.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_resolver_has_an_ipv6_address() {
    let Some(server) = lab().resolver_v6() else {
        println!("skipped: this machine has no IPv6");
        return;
    };
    let resolver = Resolver::new(server).anchors(&lab().anchors).unwrap();
    assert_eq!(is(&resolver.mx(&name("signed.example")).await), Is::Secure);
    let big = resolver.tlsa(&name("big.signed.example"), 25).await;
    assert_eq!(is(&big), Is::Secure);
}

/// With the keys of the real root, the lab's is bogus; with those of one zone, only that is secure.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn anchors_decide() {
    let domain = name("signed.example");
    let root = Resolver::new(lab().resolver()).timeout(Duration::from_secs(60));
    assert_eq!(is(&root.mx(&domain).await), BOGUS);
    let other = "other.example. IN DS 1 13 2 \
                 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D";
    let other = Resolver::new(lab().resolver()).anchors(other).unwrap();
    assert_eq!(is(&other.mx(&domain).await), Is::Insecure);
}
