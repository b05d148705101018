//! envoi under attack: a hostile server, a bad network, a careless caller. Nothing gets through, nothing is lost.
//!
//! Each file is about one promise (SECURITY.md), and each case in it is an attack that has a name or breaks a section of an RFC. All is in
//! memory on a paused clock, or on the loopback interface where the system itself is to be asked. What a single bad
//! reply leads to is in tests/dialogues and tests/failures.
//!
//! Each guard was taken out by hand, and a case fell:
//!
//! | Taken out | Fell |
//! |---|---|
//! | limits on a line, on a reply, on its lines, on challenges | `limits`, `memory` |
//! | the look at bytes behind the go-ahead for TLS; TLS that is required; the one STARTTLS; protection for a login | `starttls` |
//! | control characters in addresses and commands; line breaks, and addresses that end early, in headers; NUL and \x01 in logins; the host | `injection` |
//! | the violation by a reply that nobody asked for; the look at what is unread before a command; a reply that is cut off | `order` |
//! | the unknown outcome | `once`, `network`, `order`, `limits`, `starttls` |
//! | what became of the others in a window | `once`, `network` |
//! | the mark of a call that was given up | `cancel`, `pool` |
//! | secrets taken out of replies, and out of what is no reply | `secrets` |
//! | the wiping of secrets, and of the lines they go in | `memory` |
//! | one limit for a reply, however many reads it takes | `limits` |

mod cancel;
mod cancel_client;
mod injection;
mod limits;
#[path = "../support/log.rs"]
mod log;
#[cfg(target_os = "linux")]
mod memory;
mod network;
mod office;
mod once;
mod order;
mod pool;
mod proxies;
mod script;
mod secrets;
mod smuggling;
mod starttls;
