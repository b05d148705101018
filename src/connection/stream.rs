//! Many messages in a row, without waiting for the answer to one before the next goes.

use std::collections::VecDeque;

use futures::future::{Either, select};
use futures::stream::{self, Stream, StreamExt as _};
use tokio::time::Instant;

use super::fate::Fate;
use super::{Connection, not_sent};
use crate::error::{Error, Kind, Phase, Result};
use crate::hint;
use crate::message::{Body, Message};
use crate::proto::Step;
use crate::receipt::Receipt;
use crate::timeouts::Clock;

/// So many messages may be under way. More would gain nothing: at 100 ms there and back, this is 640 messages a second.
const WINDOW: usize = 64;

impl Connection {
    /// Sends the messages of a stream, and gives what became of each, in their order.
    ///
    /// Where the server takes PIPELINING, a message does not wait for the answer to the one before: so throughput does not depend on
    /// the distance. With CHUNKING (RFC 3030), small messages follow one another in one flow; otherwise the commands of the next
    /// ride with the end of the one before. At most 64 are under way.
    ///
    /// A message that fails does not keep the next from going. When the connection is lost, each message that was begun still gets its
    /// outcome, [unknown](Error::outcome_unknown) or not sent, and the stream ends; messages that were not asked for yet are
    /// not touched. If it is lost between two messages, a last error says so. Dropped before its end, the stream leaves a connection that
    /// refuses further use.
    ///
    /// ```no_run
    /// use envoi::{Connection, Message, Result};
    /// use envoi::mail_builder::MessageBuilder;
    /// use futures::StreamExt as _;
    ///
    /// # async fn example(mut connection: Connection, customers: Vec<String>) {
    /// let messages = futures::stream::iter(customers).map(|customer| {
    ///     Message::from(MessageBuilder::new().from("me@example.org").to(customer).text_body("Hello."))
    /// });
    /// let mut outcomes = std::pin::pin!(connection.send_all(messages));
    /// while let Some(outcome) = outcomes.next().await {
    ///     match outcome {
    ///         Ok(receipt) => println!("{:?}", receipt.reply),
    ///         Err(error) => eprintln!("{error}"),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn send_all<'c, 'm: 'c>(
        &'c mut self,
        messages: impl Stream<Item = Message<'m>> + 'c,
    ) -> impl Stream<Item = Result<Receipt>> + 'c {
        let flow = Flow {
            connection: self,
            messages: Box::pin(messages.fuse()),
            no_more: false,
            giving: None,
            under_way: VecDeque::new(),
        };
        stream::unfold(flow, |mut flow| async move { flow.next().await.map(|outcome| (outcome, flow)) })
    }
}

/// Messages on their way, in order.
struct Flow<'c, S> {
    connection: &'c mut Connection,
    messages: std::pin::Pin<Box<S>>,
    /// The stream has ended, or the connection.
    no_more: bool,
    /// The message that is being given: the last one under way.
    giving: Option<Body>,
    under_way: VecDeque<UnderWay>,
}

/// A message that was taken from the stream and not answered for.
struct UnderWay {
    /// `None` for what never was one: a message that could not be prepared, or the end of the connection.
    fate: Option<Fate>,
    receipt: Receipt,
    started: Instant,
    /// What became of it.
    outcome: Option<Result<()>>,
}

impl<'m, S: Stream<Item = Message<'m>>> Flow<'_, S> {
    async fn next(&mut self) -> Option<Result<Receipt>> {
        loop {
            if self.under_way.front().is_some_and(|message| message.outcome.is_some()) {
                return self.under_way.pop_front().map(|message| message.finished(self.connection));
            }
            if let Err(error) = self.turn().await {
                self.lost(error);
            }
            if self.no_more && self.under_way.is_empty() {
                return None;
            }
        }
    }

    /// Takes the next message, or gives more of the one that is being given, or hears what became of those under way.
    async fn turn(&mut self) -> Result<()> {
        let unanswered = self.under_way.iter().filter(|message| message.outcome.is_none()).count();
        if unanswered == 0 {
            (self.giving, self.connection.in_call) = (None, false);
            if self.no_more {
                return Ok(());
            }
            self.connection.begin_call()?;
            self.connection.driver.until_ready().await?;
            // Waiting for the next message is no call.
            self.connection.in_call = false;
        }
        let driver = &mut self.connection.driver;
        if self.giving.is_some() {
            match driver.next_unless_free(self.giving.as_mut()).await? {
                Some(step) => self.heard(step)?,
                None => {
                    self.giving = None;
                    let bytes = self.connection.driver.machine.message_bytes();
                    self.under_way.back_mut().into_iter().for_each(|message| message.receipt.bytes = bytes);
                }
            }
            return Ok(());
        }
        if self.no_more || unanswered >= WINDOW || !driver.machine.may_begin() {
            let step = driver.next(None).await?;
            return self.heard(step);
        }
        if unanswered == 0 {
            match self.messages.next().await {
                Some(message) => self.begin(message).await,
                None => self.no_more = true,
            }
            return Ok(());
        }
        let came = {
            let heard = std::pin::pin!(driver.next(None));
            match select(self.messages.next(), heard).await {
                Either::Left((message, _)) => Either::Left(message),
                Either::Right((step, _)) => Either::Right(step?),
            }
        };
        match came {
            Either::Left(Some(message)) => self.begin(message).await,
            Either::Left(None) => self.no_more = true,
            Either::Right(step) => self.heard(step)?,
        }
        Ok(())
    }

    async fn begin(&mut self, message: Message<'m>) {
        let started = Instant::now();
        let mut receipt = self.connection.receipt(started);
        // Until it is finished: where the count stood.
        receipt.round_trips = self.connection.round_trips();
        let mut fate = None;
        let begun = match message.prepare().await {
            Ok((envelope, mut body)) => {
                fate = Some(Fate::new(&envelope));
                self.connection.driver.clock = Clock::start(&self.connection.driver.timeouts);
                let transaction = self.connection.transaction(&envelope, &mut body);
                self.connection.begin_now(transaction).map(|()| body)
            }
            Err(error) => Err(error),
        };
        let outcome = match begun {
            Ok(body) => {
                self.giving = Some(body);
                self.connection.in_call = true;
                None
            }
            Err(error) => Some(Err(error)),
        };
        self.under_way.push_back(UnderWay { fate, receipt, started, outcome });
    }

    /// An event is about the first message that has no outcome; the end of the session, about all of those.
    fn heard(&mut self, step: Step) -> Result<()> {
        if step == Step::Closed {
            return Err(not_sent(step));
        }
        if let Some(message) = self.under_way.iter_mut().find(|message| message.outcome.is_none()) {
            message.outcome = message.fate.as_mut().and_then(|fate| fate.hear(step));
        }
        Ok(())
    }

    /// The connection is lost. The first ones under way may have been delivered, the others were not sent.
    fn lost(&mut self, error: Error) {
        (self.no_more, self.giving, self.connection.in_call) = (true, None, false);
        let unknown = self.connection.driver.machine.left_unknown();
        let message = error.message().to_owned();
        let mut error = Some(error);
        for (i, under_way) in self.under_way.iter_mut().filter(|message| message.outcome.is_none()).enumerate() {
            // The first one gets the error itself, with its cause.
            let error = error.take().unwrap_or_else(|| {
                Error::new(Kind::Closed, Phase::Body, message.as_str()).with_hint(hint::for_end(Phase::Body, false))
            });
            let error = error.with_outcome_unknown(i < unknown);
            under_way.outcome = Some(Err(match &mut under_way.fate {
                Some(fate) => fate.lost(error),
                None => error,
            }));
        }
        if let Some(error) = error {
            // Between two messages: no message has failed, but the next cannot be sent.
            let started = Instant::now();
            let mut receipt = self.connection.receipt(started);
            receipt.round_trips = self.connection.round_trips();
            self.under_way.push_back(UnderWay { fate: None, receipt, started, outcome: Some(Err(error)) });
        }
    }
}

impl UnderWay {
    fn finished(mut self, connection: &Connection) -> Result<Receipt> {
        self.receipt.elapsed = self.started.elapsed();
        self.receipt.round_trips = connection.round_trips() - self.receipt.round_trips;
        self.receipt.transcript = connection.transcript().clone();
        if let Some(fate) = self.fate {
            (self.receipt.recipients, self.receipt.reply) = (fate.recipients, fate.reply);
        }
        match self.outcome {
            Some(Err(error)) => {
                self.receipt.bytes = 0;
                Err(error.with_receipt(self.receipt))
            }
            _ => Ok(self.receipt),
        }
    }
}
