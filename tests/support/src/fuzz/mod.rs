//! The checks of the fuzz targets. `fuzz/fuzz_targets` runs each under libFuzzer, and
//! `cargo test --test protocol corpus` replays what was found.

#[cfg(feature = "client")]
pub mod address;
pub mod capabilities;
#[cfg(feature = "client")]
pub mod dkim;
pub mod dot;
#[cfg(feature = "client")]
pub mod keystore;
pub mod machine;
#[cfg(feature = "client")]
pub mod message;
#[cfg(feature = "client")]
pub mod mta_sts;
pub mod reply;
pub mod server;
#[cfg(feature = "client")]
pub mod tlsa;

/// The names of all targets, in order.
pub const TARGETS: [&str; 11] = [
    "address",
    "capabilities",
    "dkim",
    "dot",
    "keystore",
    "machine",
    "message",
    "mta_sts",
    "reply",
    "server",
    "tlsa",
];

/// Returns the check of a target.
///
/// # Panics
///
/// If the target does not exist, or needs the feature `client` of this package.
pub fn check(target: &str) -> fn(&[u8]) {
    match target {
        #[cfg(feature = "client")]
        "address" => address::check,
        "capabilities" => capabilities::check,
        #[cfg(feature = "client")]
        "dkim" => dkim::check,
        "dot" => dot::check,
        #[cfg(feature = "client")]
        "keystore" => keystore::check,
        "machine" => machine::check,
        #[cfg(feature = "client")]
        "message" => message::check,
        #[cfg(feature = "client")]
        "mta_sts" => mta_sts::check,
        "reply" => reply::check,
        "server" => server::check,
        #[cfg(feature = "client")]
        "tlsa" => tlsa::check,
        target => panic!("the fuzz target {target} does not exist or is not built"),
    }
}
