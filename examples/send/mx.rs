//! `--mx`: to the servers of each recipient's domain.

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
        Some(address) => address
            .parse()
            .map_err(|error| Failure::from(error).of("--resolver"))?,
        None => Resolver::system()?,
    };
    if let Some(path) = &options.dnssec_anchor {
        resolver = resolver
            .anchor_file(path)
            .map_err(|error| Failure::from(error).of("--dnssec-anchor"))?;
    }
    if options.timeout.is_some() {
        resolver = resolver.timeout(endpoint.get_timeouts().connect);
    }
    Ok(resolver)
}
