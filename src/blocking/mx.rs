//! A client of mail servers that blocks.

use super::runtime::block_on;
use crate::Message;
use crate::error::Result;
use crate::mx::MxReceipt;

/// Sends messages to the servers of each recipient's domain. The blocking form of
/// [`crate::mx::MxClient`], of which it is made, with its settings.
///
/// Cheap to clone; clones share the connections.
///
/// ```no_run
/// use envoi::blocking::MxClient;
/// use envoi::mail_builder::MessageBuilder;
/// use envoi::mx::Resolver;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let settings = envoi::mx::MxClient::new(Resolver::system()?);
/// let client = MxClient::from(settings.client_name("mail.example.org"));
/// let mail = MessageBuilder::new()
///     .from("alice@example.org")
///     .to("bob@example.com")
///     .text_body("Hello Bob.");
/// let receipt = client.send(mail)?;
/// assert!(receipt.all_accepted());
/// client.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MxClient(crate::mx::MxClient);

impl MxClient {
    /// Sends a message to the servers of each recipient's domain.
    ///
    /// # Errors
    ///
    /// As for [`crate::mx::MxClient::send`].
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> Result<MxReceipt> {
        block_on(self.0.send(message))
    }

    /// Closes the connections, and returns the number of calls that had not finished in time, as
    /// [`crate::mx::MxClient::close`] does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) in an async task: the client stays open.
    pub fn close(&self) -> Result<usize> {
        block_on(async { Ok(self.0.close().await) })
    }
}

impl From<crate::mx::MxClient> for MxClient {
    fn from(client: crate::mx::MxClient) -> Self {
        MxClient(client)
    }
}

impl From<MxClient> for crate::mx::MxClient {
    fn from(client: MxClient) -> Self {
        client.0
    }
}
