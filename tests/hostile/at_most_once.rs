//! At most once, and said (RFC 5321, 4.1.1.4 and 6.1): the server is killed at each step of the
//! dialogue, and what the client tells of each message is compared with what the server has stored.
//! "Sent" is stored once; "not sent" is not stored; else it is unknown.

use std::sync::atomic::Ordering;

use envoi::tls::Security;
use envoi::{Client, Connection, Outcome, RetryPolicy};
use futures::StreamExt as _;
use futures::stream;
use tokio::io::duplex;

use crate::cancel_client::TcpServer;
use crate::server::{ServerBehavior, ServerState, binary_message, envelope, text_message};

const MORE_THAN_ALL: usize = 100_000;
const BOTH: &[&str] = &["you@example.com", "all@example.com"];

const PLAIN: ServerBehavior = ServerBehavior {
    pipelining: false,
    chunking: false,
    lmtp: false,
    binary: false,
    prdr: false,
    dsn: false,
    tls: None,
};

/// Ways to the server's disk: each must hold at every step.
const WAYS: &[(&str, ServerBehavior)] = &[
    ("DATA, one command at a time", PLAIN),
    (
        "DATA in a group (RFC 2920)",
        ServerBehavior {
            pipelining: true,
            ..PLAIN
        },
    ),
    (
        "BDAT (RFC 3030)",
        ServerBehavior {
            chunking: true,
            ..PLAIN
        },
    ),
    (
        "BDAT in a group",
        ServerBehavior {
            pipelining: true,
            chunking: true,
            ..PLAIN
        },
    ),
    (
        "BINARYMIME in chunks",
        ServerBehavior {
            chunking: true,
            binary: true,
            ..PLAIN
        },
    ),
    (
        "BINARYMIME in chunks without waiting",
        ServerBehavior {
            pipelining: true,
            chunking: true,
            binary: true,
            ..PLAIN
        },
    ),
    (
        "LMTP (RFC 2033, 4.2)",
        ServerBehavior {
            pipelining: true,
            lmtp: true,
            ..PLAIN
        },
    ),
    (
        "LMTP and BDAT",
        ServerBehavior {
            pipelining: true,
            chunking: true,
            lmtp: true,
            ..PLAIN
        },
    ),
    (
        "PRDR (draft-hall-prdr)",
        ServerBehavior {
            prdr: true,
            ..PLAIN
        },
    ),
    (
        "PRDR in a group, by BDAT",
        ServerBehavior {
            pipelining: true,
            chunking: true,
            prdr: true,
            ..PLAIN
        },
    ),
    (
        "STARTTLS",
        ServerBehavior {
            pipelining: true,
            tls: Some(Security::Required),
            ..PLAIN
        },
    ),
    (
        "TLS from the first byte",
        ServerBehavior {
            pipelining: true,
            chunking: true,
            tls: Some(Security::Implicit),
            ..PLAIN
        },
    ),
];

#[tokio::test(start_paused = true)]
async fn a_single_send_stores_at_most_once_wherever_the_server_dies() {
    for (way, behavior) in WAYS {
        let endpoint = behavior.endpoint();
        let mut told = [0; 3];
        for killed_at in 0.. {
            let state = ServerState::default();
            let (client, server) = duplex(1024 * 1024);
            let sending = async {
                let mut connection = Connection::from_stream(client, &endpoint).await.ok()?;
                let to = [
                    "you@example.com",
                    "nobody@example.com",
                    "full@example.com",
                    "all@example.com",
                ];
                let message = if behavior.binary {
                    binary_message(0, &to, 1_200_000)
                } else {
                    text_message(0, &to, 300)
                };
                let outcome = connection.send(message).await;
                connection.quit().await;
                Some(outcome)
            };
            let (outcome, served) =
                tokio::join!(sending, state.serve(server, *behavior, killed_at));
            let context = format!("{way}, killed at step {killed_at}");
            if let Some(outcome) = &outcome {
                state.audit(0, outcome, &context);
                let unknown = outcome.as_ref().is_err_and(|error| error.outcome_unknown());
                if !behavior.chunking {
                    assert!(
                        !unknown || state.records().asked_for == 1,
                        "{context}: the message was not requested: {outcome:?}"
                    );
                }
                told[if unknown {
                    0
                } else {
                    1 + usize::from(outcome.is_ok())
                }] += 1;
            } else {
                assert!(state.records().stored.is_empty(), "{context}");
            }
            if served.is_ok() {
                assert!(
                    outcome.is_some_and(|outcome| outcome.is_ok()),
                    "{context}: nothing was in the way"
                );
                break;
            }
            assert!(killed_at < 200, "{context}: it never ends");
        }
        // A small message by BDAT is with the transport as soon as MAIL is.
        let certain = behavior.pipelining && behavior.chunking && !behavior.binary;
        let [unknown, not_sent, sent] = told;
        assert!(
            unknown > 0 && sent > 0 && (not_sent > 0 || certain),
            "{way}: {told:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_of_messages_stores_each_at_most_once_wherever_the_server_dies() {
    for (way, behavior) in WAYS
        .iter()
        .filter(|(_, behavior)| behavior.pipelining && !behavior.binary && behavior.tls.is_none())
    {
        let endpoint = behavior.endpoint();
        for killed_at in 0.. {
            let state = ServerState::default();
            let (client, server) = duplex(1024 * 1024);
            let sending = async {
                let Ok(mut connection) = Connection::from_stream(client, &endpoint).await else {
                    return Vec::new();
                };
                let to = |n: usize| {
                    if n == 1 {
                        &["nobody@example.com"]
                    } else {
                        BOTH
                    }
                };
                let messages = stream::iter(0..5).map(|n| text_message(n, to(n), 100));
                let outcomes: Vec<_> = connection.send_all(messages).collect().await;
                connection.quit().await;
                outcomes
            };
            let (outcomes, served) =
                tokio::join!(sending, state.serve(server, *behavior, killed_at));
            let context = format!("{way}, a window, killed at step {killed_at}");
            // A last error may tell of the end of the connection alone.
            let messages = outcomes.iter().take_while(|outcome| match outcome {
                Ok(_) => true,
                Err(error) => error
                    .receipt()
                    .is_some_and(|receipt| !receipt.recipients.is_empty()),
            });
            let mut begun = 0;
            for (id, outcome) in messages.enumerate() {
                state.audit(id, outcome, &context);
                begun = id + 1;
            }
            let stored = state
                .records()
                .stored
                .keys()
                .map(|(id, _)| id + 1)
                .max()
                .unwrap_or(0);
            assert!(
                stored <= begun,
                "{context}: {stored} stored and {begun} reported"
            );
            if served.is_ok() {
                assert_eq!(begun, 5, "{context}");
                break;
            }
            assert!(killed_at < 300, "{context}: it never ends");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn single_steps_store_at_most_once_wherever_the_server_dies() {
    let behavior = ServerBehavior::default();
    for killed_at in 0.. {
        let state = ServerState::default();
        let (client, server) = duplex(1024 * 1024);
        let endpoint = behavior.endpoint();
        let sending = async {
            let envelope = envelope(&["you@example.com"]);
            let mut connection = Connection::from_stream(client, &endpoint).await?;
            connection.mail(envelope.reverse_path().cloned()).await?;
            connection.rcpt(envelope.recipients()[0].clone()).await?;
            let mut writer = connection.data().await?;
            writer.write("X-Id: 0\r\n\r\n").await?;
            writer.write("end\r\n").await?;
            let reply = writer.finish().await?;
            connection.quit().await;
            Ok::<_, envoi::Error>(reply)
        };
        let (outcome, served) = tokio::join!(sending, state.serve(server, behavior, killed_at));
        let stored = state.records().stored.len();
        match &outcome {
            Ok(_) => assert_eq!(stored, 1, "step {killed_at}"),
            Err(error) if error.outcome_unknown() => assert!(stored <= 1),
            Err(error) => assert_eq!(stored, 0, "step {killed_at}: {error}"),
        }
        if served.is_ok() {
            return;
        }
        assert!(killed_at < 200);
    }
}

#[tokio::test(start_paused = true)]
async fn retries_store_at_most_once_wherever_the_server_dies() {
    // What is known not to have been sent is sent again, and what is not known is not: stored twice
    // is nothing.
    for behavior in [
        ServerBehavior {
            pipelining: true,
            ..PLAIN
        },
        ServerBehavior {
            pipelining: true,
            chunking: true,
            ..PLAIN
        },
    ] {
        let (mut sent_again, mut unknown) = (0, 0);
        for killed_at in 0.. {
            let context = format!("{behavior:?}, killed at step {killed_at}");
            let tcp_server = TcpServer::open(behavior, 1, killed_at).await;
            let client = Client::new(tcp_server.endpoint.clone()).retries(RetryPolicy::new(3));
            let outcome = client
                .send(text_message(0, &["you@example.com"], 100))
                .await;
            let clients = tcp_server.clients.load(Ordering::Relaxed);
            tcp_server.state.audit(0, &outcome, &context);
            match outcome {
                Ok(_) if clients == 1 => break,
                Ok(_) => sent_again += 1,
                Err(error) => {
                    assert!(
                        error.outcome_unknown() && clients == 1,
                        "{context}: {clients} clients, {error}"
                    );
                    unknown += 1;
                }
            }
            assert!(killed_at < 200, "{context}: it never ends");
        }
        assert!(
            sent_again > 3 && unknown > 0,
            "{behavior:?}: {sent_again}, {unknown}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_message_is_not_sent_again() {
    // A server that stores and says nothing, a hundred times over: one connection, one message.
    let state = ServerState::default();
    let (client, server) = duplex(64 * 1024);
    let behavior = ServerBehavior {
        pipelining: true,
        ..ServerBehavior::default()
    };
    let endpoint = behavior.endpoint();
    let sending = async {
        let mut connection = Connection::from_stream(client, &endpoint).await.unwrap();
        let first = connection.send(text_message(0, BOTH, 100)).await;
        let second = connection.send(text_message(1, BOTH, 100)).await;
        (first, second)
    };
    // Up to where it has stored the message, and not a step further.
    let steps = {
        let state = ServerState::default();
        let (client, server) = duplex(64 * 1024);
        let sending = async {
            let mut connection = Connection::from_stream(client, &endpoint).await.unwrap();
            let _ = connection.send(text_message(0, BOTH, 100)).await;
        };
        let _served = tokio::join!(sending, state.serve(server, behavior, MORE_THAN_ALL));
        state.records().steps - 3
    };
    let ((first, second), _served) = tokio::join!(sending, state.serve(server, behavior, steps));
    let error = first.unwrap_err();
    assert!(
        error.outcome_unknown() && !error.is_transient() && !error.is_permanent(),
        "{error}"
    );
    assert!(
        error
            .receipt()
            .unwrap()
            .recipients
            .iter()
            .all(|recipient| recipient.outcome == Outcome::Unknown)
    );
    assert!(!second.unwrap_err().outcome_unknown());
    assert_eq!(
        state.records().stored.values().copied().collect::<Vec<_>>(),
        [1, 1]
    );
}
