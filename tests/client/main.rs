//! The client through its public API, against servers inside the process.

#[cfg(feature = "testing")]
mod connection;
#[cfg(feature = "testing")]
mod data_writer;
#[cfg(feature = "testing")]
mod dialogues;
#[cfg(feature = "testing")]
mod end_to_end;
#[cfg(all(feature = "pool", feature = "testing"))]
mod limits;
#[cfg(feature = "testing")]
mod lmtp;
#[cfg(feature = "testing")]
mod login;
mod message;
#[cfg(feature = "testing")]
mod partial_sends;
#[cfg(all(feature = "pool", feature = "retries", feature = "testing"))]
mod pool;
#[cfg(all(feature = "retries", feature = "testing"))]
mod retries;
#[cfg(feature = "testing")]
mod round_trips;
#[cfg(feature = "testing")]
mod scripted_server;
#[cfg(all(feature = "pool", feature = "testing"))]
mod stream;
mod timeouts;
#[cfg(all(feature = "testing", feature = "tracing"))]
mod tracing;
#[cfg(all(feature = "proxy", feature = "testing"))]
mod transport;
