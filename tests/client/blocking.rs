//! The blocking client, against a server on the threads of another runtime.

use std::io::{self, Read, Write as _};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use envoi::blocking::{self, Client, Connection};
use envoi::mail_builder::MessageBuilder;
use envoi::testing::{Builder, ReceivedMessage, Server, Session};
use envoi::{Address, Attachment, Error, ErrorKind, Message, PoolConfig, Receipt, Result};
use support::hello;
use tokio::runtime::{self, Runtime};

/// A server that runs beside the test, which has no runtime of its own.
struct Beside {
    runtime: Runtime,
    server: Server,
}

impl Beside {
    fn start(builder: Builder) -> Self {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(builder.start()).unwrap();
        Beside { runtime, server }
    }

    fn client(&self) -> Client {
        self.server.url().parse().unwrap()
    }

    fn next_message(&self) -> ReceivedMessage {
        self.runtime.block_on(self.server.next_message())
    }
}

fn numbered(number: usize) -> Message<'static> {
    let mail = MessageBuilder::new()
        .from("me@example.org")
        .to("you@example.com")
        .subject(format!("No. {number}"));
    mail.text_body("Hello.").into()
}

fn is_sent(result: Result<Receipt>) -> bool {
    result.unwrap().all_accepted()
}

#[test]
fn blocking_calls_need_no_runtime() {
    let beside = Beside::start(Server::builder().login("alice", "secret"));
    let client = beside.client();
    // Of a message that borrows.
    let text = String::from("Hello.");
    let mail = MessageBuilder::new()
        .from("me@example.org")
        .to("you@example.com")
        .text_body(&text[..]);
    assert!(is_sent(client.send(mail)));
    assert_eq!(beside.next_message().login.as_deref(), Some("alice"));
    assert_eq!(client.check().unwrap().advice, Vec::<String>::new());
    assert!(client.reload_trust().is_ok());

    let mut connection = client.connect().unwrap();
    assert!(is_sent(connection.send(hello())));
    assert!(connection.tls().is_some() && connection.mechanism().is_some());
    assert!(connection.verify().is_ok() && connection.greeting().is_some());
    assert!(connection.command("HELP").is_ok());
    let text = connection.transcript().to_string();
    assert!(text.contains("HELP"), "{text}");
    connection.quit();
    let error = client.send(Message::raw("no envelope")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request);
}

#[test]
fn threads_share_a_blocking_pool() {
    let beside = Beside::start(Server::builder());
    let pool = beside.client().pool(2);
    thread::scope(|scope| {
        for thread in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                for number in 0..10 {
                    assert!(is_sent(pool.send(numbered(10 * thread + number))));
                }
            });
        }
    });
    assert_eq!(beside.server.messages().len(), 80);
    assert!(beside.server.connections().len() <= 2);
    let mut connection = pool.get().unwrap();
    assert!(is_sent(connection.send(hello())));
    // Back to the pool, whichever it is.
    connection.quit();
    drop(pool.get().unwrap());
    assert!(beside.server.connections().len() <= 2);
    assert_eq!(pool.close().unwrap(), 0);
    assert_eq!(
        pool.send(hello()).unwrap_err().kind(),
        ErrorKind::PoolClosed
    );
    for session in beside.server.connections() {
        assert_eq!(session.commands().last(), Some("QUIT"));
    }
}

/// Each call that would stop the tasks of its thread says so, and the others work.
#[test]
fn a_blocking_call_in_a_task_fails() {
    let beside = Beside::start(Server::builder());
    let client = beside.client();
    let pool = client.pool(1);
    let mut connection = client.connect().unwrap();
    let mut third = client.connect().unwrap();
    connection
        .mail(Address::new("me@example.org").unwrap())
        .unwrap();
    connection
        .rcpt(Address::new("you@example.com").unwrap())
        .unwrap();
    let mut writer = connection.data().unwrap();
    assert!(is_sent(pool.send(hello())));
    let own = runtime::Builder::new_current_thread().build().unwrap();
    own.block_on(async {
        let inside = |error: Error| {
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("spawn_blocking"), "{error}");
        };
        inside(client.send(hello()).unwrap_err());
        inside(client.connect().unwrap_err());
        inside(client.check().unwrap_err());
        inside(pool.send(hello()).unwrap_err());
        inside(pool.get().unwrap_err());
        inside(pool.close().unwrap_err());
        inside(pool.send_all([hello().into()]).next().unwrap().unwrap_err());
        inside(third.noop().unwrap_err());
        let mut outcomes = third.send_all([hello().into(), hello().into()]);
        inside(outcomes.next().unwrap().unwrap_err());
        assert!(outcomes.next().is_none());
        drop(outcomes);
        inside(writer.write(b"a").unwrap_err().downcast().unwrap());
        inside(writer.flush().unwrap_err().downcast().unwrap());
        inside(writer.finish().unwrap_err());

        let blocking = (client.clone(), pool.clone());
        let sending = tokio::task::spawn_blocking(move || {
            is_sent(blocking.0.send(hello())) && is_sent(blocking.1.send(hello()))
        });
        assert!(sending.await.unwrap());
        // Nothing panics when it is dropped here.
        third.quit();
        drop((client, pool));
    });
    assert_eq!(connection.noop().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(beside.server.messages().len(), 3);
}

#[test]
fn a_blocking_pool_says_quit_when_dropped() {
    let beside = Beside::start(Server::builder());
    let pool = beside.client().pool(PoolConfig::new(2));
    let kept = pool.get().unwrap();
    assert!(is_sent(pool.send(hello())));
    drop(pool);
    drop(kept);
    beside.runtime.block_on(async {
        while beside
            .server
            .connections()
            .iter()
            .any(|session| session.is_open)
        {
            tokio::task::yield_now().await;
        }
    });
    for session in beside.server.connections() {
        assert_eq!(session.commands().last(), Some("QUIT"));
    }
}

#[test]
fn a_blocking_data_writer_is_written_to() {
    let beside = Beside::start(Server::builder());
    let mut connection = beside.client().connect().unwrap();
    let message = ["Subject: a\n\n".to_owned(), ".a line\n".repeat(100_000)].concat();
    for _ in 0..2 {
        connection
            .mail(Address::new("me@example.org").unwrap())
            .unwrap();
        connection
            .rcpt(Address::new("you@example.com").unwrap())
            .unwrap();
        let mut writer = connection.data().unwrap();
        io::copy(&mut message.as_bytes(), &mut writer).unwrap();
        writer.flush().unwrap();
        assert!(writer.finish().unwrap().is_positive());
        let received = beside.next_message().read().unwrap();
        assert_eq!(received, message.replace('\n', "\r\n").as_bytes());
    }
    connection
        .mail(Address::new("me@example.org").unwrap())
        .unwrap();
    connection
        .rcpt(Address::new("you@example.com").unwrap())
        .unwrap();
    drop(connection.data().unwrap());
    assert_eq!(connection.noop().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(beside.server.messages().len(), 2);
}

/// The iterators block on a runtime of their own, as a blocking database client may.
#[test]
fn blocking_send_all_takes_messages_from_an_iterator_that_blocks() {
    let beside = Beside::start(Server::builder());
    let messages = || {
        (0..200).map(|number| {
            let rows = runtime::Builder::new_current_thread().build().unwrap();
            rows.block_on(async { numbered(number) })
        })
    };
    let client = beside.client();
    let mut connection = client.connect().unwrap();
    assert_eq!(connection.send_all(messages()).map(is_sent).count(), 200);
    assert!(is_sent(connection.send(hello())));
    let pool = client.pool(1);
    assert_eq!(pool.send_all(messages()).map(is_sent).count(), 200);
    assert!(is_sent(pool.send(hello())));
    assert_eq!(beside.server.messages().len(), 402);
    let subjects = beside.server.messages();
    for (number, message) in subjects[..200].iter().enumerate() {
        let text = String::from_utf8(message.read().unwrap()).unwrap();
        assert!(
            text.contains(&format!("Subject: No. {number}\r\n")),
            "{text}"
        );
    }
    // Dropped before its end.
    let mut outcomes = connection.send_all(messages());
    assert!(is_sent(outcomes.next().unwrap()));
    drop(outcomes);
}

/// Returns bytes in pieces, then fails as it is told.
struct Pieces(usize, fn() -> io::Result<usize>);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return (self.1)();
        }
        let length = self.0.min(buffer.len()).min(1000);
        buffer[..length].fill(b'a');
        self.0 -= length;
        Ok(length)
    }
}

#[test]
fn messages_read_what_blocks() {
    let beside = Beside::start(Server::builder());
    let client = beside.client();
    let message = |end| {
        let reader = blocking::reader(Pieces(300_000, end));
        numbered(0).attach(Attachment::reader("a.txt", "text/plain", reader))
    };
    assert!(is_sent(client.send(message(|| Ok(0)))));
    let received = beside.next_message().read().unwrap();
    let base64 = "YWFh".repeat(19);
    let found = String::from_utf8(received)
        .unwrap()
        .matches(&base64)
        .count();
    assert_eq!(found, 300_000 / 57);

    let broken: fn() -> _ = || Err(io::Error::other("the pipe is broken"));
    for end in [broken, || panic!("in the reader")] {
        let error = client.send(message(end)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input, "{error}");
    }
    assert_eq!(beside.server.messages().len(), 1);
}

#[test]
fn blocking_and_async_types_become_each_other() {
    let beside = Beside::start(Server::builder());
    let client: envoi::Client = beside.client().into();
    assert!(is_sent(beside.runtime.block_on(client.send(hello()))));
    assert!(is_sent(Client::from(client).send(hello())));
    let endpoint = beside.client().endpoint().clone();
    let connection = Connection::connect(&endpoint).unwrap();
    assert!(format!("{connection:?}").contains("localhost"));
}

/// No socket is left to a runtime that does not run: that of blocking calls runs during such calls
/// alone, and one with a single thread within its `block_on`.
#[test]
fn a_pool_for_blocking_and_async_calls_has_connections_for_each() {
    let beside = Beside::start(Server::builder());
    let endpoint = beside.client().endpoint().clone();
    let pool = Client::new(endpoint.deadline(Duration::from_secs(10))).pool(1);
    let of_tasks = envoi::Pool::from(pool.clone());
    let own = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for _ in 0..2 {
        assert!(is_sent(pool.send(hello())));
        assert!(is_sent(pool.send(hello())));
        assert!(is_sent(own.block_on(of_tasks.send(hello()))));
        assert!(is_sent(own.block_on(of_tasks.send(hello()))));
    }
    assert_eq!(own.block_on(of_tasks.close()), 0);
    let sessions = beside.server.connections();
    let messages = |session: &Session| {
        let mails = session.commands().filter(|line| line.starts_with("MAIL"));
        mails.count()
    };
    assert_eq!(sessions.iter().map(messages).collect::<Vec<_>>(), [2; 4]);
}

/// The callback runs while the blocking call waits.
#[test]
fn blocking_calls_await_the_handover() {
    let beside = Beside::start(Server::builder().plaintext());
    let client = beside.client();
    let pool = client.pool(1);
    let mut connection = client.connect().unwrap();
    for name in ["client", "pool", "connection"] {
        let mut send = |message: Message<'static>| match name {
            "client" => client.send(message),
            "pool" => pool.send(message),
            _ => connection.send(message),
        };
        let (sender, calls) = mpsc::channel();
        let message = numbered(1).on_handover(move |handover| {
            let sent = sender.send(handover.number);
            async move {
                tokio::task::yield_now().await;
                sent
            }
        });
        let receipt = send(message).unwrap();
        assert!(receipt.handed_over, "{name}");
        assert_eq!(calls.into_iter().collect::<Vec<_>>(), [1], "{name}");
        let refused = numbered(2).on_handover(|_| async { Err("the disk is full") });
        let error = send(refused).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Handover, "{name}: {error}");
    }
    let subjects: Vec<_> = beside.server.messages();
    assert_eq!(subjects.len(), 3);
    subjects
        .iter()
        .for_each(|message| message.assert_contains("No. 1"));
}
