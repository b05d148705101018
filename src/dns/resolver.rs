//! Lookups: what is asked, validated here, and kept for as long as the answer says.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::base::{Message, Rtype};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join};
use tokio::time::{Instant, timeout};

use super::cache::{Found, Lookups};
use super::reply::{Data, Reply, absolute};
use super::system;
use super::transport::Upstream;
use super::validator::{Anchors, Validator};
use super::{Absence, Addresses, Answer, DomainName, LookupError, LookupErrorKind, Mx, MxRecords};
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::tls::dane::TlsaRecord;

/// How long a lookup may take, unless [`Resolver::timeout`] says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a validator is used. It remembers whether a signature is valid, for as long as it
/// lives: one that has expired since, or was not yet valid by a clock that was wrong, is to be
/// judged anew.
const VALIDATOR_LIFETIME: Duration = Duration::from_secs(60);
/// The maximum number of validators, which differ by the zones that were added to their anchors.
const MAX_VALIDATORS: usize = 16;
/// How long a failure is kept, so that a name that fails is not asked for by each message (RFC
/// 9520, 3.2: at least 1 s, and at most 5 minutes). It is short, as a failure may be of the network
/// alone.
const FAILURE_TTL: Duration = Duration::from_secs(5);

/// Looks up what a sender of mail needs, and validates it by DNSSEC (RFC 4035). Cheap to clone; the
/// clones share their cache.
///
/// It asks a recursive or forwarding resolver, by UDP and, for answers that are too long, by TCP.
/// Whether an answer is secure is judged here, from the keys of the root or other
/// [anchors](Self::anchors): what the resolver says about it does not count, nor must the network
/// to it be trusted. The resolver must pass DNSSEC records on; with one that does not, every lookup
/// in a signed zone [fails](Answer::Failed).
///
/// Answers are kept in memory for as long as their TTL says, at most a day, and together at most
/// 4 MiB of them. Failures of the servers and of validation are kept for 5 seconds (RFC 9520); that
/// a lookup took longer than the [time-out](Self::timeout) is not kept. Equal lookups at the same
/// time are one.
///
/// `localhost` and the names below it are not asked for: they have the addresses of the loopback
/// interface, and no other records (RFC 6761, 6.3).
///
/// Signatures by RSA, ECDSA (P-256 and P-384) and Ed25519 are verified; a zone with others only is
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
/// A lookup that is dropped leaves nothing behind. If others wait for the same answer, one of them
/// starts anew.
#[derive(Clone)]
pub struct Resolver {
    upstream: Upstream,
    timeout: Duration,
    shared: Arc<Shared>,
}

struct Shared {
    anchors: Anchors,
    /// The validators by the records of their anchors, and since when each is used.
    validators: Mutex<HashMap<String, (Instant, Arc<Validator>)>>,
    lookups: Lookups<(DomainName, Rtype), Result<Validated, Refusal>>,
}

/// What an answer says, and whether DNSSEC proves it.
#[derive(Clone, Debug)]
struct Validated {
    reply: Arc<Reply>,
    is_secure: bool,
}

/// Why there is no answer: the kind of the error, and what is known beyond it.
type Refusal = (LookupErrorKind, String);

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
    /// [`ErrorKind::Config`]: the file cannot be read, or names a resolver by what is not an
    /// address. The system is not a Unix: it has no such file, and the resolver must be
    /// [named](Self::new).
    pub fn system() -> Result<Self> {
        Ok(Self::with_servers(system::servers()?))
    }

    /// Asks the resolver at this address; its port is usually 53.
    pub fn new(server: SocketAddr) -> Self {
        Self::with_servers(vec![server])
    }

    pub(super) fn with_servers(servers: Vec<SocketAddr>) -> Self {
        let upstream = Upstream(servers.into());
        Resolver {
            shared: Shared::new(Anchors::root()),
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
    /// [`ErrorKind::Config`]: the text has other records, none at all, or cannot be parsed.
    pub fn anchors(mut self, records: &str) -> Result<Self> {
        let invalid = |why: &str| {
            let message = format!("the anchors of DNSSEC cannot be used: {why}");
            let hint = "Give DS or DNSKEY records in the form of a zone file, for example \
                        `. IN DS 20326 8 2 E06D44B8…`.";
            Error::new(ErrorKind::Config, Phase::Setup, message).with_hint(hint)
        };
        let anchors = Anchors::parse(records).map_err(|why| invalid(&why))?;
        self.shared = Shared::new(anchors);
        Ok(self)
    }

    /// Bounds each lookup, with all that is asked to validate it. 15 s by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(crate) fn get_timeout(&self) -> Duration {
        self.timeout
    }

    /// The resolver with this time-out, unless its own is shorter.
    pub(crate) fn within(&self, limit: Duration) -> Self {
        self.clone().timeout(self.timeout.min(limit))
    }

    /// Returns the addresses of the resolvers that are asked, in this order.
    pub fn get_servers(&self) -> &[SocketAddr] {
        &self.upstream.0
    }

    /// Looks up the servers of a domain, its MX records. A host in them that is not a valid name is
    /// left out. If none is valid, there are no [exchanges](MxRecords::exchanges).
    pub async fn mx(&self, domain: &DomainName) -> Answer<MxRecords> {
        let answer = self.look_up(domain, Rtype::MX).await;
        self.convert(domain, "MX", answer, |reply, records| {
            Some(MxRecords {
                name: reply.name.clone(),
                aliases: reply.aliases.clone(),
                exchanges: records.iter().filter_map(to_mx).collect(),
            })
        })
    }

    /// Looks up the IPv4 and IPv6 addresses of a host, its A and AAAA records. If one of the two
    /// lookups fails, the answer is that of the other, provided that it has addresses. For an alias
    /// that is not secure, its CNAME is looked up after them, which may take as long again.
    pub async fn addresses(&self, host: &DomainName) -> Answer<Addresses> {
        let (v4, v6) = join(
            self.addresses_of_family(host, Rtype::A),
            self.addresses_of_family(host, Rtype::AAAA),
        )
        .await;
        combine(v4, v6)
    }

    /// Looks up the TLSA records of a server (RFC 6698, 3): those of `_25._tcp.mx.example.org` for
    /// the port 25 and the base domain `mx.example.org`. CNAMEs are followed. If that name is too
    /// long for the DNS, it [does not exist](Absence::NoSuchName).
    pub async fn tlsa(&self, base: &DomainName, port: u16) -> Answer<Vec<TlsaRecord>> {
        // A name that is too long for the DNS does not exist.
        let Ok(name) = DomainName::new(&format!("_{port}._tcp.{base}")) else {
            return Answer::SecureAbsence(Absence::NoSuchName);
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
        let mut is_name_secure = answer.as_ref().is_ok_and(|answer| answer.is_secure);
        if let Ok(Validated { reply, is_secure }) = &answer
            && !is_secure
            && reply.records.is_ok()
            && let Some((owner, record_type)) = &reply.first_alias
        {
            match self.look_up(owner, *record_type).await {
                Ok(alias) => is_name_secure = alias.is_secure,
                // Whether the CNAME is secure decides whether TLSA records count.
                Err((kind, detail)) => {
                    return Answer::Failed(self.failure(host, "CNAME", kind, detail));
                }
            }
        }
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
        answer: Result<Validated, Refusal>,
        convert: impl FnOnce(&Reply, &[Data]) -> Option<T>,
    ) -> Answer<T> {
        let failed =
            |kind, detail: String| Answer::Failed(self.failure(name, record_type, kind, detail));
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

    /// The failure of a lookup, which names the resolvers unless it is the domain's.
    fn failure(
        &self,
        name: &DomainName,
        record_type: &'static str,
        kind: LookupErrorKind,
        mut detail: String,
    ) -> LookupError {
        let is_of_domain = matches!(
            kind,
            LookupErrorKind::Bogus | LookupErrorKind::TooManyAliases
        );
        let servers: Vec<String> = self.get_servers().iter().map(ToString::to_string).collect();
        if !is_of_domain && !servers.iter().any(|server| detail.contains(server)) {
            let separator = if detail.is_empty() { "" } else { "; asked: " };
            detail = format!("{detail}{separator}{}", servers.join(", "));
        }
        let error = LookupError::new(name.clone(), record_type, kind, detail);
        error.with_own_anchors(!self.shared.anchors.are_default())
    }

    /// Looks up and validates, or takes the answer from the cache.
    async fn look_up(&self, name: &DomainName, record_type: Rtype) -> Result<Validated, Refusal> {
        if name.is_localhost() {
            return Ok(Validated {
                reply: Arc::new(Reply::of_localhost(name, record_type)),
                is_secure: false,
            });
        }
        let key = (name.clone(), record_type);
        let lookups = &self.shared.lookups;
        let looking_up = lookups.get_or_look_up(key, || self.ask(name, record_type));
        let answer = timeout(self.timeout, looking_up).await;
        answer.unwrap_or_else(|_| Err((LookupErrorKind::TimedOut, String::new())))
    }

    async fn ask(
        &self,
        name: &DomainName,
        record_type: Rtype,
    ) -> Found<Result<Validated, Refusal>> {
        let asking = AssertUnwindSafe(self.ask_and_validate(name, record_type)).catch_unwind();
        // A record that the validator does not expect must not end the program.
        let panicked = |_| Err((LookupErrorKind::Malformed, String::new()));
        let value = asking.await.unwrap_or_else(panicked);
        let (size, ttl) = match &value {
            Ok(answer) => (answer.reply.size(), answer.reply.ttl),
            Err((_, detail)) => (detail.len(), FAILURE_TTL),
        };
        Found {
            size: key_size(name) + size,
            value,
            ttl,
        }
    }

    /// [`look_up`](Self::look_up) for a lookup by which another one is judged.
    fn look_up_first<'a>(
        &'a self,
        name: &'a DomainName,
        record_type: Rtype,
    ) -> BoxFuture<'a, Result<Validated, Refusal>> {
        self.look_up(name, record_type).boxed()
    }

    /// Whether the zone of a name is signed; `None` is the root. A CNAME is what may be at any
    /// name, and is not followed if it is asked for.
    async fn is_in_signed_zone(&self, name: Option<&DomainName>) -> Result<bool, Refusal> {
        let Some(name) = name else {
            return Ok(self.shared.anchors.are_of_root());
        };
        let answer = self.look_up_first(name, Rtype::CNAME).await?;
        Ok(answer.is_secure)
    }

    async fn ask_and_validate(
        &self,
        name: &DomainName,
        record_type: Rtype,
    ) -> Result<Validated, Refusal> {
        let asked = self.upstream.ask(&absolute(name), record_type).await;
        let message = asked.map_err(|failure| (failure.kind(), failure.to_string()))?;
        let malformed = || (LookupErrorKind::Malformed, String::new());
        let mut message =
            Message::from_octets(message.as_slice().to_vec()).map_err(|_| malformed())?;
        // Before it is validated, as the validator has no words for these faults.
        let fault = |(kind, detail): (_, &str)| (kind, detail.to_owned());
        let reply = Reply::read(&message, name, record_type).map_err(fault)?;
        // The DS records of a zone are of one above it, which bounds the recursion.
        let parent = name.as_str().split_once('.');
        let parent = parent.and_then(|(_, parent)| DomainName::new(parent).ok());
        let names = match record_type {
            Rtype::DS => parent.iter().collect(),
            _ => reply.names(),
        };
        let mut validator = self
            .shared
            .validator(self.shared.anchors.clone(), &self.upstream);
        let mut is_renewed = false;
        let is_secure = loop {
            match validator.validate(&mut message, &reply.name).await {
                Ok(true) => break true,
                Ok(false) => {}
                Err((LookupErrorKind::Bogus, _)) if !is_renewed && validator.may_lack_keys() => {
                    let anchors = validator.anchors().clone();
                    validator = Arc::new(Validator::new(anchors, &self.upstream));
                    is_renewed = true;
                    continue;
                }
                Err(refusal) => return Err(refusal),
            }
            let mut anchors = validator.anchors().clone();
            let mut is_added = false;
            for zone in validator.unfollowed_zones(&names) {
                let keys = self.look_up_first(&zone, Rtype::DS).await?;
                if keys.is_secure
                    && keys.reply.name == zone
                    && let Ok(records) = &keys.reply.records
                {
                    is_added |= anchors.add(&zone, records.iter().filter_map(octets));
                }
            }
            if !is_added {
                break false;
            }
            validator = self.shared.validator(anchors, &self.upstream);
        };
        // Without signatures, the validator takes the answer for one of the zone itself, which it
        // may not follow.
        if record_type == Rtype::DS && !is_secure && self.is_in_signed_zone(parent.as_ref()).await?
        {
            let detail = "the DS records, or their absence, are not signed";
            return Err((LookupErrorKind::Bogus, detail.into()));
        }
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
    fn new(anchors: Anchors) -> Arc<Self> {
        Arc::new(Shared {
            anchors,
            validators: Mutex::default(),
            lookups: Lookups::new(),
        })
    }

    /// The validator of now with these anchors: those of the resolver, and zones that were added to
    /// them.
    fn validator(&self, anchors: Anchors, upstream: &Upstream) -> Arc<Validator> {
        let validators = self.validators.lock();
        let mut validators = validators.unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        validators.retain(|_, (since, _)| now - *since < VALIDATOR_LIFETIME);
        let records = anchors.records();
        if let Some((_, validator)) = validators.get(records) {
            return validator.clone();
        }
        if validators.len() >= MAX_VALIDATORS {
            let added = validators
                .iter()
                .filter(|(records, _)| *records != self.anchors.records());
            let oldest = added.min_by_key(|(_, (since, _))| *since);
            if let Some(oldest) = oldest.map(|(records, _)| records.clone()) {
                validators.remove(&oldest);
            }
        }
        let records = records.to_owned();
        let validator = Arc::new(Validator::new(anchors, upstream));
        validators.insert(records, (now, validator.clone()));
        validator
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

/// The size of a key of the cache, with what keeps it in order, about, in bytes.
fn key_size(name: &DomainName) -> usize {
    name.as_str().len() + 128
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
