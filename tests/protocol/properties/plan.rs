//! Sessions before they are played: what the client wants, and what the server makes of it.

use envoi::Address;
use envoi::proto::{Content, Mechanism, Protocol, StartTls};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use support::session::Wish;

/// A session before it is played.
#[derive(Clone, Debug)]
pub struct Plan {
    pub protocol: Protocol,
    pub starttls: StartTls,
    pub secure: bool,
    pub auth_in_clear: bool,
    pub mechanism: Option<Mechanism>,
    /// Where a message goes in several.
    pub chunk_size: usize,
    pub messages: Vec<Message>,
    /// In clear, and inside TLS.
    pub offers: [Offer; 2],
    /// Of the greeting and of each command. Behind the last one, the server answers as it should.
    pub answers: Vec<Answer>,
    /// The server says 354 also where it accepted no recipient.
    pub always_goes_ahead: bool,
    /// The client waits until the server closes, and does not give up before.
    pub is_patient: bool,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub recipients: Vec<Address>,
    pub wishes: Vec<Wish>,
    pub all_or_nothing: bool,
    pub content: Content,
    pub is_size_known: bool,
    pub step_by_step: bool,
    pub hand_over: Option<HandOver>,
    pub pieces: Vec<Vec<u8>>,
    /// What the server says when so many pieces went: it need not wait for the end. Behind all
    /// pieces means: before the last byte went.
    pub early: Option<(usize, Vec<u8>)>,
}

/// The end of a message waits for the caller.
#[derive(Clone, Copy, Debug)]
pub struct HandOver {
    /// The caller decides as soon as the message is given whole, or when nothing else is left to
    /// do.
    pub is_at_once: bool,
    /// The message is withdrawn in place of its hand-over.
    pub is_withdrawn: bool,
}

#[derive(Clone, Debug)]
pub struct Offer {
    pub pipelining: bool,
    pub starttls: bool,
    pub eight_bit: bool,
    pub others: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub enum Answer {
    Apt,
    InLines(usize),
    /// With another code than it should.
    Code(u16),
    Bytes(Vec<u8>),
    /// As it should, with this behind it.
    Behind(Vec<u8>),
    /// Closes without a word.
    Gone,
}

/// Two of one domain, then others.
pub fn address(index: usize) -> Address {
    let domain = [
        "example.com",
        "example.com",
        "example.org",
        "ex\u{e4}mple.com",
    ][index];
    Address::new(format!("user{index}@{domain}")).unwrap()
}

fn bytes_of_a_server() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just("250 2.0.0 Ok\r\n"),
        Just("354 Go ahead\r\n"),
        Just("220 2.0.0 Go ahead\r\n"),
        Just("334 \r\n"),
        Just("550 5.1.1 No\r\n"),
        Just("421 4.3.2 Bye\r\n"),
        Just("250-half of it\r\n"),
        Just("250 no carriage return\n"),
        Just("552 5.3.4 Too big\r\n452 4.3.1 Full\r\n"),
        Just("* OK IMAP4rev1\r\n"),
        Just("250"),
        Just("\r\n"),
        Just(""),
    ];
    prop_oneof![
        6 => vec(line, 1..3).prop_map(|lines| lines.concat().into_bytes()),
        1 => vec(any::<u8>(), 1..40),
        // Past the limit of a line, and of all that may be unread.
        1 => prop_oneof![16_000usize..20_000, Just(90_000)].prop_map(|length| [b"250 ".to_vec(), vec![b'x'; length]].concat()),
    ]
}

pub fn answer() -> impl Strategy<Value = Answer> {
    let code = prop_oneof![
        4 => prop::sample::select(vec![421, 450, 452, 454, 500, 502, 503, 504, 530, 535, 550, 552, 554]),
        2 => prop::sample::select(vec![220, 221, 235, 250, 251, 252, 334, 354]),
        1 => 200u16..600,
    ];
    prop_oneof![
        60 => Just(Answer::Apt),
        4 => (1usize..4).prop_map(Answer::InLines),
        4 => code.prop_map(Answer::Code),
        1 => bytes_of_a_server().prop_map(Answer::Bytes),
        1 => bytes_of_a_server().prop_map(Answer::Behind),
        1 => Just(Answer::Gone),
    ]
}

fn offer() -> impl Strategy<Value = Offer> {
    let others = vec![
        "AUTH PLAIN LOGIN",
        "AUTH=PLAIN LOGIN",
        "auth login",
        "SIZE 1000",
        "SIZE",
        "CHUNKING",
        "PRDR",
        "ENHANCEDSTATUSCODES",
        "X-Novelty  one two ",
        "",
        "BINARYMIME",
        "SMTPUTF8",
        "DSN",
        "DELIVERBY",
        "FUTURERELEASE 7200 2030-01-01T00:00:00Z",
        "MT-PRIORITY MIXER",
        "REQUIRETLS",
        "limits RCPTMAX=2 MAILMAX=2",
        "LIMITS RCPTDOMAINMAX=1",
    ];
    (
        any::<bool>(),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.8),
        prop::sample::subsequence(others, 0..=19),
    )
        .prop_map(|(pipelining, starttls, eight_bit, others)| Offer {
            pipelining,
            starttls,
            eight_bit,
            others,
        })
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let text = prop::sample::select(vec![
        "Subject: x\r\n",
        "\r\n",
        ".",
        "..",
        "\r",
        "\n",
        "text",
        "\r\n.\r\n",
        "h\u{e4}",
        "",
    ]);
    prop_oneof![
        8 => vec(text, 0..5).prop_map(|parts| parts.concat().into_bytes()),
        1 => (4000usize..6000).prop_map(|length| b".line\r\n".iter().copied().cycle()
            .take(length).collect()),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let content = prop_oneof![
        1 => Just(Content::SevenBit),
        1 => Just(Content::EightBit),
        1 => Just(Content::Binary),
        2 => Just(Content::Unknown),
    ];
    let recipients = vec((0usize..4).prop_map(address), 1..5);
    let wishes = prop_oneof![2 => Just(Vec::new()), 1 => prop::sample::subsequence(Wish::ALL
        .to_vec(), 1..6)];
    let hand_over = any::<[bool; 2]>().prop_map(|[is_at_once, is_withdrawn]| HandOver {
        is_at_once,
        is_withdrawn,
    });
    let flags = (
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.3),
        option::of(hand_over),
    );
    (recipients, wishes, content, flags, vec(piece(), 0..4)).prop_flat_map(
        |(recipients, wishes, content, flags, pieces)| {
            let (all_or_nothing, is_size_known, step_by_step, hand_over) = flags;
            option::weighted(0.2, (0..=pieces.len(), bytes_of_a_server())).prop_map(move |early| {
                Message {
                    recipients: recipients.clone(),
                    wishes: wishes.clone(),
                    all_or_nothing,
                    content,
                    is_size_known,
                    step_by_step,
                    hand_over,
                    pieces: pieces.clone(),
                    early,
                }
            })
        },
    )
}

pub fn plan() -> impl Strategy<Value = Plan> {
    let starttls = prop_oneof![
        1 => Just(StartTls::Never),
        2 => Just(StartTls::IfOffered),
        2 => Just(StartTls::Required),
    ];
    let mechanism = option::of(prop_oneof![Just(Mechanism::Plain), Just(Mechanism::Login)]);
    let protocol = prop_oneof![3 => Just(Protocol::Smtp), 1 => Just(Protocol::Lmtp)];
    let starttls = (protocol, starttls);
    let settings = (
        starttls,
        prop::bool::weighted(0.2),
        any::<bool>(),
        mechanism,
        any::<[bool; 2]>(),
    );
    (
        settings,
        1usize..30,
        vec(message(), 1..4),
        [offer(), offer()],
        vec(answer(), 0..24),
    )
        .prop_map(
            |(
                (
                    (protocol, starttls),
                    secure,
                    auth_in_clear,
                    mechanism,
                    [always_goes_ahead, is_patient],
                ),
                chunk_size,
                messages,
                offers,
                answers,
            )| {
                Plan {
                    protocol,
                    starttls,
                    secure,
                    auth_in_clear,
                    mechanism,
                    chunk_size,
                    messages,
                    offers,
                    answers,
                    always_goes_ahead,
                    is_patient,
                }
            },
        )
}

/// What all that can be wished for needs.
pub const FOR_WISHES: [&str; 6] = [
    "AUTH PLAIN LOGIN",
    "DSN",
    "DELIVERBY 240",
    "FUTURERELEASE 7200",
    "MT-PRIORITY",
    "REQUIRETLS",
];
