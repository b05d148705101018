//! Secrets: whatever a server makes of them, in the words of its replies, in challenges, in
//! garbage, cut or quoted, they are in no error, no transcript, no `Debug`, and in nothing that
//! `tracing` tells.

use std::error::Error as _;

use envoi::proto::{AbortReason, ClientName, Machine, Mechanism, Settings, Step};
use envoi::{Client, Connection, Credentials, Endpoint, Error};
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex,
};

use crate::script::{Act, meet, plain, send, send_reply, up_to};
use crate::server::text_message;
use crate::terminal::is_evil;
use support::log::Log;

/// With what `Debug` escapes, what URLs encode, and what is not ASCII.
const PASSWORD: &str = "tr0ub\"adour\\%&3ö";
/// With what is replaced or escaped before anything is looked for in it. SCRAM does not allow it
/// (RFC 4013).
const CONTROLS: &str = "p\u{7}s\u{9b}\u{202e}w %41rd\u{1b}[1m";
const TOKEN: &str = "ya29.tr0ub-adour_3/ab+cd==";

pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for block in bytes.chunks(3) {
        let bits = block.iter().enumerate().fold(0u32, |bits, (i, byte)| {
            bits | u32::from(*byte) << (16 - 8 * i)
        });
        for i in 0..4 {
            let letter = char::from(ALPHABET[(bits >> (18 - 6 * i) & 63) as usize]);
            text.push(if i <= block.len() { letter } else { '=' });
        }
    }
    text
}

/// What must not be seen: enough of the secret to be of use, in any form that it may have.
fn traces(secret: &str) -> Vec<String> {
    // Up to what may be escaped.
    let start: String = secret.chars().take(5).collect();
    let percent: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    // In base64 it looks different by what stands before it (modulo three bytes), and by what was
    // escaped before.
    let escaped = format!("{secret:?}");
    let forms = [secret, &escaped[1..escaped.len() - 1]];
    let aligned = forms.into_iter().flat_map(|form| {
        (0..3usize).map(move |before| {
            let encoded = base64(&[&[0; 2][..before], form.as_bytes()].concat());
            let own = (before * 8).div_ceil(6);
            encoded[own..own + 8].to_owned()
        })
    });
    let replaced = start
        .chars()
        .map(|c| {
            if crate::terminal::is_evil(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    let hex: String = secret
        .bytes()
        .take(5)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let percent = percent[..15].to_owned();
    let escapes = |mark: &str| percent.replace('%', mark);
    let entities: String = start
        .chars()
        .map(|c| format!("&#{};", u32::from(c)))
        .collect();
    let others = [
        escapes("+"),
        escapes("="),
        escapes(" "),
        escapes(":"),
        entities,
    ];
    let others = others
        .into_iter()
        .flat_map(|form| [form.to_lowercase(), form]);
    let own = [
        start,
        replaced,
        percent.to_lowercase(),
        percent,
        hex.to_uppercase(),
        hex,
    ];
    aligned.chain(own).chain(others).collect()
}

#[track_caller]
pub fn assert_silent(context: &str, text: &str, secret: &str) {
    for trace in traces(secret) {
        assert!(!text.contains(&trace), "{context}: {trace:?} is in: {text}");
    }
}

/// All that is to be seen of an error.
pub fn error_text(error: &Error) -> String {
    let mut text = format!("{error}\n{error:?}\n{error:#?}\n{:?}\n", error.receipt());
    text += &error
        .receipt()
        .map(|receipt| receipt.transcript.to_string())
        .unwrap_or_default();
    text += &error
        .reply()
        .map(|reply| format!("{reply} {reply:?}"))
        .unwrap_or_default();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!("{cause}\n{cause:?}\n");
        source = cause.source();
    }
    text
}

/// A server that says back what it hears, in a form of its own.
async fn parrot(mut stream: DuplexStream, mechanism: Mechanism, secret: String, form: Form) {
    let mut reader = Vec::new();
    let offer = format!("220 hi\r\n250-hi\r\n250 AUTH {mechanism}\r\n");
    let (greeting, offer) = offer.split_at(8);
    if stream.write_all(greeting.as_bytes()).await.is_err() {
        return;
    }
    let mut has_echoed = false;
    let mut prompts = vec!["334 UGFzc3dvcmQ6\r\n", "334 VXNlcm5hbWU6\r\n"];
    loop {
        let end = loop {
            if let Some(end) = reader.windows(2).position(|pair| pair == b"\r\n") {
                break end;
            }
            if !stream
                .read_buf(&mut reader)
                .await
                .is_ok_and(|length| length > 0)
            {
                return;
            }
        };
        let line: Vec<u8> = reader.drain(..end + 2).collect();
        let line = String::from_utf8_lossy(&line[..end]).into_owned();
        let reply = if line.starts_with("EHLO") {
            offer.to_owned()
        } else if line.starts_with("AUTH") && line.split(' ').count() == 2 {
            match mechanism {
                Mechanism::CramMd5 => prompts.remove(1).to_owned(),
                _ => prompts.pop().unwrap_or("334 \r\n").to_owned(),
            }
        } else if mechanism == Mechanism::Login && prompts.len() == 1 {
            prompts.pop().unwrap_or_default().to_owned()
        } else if std::mem::replace(&mut has_echoed, true) {
            // The client gave up, or answered to a challenge that was one.
            "535 5.7.8 no\r\n".to_owned()
        } else {
            form(&line, &secret)
        };
        if stream.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// What is said back, by the client's line and the secret.
type Form = fn(&str, &str) -> String;

const FORMS: [(&str, Form); 27] = [
    ("in a refusal", |_, secret| {
        format!("535 5.7.8 wrong password: {secret}\r\n")
    }),
    ("in base64", |_, secret| {
        format!("535 5.7.8 wrong: {}\r\n", base64(secret.as_bytes()))
    }),
    ("the client's own line", |line, _| {
        format!("535 5.7.8 you said {line}\r\n")
    }),
    ("the client's own response", |line, _| {
        format!(
            "535 5.7.8 {}\r\n",
            line.rsplit(' ').next().unwrap_or_default()
        )
    }),
    ("in two lines", |line, secret| {
        format!("535-5.7.8 {secret}\r\n535 5.7.8 {line}\r\n")
    }),
    ("in garbage", |_, secret| {
        format!("{secret} is no password\r\n")
    }),
    ("in garbage, where it is cut", |_, secret| {
        format!("{}{secret} is no password\r\n", "x".repeat(73))
    }),
    ("in a line of another reply", |_, secret| {
        format!("535-no\r\n250 {secret}\r\n")
    }),
    ("in such a line, where it is cut", |_, secret| {
        format!("535-no\r\n250 {}{secret}\r\n", "x".repeat(68))
    }),
    ("in a reply that has no place here", |_, secret| {
        format!("354 {secret}\r\n")
    }),
    ("in 421", |line, secret| {
        format!("421 4.7.0 {secret} {line}\r\n")
    }),
    ("in a challenge", |_, secret| {
        let words =
            serde_json::json!({ "status": "401", "scope": secret, secret: [secret] }).to_string();
        format!("334 {}\r\n", base64(words.as_bytes()))
    }),
    ("in a challenge that is none", |_, secret| {
        format!("334 {secret}\r\n")
    }),
    ("in a URL", |_, secret| {
        let percent: String = secret.bytes().map(|byte| format!("%{byte:02x}")).collect();
        format!("535 5.7.8 https://example.org/?password={percent}\r\n")
    }),
    ("in a URL in capitals, twice", |_, secret| {
        let percent: String = secret
            .bytes()
            .map(|byte| format!("%25{byte:02X}"))
            .collect();
        format!("535 5.7.8 https://example.org/?password={percent}\r\n")
    }),
    ("in hexadecimal digits", |_, secret| {
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        format!("535-5.7.8 {hex}\r\n535 5.7.8 {}\r\n", hex.to_uppercase())
    }),
    ("in hexadecimal digits apart", |_, secret| {
        let hex: Vec<String> = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "535-5.7.8 {}\r\n535 5.7.8 {}\r\n",
            hex.join(" "),
            hex.join(":")
        )
    }),
    ("in xtext", |_, secret| {
        let xtext: String = secret.bytes().map(|byte| format!("+{byte:02X}")).collect();
        format!("535 5.7.8 {xtext}\r\n")
    }),
    ("as quoted-printable", |_, secret| {
        let printable: String = secret.bytes().map(|byte| format!("={byte:02X}")).collect();
        format!("535 5.7.8 {printable}\r\n")
    }),
    ("as HTML", |_, secret| {
        let numbers: String = secret
            .chars()
            .map(|c| format!("&#{};", u32::from(c)))
            .collect();
        let named = secret.replace('&', "&amp;").replace('"', "&quot;");
        format!("535-5.7.8 {numbers}\r\n535 5.7.8 {named}\r\n")
    }),
    ("escaped", |_, secret| {
        format!(
            "535-5.7.8 {secret:?}\r\n535 5.7.8 {:?}\r\n",
            format!("{secret:?}")
        )
    }),
    ("as JSON", |_, secret| {
        let units: String = secret
            .encode_utf16()
            .map(|unit| format!("\\u{unit:04x}"))
            .collect();
        format!(
            "535-5.7.8 {}\r\n535 5.7.8 {{\"password\":\"{units}\"}}\r\n",
            serde_json::json!([secret])
        )
    }),
    ("across lines", |_, secret| {
        let (one, other) = halves(secret);
        format!("535-5.7.8 {one}\r\n535 5.7.8 {other}\r\n")
    }),
    ("the client's line across lines", |line, _| {
        let (one, other) = halves(line);
        format!("535-5.7.8 you said {one}\r\n535 {other}\r\n")
    }),
    ("across the lines of what is no reply", |_, secret| {
        let (one, other) = halves(secret);
        format!("535-{one}\r\n{other}\r\n")
    }),
    ("in a challenge, as the client said it", |line, _| {
        format!("334 {}\r\n", base64(line.as_bytes()))
    }),
    ("behind a refusal", |_, secret| {
        format!("535 5.7.8 no\r\n250 {secret}\r\n")
    }),
];

/// Each has enough to be found.
fn halves(text: &str) -> (&str, &str) {
    let middle = text
        .char_indices()
        .nth(text.chars().count() / 2)
        .map_or(0, |(at, _)| at);
    text.split_at(middle)
}

#[tokio::test(start_paused = true)]
async fn an_echoed_secret_is_hidden_in_any_form() {
    let (log, kept) = Log::keep();
    for &mechanism in Mechanism::ALL {
        let secrets: &[&str] = match mechanism {
            Mechanism::OAuthBearer | Mechanism::XOAuth2 => &[TOKEN],
            Mechanism::External | Mechanism::Anonymous => continue,
            Mechanism::ScramSha256Plus | Mechanism::ScramSha1Plus => continue,
            Mechanism::Plain | Mechanism::Login | Mechanism::CramMd5 => &[PASSWORD, CONTROLS],
            _ => &[PASSWORD],
        };
        for (&secret, (form_name, form)) in secrets
            .iter()
            .flat_map(|secret| FORMS.map(|form| (secret, form)))
        {
            let credentials = match secret {
                TOKEN => Credentials::token("alice", TOKEN),
                _ => Credentials::new("alice", secret),
            };
            let context = format!("{mechanism}, {form_name}, {secret:?}");
            let (client, server) = duplex(16 * 1024);
            let serving = tokio::spawn(parrot(server, mechanism, secret.into(), form));
            let endpoint = plain()
                .auth_in_clear(true)
                .mechanism(mechanism)
                .credentials(credentials.clone());
            let error = Connection::from_stream(client, &endpoint)
                .await
                .err()
                .unwrap_or_else(|| panic!("{context}: logged in"));
            assert_silent(&context, &error_text(&error), secret);
            // Not only the secret's part of what was said, so that its length, and the bits next to
            // it, do not show either.
            assert!(
                !error_text(&error).contains("AGFsaWNlA"),
                "{context}: {error:?}"
            );
            assert_silent(
                &context,
                &format!("{endpoint:?} {:?}", Client::new(endpoint.clone())),
                secret,
            );
            serving.abort();
        }
    }
    drop(kept);
    let text = log.text();
    assert!(
        text.contains("C: AUTH PLAIN ***") && text.contains("535 5.7.8 wrong"),
        "{text}"
    );
    for secret in [PASSWORD, CONTROLS, TOKEN] {
        assert_silent("tracing", &text, secret);
    }
}

#[tokio::test(start_paused = true)]
async fn a_truncated_echo_is_hidden() {
    for (words, shown) in [
        ("535 5.7.8 you said {}", "you said"),
        ("535-5.7.8 you said\r\n535 {}", "you said"),
    ] {
        let half = halves(PASSWORD).0;
        let acts = [
            vec![
                send_reply("220 hi\r\n"),
                Act::Hear("EHLO"),
                send_reply("250-hi\r\n250 AUTH PLAIN\r\n"),
                Act::Hear("AUTH"),
            ],
            vec![send_reply(&words.replace("{}", half)), Act::Cut],
        ];
        let endpoint = plain().auth_in_clear(true).user("alice").password(PASSWORD);
        let meeting = meet(acts.concat(), async |stream| {
            Connection::from_stream(stream, &endpoint).await.map(|_| ())
        })
        .await;
        let error = meeting.result.unwrap_err();
        assert!(
            error.message().contains(shown) && error.message().contains("***"),
            "{error}"
        );
        assert_silent(words, &error_text(&error), PASSWORD);
    }
}

/// A stream of the caller's that fails, and says what it was to carry.
struct Indiscreet(DuplexStream, String);

impl tokio::io::AsyncRead for Indiscreet {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(std::pin::Pin::new(&mut self.0).poll_read(cx, buffer))?;
        std::task::Poll::Ready(match buffer.filled().len() == before {
            true => Err(std::io::Error::new(
                std::io::ErrorKind::ConnectionReset,
                self.1.clone(),
            )),
            false => Ok(()),
        })
    }
}

impl tokio::io::AsyncWrite for Indiscreet {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn error_sources_hold_no_secret() {
    for secret in [PASSWORD, CONTROLS] {
        let acts = [
            send_reply("220 hi\r\n"),
            Act::Hear("EHLO"),
            send_reply("250-hi\r\n250 AUTH PLAIN\r\n"),
            Act::Hear("AUTH"),
            Act::Cut,
        ];
        let endpoint = plain().auth_in_clear(true).user("alice").password(secret);
        let words = format!("the filter says that {secret} must not pass");
        let connect = async |stream| {
            Connection::from_stream(Indiscreet(stream, words.clone()), &endpoint)
                .await
                .map(|_| ())
        };
        let error = meet(acts.to_vec(), connect).await.result.unwrap_err();
        assert!(error.message().contains("must not pass"), "{error}");
        assert!(
            error
                .source()
                .unwrap()
                .to_string()
                .contains("*** must not pass"),
            "{error:?}"
        );
        assert_silent("the source", &error_text(&error), secret);
    }
}

#[test]
fn a_drivers_reason_holds_no_secret() {
    // Of an error of the system's, or of a device in between, which may repeat what it saw.
    let mut settings = Settings::new(ClientName::new("client.example.org").unwrap());
    settings.auth_in_clear = true;
    let mut machine = Machine::new(settings);
    for reply in ["220 hi\r\n", "250-hi\r\n250 AUTH PLAIN\r\n"] {
        assert_eq!(machine.input(reply.as_bytes()), reply.len());
        while !matches!(machine.step().unwrap(), Step::Wait { .. } | Step::Ready) {}
        let length = machine.output().len();
        machine.wrote(length);
    }
    machine
        .login(Mechanism::Plain, &Credentials::new("alice", PASSWORD))
        .unwrap();
    for words in [
        PASSWORD.to_owned(),
        format!("{PASSWORD:?}"),
        base64(format!("\0alice\0{PASSWORD}").as_bytes()),
    ] {
        let text = format!("the filter says that {words} must not pass");
        let error = Error::from(machine.abort(AbortReason::ConnectionFailed(text)));
        assert_silent(&words, &error_text(&error), PASSWORD);
        assert!(
            error.to_string().contains("*** must not pass")
                || error.to_string().contains("\"***\""),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn control_characters_in_replies_are_replaced() {
    // Escape sequences, and characters that turn the direction of writing (CVE-2021-42574), in all
    // that a server says.
    let evil = "\x1b[2J\x1b]0;owned\x07\u{9b}31m\u{202e}drowssap\u{2066}\x08\x7f\u{200b}\u{200e}\u{61c}\u{2028}\u{feff}";
    let (log, kept) = Log::keep();
    for acts in [
        vec![send_reply(&format!("554 {evil}\r\n")), Act::Listen],
        vec![send_reply(&format!("{evil}\r\n")), Act::Listen],
        vec![send_reply(&format!("220 {evil}")), Act::Cut],
        [
            up_to("EHLO"),
            vec![
                send_reply(&format!(
                    "250-{evil}\r\n250-AUTH {evil}\r\n250 {evil} {evil}\r\n"
                )),
                Act::Hear("MAIL"),
                send_reply(&format!("550 5.1.1 {evil}\r\n")),
                Act::Listen,
            ],
        ]
        .concat(),
        [
            up_to("MAIL"),
            vec![
                send_reply(&format!("250-ok\r\n550 {evil}\r\n")),
                Act::Listen,
            ],
        ]
        .concat(),
        [
            up_to("MAIL"),
            vec![
                send_reply(&format!("250 ok\r\n250 ok\r\n250 {evil}\r\n")),
                Act::Listen,
            ],
        ]
        .concat(),
        [
            up_to("RCPT"),
            vec![send_reply(&format!("421 {evil}\r\n")), Act::Cut],
        ]
        .concat(),
        [
            up_to("."),
            vec![send_reply(&format!("554 {evil}\r\n")), Act::Listen],
        ]
        .concat(),
    ] {
        let context = format!("{acts:?}");
        let meeting = meet(acts, async |stream| {
            send(stream, &plain(), text_message(0, &["you@example.com"], 10)).await
        });
        let error = meeting.await.result.unwrap_err();
        let shown = format!(
            "{error}{}",
            error.reply().map(ToString::to_string).unwrap_or_default()
        );
        let transcript = error
            .receipt()
            .map(|receipt| receipt.transcript.to_string())
            .unwrap_or_default();
        for c in shown
            .chars()
            .chain(transcript.chars().filter(|c| *c != '\n'))
        {
            assert!(
                !is_evil(c),
                "{context}: {c:?} is in {shown:?} or {transcript:?}"
            );
        }
    }
    drop(kept);
    let text = log.text();
    assert!(text.contains("554"), "{text}");
    assert!(!text.chars().any(|c| c != '\n' && is_evil(c)), "{text:?}");
}

#[tokio::test(start_paused = true)]
async fn an_echo_after_the_login_is_hidden() {
    // A server that bears a grudge: each later reply has the password in it.
    type Grudge = fn(&str) -> String;
    let grudges: [(&str, Grudge); 6] = [
        ("refuses", |secret| format!("550 5.7.1 {secret}\r\n")),
        ("goes down", |secret| format!("421 4.3.2 {secret}\r\n")),
        ("talks nonsense", |secret| {
            format!("{}{secret}\r\n", "y".repeat(72))
        }),
        ("says more than it was asked", |secret| {
            format!("250 ok\r\n250 {secret}\r\n")
        }),
        ("says what has no place", |secret| {
            format!("354 {secret}\r\n")
        }),
        ("is cut off", |secret| {
            format!("250-{secret}\r\n250 {secret}")
        }),
    ];
    for (grudge, words) in grudges {
        let (client, mut server) = duplex(16 * 1024);
        let serving = tokio::spawn(async move {
            let mut heard = [0; 4096];
            let words = words(PASSWORD);
            for line in [
                "220 hi\r\n",
                "250-hi\r\n250 AUTH PLAIN\r\n",
                "235 ok\r\n",
                &words,
            ] {
                server.write_all(line.as_bytes()).await.unwrap();
                if !line.starts_with("250-tr") {
                    let _heard = server.read(&mut heard).await.unwrap();
                }
            }
        });
        let endpoint = plain().auth_in_clear(true).user("alice").password(PASSWORD);
        let mut connection = Connection::from_stream(client, &endpoint).await.unwrap();
        let error = connection
            .send(text_message(0, &["you@example.com"], 10))
            .await
            .unwrap_err();
        assert_silent(grudge, &error_text(&error), PASSWORD);
        assert_silent(grudge, &connection.transcript().to_string(), PASSWORD);
        serving.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn an_echo_before_the_login_is_hidden() {
    // The server knows the password from an earlier connection.
    type Opening = fn(&str) -> String;
    let openings: [(&str, Opening); 5] = [
        ("refuses", |secret| format!("554 5.7.1 {secret}\r\n")),
        ("goes down", |secret| {
            format!("421 4.3.2 {}\r\n", base64(secret.as_bytes()))
        }),
        ("greets with it", |secret| {
            format!("220 {secret}\r\n250 {secret}\r\n")
        }),
        ("talks nonsense", |secret| format!("{secret}\r\n")),
        ("offers it", |secret| {
            format!("220 hi\r\n250-hi\r\n250-{secret}\r\n250 AUTH {secret}\r\n")
        }),
    ];
    for ((opening, words), secret) in openings
        .iter()
        .flat_map(|opening| [(opening, PASSWORD), (opening, CONTROLS)])
    {
        for endpoint in [
            plain().auth_in_clear(true).user("alice").password(secret),
            plain()
                .auth_in_clear(true)
                .credentials(Credentials::new("alice", secret)),
        ] {
            let (client, mut server) = duplex(16 * 1024);
            server.write_all(words(secret).as_bytes()).await.unwrap();
            server.shutdown().await.unwrap();
            let error = Connection::from_stream(client, &endpoint)
                .await
                .unwrap_err();
            assert_silent(opening, &error_text(&error), secret);
        }
    }
    // A token from a source is known from the first login on.
    let endpoint = plain()
        .auth_in_clear(true)
        .user("alice")
        .token_source(async |_| Ok::<_, Error>(TOKEN));
    let mut shown = Vec::new();
    for replies in [
        &["220 hi", "250-hi\r\n250 AUTH XOAUTH2", "421 4.3.2 bye"][..],
        &[&format!("554 5.7.1 {TOKEN}")],
    ] {
        let (client, server) = duplex(16 * 1024);
        let acts = async {
            let mut server = tokio::io::BufReader::new(server);
            for reply in replies {
                server
                    .write_all(format!("{reply}\r\n").as_bytes())
                    .await
                    .unwrap();
                let _heard = server.read_line(&mut String::new()).await.unwrap();
            }
        };
        let (connection, ()) = tokio::join!(Connection::from_stream(client, &endpoint), acts);
        shown.push(error_text(&connection.unwrap_err()));
    }
    assert!(
        shown[0].contains("AUTH XOAUTH2 ***") && shown[1].contains("554 5.7.1 ***"),
        "{shown:?}"
    );
    assert_silent("a token", &shown.concat(), TOKEN);
}

#[tokio::test]
async fn settings_and_urls_show_no_secret() {
    let encoded: String = PASSWORD
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    // Well and badly formed: nothing quotes the URL, in no form of the password.
    for url in [
        format!("smtp://alice:{encoded}@mail.example.org"),
        format!("smtp://alice:{encoded}@mail.example.org:port"),
        format!("smtp://alice:{encoded}@mail example.org"),
        format!("smtp://alice:{encoded}@mail.example.org?tls=maybe"),
        format!("smtp://alice:{encoded}@mail.example.org/inbox"),
        format!("smtp://alice:{encoded}@"),
        format!("smtp://alice:{encoded}"),
        format!("smtp://mail.example.org?password={encoded}"),
        format!("http://alice:{encoded}@mail.example.org"),
        format!("alice:{encoded}@mail.example.org"),
        format!("smtp://alice:{PASSWORD}@mail.example.org"),
        format!("smtp://alice:{PASSWORD}"),
        format!("smtp://alice:{TOKEN}@mail.example.org?auth=XOAUTH2"),
    ] {
        let text = match Client::from_url(&url) {
            Ok(client) => format!("{client:?} {:?}", client.endpoint()),
            Err(error) => error_text(&error),
        };
        assert_silent(&url, &text, PASSWORD);
        assert_silent(&url, &text, TOKEN);
    }
    // A source of tokens that fails says why, and the error says no more.
    let endpoint = Endpoint::new("localhost")
        .user("alice")
        .token_source(async |_| Err::<String, _>("the vault is shut"));
    assert_silent("a source", &format!("{endpoint:?}"), TOKEN);
    let trust = envoi::tls::Trust::empty()
        .file("/nowhere/a.p12")
        .password(PASSWORD);
    let text = format!("{trust:?} {}", error_text(&trust.load().unwrap_err()));
    assert_silent("a trust store", &text, PASSWORD);
    let certificate = envoi::tls::ClientCertificate::file("/nowhere/a.p12").password(PASSWORD);
    let text = format!(
        "{certificate:?} {}",
        error_text(&certificate.load().unwrap_err())
    );
    assert_silent("a client certificate", &text, PASSWORD);
}
