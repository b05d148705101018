//! The metrics, for the recorder of the program.

use std::time::Duration;

use metrics::{
    SharedString, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use super::recipient_outcome;
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
}

pub(super) fn message(host: &str, outcome: &'static str, receipt: Option<&Receipt>) {
    let host = SharedString::from(host.to_owned());
    counter!(MESSAGES, "host" => host.clone(), "outcome" => outcome).increment(1);
    let Some(receipt) = receipt else {
        return;
    };
    counter!(MESSAGE_BYTES, "host" => host.clone()).increment(receipt.bytes);
    for recipient in &receipt.recipients {
        let outcome = recipient_outcome(recipient);
        counter!(RECIPIENTS, "host" => host.clone(), "outcome" => outcome).increment(1);
    }
}

pub(super) fn step(step: &'static str, host: &str, result: &'static str, elapsed: Duration) {
    histogram!(STEP_SECONDS, "step" => step, "host" => host.to_owned(), "result" => result)
        .record(elapsed);
}

pub(super) fn waited(phase: Phase, waited: Duration) {
    histogram!(WAIT_SECONDS, "phase" => phase.as_str()).record(waited);
}

#[cfg(feature = "retries")]
pub(super) fn retried(host: &str) {
    counter!(RETRIES, "host" => host.to_owned()).increment(1);
}

pub(super) fn send_started(host: &str) {
    gauge!(SENDS_IN_PROGRESS, "host" => host.to_owned()).increment(1);
}

pub(super) fn send_ended(host: &str) {
    gauge!(SENDS_IN_PROGRESS, "host" => host.to_owned()).decrement(1);
}

#[cfg(feature = "failover")]
pub(super) fn paused(host: &str, is_paused: bool) {
    let value = if is_paused { 1.0 } else { 0.0 };
    gauge!(SERVER_PAUSED, "host" => host.to_owned()).set(value);
}

/// A connection, counted until it is dropped.
pub(crate) struct OpenConnection {
    host: String,
}

impl OpenConnection {
    pub(crate) fn new(host: String) -> Self {
        gauge!(OPEN_CONNECTIONS, "host" => host.clone()).increment(1);
        OpenConnection { host }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        gauge!(OPEN_CONNECTIONS, "host" => self.host.clone()).decrement(1);
    }
}
