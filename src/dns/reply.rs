//! What an answer says about the name that was asked for: records, or that there are none, at the
//! end of its CNAMEs.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use domain::base::iana::{Class, OptRcode};
use domain::base::wire::ParseError;
use domain::base::{
    Message, Name, ParsedName, ParsedRecord, RecordSection, Rtype, ToName as _, UnknownRecordData,
};
use domain::rdata::{Cname, Dname, Soa};

use super::{Absence, DomainName, LookupErrorKind};

/// The maximum number of CNAMEs that are followed, as of Unbound.
const MAX_ALIASES: usize = 11;
/// How long an answer is kept at most (RFC 8767, 4 proposes a week for names that exist).
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the absence of records is kept at most (RFC 2308, 5).
const MAX_ABSENCE_TTL: Duration = Duration::from_secs(3 * 60 * 60);

/// What an answer says.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// Where the CNAMEs lead.
    pub(super) name: DomainName,
    /// The names that have CNAMEs, or are below a DNAME, beginning with the one that was asked for.
    pub(super) aliases: Vec<DomainName>,
    /// The record that leads from the name that was asked for to another, by its owner and type: a
    /// CNAME, or the DNAME of a name above.
    pub(super) first_alias: Option<(DomainName, Rtype)>,
    /// The data of each record.
    pub(super) records: Result<Vec<Data>, Absence>,
    /// How long it may be kept.
    pub(super) ttl: Duration,
}

/// The data of a record, with the message whose names it may refer to.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// The preference, and the host as text.
    Mx(u16, String),
    /// Any other data.
    Octets(Vec<u8>),
}

/// Why an answer cannot be used.
pub(super) type Fault = (LookupErrorKind, &'static str);

const MALFORMED: Fault = (LookupErrorKind::Malformed, "a record cannot be parsed");

impl Reply {
    /// The names that the answer is about.
    pub(super) fn names(&self) -> Vec<&DomainName> {
        self.aliases.iter().chain([&self.name]).collect()
    }

    /// The size of the memory that it takes, about, in bytes.
    pub(super) fn size(&self) -> usize {
        let names = self.aliases.iter().chain([&self.name]);
        let names: usize = names.map(|name| 16 + name.as_str().len()).sum();
        let records = self.records.iter().flatten().map(|data| match data {
            Data::Mx(_, host) => size_of::<Data>() + host.len(),
            Data::Octets(octets) => size_of::<Data>() + octets.len(),
        });
        let records: usize = records.sum();
        size_of::<Self>() + names + records
    }

    /// What is said of `localhost` and the names below it (RFC 6761, 6.3).
    pub(super) fn of_localhost(name: &DomainName, record_type: Rtype) -> Self {
        let records = match record_type {
            Rtype::A => Ok(Ipv4Addr::LOCALHOST.octets().to_vec()),
            Rtype::AAAA => Ok(Ipv6Addr::LOCALHOST.octets().to_vec()),
            _ => Err(Absence::NoRecords),
        };
        Reply {
            name: name.clone(),
            aliases: Vec::new(),
            first_alias: None,
            records: records.map(|octets| vec![Data::Octets(octets)]),
            ttl: Duration::ZERO,
        }
    }

    /// Reads an answer with the code NOERROR or NXDOMAIN.
    pub(super) fn read(
        message: &Message<Vec<u8>>,
        asked: &DomainName,
        record_type: Rtype,
    ) -> Result<Self, Fault> {
        let mut name = asked.clone();
        let mut owner = absolute(asked);
        let mut aliases = Vec::new();
        let mut first_alias = None;
        let mut ttl = MAX_TTL;
        loop {
            let found = records_of(message, &owner, record_type, &mut ttl)?;
            if !found.is_empty() {
                // The validator follows the CNAME, and judges only where that leads.
                if record_type != Rtype::CNAME && alias_of(message, &owner, &mut ttl)?.is_some() {
                    let fault = "a name has records beside its CNAME";
                    return Err((LookupErrorKind::Malformed, fault));
                }
                // Of an answer with this code, the validator judges the absence alone.
                if message.opt_rcode() == OptRcode::NXDOMAIN {
                    let fault = "a name has records, and does not exist";
                    return Err((LookupErrorKind::Malformed, fault));
                }
                return Ok(Reply {
                    name,
                    aliases,
                    first_alias,
                    records: Ok(found),
                    ttl,
                });
            }
            let Some(alias) = alias_of(message, &owner, &mut ttl)? else {
                break;
            };
            aliases.push(name);
            if aliases.len() > MAX_ALIASES {
                return Err((LookupErrorKind::TooManyAliases, ""));
            }
            if first_alias.is_none() {
                first_alias = Some((relative(&alias.owner)?, alias.record_type));
            }
            name = relative(&alias.target)?;
            owner = alias.target;
        }
        let absence = match message.opt_rcode() {
            OptRcode::NXDOMAIN => Absence::NoSuchName,
            _ => Absence::NoRecords,
        };
        Ok(Reply {
            name,
            aliases,
            first_alias,
            records: Err(absence),
            ttl: absence_ttl(message)?.min(ttl),
        })
    }
}

/// The name in wire format.
pub(super) fn absolute(name: &DomainName) -> Name<Vec<u8>> {
    Name::vec_from_str(name.as_str()).expect("a DomainName is a name")
}

fn relative(name: &Name<Vec<u8>>) -> Result<DomainName, Fault> {
    let fault = (LookupErrorKind::Malformed, "an alias has an invalid name");
    DomainName::new(&name.to_string()).map_err(|_| fault)
}

/// A CNAME or DNAME record, and where it leads from a name.
struct Alias {
    owner: Name<Vec<u8>>,
    record_type: Rtype,
    target: Name<Vec<u8>>,
}

/// The records of a section; those of another class do not count.
fn of_internet(
    section: Result<RecordSection<'_, Vec<u8>>, ParseError>,
) -> Result<impl Iterator<Item = Result<ParsedRecord<'_, Vec<u8>>, Fault>>, Fault> {
    let records = section.map_err(|_| MALFORMED)?;
    let is_of_internet = |record: &ParsedRecord<'_, _>| record.class() == Class::IN;
    Ok(records
        .filter(move |record| record.as_ref().map_or(true, is_of_internet))
        .map(|record| record.map_err(|_| MALFORMED)))
}

fn records_of(
    message: &Message<Vec<u8>>,
    owner: &Name<Vec<u8>>,
    record_type: Rtype,
    ttl: &mut Duration,
) -> Result<Vec<Data>, Fault> {
    let mut found = Vec::new();
    for record in of_internet(message.answer())? {
        let record = record?;
        if record.rtype() != record_type || !record.owner().name_eq(owner) {
            continue;
        }
        *ttl = record.ttl().into_duration().min(*ttl);
        found.push(if record_type == Rtype::MX {
            let mx = record.to_record::<domain::rdata::Mx<ParsedName<_>>>();
            let mx = mx.ok().flatten().ok_or(MALFORMED)?;
            let mx = mx.data();
            Data::Mx(mx.preference(), mx.exchange().to_string())
        } else {
            let data = record.to_record::<UnknownRecordData<_>>();
            let data = data.ok().flatten().ok_or(MALFORMED)?;
            Data::Octets(AsRef::<[u8]>::as_ref(data.data().data()).to_vec())
        });
    }
    Ok(found)
}

/// Where the CNAME of a name leads, or the DNAME of one above it (RFC 6672, 2.2). A DNAME comes
/// with the CNAME that follows from it. As that is not signed, it may have been removed on the way,
/// and the validator follows the DNAME without it.
fn alias_of(
    message: &Message<Vec<u8>>,
    owner: &Name<Vec<u8>>,
    ttl: &mut Duration,
) -> Result<Option<Alias>, Fault> {
    let mut alias: Option<Alias> = None;
    for record in of_internet(message.answer())? {
        let record = record?;
        let target: Name<Vec<u8>> = match record.rtype() {
            Rtype::CNAME if record.owner().name_eq(owner) => {
                let cname = record.to_record::<Cname<ParsedName<_>>>();
                let cname = cname.ok().flatten().ok_or(MALFORMED)?;
                cname.data().cname().to_name()
            }
            Rtype::DNAME if owner.ends_with(&record.owner()) && !record.owner().name_eq(owner) => {
                let dname = record.to_record::<Dname<ParsedName<_>>>();
                let dname = dname.ok().flatten().ok_or(MALFORMED)?;
                let below = owner.clone().strip_suffix(&record.owner());
                let target = below
                    .ok()
                    .and_then(|below| below.chain(dname.data().dname()).ok());
                target.ok_or(MALFORMED)?.to_name()
            }
            _ => continue,
        };
        if alias
            .as_ref()
            .is_some_and(|alias| !alias.target.name_eq(&target))
        {
            return Err((LookupErrorKind::Malformed, "a name has two aliases"));
        }
        *ttl = record.ttl().into_duration().min(*ttl);
        // The DNAME is what is signed.
        if alias.is_none() || record.rtype() == Rtype::DNAME {
            alias = Some(Alias {
                owner: record.owner().to_name(),
                record_type: record.rtype(),
                target,
            });
        }
    }
    Ok(alias)
}

/// RFC 2308, 5: the lesser of the SOA record's own TTL and its field MINIMUM.
fn absence_ttl(message: &Message<Vec<u8>>) -> Result<Duration, Fault> {
    for record in of_internet(message.authority())? {
        if let Ok(Some(soa)) = record?.to_record::<Soa<ParsedName<_>>>() {
            let ttl = soa.ttl().min(soa.data().minimum());
            return Ok(ttl.into_duration().min(MAX_ABSENCE_TTL));
        }
    }
    Ok(Duration::ZERO)
}
