//! Servers that send anything but the answer: nothing of it is a record or an absence.

use std::net::IpAddr;

use domain::rdata::{Mx as MxData, Txt};
use futures_util::future::join_all;

use super::*;

type Question = Message<Vec<u8>>;

/// Where the question for a.example, and the first record, begin in a message.
const QUESTION: usize = 12;
const RECORD: usize = QUESTION + NAME + 4;
/// The length of a.example.
const NAME: usize = 11;

pub(super) enum Sent {
    Here(Vec<u8>),
    /// From another port.
    OtherPort(Vec<u8>),
    /// From another address.
    OtherAddress(Vec<u8>),
    /// After this time.
    Later(Duration, Vec<u8>),
}

use Sent::{Here, Later, OtherAddress, OtherPort};

/// What a server does with a connection after the question.
pub(super) enum Stream {
    Close,
    /// Sends these bytes, and closes.
    Send(Vec<u8>),
    Silence,
}

/// Starts a server; the number is that of the questions by UDP.
pub(super) async fn start(
    udp: impl Fn(&Question) -> Vec<Sent> + Send + 'static,
    tcp: impl Fn(&Question) -> Stream + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, socket, address) = bind().await;
    let other_port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let elsewhere = IpAddr::from([127, 0, 0, 2]);
    // Only Linux has all of 127.0.0.0/8.
    let other_address = UdpSocket::bind((elsewhere, address.port())).await.ok();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            let question = Message::from_octets(buffer[..length].to_vec()).unwrap();
            for sent in udp(&question) {
                let (from, datagram) = match &sent {
                    Here(datagram) => (&socket, datagram),
                    OtherPort(datagram) => (&other_port, datagram),
                    OtherAddress(datagram) => {
                        (other_address.as_ref().unwrap_or(&other_port), datagram)
                    }
                    Later(wait, datagram) => {
                        tokio::time::sleep(*wait).await;
                        (&socket, datagram)
                    }
                };
                // The port of the client may be closed by now.
                _ = from.send_to(datagram, client).await;
            }
        }
    });
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut question).await.unwrap();
            match tcp(&Message::from_octets(question).unwrap()) {
                Stream::Close => {}
                Stream::Send(bytes) => _ = stream.write_all(&bytes).await,
                Stream::Silence => open.push(stream),
            }
        }
    });
    (address, count)
}

/// An answer with one MX record.
fn mx(question: &Question, host: &str) -> Vec<u8> {
    let asked = question.sole_question().unwrap();
    let mut answer = MessageBuilder::new_vec()
        .start_answer(question, Rcode::NOERROR)
        .unwrap();
    let mx = MxData::new(10, Name::vec_from_str(host).unwrap());
    answer
        .push((asked.qname(), Ttl::from_secs(60), mx))
        .unwrap();
    answer.finish()
}

fn right(question: &Question) -> Vec<u8> {
    mx(question, "right.example")
}

fn forged(question: &Question) -> Vec<u8> {
    mx(question, "forged.example")
}

fn changed(mut message: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut message);
    message
}

/// What is not the answer to the question.
fn wrong_answers(question: &Question) -> Vec<Sent> {
    let forged = || forged(question);
    // The question is for a.example: another name of the same length.
    assert_eq!(forged()[QUESTION + 1], b'a');
    vec![
        // Another ID.
        Here(changed(forged(), |message| message[1] ^= 1)),
        // Another name, type and class, and no question.
        Here(changed(forged(), |message| message[QUESTION + 1] = b'b')),
        Here(changed(forged(), |message| {
            message[QUESTION + NAME + 1] = 1
        })),
        Here(changed(forged(), |message| {
            message[QUESTION + NAME + 3] = 3
        })),
        Here(changed(forged(), |message| {
            message[5] = 0;
            message.drain(QUESTION..RECORD);
        })),
        // A question, not an answer.
        Here(changed(forged(), |message| message[2] &= 0x7F)),
        // A name that refers to itself.
        Here(changed(forged(), |message| {
            message.splice(QUESTION..QUESTION + NAME, [0xC0, 12]);
        })),
        // What ends within the header or the question, and nothing.
        Here(forged()[..11].to_vec()),
        Here(forged()[..20].to_vec()),
        Here(Vec::new()),
        // From elsewhere.
        OtherPort(forged()),
        OtherAddress(forged()),
    ]
}

fn truncated(question: &Question) -> Vec<Sent> {
    vec![Here(changed(forged(question), |message| message[2] |= 2))]
}

pub(super) fn framed(message: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    [&length.to_be_bytes()[..], &message].concat()
}

fn resolver(server: SocketAddr) -> Resolver {
    unsigned(server).timeout(Duration::from_millis(300))
}

async fn hosts(resolver: &Resolver) -> Vec<String> {
    let answer = resolver.mx(&name("a.example")).await;
    let Answer::Insecure(Ok(records)) = answer else {
        panic!("{answer:?}");
    };
    let hosts = records.exchanges.iter();
    hosts
        .map(|mx| mx.host.as_ref().unwrap().to_string())
        .collect()
}

/// The kind of the error. The lookup ends in time.
async fn error_of(resolver: &Resolver) -> LookupErrorKind {
    let lookup = failure(async { resolver.mx(&name("a.example")).await });
    let in_time = tokio::time::timeout(Duration::from_secs(10), lookup);
    in_time.await.unwrap()
}

#[tokio::test]
async fn what_is_not_the_answer_is_passed_over() {
    let number = wrong_answers(&question()).len();
    join_all((0..number).map(async |at| {
        let (server, _) = start(
            move |question| {
                vec![
                    wrong_answers(question).swap_remove(at),
                    Here(right(question)),
                ]
            },
            |_| Stream::Close,
        )
        .await;
        assert_eq!(hosts(&unsigned(server)).await, ["right.example"], "{at}");
        let (server, _) = start(
            move |question| vec![wrong_answers(question).swap_remove(at)],
            |_| Stream::Close,
        )
        .await;
        let error = error_of(&resolver(server)).await;
        assert_eq!(error, LookupErrorKind::TimedOut, "{at}");
    }))
    .await;
}

fn question() -> Question {
    let mut question = MessageBuilder::new_vec().question();
    let name = Name::vec_from_str("a.example").unwrap();
    question.push((name, Rtype::MX)).unwrap();
    question.into_message()
}

#[tokio::test]
async fn the_answer_is_found_among_many_others() {
    let (server, _) = start(
        |question| {
            let wrong = (0..50).flat_map(|_| wrong_answers(question));
            wrong.chain([Here(right(question))]).collect()
        },
        |_| Stream::Close,
    )
    .await;
    assert_eq!(hosts(&unsigned(server)).await, ["right.example"]);
}

#[tokio::test]
async fn what_comes_by_tcp_is_the_answer_or_a_failure() {
    type Answers = Box<dyn Fn(&Question) -> Stream + Send>;
    let send = |change: fn(&mut Vec<u8>)| -> Answers {
        Box::new(move |question| Stream::Send(framed(changed(forged(question), change))))
    };
    let raw = |change: fn(&mut Vec<u8>)| -> Answers {
        Box::new(move |question| Stream::Send(changed(framed(forged(question)), change)))
    };
    let cases: Vec<(&str, Answers, LookupErrorKind)> = vec![
        (
            "another ID",
            send(|message| message[1] ^= 1),
            LookupErrorKind::Malformed,
        ),
        (
            "another name",
            send(|message| message[QUESTION + 1] = b'b'),
            LookupErrorKind::Malformed,
        ),
        (
            "a question",
            send(|message| message[2] &= 0x7F),
            LookupErrorKind::Malformed,
        ),
        (
            "truncated",
            send(|message| message[2] |= 2),
            LookupErrorKind::Malformed,
        ),
        ("no message", send(Vec::clear), LookupErrorKind::Malformed),
        (
            "half a header",
            send(|message| message.truncate(6)),
            LookupErrorKind::Malformed,
        ),
        (
            "half a record",
            send(|message| message.truncate(40)),
            LookupErrorKind::Malformed,
        ),
        (
            "a length too short",
            raw(|bytes| bytes[1] -= 8),
            LookupErrorKind::Malformed,
        ),
        (
            "a length too great",
            raw(|bytes| bytes[0] = 1),
            LookupErrorKind::Network,
        ),
        (
            "half a length",
            raw(|bytes| bytes.truncate(1)),
            LookupErrorKind::Network,
        ),
        (
            "half a message",
            raw(|bytes| bytes.truncate(30)),
            LookupErrorKind::Network,
        ),
        (
            "closed",
            Box::new(|_| Stream::Close),
            LookupErrorKind::Network,
        ),
        (
            "silent",
            Box::new(|_| Stream::Silence),
            LookupErrorKind::TimedOut,
        ),
    ];
    join_all(cases.into_iter().map(async |(case, tcp, kind)| {
        let (server, _) = start(truncated, tcp).await;
        assert_eq!(error_of(&resolver(server)).await, kind, "{case}");
    }))
    .await;
    let (server, _) = start(truncated, |question| Stream::Send(framed(right(question)))).await;
    assert_eq!(hosts(&unsigned(server)).await, ["right.example"]);
}

/// An answer whose records and code are given.
fn answer_of<D: domain::base::rdata::ComposeRecordData>(
    question: &Question,
    code: Rcode,
    records: impl IntoIterator<Item = (String, D)>,
) -> Vec<u8> {
    let mut answer = MessageBuilder::new_vec()
        .start_answer(question, code)
        .unwrap();
    for (owner, data) in records {
        let owner = Name::vec_from_str(&owner).unwrap();
        answer.push((owner, Ttl::from_secs(60), data)).unwrap();
    }
    answer.finish()
}

fn right_data() -> MxData<Name<Vec<u8>>> {
    MxData::new(10, Name::vec_from_str("right.example").unwrap())
}

fn aliases(number: usize) -> impl Iterator<Item = (String, Cname<Name<Vec<u8>>>)> {
    (0..number).map(|at| {
        let owner = match at {
            0 => "a.example".to_owned(),
            at => format!("alias{at}.example"),
        };
        let target = Name::vec_from_str(&format!("alias{}.example", at + 1)).unwrap();
        (owner, Cname::new(target))
    })
}

#[tokio::test]
async fn an_answer_with_other_records_is_a_failure() {
    type Answers = fn(&Question) -> Vec<u8>;
    let cases: Vec<(&str, Answers, LookupErrorKind)> = vec![
        (
            "another name",
            |question| {
                answer_of(
                    question,
                    Rcode::NOERROR,
                    [("b.example".into(), right_data())],
                )
            },
            LookupErrorKind::ServerFailure,
        ),
        (
            "another type",
            |question| {
                let text = Txt::<Vec<u8>>::build_from_slice(b"text").unwrap();
                answer_of(question, Rcode::NOERROR, [("a.example".into(), text)])
            },
            LookupErrorKind::ServerFailure,
        ),
        (
            "another class",
            |question| changed(right(question), |message| message[RECORD + NAME + 3] = 3),
            LookupErrorKind::ServerFailure,
        ),
        (
            "a name that does not exist",
            |question| {
                answer_of(
                    question,
                    Rcode::NXDOMAIN,
                    [("a.example".into(), right_data())],
                )
            },
            LookupErrorKind::Malformed,
        ),
        (
            "a record that refers to itself",
            |question| {
                changed(right(question), |message| {
                    message.splice(RECORD..RECORD + NAME, [0xC0, RECORD as u8]);
                })
            },
            LookupErrorKind::Malformed,
        ),
        (
            "10,000 records that are not there",
            |question| {
                changed(right(question), |message| {
                    message[6..8].copy_from_slice(&10_000_u16.to_be_bytes());
                })
            },
            LookupErrorKind::Malformed,
        ),
        (
            "20 aliases",
            |question| answer_of(question, Rcode::NOERROR, aliases(20)),
            LookupErrorKind::TooManyAliases,
        ),
        (
            "aliases that lead nowhere",
            |question| answer_of(question, Rcode::NOERROR, aliases(3)),
            LookupErrorKind::ServerFailure,
        ),
        (
            "an extended error",
            |question| {
                let mut answer = answer_of(question, Rcode::NOERROR, aliases(0));
                // An OPT record: BADVERS (RFC 6891, 6.1.3).
                answer[11] = 1;
                answer.extend([0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]);
                answer
            },
            LookupErrorKind::Refused,
        ),
    ];
    join_all(cases.into_iter().map(async |(case, answer, kind)| {
        let (server, _) = start(
            move |question| vec![Here(answer(question))],
            |_| Stream::Close,
        )
        .await;
        assert_eq!(error_of(&resolver(server)).await, kind, "{case}");
    }))
    .await;
}

/// As many records as a message can have.
#[tokio::test]
async fn thousands_of_records_are_read_in_time() {
    let (server, _) = start(truncated, |question| {
        let records = (0..1600).map(|at| {
            let host = Name::vec_from_str(&format!("mx{at}.example")).unwrap();
            ("a.example".to_owned(), MxData::new(10, host))
        });
        Stream::Send(framed(answer_of(question, Rcode::NOERROR, records)))
    })
    .await;
    assert_eq!(hosts(&unsigned(server)).await.len(), 1600);
}

#[tokio::test]
async fn what_is_sent_twice_counts_once() {
    let (server, _) = start(
        |question| {
            let twice = || ("a.example".to_owned(), right_data());
            let answer = answer_of(question, Rcode::NOERROR, [twice(), twice()]);
            vec![Here(answer.clone()), Here(answer)]
        },
        |_| Stream::Close,
    )
    .await;
    assert_eq!(hosts(&unsigned(server)).await, ["right.example"]);
}

/// It goes to a port that is closed, and does not answer the next question.
#[tokio::test]
async fn an_answer_that_comes_too_late_is_lost() {
    let (server, count) = start(
        |question| vec![Later(Duration::from_millis(200), forged(question))],
        |_| Stream::Close,
    )
    .await;
    let hurried = unsigned(server).timeout(Duration::from_millis(50));
    assert_eq!(error_of(&hurried).await, LookupErrorKind::TimedOut);
    assert_eq!(hosts(&unsigned(server)).await, ["forged.example"]);
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

/// RFC 8767, 4: a TTL with the highest bit is a large number, and limited as others are.
#[tokio::test]
async fn no_ttl_is_kept_for_more_than_a_day() {
    for (ttl, asked_again_after) in [(0, 0), (30, 30), (1 << 31, 24 * 60 * 60), (u32::MAX, 86400)] {
        let with_ttl = move |question: &Question| {
            let at = RECORD + NAME + 4;
            let answer = changed(right(question), |message| {
                message[at..at + 4].copy_from_slice(&u32::to_be_bytes(ttl));
            });
            vec![Here(answer)]
        };
        let (server, count) = start(with_ttl, |_| Stream::Close).await;
        let resolver = unsigned(server);
        hosts(&resolver).await;
        let advance = async |seconds| {
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(seconds)).await;
            tokio::time::resume();
        };
        if asked_again_after > 0 {
            advance(asked_again_after - 10).await;
            hosts(&resolver).await;
            assert_eq!(count.load(Ordering::SeqCst), 1, "{ttl}");
            advance(11).await;
        }
        hosts(&resolver).await;
        assert_eq!(count.load(Ordering::SeqCst), 2, "{ttl}");
    }
}
