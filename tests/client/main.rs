//! The client through its public API, against servers inside the process.

#[cfg(all(
    feature = "aws-lc-rs",
    feature = "blocking",
    feature = "pool",
    feature = "testing"
))]
mod blocking;
#[cfg(all(feature = "aws-lc-rs", feature = "pool", feature = "testing"))]
mod bulk;
#[cfg(all(feature = "aws-lc-rs", feature = "testing"))]
mod check;
#[cfg(all(feature = "aws-lc-rs", feature = "testing"))]
mod connection;
#[cfg(all(feature = "aws-lc-rs", feature = "serde", feature = "testing"))]
mod data;
#[cfg(all(feature = "aws-lc-rs", feature = "testing"))]
mod data_writer;
#[cfg(all(feature = "aws-lc-rs", feature = "testing"))]
mod dialogues;
#[cfg(all(feature = "aws-lc-rs", feature = "dkim", feature = "testing"))]
mod dkim;
#[cfg(all(feature = "aws-lc-rs", feature = "testing"))]
mod end_to_end;
#[cfg(all(
    feature = "aws-lc-rs",
    feature = "failover",
    feature = "pool",
    feature = "testing"
))]
mod failover;
#[cfg(all(
    feature = "aws-lc-rs",
    feature = "pool",
    feature = "retries",
    feature = "testing"
))]
mod handover;
#[cfg(all(
    feature = "aws-lc-rs",
    feature = "pool",
    feature = "retries",
    feature = "testing"
))]
mod interruptions;
#[cfg(all(feature = "aws-lc-rs", feature = "pool", feature = "testing"))]
mod limits;
#[cfg(all(feature = "aws-lc-rs", feature = "testing"))]
mod lmtp;
#[cfg(all(feature = "aws-lc-rs", feature = "testing"))]
mod login;
#[cfg(all(
    feature = "aws-lc-rs",
    feature = "directory",
    feature = "pool",
    feature = "testing"
))]
mod mailers;
mod message;
#[cfg(all(
    feature = "aws-lc-rs",
    feature = "failover",
    feature = "metrics",
    feature = "pool",
    feature = "testing",
    feature = "tower"
))]
mod metrics;
#[cfg(all(feature = "aws-lc-rs", feature = "mx"))]
mod mta_sts;
#[cfg(all(feature = "aws-lc-rs", feature = "testing"))]
mod partial_sends;
#[cfg(all(
    feature = "aws-lc-rs",
    feature = "pool",
    feature = "retries",
    feature = "testing"
))]
mod pool;
#[cfg(all(
    feature = "aws-lc-rs",
    feature = "blocking",
    feature = "failover",
    feature = "pool",
    feature = "testing",
    feature = "tower"
))]
mod prepared;
#[cfg(all(
    feature = "aws-lc-rs",
    feature = "pool",
    feature = "rate-limit",
    feature = "testing"
))]
mod rates;
#[cfg(all(feature = "aws-lc-rs", feature = "testing"))]
mod raw_file;
#[cfg(all(feature = "aws-lc-rs", feature = "retries", feature = "testing"))]
mod retries;
#[cfg(all(feature = "aws-lc-rs", feature = "testing"))]
mod round_trips;
#[cfg(all(feature = "aws-lc-rs", feature = "testing"))]
mod scripted_server;
#[cfg(all(feature = "sendmail", unix))]
mod sendmail;
#[cfg(all(
    feature = "directory",
    feature = "failover",
    feature = "pool",
    feature = "rate-limit",
    feature = "sendmail",
    feature = "testing",
    unix
))]
mod spawnable;
#[cfg(all(feature = "aws-lc-rs", feature = "pool", feature = "testing"))]
mod stream;
#[cfg(all(feature = "aws-lc-rs", feature = "testing"))]
mod timeouts;
#[cfg(all(
    feature = "aws-lc-rs",
    feature = "pool",
    feature = "testing",
    feature = "tower"
))]
mod tower;
#[cfg(all(feature = "aws-lc-rs", feature = "testing", feature = "tracing"))]
mod tracing;
#[cfg(all(feature = "aws-lc-rs", feature = "proxy", feature = "testing"))]
mod transport;
