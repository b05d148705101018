//! Many messages in a row, without waiting for the answer to one before the next goes.

use std::collections::VecDeque;

use futures::future::{Either, select};
use futures::stream::{self, Stream, StreamExt as _};
use tokio::time::Instant;

use super::course::{Course, Loss};
use super::{Connection, not_sent};
use crate::Envelope;
use crate::error::{Error, Kind, Result};
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
            finished: 0,
            open: VecDeque::new(),
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
    /// The message that is being given, by its number.
    giving: Option<(usize, Body)>,
    under_way: VecDeque<UnderWay>,
    /// How many messages were under way before these. The first one has this number.
    finished: usize,
    /// The numbers of the messages of the transactions that have no outcome, in the order in which they began. A further part of a message
    /// may begin after the messages that follow it.
    open: VecDeque<usize>,
}

/// A message that was taken from the stream and not answered for.
struct UnderWay {
    /// The error of what never went: a message that could not be prepared, or one for which there was no connection any more.
    course: Result<Course>,
    /// The message from its beginning, where another part may follow.
    again: Option<(Envelope, Body)>,
    receipt: Receipt,
    started: Instant,
}

impl<'m, S: Stream<Item = Message<'m>>> Flow<'_, S> {
    async fn next(&mut self) -> Option<Result<Receipt>> {
        loop {
            if self.under_way.front().is_some_and(UnderWay::is_over) {
                self.finished += 1;
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
        let is_idle = self.under_way.is_empty();
        if is_idle {
            (self.giving, self.connection.in_call) = (None, false);
            if self.no_more {
                return Ok(());
            }
            self.connection.begin_step()?;
            self.connection.driver.until_ready().await?;
            // Waiting for the next message is no call.
            self.connection.in_call = false;
        }
        let driver = &mut self.connection.driver;
        if self.giving.is_some() {
            match driver.next_unless_free(self.giving.as_mut().map(|(_, body)| body)).await? {
                Some(step) => self.heard(step)?,
                None => self.given(),
            }
            return Ok(());
        }
        let goes_on = |message: &UnderWay| message.course.as_ref().is_ok_and(Course::goes_on);
        let another_part = self.under_way.iter().position(goes_on);
        let may_begin = driver.machine.may_begin();
        if let Some(index) = another_part
            && may_begin
        {
            self.begin_part(self.finished + index);
            return Ok(());
        }
        if another_part.is_some() || self.no_more || self.under_way.len() >= WINDOW || !may_begin {
            let step = driver.next(None).await?;
            return self.heard(step);
        }
        if is_idle {
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
        match message.prepare().await {
            Ok((envelope, body)) => {
                let driver = &mut self.connection.driver;
                driver.clock = Clock::start(&driver.timeouts);
                driver.clock.allow_for(envelope.recipients().len(), &driver.timeouts);
                let mut course = self.connection.course(&envelope, &body);
                let session = self.connection.driver.machine.check_session(course.parts());
                // After one that no session of this server takes, others may go.
                self.no_more |= session.as_ref().is_err_and(|error| error.kind() == Kind::Closed);
                let may_begin = session.map_err(|error| course.lost(error, 0)).is_ok();
                let again = Some((envelope, body));
                self.under_way.push_back(UnderWay { course: Ok(course), again, receipt, started });
                if may_begin {
                    self.begin_part(self.finished + self.under_way.len() - 1);
                }
            }
            Err(error) => self.under_way.push_back(UnderWay { course: Err(error), again: None, receipt, started }),
        }
    }

    /// Begins the next part of the message with this number.
    fn begin_part(&mut self, number: usize) {
        let Some(index) = number.checked_sub(self.finished) else { return };
        let Some(UnderWay { course: Ok(course), again, .. }) = self.under_way.get_mut(index) else { return };
        let Some((envelope, mut body)) = again.take() else { return };
        let mut transaction = self.connection.transaction(&envelope, &mut body);
        let Some(recipients) = course.next_part() else { return };
        transaction.recipients = recipients;
        match self.connection.begin_now(transaction) {
            Ok(()) => {
                course.opened();
                // A message to one recipient goes in one part.
                if envelope.recipients().len() > 1 {
                    *again = body.restart().map(|body| (envelope, body));
                }
                self.open.push_back(number);
                (self.giving, self.connection.in_call) = (Some((number, body)), true);
            }
            Err(error) => course.lost(error, 0),
        }
    }

    /// The message that was being given, or a part of it, has gone.
    fn given(&mut self) {
        let Some((number, _)) = self.giving.take() else { return };
        let bytes = self.connection.driver.machine.message_bytes();
        if let Some(message) = self.message(number) {
            message.receipt.bytes = bytes;
        }
    }

    /// The message with this number, unless it is finished.
    fn message(&mut self, number: usize) -> Option<&mut UnderWay> {
        number.checked_sub(self.finished).and_then(|index| self.under_way.get_mut(index))
    }

    /// An event is about the first transaction that has no outcome; the end of the session, about all of those.
    fn heard(&mut self, step: Step) -> Result<()> {
        if step == Step::Closed {
            return Err(not_sent(step));
        }
        let Some(&number) = self.open.front() else { return Ok(()) };
        if let Some(UnderWay { course: Ok(course), .. }) = self.message(number) {
            let unanswered = course.unanswered();
            course.hear(step);
            if course.unanswered() < unanswered {
                self.open.pop_front();
            }
        }
        Ok(())
    }

    /// The connection is lost. The first transactions without an outcome may have been carried out, the others were not.
    fn lost(&mut self, error: Error) {
        (self.no_more, self.giving, self.connection.in_call) = (true, None, false);
        let open = std::mem::take(&mut self.open);
        let unknown = self.connection.driver.machine.left_unknown().min(open.len());
        let mut loss = Loss::new(error);
        for (number, message) in (self.finished..).zip(&mut self.under_way) {
            if let Ok(course) = &mut message.course
                && !course.is_over()
            {
                let unknown = open.range(..unknown).filter(|open| **open == number).count();
                course.lost(loss.error(), unknown);
            }
        }
        if let Some(error) = loss.left() {
            // Between two messages: no message has failed, but the next cannot be sent.
            let started = Instant::now();
            let mut receipt = self.connection.receipt(started);
            receipt.round_trips = self.connection.round_trips();
            self.under_way.push_back(UnderWay { course: Err(error), again: None, receipt, started });
        }
    }
}

impl UnderWay {
    fn is_over(&self) -> bool {
        self.course.as_ref().map_or(true, Course::is_over)
    }

    fn finished(mut self, connection: &Connection) -> Result<Receipt> {
        self.receipt.elapsed = self.started.elapsed();
        self.receipt.round_trips = connection.round_trips() - self.receipt.round_trips;
        self.receipt.transcript = connection.transcript().clone();
        match self.course.and_then(|course| course.end(&mut self.receipt, &connection.facts())) {
            Ok(()) => Ok(self.receipt),
            Err(error) => {
                self.receipt.bytes = 0;
                Err(error.advised(&connection.facts()).with_receipt(self.receipt))
            }
        }
    }
}
