//! `--mx`: to the servers of each recipient's domain.

use std::net::{IpAddr, SocketAddr};

use envoi::mx::mta_sts::PolicyCache;
use envoi::mx::{MxClient, Resolver};
use envoi::{Endpoint, Message};

use crate::options::{Options, is_on};
use crate::report::{Delivery, Failure, Success};

/// The client of the options, without the settings of its connections.
pub fn client(options: &Options, endpoint: &Endpoint) -> Result<MxClient, Failure> {
    let dane = is_on(options.dane.as_deref(), "--dane")?;
    let mta_sts = is_on(options.mta_sts.as_deref(), "--mta-sts")?;
    let mut client = MxClient::new(resolver(options, endpoint)?)
        .dane(dane)
        .mta_sts(mta_sts);
    if let Some(folder) = &options.state {
        client = client.policy_cache(PolicyCache::in_folder(folder)?);
    }
    if options.timeout.is_some() {
        client = client.policy_timeout(endpoint.get_timeouts().connect);
    }
    Ok(client)
}

pub async fn send(client: MxClient, message: Message<'_>) -> Result<Success, Failure> {
    let receipt = client.send(message).await?;
    if receipt.all_accepted() {
        // Waits for the answers to QUIT, for a moment.
        client.close().await;
    }
    Ok(Success::Delivered(Box::new(Delivery::from(receipt))))
}

fn resolver(options: &Options, endpoint: &Endpoint) -> Result<Resolver, Failure> {
    let mut resolver = match &options.resolver {
        Some(text) => Resolver::new(address(text)?),
        None => Resolver::system()?,
    };
    if let Some(path) = &options.dnssec_anchor {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::config(format!(
                "the file of --dnssec-anchor cannot be read: {error}"
            ))
        })?;
        resolver = resolver.anchors(&text)?;
    }
    if options.timeout.is_some() {
        resolver = resolver.timeout(endpoint.get_timeouts().connect);
    }
    Ok(resolver)
}

/// `192.0.2.53:53` or `[2001:db8::53]:53`; the port may be left out.
fn address(text: &str) -> Result<SocketAddr, Failure> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let host = || bare.unwrap_or(text).parse::<IpAddr>().ok();
    text.parse()
        .ok()
        .or_else(|| host().map(|host| SocketAddr::new(host, 53)))
        .ok_or_else(|| {
            Failure::request("--resolver takes an IP address and a port")
                .with_hint("For example 127.0.0.1:53 or [::1]:53.")
        })
}
