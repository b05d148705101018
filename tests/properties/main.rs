//! What must hold for any server, any message and any cut of the bytes.

mod arrival;
mod dots;
mod parts;
mod session;
mod sessions;
