//! Signs a message by DKIM: reads it to its end, and puts the signatures before it.

use super::Body;
use super::input::on_blocking_thread;
use crate::dkim::{DkimSigner, MessageSigner};
use crate::proto::Content;
use crate::{Error, Result};

/// Signs a body that was repaired. It has one form from then on, and its size is known.
pub(super) async fn sign(body: Body, signers: Vec<DkimSigner>) -> Result<Body> {
    let body = body.with_binary_info(None);
    if body.content() == Content::Binary {
        return Err(Error::request(
            "a message with bare line ends or a NUL cannot be signed by DKIM",
        )
        .with_hint(
            "Servers change such a message, which makes its signature invalid. Let line ends be \
                normalized, or encode the content.",
        ));
    }
    let mut copy = body.restart().ok_or_else(|| {
        Error::request("a stream cannot be signed by DKIM: it can be read only once").with_hint(
            "A signed message is read twice, to sign and to send it. Write the stream into a file, \
                and give that (Attachment::file, Message::raw_file).",
        )
    })?;
    let mut signer = MessageSigner::new(signers);
    let mut size = 0;
    while let Some(chunk) = copy.chunk().await {
        let chunk = chunk?;
        signer.update(chunk.bytes());
        size += chunk.bytes().len() as u64;
        // Hashing a large message in memory would hold up the other tasks of this thread.
        tokio::task::yield_now().await;
    }
    let fields = on_blocking_thread(move || signer.finish()).await?;
    let mut body = body.with_size(size);
    body.prepend(fields.into_bytes());
    Ok(body)
}
