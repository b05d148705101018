//! What must hold for any server, any message and any split of the bytes.

mod dots;
mod plan;
mod server;
mod sessions;
mod shutdown;
mod windows;
