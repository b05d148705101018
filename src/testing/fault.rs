//! Faults: what a server does in place of what it should.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// A moment of a session at which a [`Fault`] can occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// In place of the TLS handshake, after STARTTLS or with TLS from the first byte. A reply here
    /// is sent in clear, and the connection is closed.
    Handshake,
    /// In place of the greeting.
    Greeting,
    /// In place of the reply to any command.
    Command,
    /// In place of the reply to EHLO, HELO or LHLO.
    Hello,
    /// In place of the reply to STARTTLS.
    StartTls,
    /// In place of the reply to AUTH.
    Auth,
    /// In place of the reply to MAIL.
    Mail,
    /// In place of the reply to RCPT.
    Rcpt,
    /// In place of the reply to DATA, or to a chunk (BDAT).
    Data,
    /// In a message, when more than this number of its bytes have arrived. A reply here refuses the
    /// message early, before its end. Does not occur in a shorter message.
    Body(u64),
    /// A message is complete, and is not kept. The reply to it is not sent.
    Message,
    /// A message has been accepted and is kept, but the client has not been told.
    Accepted,
    /// In place of the reply to RSET.
    Rset,
    /// In place of the reply to NOOP.
    Noop,
    /// In place of the reply to QUIT.
    Quit,
}

impl Step {
    /// The step of a command, if it has one of its own.
    fn of_command(verb: &str) -> Option<Step> {
        Some(match verb {
            "EHLO" | "HELO" | "LHLO" => Step::Hello,
            "STARTTLS" => Step::StartTls,
            "AUTH" => Step::Auth,
            "MAIL" => Step::Mail,
            "RCPT" => Step::Rcpt,
            "DATA" | "BDAT" => Step::Data,
            "RSET" => Step::Rset,
            "NOOP" => Step::Noop,
            "QUIT" => Step::Quit,
            _ => return None,
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Handshake => "the TLS handshake",
            Step::Greeting => "the greeting",
            Step::Command => "a command",
            Step::Hello => "EHLO",
            Step::StartTls => "STARTTLS",
            Step::Auth => "AUTH",
            Step::Mail => "MAIL",
            Step::Rcpt => "RCPT",
            Step::Data => "DATA",
            Step::Body(_) => "the body of a message",
            Step::Message => "the end of a message",
            Step::Accepted => "the reply to an accepted message",
            Step::Rset => "RSET",
            Step::Noop => "NOOP",
            Step::Quit => "QUIT",
        })
    }
}

/// A fault of the server: what it does at a [`Step`] in place of what it should.
///
/// A fault occurs each time that its step is reached, unless [`after`](Self::after),
/// [`every`](Self::every), [`one_in`](Self::one_in), [`times`](Self::times) or
/// [`matching`](Self::matching) limit it. It is set before the start by
/// [`Builder::fault`](super::Builder::fault), or while the server runs by
/// [`Server::add_fault`](super::Server::add_fault). Of several faults at one step, delays add up,
/// and the first other fault occurs.
///
/// [`Session::failure`](super::Session::failure) names the fault that ended a connection.
///
/// A server that closes each connection after two messages, as many do:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use envoi::testing::{Fault, Server, Step};
/// use envoi::{Client, mail_builder::MessageBuilder};
///
/// let too_many = Fault::reply(Step::Mail, "421 4.7.0 Too many messages")
///     .after(2)
///     .per_connection(true);
/// let server = Server::builder().fault(too_many).start().await?;
/// let mail = || {
///     MessageBuilder::new()
///         .from("a@example.org")
///         .to("b@example.org")
///         .text_body("Hello.")
/// };
///
/// let mut connection = Client::from_url(&server.url())?.connect().await?;
/// connection.send(mail()).await?;
/// connection.send(mail()).await?;
/// let error = connection.send(mail()).await.unwrap_err();
/// assert_eq!(error.reply().unwrap().code(), 421);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a fault has no effect before it is given to a server"]
pub struct Fault {
    step: Step,
    action: Action,
    after: u64,
    every: u64,
    random: Option<OneIn>,
    times: u64,
    per_connection: bool,
    matching: Option<String>,
}

/// The random choice of one of several times.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OneIn {
    n: u64,
    random: Rng,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Reply(String),
    Close,
    Reset,
    Hang,
    Delay(Duration),
}

impl Fault {
    fn new(step: Step, action: Action) -> Self {
        Fault {
            step,
            action,
            after: 0,
            every: 1,
            random: None,
            times: u64::MAX,
            per_connection: false,
            matching: None,
        }
    }

    /// Sends this reply, such as `451 4.7.1 Greylisted`, and does not execute the command. It is
    /// sent as it is: several lines for a multi-line reply. After a 421, the connection is closed.
    ///
    /// A server with greylisting, which refuses the first attempt for one recipient:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use envoi::testing::{Fault, Server, Step};
    /// use envoi::{Client, mail_builder::MessageBuilder};
    ///
    /// let greylisting = Fault::reply(Step::Rcpt, "451 4.7.1 Greylisted")
    ///     .matching("bob@example.com")
    ///     .times(1);
    /// let server = Server::builder().fault(greylisting).start().await?;
    /// let client = Client::from_url(&server.url())?;
    /// let mail = || {
    ///     MessageBuilder::new()
    ///         .from("a@example.org")
    ///         .to("bob@example.com")
    ///         .text_body("Hello.")
    /// };
    /// assert!(client.send(mail()).await.unwrap_err().is_transient());
    /// client.send(mail()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn reply(step: Step, reply: impl Into<String>) -> Self {
        Fault::new(step, Action::Reply(reply.into()))
    }

    /// Closes the connection without a reply.
    ///
    /// A connection that is lost after the message was accepted, so that its outcome is unknown:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use envoi::testing::{Fault, Server, Step};
    /// use envoi::{Client, mail_builder::MessageBuilder};
    ///
    /// let fault = Fault::close(Step::Accepted).times(1);
    /// let server = Server::builder().fault(fault).start().await?;
    /// let mail = MessageBuilder::new()
    ///     .from("a@example.org")
    ///     .to("b@example.org")
    ///     .text_body("Hello.");
    /// let error = Client::from_url(&server.url())?.send(mail).await.unwrap_err();
    /// assert!(error.outcome_unknown());
    /// assert_eq!(server.messages().len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn close(step: Step) -> Self {
        Fault::new(step, Action::Close)
    }

    /// Resets the TCP connection: the client gets `ECONNRESET`, and may lose earlier replies. At a
    /// Unix socket, the connection is closed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use envoi::testing::{Fault, Server, Step};
    /// use envoi::{Client, mail_builder::MessageBuilder};
    ///
    /// // In the message, after 100,000 bytes.
    /// let fault = Fault::reset(Step::Body(100_000));
    /// let server = Server::builder().fault(fault).start().await?;
    /// let mail = MessageBuilder::new()
    ///     .from("a@example.org")
    ///     .to("b@example.org")
    ///     .text_body("Hello.\n".repeat(100_000));
    /// let error = Client::from_url(&server.url())?.send(mail).await.unwrap_err();
    /// // The outcome is unknown if the client had written all of the message.
    /// assert!(error.is_transient() || error.outcome_unknown());
    /// assert!(server.messages().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn reset(step: Step) -> Self {
        Fault::new(step, Action::Reset)
    }

    /// Reads on, but never replies, until the client closes the connection.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// use envoi::testing::{Fault, Server, Step};
    /// use envoi::{Client, Endpoint, ErrorKind, Timeouts, mail_builder::MessageBuilder};
    ///
    /// let fault = Fault::hang(Step::Message);
    /// let server = Server::builder().plaintext().fault(fault).start().await?;
    /// let timeouts = Timeouts::uniform(Duration::from_millis(100));
    /// let client = Client::new(Endpoint::from_url(&server.url())?.timeouts(timeouts));
    /// let mail = MessageBuilder::new()
    ///     .from("a@example.org")
    ///     .to("b@example.org")
    ///     .text_body("Hello.");
    /// let error = client.send(mail).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Timeout);
    /// assert!(error.outcome_unknown());
    /// # Ok(())
    /// # }
    /// ```
    pub fn hang(step: Step) -> Self {
        Fault::new(step, Action::Hang)
    }

    /// Waits before it goes on as usual. Only this connection waits, by tokio's clock, which the
    /// runtime must have enabled; a test that paused it (`tokio::time::pause`) does not wait.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::{Duration, Instant};
    ///
    /// use envoi::testing::{Fault, Server, Step};
    /// use envoi::{Client, mail_builder::MessageBuilder};
    ///
    /// let delay = Duration::from_millis(50);
    /// let slow = Fault::delay(Step::Message, delay);
    /// let server = Server::builder().fault(slow).start().await?;
    /// let mail = MessageBuilder::new()
    ///     .from("a@example.org")
    ///     .to("b@example.org")
    ///     .text_body("Hello.");
    /// let started = Instant::now();
    /// Client::from_url(&server.url())?.send(mail).await?;
    /// assert!(started.elapsed() >= delay);
    /// # Ok(())
    /// # }
    /// ```
    pub fn delay(step: Step, delay: Duration) -> Self {
        Fault::new(step, Action::Delay(delay))
    }

    /// Does not occur the first `n` times that the step is reached.
    pub fn after(mut self, n: u64) -> Self {
        self.after = n;
        self
    }

    /// Occurs only each `n`th time that the step is reached, counted after those of
    /// [`after`](Self::after).
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    pub fn every(mut self, n: u64) -> Self {
        assert!(n > 0, "a fault cannot occur every 0 times");
        self.every = n;
        self
    }

    /// Occurs at random: one of `n` times that the step is reached, on average, of those that
    /// [`after`](Self::after) and [`every`](Self::every) leave. Faults with the same seed occur at
    /// the same times, as counted by the server; with several connections at once, the order in
    /// which these reach the step differs from run to run.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    ///
    /// ```
    /// use envoi::testing::{Fault, Step};
    ///
    /// // 2 % of the messages are refused.
    /// let fault = Fault::reply(Step::Message, "451 4.3.0 Try later").one_in(50, 17);
    /// ```
    pub fn one_in(mut self, n: u64, seed: u64) -> Self {
        assert!(n > 0, "a fault cannot occur in one of 0 times");
        let random = Rng::with_seed(seed);
        self.random = Some(OneIn { n, random });
        self
    }

    /// Occurs at most `n` times.
    pub fn times(mut self, n: u64) -> Self {
        self.times = n;
        self
    }

    /// Counts [`after`](Self::after), [`every`](Self::every) and [`times`](Self::times) anew for
    /// each connection.
    pub fn per_connection(mut self, yes: bool) -> Self {
        self.per_connection = yes;
        self
    }

    /// Occurs, and counts, only where the command contains this text, compared without regard to
    /// the case of ASCII letters. In a message and after it ([`Step::Body`], [`Step::Message`],
    /// [`Step::Accepted`]), the text is looked for in the addresses of its envelope, with a blank
    /// between them. The handshake and the greeting have no text.
    pub fn matching(mut self, text: impl Into<String>) -> Self {
        self.matching = Some(text.into().to_ascii_lowercase());
        self
    }
}

/// A moment of a session, which may be that of a fault.
#[derive(Clone, Copy)]
pub(super) enum Moment {
    /// A command with this verb.
    Command,
    At(Step),
    /// The size of the message grew from the first to the second number of bytes.
    Body(u64, u64),
}

impl Fault {
    fn is_at(&self, moment: Moment, text: &str) -> bool {
        let is_step = match moment {
            Moment::Command => {
                let verb = text.split(' ').next().unwrap_or_default();
                self.step == Step::Command
                    || Step::of_command(&verb.to_ascii_uppercase()) == Some(self.step)
            }
            Moment::At(step) => self.step == step,
            Moment::Body(from, to) => {
                matches!(self.step, Step::Body(bytes) if (from..to).contains(&bytes))
            }
        };
        let matches = |wanted: &String| text.to_ascii_lowercase().contains(wanted);
        is_step && self.matching.as_ref().is_none_or(matches)
    }
}

/// The faults of a running server, and how often the step of each was reached.
#[derive(Default)]
pub(super) struct Faults {
    active: Vec<(Fault, HashMap<usize, Counts>)>,
}

/// How often the step of a fault was reached, and the fault occurred.
#[derive(Default)]
struct Counts {
    reached: u64,
    occurred: u64,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.active.push((fault, HashMap::new()));
    }

    pub(super) fn clear(&mut self) {
        self.active.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// Forgets the counts of a connection that has ended.
    pub(super) fn forget(&mut self, connection: usize) {
        for (fault, counts) in &mut self.active {
            if fault.per_connection {
                counts.remove(&connection);
            }
        }
    }

    /// Counts this moment, and returns what happens now, with its step: delays, and at most one
    /// other action, which is the last.
    pub(super) fn reached(
        &mut self,
        connection: usize,
        moment: Moment,
        text: &str,
    ) -> Vec<(Step, Action)> {
        let mut actions = Vec::new();
        for (fault, counts) in &mut self.active {
            if !fault.is_at(moment, text) {
                continue;
            }
            let key = if fault.per_connection { connection } else { 0 };
            let counts = counts.entry(key).or_default();
            counts.reached += 1;
            let since = counts.reached.saturating_sub(fault.after);
            if since == 0 || !since.is_multiple_of(fault.every) || counts.occurred == fault.times {
                continue;
            }
            let is_chosen = |one_in: &mut OneIn| one_in.random.u64(0..one_in.n) == 0;
            if fault.random.as_mut().is_none_or(is_chosen) {
                counts.occurred += 1;
                actions.push((fault.step, fault.action.clone()));
                if !matches!(fault.action, Action::Delay(_)) {
                    break;
                }
            }
        }
        actions
    }
}
