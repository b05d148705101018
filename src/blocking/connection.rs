//! A session that blocks.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::runtime::block_on;
use super::send_all::Outcomes;
use super::{DataWriter, send_all};
use crate::error::Result;
use crate::proto::{Capabilities, Mechanism, Reply, SaslExchange, Transaction, Transcript};
use crate::tls::{PlaintextReason, TlsInfo};
use crate::{Address, Credentials, Endpoint, Message, Receipt};

/// A session with a server: set up, secured and logged in, ready for any number of messages. The
/// blocking form of [`crate::Connection`], and of `PooledConnection`: a connection of a
/// [`Pool`](super::Pool) returns to it when it is dropped.
///
/// Each method has the errors of its namesake.
///
/// ```no_run
/// use envoi::blocking::Connection;
/// use envoi::mail_builder::MessageBuilder;
/// use envoi::Endpoint;
///
/// # fn main() -> envoi::Result<()> {
/// let mut connection = Connection::connect(&Endpoint::new("mail.example.org"))?;
/// for customer in ["a@example.com", "b@example.com"] {
///     let mail = MessageBuilder::new().from("me@example.org").to(customer).text_body("Hello.");
///     let receipt = connection.send(mail)?;
///     println!("{}", receipt.reply.unwrap());
/// }
/// connection.quit();
/// # Ok(())
/// # }
/// ```
pub struct Connection(Owner);

enum Owner {
    /// The caller.
    Caller(Box<crate::Connection>),
    #[cfg(feature = "pool")]
    Pool(Box<crate::PooledConnection>),
}

impl Deref for Owner {
    type Target = crate::Connection;

    fn deref(&self) -> &crate::Connection {
        match self {
            Owner::Caller(connection) => connection,
            #[cfg(feature = "pool")]
            Owner::Pool(connection) => connection,
        }
    }
}

impl DerefMut for Owner {
    fn deref_mut(&mut self) -> &mut crate::Connection {
        match self {
            Owner::Caller(connection) => connection,
            #[cfg(feature = "pool")]
            Owner::Pool(connection) => connection,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl From<crate::Connection> for Connection {
    fn from(connection: crate::Connection) -> Self {
        Connection(Owner::Caller(Box::new(connection)))
    }
}

#[cfg(feature = "pool")]
impl From<crate::PooledConnection> for Connection {
    fn from(connection: crate::PooledConnection) -> Self {
        Connection(Owner::Pool(Box::new(connection)))
    }
}

impl Connection {
    /// Connects, as [`crate::Connection::connect`] does.
    ///
    /// # Errors
    ///
    /// As for [`crate::Connection::connect`].
    pub fn connect(endpoint: &Endpoint) -> Result<Self> {
        block_on(crate::Connection::connect(endpoint)).map(Connection::from)
    }

    /// Sends a message, and waits for the server's final reply, as [`crate::Connection::send`]
    /// does.
    ///
    /// # Errors
    ///
    /// As for [`crate::Connection::send`].
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> Result<Receipt> {
        block_on(self.0.send(message))
    }

    /// Sends many messages without waiting for each reply, as [`crate::Connection::send_all`] does,
    /// and returns the outcome of each, in order.
    ///
    /// The next message is taken while up to 64 are in flight, on this thread and outside the
    /// runtime, so `messages` may block. Nothing is sent or read meanwhile, nor between two calls
    /// of `next`, and time-outs keep running.
    ///
    /// ```no_run
    /// use envoi::blocking::Connection;
    /// use envoi::mail_builder::MessageBuilder;
    /// use envoi::Message;
    ///
    /// # fn example(mut connection: Connection, customers: Vec<String>) {
    /// let messages = customers.into_iter().map(|customer| {
    ///     let mail = MessageBuilder::new().from("me@example.org").to(customer);
    ///     Message::from(mail.text_body("Hello."))
    /// });
    /// for outcome in connection.send_all(messages) {
    ///     if let Err(error) = outcome {
    ///         eprintln!("{error}");
    ///     }
    /// }
    /// # }
    /// ```
    pub fn send_all<'c, 'm: 'c>(
        &'c mut self,
        messages: impl IntoIterator<Item = Message<'m>, IntoIter: 'c>,
    ) -> impl Iterator<Item = Result<Receipt>> + 'c {
        Outcomes::new(messages.into_iter(), |messages: send_all::Input<'m>| {
            self.0.send_all(messages)
        })
    }

    /// Sends MAIL, as [`crate::Connection::mail`] does.
    ///
    /// # Errors
    ///
    /// As for [`crate::Connection::mail`].
    pub fn mail(&mut self, transaction: impl Into<Transaction>) -> Result<Reply> {
        block_on(self.0.mail(transaction))
    }

    /// Sends RCPT, as [`crate::Connection::rcpt`] does.
    ///
    /// # Errors
    ///
    /// As for [`crate::Connection::rcpt`].
    pub fn rcpt(&mut self, recipient: Address) -> Result<Reply> {
        block_on(self.0.rcpt(recipient))
    }

    /// Sends DATA, and returns the writer that takes the message, as [`crate::Connection::data`]
    /// does.
    ///
    /// # Errors
    ///
    /// As for [`crate::Connection::data`].
    pub fn data(&mut self) -> Result<DataWriter<'_>> {
        block_on(self.0.data()).map(DataWriter::new)
    }

    /// Sends RSET, as [`crate::Connection::reset`] does.
    ///
    /// # Errors
    ///
    /// As for [`crate::Connection::reset`].
    pub fn reset(&mut self) -> Result<Reply> {
        block_on(self.0.reset())
    }

    /// Sends NOOP, as [`crate::Connection::noop`] does.
    ///
    /// # Errors
    ///
    /// As for [`crate::Connection::noop`].
    pub fn noop(&mut self) -> Result<Reply> {
        block_on(self.0.noop())
    }

    /// Checks that the server still answers, as [`crate::Connection::verify`] does.
    ///
    /// # Errors
    ///
    /// As for [`crate::Connection::verify`].
    pub fn verify(&mut self) -> Result<()> {
        block_on(self.0.verify())
    }

    /// Sends any other command, as [`crate::Connection::command`] does.
    ///
    /// # Errors
    ///
    /// As for [`crate::Connection::command`].
    pub fn command(&mut self, line: &str) -> Result<Reply> {
        block_on(self.0.command(line))
    }

    /// Logs in, as [`crate::Connection::login`] does.
    ///
    /// # Errors
    ///
    /// As for [`crate::Connection::login`].
    pub fn login(
        &mut self,
        mechanism: Option<Mechanism>,
        credentials: &Credentials,
    ) -> Result<Reply> {
        block_on(self.0.login(mechanism, credentials))
    }

    /// Logs in with a mechanism of the caller, as [`crate::Connection::login_with`] does.
    ///
    /// # Errors
    ///
    /// As for [`crate::Connection::login_with`].
    pub fn login_with(&mut self, exchange: impl SaslExchange + 'static) -> Result<Reply> {
        block_on(self.0.login_with(exchange))
    }

    /// Sends QUIT, as [`crate::Connection::quit`] does. A connection of a pool returns to the pool
    /// instead. In an async task, the connection is closed without QUIT.
    pub fn quit(self) {
        match self.0 {
            Owner::Caller(connection) => {
                let quitting = async {
                    connection.quit().await;
                    Ok(())
                };
                // Where a blocking call is not permitted, the connection was dropped.
                let _ = block_on(quitting);
            }
            #[cfg(feature = "pool")]
            Owner::Pool(connection) => drop(connection),
        }
    }

    /// The server's greeting.
    pub fn greeting(&self) -> Option<&Reply> {
        self.0.greeting()
    }

    /// The extensions that the server offers, by its latest reply to EHLO.
    pub fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    /// The negotiated TLS; `None` for plaintext.
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.0.tls()
    }

    /// Why a connection with [`Security::Opportunistic`](crate::tls::Security::Opportunistic) is
    /// not encrypted.
    pub fn plaintext_reason(&self) -> Option<&PlaintextReason> {
        self.0.plaintext_reason()
    }

    /// The SASL mechanism that logged in; `None` without a login.
    pub fn mechanism(&self) -> Option<Mechanism> {
        self.0.mechanism()
    }

    /// The dialogue so far, without secrets.
    pub fn transcript(&self) -> &Transcript {
        self.0.transcript()
    }

    /// The number of further messages that the server takes in this session (LIMITS, RFC 9422);
    /// `None` without a limit.
    pub fn messages_left(&self) -> Option<usize> {
        self.0.messages_left()
    }

    /// The number of round trips, from the greeting on.
    pub fn round_trips(&self) -> u32 {
        self.0.round_trips()
    }
}
