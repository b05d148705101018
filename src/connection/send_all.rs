//! Many messages in flight: the next one is sent before the reply to the one before arrives.

use std::collections::VecDeque;
use std::ops::DerefMut;
use std::pin::{Pin, pin};
use std::sync::Arc;

use futures_core::Stream;
use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::{self, StreamExt as _};

use super::call::CallGuard;
use super::clock::Clock;
use super::submission::{SharedError, Submission};
use super::{Connection, MessageStart, not_sent, prepare_by};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Body, Message};
use crate::proto::{Event, Step};
use crate::receipt::{Delivery, Receipt, SessionInfo};
use crate::{Endpoint, Envelope};

/// The maximum number of messages in flight. More would gain nothing: at a round-trip time of 100
/// ms, this is 640 messages a second.
const WINDOW: usize = 64;

impl Connection {
    /// Sends the messages of a stream, and yields the outcome of each, in their order.
    ///
    /// If the server offers PIPELINING, a message does not wait for the reply to the one before, so
    /// latency does not limit throughput. With CHUNKING (RFC 3030), small messages follow one
    /// another without a pause; otherwise the commands of the next one are sent with the end of the
    /// one before. At most 64 messages are in flight.
    ///
    /// A message that fails does not stop the others. If the connection is lost, each message that
    /// was started gets its outcome, [unknown](Error::outcome_unknown) or not sent, and the stream
    /// ends; messages that were not yet taken from `messages` are untouched. If it is lost between
    /// two messages, a last error says so.
    ///
    /// A message that was not sent because the session ended has an error that is
    /// [transient](Error::is_transient) and not unknown, with the server's 421 as its
    /// [reply](Error::reply) or with [`ErrorKind::Closed`]: it can be sent over another connection,
    /// as `Pool::send_all` does. A server that replies 421 and closes has not processed the
    /// messages whose MAIL it did not answer (RFC 5321, 3.8; RFC 2920, 3.2);
    /// [`proto`](crate::proto#after-421) has the details. Exim does not close at its limit of 1,000
    /// messages, and replies 421 to each MAIL beyond it.
    ///
    /// Each message has time limits of its own, from when it is taken from the stream; the
    /// [deadline](crate::Timeouts::deadline) includes the time in which the messages before it are
    /// answered. A limit that is reached ends the session, also while `messages` or the preparation
    /// of the next one is slow.
    ///
    /// # Cancel safety
    ///
    /// The future of the next outcome (`StreamExt::next`) is cancel-safe: nothing is lost, and the
    /// next poll continues. While it is not polled, nothing is sent or read, and time-outs keep
    /// running.
    /// Dropping the stream while messages are in flight leaves a connection that refuses further
    /// use; those messages may have been delivered or not. Dropping it at any other time leaves a
    /// usable connection.
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
        send_all(self, messages, None)
    }
}

/// How a pool sends the messages of a stream.
pub(crate) struct Renewal {
    /// The endpoint of further connections.
    pub(crate) endpoint: Endpoint,
    /// The maximum number of messages over each.
    pub(crate) max_messages: usize,
    /// What each message waits for before it is sent.
    pub(crate) admit: Option<Admission>,
}

/// Waits until a message with an envelope may be sent, within the limits of its clock.
pub(crate) type Admission =
    Arc<dyn Fn(Envelope, Clock) -> BoxFuture<'static, Result<Envelope>> + Send + Sync>;

/// Sends the messages over this connection. With a `renewal`, another one replaces it once the
/// server has ended the session or takes no more messages in it.
pub(crate) fn send_all<'c, 'm: 'c>(
    connection: impl DerefMut<Target = Connection> + 'c,
    messages: impl Stream<Item = Message<'m>> + 'c,
    renewal: Option<Renewal>,
) -> impl Stream<Item = Result<Receipt>> + 'c {
    let state = SendAll {
        connection,
        renewal,
        messages: Box::pin(messages.fuse()),
        input_ended: false,
        preparing: None,
        in_call: false,
        uploading: None,
        in_flight: VecDeque::new(),
        first_number: 0,
        open_transactions: VecDeque::new(),
        session_ended: false,
        session_full: false,
        // A connection from a pool may turn out to be closed: another one may follow.
        has_answered: true,
        end_reported: false,
    };
    stream::unfold(state, |mut state| async move {
        state.next().await.map(|outcome| (outcome, state))
    })
}

/// The state of the stream.
struct SendAll<'m, C, S> {
    connection: C,
    renewal: Option<Renewal>,
    messages: Pin<Box<S>>,
    /// No more messages are taken: the stream ended, or the connection ended and cannot be
    /// replaced.
    input_ended: bool,
    /// The message taken from the stream last, until it is prepared.
    preparing: Option<Preparing<'m>>,
    /// A call is open on the connection, for the open transactions.
    in_call: bool,
    /// The message whose body is being sent, by its number.
    uploading: Option<(usize, Body)>,
    in_flight: VecDeque<InFlight>,
    /// The number of the first message in flight.
    first_number: usize,
    /// The message numbers of the transactions without an outcome, in the order in which they were
    /// started. A further transaction of a message may start after those of later messages.
    open_transactions: VecDeque<usize>,
    /// The session has ended, and was not replaced yet.
    session_ended: bool,
    /// The session has fewer transactions left than the next message needs.
    session_full: bool,
    /// The server has sent the final reply to a message in this session.
    has_answered: bool,
    /// The outcome of a message says that the session has ended.
    end_reported: bool,
}

/// A message that is ready to be sent.
type Prepared = Box<(Envelope, Body)>;

struct Preparing<'m> {
    prepared: Pin<Box<dyn Future<Output = Result<Prepared>> + Send + 'm>>,
    start: MessageStart,
    clock: Clock,
}

/// A message that was taken from the stream, and whose outcome was not yielded yet.
struct InFlight {
    stage: Stage,
    start: MessageStart,
    /// The session that it is sent in.
    session: Arc<SessionInfo>,
    /// The time limits of the message; moved to the connection when this becomes the oldest pending
    /// message.
    clock: Option<Clock>,
    /// The message from its beginning, if a further transaction may follow, or another connection.
    retry_copy: Option<Prepared>,
}

enum Stage {
    Queued(Prepared),
    Started(Submission),
    /// It could not be prepared, or no connection was available for it.
    Failed(Error),
}

enum Arrival<'m> {
    Message(Option<Box<Message<'m>>>),
    Prepared(Result<Prepared>),
    Step(Step),
}

impl<'m, C: DerefMut<Target = Connection>, S: Stream<Item = Message<'m>>> SendAll<'m, C, S> {
    async fn next(&mut self) -> Option<Result<Receipt>> {
        loop {
            if self
                .in_flight
                .front()
                .is_some_and(|message| message.is_over() && !message.can_be_retried())
            {
                self.first_number += 1;
                if self.open_transactions.is_empty() {
                    self.end_call();
                }
                return self
                    .in_flight
                    .pop_front()
                    .map(|message| message.finish(&self.connection));
            }
            if self.input_ended && self.in_flight.is_empty() && self.preparing.is_none() {
                self.end_call();
                return None;
            }
            if let Err(error) = self.advance().await {
                self.connection_lost(error);
            }
        }
    }

    /// Makes one step: takes the next message, sends more of the current one, or takes a reply.
    async fn advance(&mut self) -> Result<()> {
        self.apply_first_clock();
        let has_further =
            |message: &InFlight| message.submission().is_some_and(Submission::has_next_batch);
        let further_batch = self.in_flight.iter().position(has_further);
        let is_queued = self.in_flight.iter().any(InFlight::is_queued);
        // Further transactions of the message go over another connection then.
        let is_exhausted = self.renewal.is_some()
            && further_batch.is_some()
            && self.connection.driver.machine.transactions_left() == Some(0);
        let is_idle =
            self.open_transactions.is_empty() && (further_batch.is_none() || is_exhausted);
        if is_idle {
            self.end_call();
            let has_next = is_queued || further_batch.is_some();
            // After a 421 the end of the session has not been read yet.
            let has_ended = self.in_flight.iter().any(InFlight::can_be_retried);
            if self.session_ended || self.is_session_used_up() && !has_ended {
                if !has_next {
                    // A new connection is made only for another message, in its time limits.
                    return self.take_next(true).await;
                }
                self.renew().await?;
            }
            self.wait_until_ready(has_next).await?;
        }
        let driver = &mut self.connection.driver;
        if self.uploading.is_some() {
            match driver
                .next_or_startable(self.uploading.as_mut().map(|(_, body)| body))
                .await?
            {
                Some(step) => self.on_step(step)?,
                None => self.finish_upload(),
            }
            return Ok(());
        }
        let can_start = driver.machine.may_begin();
        if let Some(index) = further_batch
            && can_start
            && (is_idle || !is_exhausted)
        {
            self.start_batch(self.first_number + index);
            return Ok(());
        }
        if is_queued && can_start && !self.is_session_used_up() {
            self.start_queued();
            return Ok(());
        }
        let is_full =
            self.input_ended || self.in_flight.len() >= WINDOW || self.is_session_used_up();
        let takes_more = !is_full || self.preparing.is_some();
        if further_batch.is_some() || is_queued || !takes_more || !can_start {
            let step = self.connection.driver.next(None).await?;
            return self.on_step(step);
        }
        self.take_next(is_idle).await
    }

    /// Handles the next [`Arrival`].
    async fn take_next(&mut self, is_idle: bool) -> Result<()> {
        match self.next_arrival(is_idle).await? {
            Arrival::Message(Some(message)) => self.prepare(*message),
            Arrival::Message(None) => self.input_ended = true,
            Arrival::Prepared(prepared) => self.prepared(prepared),
            Arrival::Step(step) => self.on_step(step)?,
        }
        Ok(())
    }

    /// Waits for the next message, or until it is prepared, and meanwhile for replies to the
    /// messages in flight. The future that loses is dropped, which is safe:
    /// [`Driver::next`](super::driver::Driver::next) is cancel-safe, and the stream and the
    /// preparation continue with their next poll.
    async fn next_arrival(&mut self, is_idle: bool) -> Result<Arrival<'m>> {
        let (messages, preparing) = (&mut self.messages, &mut self.preparing);
        let source = async {
            match preparing {
                Some(preparing) => Arrival::Prepared(preparing.prepared.as_mut().await),
                None => Arrival::Message(messages.next().await.map(Box::new)),
            }
        };
        if is_idle {
            return Ok(source.await);
        }
        let step = pin!(self.connection.driver.next(None));
        match select(pin!(source), step).await {
            Either::Left((arrival, _)) => Ok(arrival),
            Either::Right((step, _)) => Ok(Arrival::Step(step?)),
        }
    }

    /// Sets the time limits to those of the first message without an outcome. It was taken before
    /// the others, so no deadline is earlier than its own.
    fn apply_first_clock(&mut self) {
        let first = self.in_flight.iter_mut().find(|message| !message.is_over());
        if let Some(clock) = first.and_then(|message| message.clock.take()) {
            self.connection.driver.clock = clock;
        }
    }

    /// Replaces the connection by another one.
    async fn renew(&mut self) -> Result<()> {
        let Some(Renewal { endpoint, .. }) = &self.renewal else {
            return Ok(());
        };
        self.connection.send_quit(false).await;
        // Until the other one is connected.
        self.session_ended = true;
        self.connection.renew(endpoint).await?;
        (
            self.session_ended,
            self.session_full,
            self.has_answered,
            self.end_reported,
        ) = (false, false, false, false);
        Ok(())
    }

    /// Waits until no reply is outstanding on the connection. No message is in flight, so a stream
    /// that is dropped meanwhile leaves a usable connection: the next call waits in its turn.
    async fn wait_until_ready(&mut self, has_next: bool) -> Result<()> {
        // A message has time limits already.
        let call = match has_next {
            true => CallGuard::start(&mut self.connection)?,
            false => CallGuard::start_step(&mut self.connection)?,
        };
        call.complete();
        self.connection.driver.until_ready().await
    }

    /// Completes the call for the open transactions: there is none, and a stream that is dropped
    /// now leaves a usable connection.
    fn end_call(&mut self) {
        self.uploading = None;
        // A call that was given up before this stream stays incomplete.
        if std::mem::take(&mut self.in_call) {
            CallGuard::resume(&mut self.connection).complete();
        }
    }

    /// No more messages can be started in this session; in the next one they can.
    fn is_session_used_up(&self) -> bool {
        let machine = &self.connection.driver.machine;
        let started = machine.transactions_begun();
        self.renewal.as_ref().is_some_and(|renewal| {
            started > 0
                && (self.session_full
                    || machine.transactions_left() == Some(0)
                    || started >= renewal.max_messages)
        })
    }

    fn prepare(&mut self, message: Message<'m>) {
        let start = MessageStart::now(&self.connection);
        let clock = Clock::start(&self.connection.driver.timeouts);
        let by = clock.clone();
        let is_8bitmime_offered = self.connection.capabilities().offers("8BITMIME");
        let admit = self
            .renewal
            .as_ref()
            .and_then(|renewal| renewal.admit.clone());
        let prepared = Box::pin(async move {
            let (mut envelope, mut body) = prepare_by(&by, message).await?;
            body.find_content(is_8bitmime_offered).await?;
            if let Some(admit) = admit {
                envelope = admit(envelope, by).await?;
            }
            Ok(Box::new((envelope, body)))
        });
        self.preparing = Some(Preparing {
            prepared,
            start,
            clock,
        });
    }

    fn prepared(&mut self, prepared: Result<Prepared>) {
        let Some(Preparing {
            start, mut clock, ..
        }) = self.preparing.take()
        else {
            return;
        };
        let stage = match prepared {
            Ok(prepared) => {
                clock.allow_for(
                    prepared.0.recipients().len(),
                    &self.connection.driver.timeouts,
                );
                Stage::Queued(prepared)
            }
            Err(error) => Stage::Failed(error),
        };
        self.in_flight.push_back(InFlight {
            stage,
            start,
            session: self.connection.info.clone(),
            clock: Some(clock),
            retry_copy: None,
        });
    }

    /// Starts the first queued message.
    fn start_queued(&mut self) {
        let Some(index) = self.in_flight.iter().position(InFlight::is_queued) else {
            return;
        };
        let message = &mut self.in_flight[index];
        let Some(prepared) = message.take_queued() else {
            return;
        };
        let mut submission = self.connection.new_submission(&prepared.0, &prepared.1);
        let machine = &self.connection.driver.machine;
        let session = machine.check_session(submission.batch_count());
        let session = match session.map_err(Error::from) {
            // More transactions than a session takes: the last ones go over other connections.
            Err(error) if self.renewal.is_some() && error.kind() == ErrorKind::Unsupported => {
                Ok(())
            }
            session => session,
        };
        if self.renewal.is_some()
            && session
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::Closed)
        {
            message.stage = Stage::Queued(prepared);
            self.session_full = true;
            return;
        }
        // A message that no session of this server takes does not stop the others.
        self.input_ended |= session
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Closed);
        let can_start = session
            .map_err(|error| submission.connection_lost(error, 0))
            .is_ok();
        (message.stage, message.retry_copy) =
            (Stage::Started(submission), can_start.then_some(prepared));
        if can_start {
            self.start_batch(self.first_number + index);
        }
    }

    /// Starts the next transaction of the message with this number.
    fn start_batch(&mut self, number: usize) {
        let Some(index) = number.checked_sub(self.first_number) else {
            return;
        };
        let Some(InFlight {
            stage: Stage::Started(submission),
            session,
            retry_copy,
            ..
        }) = self.in_flight.get_mut(index)
        else {
            return;
        };
        session.clone_from(&self.connection.info);
        let Some(prepared) = retry_copy.take() else {
            return;
        };
        let (envelope, mut body) = *prepared;
        let Some(recipients) = submission.next_batch() else {
            return;
        };
        let transaction = self
            .connection
            .transaction(&envelope, recipients, &mut body);
        match self.connection.try_start_transaction(transaction) {
            Ok(()) => {
                submission.on_transaction_started();
                // A message to one recipient needs one transaction.
                if envelope.recipients().len() > 1 || self.renewal.is_some() {
                    *retry_copy = body.restart().map(|body| Box::new((envelope, body)));
                }
                self.open_transactions.push_back(number);
                self.uploading = Some((number, body));
                // The call lasts until no transaction is open.
                CallGuard::resume(&mut self.connection).leave_open();
                self.in_call = true;
            }
            Err(error) => {
                if error.kind() == ErrorKind::Closed {
                    *retry_copy = Some(Box::new((envelope, body)));
                }
                submission.connection_lost(error, 0);
            }
        }
    }

    /// The body of the current message was written.
    fn finish_upload(&mut self) {
        let Some((number, _)) = self.uploading.take() else {
            return;
        };
        let bytes = self.connection.driver.machine.message_bytes();
        if let Some(message) = self.message(number) {
            message.set_bytes(bytes);
        }
    }

    /// The message in flight with this number.
    fn message(&mut self, number: usize) -> Option<&mut InFlight> {
        number
            .checked_sub(self.first_number)
            .and_then(|index| self.in_flight.get_mut(index))
    }

    /// Handles an event: it concerns the first transaction without an outcome; the end of the
    /// session concerns all of them.
    fn on_step(&mut self, step: Step) -> Result<()> {
        if step == Step::Closed {
            return Err(not_sent(step));
        }
        let is_sent = matches!(step, Step::Event(Event::Accepted { .. }));
        if is_sent && self.open_transactions.len() == 1 {
            // If the next transaction waits for this reply, nothing else shows that the whole
            // message was written.
            self.finish_upload();
        }
        self.has_answered |= is_sent
            || matches!(&step, Step::Event(Event::Rejected { reply, .. }) if reply.code() != 421);
        let Some(&number) = self.open_transactions.front() else {
            return Ok(());
        };
        let Some(InFlight {
            stage: Stage::Started(submission),
            ..
        }) = self.message(number)
        else {
            return Ok(());
        };
        let unanswered = submission.unanswered();
        submission.on_step(step);
        let is_answered = submission.unanswered() < unanswered;
        let reports_end = submission.is_over() && submission.is_untouched();
        if is_answered {
            self.open_transactions.pop_front();
        }
        self.end_reported |= reports_end;
        Ok(())
    }

    /// Handles the loss of the connection. The first transactions without an outcome may have been
    /// completed by the server; the others were not.
    fn connection_lost(&mut self, error: Error) {
        self.end_call();
        // A session without a reply to a message is not replaced: the attempts would not end.
        let continues = self.renewal.is_some() && self.has_answered && !self.session_ended;
        self.session_ended = true;
        self.input_ended |= !continues;
        let open_transactions = std::mem::take(&mut self.open_transactions);
        let unknown = self
            .connection
            .driver
            .machine
            .unconfirmed_messages()
            .min(open_transactions.len());
        let mut shared = SharedError::new(error);
        for (number, message) in (self.first_number..).zip(&mut self.in_flight) {
            if let Stage::Started(submission) = &mut message.stage
                && !submission.is_over()
            {
                let unknown = open_transactions
                    .range(..unknown)
                    .filter(|open| **open == number)
                    .count();
                submission.connection_lost(shared.error(), unknown);
            }
        }
        match continues {
            true => self.requeue_untouched(),
            false => self.give_up(shared),
        }
    }

    /// Queues the messages that were not sent because the session ended for another connection.
    fn requeue_untouched(&mut self) {
        for message in &mut self.in_flight {
            if message.can_be_retried()
                && let Some(retry_copy) = message.retry_copy.take()
            {
                message.stage = Stage::Queued(retry_copy);
            }
        }
    }

    /// Ends all messages that were not started.
    fn give_up(&mut self, mut shared: SharedError) {
        for message in &mut self.in_flight {
            message.retry_copy = None;
            let Some(prepared) = message.take_queued() else {
                continue;
            };
            let mut submission = self.connection.new_submission(&prepared.0, &prepared.1);
            submission.connection_lost(shared.error(), 0);
            message.stage = Stage::Started(submission);
        }
        let (error, start) = if let Some(Preparing { start, .. }) = self.preparing.take() {
            (shared.error(), start)
        } else if let Some(error) = shared.unused()
            && !self.end_reported
        {
            // Between two messages: none has failed, but the next one cannot be sent.
            (error, MessageStart::now(&self.connection))
        } else {
            return;
        };
        let stage = Stage::Failed(error);
        self.in_flight.push_back(InFlight {
            stage,
            start,
            session: self.connection.info.clone(),
            clock: None,
            retry_copy: None,
        });
    }
}

impl InFlight {
    fn is_over(&self) -> bool {
        match &self.stage {
            Stage::Queued(..) => false,
            Stage::Started(submission) => submission.is_over(),
            Stage::Failed(_) => true,
        }
    }

    fn is_queued(&self) -> bool {
        matches!(self.stage, Stage::Queued(..))
    }

    /// The session ended before the server took anything of the message, and it can be sent again.
    fn can_be_retried(&self) -> bool {
        self.retry_copy.is_some() && self.submission().is_some_and(Submission::is_untouched)
    }

    /// Takes the message out of the queue.
    fn take_queued(&mut self) -> Option<Prepared> {
        let failed = Stage::Failed(not_sent(Step::Closed));
        match std::mem::replace(&mut self.stage, failed) {
            Stage::Queued(prepared) => Some(prepared),
            other => {
                self.stage = other;
                None
            }
        }
    }

    fn submission(&self) -> Option<&Submission> {
        match &self.stage {
            Stage::Started(submission) => Some(submission),
            _ => None,
        }
    }

    /// The message was written, with this size.
    fn set_bytes(&mut self, bytes: u64) {
        if let Stage::Started(submission) = &mut self.stage {
            submission.set_bytes(bytes);
        }
    }

    fn finish(self, connection: &Connection) -> Result<Receipt> {
        let facts = connection.facts();
        let (delivery, result) = match self.stage {
            Stage::Started(submission) => submission.finish(&facts),
            Stage::Failed(error) => (Delivery::default(), Err(error)),
            Stage::Queued(..) => (Delivery::default(), Err(not_sent(Step::Closed))),
        };
        let receipt = connection.receipt(&self.session, delivery, self.start);
        match result {
            Ok(()) => Ok(receipt),
            Err(error) => Err(error.advised(&facts).with_receipt(receipt)),
        }
    }
}
