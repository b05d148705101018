//! Questions to resolvers, by UDP, and by TCP where the answer does not fit.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::base::iana::OptRcode;
use domain::base::{Message, MessageBuilder, Name, ParsedName, Rtype};
use domain::net::client::request::{ComposeRequest as _, RequestMessage};
use domain::rdata::Rrsig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::LookupErrorKind;

/// The size of answers by UDP that a resolver may send: those that are not fragmented on the way
/// (DNS Flag Day 2020).
const UDP_SIZE: u16 = 1232;
/// How long the first answer of a resolver is waited for. Each further round waits twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How often every resolver is asked.
const ROUNDS: u32 = 4;

/// The resolvers that are asked, in this order.
#[derive(Clone, Debug)]
pub(super) struct Upstream(pub(super) Arc<[SocketAddr]>);

/// Why no resolver answered.
#[derive(Debug)]
pub(super) enum Failure {
    /// Each resolver failed; the first failure is not silence, unless all are.
    Several(Box<Failure>, Vec<Failure>),
    TimedOut(SocketAddr),
    Network(SocketAddr, io::Error),
    /// What came by TCP is not the answer.
    Malformed(SocketAddr),
    /// A signature in the answer cannot be one of its record.
    ForeignSignature(SocketAddr),
    /// The answer is an error.
    Code(SocketAddr, OptRcode),
}

pub(super) type Request = RequestMessage<Vec<u8>>;

impl Upstream {
    /// Asks for the records of a name, with what proves them. The bit CD lets data arrive that a
    /// resolver which validates would withhold: what is valid is judged here.
    pub(super) async fn ask(
        &self,
        name: &Name<Vec<u8>>,
        record_type: Rtype,
    ) -> Result<Message<Bytes>, Failure> {
        let mut question = MessageBuilder::new_vec().question();
        let request = question
            .push((name, record_type))
            .ok()
            .and_then(|()| Request::new(question.into_message()).ok())
            .expect("a question has room in a vector");
        self.send(request).await
    }

    /// Sends a question until a resolver answers it.
    pub(super) async fn send(&self, mut request: Request) -> Result<Message<Bytes>, Failure> {
        request.header_mut().set_random_id();
        request.header_mut().set_rd(true);
        request.header_mut().set_cd(true);
        request.set_dnssec_ok(true);
        request.set_udp_payload_size(UDP_SIZE);
        let question = request.to_vec().expect("a question is a message");

        let mut failures = Vec::new();
        for round in 0..ROUNDS {
            let wait = FIRST_WAIT * 2_u32.pow(round);
            failures.clear();
            for &server in &*self.0 {
                let answer = timeout(wait, exchange(server, &request, &question)).await;
                match answer.unwrap_or(Err(Failure::TimedOut(server))) {
                    Ok(message) => return Ok(message),
                    Err(failure) => failures.push(failure),
                }
            }
            // Only silence may be a loss on the way.
            if !failures.iter().any(Failure::is_silence) {
                break;
            }
        }
        failures.sort_by_key(Failure::is_silence);
        let first = failures.remove(0);
        Err(match failures.is_empty() {
            true => first,
            false => Failure::Several(Box::new(first), failures),
        })
    }
}

/// Asks one resolver once.
async fn exchange(
    server: SocketAddr,
    request: &Request,
    question: &[u8],
) -> Result<Message<Bytes>, Failure> {
    let network = |error| Failure::Network(server, error);
    let mut answer = by_udp(server, request, question).await.map_err(network)?;
    if answer.header().tc() {
        let octets = by_tcp(server, question).await.map_err(network)?;
        answer = Message::from_octets(octets)
            .ok()
            .filter(|answer| request.is_answer(answer.for_slice()) && !answer.header().tc())
            .ok_or(Failure::Malformed(server))?;
    }
    match answer.opt_rcode() {
        OptRcode::NOERROR | OptRcode::NXDOMAIN if has_foreign_signature(&answer) => {
            Err(Failure::ForeignSignature(server))
        }
        OptRcode::NOERROR | OptRcode::NXDOMAIN => Ok(answer),
        code => Err(Failure::Code(server, code)),
    }
}

/// Whether a signature is not of a zone that contains its record (RFC 4035, 5.3.1). The validator
/// asks this of secure zones alone: a forged signature of a zone that is not signed would make the
/// answer insecure, whatever its own zone is.
fn has_foreign_signature(answer: &Message<Bytes>) -> bool {
    let (Ok(records), Ok(authority)) = (answer.answer(), answer.authority()) else {
        return false;
    };
    records.chain(authority).flatten().any(|record| {
        match record.to_record::<Rrsig<_, ParsedName<_>>>() {
            Ok(Some(signature)) => !record.owner().ends_with(signature.data().signer_name()),
            Ok(None) => false,
            Err(_) => true,
        }
    })
}

async fn by_udp(
    server: SocketAddr,
    request: &Request,
    question: &[u8],
) -> io::Result<Message<Bytes>> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Anything else may be forged, and the answer may follow.
        if let Ok(answer) = Message::from_octets(Bytes::copy_from_slice(&buffer[..length]))
            && request.is_answer(answer.for_slice())
        {
            return Ok(answer);
        }
    }
}

/// RFC 1035, 4.2.2: a message follows its length in two octets.
async fn by_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Bytes> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), question].concat())
        .await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer.into())
}

impl Failure {
    fn is_silence(&self) -> bool {
        matches!(self, Failure::TimedOut(_))
    }

    pub(super) fn kind(&self) -> LookupErrorKind {
        match self {
            Failure::Several(first, _) => first.kind(),
            Failure::TimedOut(_) => LookupErrorKind::TimedOut,
            Failure::Network(..) => LookupErrorKind::Network,
            Failure::Malformed(_) => LookupErrorKind::Malformed,
            Failure::ForeignSignature(_) => LookupErrorKind::Bogus,
            Failure::Code(_, OptRcode::SERVFAIL) => LookupErrorKind::ServerFailure,
            Failure::Code(..) => LookupErrorKind::Refused,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Several(first, others) => {
                write!(f, "{first}")?;
                others.iter().try_for_each(|other| match (&**first, other) {
                    (Failure::TimedOut(_), silent) => write!(f, ", {silent}"),
                    (_, Failure::TimedOut(server)) => {
                        write!(f, "; {server} did not answer in time")
                    }
                    (_, other) => write!(f, "; {other}"),
                })
            }
            Failure::TimedOut(server) => write!(f, "{server}"),
            Failure::Network(server, error) => write!(f, "{server}: {error}"),
            Failure::Malformed(server) => {
                write!(f, "{server} sent by TCP what is not the answer")
            }
            Failure::ForeignSignature(server) => {
                write!(
                    f,
                    "{server} sent a signature of a zone that does not contain its record"
                )
            }
            Failure::Code(server, code) => write!(f, "{server} answered {code}"),
        }
    }
}
