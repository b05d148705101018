//! The metrics, for the recorder of the program.
//!
//! The recorder is asked for each metric each time, as it may be installed after a client was made.
//! Keys take allocations, so those that nearly each message needs are made once for a host.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Key, Label, Level, Metadata, SharedString, Unit, describe_counter,
    describe_gauge, describe_histogram, with_recorder,
};

use super::{Host, recipient_outcome};
use crate::proto::Phase;
use crate::receipt::Receipt;

const MESSAGES: &str = "envoi_messages_total";
const RECIPIENTS: &str = "envoi_recipients_total";
const MESSAGE_BYTES: &str = "envoi_message_bytes_total";
const RETRIES: &str = "envoi_retries_total";
const SENDS_IN_PROGRESS: &str = "envoi_sends_in_progress";
const OPEN_CONNECTIONS: &str = "envoi_open_connections";
const SERVER_PAUSED: &str = "envoi_server_paused";
const STEP_SECONDS: &str = "envoi_step_seconds";
const WAIT_SECONDS: &str = "envoi_wait_seconds";
const HANDOVER_SECONDS: &str = "envoi_handover_seconds";

static METADATA: Metadata<'static> = Metadata::new("envoi", Level::INFO, Some(module_path!()));

/// The steps of most messages and connections, whose result is mostly `ok`.
const STEPS: [&str; 7] = [
    "send",
    "rate_wait",
    "pool_wait",
    "connect",
    "tls",
    "login",
    "submit",
];

/// Describes all metrics to the recorder that is installed (feature `metrics`): an exporter shows
/// the texts, such as Prometheus's HELP. Metrics are recorded without it, too.
/// [`guide::observability`](crate::guide::observability) lists them.
///
/// ```
/// // After the recorder was installed:
/// envoi::describe_metrics();
/// ```
pub fn describe_metrics() {
    describe_counter!(MESSAGES, Unit::Count, "Messages, by their outcome");
    describe_counter!(RECIPIENTS, Unit::Count, "Recipients, by their outcome");
    describe_counter!(
        MESSAGE_BYTES,
        Unit::Bytes,
        "Bytes of messages that were sent"
    );
    describe_counter!(
        RETRIES,
        Unit::Count,
        "Further attempts after transient failures"
    );
    describe_gauge!(
        SENDS_IN_PROGRESS,
        Unit::Count,
        "Calls that are sending a message"
    );
    describe_gauge!(OPEN_CONNECTIONS, Unit::Count, "Connections that are open");
    describe_gauge!(
        SERVER_PAUSED,
        Unit::Count,
        "1 while the server is paused after failures"
    );
    describe_histogram!(
        STEP_SECONDS,
        Unit::Seconds,
        "The duration of a step, by its result"
    );
    describe_histogram!(
        WAIT_SECONDS,
        Unit::Seconds,
        "Waits for the server, by phase"
    );
    describe_histogram!(
        HANDOVER_SECONDS,
        Unit::Seconds,
        "The duration of a callback before the end of a message, by its result"
    );
}

/// The keys of a host for what happens most, made when they are first needed.
#[derive(Default)]
pub(super) struct Keys {
    accepted_messages: OnceLock<Key>,
    accepted_recipients: OnceLock<Key>,
    message_bytes: OnceLock<Key>,
    sends_in_progress: OnceLock<Key>,
    open_connections: OnceLock<Key>,
    /// Of [`STEPS`], with the result `ok`.
    steps: [OnceLock<Key>; STEPS.len()],
}

impl Host {
    fn messages(&self, outcome: &'static str) -> Cow<'_, Key> {
        let kept = (outcome == "accepted").then_some(&self.0.keys.accepted_messages);
        self.kept_or_new(kept, MESSAGES, &[("outcome", outcome)])
    }

    fn recipients(&self, outcome: &'static str) -> Cow<'_, Key> {
        let kept = (outcome == "accepted").then_some(&self.0.keys.accepted_recipients);
        self.kept_or_new(kept, RECIPIENTS, &[("outcome", outcome)])
    }

    fn step(&self, step: &'static str, result: &'static str) -> Cow<'_, Key> {
        let place = STEPS.iter().position(|known| *known == step);
        let place = place.filter(|_| result == "ok");
        let kept = place.map(|place| &self.0.keys.steps[place]);
        self.kept_or_new(kept, STEP_SECONDS, &[("step", step), ("result", result)])
    }

    fn kept_or_new<'a>(
        &self,
        kept: Option<&'a OnceLock<Key>>,
        name: &'static str,
        labels: &[(&'static str, &'static str)],
    ) -> Cow<'a, Key> {
        match kept {
            Some(kept) => Cow::Borrowed(kept.get_or_init(|| self.key(name, labels))),
            None => Cow::Owned(self.key(name, labels)),
        }
    }

    fn key(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
        let host = Label::new("host", SharedString::from(self.0.name.clone()));
        let labels = labels.iter().map(|(name, value)| Label::new(*name, *value));
        Key::from_parts(name, labels.chain([host]).collect::<Vec<_>>())
    }

    fn message_bytes(&self) -> &Key {
        let kept = &self.0.keys.message_bytes;
        kept.get_or_init(|| self.key(MESSAGE_BYTES, &[]))
    }

    fn sends_in_progress(&self) -> &Key {
        let kept = &self.0.keys.sends_in_progress;
        kept.get_or_init(|| self.key(SENDS_IN_PROGRESS, &[]))
    }

    fn open_connections(&self) -> &Key {
        let kept = &self.0.keys.open_connections;
        kept.get_or_init(|| self.key(OPEN_CONNECTIONS, &[]))
    }
}

fn counter(key: &Key) -> Counter {
    with_recorder(|recorder| recorder.register_counter(key, &METADATA))
}

fn gauge(key: &Key) -> Gauge {
    with_recorder(|recorder| recorder.register_gauge(key, &METADATA))
}

fn histogram(key: &Key) -> Histogram {
    with_recorder(|recorder| recorder.register_histogram(key, &METADATA))
}

pub(super) fn message(host: &Host, outcome: &'static str, receipt: Option<&Receipt>) {
    counter(&host.messages(outcome)).increment(1);
    let Some(receipt) = receipt else {
        return;
    };
    counter(host.message_bytes()).increment(receipt.bytes);
    for recipient in &receipt.recipients {
        counter(&host.recipients(recipient_outcome(recipient))).increment(1);
    }
}

pub(super) fn step(step: &'static str, host: &Host, result: &'static str, elapsed: Duration) {
    histogram(&host.step(step, result)).record(elapsed);
}

pub(super) fn waited(phase: Phase, waited: Duration) {
    histogram(wait_key(phase)).record(waited);
}

pub(super) fn handover(result: &'static str, elapsed: Duration) {
    metrics::histogram!(HANDOVER_SECONDS, "result" => result).record(elapsed);
}

fn wait_key(phase: Phase) -> &'static Key {
    macro_rules! keys {
        ($($phase:ident),*) => {
            match phase {
                $(Phase::$phase => {
                    const WORD: &str = Phase::$phase.as_str();
                    static LABELS: [Label; 1] = [Label::from_static_parts("phase", WORD)];
                    static KEY: Key = Key::from_static_parts(WAIT_SECONDS, &LABELS);
                    &KEY
                })*
            }
        };
    }
    keys!(
        Setup, Connect, Tls, Greeting, Hello, StartTls, Auth, Mail, Rcpt, Data, Body, Handover,
        EndOfData, Reset, Noop, Command, Quit
    )
}

#[cfg(feature = "retries")]
pub(super) fn retried(host: &str) {
    metrics::counter!(RETRIES, "host" => host.to_owned()).increment(1);
}

pub(super) fn send_started(host: &Host) {
    gauge(host.sends_in_progress()).increment(1);
}

pub(super) fn send_ended(host: &Host) {
    gauge(host.sends_in_progress()).decrement(1);
}

#[cfg(feature = "failover")]
pub(super) fn paused(host: &str, is_paused: bool) {
    let value = if is_paused { 1.0 } else { 0.0 };
    metrics::gauge!(SERVER_PAUSED, "host" => host.to_owned()).set(value);
}

/// A connection, counted until it is dropped.
pub(crate) struct OpenConnection {
    host: Host,
}

impl OpenConnection {
    pub(crate) fn new(host: Host) -> Self {
        gauge(host.open_connections()).increment(1);
        OpenConnection { host }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        gauge(self.host.open_connections()).decrement(1);
    }
}
