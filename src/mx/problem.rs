//! Why mail cannot go to a domain, before any server is reached: typed reasons, texts, hints.

use std::error::Error as _;
use std::fmt;

use crate::dns::LookupError;
use crate::error::{Error, ErrorKind, Phase};

/// Why mail cannot go to a domain or to one of its hosts, by what the DNS says.
///
/// It is the [source](std::error::Error::source) of the [`Error`], unless that is a
/// [`LookupError`]: a lookup that failed, which may succeed later.
///
/// ```
/// use std::error::Error as _;
/// use envoi::mx::MxProblem;
///
/// fn is_typing_error(error: &envoi::Error) -> bool {
///     let problem = error.source().and_then(|source| source.downcast_ref());
///     matches!(problem, Some(MxProblem::NoSuchDomain))
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MxProblem {
    /// The domain does not exist (NXDOMAIN).
    NoSuchDomain,
    /// The domain accepts no mail, which it says by a null MX (RFC 7505).
    NullMx,
    /// The domain has MX records, and none of them has the name of a host other than `localhost`.
    NoValidHost,
    /// The domain's best server is this machine, by
    /// [`MxClient::own_names`](super::MxClient::own_names).
    OwnHost,
    /// The name of a host does not exist (NXDOMAIN).
    NoSuchHost,
    /// A host exists, and has no address (NODATA); or the domain has neither MX records nor an
    /// address.
    NoAddress,
    /// An address of a host is not [allowed](super::MxClient::address_filter).
    AddressRefused,
    /// The domain of an address is not a name that the DNS can have, or a literal of another kind
    /// than IPv4 and IPv6.
    NotAName,
}

impl fmt::Display for MxProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MxProblem::NoSuchDomain => "the domain does not exist (NXDOMAIN)",
            MxProblem::NullMx => "the domain accepts no mail (null MX, RFC 7505)",
            MxProblem::NoValidHost => "none of its MX records has the name of a host",
            MxProblem::OwnHost => "its mail would come back to this machine",
            MxProblem::NoSuchHost => "the name of the host does not exist (NXDOMAIN)",
            MxProblem::NoAddress => "it has no address (NODATA)",
            MxProblem::AddressRefused => "the address is not allowed",
            MxProblem::NotAName => "it is not the name of a domain",
        })
    }
}

impl std::error::Error for MxProblem {}

/// The error of a domain or host with this problem, which is permanent.
pub(crate) fn problem(problem: MxProblem, place: impl fmt::Display, detail: &str) -> Error {
    let hint = match problem {
        MxProblem::NoSuchDomain => {
            "Check the spelling of the address: the part after the @ is not a domain."
        }
        MxProblem::NullMx => {
            "No server takes mail for this domain; check the address, or ask for another one."
        }
        MxProblem::OwnHost => {
            "Deliver the mail for this domain here, or correct the domain's MX records, or the own \
                names (MxClient::own_names)."
        }
        MxProblem::NoValidHost | MxProblem::NoSuchHost | MxProblem::NoAddress => {
            "The domain's DNS records are faulty or incomplete: check the spelling of the address, \
                and tell the domain's postmaster by other means."
        }
        MxProblem::AddressRefused => {
            "The domain names a server at an address that mail may not go to: check the address of \
                the recipient, or allow it (MxClient::public_only, MxClient::address_filter)."
        }
        MxProblem::NotAName => "Check the spelling of the address.",
    };
    let message = match detail {
        "" => format!("{place}: {problem}"),
        detail => format!("{place}: {detail}"),
    };
    let mut error = Error::new(ErrorKind::Connect, Phase::Connect, message)
        .with_hint(hint)
        .with_source(problem);
    error.set_transient(false);
    error
}

/// The problem that is the cause of the error, if it is one.
pub(crate) fn problem_of(error: &Error) -> Option<MxProblem> {
    error.source()?.downcast_ref().copied()
}

/// The error of a lookup that failed, which is transient.
pub(super) fn lookup_failed(error: LookupError) -> Error {
    let mut hint = error.hint().to_owned();
    if let Some(first) = hint.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    Error::new(ErrorKind::Connect, Phase::Connect, error.to_string())
        .with_hint(hint + ".")
        .with_source(error)
}
