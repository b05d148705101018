//! Resolvers that fail, lie or are silent: none of it may read as an absence.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use domain::base::Rtype;
use domain::base::iana::{Rcode, SecurityAlgorithm};
use domain::base::{Message, MessageBuilder, Name, Ttl};
use domain::rdata::{A, Cname, Rrsig, Soa};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

mod hostile;
mod signed;

use hostile::{Sent, Stream, framed, start};

/// What a resolver makes of a question. `None` for silence.
type Answers = fn(&Message<Vec<u8>>) -> Option<Vec<u8>>;

/// Sockets for TCP and UDP with the same port, and their address.
async fn bind() -> (TcpListener, UdpSocket, SocketAddr) {
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        // Another test may have the port of UDP.
        if let Ok(socket) = UdpSocket::bind(address).await {
            return (listener, socket, address);
        }
    }
}

/// A resolver on the loopback interface, and how many questions it has had by UDP.
async fn serve(
    udp: impl Fn(&Message<Vec<u8>>) -> Option<Vec<u8>> + Send + 'static,
    tcp: impl Fn(&Message<Vec<u8>>) -> Option<Vec<u8>> + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let by_tcp = move |question: &_| match tcp(question) {
        Some(answer) => Stream::Send(framed(answer)),
        None => Stream::Close,
    };
    start(
        move |question| udp(question).into_iter().map(Sent::Here).collect(),
        by_tcp,
    )
    .await
}

fn name(text: &str) -> DomainName {
    DomainName::new(text).unwrap()
}

/// An anchor that no name of these tests is below, so that answers without signatures are insecure.
const ELSEWHERE: &str =
    "elsewhere. IN DS 1 13 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D";

fn unsigned(server: SocketAddr) -> Resolver {
    Resolver::new(server).anchors(ELSEWHERE).unwrap()
}

/// An answer with this code and no records.
fn code(question: &Message<Vec<u8>>, code: Rcode) -> Option<Vec<u8>> {
    let builder = MessageBuilder::new_vec()
        .start_answer(question, code)
        .ok()?;
    Some(builder.finish())
}

/// An answer with one address, for whatever name was asked for.
fn address(question: &Message<Vec<u8>>) -> Option<Vec<u8>> {
    let asked = question.sole_question().ok()?;
    let mut answer = MessageBuilder::new_vec()
        .start_answer(question, Rcode::NOERROR)
        .ok()?;
    if asked.qtype() == Rtype::A {
        let a = A::new(Ipv4Addr::new(192, 0, 2, 1));
        answer.push((asked.qname(), Ttl::from_secs(60), a)).ok()?;
        return Some(answer.finish());
    }
    absence(question)
}

/// An absence with its SOA record (RFC 2308, 2.2).
fn absence(question: &Message<Vec<u8>>) -> Option<Vec<u8>> {
    let answer = MessageBuilder::new_vec()
        .start_answer(question, Rcode::NOERROR)
        .ok()?;
    let mut authority = answer.authority();
    let zone = Name::vec_from_str("example").unwrap();
    let minute = Ttl::from_secs(60);
    let soa = Soa::new(
        zone.clone(),
        zone.clone(),
        1.into(),
        minute,
        minute,
        minute,
        minute,
    );
    authority.push((zone, minute, soa)).ok()?;
    Some(authority.finish())
}

fn silence(_: &Message<Vec<u8>>) -> Option<Vec<u8>> {
    None
}

async fn failure<T: std::fmt::Debug>(answer: impl Future<Output = Answer<T>>) -> LookupErrorKind {
    match answer.await {
        Answer::Failed(error) => error.kind(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_error_is_not_an_absence() {
    for (answers, kind) in [
        (
            (|q| code(q, Rcode::SERVFAIL)) as Answers,
            LookupErrorKind::ServerFailure,
        ),
        (|q| code(q, Rcode::REFUSED), LookupErrorKind::Refused),
        (|q| code(q, Rcode::NOTIMP), LookupErrorKind::Refused),
        (|q| code(q, Rcode::FORMERR), LookupErrorKind::Refused),
        // Neither records nor the SOA record of an absence.
        (|q| code(q, Rcode::NOERROR), LookupErrorKind::ServerFailure),
        (|q| code(q, Rcode::NXDOMAIN), LookupErrorKind::ServerFailure),
    ] {
        let (server, _) = serve(answers, silence).await;
        let resolver = unsigned(server);
        let domain = name("mail.example");
        assert_eq!(failure(resolver.mx(&domain)).await, kind);
        assert_eq!(failure(resolver.addresses(&domain)).await, kind);
        assert_eq!(failure(resolver.tlsa(&domain, 25)).await, kind);
        assert_eq!(failure(resolver.txt(&domain)).await, kind);
    }
}

#[tokio::test]
async fn what_is_not_signed_is_bogus_below_an_anchor() {
    for answers in [address as Answers, absence] {
        let (server, _) = serve(answers, silence).await;
        let resolver = Resolver::new(server);
        let kind = failure(resolver.addresses(&name("mail.example"))).await;
        assert_eq!(kind, LookupErrorKind::Bogus);
    }
}

#[tokio::test]
async fn keys_that_cannot_be_had_are_a_failure() {
    fn only_addresses(question: &Message<Vec<u8>>) -> Option<Vec<u8>> {
        match question.qtype() {
            Some(Rtype::DNSKEY | Rtype::DS) => code(question, Rcode::SERVFAIL),
            _ => address(question),
        }
    }
    let (server, _) = serve(only_addresses, silence).await;
    let kind = failure(Resolver::new(server).addresses(&name("mail.example"))).await;
    assert_eq!(kind, LookupErrorKind::ServerFailure);
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_time_out() {
    let (server, count) = serve(silence, silence).await;
    let resolver = unsigned(server).timeout(Duration::from_secs(5));
    let kind = failure(resolver.mx(&name("mail.example"))).await;
    assert_eq!(kind, LookupErrorKind::TimedOut);
    // It is asked again.
    assert!(count.load(Ordering::SeqCst) > 1);
}

/// The question may have been lost, whatever another resolver says.
#[tokio::test(start_paused = true)]
async fn a_silent_resolver_is_asked_again() {
    let (silent, count) = serve(silence, silence).await;
    let (refuses, _) = serve(|q| code(q, Rcode::REFUSED), silence).await;
    for servers in [vec![silent, refuses], vec![refuses, silent]] {
        let asked = count.load(Ordering::SeqCst);
        let resolver = Resolver::with_servers(servers)
            .timeout(Duration::from_secs(60))
            .anchors(ELSEWHERE)
            .unwrap();
        let Answer::Failed(error) = resolver.mx(&name("mail.example")).await else {
            panic!("an answer");
        };
        assert_eq!(error.kind(), LookupErrorKind::Refused);
        let ends = format!(": {refuses} answered REFUSED; {silent} did not answer in time");
        assert!(error.to_string().ends_with(&ends), "{error}");
        assert!(count.load(Ordering::SeqCst) > asked + 1);
    }
}

#[tokio::test]
async fn a_closed_port_is_a_failure_of_the_network() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = socket.local_addr().unwrap();
    drop(socket);
    let kind = failure(unsigned(server).mx(&name("mail.example"))).await;
    assert_eq!(kind, LookupErrorKind::Network);
}

#[tokio::test]
async fn garbage_and_answers_to_others_are_ignored() {
    fn garbage(question: &Message<Vec<u8>>) -> Option<Vec<u8>> {
        let mut answer = address(question)?;
        // Another id: what a forger has to guess.
        answer[0] ^= 1;
        Some(answer)
    }
    let (server, _) = serve(garbage, silence).await;
    let resolver = unsigned(server).timeout(Duration::from_millis(300));
    let kind = failure(resolver.addresses(&name("mail.example"))).await;
    assert_eq!(kind, LookupErrorKind::TimedOut);
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_by_tcp() {
    fn truncated(question: &Message<Vec<u8>>) -> Option<Vec<u8>> {
        let mut answer = code(question, Rcode::NOERROR)?;
        // The bit TC.
        answer[2] |= 2;
        Some(answer)
    }
    let (server, _) = serve(truncated, address).await;
    let answer = unsigned(server).addresses(&name("mail.example")).await;
    let found = &answer.records().unwrap().addresses;
    assert_eq!(*found, [Ipv4Addr::new(192, 0, 2, 1)]);

    fn other(question: &Message<Vec<u8>>) -> Option<Vec<u8>> {
        let mut answer = address(question)?;
        answer[1] ^= 1;
        Some(answer)
    }
    let (server, _) = serve(truncated, other).await;
    let kind = failure(unsigned(server).addresses(&name("mail.example"))).await;
    assert_eq!(kind, LookupErrorKind::Malformed);
    let (server, _) = serve(truncated, silence).await;
    let kind = failure(unsigned(server).addresses(&name("mail.example"))).await;
    assert_eq!(kind, LookupErrorKind::Network);
}

#[tokio::test]
async fn the_next_resolver_is_asked() {
    let (refuses, _) = serve(|q| code(q, Rcode::REFUSED), silence).await;
    let (answers, _) = serve(address, silence).await;
    let resolver = Resolver::with_servers(vec![refuses, answers])
        .anchors(ELSEWHERE)
        .unwrap();
    let answer = resolver.addresses(&name("mail.example")).await;
    assert!(matches!(answer, Answer::Insecure(Ok(_))), "{answer:?}");
}

/// An answer with two CNAMEs of the name that was asked for.
fn two_aliases(question: &Message<Vec<u8>>) -> Option<Vec<u8>> {
    let asked = question.sole_question().ok()?;
    let mut answer = MessageBuilder::new_vec()
        .start_answer(question, Rcode::NOERROR)
        .ok()?;
    for target in ["one.example", "two.example"] {
        let cname = Cname::new(Name::vec_from_str(target).unwrap());
        answer
            .push((asked.qname(), Ttl::from_secs(60), cname))
            .ok()?;
    }
    Some(answer.finish())
}

/// Each resolver that was asked, with what came of it.
#[tokio::test]
async fn failures_name_the_resolvers() {
    async fn text(servers: &[SocketAddr]) -> String {
        let resolver = Resolver::with_servers(servers.to_vec());
        let resolver = resolver.anchors(ELSEWHERE).unwrap();
        let resolver = resolver.timeout(Duration::from_secs(3));
        match resolver.mx(&name("mail.example")).await {
            Answer::Failed(error) => error.to_string(),
            answer => panic!("{answer:?}"),
        }
    }
    let (silent, _) = serve(silence, silence).await;
    let (mute, _) = serve(silence, silence).await;
    let (refuses, _) = serve(|q| code(q, Rcode::REFUSED), silence).await;
    let (fails, _) = serve(|q| code(q, Rcode::SERVFAIL), silence).await;
    let (damaged, _) = serve(two_aliases, silence).await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let closed = socket.local_addr().unwrap();
    drop(socket);
    for (servers, starts, ends) in [
        (
            vec![silent],
            "the resolver did not answer in time: ",
            format!(": {silent}"),
        ),
        (
            vec![silent, mute],
            "the resolver did not answer in time: ",
            format!(": {silent}, {mute}"),
        ),
        (
            vec![refuses],
            "the resolver refused the question: ",
            format!(": {refuses} answered REFUSED"),
        ),
        (
            vec![closed, fails],
            "the resolver cannot be reached: ",
            format!("; {fails} answered SERVFAIL"),
        ),
        (
            vec![damaged],
            "the answer cannot be understood: ",
            format!("; asked: {damaged}"),
        ),
    ] {
        let text = text(&servers).await;
        let starts = format!("looking up MX of mail.example: {starts}");
        assert!(text.starts_with(&starts), "{text}");
        assert!(text.ends_with(&ends), "{text}");
        assert!(
            servers
                .iter()
                .all(|server| text.contains(&server.to_string()))
        );
    }
}

/// Moves the clock of what is kept, and no time-out of a lookup.
async fn later(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn answers_are_kept_and_failures_for_a_moment() {
    let (server, count) = serve(address, silence).await;
    let resolver = unsigned(server);
    for _ in 0..3 {
        let answer = resolver.clone().addresses(&name("mail.example")).await;
        assert!(answer.records().is_some());
    }
    // A, and the absence of AAAA.
    assert_eq!(count.load(Ordering::SeqCst), 2);

    let (server, count) = serve(|q| code(q, Rcode::SERVFAIL), silence).await;
    let resolver = unsigned(server);
    for number in 1..3 {
        let mut texts = Vec::new();
        for _ in 0..3 {
            let Answer::Failed(error) = resolver.mx(&name("mail.example")).await else {
                panic!("an answer");
            };
            texts.push(error.to_string());
        }
        assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
        assert_eq!(count.load(Ordering::SeqCst), number);
        later(Duration::from_secs(5)).await;
    }
    // Of another name or type, nothing is known.
    failure(resolver.txt(&name("mail.example"))).await;
    failure(resolver.mx(&name("other.example"))).await;
    assert_eq!(count.load(Ordering::SeqCst), 4);
}

/// The time-out is of the call, and says nothing about the name.
#[tokio::test]
async fn a_time_out_is_not_kept() {
    let asked = AtomicUsize::new(0);
    let second = move |question: &_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => None,
        _ => address(question),
    };
    let (server, _) = serve(second, silence).await;
    let resolver = unsigned(server);
    let impatient = resolver.clone().timeout(Duration::from_millis(50));
    let host = name("mail.example");
    let kind = failure(impatient.mx(&host)).await;
    assert_eq!(kind, LookupErrorKind::TimedOut);
    let absence = resolver.mx(&host).await.absence();
    assert_eq!(absence, Some(Absence::NoRecords));
}

#[tokio::test]
async fn equal_lookups_at_the_same_time_are_one() {
    let (server, count) = serve(address, silence).await;
    let resolver = unsigned(server);
    let host = name("mail.example");
    let answers = futures_util::future::join_all((0..20).map(|_| resolver.addresses(&host))).await;
    assert!(answers.iter().all(|answer| answer.records().is_some()));
    // A and AAAA.
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

/// RFC 6761, 6.3.
#[tokio::test]
async fn localhost_is_not_asked_for() {
    let (server, count) = serve(address, silence).await;
    // Below the anchor of the root, nothing is signed by this resolver.
    let resolver = Resolver::new(server);
    for host in ["localhost", "LOCALHOST.", "mail.localhost"] {
        let host = name(host);
        let Answer::Insecure(Ok(found)) = resolver.addresses(&host).await else {
            panic!("{host}");
        };
        assert!(found.addresses.iter().all(std::net::IpAddr::is_loopback));
        assert_eq!((found.addresses.len(), found.name), (2, host.clone()));
        for absence in [
            resolver.mx(&host).await.absence(),
            resolver.tlsa(&host, 25).await.absence(),
            resolver.txt(&host).await.absence(),
        ] {
            assert_eq!(absence, Some(Absence::NoRecords));
        }
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
    let kind = failure(resolver.mx(&name("notlocalhost"))).await;
    assert_eq!(kind, LookupErrorKind::Bogus);
}

/// Where the anchors may be wrong, the advice begins with them.
#[tokio::test]
async fn the_hint_about_forged_answers_names_anchors_that_were_given() {
    let (server, _) = serve(address, silence).await;
    let own = ". IN DS 1 13 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D";
    for (resolver, is_named) in [
        (Resolver::new(server), false),
        (Resolver::new(server).anchors(own).unwrap(), true),
    ] {
        let Answer::Failed(error) = resolver.mx(&name("mail.example")).await else {
            panic!("an answer");
        };
        assert_eq!(error.kind(), LookupErrorKind::Bogus);
        let hint = error.hint();
        assert_eq!(hint.contains("check the trust anchors"), is_named, "{hint}");
    }
}

/// A forged signature of a zone that is not signed makes no answer of another zone insecure.
#[tokio::test]
async fn a_signature_of_another_zone_is_bogus() {
    fn forged(question: &Message<Vec<u8>>) -> Option<Vec<u8>> {
        let asked = question.sole_question().ok()?;
        let mut answer = MessageBuilder::new_vec()
            .start_answer(question, Rcode::NOERROR)
            .ok()?;
        let ttl = Ttl::from_secs(60);
        let a = A::new(Ipv4Addr::new(192, 0, 2, 1));
        answer.push((asked.qname(), ttl, a)).ok()?;
        let signature = Rrsig::new(
            Rtype::A,
            SecurityAlgorithm::ECDSAP256SHA256,
            2,
            ttl,
            0xFFFF_FFFF.into(),
            0.into(),
            1,
            Name::vec_from_str("not-signed").unwrap(),
            [0; 64],
        );
        answer.push((asked.qname(), ttl, signature.ok()?)).ok()?;
        Some(answer.finish())
    }
    let (server, _) = serve(forged, silence).await;
    let answer = unsigned(server).addresses(&name("mail.example")).await;
    let Answer::Failed(error) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(error.kind(), LookupErrorKind::Bogus);
    assert!(error.to_string().contains("does not contain"), "{error}");
}

/// An answer with a CNAME to `elsewhere.example`, and an address of this name.
fn alias(question: &Message<Vec<u8>>, owner: &str) -> Option<Vec<u8>> {
    let asked = question.sole_question().ok()?;
    let mut answer = MessageBuilder::new_vec()
        .start_answer(question, Rcode::NOERROR)
        .ok()?;
    let ttl = Ttl::from_secs(60);
    let [target, owner] =
        ["elsewhere.example", owner].map(|name| Name::vec_from_str(name).unwrap());
    answer.push((asked.qname(), ttl, Cname::new(target))).ok()?;
    let a = A::new(Ipv4Addr::new(192, 0, 2, 1));
    answer.push((owner, ttl, a)).ok()?;
    Some(answer.finish())
}

/// The validator follows the CNAME, and says nothing about what stands beside it.
#[tokio::test]
async fn records_beside_a_cname_are_refused() {
    let (server, _) = serve(|question| alias(question, "mail.example"), silence).await;
    let kind = failure(unsigned(server).addresses(&name("mail.example"))).await;
    assert_eq!(kind, LookupErrorKind::Malformed);
}

/// Whether the CNAME itself is secure decides whether TLSA records count: it must be known.
#[tokio::test]
async fn a_lost_lookup_of_a_cname_is_a_failure() {
    fn led(question: &Message<Vec<u8>>) -> Option<Vec<u8>> {
        match question.sole_question().ok()?.qtype() {
            Rtype::CNAME => code(question, Rcode::SERVFAIL),
            _ => alias(question, "elsewhere.example"),
        }
    }
    let (server, _) = serve(led, silence).await;
    let kind = failure(unsigned(server).addresses(&name("mail.example"))).await;
    assert_eq!(kind, LookupErrorKind::ServerFailure);
}

#[tokio::test]
async fn a_circle_of_aliases_ends() {
    fn circle(question: &Message<Vec<u8>>) -> Option<Vec<u8>> {
        let mut answer = MessageBuilder::new_vec()
            .start_answer(question, Rcode::NOERROR)
            .ok()?;
        for (from, to) in [("a.example", "b.example"), ("b.example", "a.example")] {
            let [from, to] = [from, to].map(|name| Name::vec_from_str(name).unwrap());
            answer
                .push((from, Ttl::from_secs(60), Cname::new(to)))
                .ok()?;
        }
        Some(answer.finish())
    }
    let (server, _) = serve(circle, silence).await;
    let kind = failure(unsigned(server).mx(&name("a.example"))).await;
    assert_eq!(kind, LookupErrorKind::TooManyAliases);
}

#[tokio::test]
async fn damaged_records_are_a_failure() {
    /// An address of three octets.
    fn short(question: &Message<Vec<u8>>) -> Option<Vec<u8>> {
        let mut answer = address(question)?;
        let length = answer.len();
        if question.qtype() == Some(Rtype::A) {
            answer.pop();
            answer[length - 5] = 3;
        }
        Some(answer)
    }
    let (server, _) = serve(short, silence).await;
    let kind = failure(unsigned(server).addresses(&name("mail.example"))).await;
    assert_eq!(kind, LookupErrorKind::Malformed);
}

/// RFC 1035, 2.3.4: no name has more than 253 characters, so that there cannot be such records.
#[tokio::test]
async fn a_name_that_is_too_long_has_no_tlsa_records() {
    let (server, count) = serve(|q| code(q, Rcode::SERVFAIL), silence).await;
    let label = "a".repeat(48);
    for (length, is_too_long) in [(48 + 3 + 1, true), (48 + 3, true), (48 - 6, false)] {
        let first = "b".repeat(length);
        let base = name(
            &[&first, &label, &label, &label, &label]
                .map(String::as_str)
                .join("."),
        );
        let answer = unsigned(server).tlsa(&base, 25).await;
        let is_absent = matches!(answer, Answer::SecureAbsence(Absence::NoSuchName));
        assert_eq!(is_absent, is_too_long, "{length}: {answer:?}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn anchors_are_ds_or_dnskey_records() {
    let resolver = Resolver::new(([127, 0, 0, 1], 53).into());
    for (records, error) in [
        ("", "there are none"),
        ("; a comment\n", "there are none"),
        (". IN A 192.0.2.1", "type A"),
        (". IN DS 20326 8 2 zz", "anchors"),
        ("$INCLUDE other", "include"),
        ("no zone file", "anchors"),
    ] {
        let found = resolver.clone().anchors(records).unwrap_err();
        assert_eq!(found.kind(), crate::ErrorKind::Config);
        assert!(found.to_string().contains(error), "{records}: {found}");
    }
    // As BIND's dnssec-keygen and unbound-anchor write them.
    for records in [
        ". 172800 IN DNSKEY 257 3 13 mdsswUyr3DPW132mOi8V9xESWE8jTo0d\n\
         xCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ== ;{id = 1}",
        "example. IN DS 1 13 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D",
    ] {
        let records = records.replacen("\nxCjj", "xCjj", 1);
        resolver.clone().anchors(&records).unwrap();
    }
}

#[test]
fn lookups_can_be_spawned() {
    fn is_send<T: Send>(_: T) {}
    fn check(resolver: &'static Resolver, name: &'static DomainName) {
        is_send(resolver.mx(name));
        is_send(resolver.addresses(name));
        is_send(resolver.tlsa(name, 25));
        is_send(resolver.txt(name));
    }
    let _ = check;
}
