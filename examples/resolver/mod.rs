//! The resolver of the options, for the examples `send` and `probe`.

use std::path::Path;
use std::time::Duration;

use envoi::mx::Resolver;

use crate::report::Failure;

/// The resolver at this address, else that of the system; with the anchors in this file, else those
/// of the root; and with this time-out for each lookup.
pub fn open(
    address: Option<&str>,
    anchors: Option<&Path>,
    timeout: Option<Duration>,
) -> Result<Resolver, Failure> {
    let mut resolver = match address {
        Some(address) => address
            .parse()
            .map_err(|error| Failure::from(error).of("--resolver"))?,
        None => Resolver::system()?,
    };
    if let Some(path) = anchors {
        resolver = resolver
            .anchor_file(path)
            .map_err(|error| Failure::from(error).of("--dnssec-anchor"))?;
    }
    Ok(match timeout {
        Some(timeout) => resolver.timeout(timeout),
        None => resolver,
    })
}
