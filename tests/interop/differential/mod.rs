//! A thousand scripts of a server, played to envoi and to Python's smtplib: what became of the
//! message is the same, or a rule below says why it is not.
//!
//! It needs `python3`, so that it is ignored unless `-- --ignored` is given.

mod scripts;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use envoi::tls::Security;
use envoi::{Address, Connection, Endpoint, Envelope, ErrorKind, Message};

use scripts::{Answer, Form, Script};

const SCRIPTS: usize = 1000;

/// Where the two may differ: what is said of the script, of envoi and of smtplib, in this order.
/// The first that fits explains it.
type Rule = (&'static str, fn(&Script, &str, &str) -> bool);

const RULES: [Rule; 6] = [
    (
        "what is no reply, or one too many, is a violation, and smtplib goes by three digits",
        |script, ours, theirs| {
            let odd = [
                Form::Garbage,
                Form::CodeChanges,
                Form::TooLong,
                Form::OneMore,
            ];
            ours == "protocol"
                && theirs != ours
                && script
                    .answers()
                    .iter()
                    .any(|answer| odd.contains(&answer.form))
        },
    ),
    (
        "a reply that was cut off is none: whether it was sent is unknown",
        |script, ours, _| {
            ours == "closed"
                && script
                    .answers()
                    .iter()
                    .any(|answer| answer.form == Form::Cut && !answer.bytes.is_empty())
        },
    ),
    (
        "HELO is for servers that do not know EHLO (RFC 5321, 3.2); another refusal is meant for \
            the client",
        |script, ours, _| match script.ehlo.code() {
            250 | 500 | 502 | 504 => false,
            code => ours == of_code(code),
        },
    ),
    (
        "any 2xx is a success and any 3xx a go-ahead (RFC 5321, 4.2.1), and smtplib wants 250 and \
            354",
        |script, ours, theirs| {
            let Script {
                mail,
                recipients: [first, second],
                data,
                end,
                ..
            } = script;
            let is_success = |answer: &Answer, usual: &[u16]| {
                answer.code() / 100 == 2 && !usual.contains(&answer.code())
            };
            let unusual = is_success(mail, &[250])
                || is_success(first, &[250, 251])
                || is_success(second, &[250, 251])
                || is_success(end, &[250])
                || (data.code() / 100 == 3 && data.code() != 354);
            unusual && ours != "protocol" && !theirs.starts_with("sent + +")
        },
    ),
    (
        "a go-ahead is no answer to a sender or a recipient, and smtplib takes it for a refusal",
        |script, ours, theirs| {
            let Script {
                mail,
                recipients: [first, second],
                ..
            } = script;
            let goes_on = [mail, first, second]
                .iter()
                .any(|answer| answer.code() / 100 == 3);
            goes_on && ours == "protocol" && theirs != "closed"
        },
    ),
    (
        "452 and 552 say that a transaction has too many recipients (RFC 5321, 4.5.3.1.10), and smtplib begins no other",
        |script, ours, theirs| {
            let too_many = matches!(script.recipients[1].code(), 452 | 552);
            too_many && ours == "sent + +" && theirs == "sent + -"
        },
    ),
];

fn of_code(code: u16) -> &'static str {
    match code / 100 {
        4 => "transient",
        5 => "permanent",
        _ => "protocol",
    }
}

// ---- The server ----

/// Plays the scripts in turn, each to one connection.
fn serve(listener: &TcpListener, scripts: &[Script]) {
    for script in scripts {
        let (stream, _) = listener.accept().unwrap();
        // A client that closes early ends its script.
        let _ = play(script, stream);
    }
}

fn play(script: &Script, stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut recipients = script.recipients.iter();
    let mut answer = &script.greeting;
    let ok = Answer::apt("250 2.0.0 Ok");
    loop {
        (&stream).write_all(&answer.bytes)?;
        if answer.closes {
            stream.shutdown(Shutdown::Write)?;
            // Nothing is left unread, which would throw away what the client has not read yet.
            return std::io::copy(&mut lines, &mut std::io::sink()).map(drop);
        }
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.trim_end().split([' ', ':']);
        answer = match words
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase()
            .as_str()
        {
            "EHLO" => &script.ehlo,
            "HELO" => &script.helo,
            "MAIL" => &script.mail,
            "RCPT" => recipients.next().unwrap_or(&ok),
            "DATA" if script.data.goes_ahead() => {
                (&stream).write_all(&script.data.bytes)?;
                let mut line = String::new();
                while lines.read_line(&mut line)? > 0 && line != ".\r\n" {
                    line.clear();
                }
                &script.end
            }
            "DATA" => &script.data,
            "QUIT" => return (&stream).write_all(b"221 2.0.0 Bye\r\n"),
            _ => &ok,
        };
    }
}

// ---- The clients ----

fn smtplib(port: u16) -> Vec<String> {
    let mut python = Command::new("python3")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/interop/differential/peer.py"
        ))
        .args([port.to_string(), SCRIPTS.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    let outcomes = BufReader::new(python.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .collect();
    assert!(python.wait().unwrap().success());
    outcomes
}

async fn envoi(port: u16) -> Vec<String> {
    let endpoint = Endpoint::new("127.0.0.1")
        .port(port)
        .security(Security::None);
    let address = |text| Address::new(text).unwrap();
    let recipients = [address("one@example.com"), address("two@example.com")];
    let envelope = Envelope::new(address("me@example.org"), recipients).unwrap();
    let mut outcomes = Vec::new();
    for _ in 0..SCRIPTS {
        let message =
            Message::raw("Subject: Hello\r\n\r\nHello.\r\n.\r\n").envelope(envelope.clone());
        let sent = match Connection::connect(&endpoint).await {
            Ok(mut connection) => connection.send(message).await,
            Err(error) => Err(error),
        };
        outcomes.push(match sent {
            Ok(receipt) => {
                let accepted = |recipient: &envoi::Recipient| {
                    if recipient.outcome.is_accepted() {
                        " +"
                    } else {
                        " -"
                    }
                };
                format!(
                    "sent{}",
                    receipt.recipients.iter().map(accepted).collect::<String>()
                )
            }
            Err(error) => match error.kind() {
                ErrorKind::Protocol => "protocol".into(),
                ErrorKind::Closed if error.reply().is_none() => "closed".into(),
                _ if error.is_transient() => "transient".into(),
                _ if error.is_permanent() => "permanent".into(),
                _ => format!("failed: {error}"),
            },
        });
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs python3"]
async fn outcomes_match_smtplib() {
    let scripts = scripts::scripts(SCRIPTS);
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (for_envoi, for_smtplib) = (listen(), listen());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let (envoi_port, smtplib_port) = (port(&for_envoi), port(&for_smtplib));
    for listener in [for_envoi, for_smtplib] {
        let scripts = scripts.clone();
        std::thread::spawn(move || serve(&listener, &scripts));
    }
    let python = std::thread::spawn(move || smtplib(smtplib_port));
    let ours = envoi(envoi_port).await;
    let theirs = python.join().unwrap();
    assert_eq!((ours.len(), theirs.len()), (SCRIPTS, SCRIPTS));

    let (mut explained, mut unexplained) = (BTreeMap::new(), Vec::new());
    for (number, script) in scripts.iter().enumerate() {
        let (ours, theirs) = (&ours[number], &theirs[number]);
        if ours == theirs {
            *explained.entry("the same").or_insert(0) += 1;
        } else if let Some((rule, _)) = RULES
            .iter()
            .find(|(_, explains)| explains(script, ours, theirs))
        {
            *explained.entry(rule).or_insert(0) += 1;
        } else {
            unexplained.push(format!(
                "script {number}: envoi {ours:?}, smtplib {theirs:?}\n{script}"
            ));
        }
    }
    println!("{explained:#?}");
    assert!(
        unexplained.is_empty(),
        "{} are not explained:\n{}",
        unexplained.len(),
        unexplained.join("\n")
    );
    for (rule, _) in &RULES {
        assert!(
            explained.contains_key(rule),
            "nothing differs any more because {rule}"
        );
    }
}
