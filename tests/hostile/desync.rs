//! No deadlock and no desync: a server that answers early, late, too much, too little, out of
//! order, in pieces or all at once, that stops reading, that closes anywhere. A reply is that of
//! one command (RFC 5321, 4.2), an unexpected reply is a violation, and later input does not change
//! the outcome of a message.

use std::time::Duration;

use envoi::{Connection, ErrorKind, Phase};
use futures::{StreamExt as _, stream};

use crate::script::Handling::{Fails, Sent};
use crate::script::{Act, assert_handling, meet, plain, play_all, send, send_reply, up_to};
use crate::server::{address, text_message};

const YOU: &[&str] = &["you@example.com"];

fn then(last: &str, acts: &[Act]) -> Vec<Act> {
    [up_to(last), acts.to_vec()].concat()
}

#[tokio::test(start_paused = true)]
async fn unexpected_replies_are_violations() {
    play_all(vec![
        (
            "all replies of a session with the greeting, before anything was asked",
            vec![
                send_reply(
                    "220 hi\r\n250 hi\r\n250 ok\r\n250 ok\r\n354 go\r\n250 stored\r\n221 bye\r\n",
                ),
                Act::Listen,
            ],
            Fails(
                ErrorKind::Protocol,
                Phase::Hello,
                false,
                "nothing was asked",
            ),
        ),
        (
            "the reply to the message with the go-ahead: success before the last byte",
            then(
                "DATA",
                &[send_reply("354 go\r\n250 stored\r\n"), Act::Listen],
            ),
            Fails(ErrorKind::Protocol, Phase::Body, false, "250 stored"),
        ),
        (
            "all replies of the transaction with that to MAIL",
            then(
                "MAIL",
                &[
                    send_reply("250 ok\r\n250 ok\r\n354 go\r\n250 stored\r\n"),
                    Act::Listen,
                ],
            ),
            Fails(ErrorKind::Protocol, Phase::Rcpt, false, "nothing was asked"),
        ),
        (
            "an answer more than was asked for, behind EHLO",
            then(
                "EHLO",
                &[send_reply("250 hi\r\n250 and more\r\n"), Act::Listen],
            ),
            Fails(
                ErrorKind::Protocol,
                Phase::Command,
                false,
                "nothing was asked",
            ),
        ),
        (
            "the go-ahead in place of the reply to MAIL",
            then("MAIL", &[send_reply("354 go\r\n"), Act::Listen]),
            Fails(ErrorKind::Protocol, Phase::Mail, false, "354 go"),
        ),
        (
            "a challenge (334) to RCPT",
            then("RCPT", &[send_reply("334 \r\n"), Act::Listen]),
            Fails(ErrorKind::Protocol, Phase::Rcpt, false, "334"),
        ),
        (
            "a success (250) in place of the go-ahead",
            then("DATA", &[send_reply("250 ok\r\n"), Act::Listen]),
            Fails(ErrorKind::Protocol, Phase::Data, false, "250 ok"),
        ),
        (
            "a second go-ahead in place of the reply to the message",
            then(".", &[send_reply("354 go\r\n"), Act::Listen]),
            Fails(ErrorKind::Protocol, Phase::EndOfData, true, "354 go"),
        ),
        (
            "too little: a reply whose last line never comes (RFC 5321, 4.2.1)",
            then(".", &[send_reply("250-stored\r\n"), Act::Listen]),
            Fails(ErrorKind::Timeout, Phase::EndOfData, true, ""),
        ),
        (
            "lines of one reply with two codes",
            then(
                ".",
                &[send_reply("250-stored\r\n550 or not\r\n"), Act::Listen],
            ),
            Fails(ErrorKind::Protocol, Phase::EndOfData, true, "250"),
        ),
        (
            "a reply without its line end, and the end of the connection",
            then(".", &[send_reply("250 stored"), Act::Cut]),
            Fails(
                ErrorKind::Closed,
                Phase::EndOfData,
                true,
                "middle of a reply",
            ),
        ),
        (
            "the first line of a reply, and the end of the connection",
            then(".", &[send_reply("250-stored\r\n"), Act::Cut]),
            Fails(
                ErrorKind::Closed,
                Phase::EndOfData,
                true,
                "middle of a reply: \"250 stored\"",
            ),
        ),
        (
            "empty lines in place of a reply",
            then(
                ".",
                &[
                    send_reply(&("\r\n".repeat(17) + "250 stored\r\n")),
                    Act::Listen,
                ],
            ),
            Fails(
                ErrorKind::Protocol,
                Phase::EndOfData,
                true,
                "an empty line came",
            ),
        ),
        (
            "a reply that ends with the first half of its line end",
            then(".", &[send_reply("250 stored\r"), Act::Cut]),
            Fails(
                ErrorKind::Closed,
                Phase::EndOfData,
                true,
                "middle of a reply",
            ),
        ),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn bytes_after_the_final_reply_change_no_outcome() {
    for (attack, behind) in [
        ("421 in the same segment", "421 4.3.2 going down\r\n"),
        (
            "a refusal behind the success",
            "550 5.7.1 no, after all\r\n",
        ),
        ("another success", "250 stored again\r\n"),
        ("garbage", "\0\u{1}\u{2}garbage without end"),
        ("the beginning of a reply", "250-"),
        ("a flood of replies", &"250 stored\r\n".repeat(10_000)),
    ] {
        let endpoint = plain();
        let acts = then(
            ".",
            &[send_reply(&format!("250 stored\r\n{behind}")), Act::Listen],
        );
        let meeting = meet(acts, async |stream| {
            let mut connection = Connection::from_stream(stream, &endpoint).await?;
            let first = connection.send(text_message(0, YOU, 100)).await;
            assert!(
                first.is_ok_and(|receipt| receipt.all_accepted()),
                "{attack}"
            );
            // The next command does not take it for its answer, and nothing more is sent.
            connection.send(text_message(1, YOU, 100)).await
        })
        .await;
        let error = meeting.result.unwrap_err();
        assert!(!error.outcome_unknown(), "{attack}: {error}");
        assert!(
            matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Closed),
            "{attack}: {error}"
        );
        assert_eq!(error.phase(), Phase::Command, "{attack}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn merged_and_split_replies_are_read_alike() {
    let pipelining = "250-hostile.example.org\r\n250 PIPELINING\r\n";
    let merged = vec![
        send_reply("220 hi\r\n"),
        Act::Hear("EHLO"),
        send_reply(pipelining),
        Act::Hear("DATA\r\n"),
        send_reply("250 ok\r\n250 ok\r\n354 go\r\n"),
        Act::Hear("\r\n.\r\n"),
        send_reply("250 stored\r\n"),
        Act::Listen,
    ];
    let replies = "250-ok\r\n250 ok\r\n250 ok\r\n354 go\r\n";
    let mut split = vec![
        send_reply("220 hi\r\n"),
        Act::Hear("EHLO"),
        send_reply(pipelining),
        Act::Hear("DATA\r\n"),
    ];
    split.extend(
        replies
            .bytes()
            .flat_map(|byte| [Act::Say(vec![byte]), Act::Rest(1)]),
    );
    split.extend([
        Act::Hear("\r\n.\r\n"),
        send_reply("250 stored\r\n"),
        Act::Listen,
    ]);
    let early = vec![
        send_reply("220 hi\r\n"),
        Act::Hear("EHLO"),
        send_reply(pipelining),
        // It has seen MAIL, and knows the rest.
        Act::Hear("MAIL"),
        send_reply("250 ok\r\n250 ok\r\n354 go\r\n"),
        Act::Hear("\r\n.\r\n"),
        send_reply("250 stored\r\n"),
        Act::Listen,
    ];
    play_all(vec![
        ("a group's replies in one segment", merged, Sent),
        (
            "a group's replies byte by byte, a second apart",
            split,
            Sent,
        ),
        ("a group's replies after its first command", early, Sent),
        (
            "a reply too many in a group",
            vec![
                send_reply("220 hi\r\n"),
                Act::Hear("EHLO"),
                send_reply(pipelining),
                Act::Hear("DATA\r\n"),
                send_reply("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"),
                Act::Listen,
            ],
            Fails(ErrorKind::Protocol, Phase::Data, false, "250 ok"),
        ),
        (
            "a reply too few in a group",
            vec![
                send_reply("220 hi\r\n"),
                Act::Hear("EHLO"),
                send_reply(pipelining),
                Act::Hear("DATA\r\n"),
                send_reply("250 ok\r\n354 go\r\n"),
                Act::Listen,
            ],
            Fails(ErrorKind::Protocol, Phase::Rcpt, false, "354 go"),
        ),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn early_replies_to_a_large_message_cause_no_deadlock() {
    for (attack, acts, expected) in [
        (
            "stops reading in the middle of the message",
            then(
                "DATA",
                &[send_reply("354 go\r\n"), Act::Take(5000), Act::Sleep],
            ),
            Fails(ErrorKind::Timeout, Phase::Body, false, ""),
        ),
        (
            "never reads, and refuses at once",
            then(
                "DATA",
                &[send_reply("354 go\r\n552 5.3.4 too big\r\n"), Act::Sleep],
            ),
            Fails(ErrorKind::Refused, Phase::Body, false, "too big"),
        ),
        (
            "refuses in the middle of the message, and closes",
            then(
                "DATA",
                &[
                    send_reply("354 go\r\n"),
                    Act::Take(5000),
                    send_reply("552 5.3.4 too big\r\n"),
                    Act::Cut,
                ],
            ),
            Fails(ErrorKind::Refused, Phase::Body, false, "too big"),
        ),
        (
            "confirms in the middle of the message",
            then(
                "DATA",
                &[
                    send_reply("354 go\r\n"),
                    Act::Take(5000),
                    send_reply("250 stored\r\n"),
                    Act::Listen,
                ],
            ),
            Fails(ErrorKind::Protocol, Phase::Body, false, "250 stored"),
        ),
        (
            "closes in the middle of the message",
            then(
                "DATA",
                &[send_reply("354 go\r\n"), Act::Take(5000), Act::Cut],
            ),
            Fails(
                ErrorKind::Closed,
                Phase::Body,
                false,
                "middle of the message",
            ),
        ),
        (
            "421 in the middle of the message",
            then(
                "DATA",
                &[
                    send_reply("354 go\r\n"),
                    Act::Take(5000),
                    send_reply("421 4.3.2 going down\r\n"),
                    Act::Cut,
                ],
            ),
            Fails(ErrorKind::Refused, Phase::Body, false, "going down"),
        ),
        (
            "floods with replies and reads nothing, so that both sides could wait for the other",
            then(
                "DATA",
                &[send_reply("354 go\r\n"), Act::Flood("250 ok\r\n")],
            ),
            Fails(ErrorKind::Protocol, Phase::Body, false, "250 ok"),
        ),
        (
            "floods with a reply that has no end, and reads nothing",
            then(
                "DATA",
                &[send_reply("354 go\r\n"), Act::Flood("250-ok\r\n")],
            ),
            Fails(ErrorKind::Protocol, Phase::Body, false, "limit"),
        ),
    ] {
        // Of the small one, the client has given everything; only the wire has not taken it.
        for bytes in [100_000, 1_000_000] {
            let endpoint = plain();
            let acts = acts.clone();
            let meeting = meet(acts, async |stream| {
                send(stream, &endpoint, text_message(0, YOU, bytes)).await
            })
            .await;
            assert_handling(attack, &meeting.result, expected);
            assert!(
                meeting.took <= Duration::from_secs(200),
                "{attack}: it took {:?}",
                meeting.took
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_gives_the_right_outcome() {
    play_all(vec![
        (
            "before the greeting",
            vec![Act::Cut],
            Fails(ErrorKind::Closed, Phase::Greeting, false, "greeting"),
        ),
        (
            "after the greeting",
            then("EHLO", &[Act::Cut]),
            Fails(ErrorKind::Closed, Phase::Hello, false, "EHLO"),
        ),
        (
            "after 250 to EHLO",
            then("EHLO", &[send_reply("250 hi\r\n"), Act::Cut]),
            Fails(ErrorKind::Closed, Phase::Command, false, ""),
        ),
        (
            "after 250 to MAIL",
            then("MAIL", &[send_reply("250 ok\r\n"), Act::Cut]),
            Fails(ErrorKind::Closed, Phase::Rcpt, false, "RCPT"),
        ),
        (
            "after 250 to RCPT",
            then("RCPT", &[send_reply("250 ok\r\n"), Act::Cut]),
            Fails(ErrorKind::Closed, Phase::Data, false, ""),
        ),
        (
            "after the final dot",
            then(".", &[Act::Cut]),
            Fails(ErrorKind::Closed, Phase::EndOfData, true, "confirmed"),
        ),
        (
            "never answers the final dot",
            then(".", &[Act::Listen]),
            Fails(ErrorKind::Timeout, Phase::EndOfData, true, "confirm"),
        ),
        (
            "after 250 to the message",
            then(".", &[send_reply("250 stored\r\n"), Act::Cut]),
            Sent,
        ),
        ("instead of 221", then("QUIT", &[Act::Cut]), Sent),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_421_to_any_command_ends_with_its_text() {
    // RFC 5321, 3.8 and 4.2.3: 421 may be the answer to any command.
    for (at, kind, phase) in [
        ("EHLO", ErrorKind::Refused, Phase::Hello),
        ("MAIL", ErrorKind::Refused, Phase::Mail),
        ("RCPT", ErrorKind::Refused, Phase::Rcpt),
        ("DATA", ErrorKind::Refused, Phase::Data),
        (".", ErrorKind::Refused, Phase::EndOfData),
    ] {
        for lines in [
            "421 4.3.2 going down\r\n",
            "421-4.3.2 I am\r\n421 4.3.2 going down\r\n",
        ] {
            for end in [Act::Cut, Act::Close, Act::Listen] {
                let attack = format!("{at}, {lines:?}, {end:?}");
                let endpoint = plain();
                let meeting = meet(then(at, &[send_reply(lines), end]), async |stream| {
                    let mut connection = Connection::from_stream(stream, &endpoint).await?;
                    let outcome = connection.send(text_message(0, YOU, 100)).await;
                    // The session is over: nothing more is said in it.
                    let after = connection
                        .send(text_message(1, YOU, 100))
                        .await
                        .unwrap_err();
                    assert_eq!(after.kind(), ErrorKind::Closed, "{attack}: {after}");
                    outcome
                })
                .await;
                assert_handling(
                    &attack,
                    &meeting.result,
                    Fails(kind, phase, false, "going down"),
                );
                assert!(meeting.result.unwrap_err().is_transient(), "{attack}");
                assert!(
                    meeting.took < Duration::from_secs(2),
                    "{attack}: it took {:?}",
                    meeting.took
                );
            }
        }
    }
    // Unasked, while nothing goes on: the next command has its text.
    let endpoint = plain();
    let acts = then(
        "EHLO",
        &[
            send_reply("250 hi\r\n"),
            Act::Rest(300),
            send_reply("421 4.4.2 idle for too long\r\n"),
            Act::Close,
        ],
    );
    let meeting = meet(acts, async |stream| {
        let mut connection = Connection::from_stream(stream, &endpoint).await?;
        tokio::time::sleep(Duration::from_secs(600)).await;
        connection.mail(address("me@example.org")).await
    })
    .await;
    assert_handling(
        "unasked",
        &meeting.result,
        Fails(
            ErrorKind::Closed,
            Phase::Command,
            false,
            "idle for too long",
        ),
    );
    assert!(!String::from_utf8_lossy(&meeting.heard).contains("MAIL"));
}

#[tokio::test(start_paused = true)]
async fn replies_to_a_window_stay_in_order() {
    // Three messages by BDAT are on their way. What comes too much or too early is no message's
    // success.
    let offers = "250-hostile.example.org\r\n250-PIPELINING\r\n250 CHUNKING\r\n";
    let one = "250 ok\r\n250 ok\r\n250 stored\r\n";
    for (attack, replies, sent) in [
        (
            "all in order",
            format!("{one}250 ok\r\n{one}250 ok\r\n{one}"),
            3,
        ),
        (
            "one reply too few",
            format!("{one}250 ok\r\n{one}250 ok\r\n250 ok\r\n"),
            2,
        ),
        ("a refusal out of place", format!("{one}550 no\r\n"), 1),
        ("421 behind the first", format!("{one}421 down\r\n"), 1),
        ("garbage behind the first", format!("{one}what?\r\n"), 1),
    ] {
        let endpoint = plain();
        let acts = vec![
            send_reply("220 hi\r\n"),
            Act::Hear("EHLO"),
            send_reply(offers),
            Act::Hear("LAST"),
            Act::Hear("LAST"),
            Act::Hear("LAST"),
            send_reply(&replies),
            Act::Rest(1),
            Act::Cut,
        ];
        let meeting = meet(acts, async |stream| {
            let mut connection = Connection::from_stream(stream, &endpoint).await?;
            let messages = stream::iter(0..3).map(|n| text_message(n, YOU, 10));
            Ok(connection.send_all(messages).collect::<Vec<_>>().await)
        })
        .await;
        let outcomes = meeting.result.unwrap();
        let told = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert!(outcomes.len() >= 3, "{attack}: {outcomes:?}");
        assert_eq!(told, sent, "{attack}: {outcomes:?}");
        assert!(outcomes[0].is_ok(), "{attack}: {outcomes:?}");
    }
}
