//! A server that plays a part against the client, over a wire in memory; and what came of it.

use std::fmt::Debug;
use std::time::Duration;

use envoi::tls::Security;
use envoi::{Connection, Endpoint, Error, ErrorKind, Message, Phase, Receipt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::server::{Stream, certificate, text_message};

/// What the server does next.
#[derive(Clone, Debug)]
pub enum Act {
    Say(Vec<u8>),
    /// Reads until the client has said this.
    Hear(&'static str),
    /// Takes so many bytes and no more.
    Take(usize),
    Rest(u64),
    /// Says the same again and again, so many seconds apart, byte by byte.
    Trickle(&'static str, u64),
    /// Says the same again and again, as fast as it is taken.
    Flood(&'static str),
    /// Reads and says nothing.
    Listen,
    /// Reads nothing and says nothing.
    Sleep,
    Tls,
    /// Closes, inside TLS with close_notify.
    Close,
    /// Closes without close_notify.
    Cut,
}

pub fn send_reply(text: &str) -> Act {
    Act::Say(text.into())
}

/// The acts of an ordinary session up to this point, by what the client says: greeting, EHLO …
pub fn up_to(last: &str) -> Vec<Act> {
    let mut acts = vec![send_reply("220 hostile.example.org\r\n")];
    let turns = [
        ("EHLO", "250 hostile.example.org\r\n"),
        ("MAIL", "250 ok\r\n"),
        ("RCPT", "250 ok\r\n"),
        ("DATA\r\n", "354 go\r\n"),
        ("\r\n.\r\n", "250 stored\r\n"),
        ("QUIT", "221 bye\r\n"),
    ];
    for (command, reply) in turns {
        acts.push(Act::Hear(command));
        if command.trim() == last {
            return acts;
        }
        acts.push(send_reply(reply));
    }
    acts
}

async fn play(stream: DuplexStream, acts: Vec<Act>) -> Vec<u8> {
    let mut stream: Box<dyn Stream> = Box::new(stream);
    let (mut heard, mut seen) = (Vec::new(), 0);
    let mut buffer = vec![0; 64 * 1024];
    for act in acts {
        // The client has closed the connection.
        let gone = match act {
            Act::Say(bytes) => {
                stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err()
            }
            Act::Hear(words) => loop {
                let found = heard[seen..]
                    .windows(words.len())
                    .position(|part| part == words.as_bytes());
                // No reply comes before the command's end.
                let is_whole =
                    |at: &usize| heard[seen + at..].windows(2).any(|part| part == b"\r\n");
                if let Some(at) = found.filter(is_whole) {
                    // Two dots may share a line end.
                    let line_end_is_all = words.trim_end().is_empty();
                    seen += at
                        + if line_end_is_all {
                            words.len()
                        } else {
                            words.trim_end().len()
                        };
                    break false;
                }
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => break true,
                    Ok(length) => heard.extend_from_slice(&buffer[..length]),
                }
            },
            Act::Take(bytes) => stream.read_exact(&mut vec![0; bytes]).await.is_err(),
            Act::Rest(seconds) => {
                sleep(Duration::from_secs(seconds)).await;
                false
            }
            Act::Trickle(text, seconds) => {
                for byte in text.bytes().cycle() {
                    sleep(Duration::from_secs(seconds)).await;
                    if stream.write_all(&[byte]).await.is_err() {
                        break;
                    }
                }
                true
            }
            Act::Flood(text) => {
                let text = text.repeat(4096 / text.len() + 1);
                while stream.write_all(text.as_bytes()).await.is_ok() {}
                true
            }
            Act::Listen => {
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    heard.extend_from_slice(&buffer[..length]);
                }
                true
            }
            Act::Sleep => {
                std::future::pending::<()>().await;
                true
            }
            Act::Tls => match TlsAcceptor::from(certificate().server.clone())
                .accept(stream)
                .await
            {
                Ok(secured) => {
                    stream = Box::new(secured);
                    false
                }
                Err(_) => return heard,
            },
            Act::Close => {
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut heard).await;
                true
            }
            Act::Cut => true,
        };
        if gone {
            break;
        }
    }
    heard
}

/// What came of it.
pub struct Meeting<T> {
    pub result: Result<T, Error>,
    pub took: Duration,
    pub heard: Vec<u8>,
}

/// The client does this with its end of the wire, the server that with its own. The wire is the
/// client's until it is done.
pub async fn meet<T>(
    acts: Vec<Act>,
    client: impl AsyncFnOnce(DuplexStream) -> Result<T, Error>,
) -> Meeting<T> {
    meet_over(16 * 1024, acts, client).await
}

/// The same, over a wire on which so many bytes wait at most.
pub async fn meet_over<T>(
    room: usize,
    acts: Vec<Act>,
    client: impl AsyncFnOnce(DuplexStream) -> Result<T, Error>,
) -> Meeting<T> {
    let (near, far) = duplex(room);
    let mut serving = tokio::spawn(play(far, acts));
    let began = Instant::now();
    // Longer than any limit.
    let result = timeout(Duration::from_secs(24 * 60 * 60), client(near))
        .await
        .expect("the client comes to an end");
    let took = began.elapsed();
    // The client's end is closed: what is left to be heard is heard at once.
    let heard = timeout(Duration::from_secs(1), &mut serving)
        .await
        .map(Result::unwrap)
        .unwrap_or_default();
    serving.abort();
    Meeting {
        result,
        took,
        heard,
    }
}

pub fn plain() -> Endpoint {
    Endpoint::new("localhost").security(Security::None)
}

/// Sends a message over a connection of its own.
pub async fn send(
    stream: DuplexStream,
    endpoint: &Endpoint,
    message: Message<'static>,
) -> Result<Receipt, Error> {
    let mut connection = Connection::from_stream(stream, endpoint).await?;
    let receipt = connection.send(message).await?;
    connection.quit().await;
    Ok(receipt)
}

/// What must come of an attack.
#[derive(Clone, Copy, Debug)]
pub enum Handling {
    Sent,
    /// With this kind and phase, whether the outcome is unknown, and these words.
    Fails(ErrorKind, Phase, bool, &'static str),
}

#[track_caller]
pub fn assert_handling<T: Debug>(attack: &str, result: &Result<T, Error>, expected: Handling) {
    match (result, expected) {
        (Ok(_), Handling::Sent) => {}
        (Err(error), Handling::Fails(kind, phase, unknown, words)) => {
            let found = (error.kind(), error.phase(), error.outcome_unknown());
            assert_eq!(found, (kind, phase, unknown), "{attack}: {error}");
            assert!(
                error.to_string().contains(words),
                "{attack}: {words:?} is not in: {error}"
            );
        }
        (result, expected) => panic!("{attack}: {expected:?}, and {result:?}"),
    }
}

/// Plays a table of attacks on a small message, each against a session of its own.
pub async fn play_all(table: Vec<(&'static str, Vec<Act>, Handling)>) {
    for (attack, acts, expected) in table {
        let endpoint = plain();
        let meeting = meet(acts, async |stream| {
            send(
                stream,
                &endpoint,
                text_message(0, &["you@example.com"], 100),
            )
            .await
        })
        .await;
        assert_handling(attack, &meeting.result, expected);
        assert!(
            meeting.took < Duration::from_secs(60 * 60),
            "{attack}: it took {:?}",
            meeting.took
        );
    }
}
