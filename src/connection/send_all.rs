//! Many messages in flight: the next one is sent before the reply to the one before arrives.

use std::collections::{HashMap, VecDeque};
use std::ops::DerefMut;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::{self, StreamExt as _};

use super::call::CallGuard;
use super::clock::Clock;
use super::in_flight::{InFlight, Settled, Unsent};
use super::{Connection, MessageStart, errors, not_sent, prepare_by};
use crate::diagnose;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::message::{Body, Message, PreparedMessage};
use crate::proto::{Event, Step};
use crate::receipt::Receipt;
use crate::{Endpoint, Envelope, telemetry};

impl Connection {
    /// Sends the messages of a stream, and yields the outcome of each, in their order.
    ///
    /// If the server offers PIPELINING, a message does not wait for the reply to the one before, so
    /// latency does not limit throughput. With CHUNKING (RFC 3030), small messages follow one
    /// another without a pause; otherwise the commands of the next one are sent with the end of the
    /// one before. [`Endpoint::send_window`] limits the messages in flight; the default is 64.
    ///
    /// A message that fails does not stop the others. If the connection is lost, each message that
    /// was started gets its outcome, [unknown](Error::outcome_unknown) or not sent, and the stream
    /// ends; messages that were not yet taken from `messages` are untouched. If it is lost between
    /// two messages, a last error says so. A message whose content fails while it is sent, with
    /// [`ErrorKind::Input`], ends the connection, as it cannot be completed.
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
    ///     let mail = MessageBuilder::new().from("me@example.org").to(customer);
    ///     Message::from(mail.text_body("Hello."))
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
        send_all(self, messages.map(Incoming::Message), None).map(|settled| match settled {
            Settled::Outcome(result) => result,
            Settled::Unsent(_, error) | Settled::Lost(error) => Err(error),
        })
    }
}

/// A message to send.
pub(crate) enum Incoming<'m> {
    Message(Message<'m>),
    /// One that another connection did not send.
    #[cfg_attr(not(feature = "pool"), expect(dead_code, reason = "a pool has others"))]
    Unsent(Unsent),
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
/// server has ended the session or takes no more messages in it; a message that is not sent because
/// it cannot be replaced is returned.
pub(crate) fn send_all<'c, 'm: 'c>(
    connection: impl DerefMut<Target = Connection> + 'c,
    messages: impl Stream<Item = Incoming<'m>> + 'c,
    renewal: Option<Renewal>,
) -> impl Stream<Item = Settled> + 'c {
    // Boxed, since `unfold` moves it with each outcome.
    let state = Box::new(SendAll {
        in_flight: InFlight::new(connection.send_window),
        connection,
        renewal,
        messages: Box::pin(messages.fuse()),
        input_ended: false,
        taken: None,
        preparing: None,
        in_call: false,
        uploading: None,
        open_transactions: VecDeque::new(),
        session_ended: false,
        session_full: false,
        // A connection from a pool may turn out to be closed: another one may follow.
        has_answered: true,
        end_reported: false,
        end: None,
    });
    stream::unfold(state, |mut state| async move {
        state.next().await.map(|settled| (settled, state))
    })
}

/// The state of the stream.
struct SendAll<'m, C: DerefMut<Target = Connection>, S> {
    connection: C,
    renewal: Option<Renewal>,
    messages: Pin<Box<S>>,
    /// No more messages are taken: the stream ended, or the connection ended and cannot be
    /// replaced.
    input_ended: bool,
    /// The message taken from the stream last, until its preparation starts.
    taken: Option<Incoming<'m>>,
    /// The preparation of that message.
    preparing: Option<Preparing<'m>>,
    /// A call is open on the connection, for the open transactions.
    in_call: bool,
    /// The message whose body is being sent, by its number.
    uploading: Option<(usize, Body)>,
    in_flight: InFlight,
    /// The transactions without an outcome, in the order in which they were started. A further one
    /// of a message may start after those of later messages.
    open_transactions: VecDeque<OpenTransaction>,
    /// The session has ended, and was not replaced yet.
    session_ended: bool,
    /// The session has fewer transactions left than the next message needs.
    session_full: bool,
    /// The server has sent the final reply to a message in this session.
    has_answered: bool,
    /// The outcome of a message says that the session has ended.
    end_reported: bool,
    /// The end of the session, for the message that is still being prepared.
    end: Option<SessionEnd>,
}

/// A transaction without an outcome.
struct OpenTransaction {
    /// The number of the message.
    number: usize,
    /// The body that was given to the machine whole, and its bytes, if its progress is reported.
    given: Option<(Body, u64)>,
}

struct Preparing<'m> {
    future: Pin<Box<dyn Future<Output = Result<Box<PreparedMessage>>> + Send + 'm>>,
    start: MessageStart,
    clock: Clock,
}

enum Arrival {
    /// The next message was taken from the stream.
    Message,
    InputEnded,
    Prepared(Result<Box<PreparedMessage>>),
    Step(Step),
}

impl<'m, C: DerefMut<Target = Connection>, S: Stream<Item = Incoming<'m>>> SendAll<'m, C, S> {
    async fn next(&mut self) -> Option<Settled> {
        loop {
            if let Some(message) = self.in_flight.pop_finished() {
                if self.open_transactions.is_empty() {
                    self.end_call();
                }
                let settled = message.finish(&self.connection);
                if let Settled::Outcome(result) = &settled {
                    telemetry::sent(&self.connection.server, result);
                }
                return Some(settled);
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
        // No deadline of a message is earlier than that of one before it.
        if let Some(clock) = self.in_flight.first_clock() {
            self.connection.driver.clock = clock;
        }
        let further = self.in_flight.first_with_further();
        // Further transactions of the message go over another connection then.
        let is_exhausted = self.renewal.is_some()
            && further.is_some()
            && self.connection.driver.machine.transactions_left() == Some(0);
        let is_idle = self.open_transactions.is_empty() && (further.is_none() || is_exhausted);
        if is_idle {
            self.end_call();
            let has_next = self.in_flight.has_queued() || further.is_some();
            // After a 421 the end of the session has not been read yet.
            let has_ended = self.in_flight.has_untouched();
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
        if let Some(number) = further
            && can_start
            && (is_idle || !is_exhausted)
        {
            self.start_batch(number);
            return Ok(());
        }
        if can_start && self.in_flight.can_start_queued() && !self.is_session_used_up() {
            self.start_queued();
            return Ok(());
        }
        let is_full = self.input_ended || !self.in_flight.has_room() || self.is_session_used_up();
        let takes_more = !is_full || self.preparing.is_some();
        if further.is_some() || self.in_flight.has_queued() || !takes_more || !can_start {
            let step = self.connection.driver.next(None).await?;
            return self.on_step(step);
        }
        self.take_next(is_idle).await
    }

    /// Handles the next [`Arrival`].
    async fn take_next(&mut self, is_idle: bool) -> Result<()> {
        match self.next_arrival(is_idle).await? {
            Arrival::Message => match self.taken.take() {
                Some(Incoming::Message(message)) => self.prepare(message),
                Some(Incoming::Unsent(unsent)) => {
                    let now = MessageStart::now(&self.connection);
                    let start = MessageStart {
                        at: unsent.taken_at,
                        ..now
                    };
                    self.in_flight.push(unsent.prepared, start, unsent.clock);
                }
                None => {}
            },
            Arrival::InputEnded => self.input_ended = true,
            Arrival::Prepared(prepared) => self.prepared(prepared),
            Arrival::Step(step) => self.on_step(step)?,
        }
        Ok(())
    }

    /// Waits for the next message, or until it is prepared, and meanwhile for replies to the
    /// messages in flight. The future that loses is dropped, which is safe:
    /// [`Driver::next`](super::driver::Driver::next) is cancel-safe, and the stream and the
    /// preparation continue with their next poll.
    async fn next_arrival(&mut self, is_idle: bool) -> Result<Arrival> {
        let (messages, taken) = (&mut self.messages, &mut self.taken);
        let preparing = &mut self.preparing;
        let source = async {
            if let Some(Preparing { future, .. }) = preparing {
                return Arrival::Prepared(future.as_mut().await);
            }
            *taken = messages.next().await;
            match taken {
                Some(_) => Arrival::Message,
                None => Arrival::InputEnded,
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
        let future = Box::pin(async move {
            let mut message = Box::new(prepare_by(&by, message).await?);
            message.body.find_content(is_8bitmime_offered).await?;
            if let Some(admit) = admit {
                message.envelope = admit(message.envelope, by).await?;
            }
            Ok(message)
        });
        self.preparing = Some(Preparing {
            future,
            start,
            clock,
        });
    }

    fn prepared(&mut self, prepared: Result<Box<PreparedMessage>>) {
        let Some(Preparing {
            start, mut clock, ..
        }) = self.preparing.take()
        else {
            return;
        };
        match prepared {
            Ok(prepared) => {
                clock.allow_for(
                    prepared.envelope.recipients().len(),
                    &self.connection.driver.timeouts,
                );
                self.in_flight.push(prepared, start, clock);
            }
            Err(error) => self.in_flight.push_failed(error, start),
        }
        if let Some(end) = self.end.take() {
            self.give_up(end);
        }
    }

    /// Starts the first queued message.
    fn start_queued(&mut self) {
        let Some(message) = self.in_flight.first_queued() else {
            return;
        };
        let mut submission = message.new_submission(&self.connection);
        let machine = &self.connection.driver.machine;
        let checked = machine
            .check_session(submission.batch_count())
            .map_err(Error::from);
        match checked {
            Err(error) if self.renewal.is_some() && error.kind() == ErrorKind::Closed => {
                self.session_full = true;
            }
            // More transactions than a session takes: with a renewal, the last ones go over other
            // connections.
            Err(error) if self.renewal.is_none() || error.kind() != ErrorKind::Unsupported => {
                // A message that no session of this server takes does not stop the others.
                self.input_ended |= error.kind() == ErrorKind::Closed;
                message.prepared = None;
                submission.connection_lost(error, 0);
                self.in_flight.start_queued(submission);
            }
            _ => {
                let number = self.in_flight.start_queued(submission);
                self.start_batch(number);
            }
        }
    }

    /// Starts the next transaction of the message with this number.
    fn start_batch(&mut self, number: usize) {
        let Some((submission, prepared)) = self.in_flight.started(number) else {
            return;
        };
        let Some(mut message) = prepared.take() else {
            return;
        };
        let Some(recipients) = submission.next_batch() else {
            return;
        };
        let transaction = self.connection.transaction(&mut message, recipients);
        match self.connection.try_start_transaction(transaction) {
            Ok(()) => {
                submission.on_transaction_started(&self.connection.info);
                // A message to one recipient needs one transaction.
                let is_kept = message.envelope.recipients().len() > 1 || self.renewal.is_some();
                let body = match message.body.restart().filter(|_| is_kept) {
                    Some(again) => {
                        let body = std::mem::replace(&mut message.body, again);
                        *prepared = Some(message);
                        body
                    }
                    None => message.into_body(),
                };
                self.open_transactions.push_back(OpenTransaction {
                    number,
                    given: None,
                });
                self.uploading = Some((number, body));
                // The call lasts until no transaction is open.
                CallGuard::resume(&mut self.connection).leave_open();
                self.in_call = true;
            }
            Err(error) => {
                if error.kind() == ErrorKind::Closed {
                    *prepared = Some(message);
                }
                submission.connection_lost(error, 0);
            }
        }
        self.in_flight.update(number);
    }

    /// The body of the current message was written, or no more of it will be.
    fn finish_upload(&mut self) {
        let Some((number, body)) = self.uploading.take() else {
            return;
        };
        let bytes = self.connection.driver.machine.message_bytes();
        if let Some((submission, _)) = self.in_flight.started(number) {
            submission.on_upload_ended(&body, bytes);
        }
        if let Some(transaction) = self.open_transactions.back_mut()
            && body.reports_progress()
        {
            transaction.given = Some((body, bytes));
        }
    }

    /// Handles an event: it concerns the first transaction without an outcome; the end of the
    /// session concerns all of them.
    fn on_step(&mut self, step: Step) -> Result<()> {
        if step == Step::Closed {
            return Err(not_sent(step));
        }
        self.has_answered |= match &step {
            Step::Event(Event::Accepted { .. }) => true,
            Step::Event(Event::Rejected { reply, .. }) => reply.code() != 421,
            // If the session ends, that says nothing about the server.
            Step::Event(Event::Withdrawn) => true,
            _ => false,
        };
        let Some(transaction) = self.open_transactions.front_mut() else {
            return Ok(());
        };
        let number = transaction.number;
        let Some((submission, _)) = self.in_flight.started(number) else {
            return Ok(());
        };
        // The last bytes were written together with later commands.
        if let Step::Event(Event::Accepted { .. }) = &step
            && let Some((mut body, bytes)) = transaction.given.take()
        {
            body.report_progress(bytes, true);
        }
        let unanswered = submission.unanswered();
        // After DATA, the session ends with the message.
        self.end_reported |=
            step == Step::Event(Event::Withdrawn) && self.connection.driver.machine.is_closed();
        submission.on_step(step);
        if submission.unanswered() == unanswered {
            return Ok(());
        }
        self.end_reported |= submission.is_over() && submission.is_untouched();
        if self.open_transactions.len() == 1 {
            // The message that was being sent is this one.
            self.finish_upload();
        }
        self.open_transactions.pop_front();
        self.in_flight.update(number);
        Ok(())
    }

    /// Handles the loss of the connection. The first transactions without an outcome may have been
    /// completed by the server; the others were not.
    fn connection_lost(&mut self, error: Error) {
        self.finish_upload();
        self.end_call();
        // A session without a reply to a message is not replaced: the attempts would not end. One
        // that ended because of a message's content says nothing about the server.
        let may_be_replaced = self.has_answered || error.kind() == ErrorKind::Input;
        let continues = self.renewal.is_some() && may_be_replaced && !self.session_ended;
        self.session_ended = true;
        self.input_ended |= !continues;
        let mut open_transactions = std::mem::take(&mut self.open_transactions);
        let unknown = self
            .connection
            .driver
            .machine
            .unconfirmed_messages()
            .min(open_transactions.len());
        let mut unknown_of: HashMap<usize, usize> = HashMap::new();
        for transaction in open_transactions.drain(..unknown) {
            *unknown_of.entry(transaction.number).or_default() += 1;
        }
        let mut end = SessionEnd::new(error);
        for (number, submission) in self.in_flight.all_started() {
            if !submission.is_over() {
                let unknown = unknown_of.remove(&number).unwrap_or_default();
                submission.connection_lost(end.next_error(), unknown);
            }
        }
        match continues {
            true => self.in_flight.requeue_untouched(),
            false => self.give_up(end),
        }
    }

    /// Ends all messages that were not started.
    fn give_up(&mut self, mut end: SessionEnd) {
        let connection = &self.connection;
        self.in_flight.give_up(self.renewal.is_some(), |message| {
            let mut submission = message.new_submission(connection);
            submission.connection_lost(end.next_error(), 0);
            submission
        });
        if self.preparing.is_some() && self.renewal.is_some() {
            self.end = Some(end);
        } else if let Some(Preparing { start, .. }) = self.preparing.take() {
            self.in_flight.push_failed(end.next_error(), start);
        } else if let Some(error) = end.cause
            && !self.end_reported
        {
            // Between two messages: none has failed, but the next one cannot be sent.
            let start = MessageStart::now(connection);
            self.in_flight.push_lost(error, start);
        }
    }
}

/// A stream that is dropped before its end reports the messages that it took and did not return.
impl<C: DerefMut<Target = Connection>, S> Drop for SendAll<'_, C, S> {
    fn drop(&mut self) {
        let server = &self.connection.server;
        for message in self.in_flight.take_messages() {
            let elapsed = message.elapsed();
            match message.into_outcome(&self.connection) {
                Some(result) => telemetry::sent(server, &result),
                None => telemetry::dropped(server, elapsed),
            }
        }
        if let Some(Preparing { start, .. }) = &self.preparing {
            telemetry::dropped(server, start.at.elapsed());
        }
        if self.taken.is_some() {
            telemetry::dropped(server, Duration::ZERO);
        }
    }
}

/// Why the session ended, for all messages that were not sent for that reason.
struct SessionEnd {
    /// The error itself, with its cause, for the first of them.
    cause: Option<Error>,
    /// One that says the same, for the others.
    consequence: Error,
}

impl SessionEnd {
    fn new(error: Error) -> Self {
        let consequence = match error.reply().filter(|reply| reply.code() == 421) {
            Some(reply) => Error::refused(
                ErrorKind::Closed,
                Phase::Mail,
                errors::ENDED_BEFORE,
                reply.clone(),
            ),
            None => Error::new(ErrorKind::Closed, Phase::Body, error.message())
                .with_hint(diagnose::hint_for_eof(Phase::Body, false, true)),
        };
        SessionEnd {
            cause: Some(error),
            consequence,
        }
    }

    fn next_error(&mut self) -> Error {
        self.cause
            .take()
            .unwrap_or_else(|| self.consequence.clone())
    }
}
