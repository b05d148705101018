//! Plays the conversations of `tests/dialogues` through [`Connection`], over real sockets and with
//! real TLS; and then the transcript of each, which must have the same outcome.

use std::future::pending;
use std::io::{self, Cursor};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use envoi::proto::{ClientName, Content, Transaction, Transcript};
use envoi::testing::{Dialogue as Script, DialogueError, ScriptedServer};
use envoi::tls::{Security, Trust};
use envoi::{Connection, Endpoint, Envelope, Error, ErrorKind, Message, Outcome, Timeouts};
use support::address;
use support::dialogue::{Dialogue, HandOver, Send, Tls, Turn, read_folder};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

#[tokio::test]
async fn every_dialogue_gives_its_outcomes_through_a_connection() {
    for (name, dialogue) in for_connections() {
        let script = dialogue.text.parse().unwrap();
        let (played, end) = play_with(&dialogue, &script).await;
        if let Err(error) = end {
            panic!("{name}: {error}; the client says {:?}", played.outcomes);
        }
        assert_outcomes(&name, &dialogue, &played);
    }
}

/// What the transcript of a session does not have: how many empty lines came; and in the others,
/// that the last reply came before the command in front of it had been sent.
const NOT_IN_TRANSCRIPTS: &[&str] = &[
    "too-many-empty-lines",
    "unexpected-challenge",
    "unexpected-go-ahead-lmtp",
    "unexpected-go-ahead",
    "unexpected-reply-to-chunk",
    "unexpected-reply-to-ehlo",
    "unexpected-reply-to-starttls",
];

#[tokio::test]
async fn the_transcript_of_every_dialogue_gives_its_outcomes_again() {
    let mut failures = Vec::new();
    for (name, mut dialogue) in for_connections() {
        let script = dialogue.text.parse().unwrap();
        let (first, _) = play_with(&dialogue, &script).await;
        let script = Script::from_transcript(&first.transcript).unwrap();
        // What is written must be read again.
        let script: Script = script.to_string().parse().unwrap();
        // The number of round trips depends on how the replies are grouped.
        dialogue.round_trips = None;
        let (again, end) = play_with(&dialogue, &script).await;
        if end.is_err() || again.outcomes != first.outcomes {
            failures.push(format!(
                "{name}: {end:?}\n{:?}\n{:?}\n{}\n{script}",
                first.outcomes, again.outcomes, first.transcript
            ));
        }
    }
    let names = failures
        .iter()
        .filter_map(|failure| failure.split(':').next());
    assert_eq!(
        names.collect::<Vec<_>>(),
        NOT_IN_TRANSCRIPTS,
        "{}",
        failures.join("\n")
    );
}

fn for_connections() -> impl Iterator<Item = (String, Dialogue)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    read_folder(&folder)
        .into_iter()
        .filter(|(_, dialogue)| !dialogue.is_for_machine_alone())
}

async fn play_with(dialogue: &Dialogue, script: &Script) -> (Played, Result<(), DialogueError>) {
    let server = ScriptedServer::start(script).await.unwrap();
    let played = play(dialogue, server.port(), server.ca_pem()).await;
    (played, server.finish().await)
}

fn assert_outcomes(name: &str, dialogue: &Dialogue, played: &Played) {
    for (send, (outcome, recipients)) in dialogue.sends.iter().zip(&played.outcomes) {
        assert_eq!(outcome, &send.expect, "{name}");
        if let Some(recipients) = recipients {
            assert_recipients(name, send, recipients);
        }
    }
}

#[derive(Default)]
struct Played {
    outcomes: Outcomes,
    transcript: Transcript,
}

/// What became of the messages, as `expect:` has it, and of their recipients.
type Outcomes = Vec<(String, Option<Vec<Outcome>>)>;

async fn play(dialogue: &Dialogue, port: u16, ca_pem: &str) -> Played {
    let mut played = Played::default();
    if let Err(outcome) = converse(dialogue, port, ca_pem, &mut played).await {
        played.outcomes.push((outcome, None));
    }
    let nothing = ("nothing".into(), None);
    played.outcomes.resize(dialogue.sends.len(), nothing);
    played
}

/// The whole conversation; an error is the outcome of a session that came to no message, or to no
/// more of them.
async fn converse(
    dialogue: &Dialogue,
    port: u16,
    ca_pem: &str,
    played: &mut Played,
) -> Result<(), String> {
    let endpoint = if dialogue.is_lmtp {
        Endpoint::lmtp("localhost")
    } else {
        Endpoint::new("localhost")
    };
    let mut endpoint = endpoint
        .port(port)
        .trust(Trust::empty().pem(ca_pem.as_bytes()))
        .client_name(ClientName::new(&*dialogue.helo).unwrap())
        .timeouts(Timeouts::uniform(Duration::from_secs(8)))
        .security(match dialogue.tls {
            Tls::None => Security::None,
            Tls::Opportunistic => Security::Opportunistic,
            Tls::Required => Security::Required,
            Tls::Implicit => Security::Implicit,
        });
    if dialogue.auth_in_clear {
        endpoint = endpoint.auth_in_clear(true);
    }
    if dialogue.sends.iter().any(|send| send.all_or_nothing) {
        endpoint = endpoint.all_or_nothing(true);
    }
    if dialogue.sends.iter().any(|send| send.await_sender) {
        endpoint = endpoint.check_after_idle(std::time::Duration::ZERO);
    }
    let mut connection = Connection::connect(&endpoint).await.map_err(|error| {
        if let Some(receipt) = error.receipt() {
            played.transcript = receipt.transcript.clone();
        }
        failure(&error)
    })?;
    if let Some(auth) = &dialogue.auth {
        let credentials = auth.credentials();
        let mechanism = Some(auth.mechanism.parse().unwrap());
        if let Err(error) = connection.login(mechanism, &credentials).await {
            let outcome = refusal(&error);
            played.transcript = connection.transcript().clone();
            connection.quit().await;
            return Err(outcome);
        }
    }
    for send in &dialogue.sends {
        if dialogue.steps {
            let outcome = step_by_step(&mut connection, send)
                .await
                .unwrap_or_else(|error| refusal(&error));
            played.outcomes.push((outcome, None));
            continue;
        }
        let never_ends = dialogue
            .script
            .iter()
            .any(|turn| matches!(turn, Turn::Body(_)));
        let result = connection.send(message(send, never_ends)).await;
        let (outcome, receipt) = match &result {
            Ok(receipt) => (
                format!("sent {}", receipt.reply.as_ref().unwrap().code()),
                Some(receipt),
            ),
            Err(error) => (refusal(error), error.receipt()),
        };
        let recipients = receipt.map(|receipt| {
            receipt
                .recipients
                .iter()
                .map(|r| r.outcome.clone())
                .collect()
        });
        played.outcomes.push((outcome, recipients));
        if result.is_err_and(|error| {
            error.kind() == ErrorKind::Protocol || error.kind() == ErrorKind::Closed
        }) {
            break;
        }
    }
    if let Some(round_trips) = dialogue.round_trips {
        // QUIT is one more.
        assert_eq!(
            connection.round_trips() + 1,
            round_trips,
            "{:?}\n{}",
            played.outcomes,
            connection.transcript()
        );
    }
    played.transcript = connection.transcript().clone();
    connection.quit().await;
    Ok(())
}

/// A stream where nothing is to be known of the message beforehand, else its bytes. What the server
/// has to say in the middle of a message comes while this one waits for its last bytes.
fn message(send: &Send, never_ends: bool) -> Message<'static> {
    let from = send.from.as_deref().map(address);
    let envelope = Envelope::new(from, send.to.iter().map(|to| address(to))).unwrap();
    let mut bytes = send.message.clone();
    let message = if send.size_known || send.content != Content::Unknown {
        Message::raw(bytes)
    } else if never_ends && send.hand_over.is_none() {
        bytes.pop();
        Message::raw_stream(Cursor::new(bytes).chain(Never))
    } else {
        Message::raw_stream(Cursor::new(bytes))
    };
    let message = message.envelope(envelope).delivery(send.delivery.clone());
    match send.hand_over {
        None => message,
        Some(hand_over) => message.on_handover(move |_| async move {
            match hand_over {
                HandOver::Permitted => Ok(()),
                HandOver::Refused => Err(io::Error::other("the disk is full")),
                HandOver::Pending => pending().await,
            }
        }),
    }
}

/// A stream of which nothing comes.
struct Never;

impl AsyncRead for Never {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

async fn step_by_step(connection: &mut Connection, send: &Send) -> Result<String, Error> {
    let mut transaction = Transaction::open(send.from.as_deref().map(address));
    transaction.delivery = send.delivery.clone();
    // The end of the message by `finish` is the hand-over.
    transaction.hand_over = send.hand_over.is_some();
    let reply = connection.mail(transaction).await?;
    if !reply.is_positive() {
        return Ok(format!("refused mail {}", reply.code()));
    }
    let (mut accepted, mut last) = (0, 0);
    for to in &send.to {
        let reply = connection.rcpt(address(to)).await?;
        accepted += u32::from(reply.is_positive());
        last = reply.code();
    }
    if accepted == 0 {
        connection.reset().await?;
        return Ok(format!("refused rcpt {last}"));
    }
    let mut writer = connection.data().await?;
    for piece in send.message.chunks(7) {
        writer.write(piece.to_vec()).await?;
    }
    let mut verdicts = vec!["-".to_owned(); send.to.len()];
    let reply = writer
        .finish_each(|index, reply| verdicts[index] = reply.code().to_string())
        .await?;
    assert_eq!(verdicts.join(" "), send.verdicts);
    Ok(format!("sent {}", reply.code()))
}

fn failure(error: &Error) -> String {
    let word = if error.outcome_unknown() {
        "unknown"
    } else {
        "failed"
    };
    format!("{word} {} {}", error.kind(), error.phase())
}

fn refusal(error: &Error) -> String {
    match error.reply() {
        Some(reply) if matches!(error.kind(), ErrorKind::Refused | ErrorKind::Auth) => {
            format!("refused {} {}", error.phase(), reply.code())
        }
        _ => failure(error),
    }
}

/// The dialogue has the reply to each RCPT, and the answer to the message for each where there is
/// one; else what became of the message for an accepted one depends on how it ended.
fn assert_recipients(name: &str, send: &Send, recipients: &[Outcome]) {
    for ((code, verdict), outcome) in send
        .recipients
        .split(' ')
        .zip(send.verdicts.split(' '))
        .zip(recipients)
    {
        if verdict != "-" {
            let given = match outcome {
                Outcome::Accepted(reply) if reply.is_positive() => reply.code().to_string(),
                Outcome::Refused(reply) if !reply.is_positive() => reply.code().to_string(),
                other => panic!("{name}: the verdict was {verdict}, and the outcome is {other:?}"),
            };
            assert_eq!(given, verdict, "{name}");
            continue;
        }
        let fits = match outcome {
            Outcome::Accepted(reply) => {
                send.expect.starts_with("sent") && code == reply.code().to_string()
            }
            Outcome::Refused(reply) => {
                !code.starts_with('2') && code == reply.code().to_string()
                    || send.expect.ends_with(&reply.code().to_string())
            }
            // What went with its commands was handed over before each of them was answered.
            Outcome::Unknown => {
                send.expect.starts_with("unknown") && (code.starts_with('2') || code == "-")
            }
            Outcome::NotTried => {
                !send.expect.starts_with("sent") && !send.expect.starts_with("unknown")
            }
        };
        assert!(
            fits,
            "{name}: the reply to RCPT was {code}, {}, and the outcome is {outcome:?}",
            send.expect
        );
    }
}

/// A refused message leaves a transaction open, which a pool drops before it keeps the connection.
#[cfg(feature = "pool")]
#[tokio::test]
async fn the_transcript_of_a_refused_message_plays_to_a_client_and_to_a_pool() {
    use envoi::Client;
    use envoi::testing::{Fault, Server, Step};

    async fn refused_by(url: &str, with_pool: bool) -> Error {
        let client = Client::from_url(url).unwrap();
        let mail = support::hello_to(&["a@example.com"]);
        if !with_pool {
            return client.send(mail).await.unwrap_err();
        }
        let pool = client.pool(1);
        let error = pool.send(mail).await.unwrap_err();
        pool.close().await;
        error
    }

    for recorded_with_pool in [false, true] {
        let server = Server::builder().plaintext();
        let server = server.fault(Fault::reply(Step::Rcpt, "550 5.1.1 Unknown"));
        let server = server.start().await.unwrap();
        let error = refused_by(&server.url(), recorded_with_pool).await;
        let transcript = &error.receipt().unwrap().transcript;
        let dialogue = Script::from_transcript(transcript).unwrap();
        for with_pool in [false, true] {
            let server = ScriptedServer::start(&dialogue).await.unwrap();
            let again = refused_by(server.url(), with_pool).await;
            assert_eq!(again.message(), error.message());
            server.finish().await.unwrap();
        }
    }
}
