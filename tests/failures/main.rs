//! What people read when it does not work: every failure here happens on a real connection, and its
//! whole text is pinned in `snapshots/`. After a change of words,
//! `UPDATE_SNAPSHOTS=1 cargo test --test failures` writes them anew: read the difference.

mod case;
mod certificates;
mod connecting;
mod extensions;
mod handshake;
mod lmtp;
mod login;
mod messages;
mod policy;
mod proxies;
mod servers;
