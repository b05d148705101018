//! The parser of dialogues, whose format `tests/dialogues/README.md` describes.

use envoi::proto::Content;
use support::dialogue::{Tls, Turn, parse};

const SMALL: &str = "# comment\n\nsend: from a@b to c@d\nexpect: sent 250\n\nS: 220 x\n";

#[test]
fn the_parser_reads_every_setting_and_turn() {
    let text = "\
# A comment.
protocol: lmtp
helo: me
tls: required
auth: PLAIN alice secret
authorize-as: bob
nonce: abc
channel-binding: tls-exporter 0123
server: mail.example.org 587
reason: a wrong password
auth-in-clear: yes
round-trips: 3
send: from <> to a@b c@d
all-or-nothing: yes
await-sender: yes
message: a\\r\\n\\x2e\\\\
content: 8bit
size: known
recipients: 250 -
verdicts: 452 -
expect: refused rcpt 550
send: from a@b to c@d
message-lines: 2
steps: yes
expect: unknown closed end-of-data

S: 220 hi
C: EHLO me
C: 
# Between two groups.
S* 25
S* 0 x\\r\\n
TLS
C<<
..a

# not a comment
.
C: QUIT
BODY 12
CLOSE
WAIT-CLOSE
";
    let dialogue = parse(text).unwrap();
    assert_eq!(
        (dialogue.helo.as_str(), dialogue.tls, dialogue.round_trips),
        ("me", Tls::Required, Some(3))
    );
    assert!(dialogue.auth_in_clear && dialogue.steps && dialogue.is_lmtp);
    let auth = dialogue.auth.unwrap();
    assert_eq!(
        (auth.password.as_str(), auth.authorize_as.as_deref()),
        ("secret", Some("bob"))
    );
    assert_eq!(
        (dialogue.nonce.as_deref(), dialogue.reason.as_deref()),
        (Some("abc"), Some("a wrong password"))
    );
    assert_eq!(
        dialogue.channel_binding,
        Some(("tls-exporter".into(), "0123".into()))
    );
    assert_eq!(dialogue.server, Some(("mail.example.org".into(), 587)));
    let [first, second] = &dialogue.sends[..] else {
        panic!("two messages")
    };
    assert_eq!(
        (first.from.as_deref(), &first.to[..]),
        (None, &["a@b".to_string(), "c@d".into()][..])
    );
    assert!(first.all_or_nothing && first.size_known && first.content == Content::EightBit);
    assert!(first.await_sender && !second.await_sender);
    assert_eq!(first.message, b"a\r\n.\\");
    assert_eq!(
        (first.recipients.as_str(), first.expect.as_str()),
        ("250 -", "refused rcpt 550")
    );
    assert_eq!(
        (first.verdicts.as_str(), second.verdicts.as_str()),
        ("452 -", "-")
    );
    assert_eq!(second.message.len(), 24 + 2 * 78);
    assert_eq!(
        (second.recipients.as_str(), second.expect.as_str()),
        ("-", "unknown closed end-of-data")
    );
    assert_eq!(
        dialogue.script,
        [
            Turn::Server(b"220 hi\r\n".to_vec()),
            Turn::Client(b"EHLO me\r\n\r\n".to_vec()),
            Turn::Server(b"250 x\r\n".to_vec()),
            Turn::Tls,
            Turn::Client(b"..a\r\n\r\n# not a comment\r\n.\r\nQUIT\r\n".to_vec()),
            Turn::Body(12),
            Turn::Close,
            Turn::WaitClose,
        ]
    );
}

#[test]
fn the_parser_names_faults_with_their_line() {
    for (wrong, error) in [
        ("", "0: there is no script"),
        (
            "send: from a@b to c@d\n\nS: 220 x",
            "0: nothing is expected of the message to c@d",
        ),
        (
            "tls: maybe",
            "1: no such setting before `send:`: tls: maybe",
        ),
        ("tls", "1: not `name: value`: tls"),
        (
            "expect: sent 250",
            "1: no such setting before `send:`: expect: sent 250",
        ),
        (&format!("{SMALL}X: hm"), "7: not a line of a script: X: hm"),
        (&format!("{SMALL}C<<\nbody\n"), "7: no `.` ends it: C<<"),
        (&format!("{SMALL}S* \\q"), "7: no such escape: \\q: S* \\q"),
        (
            &format!("{SMALL}S* \\xg0"),
            "7: \\x without two digits: S* \\xg0",
        ),
        (
            &format!("{SMALL}S* \\x+f"),
            "7: \\x without two digits: S* \\x+f",
        ),
        (
            &format!("{SMALL}S* \\"),
            "7: a lone backslash at the end: S* \\",
        ),
        (&format!("{SMALL}BODY x"), "7: not a number: BODY x"),
        (
            &SMALL.replace("250", "250 x"),
            "4: no such setting: expect: sent 250 x",
        ),
    ] {
        assert_eq!(parse(wrong).unwrap_err(), error, "{wrong}");
    }
}
