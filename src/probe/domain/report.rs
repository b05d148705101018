//! What was found about a domain, as plain data and as text.

use std::fmt;
use std::net::IpAddr;

use super::Published;
use crate::Error;
use crate::mx::mta_sts::{FetchError, Policy};
use crate::mx::{
    Addresses, Answer, Dane, DomainName, LookupError, MxProblem, MxRecords, NoDane, TlsaRecord,
    list_patterns,
};
use crate::tls::{Certificate, TlsInfo};

/// What a domain publishes, whether its servers meet it, and what to change. `Display` formats it
/// for a terminal.
#[derive(Debug)]
#[non_exhaustive]
pub struct DomainReport {
    /// The domain.
    pub domain: DomainName,
    /// Its MX records.
    pub mx: Answer<MxRecords>,
    /// Why mail cannot go to the domain, by these records: it does not exist, or accepts no mail.
    pub problem: Option<MxProblem>,
    /// Its servers, by preference; the domain's own host if there are no MX records. Of more than
    /// 20, the rest is left out.
    pub servers: Vec<ServerReport>,
    /// The record of MTA-STS (RFC 8461, 3.1).
    pub mta_sts: Published,
    /// The policy of MTA-STS, if there is a record.
    pub policy: Option<Result<Policy, FetchError>>,
    /// The record that asks for TLS reports (RFC 8460, 3).
    pub tls_rpt: Published,
    /// The SPF record (RFC 7208).
    pub spf: Published,
    /// The DMARC record (RFC 7489): of this domain, or of the nearest one above that has one.
    pub dmarc: Published,
    /// The domain that has the DMARC record; this domain if there is none.
    pub dmarc_domain: DomainName,
    /// The DKIM key of the selector, if one was given.
    pub dkim: Option<Published>,
    /// What must change for mail to arrive as the domain publishes it.
    pub changes: Vec<String>,
    /// What could be better.
    pub suggestions: Vec<String>,
    /// The lookups that failed, which leaves the report incomplete.
    pub failures: Vec<LookupError>,
}

/// A server of a domain.
#[derive(Debug)]
#[non_exhaustive]
pub struct ServerReport {
    /// The host of the MX record.
    pub host: DomainName,
    /// The preference of the MX record.
    pub preference: u16,
    /// The addresses of the host.
    pub addresses: Answer<Addresses>,
    /// The TLSA records that count for senders with DANE, with the names that the certificate may
    /// have; or why there are none.
    pub dane: Result<Dane, NoDane>,
    /// The sessions with the addresses, of which at most ten are connected to for all servers.
    pub sessions: Vec<SessionReport>,
}

/// What came of the connections to an address of a server.
#[derive(Debug)]
#[non_exhaustive]
pub struct SessionReport {
    /// The address.
    pub address: IpAddr,
    /// What was negotiated without DANE, and whether the certificate is valid for the host by the
    /// trust anchors of the [inspector](super::Inspector::tls). `None` without TLS.
    pub tls: Option<TlsInfo>,
    /// What was negotiated with DANE, and whether the TLSA records verify the server, if one of
    /// them is [usable](Dane::is_usable). `None` where DANE does not apply.
    pub dane: Option<TlsInfo>,
    /// Why the server cannot be used.
    pub failure: Option<Error>,
}

impl DomainReport {
    /// Whether nothing must change, and everything could be looked up.
    pub fn is_fine(&self) -> bool {
        self.changes.is_empty() && self.failures.is_empty()
    }
}

impl fmt::Display for DomainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n\nMX       ", self.domain)?;
        match (&self.mx, &self.problem, self.mx.absence()) {
            (Answer::Failed(error), ..) => write!(f, "not known: {}", error.kind())?,
            (_, Some(problem), _) => write!(f, "{problem}, {}", security(&self.mx))?,
            (_, None, Some(absence)) => write!(f, "{absence}, {}", security(&self.mx))?,
            (_, None, None) => write!(f, "{}", security(&self.mx))?,
        }
        let records = self.mx.records();
        if let Some(records) = records.filter(|records| records.name != self.domain) {
            write!(f, ", of {} (CNAME)", records.name)?;
        }
        writeln!(f)?;
        for server in &self.servers {
            server.fmt(f)?;
        }
        writeln!(f, "MTA-STS  {}", self.mta_sts)?;
        match &self.policy {
            Some(Ok(policy)) => {
                let mx = match &policy.mx[..] {
                    [] => "none".to_owned(),
                    mx => list_patterns(mx),
                };
                let seconds = policy.max_age.as_secs();
                writeln!(f, "  mode {}, mx {mx}, for {seconds} s", policy.mode)?;
            }
            Some(Err(error)) => writeln!(f, "  {error}")?,
            None => {}
        }
        writeln!(f, "TLS-RPT  {}", self.tls_rpt)?;
        writeln!(f, "SPF      {}", self.spf)?;
        write!(f, "DMARC    {}", self.dmarc)?;
        match self.dmarc_domain == self.domain {
            true => writeln!(f)?,
            false => writeln!(f, " (of {})", self.dmarc_domain)?,
        }
        if let Some(dkim) = &self.dkim {
            writeln!(f, "DKIM     {dkim}")?;
        }
        let mut shown = "";
        for failure in &self.failures {
            writeln!(f, "\nLookup failed: {failure}")?;
            // A hint that several failures share is shown once.
            if failure.hint() != shown {
                shown = failure.hint();
                writeln!(f, "  {shown}")?;
            }
        }
        for change in &self.changes {
            writeln!(f, "\nTo change: {change}")?;
        }
        for suggestion in &self.suggestions {
            writeln!(f, "\nSuggestion: {suggestion}")?;
        }
        match self.is_fine() {
            true => writeln!(f, "\nNothing needs to change."),
            false => Ok(()),
        }
    }
}

fn security<T>(answer: &Answer<T>) -> &'static str {
    match answer.is_secure() {
        true => "secure",
        false => "not signed",
    }
}

impl ServerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {} {}: ", self.preference, self.host)?;
        match (&self.addresses, self.addresses.absence()) {
            (Answer::Failed(error), _) => write!(f, "not known: {}", error.kind())?,
            (answer, Some(absence)) => write!(f, "{absence}, {}", security(answer))?,
            (answer, None) => write!(f, "{}", security(answer))?,
        }
        if let Some(addresses) = self.addresses.records()
            && addresses.name != self.host
        {
            write!(f, ", of {} (CNAME)", addresses.name)?;
        }
        writeln!(f)?;
        match &self.dane {
            Ok(dane) => {
                for record in dane.records() {
                    writeln!(f, "    TLSA of {}: {record}", dane.base_domain())?;
                }
            }
            Err(_) if self.addresses.records().is_none() => {}
            Err(NoDane::NotApplicable(reason)) => writeln!(f, "    no DANE: {reason}")?,
            Err(NoDane::LookupFailed { error, .. }) => {
                writeln!(f, "    TLSA not known: {}", error.kind())?;
            }
        }
        for session in &self.sessions {
            write!(f, "    {}: ", session.address)?;
            session.fmt(f, self)?;
        }
        Ok(())
    }
}

impl SessionReport {
    /// Returns the server's certificate: where DANE applies, as a sender with DANE gets it.
    pub fn certificate(&self) -> Option<&Certificate> {
        let tls = self.dane.as_ref().or(self.tls.as_ref());
        tls.and_then(TlsInfo::peer)
    }

    /// What was negotiated with DANE, if a TLSA record is usable, so that the server is verified.
    pub(super) fn by_dane(&self, server: &ServerReport) -> Option<&TlsInfo> {
        let is_usable = server.dane.as_ref().is_ok_and(Dane::is_usable);
        self.dane.as_ref().filter(|_| is_usable)
    }

    fn fmt(&self, f: &mut fmt::Formatter<'_>, server: &ServerReport) -> fmt::Result {
        let by_dane = match self.by_dane(server).map(TlsInfo::is_verified) {
            Some(true) => ", verified by DANE",
            Some(false) => ", not verified by DANE",
            None => "",
        };
        match (&self.failure, &self.tls) {
            (Some(failure), _) => writeln!(f, "{}{by_dane}", failure.message())?,
            (None, None) => writeln!(f, "no TLS")?,
            (None, Some(tls)) => {
                let certificate = match tls.is_verified() {
                    true => "certificate verified",
                    false => "certificate not verified",
                };
                writeln!(f, "{}{by_dane}, {certificate}", tls.version)?;
            }
        }
        match self.certificate() {
            Some(own) => writeln!(f, "      its key as TLSA: {}", TlsaRecord::of_key(own)),
            None => Ok(()),
        }
    }
}
