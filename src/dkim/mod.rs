//! DKIM: signatures that show which domain is responsible for a message, and that it was not
//! changed on its way (RFC 6376, RFC 8463).
//!
//! A [`DkimSigner`] has a domain, a selector and a [`DkimKey`], and
//! [`Message::dkim`](crate::Message::dkim) signs a message with it. The public key is published in
//! the [DNS record](DkimSigner::dns_record) of the selector. [`guide::dkim`](crate::guide::dkim)
//! describes how to make keys, publish, check and replace them.
//!
//! ```no_run
//! use envoi::dkim::{DkimKey, DkimSigner};
//! use envoi::{Client, Message, mail_builder::MessageBuilder};
//!
//! # async fn example(client: Client) -> envoi::Result<()> {
//! let key = DkimKey::from_file("/etc/dkim/2026.pem")?;
//! let signer = DkimSigner::new("example.org", "2026", key)?;
//! // To publish, once.
//! println!("{}", signer.dns_record().expect("a key from a file"));
//!
//! let mail = MessageBuilder::new()
//!     .from("alice@example.org")
//!     .to("bob@example.com")
//!     .text_body("Hello.");
//! client.send(Message::from(mail).dkim(signer)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The signature covers the message as it leaves, after all repairs. A message is read twice, to
//! sign and to send it, in constant memory, so a stream that can be read only once cannot be
//! signed. The whole body is signed: there is no `l=` tag, which would allow text to be added.
//!
//! The keys sign with the cryptography that TLS uses: aws-lc-rs or ring, or your own
//! [`SigningKey`](crate::tls::rustls::sign::SigningKey), such as one in a hardware module.
//! [`MessageSigner`] signs messages that envoi does not send.

mod body;
mod header;
mod key;
mod record;
mod signature;
mod signer;
#[cfg(test)]
mod tests;

pub use key::{DkimAlgorithm, DkimKey};
pub use record::DkimRecord;
pub use signature::MessageSigner;
pub use signer::{Canonicalization, DkimSigner};
