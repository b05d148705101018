//! What must hold for any server, any message and any cut of the bytes.

mod dots;
#[cfg(feature = "testing")]
mod end_to_end;
mod plan;
mod server;
pub(crate) mod session;
mod sessions;
mod shutdown;
