//! What the feature `metrics` records, as Prometheus would read it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use envoi::mail_builder::MessageBuilder;
use envoi::mail_builder::headers::address::Address;
use envoi::testing::{Fault, Server, Step};
use envoi::tls::Security;
use envoi::{
    Client, Connection, Endpoint, Error, Failover, FailoverServer, Message, RetryPolicy,
    describe_metrics,
};
use futures::{Stream as _, StreamExt as _};
use metrics::LocalRecorderGuard;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The metrics of this thread until the guard is dropped.
fn record() -> (PrometheusHandle, LocalRecorderGuard<'static>) {
    let recorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
    let handle = recorder.handle();
    (handle, metrics::set_default_local_recorder(recorder))
}

/// The value of the metric with this name and labels, which are in any order.
fn value(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let wanted: BTreeSet<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}=\"{value}\""))
        .collect();
    text.lines().find_map(|line| {
        let (metric, value) = line.rsplit_once(' ')?;
        let (found, labels) = metric.strip_suffix('}')?.split_once('{')?;
        let labels: BTreeSet<String> = labels.split(',').map(str::to_owned).collect();
        (found == name && labels == wanted).then(|| value.parse().unwrap())
    })
}

/// The name, the labels and the value of a metric.
type Expected<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

#[track_caller]
fn assert_values(text: &str, expected: &[Expected<'_>]) {
    for (name, labels, expected) in expected {
        let found = value(text, name, labels);
        assert_eq!(found, Some(*expected), "{name} {labels:?} in:\n{text}");
    }
}

fn mail(to: impl Into<Address<'static>>) -> Message<'static> {
    let mail = MessageBuilder::new()
        .from("me@example.org")
        .to(to)
        .text_body("Hello.");
    Message::from(mail)
}

const HOST: (&str, &str) = ("host", "localhost");

#[tokio::test]
async fn messages_recipients_and_steps_are_counted_by_outcome() {
    let (metrics, _recording) = record();
    let server = Server::builder()
        .login("alice", "secret")
        .refuse_recipient("gone@example.com", "550 5.1.1 No such user")
        .refuse_recipient("full@example.com", "452 4.2.2 Full")
        .start()
        .await
        .unwrap();
    let client = Client::from_url(&server.url()).unwrap();

    let pool = client.pool(1);
    let receipt = pool.send(mail("you@example.com")).await.unwrap();
    let both = mail(vec!["you@example.com", "gone@example.com"]);
    let partial = pool.send(both).await.unwrap();
    assert!(!partial.all_accepted());
    pool.send(mail("gone@example.com")).await.unwrap_err();
    pool.send(mail("full@example.com")).await.unwrap_err();
    let text = metrics.render();
    assert_values(
        &text,
        &[
            (
                "envoi_messages_total",
                &[HOST, ("outcome", "accepted")],
                1.0,
            ),
            ("envoi_messages_total", &[HOST, ("outcome", "partial")], 1.0),
            (
                "envoi_messages_total",
                &[HOST, ("outcome", "permanent")],
                1.0,
            ),
            (
                "envoi_messages_total",
                &[HOST, ("outcome", "transient")],
                1.0,
            ),
            (
                "envoi_recipients_total",
                &[HOST, ("outcome", "accepted")],
                2.0,
            ),
            (
                "envoi_recipients_total",
                &[HOST, ("outcome", "refused")],
                3.0,
            ),
            (
                "envoi_message_bytes_total",
                &[HOST],
                (receipt.bytes + partial.bytes) as f64,
            ),
            ("envoi_sends_in_progress", &[HOST], 0.0),
            ("envoi_open_connections", &[HOST], 1.0),
        ],
    );
    for (step, result, count) in [
        ("connect", "ok", 1.0),
        ("tls", "ok", 1.0),
        ("login", "ok", 1.0),
        ("pool_wait", "ok", 4.0),
        ("submit", "ok", 2.0),
        ("submit", "refused", 2.0),
        ("send", "ok", 2.0),
        ("send", "refused", 2.0),
    ] {
        let labels = [HOST, ("step", step), ("result", result)];
        assert_values(&text, &[("envoi_step_seconds_count", &labels, count)]);
    }
    // One for each reply that is waited for, and none for the commands before it.
    for (phase, waits) in [
        ("connect", 1.0),
        ("tls", 1.0),
        ("greeting", 1.0),
        ("ehlo", 2.0),
        ("starttls", 1.0),
        ("auth", 1.0),
        ("mail", 4.0),
        ("end-of-data", 2.0),
    ] {
        let labels = [("phase", phase)];
        assert_values(&text, &[("envoi_wait_seconds_count", &labels, waits)]);
    }
    pool.close().await;
    assert_values(
        &metrics.render(),
        &[("envoi_open_connections", &[HOST], 0.0)],
    );
}

#[tokio::test]
async fn a_reply_in_pieces_is_one_wait_and_one_that_does_not_come_is_one_too() {
    let (metrics, _recording) = record();
    // Each read returns a single byte.
    let (client, mut server) = tokio::io::duplex(1);
    let endpoint = Endpoint::new("localhost").security(Security::None);
    let (connection, ()) = tokio::join!(Connection::from_stream(client, &endpoint), async {
        server
            .write_all(b"220-mail\r\n220 .example.org\r\n")
            .await
            .unwrap();
        let mut command = [0; 4];
        server.read_exact(&mut command).await.unwrap();
        drop(server);
    },);
    connection.unwrap_err();
    for phase in ["greeting", "ehlo"] {
        let waits = ("envoi_wait_seconds_count", &[("phase", phase)][..], 1.0);
        assert_values(&metrics.render(), &[waits]);
    }
}

#[tokio::test]
async fn each_way_to_send_counts_a_message_once() {
    let (metrics, _recording) = record();
    let server = Server::start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let accepted = |count| {
        let labels = [HOST, ("outcome", "accepted")];
        assert_values(
            &metrics.render(),
            &[
                ("envoi_messages_total", &labels, count),
                ("envoi_recipients_total", &labels, count),
            ],
        );
    };

    let _ = client.send(mail("you@example.com")).await.unwrap();
    accepted(1.0);
    let mut connection: Connection = client.connect().await.unwrap();
    let _ = connection.send(mail("you@example.com")).await.unwrap();
    accepted(2.0);
    let three = || futures::stream::iter((0..3).map(|_| mail("you@example.com")));
    let sent: Vec<_> = connection.send_all(three()).collect().await;
    assert!(sent.iter().all(Result::is_ok));
    accepted(5.0);
    let pool = client.pool(1);
    let sent: Vec<_> = pool.send_all(three()).collect().await;
    assert!(sent.iter().all(Result::is_ok));
    accepted(8.0);
    let failover = Failover::new([client.into()]);
    let _ = failover.send(mail("you@example.com")).await.unwrap();
    accepted(9.0);
    let mut service = tower::ServiceExt::<Message<'static>>::ready_oneshot(pool)
        .await
        .unwrap();
    let _ = tower::Service::call(&mut service, mail("you@example.com"))
        .await
        .unwrap();
    accepted(10.0);
}

#[tokio::test(start_paused = true)]
async fn retries_are_counted_and_the_message_once() {
    let (metrics, _recording) = record();
    let server = Server::builder()
        .refuse_recipient("full@example.com", "452 4.2.2 Full")
        .start()
        .await
        .unwrap();
    let client = Client::from_url(&server.url())
        .unwrap()
        .retries(RetryPolicy::new(2));
    client.send(mail("full@example.com")).await.unwrap_err();
    assert_values(
        &metrics.render(),
        &[
            ("envoi_retries_total", &[HOST], 2.0),
            (
                "envoi_messages_total",
                &[HOST, ("outcome", "transient")],
                1.0,
            ),
            (
                "envoi_recipients_total",
                &[HOST, ("outcome", "refused")],
                1.0,
            ),
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn callbacks_before_the_end_of_a_message_are_measured() {
    let (metrics, _recording) = record();
    let server = Server::builder().plaintext().start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let message = |permission: fn() -> Result<(), &'static str>| {
        mail("you@example.com").on_handover(move |_| async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            permission()
        })
    };
    for _ in 0..2 {
        let sent = client.send(message(|| Ok(()))).await;
        assert!(sent.unwrap().handed_over);
    }
    let refused = client.send(message(|| Err("the disk is full"))).await;
    assert!(refused.is_err());
    // Without a callback, nothing is measured.
    assert!(client.send(mail("you@example.com")).await.is_ok());
    let text = metrics.render();
    for (result, count) in [("ok", 2.0), ("hand-over", 1.0)] {
        let labels = [("result", result)];
        let name = "envoi_handover_seconds";
        assert_values(&text, &[(&format!("{name}_count"), &labels, count)]);
        let seconds = value(&text, &format!("{name}_sum"), &labels).unwrap();
        assert!((seconds - 2.0 * count).abs() < 0.5, "{seconds}");
    }
}

#[tokio::test]
async fn a_dropped_call_is_counted() {
    let (metrics, _recording) = record();
    let server = Server::start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    {
        let mut context = Context::from_waker(Waker::noop());
        let mut sending = pin!(client.send(mail("you@example.com")));
        assert!(sending.as_mut().poll(&mut context).is_pending());
        assert_values(
            &metrics.render(),
            &[("envoi_sends_in_progress", &[HOST], 1.0)],
        );
    }
    assert_values(
        &metrics.render(),
        &[
            ("envoi_sends_in_progress", &[HOST], 0.0),
            ("envoi_messages_total", &[HOST, ("outcome", "dropped")], 1.0),
        ],
    );
}

#[tokio::test]
async fn the_messages_of_a_dropped_stream_are_counted() {
    let (metrics, _recording) = record();
    let server = Server::builder()
        .offer("CHUNKING")
        .fault(Fault::hang(Step::Message).after(2))
        .start()
        .await
        .unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let mut connection = client.connect().await.unwrap();
    {
        let taken = Cell::new(0);
        let four = futures::stream::iter(0..4).map(|_| {
            taken.set(taken.get() + 1);
            mail("you@example.com")
        });
        let mut sending = pin!(connection.send_all(four));
        for _ in 0..2 {
            assert!(sending.next().await.unwrap().is_ok());
        }
        let mut context = Context::from_waker(Waker::noop());
        while taken.get() < 4 {
            assert!(sending.as_mut().poll_next(&mut context).is_pending());
            tokio::task::yield_now().await;
        }
    }
    let text = metrics.render();
    let dropped = [HOST, ("outcome", "dropped")];
    let steps = [HOST, ("step", "send"), ("result", "dropped")];
    assert_values(
        &text,
        &[
            (
                "envoi_messages_total",
                &[HOST, ("outcome", "accepted")],
                2.0,
            ),
            ("envoi_messages_total", &dropped, 2.0),
            ("envoi_step_seconds_count", &steps, 2.0),
        ],
    );
}

#[tokio::test]
async fn outcomes_that_a_dropped_stream_did_not_return_are_counted() {
    let (metrics, _recording) = record();
    let server = Server::builder()
        .offer("CHUNKING")
        .fault(Fault::close(Step::Message).after(1))
        .start()
        .await
        .unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let mut connection = client.connect().await.unwrap();
    let taken = Cell::new(0);
    let five = futures::stream::iter(0..5).map(|_| {
        taken.set(taken.get() + 1);
        mail("you@example.com")
    });
    let results: Vec<_> = connection.send_all(five).take(2).collect().await;
    assert!(results[0].is_ok() && results[1].is_err());
    // The connection was lost, so the others that were taken have an outcome, too.
    let text = metrics.render();
    let counted = ["accepted", "unknown", "transient", "dropped"].map(|outcome| {
        let labels = [HOST, ("outcome", outcome)];
        value(&text, "envoi_messages_total", &labels).unwrap_or_default()
    });
    assert_eq!(
        counted.iter().sum::<f64>(),
        f64::from(taken.get()),
        "{text}"
    );
    assert_eq!((counted[0], counted[3]), (1.0, 0.0), "{text}");
}

#[tokio::test]
async fn a_full_pool_and_a_paused_server_are_visible() {
    let (metrics, _recording) = record();
    let server = Server::start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let mut config = envoi::PoolConfig::new(1);
    config.acquire_timeout = Duration::ZERO;
    let pool = client.pool(config);
    let held = pool.get().await.unwrap();
    pool.send(mail("you@example.com")).await.unwrap_err();
    let waits = [HOST, ("step", "pool_wait"), ("result", "timeout")];
    assert_values(
        &metrics.render(),
        &[("envoi_step_seconds_count", &waits, 1.0)],
    );
    drop(held);

    let refusing = |url: &str| FailoverServer::from(Client::from_url(url).unwrap());
    let failover = Failover::new([refusing("smtp://127.0.0.1:1?tls=none")]);
    for _ in 0..3 {
        failover.send(mail("you@example.com")).await.unwrap_err();
    }
    let host = [("host", "127.0.0.1")];
    assert_values(&metrics.render(), &[("envoi_server_paused", &host, 1.0)]);

    // One server of two with the same host.
    let failover = Failover::new([refusing("smtp://localhost:1?tls=none"), client.into()]);
    for _ in 0..3 {
        let _ = failover.send(mail("you@example.com")).await.unwrap();
    }
    let host = [("host", "localhost:1")];
    assert_values(&metrics.render(), &[("envoi_server_paused", &host, 1.0)]);
}

#[tokio::test]
async fn the_guide_lists_all_metrics() {
    let (metrics, _recording) = record();
    describe_metrics();
    let guide = include_str!("../../docs/observability.md");
    let listed: BTreeSet<&str> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("| `envoi_")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(listed.len(), 10);
    // Every metric that appears when messages are sent has its description, and its line.
    let server = Server::start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let message = mail("you@example.com").on_handover(|_| async { Ok::<_, Error>(()) });
    let _ = client.send(message).await.unwrap();
    let text = metrics.render();
    for kind in text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE envoi_"))
    {
        let (name, _) = kind.split_once(' ').unwrap();
        assert!(
            listed.contains(name),
            "{name} is not in docs/observability.md"
        );
        assert!(
            text.contains(&format!("# HELP envoi_{name} ")),
            "{name}:\n{text}"
        );
    }
}
