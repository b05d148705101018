//! What must hold for any server, any message and any split of the bytes.

mod dots;
mod plan;
mod server;
mod sessions;
mod shutdown;
#[cfg(all(feature = "keystores", feature = "mx"))]
mod tlsa;
mod windows;
