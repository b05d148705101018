//! Reads the bytes of a prepared message.

use super::runtime::block_on;
use crate::error::Result;
use crate::proto::Chunk;
use crate::{Body, Message, PreparedMessage};

/// Checks and serializes a message. The blocking form of [`Message::prepare`].
///
/// ```
/// use envoi::blocking;
/// use envoi::mail_builder::MessageBuilder;
///
/// # fn main() -> envoi::Result<()> {
/// let mail = MessageBuilder::new()
///     .from("alice@example.org")
///     .to("bob@example.com")
///     .text_body("Hello");
/// let prepared = blocking::prepare(mail)?;
/// let size = prepared.size();
/// let mut bytes = Vec::new();
/// for chunk in blocking::chunks(prepared.into_body()) {
///     bytes.extend_from_slice(chunk?.bytes());
/// }
/// assert_eq!(size, Some(bytes.len() as u64));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As for [`Message::prepare`].
pub fn prepare<'m>(message: impl Into<Message<'m>>) -> Result<PreparedMessage> {
    block_on(message.into().prepare())
}

/// The bytes of a prepared message in chunks. The blocking form of [`Body::chunk`]. An error is the
/// last item, and means that the message is not complete.
pub fn chunks(body: Body) -> impl Iterator<Item = Result<Chunk>> {
    let mut body = Some(body);
    std::iter::from_fn(move || {
        let reading = body.as_mut()?;
        let chunk = block_on(async { reading.chunk().await.transpose() }).transpose();
        if !matches!(chunk, Some(Ok(_))) {
            body = None;
        }
        chunk
    })
}
