//! Zones that are signed here, and what an attacker makes of their answers.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _,
};
use domain::base::iana::{Class, DigestAlgorithm};
use domain::base::name::FlattenInto as _;
use domain::base::{Record, ToName as _};
use domain::dnssec::validator::base::{DnskeyExt as _, RrsigExt as _};
use domain::rdata::dnssec::{RtypeBitmap, Timestamp};
use domain::rdata::{Dnskey, Ds, Nsec, ZoneRecordData};
use domain::zonefile::inplace::{Entry, Zonefile};

use super::*;
use SecurityAlgorithm as Algorithm;

type Owner = Name<Vec<u8>>;
type Data = ZoneRecordData<Vec<u8>, Owner>;
type Rec = Record<Owner, Data>;

const TTL: Ttl = Ttl::from_secs(3600);

fn wire(text: &str) -> Owner {
    Name::vec_from_str(text).unwrap()
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
}

struct Key {
    algorithm: Algorithm,
    pair: Pair,
}

impl Key {
    fn new(algorithm: Algorithm) -> Self {
        let ecdsa = |signing| Pair::Ecdsa(EcdsaKeyPair::generate(signing).unwrap());
        let pair = match algorithm {
            Algorithm::ECDSAP256SHA256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::ECDSAP384SHA384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            // The data of a key of Ed448 does not matter, as it is not verified.
            _ => Pair::Ed25519(Ed25519KeyPair::generate().unwrap()),
        };
        Key { algorithm, pair }
    }

    fn dnskey(&self) -> Dnskey<Vec<u8>> {
        let key = match &self.pair {
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            // Without the octet for a point that is not compressed (RFC 6605, 4).
            Pair::Ecdsa(pair) => &pair.public_key().as_ref()[1..],
        };
        Dnskey::new(257, 3, self.algorithm, key.to_vec()).unwrap()
    }

    fn sign(&self, data: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Ed25519(pair) => pair.sign(data).as_ref().to_vec(),
            Pair::Ecdsa(pair) => {
                let signature = pair.sign(&SystemRandom::new(), data).unwrap();
                signature.as_ref().to_vec()
            }
        }
    }
}

struct Zone {
    apex: Owner,
    key: Option<Key>,
    records: Vec<Rec>,
}

/// All zones, in one server.
struct World {
    zones: Vec<Zone>,
    /// Since when the signatures are valid, and until when.
    valid: (u32, u32),
    /// The signatures that were made, by what they sign: those of ECDSA differ each time.
    signatures: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
}

/// An answer before it is sent.
#[derive(Default)]
struct Response {
    answer: Vec<Rec>,
    authority: Vec<Rec>,
}

fn now() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs().try_into().unwrap()
}

impl World {
    /// Zones by their name, algorithm and records.
    fn new(zones: &[(&str, Option<Algorithm>, &str)]) -> Self {
        let zones = zones.iter().map(|(apex, algorithm, records)| {
            let mut file = Zonefile::new();
            file.set_default_class(Class::IN);
            file.extend_from_slice(b"$TTL 3600\n");
            file.extend_from_slice(records.as_bytes());
            file.extend_from_slice(b"\n");
            let records = file.map(|entry| match entry.unwrap() {
                Entry::Record(record) => record.flatten_into(),
                entry => panic!("{entry:?}"),
            });
            Zone {
                apex: wire(apex),
                key: algorithm.map(Key::new),
                records: records.collect(),
            }
        });
        World {
            zones: zones.collect(),
            valid: (now() - 3600, now() + 3600),
            signatures: Mutex::default(),
        }
    }

    fn anchor(&self) -> String {
        let root = &self.zones[0];
        let key = root.key.as_ref().unwrap().dnskey();
        format!(". IN DS {}", digest(&root.apex, &key))
    }

    /// The zone that answers for a name.
    fn zone_of(&self, name: &Owner, record_type: Rtype) -> &Zone {
        let zones = self.zones.iter().filter(|zone| {
            name.ends_with(&zone.apex) && (record_type != Rtype::DS || *name != zone.apex)
        });
        zones.max_by_key(|zone| zone.apex.label_count()).unwrap()
    }

    fn records(&self, zone: &Zone, name: &Owner, record_type: Rtype) -> Vec<Rec> {
        let record = |data: Data| Record::new(name.clone(), Class::IN, TTL, data);
        match (record_type, &zone.key) {
            (Rtype::DNSKEY, Some(key)) if *name == zone.apex => {
                return vec![record(key.dnskey().into())];
            }
            (Rtype::DS, _) => {
                let child = self.zones.iter().find(|child| child.apex == *name);
                let key = child.and_then(|child| child.key.as_ref());
                return key
                    .map(|key| record(digest(name, &key.dnskey()).into()))
                    .into_iter()
                    .collect();
            }
            _ => {}
        }
        let records = zone.records.iter();
        records
            .filter(|record| record.rtype() == record_type && record.owner() == name)
            .cloned()
            .collect()
    }

    /// The signature of records, as those of `owner`: a wildcard, if they are its expansion.
    fn sign(&self, zone: &Zone, records: &[Rec], owner: &Owner) -> Option<Rec> {
        let key = zone.key.as_ref()?;
        let labels = owner
            .iter()
            .filter(|label| !label.is_root() && !label.is_wildcard());
        let (inception, expiration) = self.valid;
        let signature = |octets: Vec<u8>| {
            Rrsig::new(
                records[0].rtype(),
                key.algorithm,
                labels.clone().count() as u8,
                TTL,
                Timestamp::from(expiration),
                Timestamp::from(inception),
                key.dnskey().key_tag(),
                zone.apex.clone(),
                octets,
            )
            .unwrap()
        };
        let mut data = Vec::new();
        let mut sorted = records.to_vec();
        signature(Vec::new())
            .signed_data(&mut data, &mut sorted)
            .unwrap();
        let mut signatures = self.signatures.lock().unwrap();
        let signed = signatures.entry(data);
        let signed = signed.or_insert_with_key(|data| key.sign(data));
        let signature = signature(signed.clone());
        let owner = records[0].owner().clone();
        Some(Record::new(owner, Class::IN, TTL, signature.into()))
    }

    fn answer(&self, question: &Message<Vec<u8>>) -> Response {
        let asked = question.sole_question().unwrap();
        let (mut name, record_type) = (asked.qname().to_name::<Vec<u8>>(), asked.qtype());
        let mut response = Response::default();
        loop {
            let zone = self.zone_of(&name, record_type);
            let signed = |owner: &Owner, records: Vec<Rec>, section: &mut Vec<Rec>| {
                section.extend(self.sign(zone, &records, owner));
                section.extend(records);
            };
            let found = self.records(zone, &name, record_type);
            if !found.is_empty() {
                signed(&name, found, &mut response.answer);
                return response;
            }
            let alias = self.records(zone, &name, Rtype::CNAME);
            if let Some(ZoneRecordData::Cname(alias)) = alias.first().map(Record::data) {
                let target = alias.cname().clone();
                signed(
                    &name,
                    self.records(zone, &name, Rtype::CNAME),
                    &mut response.answer,
                );
                name = target;
                continue;
            }
            let dname = zone.records.iter().find(|record| {
                record.rtype() == Rtype::DNAME
                    && name != *record.owner()
                    && name.ends_with(record.owner())
            });
            if let Some(record) = dname
                && let ZoneRecordData::Dname(dname) = record.data()
            {
                let below = name.clone().strip_suffix(record.owner()).unwrap();
                let target: Owner = below.chain(dname.dname()).unwrap().to_name();
                signed(record.owner(), vec![record.clone()], &mut response.answer);
                let cname = Cname::new(target.clone()).into();
                let cname = Record::new(name, Class::IN, TTL, cname);
                response.answer.push(cname);
                name = target;
                continue;
            }
            let parent = name.parent().filter(|parent| !parent.is_root());
            let wildcard = parent.map(|parent| wire(&format!("*.{parent}")));
            let expansion = wildcard.map(|wildcard| {
                let found = self.records(zone, &wildcard, record_type);
                (wildcard, found)
            });
            if let Some((wildcard, found)) = expansion.filter(|(_, found)| !found.is_empty()) {
                let expanded = found
                    .iter()
                    .map(|record| Record::new(name.clone(), Class::IN, TTL, record.data().clone()));
                signed(&wildcard, expanded.collect(), &mut response.answer);
                let next = wire(&format!("zz.{}", name.parent().unwrap()));
                let nsec = nsec(&wildcard, next, [record_type]);
                signed(&wildcard, vec![nsec], &mut response.authority);
                return response;
            }
            let soa = Soa::new(
                zone.apex.clone(),
                zone.apex.clone(),
                1.into(),
                TTL,
                TTL,
                TTL,
                TTL,
            );
            let soa = Record::new(zone.apex.clone(), Class::IN, TTL, soa.into());
            signed(&zone.apex, vec![soa], &mut response.authority);
            if zone.key.is_some() {
                let is_cut = self
                    .zones
                    .iter()
                    .any(|child| child.apex == name && name != zone.apex);
                let types = zone.records.iter().filter(|record| *record.owner() == name);
                let types = types.map(Record::rtype).chain(is_cut.then_some(Rtype::NS));
                let types = types.chain((name == zone.apex).then_some(Rtype::SOA));
                let next = wire(&format!("\\000.{name}"));
                let nsec = nsec(&name, next, types);
                signed(&name, vec![nsec], &mut response.authority);
            }
            return response;
        }
    }
}

fn nsec(owner: &Owner, next: Owner, types: impl IntoIterator<Item = Rtype>) -> Rec {
    let mut bitmap = RtypeBitmap::<Vec<u8>>::builder();
    for record_type in types.into_iter().chain([Rtype::RRSIG, Rtype::NSEC]) {
        bitmap.add(record_type).unwrap();
    }
    let nsec = Nsec::new(next, bitmap.finalize());
    Record::new(owner.clone(), Class::IN, TTL, nsec.into())
}

fn digest(zone: &Owner, key: &Dnskey<Vec<u8>>) -> Ds<Vec<u8>> {
    let digest = key.digest(zone, DigestAlgorithm::SHA256).unwrap();
    let digest = digest.as_ref().to_vec();
    Ds::new(
        key.key_tag(),
        key.algorithm(),
        DigestAlgorithm::SHA256,
        digest,
    )
    .unwrap()
}

fn compose(question: &Message<Vec<u8>>, response: Response) -> Option<Vec<u8>> {
    let mut answer = MessageBuilder::new_vec()
        .start_answer(question, Rcode::NOERROR)
        .ok()?;
    for record in response.answer {
        answer.push(record).ok()?;
    }
    let mut authority = answer.authority();
    for record in response.authority {
        authority.push(record).ok()?;
    }
    Some(authority.finish())
}

/// A resolver of these zones, whose answers are changed on the way to it.
async fn attacked(world: Arc<World>, change: impl Fn(&mut Response) + Send + 'static) -> Resolver {
    let anchor = world.anchor();
    let answers = move |question: &Message<Vec<u8>>| {
        let mut response = world.answer(question);
        change(&mut response);
        compose(question, response)
    };
    let (server, _) = serve(answers, silence).await;
    Resolver::new(server).anchors(&anchor).unwrap()
}

const P256: Option<Algorithm> = Some(Algorithm::ECDSAP256SHA256);
const P384: Option<Algorithm> = Some(Algorithm::ECDSAP384SHA384);
const ED25519: Option<Algorithm> = Some(Algorithm::ED25519);
const ED448: Option<Algorithm> = Some(Algorithm::ED448);

/// Zones of each algorithm, below each other, and with aliases to each other.
fn world() -> World {
    World::new(&[
        (".", P256, ""),
        (
            "p256.",
            P256,
            "p256. MX 10 mx.p256.\nto-ed.p256. CNAME ed.\n",
        ),
        ("p384.", P384, "p384. MX 10 mx.p384.\n"),
        (
            "ed.",
            ED25519,
            "ed. MX 10 mx.ed.\nmx.ed. A 192.0.2.1\nto-p384.ed. CNAME p384.\n\
             to-unsigned.ed. CNAME unsigned.\n_25._tcp.mx.ed. TLSA 3 1 1 00\n\
             dname.ed. DNAME ed.\nout.ed. DNAME unsigned.\nto-absent.ed. CNAME absent.\n\
             *.wild.ed. MX 10 mx.ed.\nhost.wild.ed. MX 20 mx.ed.\n",
        ),
        ("ed.ed.", ED25519, "ed.ed. MX 10 mx.ed.ed.\n"),
        ("p256.ed.", P256, "p256.ed. MX 10 mx.p256.ed.\n"),
        (
            "p384.p256.ed.",
            P384,
            "p384.p256.ed. MX 10 mx.p384.p256.ed.\n",
        ),
        ("unsigned.ed.", None, "unsigned.ed. MX 10 mx.unsigned.ed.\n"),
        ("ed448.", ED448, "ed448. MX 10 mx.ed448.\n"),
        (
            "below.ed448.",
            ED25519,
            "below.ed448. MX 10 mx.below.ed448.\n",
        ),
        (
            "unsigned.",
            None,
            "unsigned. MX 10 mx.unsigned.\nmx.unsigned. A 192.0.2.1\nto-ed.unsigned. CNAME ed.\n",
        ),
    ])
}

const SIGNED: [&str; 9] = [
    "p256",
    "p384",
    "ed",
    "ed.ed",
    "p256.ed",
    "p384.p256.ed",
    "to-ed.p256",
    "to-p384.ed",
    "a.wild.ed",
];
const NOT_SIGNED: [&str; 6] = [
    "unsigned",
    "unsigned.ed",
    "ed448",
    "below.ed448",
    "to-unsigned.ed",
    "to-ed.unsigned",
];

#[tokio::test]
async fn zones_of_each_algorithm_are_validated() {
    let resolver = attacked(Arc::new(world()), |_| {}).await;
    for domain in SIGNED {
        let answer = resolver.mx(&name(domain)).await;
        assert!(matches!(answer, Answer::Secure(_)), "{domain}: {answer:?}");
        let answer = resolver.txt(&name(domain)).await;
        let is_absent = matches!(answer, Answer::SecureAbsence(Absence::NoRecords));
        assert!(is_absent || domain == "a.wild.ed", "{domain}: {answer:?}");
    }
    for domain in NOT_SIGNED {
        let answer = resolver.mx(&name(domain)).await;
        assert!(
            matches!(answer, Answer::Insecure(Ok(_))),
            "{domain}: {answer:?}"
        );
        let answer = resolver.txt(&name(domain)).await;
        assert!(
            matches!(answer, Answer::Insecure(Err(_))),
            "{domain}: {answer:?}"
        );
    }
    let answer = resolver.addresses(&name("mx.ed")).await;
    assert!(matches!(answer, Answer::Secure(_)), "{answer:?}");
    let answer = resolver.tlsa(&name("mx.ed"), 25).await;
    assert!(matches!(answer, Answer::Secure(_)), "{answer:?}");
}

/// The validator counts the keys of a zone as bogus for a while if a lookup of them was lost.
#[tokio::test]
async fn keys_that_were_lost_once_are_looked_up_again() {
    // The keys of the root, the DS records of the zone, its keys.
    for place in 0..3 {
        let world = Arc::new(world());
        let (anchor, lookups) = (world.anchor(), AtomicUsize::new(0));
        let answers = move |question: &Message<Vec<u8>>| match question.qtype() {
            Some(Rtype::DS | Rtype::DNSKEY) if lookups.fetch_add(1, Ordering::SeqCst) == place => {
                code(question, Rcode::SERVFAIL)
            }
            _ => compose(question, world.answer(question)),
        };
        let (server, _) = serve(answers, silence).await;
        let resolver = Resolver::new(server).anchors(&anchor).unwrap();
        let kind = failure(resolver.mx(&name("p256"))).await;
        assert_eq!(kind, LookupErrorKind::ServerFailure, "{place}");
        later(Duration::from_secs(5)).await;
        let answer = resolver.mx(&name("p256")).await;
        assert!(matches!(answer, Answer::Secure(_)), "{place}: {answer:?}");
    }
}

/// The keys of a zone are remembered for a while, whatever its algorithm is.
#[tokio::test]
async fn keys_are_looked_up_once_for_many_names() {
    for (domain, host) in [("p256", "mx.p256"), ("ed", "mx.ed"), ("ed.ed", "mx.ed.ed")] {
        let world = Arc::new(world());
        let (anchor, zone) = (world.anchor(), wire(&format!("{domain}.")));
        let lookups = Arc::new(AtomicUsize::new(0));
        let counted = lookups.clone();
        let answers = move |question: &Message<Vec<u8>>| {
            let asked = question.sole_question().unwrap();
            if asked.qtype() == Rtype::DNSKEY && asked.qname().to_name::<Vec<u8>>() == zone {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            compose(question, world.answer(question))
        };
        let (server, _) = serve(answers, silence).await;
        let resolver = Resolver::new(server).anchors(&anchor).unwrap();
        for _ in 0..2 {
            assert!(resolver.mx(&name(domain)).await.is_secure(), "{domain}");
            assert!(resolver.addresses(&name(host)).await.is_secure(), "{host}");
            assert!(resolver.tlsa(&name(host), 25).await.is_secure(), "{host}");
        }
        assert_eq!(lookups.load(Ordering::SeqCst), 1, "{domain}");
        later(Duration::from_secs(61)).await;
        assert!(resolver.txt(&name(domain)).await.is_secure(), "{domain}");
        assert_eq!(lookups.load(Ordering::SeqCst), 2, "{domain}");
    }
}

fn is_signature(record: &Rec) -> bool {
    record.rtype() == Rtype::RRSIG
}

/// Whether the answer has keys or their digests: changes to these are other attacks.
fn is_of_keys(response: &Response) -> bool {
    let mut records = response.answer.iter();
    records.any(|record| matches!(record.rtype(), Rtype::DS | Rtype::DNSKEY))
}

#[tokio::test]
async fn no_signed_zone_becomes_one_that_is_not_signed() {
    let changes: [fn(&mut Response); 5] = [
        // Without signatures.
        |response| {
            if !is_of_keys(response) {
                response.answer.retain(|record| !is_signature(record));
            }
        },
        // Without those of keys and absences, too.
        |response| {
            response.answer.retain(|record| !is_signature(record));
            response.authority.retain(|record| !is_signature(record));
        },
        // With other signatures.
        |response| {
            for record in &mut response.answer {
                if let ZoneRecordData::Rrsig(signature) = record.data() {
                    let mut octets = signature.signature().clone();
                    octets[7] ^= 1;
                    let forged = Rrsig::new(
                        signature.type_covered(),
                        signature.algorithm(),
                        signature.labels(),
                        signature.original_ttl(),
                        signature.expiration(),
                        signature.inception(),
                        signature.key_tag(),
                        signature.signer_name().clone(),
                        octets,
                    );
                    let owner = record.owner().clone();
                    *record = Record::new(owner, Class::IN, TTL, forged.unwrap().into());
                }
            }
        },
        // Without DS records.
        |response| response.answer.retain(|record| record.rtype() != Rtype::DS),
        // Without keys.
        |response| {
            response
                .answer
                .retain(|record| record.rtype() != Rtype::DNSKEY)
        },
    ];
    let world = Arc::new(world());
    for (number, change) in changes.into_iter().enumerate() {
        let resolver = attacked(world.clone(), change).await;
        for domain in SIGNED {
            let answer = resolver.mx(&name(domain)).await;
            let is_failure = matches!(answer, Answer::Failed(_));
            assert!(is_failure, "{number}: {domain}: {answer:?}");
        }
    }
}

/// DS records of another name or class, beside those of the zone, do not hide its algorithm.
#[tokio::test]
async fn other_ds_records_do_not_hide_those_of_a_zone() {
    for class in [Class::IN, Class::CH] {
        let world = Arc::new(world());
        let other = world.zones[1].key.as_ref().unwrap().dnskey();
        let resolver = attacked(world.clone(), move |response| {
            let of_zone = response.answer.iter();
            let of_zone = of_zone.filter(|record| record.rtype() == Rtype::DS);
            let hiding = of_zone.map(|record| {
                let owner = match class {
                    Class::IN => wire("elsewhere"),
                    _ => record.owner().clone(),
                };
                let ds = digest(&owner, &other);
                Record::new(owner, class, TTL, ds.into())
            });
            let hiding: Vec<Rec> = hiding.collect();
            response.answer.extend(hiding);
        })
        .await;
        for domain in ["p384", "ed", "ed.ed"] {
            let answer = resolver.mx(&name(domain)).await;
            let is_not_lost = matches!(answer, Answer::Secure(_) | Answer::Failed(_));
            assert!(is_not_lost, "{class}, {domain}: {answer:?}");
        }
    }
}

/// An absence above a zone may be proven by a record at the zone's name, from above.
#[tokio::test]
async fn the_zone_above_proves_absences_at_the_name_of_a_zone() {
    let world = Arc::new(world());
    let inner = world.clone();
    let resolver = attacked(world, move |response| {
        let is_nsec = |record: &Rec| record.rtype() == Rtype::NSEC;
        if response.authority.iter().any(is_nsec) {
            let proof = nsec(&wire("ed"), wire("ed448"), [Rtype::NS, Rtype::DS]);
            let signature = inner.sign(&inner.zones[0], std::slice::from_ref(&proof), &wire("ed"));
            response.authority.extend([proof, signature.unwrap()]);
        }
    })
    .await;
    let answer = resolver.mx(&name("to-absent.ed")).await;
    assert!(matches!(answer, Answer::SecureAbsence(_)), "{answer:?}");
}

/// The DS records of a zone with an algorithm that the validator does not follow are asked for
/// twice. An attacker can tell the questions apart.
#[tokio::test]
async fn the_keys_of_a_zone_are_proven_each_time() {
    type Change = fn(&mut Response, &Owner, bool);
    let without_signature: Change = |response, _, is_first| {
        if !is_first {
            response.answer.retain(|record| !is_signature(record));
        }
    };
    let absent: Change = |response, zone, is_first| {
        if !is_first {
            let soa = Soa::new(zone.clone(), zone.clone(), 1.into(), TTL, TTL, TTL, TTL);
            response.answer.clear();
            response.authority = vec![Record::new(zone.clone(), Class::IN, TTL, soa.into())];
        }
    };
    let world = Arc::new(world());
    for (number, change) in [without_signature, absent].into_iter().enumerate() {
        for domain in ["p384", "ed", "ed.ed", "p256.ed", "p384.p256.ed"] {
            let (inner, seen) = (world.clone(), Mutex::new(HashSet::new()));
            let answers = move |question: &Message<Vec<u8>>| {
                let mut response = inner.answer(question);
                if is_of_keys(&response) && question.qtype() == Some(Rtype::DS) {
                    let zone: Owner = question.sole_question().unwrap().qname().to_name();
                    let is_first = seen.lock().unwrap().insert(zone.clone());
                    change(&mut response, &zone, is_first);
                }
                compose(question, response)
            };
            let (server, _) = serve(answers, silence).await;
            let resolver = Resolver::new(server).anchors(&world.anchor()).unwrap();
            let answer = resolver.mx(&name(domain)).await;
            let is_failure = matches!(answer, Answer::Failed(_));
            assert!(is_failure, "{number}: {domain}: {answer:?}");
        }
    }
}

/// The CNAME that follows from a DNAME is not signed, and its absence proves nothing.
#[tokio::test]
async fn a_dname_leads_on_without_its_cname() {
    let resolver = attacked(Arc::new(world()), |response| {
        response
            .answer
            .retain(|record| record.rtype() != Rtype::CNAME);
    })
    .await;
    let answer = resolver.tlsa(&name("mx.dname.ed"), 25).await;
    assert!(matches!(answer, Answer::Secure(_)), "{answer:?}");
    let resolver = attacked(Arc::new(world()), |response| {
        for record in &mut response.answer {
            if record.rtype() == Rtype::CNAME {
                let cname = Cname::new(wire("_25._tcp.elsewhere.ed"));
                *record = Record::new(record.owner().clone(), Class::IN, TTL, cname.into());
            }
        }
    })
    .await;
    let kind = failure(resolver.tlsa(&name("mx.dname.ed"), 25)).await;
    assert_eq!(kind, LookupErrorKind::Malformed);
}

/// RFC 7672, 2.2.2: the name of a host whose DNAME leads out of the signed zones is secure.
#[tokio::test]
async fn a_dname_is_secure_wherever_it_leads() {
    let resolver = attacked(Arc::new(world()), |_| {}).await;
    for (host, expected) in [("mx.out.ed", true), ("mx.unsigned", false)] {
        let answer = resolver.addresses(&name(host)).await;
        let Answer::Insecure(Ok(addresses)) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(addresses.name, name("mx.unsigned"));
        assert_eq!(addresses.is_name_secure, expected, "{host}");
    }
}

/// The records of a wildcard are not those of a name that exists.
#[tokio::test]
async fn a_wildcard_is_expanded_only_with_a_proof() {
    let world = Arc::new(world());
    let resolver = attacked(world.clone(), |_| {}).await;
    let answer = resolver.mx(&name("a.wild.ed")).await;
    assert!(matches!(answer, Answer::Secure(_)), "{answer:?}");
    let resolver = attacked(world.clone(), |response| response.authority.clear()).await;
    let kind = failure(resolver.mx(&name("a.wild.ed"))).await;
    assert_eq!(kind, LookupErrorKind::Bogus);
    // For a name that has records of its own.
    let (anchor, inner) = (world.anchor(), world.clone());
    let answers = move |question: &Message<Vec<u8>>| {
        let asked = question.sole_question().unwrap();
        let mut response = inner.answer(question);
        if asked.qname().to_string() == "host.wild.ed" {
            let other = wire("a.wild.ed");
            let zone = inner.zone_of(&other, Rtype::MX);
            let wildcard = wire("*.wild.ed");
            let data = inner.records(zone, &wildcard, Rtype::MX)[0].data().clone();
            let forged = Record::new(wire("host.wild.ed"), Class::IN, TTL, data);
            let signature = inner.sign(zone, std::slice::from_ref(&forged), &wildcard);
            response.answer = vec![forged, signature.unwrap()];
        }
        compose(question, response)
    };
    let (server, _) = serve(answers, silence).await;
    let resolver = Resolver::new(server).anchors(&anchor).unwrap();
    let kind = failure(resolver.mx(&name("host.wild.ed"))).await;
    assert_eq!(kind, LookupErrorKind::Bogus);
}

/// With the keys of one zone alone, nothing that a zone above it says makes a name insecure.
#[tokio::test]
async fn a_zone_above_the_anchor_proves_nothing() {
    let world = Arc::new(world());
    let zone = wire("p256");
    let key = world
        .zone_of(&zone, Rtype::MX)
        .key
        .as_ref()
        .unwrap()
        .dnskey();
    let anchor = format!("p256. IN DS {}", digest(&zone, &key));
    let soa = |response: &mut Response| {
        let soa = Soa::new(wire("."), wire("."), 1.into(), TTL, TTL, TTL, TTL);
        response.answer.clear();
        response.authority = vec![Record::new(wire("."), Class::IN, TTL, soa.into())];
    };
    let signer = |response: &mut Response| {
        response.answer.retain(|record| !is_signature(record));
        let owner = response.answer[0].owner().clone();
        let signature = Rrsig::new(
            Rtype::MX,
            Algorithm::ECDSAP256SHA256,
            1,
            TTL,
            Timestamp::from(now() + 60),
            Timestamp::from(now() - 60),
            1,
            wire("."),
            vec![0; 64],
        );
        let signature = Record::new(owner, Class::IN, TTL, signature.unwrap().into());
        response.answer.push(signature);
    };
    for change in [&soa as &(dyn Fn(&mut Response) + Sync), &signer] {
        let question = |name: &str| {
            let mut question = MessageBuilder::new_vec().question();
            question.push((wire(name), Rtype::MX)).unwrap();
            question.into_message()
        };
        let mut response = world.answer(&question("p256"));
        change(&mut response);
        let records = (response.answer, response.authority);
        let inner = world.clone();
        let answers = move |question: &Message<Vec<u8>>| {
            let response = match question.qtype() {
                Some(Rtype::MX) => Response {
                    answer: records.0.clone(),
                    authority: records.1.clone(),
                },
                _ => inner.answer(question),
            };
            compose(question, response)
        };
        let (server, _) = serve(answers, silence).await;
        let resolver = Resolver::new(server).anchors(&anchor).unwrap();
        let kind = failure(resolver.mx(&name("p256"))).await;
        assert_eq!(kind, LookupErrorKind::Bogus);
    }
    let resolver = attacked(world.clone(), |_| {})
        .await
        .anchors(&anchor)
        .unwrap();
    assert!(matches!(
        resolver.mx(&name("p256")).await,
        Answer::Secure(_)
    ));
    assert!(matches!(
        resolver.mx(&name("p384")).await,
        Answer::Insecure(Ok(_))
    ));
}

/// Waits until the clock of the signatures shows this second.
async fn clock_shows(second: u32) {
    while now() < second {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A program runs for weeks: a signature that was valid when it was first seen, or not yet valid
/// as the clock was wrong, is judged anew.
#[tokio::test]
async fn signatures_are_judged_by_the_time_of_now() {
    let mut expires = world();
    let mut begins = world();
    let change = now() + 3;
    expires.valid.1 = change - 1;
    begins.valid.0 = change;
    let expires = attacked(Arc::new(expires), |_| {}).await;
    let begins = attacked(Arc::new(begins), |_| {}).await;
    for domain in ["p256", "ed"] {
        let answer = expires.mx(&name(domain)).await;
        assert!(matches!(answer, Answer::Secure(_)), "{answer:?}");
        let kind = failure(begins.mx(&name(domain))).await;
        assert_eq!(kind, LookupErrorKind::Bogus);
    }
    clock_shows(change).await;
    later(Duration::from_secs(61)).await;
    for domain in ["p256", "ed"] {
        let kind = failure(expires.mx(&name(domain))).await;
        assert_eq!(kind, LookupErrorKind::Bogus);
        let answer = begins.mx(&name(domain)).await;
        assert!(matches!(answer, Answer::Secure(_)), "{answer:?}");
    }
}
