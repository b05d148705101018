//! The whole crate against real Postfix, Exim and Dovecot: what was delivered is read back and
//! compared byte for byte.
//!
//! Each test is `#[ignore = "needs real servers"]`, and runs with `-- --ignored`. README.md in this
//! folder describes the servers and how to install them.

#![cfg(unix)]

mod content;
mod differential;
#[cfg(feature = "dkim")]
mod dkim;
mod example;
mod failures;
mod lmtp;
mod logins;
mod memory;
mod pool;
mod prdr;
mod proxies;
mod recipients;
mod reports;
mod sendmail;
mod servers;
mod settings;
mod steps;
mod tls;
