//! What DNSSEC proves of an answer (RFC 4035, 5), from trust anchors on.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::base::iana::{Class, SecurityAlgorithm};
use domain::base::{Message, Name, ParsedName, Rtype, ToName as _};
use domain::dnssec::validator::anchor::TrustAnchors;
use domain::dnssec::validator::base::{supported_algorithm, supported_digest};
use domain::dnssec::validator::context::{Config, ValidationContext, ValidationState};
use domain::net::client::request::{self, GetResponse, SendRequest};
use domain::rdata::{Ds, Rrsig, ZoneRecordData};
use domain::zonefile::inplace::{Entry, Zonefile};

use super::reply::absolute;
use super::transport::{Failure, Request, Upstream};
use super::{DomainName, LookupErrorKind};

/// The keys that sign the root, as IANA publishes them (RFC 7958): of 2017 and 2024.
const ROOT_ANCHORS: &str = "\
. IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D
. IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16
";

/// How long the validator remembers that the keys of a zone could not be verified. It is short, as
/// a lost packet has the same effect.
const BOGUS_VALIDITY: Duration = Duration::from_secs(1);

/// The keys from which answers are validated.
#[derive(Clone)]
pub(super) struct Anchors {
    /// DS and DNSKEY records in the form of a zone file.
    records: String,
    /// The zones that have them.
    zones: Vec<Name<Vec<u8>>>,
}

impl Anchors {
    /// The keys of the root.
    pub(super) fn root() -> Self {
        Self::parse(ROOT_ANCHORS).expect("the anchors of the root are DS records")
    }

    /// Reads DS and DNSKEY records. The error is the reason why they cannot be used.
    pub(super) fn parse(records: &str) -> Result<Self, String> {
        let mut file = Zonefile::new();
        file.set_default_class(Class::IN);
        file.extend_from_slice(records.as_bytes());
        file.extend_from_slice(b"\n");
        let mut zones = Vec::new();
        for entry in file {
            let Entry::Record(record) = entry.map_err(|error| error.to_string())? else {
                return Err("they include a file".into());
            };
            match record.data() {
                ZoneRecordData::Ds(_) | ZoneRecordData::Dnskey(_) => {
                    zones.push(record.owner().to_name());
                }
                _ => return Err(format!("one is of the type {}", record.rtype())),
            }
        }
        if zones.is_empty() {
            return Err("there are none".into());
        }
        Ok(Anchors {
            records: records.to_owned(),
            zones,
        })
    }

    /// Whether they are those of the root, as IANA publishes them.
    pub(super) fn are_default(&self) -> bool {
        self.records == ROOT_ANCHORS
    }

    /// The records in the form of a zone file.
    pub(super) fn records(&self) -> &str {
        &self.records
    }

    /// Whether the root has one.
    pub(super) fn are_of_root(&self) -> bool {
        self.zones.iter().any(Name::is_root)
    }

    /// Whether a zone is above the trust anchor that a name is below: what that zone says of the
    /// name proves nothing, not even that the name is not signed.
    fn is_above(&self, zone: &Name<Vec<u8>>, name: &Name<Vec<u8>>) -> bool {
        let mut anchors = self.zones.iter();
        anchors.any(|anchor| name.ends_with(anchor) && !zone.ends_with(anchor))
    }

    /// Adds a zone by the data of its DS records, which DNSSEC has proven. Returns whether any of
    /// them can be used.
    pub(super) fn add<'d>(
        &mut self,
        zone: &DomainName,
        records: impl IntoIterator<Item = &'d [u8]>,
    ) -> bool {
        let mut is_added = false;
        for (fixed, digest) in records.into_iter().filter_map(<[u8]>::split_first_chunk) {
            let [high, low, algorithm, digest_type] = *fixed;
            if !is_verifiable(algorithm.into()) || !supported_digest(&digest_type.into()) {
                continue;
            }
            let tag = u16::from_be_bytes([high, low]);
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let records = &mut self.records;
            *records += &format!("\n{zone}. IN DS {tag} {algorithm} {digest_type} {digest}");
            is_added = true;
        }
        if is_added {
            self.zones.push(absolute(zone));
        }
        is_added
    }
}

/// Whether signatures of this algorithm are verified. The crate `domain` verifies those by Ed25519
/// and ECDSA with P-384, but counts a zone with no others as one that is not signed: it does not
/// follow the zone's DS records. It validates the zone if they are anchors.
fn is_verifiable(algorithm: SecurityAlgorithm) -> bool {
    supported_algorithm(&algorithm)
        || algorithm == SecurityAlgorithm::ED25519
        || algorithm == SecurityAlgorithm::ECDSAP384SHA384
}

/// Validates answers, and remembers the keys of the zones on the way.
pub(super) struct Validator {
    context: ValidationContext<Keys>,
    anchors: Anchors,
    noted: Arc<Mutex<Noted>>,
}

/// What is noted of the lookups of keys.
#[derive(Debug, Default)]
struct Noted {
    /// The zones whose DS records were asked for, and of which some are of algorithms that are not
    /// followed.
    unfollowed: HashSet<DomainName>,
    /// When a lookup was lost last.
    lost_at: Option<Instant>,
}

impl Validator {
    pub(super) fn new(anchors: Anchors, upstream: &Upstream) -> Self {
        let mut config = Config::new();
        config.set_max_bogus_validity(BOGUS_VALIDITY);
        let noted = Arc::<Mutex<Noted>>::default();
        let keys = Keys {
            upstream: upstream.clone(),
            noted: noted.clone(),
        };
        let records = TrustAnchors::from_u8(anchors.records.as_bytes());
        let records = records.expect("the anchors have been parsed");
        Validator {
            context: ValidationContext::with_config(records, keys, config),
            anchors,
            noted,
        }
    }

    pub(super) fn anchors(&self) -> &Anchors {
        &self.anchors
    }

    /// Returns the zones above one of these names, or at it, that count as not signed for their
    /// algorithms alone.
    pub(super) fn unfollowed_zones(&self, names: &[&DomainName]) -> Vec<DomainName> {
        let is_within = |name: &DomainName, zone: &DomainName| {
            let below = name.as_str().strip_suffix(zone.as_str());
            below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
        };
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let zones = noted.unfollowed.iter().filter(|zone| {
            names.iter().any(|name| is_within(name, zone))
                && !self.anchors.zones.contains(&absolute(zone))
        });
        let mut zones: Vec<DomainName> = zones.cloned().collect();
        // In one order, by which the validator with these zones is found again.
        zones.sort_unstable();
        zones
    }

    /// Whether the keys of a zone may count as bogus only because a lookup of them was lost, be it
    /// one for another answer.
    pub(super) fn may_lack_keys(&self) -> bool {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let lost_at = noted.lost_at;
        lost_at.is_some_and(|lost_at| lost_at.elapsed() < 2 * BOGUS_VALIDITY)
    }

    /// Returns whether DNSSEC proves the answer, which is about the name where its CNAMEs lead. The
    /// TTLs of signed records are bounded by the signatures (RFC 4035, 5.3.3).
    ///
    /// # Errors
    ///
    /// The answer is bogus, or cannot be validated.
    pub(super) async fn validate(
        &self,
        message: &mut Message<Vec<u8>>,
        name: &DomainName,
    ) -> Result<bool, (LookupErrorKind, String)> {
        if self.is_of_a_zone_above(message, name) {
            let detail = "a zone above the trust anchor answers";
            return Err((LookupErrorKind::Bogus, detail.into()));
        }
        let validating = async {
            let validated = self.context.validate_msg::<_, Vec<u8>>(message).await;
            (validated, LOST.with(Lost::take))
        };
        let (validated, lost) = LOST.scope(Lost::default(), validating).await;
        let malformed = |_| (LookupErrorKind::Malformed, String::new());
        let (state, reason) = validated.map_err(malformed)?;
        match state {
            ValidationState::Secure => Ok(true),
            // Below no anchor: insecure by RFC 7672, 2.1.1, too.
            ValidationState::Insecure | ValidationState::Indeterminate => Ok(false),
            ValidationState::Bogus => {
                if let Some(failure) = lost {
                    let detail = format!("the keys of its zone cannot be looked up: {failure}");
                    return Err((failure.kind(), detail));
                }
                let reason = reason.as_ref().and_then(|reason| reason.text()?.ok());
                let reason = reason.map(ToString::to_string).unwrap_or_default();
                Err(refused(&reason))
            }
        }
    }

    /// Whether a signature or an absence is of a zone above the anchor that its name is below. NSEC
    /// records are at the name of the anchor in both zones; they prove nothing unless they are
    /// secure.
    fn is_of_a_zone_above(&self, message: &Message<Vec<u8>>, name: &DomainName) -> bool {
        let (Ok(answer), Ok(authority)) = (message.answer(), message.authority()) else {
            return false;
        };
        let name = absolute(name);
        answer.chain(authority).flatten().any(|record| {
            let owner: Name<Vec<u8>> = record.owner().to_name();
            if let Ok(Some(signature)) = record.to_record::<Rrsig<_, ParsedName<_>>>() {
                let signer: Name<Vec<u8>> = signature.data().signer_name().to_name();
                return signature.data().type_covered() != Rtype::NSEC
                    && self.anchors.is_above(&signer, &owner);
            }
            record.rtype() == Rtype::SOA && self.anchors.is_above(&owner, &name)
        })
    }
}

/// What it means that the validator refuses an answer for this reason.
fn refused(reason: &str) -> (LookupErrorKind, String) {
    if reason.starts_with("Missing SOA") {
        let detail = "the answer is empty, as of a server that does not know the domain";
        return (LookupErrorKind::ServerFailure, detail.into());
    }
    (LookupErrorKind::Bogus, reason.to_owned())
}

/// The failure of a question that the validator asked, which its own error does not have.
#[derive(Debug, Default)]
struct Lost(Mutex<Option<Failure>>);

tokio::task_local! {
    /// That of the lookup that this task is in.
    static LOST: Lost;
}

impl Lost {
    fn set(&self, failure: Failure) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    fn take(&self) -> Option<Failure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Looks up the keys of zones for the validator.
#[derive(Clone, Debug)]
struct Keys {
    upstream: Upstream,
    noted: Arc<Mutex<Noted>>,
}

impl Keys {
    fn note(&self, note: impl FnOnce(&mut Noted)) {
        note(&mut self.noted.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl SendRequest<Request> for Keys {
    fn send_request(&self, request: Request) -> Box<dyn GetResponse + Send + Sync> {
        let keys = self.clone();
        Box::new(Lookup { keys, request })
    }
}

#[derive(Debug)]
struct Lookup {
    keys: Keys,
    request: Request,
}

impl GetResponse for Lookup {
    fn get_response(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Message<Bytes>, request::Error>> + Send + Sync + '_>>
    {
        Box::pin(async {
            let answer = self.keys.upstream.send(self.request.clone()).await;
            if let Ok(answer) = &answer
                && let Some(zone) = unfollowed_zone(answer)
            {
                self.keys.note(|noted| _ = noted.unfollowed.insert(zone));
            }
            answer.map_err(|failure| {
                self.keys.note(|noted| noted.lost_at = Some(Instant::now()));
                let lost = |lost: &Lost| lost.set(failure);
                // Outside of a lookup, there is none to tell.
                _ = LOST.try_with(lost);
                request::Error::NoTransportAvailable
            })
        })
    }
}

/// Returns the zone whose DS records the answer has, if the validator does not follow all of them.
/// Which of them are valid is not known yet: none may hide another.
fn unfollowed_zone(answer: &Message<Bytes>) -> Option<DomainName> {
    let question = answer.sole_question().ok()?;
    let is_followed = |ds: &Ds<Bytes>| {
        supported_algorithm(&ds.algorithm()) && supported_digest(&ds.digest_type())
    };
    let mut records = answer.answer().ok()?.limit_to::<Ds<_>>().flatten();
    records.find(|record| !is_followed(record.data()))?;
    DomainName::new(&question.qname().to_string()).ok()
}
