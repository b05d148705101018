//! Many messages in a row, without waiting for the answer to one before the next goes.

use std::collections::VecDeque;
use std::ops::DerefMut;
use std::pin::{Pin, pin};
use std::sync::Arc;

use futures::future::{Either, select};
use futures::stream::{self, Stream, StreamExt as _};

use super::call::CallGuard;
use super::clock::Clock;
use super::submission::{SharedError, Submission};
use super::{Connection, MessageStart, not_sent, prepare_by};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Body, Message};
use crate::proto::Step;
use crate::receipt::{Delivery, Receipt, SessionInfo};
use crate::{Endpoint, Envelope};

/// So many messages may be under way. More would gain nothing: at 100 ms there and back, this is
/// 640 messages a second.
const WINDOW: usize = 64;

impl Connection {
    /// Sends the messages of a stream, and gives what became of each, in their order.
    ///
    /// Where the server takes PIPELINING, a message does not wait for the answer to the one before:
    /// so throughput does not depend on the distance. With CHUNKING (RFC 3030), small messages
    /// follow one another without a pause; otherwise the commands of the next ride with the end of the
    /// one before. At most 64 are under way.
    ///
    /// A message that fails does not keep the next from going. When the connection is lost, each
    /// message that was begun still gets its outcome, [unknown](Error::outcome_unknown) or not
    /// sent, and the stream ends; messages that were not asked for yet are not touched. If it is
    /// lost between two messages, a last error says so. Dropped before its end, the stream leaves a
    /// connection that refuses further use.
    ///
    /// What was not sent because the session ended has an error that is
    /// [transient](Error::is_transient) and not unknown, with the server's 421 as its
    /// [reply](Error::reply) or with [`ErrorKind::Closed`]: it can be sent over another connection,
    /// as `Pool::send_all` does by itself. A server that answers 421 and closes has not processed
    /// the messages whose MAIL it did not answer (RFC 5321, 3.8; RFC 2920, 3.2);
    /// [`proto`](crate::proto#after-421) has the details. Exim closes no connection at its limit of
    /// 1,000 messages, and answers 421 to each MAIL beyond it.
    ///
    /// Each message has the time limits of its own, from when it is taken from the stream; the
    /// [deadline](crate::Timeouts::deadline) includes the time in which the messages before it are
    /// answered. A limit that passes ends the session. It holds also while `messages` or the
    /// preparation of the next one is slow.
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

/// By which another connection is made, and how many messages go over each at most.
pub(crate) type Renewal = (Endpoint, usize);

/// Sends the messages over this connection; with a `renewal`, over another one in its place once
/// the server has ended its session or takes no more in it.
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
        // A connection that was kept may prove dead.
        has_answered: true,
        end_reported: false,
    };
    stream::unfold(state, |mut state| async move {
        state.next().await.map(|outcome| (outcome, state))
    })
}

/// Messages on their way, in order.
struct SendAll<'m, C, S> {
    connection: C,
    renewal: Option<Renewal>,
    messages: Pin<Box<S>>,
    /// The stream has ended, or the connection, and no other follows.
    input_ended: bool,
    /// The message that was taken from the stream last, until it is prepared.
    preparing: Option<Preparing<'m>>,
    /// A call is open on the connection, for the open transactions.
    in_call: bool,
    /// The message that is being given, by its number.
    uploading: Option<(usize, Body)>,
    in_flight: VecDeque<InFlight>,
    /// How many messages were under way before these. The first one has this number.
    first_number: usize,
    /// The numbers of the messages of the transactions that have no outcome, in the order in which
    /// they began. A further part of a message may begin after the messages that follow it.
    open_transactions: VecDeque<usize>,
    /// The session has ended, and another one is to follow.
    session_ended: bool,
    /// The session has fewer transactions left than the next message needs.
    session_full: bool,
    /// The server has given its final reply to a message in this session.
    has_answered: bool,
    /// The outcome of some message says that the session has ended.
    end_reported: bool,
}

/// A message as it can be sent.
type Prepared = Box<(Envelope, Body)>;

struct Preparing<'m> {
    prepared: Pin<Box<dyn Future<Output = Result<Prepared>> + Send + 'm>>,
    start: MessageStart,
    clock: Clock,
}

/// A message that was taken from the stream and whose outcome was not given.
struct InFlight {
    stage: Stage,
    start: MessageStart,
    /// The session that it is sent in.
    session: Arc<SessionInfo>,
    /// Its time limits, until they are those of the connection: while it is the first without an
    /// outcome.
    clock: Option<Clock>,
    /// The message from its beginning, where another part may follow, or it may go over another
    /// connection.
    retry_copy: Option<Prepared>,
}

enum Stage {
    /// It has not begun.
    Queued(Prepared),
    Started(Submission),
    /// It could not be prepared, or there was no connection for it any more.
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

    /// Takes the next message, or gives more of the one that is being given, or takes an answer to
    /// those under way.
    async fn advance(&mut self) -> Result<()> {
        self.follow_first();
        let goes_on =
            |message: &InFlight| message.submission().is_some_and(Submission::has_next_batch);
        let another_part = self.in_flight.iter().position(goes_on);
        let is_queued = self.in_flight.iter().any(InFlight::is_queued);
        // The further parts of a message go over another connection then.
        let is_exhausted = self.renewal.is_some()
            && another_part.is_some()
            && self.connection.driver.machine.transactions_left() == Some(0);
        let is_idle = self.open_transactions.is_empty() && (another_part.is_none() || is_exhausted);
        if is_idle {
            self.end_call();
            let has_next = is_queued || another_part.is_some();
            // After a 421 the end of the session is still to come.
            let has_ended = self.in_flight.iter().any(InFlight::can_be_retried);
            if self.session_ended || self.is_session_used_up() && !has_ended {
                if !has_next {
                    // No connection is made unless another message comes, and by its time limits.
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
        let may_begin = driver.machine.may_begin();
        if let Some(index) = another_part
            && may_begin
            && (is_idle || !is_exhausted)
        {
            self.start_batch(self.first_number + index);
            return Ok(());
        }
        if is_queued && may_begin && !self.is_session_used_up() {
            self.start_queued();
            return Ok(());
        }
        let is_full =
            self.input_ended || self.in_flight.len() >= WINDOW || self.is_session_used_up();
        let takes_more = !is_full || self.preparing.is_some();
        if another_part.is_some() || is_queued || !takes_more || !may_begin {
            let step = self.connection.driver.next(None).await?;
            return self.on_step(step);
        }
        self.take_next(is_idle).await
    }

    /// Takes what comes next: a message, or that it is prepared, or an answer.
    async fn take_next(&mut self, is_idle: bool) -> Result<()> {
        match self.next_arrival(is_idle).await? {
            Arrival::Message(Some(message)) => self.prepare(*message),
            Arrival::Message(None) => self.input_ended = true,
            Arrival::Prepared(prepared) => self.prepared(prepared),
            Arrival::Step(step) => self.on_step(step)?,
        }
        Ok(())
    }

    /// The next message, or that it is prepared. While others are unanswered, what the server says
    /// may come first.
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
        let heard = pin!(self.connection.driver.next(None));
        match select(pin!(source), heard).await {
            Either::Left((came, _)) => Ok(came),
            Either::Right((step, _)) => Ok(Arrival::Step(step?)),
        }
    }

    /// The time limits are those of the first message without an outcome. It was taken before the
    /// others, so that no deadline comes before its own.
    fn follow_first(&mut self) {
        let first = self.in_flight.iter_mut().find(|message| !message.is_over());
        if let Some(clock) = first.and_then(|message| message.clock.take()) {
            self.connection.driver.clock = clock;
        }
    }

    /// Another connection takes the place of this one, in whose session no more messages go.
    async fn renew(&mut self) -> Result<()> {
        let Some((endpoint, _)) = &self.renewal else {
            return Ok(());
        };
        self.connection.send_quit(false).await;
        // Until it is there.
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

    /// Until nothing is outstanding on the connection.
    async fn wait_until_ready(&mut self, has_next: bool) -> Result<()> {
        // A message has time limits of its own already.
        let mut call = match has_next {
            true => CallGuard::start(&mut self.connection)?,
            false => CallGuard::start_step(&mut self.connection)?,
        };
        let result = call.driver.until_ready().await;
        call.complete();
        result
    }

    /// Nothing is in progress on the connection: a stream that is dropped now leaves it usable.
    fn end_call(&mut self) {
        self.uploading = None;
        // Not a call that was given up before this stream.
        if std::mem::take(&mut self.in_call) {
            CallGuard::resume(&mut self.connection).complete();
        }
    }

    /// No more messages are to begin in this session, but may in the next.
    fn is_session_used_up(&self) -> bool {
        let machine = &self.connection.driver.machine;
        let begun = machine.transactions_begun();
        self.renewal.as_ref().is_some_and(|(_, most)| {
            begun > 0
                && (self.session_full || machine.transactions_left() == Some(0) || begun >= *most)
        })
    }

    fn prepare(&mut self, message: Message<'m>) {
        let start = MessageStart::now(&self.connection);
        let clock = Clock::start(&self.connection.driver.timeouts);
        let by = clock.clone();
        let prepared = Box::pin(async move { prepare_by(&by, message).await.map(Box::new) });
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

    /// Begins the first message that waits.
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
            // It has more parts than a session takes: the last ones go over other connections.
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
        // After one that no session of this server takes, others may go.
        self.input_ended |= session
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Closed);
        let may_begin = session
            .map_err(|error| submission.connection_lost(error, 0))
            .is_ok();
        (message.stage, message.retry_copy) =
            (Stage::Started(submission), may_begin.then_some(prepared));
        if may_begin {
            self.start_batch(self.first_number + index);
        }
    }

    /// Begins the next part of the message with this number.
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
                // A message to one recipient goes in one part.
                if envelope.recipients().len() > 1 || self.renewal.is_some() {
                    *retry_copy = body.restart().map(|body| Box::new((envelope, body)));
                }
                self.open_transactions.push_back(number);
                self.uploading = Some((number, body));
                // Until no transaction is open.
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

    /// The message that was being given, or a part of it, has gone.
    fn finish_upload(&mut self) {
        let Some((number, _)) = self.uploading.take() else {
            return;
        };
        let bytes = self.connection.driver.machine.message_bytes();
        if let Some(message) = self.message(number) {
            message.set_bytes(bytes);
        }
    }

    /// The message with this number, unless it is finished.
    fn message(&mut self, number: usize) -> Option<&mut InFlight> {
        number
            .checked_sub(self.first_number)
            .and_then(|index| self.in_flight.get_mut(index))
    }

    /// An event is about the first transaction that has no outcome; the end of the session, about
    /// all of those.
    fn on_step(&mut self, step: Step) -> Result<()> {
        if step == Step::Closed {
            return Err(not_sent(step));
        }
        let is_sent = matches!(step, Step::Accepted { .. });
        if is_sent && self.open_transactions.len() == 1 {
            // Where the next transaction waits for this answer, nothing else says that all of the
            // message went.
            self.finish_upload();
        }
        self.has_answered |=
            is_sent || matches!(&step, Step::Rejected { reply, .. } if reply.code() != 421);
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
        let is_told = submission.is_over() && submission.is_untouched();
        if is_answered {
            self.open_transactions.pop_front();
        }
        self.end_reported |= is_told;
        Ok(())
    }

    /// The connection is lost. The first transactions without an outcome may have been carried out,
    /// the others were not.
    fn connection_lost(&mut self, error: Error) {
        self.end_call();
        // A session in which no message was answered is not followed by another: that would be for
        // ever.
        let goes_on = self.renewal.is_some() && self.has_answered && !self.session_ended;
        self.session_ended = true;
        self.input_ended |= !goes_on;
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
        match goes_on {
            true => self.requeue_untouched(),
            false => self.give_up(shared),
        }
    }

    /// What was not sent because the session ended goes over another connection.
    fn requeue_untouched(&mut self) {
        for message in &mut self.in_flight {
            if message.can_be_retried()
                && let Some(retry_copy) = message.retry_copy.take()
            {
                message.stage = Stage::Queued(retry_copy);
            }
        }
    }

    /// What has not begun does not begin any more.
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
            // Between two messages: no message has failed, but the next cannot be sent.
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

    /// The session ended before the server took anything of it, and another one may follow.
    fn can_be_retried(&self) -> bool {
        self.retry_copy.is_some() && self.submission().is_some_and(Submission::is_untouched)
    }

    /// It waits no longer.
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
