//! Lookups: what is asked, validated here, and kept for as long as the answer says.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::base::iana::Rcode;
use domain::base::{Message, Rtype};
use domain::dnssec::validator::anchor::TrustAnchors;
use domain::dnssec::validator::context::{Config, ValidationContext, ValidationState};
use domain::rdata::ZoneRecordData;
use domain::zonefile::inplace::{Entry, Zonefile};
use futures_util::FutureExt as _;
use futures_util::future::join;
use tokio::time::{Instant, timeout};

use super::cache::Cache;
use super::reply::{Data, Reply, absolute};
use super::system;
use super::transport::{Failure, LOST, Lost, Upstream};
use super::{Absence, Addresses, Answer, DomainName, LookupError, LookupErrorKind, Mx, MxRecords};
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::tls::dane::TlsaRecord;

/// The keys that sign the root, as IANA publishes them (RFC 7958): of 2017 and 2024.
const ROOT_ANCHORS: &str = "\
. IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D
. IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16
";

/// How long a lookup may take, unless [`Resolver::timeout`] says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the validator remembers that the keys of a zone could not be verified. It is short, as
/// a lost packet has the same effect.
const BOGUS_VALIDITY: Duration = Duration::from_secs(1);

/// Looks up what a sender of mail needs, and validates it by DNSSEC (RFC 4035). Cheap to clone; the
/// clones share their cache.
///
/// It asks a recursive or forwarding resolver, by UDP and, for answers that are too long, by TCP.
/// Whether an answer is secure is judged here, from the keys of the root or other
/// [anchors](Self::anchors): what the resolver says about it does not count, nor must the network
/// to it be trusted. The resolver must pass DNSSEC records on; with one that does not, every lookup
/// in a signed zone [fails](Answer::Failed).
///
/// Answers are kept in memory for as long as their TTL says, at most a day, and failures are not.
/// Signatures by RSA and by ECDSA with P-256 are verified; a zone with others only is
/// [insecure](Answer::Insecure).
///
/// ```no_run
/// use envoi::mx::{Answer, DomainName, Resolver};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let resolver = Resolver::system()?;
/// let domain = DomainName::new("example.org")?;
/// match resolver.mx(&domain).await {
///     Answer::Secure(mx) => println!("signed: {:?}", mx.exchanges),
///     Answer::Insecure(Ok(mx)) => println!("not signed: {:?}", mx.exchanges),
///     Answer::SecureAbsence(why) | Answer::Insecure(Err(why)) => println!("no MX: {why}"),
///     Answer::Failed(error) => println!("{error}; {}", error.hint()),
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
///
/// A lookup that is dropped leaves nothing behind.
#[derive(Clone)]
pub struct Resolver {
    upstream: Upstream,
    timeout: Duration,
    shared: Arc<Shared>,
}

struct Shared {
    validator: ValidationContext<Upstream>,
    cache: Mutex<Cache<(DomainName, Rtype), Validated>>,
}

/// What an answer says, and whether DNSSEC proves it.
#[derive(Clone, Debug)]
struct Validated {
    reply: Arc<Reply>,
    is_secure: bool,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("servers", &self.upstream.0)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Resolver {
    /// Asks the resolvers of the system: those of `/etc/resolv.conf`, or the one on this machine if
    /// there are none. The file is read once; a later change is not noticed.
    ///
    /// Blocks on file I/O, for one small file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or names a resolver by what is not an address. The system is not a
    /// Unix: it has no such file, and the resolver must be [named](Self::new).
    pub fn system() -> Result<Self> {
        Ok(Self::with_servers(system::servers()?))
    }

    /// Asks the resolver at this address; its port is usually 53.
    pub fn new(server: SocketAddr) -> Self {
        Self::with_servers(vec![server])
    }

    pub(super) fn with_servers(servers: Vec<SocketAddr>) -> Self {
        let upstream = Upstream(servers.into());
        let anchors = TrustAnchors::from_u8(ROOT_ANCHORS.as_bytes());
        let anchors = anchors.expect("the anchors of the root are DS records");
        Resolver {
            shared: Shared::new(anchors, &upstream),
            timeout: DEFAULT_TIMEOUT,
            upstream,
        }
    }

    /// Validates from these keys instead of those of the root: DS or DNSKEY records in the form of
    /// a zone file, with absolute names. Names below none of them are insecure.
    ///
    /// ```
    /// use envoi::mx::Resolver;
    ///
    /// let resolver = Resolver::new(([127, 0, 0, 1], 53).into());
    /// let anchors = "example. IN DS 38696 8 2 \
    ///     683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16";
    /// assert!(resolver.clone().anchors(anchors).is_ok());
    /// assert!(resolver.anchors("example. IN A 192.0.2.1").is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// The text has other records, none at all, or cannot be parsed.
    pub fn anchors(mut self, records: &str) -> Result<Self> {
        let invalid = |why: &str| {
            let message = format!("the anchors of DNSSEC cannot be used: {why}");
            let hint = "Give DS or DNSKEY records in the form of a zone file, for example \
                        `. IN DS 20326 8 2 E06D44B8…`.";
            Error::new(ErrorKind::Config, Phase::Setup, message).with_hint(hint)
        };
        let mut file = Zonefile::new();
        file.set_default_class(domain::base::iana::Class::IN);
        file.extend_from_slice(records.as_bytes());
        file.extend_from_slice(b"\n");
        let mut is_empty = true;
        for entry in file {
            let Entry::Record(record) = entry.map_err(|error| invalid(&error.to_string()))? else {
                return Err(invalid("they include a file"));
            };
            match record.data() {
                ZoneRecordData::Ds(_) | ZoneRecordData::Dnskey(_) => is_empty = false,
                _ => return Err(invalid(&format!("one is of the type {}", record.rtype()))),
            }
        }
        if is_empty {
            return Err(invalid("there are none"));
        }
        let anchors = TrustAnchors::from_u8(records.as_bytes());
        let anchors = anchors.map_err(|error| invalid(&error.to_string()))?;
        self.shared = Shared::new(anchors, &self.upstream);
        Ok(self)
    }

    /// Bounds each lookup, with all that is asked to validate it. 15 s by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Returns the addresses of the resolvers that are asked, in this order.
    pub fn get_servers(&self) -> &[SocketAddr] {
        &self.upstream.0
    }

    /// Looks up the servers of a domain, its MX records. A host in them that is not a valid name is
    /// left out; if none is valid, the lookup [fails](Answer::Failed).
    pub async fn mx(&self, domain: &DomainName) -> Answer<MxRecords> {
        let answer = self.look_up(domain, Rtype::MX).await;
        self.convert(domain, "MX", answer, |reply, records| {
            let exchanges: Vec<Mx> = records.iter().filter_map(to_mx).collect();
            (!exchanges.is_empty()).then(|| MxRecords {
                name: reply.name.clone(),
                aliases: reply.aliases.clone(),
                exchanges,
            })
        })
    }

    /// Looks up the IPv4 and IPv6 addresses of a host, its A and AAAA records. If one of the two
    /// lookups fails, the answer is that of the other, provided that it has addresses.
    pub async fn addresses(&self, host: &DomainName) -> Answer<Addresses> {
        let (v4, v6) = join(
            self.addresses_of_family(host, Rtype::A),
            self.addresses_of_family(host, Rtype::AAAA),
        )
        .await;
        let mut answer = combine(v4, v6);
        if let Answer::Insecure(Ok(addresses)) = &mut answer
            && !addresses.aliases.is_empty()
        {
            match self.look_up(host, Rtype::CNAME).await {
                Ok(alias) => addresses.is_name_secure = alias.is_secure,
                // Whether the CNAME is secure decides whether TLSA records count.
                Err((kind, detail)) => {
                    return Answer::Failed(LookupError::new(host.clone(), "CNAME", kind, detail));
                }
            }
        }
        answer
    }

    /// Looks up the TLSA records of a server (RFC 6698, 3): those of `_25._tcp.mx.example.org` for
    /// the port 25 and the base domain `mx.example.org`. CNAMEs are followed.
    pub async fn tlsa(&self, base: &DomainName, port: u16) -> Answer<Vec<TlsaRecord>> {
        let Ok(name) = DomainName::new(&format!("_{port}._tcp.{base}")) else {
            let kind = LookupErrorKind::Malformed;
            let detail = "the name with the port is too long";
            return Answer::Failed(LookupError::new(base.clone(), "TLSA", kind, detail));
        };
        let answer = self.look_up(&name, Rtype::TLSA).await;
        self.convert(&name, "TLSA", answer, |_, records| {
            records
                .iter()
                .map(|data| TlsaRecord::from_rdata(octets(data)?))
                .collect()
        })
    }

    /// Looks up the texts of a name, its TXT records. The strings of each are joined.
    pub async fn txt(&self, name: &DomainName) -> Answer<Vec<Vec<u8>>> {
        let answer = self.look_up(name, Rtype::TXT).await;
        self.convert(name, "TXT", answer, |_, records| {
            records.iter().map(|data| to_text(octets(data)?)).collect()
        })
    }

    async fn addresses_of_family(&self, host: &DomainName, family: Rtype) -> Answer<Addresses> {
        let type_name = if family == Rtype::A { "A" } else { "AAAA" };
        let answer = self.look_up(host, family).await;
        let is_name_secure = answer.as_ref().is_ok_and(|answer| answer.is_secure);
        self.convert(host, type_name, answer, |reply, records| {
            Some(Addresses {
                name: reply.name.clone(),
                aliases: reply.aliases.clone(),
                is_name_secure,
                addresses: records.iter().map(to_address).collect::<Option<_>>()?,
                incomplete: None,
            })
        })
    }

    /// Makes the answer of what was found. `None` of the records means that they are malformed.
    fn convert<T>(
        &self,
        name: &DomainName,
        record_type: &'static str,
        answer: Result<Validated, (LookupErrorKind, String)>,
        convert: impl FnOnce(&Reply, &[Data]) -> Option<T>,
    ) -> Answer<T> {
        let failed = |kind, detail: String| {
            Answer::Failed(LookupError::new(name.clone(), record_type, kind, detail))
        };
        let Validated { reply, is_secure } = match answer {
            Ok(validated) => validated,
            Err((kind, detail)) => return failed(kind, detail),
        };
        match (&reply.records, is_secure) {
            (Ok(records), _) => match (convert(&reply, records), is_secure) {
                (Some(records), true) => Answer::Secure(records),
                (Some(records), false) => Answer::Insecure(Ok(records)),
                (None, _) => failed(LookupErrorKind::Malformed, "the records are invalid".into()),
            },
            (Err(absence), true) => Answer::SecureAbsence(*absence),
            (Err(absence), false) => Answer::Insecure(Err(*absence)),
        }
    }

    /// Looks up and validates, or takes the answer from the cache.
    async fn look_up(
        &self,
        name: &DomainName,
        record_type: Rtype,
    ) -> Result<Validated, (LookupErrorKind, String)> {
        let key = (name.clone(), record_type);
        let cache = || {
            self.shared
                .cache
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(answer) = cache().get(&key, Instant::now()) {
            return Ok(answer);
        }
        let lookup = AssertUnwindSafe(self.ask_and_validate(name, record_type)).catch_unwind();
        let answer = match timeout(self.timeout, lookup).await {
            Ok(Ok(answer)) => answer?,
            // A record that the validator does not expect must not end the program.
            Ok(Err(_)) => return Err((LookupErrorKind::Malformed, String::new())),
            Err(_) => return Err((LookupErrorKind::TimedOut, String::new())),
        };
        let now = Instant::now();
        cache().insert(key, answer.clone(), now, now + answer.reply.ttl);
        Ok(answer)
    }

    async fn ask_and_validate(
        &self,
        name: &DomainName,
        record_type: Rtype,
    ) -> Result<Validated, (LookupErrorKind, String)> {
        let asked = self.upstream.ask(&absolute(name), record_type).await;
        let message = asked.map_err(|failure| (kind_of(&failure), failure.to_string()))?;
        let malformed = || (LookupErrorKind::Malformed, String::new());
        let mut message =
            Message::from_octets(message.as_slice().to_vec()).map_err(|_| malformed())?;
        // Before it is validated, as the validator has no words for these faults.
        let fault = |(kind, detail): (_, &str)| (kind, detail.to_owned());
        Reply::read(&message, name, record_type).map_err(fault)?;
        let validating = async {
            let validator = &self.shared.validator;
            let validated = validator.validate_msg::<_, Vec<u8>>(&mut message).await;
            (validated, LOST.with(Lost::take))
        };
        let (validated, lost) = LOST.scope(Lost::default(), validating).await;
        let (state, reason) = validated.map_err(|_| malformed())?;
        let is_secure = match state {
            ValidationState::Secure => true,
            // Below no anchor: insecure by RFC 7672, 2.1.1, too.
            ValidationState::Insecure | ValidationState::Indeterminate => false,
            ValidationState::Bogus => {
                if let Some(failure) = lost {
                    let detail = format!("the keys of its zone cannot be looked up: {failure}");
                    return Err((kind_of(&failure), detail));
                }
                let reason = reason.as_ref().and_then(|reason| reason.text()?.ok());
                let reason = reason.map(ToString::to_string).unwrap_or_default();
                return Err(refused(&reason));
            }
        };
        // Once more, as the TTLs of signed records have been bounded by the signatures (RFC 4035,
        // 5.3.3).
        let reply = Reply::read(&message, name, record_type).map_err(fault)?;
        Ok(Validated {
            reply: Arc::new(reply),
            is_secure,
        })
    }
}

impl Shared {
    fn new(anchors: TrustAnchors, upstream: &Upstream) -> Arc<Self> {
        let mut config = Config::new();
        config.set_max_bogus_validity(BOGUS_VALIDITY);
        Arc::new(Shared {
            validator: ValidationContext::with_config(anchors, upstream.clone(), config),
            cache: Mutex::new(Cache::new()),
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

fn kind_of(failure: &Failure) -> LookupErrorKind {
    match failure {
        Failure::TimedOut(_) => LookupErrorKind::TimedOut,
        Failure::Network(..) => LookupErrorKind::Network,
        Failure::Malformed(_) => LookupErrorKind::Malformed,
        Failure::ForeignSignature(_) => LookupErrorKind::Bogus,
        Failure::Code(_, Rcode::SERVFAIL) => LookupErrorKind::ServerFailure,
        Failure::Code(..) => LookupErrorKind::Refused,
    }
}

/// The answer for a host, of those for its two families of addresses.
fn combine(v4: Answer<Addresses>, v6: Answer<Addresses>) -> Answer<Addresses> {
    let incomplete = |answer: Answer<Addresses>, error| {
        answer.map(|addresses| Addresses {
            incomplete: Some(error),
            ..addresses
        })
    };
    match (v4, v6) {
        (Answer::Failed(error), other) | (other, Answer::Failed(error)) => {
            match other.records().is_some() {
                true => incomplete(other, error),
                false => Answer::Failed(error),
            }
        }
        (Answer::Secure(v4), Answer::Secure(v6)) => Answer::Secure(merge(v4, v6)),
        (Answer::Secure(v4), Answer::Insecure(Ok(v6)))
        | (Answer::Insecure(Ok(v4)), Answer::Secure(v6) | Answer::Insecure(Ok(v6))) => {
            Answer::Insecure(Ok(merge(v4, v6)))
        }
        // What is absent does not change what is proven of the others.
        (found, Answer::SecureAbsence(_) | Answer::Insecure(Err(_)))
            if found.records().is_some() =>
        {
            found
        }
        (Answer::SecureAbsence(_) | Answer::Insecure(Err(_)), found)
            if found.records().is_some() =>
        {
            found
        }
        (v4, v6) => {
            let absences = [v4.absence(), v6.absence()];
            let absence = match absences.contains(&Some(Absence::NoRecords)) {
                true => Absence::NoRecords,
                false => Absence::NoSuchName,
            };
            match v4.is_secure() && v6.is_secure() {
                true => Answer::SecureAbsence(absence),
                false => Answer::Insecure(Err(absence)),
            }
        }
    }
}

fn merge(mut v4: Addresses, v6: Addresses) -> Addresses {
    v4.addresses.extend(v6.addresses);
    v4.is_name_secure &= v6.is_name_secure;
    v4
}

/// `None` if the host is not a name.
fn to_mx(data: &Data) -> Option<Mx> {
    let Data::Mx(preference, host) = data else {
        return None;
    };
    let host = match host.as_str() {
        "" | "." => None,
        host => Some(DomainName::new(host).ok()?),
    };
    Some(Mx {
        preference: *preference,
        host,
    })
}

fn octets(data: &Data) -> Option<&[u8]> {
    match data {
        Data::Octets(octets) => Some(octets),
        Data::Mx(..) => None,
    }
}

fn to_address(data: &Data) -> Option<IpAddr> {
    let octets = octets(data)?;
    let v4 = <[u8; 4]>::try_from(octets).map(|v4| Ipv4Addr::from(v4).into());
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(|v6| Ipv6Addr::from(v6).into()))
        .ok()
}

/// Joins the strings of a TXT record, each of which follows its length (RFC 1035, 3.3.14).
fn to_text(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    while let Some((length, after)) = rest.split_first() {
        let (string, after) = after.split_at_checked((*length).into())?;
        text.extend_from_slice(string);
        rest = after;
    }
    Some(text)
}
