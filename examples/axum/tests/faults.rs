//! The service on a socket, with a mail server that fails in the process.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use envoi::Endpoint;
use envoi::testing::{Builder, Fault, Server, Step};
use envoi_axum_example::{Limits, Service};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(10);

struct Running {
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Running {
    async fn start(mail: &Server, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = Endpoint::from_url(&mail.url()).unwrap();
        let sender = "shop@example.org".parse().unwrap();
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let shutdown = CancellationToken::new();
        let service = Service::new(endpoint, sender, limits, metrics);
        let serving = tokio::spawn(service.run(listener, shutdown.clone()));
        Running {
            address,
            shutdown,
            serving,
        }
    }

    /// Writes a request, and returns the connection.
    async fn request(&self, line: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn invite(&self, to: &str) -> (u16, Value) {
        let body = format!(r#"{{"to": "{to}"}}"#);
        response(self.request("POST /invitations", &body).await).await
    }

    async fn health(&self) -> (u16, Value) {
        response(self.request("GET /health", "").await).await
    }

    async fn until_health(&self, mail: &str) -> u16 {
        let reached = async {
            loop {
                let (status, body) = self.health().await;
                if body["mail"] == mail {
                    return status;
                }
            }
        };
        tokio::time::timeout(LONG, reached).await.unwrap()
    }

    /// Ends the service.
    async fn stop(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap().unwrap();
    }
}

async fn response(mut stream: TcpStream) -> (u16, Value) {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

async fn start(builder: Builder) -> Server {
    builder.login("shop", "secret").start().await.unwrap()
}

/// A server that waits with the reply to MAIL until it gets something.
fn waiting() -> (Builder, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (arrived, has_arrived) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let may_go_on = Mutex::new(may_go_on);
    let builder = Server::builder().answer(move |command| {
        if command.starts_with("MAIL") {
            arrived.send(()).unwrap();
            may_go_on.lock().unwrap().recv().unwrap();
        }
        None
    });
    (builder, has_arrived, go_on)
}

#[tokio::test]
async fn each_fault_of_the_mail_server_has_its_status() {
    let mail = start(Server::builder()).await;
    let limits = Limits {
        send: Duration::from_secs(2),
        ..Limits::default()
    };
    let service = Running::start(&mail, limits).await;
    assert_eq!(service.invite("bob@example.com").await.0, 200);
    for (fault, status, error) in [
        (
            Fault::reply(Step::Mail, "421 4.3.2 Shutting down"),
            503,
            "try-later",
        ),
        (
            Fault::reply(Step::Rcpt, "451 4.7.1 Greylisted"),
            503,
            "try-later",
        ),
        (
            Fault::reply(Step::Rcpt, "550 5.1.1 No such user"),
            422,
            "recipient",
        ),
        (
            Fault::reply(Step::Message, "554 5.7.1 Spam"),
            502,
            "mail-server",
        ),
        (Fault::hang(Step::Mail), 503, "try-later"),
        (Fault::hang(Step::Message), 504, "unknown"),
        (Fault::close(Step::Accepted), 504, "unknown"),
    ] {
        mail.clear_faults();
        mail.add_fault(fault.clone());
        let (found, body) = service.invite("bob@example.com").await;
        assert_eq!(
            (found, &body["error"]),
            (status, &error.into()),
            "{fault:?}"
        );
    }
    // The pool has recovered.
    mail.clear_faults();
    assert_eq!(service.invite("bob@example.com").await.0, 200);
    service.stop().await;
    assert_eq!(mail.messages().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_sent_although_the_client_disconnects() {
    let (builder, arrived, go_on) = waiting();
    let mail = start(builder).await;
    let service = Running::start(&mail, Limits::default()).await;
    assert_eq!(service.until_health("working").await, 200);
    let mut client = service
        .request("POST /invitations", r#"{"to": "bob@example.com"}"#)
        .await;
    tokio::task::block_in_place(|| arrived.recv_timeout(LONG)).unwrap();
    // The service closes its end once it has noticed.
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    // Also during a shutdown.
    service.shutdown.cancel();
    go_on.send(()).unwrap();
    service.stop().await;
    assert_eq!(mail.messages().len(), 1);
    for session in mail.connections() {
        assert_eq!(session.commands().last(), Some("QUIT"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_waits_for_open_requests() {
    let (builder, arrived, go_on) = waiting();
    let mail = start(builder).await;
    let service = Running::start(&mail, Limits::default()).await;
    assert_eq!(service.until_health("working").await, 200);
    let client = service
        .request("POST /invitations", r#"{"to": "bob@example.com"}"#)
        .await;
    tokio::task::block_in_place(|| arrived.recv_timeout(LONG)).unwrap();
    service.shutdown.cancel();
    // No further connection is accepted.
    while TcpStream::connect(service.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!service.serving.is_finished());
    go_on.send(()).unwrap();
    assert_eq!(response(client).await.0, 200);
    service.stop().await;
    for session in mail.connections() {
        assert_eq!(session.commands().last(), Some("QUIT"));
    }
}

#[tokio::test]
async fn health_is_checked_in_the_background() {
    let mail = start(Server::builder()).await;
    let service = Running::start(&mail, Limits::default()).await;
    assert_eq!(service.until_health("working").await, 200);
    for _ in 0..100 {
        assert_eq!(service.health().await.0, 200);
    }
    // One connection, one login.
    assert_eq!(mail.connections().len(), 1);
    service.stop().await;
}

#[tokio::test]
async fn health_follows_the_mail_server() {
    let mail = start(Server::builder()).await;
    let limits = Limits {
        check_every: Duration::from_millis(10),
        ..Limits::default()
    };
    let service = Running::start(&mail, limits).await;
    assert_eq!(service.until_health("working").await, 200);
    for step in [Step::Noop, Step::Greeting] {
        mail.add_fault(Fault::reply(step, "421 4.3.2 Shutting down"));
    }
    assert_eq!(service.until_health("failing").await, 503);
    mail.clear_faults();
    assert_eq!(service.until_health("working").await, 200);
    service.stop().await;
}
