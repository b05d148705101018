//! Limits on all that the server controls: each has its attack, the error names the limit, and it
//! is reached in time, however slowly or fast the bytes come. Real servers stay far below (RFC
//! 5321, 4.5.3.1).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use envoi::proto::{ClientName, Limits, Machine, Mechanism, Settings, Step};
use envoi::tls::{Security, TlsSettings, Trust};
use envoi::{Connection, Credentials, Endpoint, ErrorKind, Phase, Timeouts};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::script::Handling::Fails;
use crate::script::{
    Act, Handling, assert_handling, meet, meet_over, plain, play_all, send, send_reply, up_to,
};
use crate::server::{address, binary_message, certificate, text_message};

fn then(last: &str, acts: &[Act]) -> Vec<Act> {
    [up_to(last), acts.to_vec()].concat()
}

fn too_much(phase: Phase) -> Handling {
    Fails(
        ErrorKind::Protocol,
        phase,
        phase == Phase::EndOfData,
        "limit",
    )
}

#[tokio::test(start_paused = true)]
async fn floods_end_in_protocol_errors() {
    let long = format!("250 {}\r\n", "x".repeat(17 * 1024));
    let wide = format!("250-{}\r\n", "x".repeat(15 * 1024)).repeat(18) + "250 end\r\n";
    play_all(vec![
        (
            "a greeting without an end",
            vec![Act::Flood("x")],
            too_much(Phase::Greeting),
        ),
        (
            "a greeting of lines without an end",
            vec![Act::Flood("220-x\r\n")],
            too_much(Phase::Greeting),
        ),
        (
            "capabilities without an end",
            then("EHLO", &[Act::Flood("250-X\r\n")]),
            too_much(Phase::Hello),
        ),
        (
            "one capability without an end",
            then("EHLO", &[send_reply("250-"), Act::Flood("A")]),
            too_much(Phase::Hello),
        ),
        (
            "a line that is too long by a little",
            then("MAIL", &[Act::Say(long.into()), Act::Listen]),
            too_much(Phase::Mail),
        ),
        (
            "lines that are too long together",
            then("RCPT", &[Act::Say(wide.into()), Act::Listen]),
            too_much(Phase::Rcpt),
        ),
        (
            "a go-ahead of lines without an end",
            then("DATA", &[Act::Flood("354-x\r\n")]),
            too_much(Phase::Data),
        ),
        (
            "a confirmation of lines without an end",
            then(".", &[Act::Flood("250-x\r\n")]),
            too_much(Phase::EndOfData),
        ),
        (
            "empty lines without an end",
            then("MAIL", &[Act::Flood("\r\n")]),
            Fails(ErrorKind::Protocol, Phase::Mail, false, "not an SMTP reply"),
        ),
        (
            "NULs without an end",
            then("MAIL", &[Act::Flood("\0")]),
            too_much(Phase::Mail),
        ),
        (
            "replies without an end, unasked",
            then("EHLO", &[Act::Flood("250 x\r\n")]),
            Fails(
                ErrorKind::Protocol,
                Phase::Command,
                false,
                "nothing was asked",
            ),
        ),
    ])
    .await;
    // The answer to QUIT is of no importance, so it does not matter how long it is.
    let endpoint = plain();
    let acts = then("QUIT", &[Act::Flood("221-bye\r\n")]);
    let meeting = meet(acts, async |stream| {
        send(
            stream,
            &endpoint,
            text_message(0, &["you@example.com"], 100),
        )
        .await
    })
    .await;
    assert_handling("a parting without an end", &meeting.result, Handling::Sent);
    assert!(meeting.took <= Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn each_limit_can_be_set_and_is_named_in_its_error() {
    let with = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        plain().limits(limits)
    };
    let offers = "250-a\r\n250-b\r\n250-c\r\n250 d\r\n";
    let cases: [(&str, Endpoint, &str); 3] = [
        (
            "a line",
            with(|limits| limits.line = 30),
            "limit of 30 bytes",
        ),
        ("lines", with(|limits| limits.reply_lines = 3), "limit of 3"),
        (
            "a reply",
            with(|limits| limits.reply_bytes = 26),
            "limit of 26 bytes",
        ),
    ];
    for (what, endpoint, words) in cases {
        let name = if what == "a line" {
            "250-a name of more than thirty bytes\r\n250 x\r\n"
        } else {
            offers
        };
        let acts = then("EHLO", &[send_reply(name), Act::Listen]);
        let meeting = meet(acts, async |stream| {
            send(
                stream,
                &endpoint,
                text_message(0, &["you@example.com"], 100),
            )
            .await
        });
        assert_handling(
            what,
            &meeting.await.result,
            Fails(ErrorKind::Protocol, Phase::Hello, false, words),
        );
    }
}

#[tokio::test(start_paused = true)]
async fn real_servers_stay_below_the_limits() {
    // The longest of each that the design promises to take, in one answer to EHLO after the other.
    for (what, lines, bytes) in [
        ("a line of 8 KiB", 2, 8192),
        ("2,000 lines", 2000, 10),
        ("256,000 bytes", 250, 1017),
    ] {
        let offers = (1..lines)
            .map(|n| format!("250-X{n:0bytes$}\r\n"))
            .collect::<String>()
            + "250 SIZE 1000000\r\n";
        let endpoint = plain();
        let meeting = meet(
            then("EHLO", &[send_reply(&offers), Act::Listen]),
            async |stream| {
                let connection = Connection::from_stream(stream, &endpoint).await?;
                Ok(connection.capabilities().size_limit())
            },
        );
        assert_eq!(meeting.await.result.unwrap(), Some(1_000_000), "{what}");
    }
}

/// A session with a login in clear, up to the first challenge.
fn challenged(acts: &[Act]) -> Vec<Act> {
    let offers = send_reply(
        "250-hostile.example.org\r\n250 AUTH PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256 XOAUTH2\r\n",
    );
    [
        vec![
            send_reply("220 hi\r\n"),
            Act::Hear("EHLO"),
            offers,
            Act::Hear("AUTH"),
        ],
        acts.to_vec(),
    ]
    .concat()
}

#[tokio::test(start_paused = true)]
async fn endless_challenges_end_the_login() {
    let password = || Credentials::new("alice", "correct horse");
    let repeated = |reply: &str| {
        (0..100)
            .flat_map(|_| [Act::Hear("\r\n"), send_reply(reply)])
            .collect::<Vec<_>>()
    };
    let long = format!("334 {}\r\n", "QUJD".repeat(3000));
    for (attack, mechanism, credentials, acts, words) in [
        (
            "a question after each answer",
            Mechanism::Login,
            password(),
            repeated("334 VXNlcm5hbWU6\r\n"),
            "challenges than the limit of 16",
        ),
        (
            "empty questions",
            Mechanism::Plain,
            password(),
            repeated("334 \r\n"),
            "challenges than the limit of 16",
        ),
        (
            "asks on after a login that was given up",
            Mechanism::CramMd5,
            password(),
            repeated("334 !\r\n"),
            "challenges than the limit of 16",
        ),
        (
            "a challenge without an end",
            Mechanism::Login,
            password(),
            vec![send_reply("334 "), Act::Flood("A")],
            "limit of 16384 bytes",
        ),
        (
            "a challenge in lines, too long together",
            Mechanism::Login,
            password(),
            vec![
                send_reply(&long.replace("334 ", "334-")),
                send_reply(&long),
                Act::Listen,
            ],
            "challenge longer than the limit of 16384 bytes",
        ),
    ] {
        let endpoint = plain()
            .auth_in_clear(true)
            .mechanism(mechanism)
            .credentials(credentials);
        let meeting = meet(challenged(&acts), async |stream| {
            Connection::from_stream(stream, &endpoint).await.map(|_| ())
        })
        .await;
        assert_handling(
            attack,
            &meeting.result,
            Fails(ErrorKind::Protocol, Phase::Auth, false, words),
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_times_out_in_each_phase() {
    let table: [(&str, Vec<Act>, Phase, u64); 7] = [
        (
            "a greeting, a byte every ten seconds",
            vec![Act::Trickle("220-still here\r\n", 10)],
            Phase::Greeting,
            300,
        ),
        (
            "capabilities, a byte every minute",
            then("EHLO", &[Act::Trickle("250-X\r\n", 60)]),
            Phase::Hello,
            300,
        ),
        (
            "the reply to MAIL, a byte every second",
            then("MAIL", &[Act::Trickle("250-\r\n", 1)]),
            Phase::Mail,
            300,
        ),
        (
            "the reply to RCPT, a byte every 299 seconds",
            then("RCPT", &[Act::Trickle("250-\r\n", 299)]),
            Phase::Rcpt,
            300,
        ),
        (
            "the go-ahead, a byte every second",
            then("DATA", &[Act::Trickle("354-\r\n", 1)]),
            Phase::Data,
            120,
        ),
        (
            "the confirmation, a byte every second",
            then(".", &[Act::Trickle("250-\r\n", 1)]),
            Phase::EndOfData,
            600,
        ),
        ("silence", then("MAIL", &[Act::Listen]), Phase::Mail, 300),
    ];
    for (attack, acts, phase, seconds) in &table {
        let endpoint = plain();
        let meeting = meet(acts.clone(), async |stream| {
            send(
                stream,
                &endpoint,
                text_message(0, &["you@example.com"], 100),
            )
            .await
        })
        .await;
        assert_handling(
            attack,
            &meeting.result,
            Fails(ErrorKind::Timeout, *phase, *phase == Phase::EndOfData, ""),
        );
        assert_eq!(meeting.took.as_secs(), *seconds, "{attack}");
    }
    // Each of these comes in time, and together they are too late: a reply for each of a hundred
    // recipients, a minute apart.
    let many: Vec<String> = (0..100).map(|n| format!("user{n}@example.com")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let slowly = || {
        let replies =
            (0..100).flat_map(|_| [Act::Hear("RCPT"), Act::Rest(55), send_reply("250 ok\r\n")]);
        [
            up_to("MAIL"),
            vec![send_reply("250 ok\r\n")],
            replies.collect(),
            vec![Act::Listen],
        ]
        .concat()
    };
    for (what, timeouts, seconds, words) in [
        (
            "all waiting together, by one number",
            Timeouts::uniform(Duration::from_secs(60)),
            240,
            "240s allowed for waiting",
        ),
        (
            "the deadline",
            Timeouts::default().with_deadline(Duration::from_secs(600)),
            600,
            "deadline of 600s",
        ),
        // An hour, and half a minute for each recipient: 55 seconds for each are too many.
        (
            "all waiting together",
            less_patient(600),
            600 + 100 * 30,
            "3600s allowed for waiting",
        ),
    ] {
        let endpoint = plain().timeouts(timeouts);
        let meeting = meet(slowly(), async |stream| {
            send(stream, &endpoint, text_message(0, &many, 100)).await
        })
        .await;
        assert_handling(
            what,
            &meeting.result,
            Fails(ErrorKind::Timeout, Phase::Rcpt, false, words),
        );
        assert_eq!(meeting.took.as_secs(), seconds, "{what}");
    }
    // Step by step, and in LMTP, where each recipient has a reply to the message, too.
    let endpoint = plain().timeouts(less_patient(600));
    let meeting = meet(slowly(), async |stream| {
        let mut connection = Connection::from_stream(stream, &endpoint).await?;
        connection.mail(address("me@example.org")).await?;
        for recipient in &many {
            connection.rcpt(address(recipient)).await?;
        }
        Ok(())
    });
    let result = meeting.await.result;
    assert_handling(
        "step by step",
        &result,
        Fails(
            ErrorKind::Timeout,
            Phase::Rcpt,
            false,
            "allowed for waiting",
        ),
    );
    let few = &many[..3];
    let mut acts = vec![
        send_reply("220 hi\r\n"),
        Act::Hear("LHLO"),
        send_reply("250-hi\r\n250 PIPELINING\r\n"),
        Act::Hear("DATA"),
    ];
    acts.extend([
        send_reply("250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"),
        Act::Hear("\r\n.\r\n"),
    ]);
    acts.extend(
        few.iter()
            .flat_map(|_| [Act::Rest(500), send_reply("250 stored\r\n")]),
    );
    let endpoint = Endpoint::lmtp("localhost").timeouts(less_patient(600));
    let meeting = meet(acts, async |stream| {
        send(stream, &endpoint, text_message(0, few, 100)).await
    })
    .await;
    assert_handling(
        "in LMTP",
        &meeting.result,
        Fails(
            ErrorKind::Timeout,
            Phase::EndOfData,
            true,
            "690s allowed for waiting",
        ),
    );
    assert_eq!(meeting.took.as_secs(), 690);
    let told = meeting.result.unwrap_err();
    let accepted = told
        .receipt()
        .unwrap()
        .recipients
        .iter()
        .filter(|one| one.outcome.is_accepted())
        .count();
    assert_eq!(accepted, 1, "the one that was answered for stays so");
}

/// The usual limits, but for all waiting together, without what each recipient adds.
fn less_patient(seconds: u64) -> Timeouts {
    let mut timeouts = Timeouts::default();
    timeouts.total_wait = Some(Duration::from_secs(seconds));
    timeouts
}

#[tokio::test(start_paused = true)]
async fn a_slow_login_times_out() {
    // Each challenge comes in time, and each refusal of a mechanism (RFC 4954, 4 and 6).
    let slow = |turns: &[(&'static str, &str)]| {
        let turns = turns
            .iter()
            .flat_map(|(heard, reply)| [Act::Hear(heard), Act::Rest(200), send_reply(reply)]);
        challenged(&turns.chain([Act::Listen]).collect::<Vec<_>>())
    };
    let prompts = [
        ("LOGIN", "334 VXNlcm5hbWU6\r\n"),
        ("YWxpY2U=", "334 UGFzc3dvcmQ6\r\n"),
        ("c2VjcmV0", "235 ok\r\n"),
    ];
    let refusals = [
        (" ", "504 5.5.4 no\r\n"),
        ("AUTH", "504 5.5.4 no\r\n"),
        ("AUTH", "235 ok\r\n"),
    ];
    let login = || plain().auth_in_clear(true).user("alice").password("secret");
    for (attack, endpoint, acts, seconds, words) in [
        (
            "challenges",
            login().mechanism(Mechanism::Login),
            slow(&prompts),
            300,
            "300s allowed for a login",
        ),
        (
            "refusals of mechanisms",
            login(),
            slow(&refusals),
            300,
            "300s allowed for a login",
        ),
        (
            "with one number for all",
            login()
                .mechanism(Mechanism::Login)
                .timeouts(Timeouts::uniform(Duration::from_secs(120))),
            slow(&prompts),
            120,
            "within 120s",
        ),
        (
            "silence",
            login(),
            challenged(&[Act::Listen]),
            300,
            "within 300s",
        ),
        (
            "a challenge, a byte every ten seconds",
            login().mechanism(Mechanism::Login),
            challenged(&[Act::Trickle("334 VXNlcm5hbWU6VXNlcm5hbWU6", 10)]),
            300,
            "within 300s",
        ),
    ] {
        let meeting = meet(acts, async |stream| {
            Connection::from_stream(stream, &endpoint).await.map(|_| ())
        })
        .await;
        assert_handling(
            attack,
            &meeting.result,
            Fails(ErrorKind::Timeout, Phase::Auth, false, words),
        );
        assert_eq!(meeting.took.as_secs(), seconds, "{attack}");
    }
    // The token's source may take its time; only what the server takes counts.
    let endpoint = plain()
        .auth_in_clear(true)
        .mechanism(Mechanism::XOAuth2)
        .user("alice")
        .token_source(async |_| {
            tokio::time::sleep(Duration::from_secs(1000)).await;
            Ok::<_, std::io::Error>("token")
        });
    let acts = slow(&[(" ", "535 5.7.8 stale\r\n"), ("AUTH ", "235 ok\r\n")]);
    let meeting = meet(acts, async |stream| {
        Connection::from_stream(stream, &endpoint).await.map(|_| ())
    })
    .await;
    assert_handling(
        "two tokens",
        &meeting.result,
        Fails(
            ErrorKind::Timeout,
            Phase::Auth,
            false,
            "allowed for a login",
        ),
    );
    assert_eq!(meeting.took.as_secs(), 2300);
}

#[tokio::test(start_paused = true)]
async fn handshake_body_and_quit_have_timeouts() {
    // Each byte comes in time, and none of these is ever over.
    let tls = |security| {
        Endpoint::new("localhost")
            .security(security)
            .tls(TlsSettings::new(Trust::empty().pem(&certificate().ca)))
    };
    let hello = "\u{16}\u{3}\u{3}\u{3f}\u{7f}\u{2}\u{0}\u{3f}\u{7b}";
    let starttls = [
        then(
            "EHLO",
            &[
                send_reply("250-hi\r\n250 STARTTLS\r\n"),
                Act::Hear("STARTTLS"),
                send_reply("220 go\r\n"),
            ],
        ),
        vec![Act::Trickle(hello, 1)],
    ];
    for (attack, endpoint, acts) in [
        (
            "a handshake, a byte every ten seconds",
            tls(Security::Implicit),
            vec![Act::Trickle(hello, 10)],
        ),
        (
            "a handshake behind STARTTLS, a byte every second",
            tls(Security::Required),
            starttls.concat(),
        ),
        (
            "a handshake that never begins",
            tls(Security::Implicit),
            vec![Act::Listen],
        ),
    ] {
        let meeting = meet(acts, async |stream| {
            Connection::from_stream(stream, &endpoint).await.map(|_| ())
        })
        .await;
        assert_handling(
            attack,
            &meeting.result,
            Fails(ErrorKind::Timeout, Phase::Tls, false, "within 60s"),
        );
        assert_eq!(meeting.took.as_secs(), 60, "{attack}");
    }
    // The answers to chunks, each in time (RFC 3030, 3): the message has its lowest rate.
    let mut acts = then(
        "EHLO",
        &[
            send_reply("250-hi\r\n250-CHUNKING\r\n250 BINARYMIME\r\n"),
            Act::Hear("MAIL"),
            send_reply("250 ok\r\n"),
        ],
    );
    acts.extend([Act::Hear("RCPT"), send_reply("250 ok\r\n")]);
    acts.extend(
        (0..100).flat_map(|_| [Act::Hear("BDAT"), Act::Rest(179), send_reply("250 ok\r\n")]),
    );
    let mut timeouts = Timeouts::default();
    timeouts.min_rate = 10_000;
    let meeting = meet(acts, async |stream| {
        send(
            stream,
            &plain().timeouts(timeouts),
            binary_message(0, &["you@example.com"], 8_000_000),
        )
        .await
    })
    .await;
    assert_handling(
        "chunks",
        &meeting.result,
        Fails(
            ErrorKind::Timeout,
            Phase::Body,
            false,
            "too little of the message",
        ),
    );
    assert!(
        meeting.took.as_secs() < 180 + 8_000_000 / 10_000,
        "{:?}",
        meeting.took
    );
    // QUIT takes a second, whatever comes; and where it is not even taken.
    for (room, acts) in [
        (16 * 1024, then("QUIT", &[Act::Trickle("221-bye\r\n", 1)])),
        (16 * 1024, then("QUIT", &[Act::Flood("221-bye\r\n")])),
        (16 * 1024, then("QUIT", &[Act::Listen])),
        (4, then(".", &[send_reply("250 stored\r\n"), Act::Sleep])),
    ] {
        let message = text_message(0, &["you@example.com"], 100);
        let meeting = meet_over(room, acts, async |stream| {
            send(stream, &plain(), message).await
        })
        .await;
        assert_handling("a parting", &meeting.result, Handling::Sent);
        assert!(meeting.took <= Duration::from_secs(1), "{:?}", meeting.took);
    }
}

#[tokio::test]
async fn a_long_list_of_mechanisms_costs_linear_time() {
    // 200 KB of names, all different: looked at one by one against each other they would take
    // minutes.
    let mut names = String::new();
    for line in 0..16 {
        names += "250-AUTH";
        for n in 0..2500 {
            names += &format!(" {:X}", line * 2500 + n);
        }
        names += "\r\n";
    }
    let acts = then(
        "EHLO",
        &[Act::Say((names + "250 AUTH PLAIN\r\n").into()), Act::Listen],
    );
    let endpoint = plain().auth_in_clear(true).user("alice").password("secret");
    let began = std::time::Instant::now();
    let meeting = meet(acts, async |stream| {
        let connecting = Connection::from_stream(stream, &endpoint);
        tokio::time::timeout(Duration::from_secs(5), connecting)
            .await
            .map(|_| ())
            .ok();
        Ok(())
    });
    meeting.await.result.unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn unread_bytes_are_bounded() {
    // The driver passes on what it read; the machine takes no more than a line and 64 KiB before
    // it is asked what they mean.
    let mut machine = Machine::new(Settings::new(
        ClientName::new("client.example.org").unwrap(),
    ));
    let most = Limits::default().line + 64 * 1024;
    for flood in ["x", "220 x\r\n", "\0", "220-x\r\n"] {
        let bytes = flood.repeat(1 << 20);
        let taken: usize = (0..10).map(|_| machine.input(bytes.as_bytes())).sum();
        assert!(taken <= most, "{flood:?}: {taken}");
        while machine
            .step()
            .is_ok_and(|step| !matches!(step, Step::Closed | Step::Wait { .. }))
        {}
    }
}

/// A connection on which nothing can be written any more, after the first command, and without an
/// end to what can be read.
struct Hydra {
    replies: &'static [u8],
    is_asked: bool,
    is_broken: bool,
    read: Arc<AtomicUsize>,
}

impl AsyncRead for Hydra {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = match self.is_broken {
            true => buffer.remaining(),
            false if self.replies.is_empty() || !self.is_asked => return Poll::Pending,
            false => {
                self.is_asked = false;
                let (now, later) = self.replies.split_at(self.replies.len().min(8));
                buffer.put_slice(now);
                self.replies = later;
                return Poll::Ready(Ok(()));
            }
        };
        // It stops by itself, so that a test without the limit fails and does not hang.
        if self.read.fetch_add(length, Ordering::Relaxed) < 64 << 20 {
            buffer.put_slice(&b"250-no end\r\n".repeat(1000)[..length]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Hydra {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_asked = true;
        self.is_broken |= bytes.starts_with(b"MAIL");
        if self.is_broken {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        } else {
            Poll::Ready(Ok(bytes.len()))
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn replies_after_a_failed_write_are_bounded() {
    // Behind a write that failed stands the reason, if there is one; a server that never comes to
    // it is not listened to for ever.
    let read = Arc::new(AtomicUsize::new(0));
    let replies = b"220 hi\r\n250 hi\r\n";
    let stream = Hydra {
        replies,
        is_asked: true,
        is_broken: false,
        read: read.clone(),
    };
    let mut connection = Connection::from_stream(stream, &plain()).await.unwrap();
    let error = connection
        .send(text_message(0, &["you@example.com"], 10))
        .await
        .unwrap_err();
    assert!(!error.outcome_unknown(), "{error}");
    let read = read.load(Ordering::Relaxed);
    assert!(read < 1 << 20, "{read} bytes were read: {error}");
}
