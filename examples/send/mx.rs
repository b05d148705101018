//! `--mx`: to the servers of each recipient's domain.

use envoi::mx::MxClient;
use envoi::mx::mta_sts::PolicyCache;
use envoi::{Endpoint, Message};

use crate::options::{Options, is_on};
use crate::report::{Delivery, Failure, Success};
use crate::resolver;

/// The client of the options, without the settings of its connections.
pub fn client(options: &Options, endpoint: &Endpoint) -> Result<MxClient, Failure> {
    let dane = is_on(options.dane.as_deref(), "--dane")?;
    let mta_sts = is_on(options.mta_sts.as_deref(), "--mta-sts")?;
    let timeout = options.timeout.as_ref();
    let timeout = timeout.map(|_| endpoint.get_timeouts().connect);
    let resolver = resolver::open(
        options.resolver.as_deref(),
        options.dnssec_anchor.as_deref(),
        timeout,
    )?;
    let mut client = MxClient::new(resolver).dane(dane).mta_sts(mta_sts);
    if let Some(folder) = &options.state {
        client = client.policy_cache(PolicyCache::in_folder(folder)?);
    }
    if let Some(timeout) = timeout {
        client = client.policy_timeout(timeout);
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
