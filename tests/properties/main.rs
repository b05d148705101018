//! What must hold for any server, any message and any cut of the bytes.

#[cfg(feature = "testing")]
mod arrival;
mod dots;
#[cfg(feature = "testing")]
mod parts;
mod plan;
mod server;
mod session;
mod sessions;
mod shutdown;
