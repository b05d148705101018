//! What must hold for any server, any message and any cut of the bytes.

mod arrival;
mod dots;
mod parts;
mod plan;
mod server;
mod session;
mod sessions;
