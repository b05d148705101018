//! Limits on all that the server controls: each has its attack, the error names the limit, and it is reached in time, however slowly or
//! fast the bytes come. Real servers stay far below (RFC 5321, 4.5.3.1).

use std::time::Duration;

use envoi::proto::{Limits, Mechanism};
use envoi::{Connection, Credentials, Endpoint, Kind, Phase, Timeouts};

use crate::office::letter;
use crate::script::Fate::Fails;
use crate::script::{Act, Fate, assert_fate, meet, plain, play_all, say, send, up_to};

fn then(last: &str, acts: &[Act]) -> Vec<Act> {
    [up_to(last), acts.to_vec()].concat()
}

fn too_much(phase: Phase) -> Fate {
    Fails(Kind::Protocol, phase, phase == Phase::EndOfData, "limit")
}

#[tokio::test(start_paused = true)]
async fn floods() {
    let long = format!("250 {}\r\n", "x".repeat(17 * 1024));
    let wide = format!("250-{}\r\n", "x".repeat(15 * 1024)).repeat(18) + "250 end\r\n";
    play_all(vec![
        ("a greeting without an end", vec![Act::Flood("x")], too_much(Phase::Greeting)),
        ("a greeting of lines without an end", vec![Act::Flood("220-x\r\n")], too_much(Phase::Greeting)),
        ("capabilities without an end", then("EHLO", &[Act::Flood("250-X\r\n")]), too_much(Phase::Hello)),
        ("one capability without an end", then("EHLO", &[say("250-"), Act::Flood("A")]), too_much(Phase::Hello)),
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
        ("a go-ahead of lines without an end", then("DATA", &[Act::Flood("354-x\r\n")]), too_much(Phase::Data)),
        ("a confirmation of lines without an end", then(".", &[Act::Flood("250-x\r\n")]), too_much(Phase::EndOfData)),
        (
            "empty lines without an end",
            then("MAIL", &[Act::Flood("\r\n")]),
            Fails(Kind::Protocol, Phase::Mail, false, "no SMTP reply"),
        ),
        ("NULs without an end", then("MAIL", &[Act::Flood("\0")]), too_much(Phase::Mail)),
        (
            "replies without an end, unasked",
            then("EHLO", &[Act::Flood("250 x\r\n")]),
            Fails(Kind::Protocol, Phase::Command, false, "nothing was asked"),
        ),
    ])
    .await;
    // The answer to QUIT is of no importance, so it does not matter how long it is.
    let endpoint = plain();
    let acts = then("QUIT", &[Act::Flood("221-bye\r\n")]);
    let meeting = meet(acts, async |stream| send(stream, &endpoint, letter(0, &["you@example.com"], 100)).await).await;
    assert_fate("a parting without an end", &meeting.result, Fate::Sent);
    assert!(meeting.took <= Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn each_limit_can_be_set_and_is_named() {
    let with = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        plain().limits(limits)
    };
    let offers = "250-a\r\n250-b\r\n250-c\r\n250 d\r\n";
    let cases: [(&str, Endpoint, &str); 3] = [
        ("a line", with(|limits| limits.line = 30), "limit of 30 bytes"),
        ("lines", with(|limits| limits.reply_lines = 3), "limit of 3"),
        ("a reply", with(|limits| limits.reply_bytes = 26), "limit of 26 bytes"),
    ];
    for (what, endpoint, words) in cases {
        let name = if what == "a line" { "250-a name of more than thirty bytes\r\n250 x\r\n" } else { offers };
        let acts = then("EHLO", &[say(name), Act::Listen]);
        let meeting = meet(acts, async |stream| send(stream, &endpoint, letter(0, &["you@example.com"], 100)).await);
        assert_fate(what, &meeting.await.result, Fails(Kind::Protocol, Phase::Hello, false, words));
    }
}

#[tokio::test(start_paused = true)]
async fn no_real_server_reaches_them() {
    // The longest of each that the design promises to take, in one answer to EHLO after the other.
    for (what, lines, bytes) in [("a line of 8 KiB", 2, 8192), ("2,000 lines", 2000, 10), ("256,000 bytes", 250, 1017)]
    {
        let offers = (1..lines).map(|n| format!("250-X{n:0bytes$}\r\n")).collect::<String>() + "250 SIZE 1000000\r\n";
        let endpoint = plain();
        let meeting = meet(then("EHLO", &[say(&offers), Act::Listen]), async |stream| {
            let connection = Connection::over(stream, &endpoint).await?;
            Ok(connection.capabilities().size_limit())
        });
        assert_eq!(meeting.await.result.unwrap(), Some(1_000_000), "{what}");
    }
}

/// A session with a login in clear, up to the first challenge.
fn challenged(acts: &[Act]) -> Vec<Act> {
    let offers = say("250-hostile.example.org\r\n250 AUTH PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256 XOAUTH2\r\n");
    [vec![say("220 hi\r\n"), Act::Hear("EHLO"), offers, Act::Hear("AUTH")], acts.to_vec()].concat()
}

#[tokio::test(start_paused = true)]
async fn challenges() {
    let password = || Credentials::new("alice", "correct horse");
    let repeated = |reply: &str| (0..100).flat_map(|_| [say(reply), Act::Hear("\r\n")]).collect::<Vec<_>>();
    let long = format!("334 {}\r\n", "QUJD".repeat(3000));
    for (attack, mechanism, credentials, acts, words) in [
        (
            "a question after each answer",
            Mechanism::Login,
            password(),
            repeated("334 VXNlcm5hbWU6\r\n"),
            "challenges than the limit of 16",
        ),
        ("empty questions", Mechanism::Plain, password(), repeated("334 \r\n"), "challenges than the limit of 16"),
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
            vec![say("334 "), Act::Flood("A")],
            "limit of 16384 bytes",
        ),
        (
            "a challenge in lines, too long together",
            Mechanism::Login,
            password(),
            vec![say(&long.replace("334 ", "334-")), say(&long), Act::Listen],
            "challenge longer than the limit of 16384 bytes",
        ),
    ] {
        let endpoint = plain().auth_in_clear().mechanism(mechanism).credentials(credentials);
        let meeting =
            meet(challenged(&acts), async |stream| Connection::over(stream, &endpoint).await.map(|_| ())).await;
        assert_fate(attack, &meeting.result, Fails(Kind::Protocol, Phase::Auth, false, words));
    }
}

#[tokio::test(start_paused = true)]
async fn time_in_each_phase_and_in_all() {
    let table: [(&str, Vec<Act>, Phase, u64); 7] = [
        ("a greeting, a byte every ten seconds", vec![Act::Trickle("220-still here\r\n", 10)], Phase::Greeting, 300),
        ("capabilities, a byte every minute", then("EHLO", &[Act::Trickle("250-X\r\n", 60)]), Phase::Hello, 300),
        ("the reply to MAIL, a byte every second", then("MAIL", &[Act::Trickle("250-\r\n", 1)]), Phase::Mail, 300),
        (
            "the reply to RCPT, a byte every 299 seconds",
            then("RCPT", &[Act::Trickle("250-\r\n", 299)]),
            Phase::Rcpt,
            300,
        ),
        ("the go-ahead, a byte every second", then("DATA", &[Act::Trickle("354-\r\n", 1)]), Phase::Data, 120),
        ("the confirmation, a byte every second", then(".", &[Act::Trickle("250-\r\n", 1)]), Phase::EndOfData, 600),
        ("silence", then("MAIL", &[Act::Listen]), Phase::Mail, 300),
    ];
    for (attack, acts, phase, seconds) in &table {
        let endpoint = plain();
        let meeting =
            meet(acts.clone(), async |stream| send(stream, &endpoint, letter(0, &["you@example.com"], 100)).await)
                .await;
        assert_fate(attack, &meeting.result, Fails(Kind::Timeout, *phase, *phase == Phase::EndOfData, ""));
        assert_eq!(meeting.took.as_secs(), *seconds, "{attack}");
    }
    // Each of these comes in time, and together they are too late: a reply for each of a hundred recipients, a minute apart.
    let many: Vec<String> = (0..100).map(|n| format!("user{n}@example.com")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let slowly = || {
        let replies = (0..100).flat_map(|_| [Act::Hear("RCPT"), Act::Rest(55), say("250 ok\r\n")]);
        [up_to("MAIL"), vec![say("250 ok\r\n")], replies.collect(), vec![Act::Listen]].concat()
    };
    for (what, timeouts, seconds) in [
        ("all waiting together", Timeouts::of(Duration::from_secs(60)), 240),
        ("the deadline", Timeouts::default().with_deadline(Duration::from_secs(600)), 600),
    ] {
        let endpoint = plain().timeouts(timeouts);
        let meeting = meet(slowly(), async |stream| send(stream, &endpoint, letter(0, &many, 100)).await).await;
        assert_fate(what, &meeting.result, Fails(Kind::Timeout, Phase::Rcpt, false, ""));
        assert_eq!(meeting.took.as_secs(), seconds, "{what}");
    }
}

#[tokio::test]
async fn a_list_of_mechanisms_costs_no_time() {
    // 200 KB of names, all different: looked at one by one against each other they would take minutes.
    let mut names = String::new();
    for line in 0..16 {
        names += "250-AUTH";
        for n in 0..2500 {
            names += &format!(" {:X}", line * 2500 + n);
        }
        names += "\r\n";
    }
    let acts = then("EHLO", &[Act::Say((names + "250 AUTH PLAIN\r\n").into()), Act::Listen]);
    let endpoint = plain().auth_in_clear().user("alice").password("secret");
    let began = std::time::Instant::now();
    let meeting = meet(acts, async |stream| {
        let connecting = Connection::over(stream, &endpoint);
        tokio::time::timeout(Duration::from_secs(5), connecting).await.map(|_| ()).ok();
        Ok(())
    });
    meeting.await.result.unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
