//! The driver of the machine: the one place where bytes, time and the protocol meet.
//!
//! [`Driver::next`] writes what the socket takes and reads what is there in the same poll, so an
//! early answer is read at once, and client and server cannot wait for each other.
//!
//! # Cancel safety
//!
//! Every method of [`Driver`] is cancel-safe: a dropped future loses no byte, no event and no
//! time. `send_all` relies on it, since it drops [`Driver::next`] whenever a message arrives first.
//! Everything that must survive is in the driver, the machine or the [`Body`], and changes only
//! between two await points:
//!
//! - [`read_available`](Driver::read_available): The machine has the bytes that were read; the next
//!   call looks again.
//! - `exchange`: write, read, or a time-out: [`Machine::wrote`] and [`Machine::input`] are called
//!   in the poll that moved the bytes. The reply's time limit counts from `reply_wait`, which
//!   stays; the time waited is charged by the drop of [`ServerWait`].
//! - `feed`: the same, or the next piece of the message: As above. A piece goes from
//!   [`Body::poll_chunk`] to the machine without an await between the two.
//! - `await_handover`: The callback, in `handovers`, which later calls poll on.
//! - `read_last_replies`: The reads so far. Its limit counts from the failure of the transport,
//!   which stays.
//! - [`flush`](Driver::flush): The unwritten output, in the machine.
//!
//! [`Machine::step`] gives each event once. It is returned without an await after it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
#[cfg(feature = "pool")]
use std::task::Waker;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::clock::{Clock, FAR, Limit, LimitKind};
use super::handovers::HandoverQueue;
use super::not_sent;
use crate::error::{Error, Phase, Result};
use crate::message::Body;
use crate::proto::{AbortReason, Chunk, Event, Machine, ProtocolError, Reply, Step, Transaction};
use crate::transport::{Stream, Transport};
use crate::{Timeouts, telemetry};

/// How long replies are read after a write failed: they say why the server closed.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// How much is read at a time; replies are short.
const READ_SIZE: usize = 8 * 1024;

/// The machine with its stream and its clock.
pub(super) struct Driver {
    pub(super) machine: Machine,
    pub(super) transport: Transport,
    /// Something was written and not flushed.
    unflushed: bool,
    /// Why and when the transport failed, if it did.
    io_error: Option<(io::Error, Instant)>,
    /// Why the session was aborted, until [`step`](Self::step) has told what the machine says of
    /// that.
    abort_error: Option<Error>,
    /// The callbacks of the messages whose end the machine holds back.
    handovers: HandoverQueue,
    /// When bytes of the server last arrived.
    pub(super) last_read_at: Instant,
    /// Since when the server has taken nothing of what waits for it.
    stalled_since: Instant,
    /// The reply that is awaited: its phase, the number of replies before it, and since when.
    reply_wait: Option<(Phase, u64, Instant)>,
    /// How long the server was waited for while it took this message; and the excess of the
    /// messages before it over what the lowest rate allows.
    body_wait: Duration,
    pub(super) timeouts: Timeouts,
    pub(super) clock: Clock,
}

impl Driver {
    pub(super) fn new(
        machine: Machine,
        stream: Box<dyn Stream>,
        timeouts: Timeouts,
        clock: Clock,
    ) -> Self {
        Driver {
            machine,
            transport: Transport::Plain(stream),
            unflushed: false,
            io_error: None,
            abort_error: None,
            handovers: HandoverQueue::default(),
            last_read_at: Instant::now(),
            stalled_since: Instant::now(),
            reply_wait: None,
            body_wait: Duration::ZERO,
            timeouts,
            clock,
        }
    }

    /// Drives I/O until the machine yields a step other than `Wait`. The pieces of the message come
    /// from `body`, if it is given.
    pub(super) async fn next(&mut self, body: Option<&mut Body>) -> Result<Step> {
        match self.drive(body, |_| false).await? {
            Some(step) => Ok(step),
            None => self.step(),
        }
    }

    /// Drives I/O like [`next`](Self::next), but returns `None` once another transaction can start.
    pub(super) async fn next_or_startable(
        &mut self,
        body: Option<&mut Body>,
    ) -> Result<Option<Step>> {
        self.drive(body, Machine::may_begin).await
    }

    async fn drive(
        &mut self,
        mut body: Option<&mut Body>,
        stop_when: impl Fn(&Machine) -> bool,
    ) -> Result<Option<Step>> {
        loop {
            self.read_last_replies().await;
            let step = self.step()?;
            // Bytes that arrived before the next command was written do not answer it.
            if matches!(step, Step::Wait { .. } | Step::Body { .. })
                && self.machine.should_read_first()
                && self.read_available().await
            {
                continue;
            }
            if let Some(body) = body.as_deref_mut() {
                self.report_progress(&step, body);
            }
            match (step, body.as_deref_mut()) {
                (Step::Wait { .. } | Step::Ready | Step::Handover, _)
                    if stop_when(&self.machine) =>
                {
                    return Ok(None);
                }
                (Step::Body { .. }, Some(body)) => self.feed(Some(body)).await?,
                (Step::Wait { phase: Phase::Body }, _) => self.feed(None).await?,
                (Step::Wait { phase }, _) => self.exchange(phase).await,
                (Step::Handover, _) => self.await_handover().await,
                (step, _) => return Ok(Some(step)),
            }
        }
    }

    /// Gives a piece of the message to the machine. While nothing waits for the server, it is the
    /// source of the message that takes the time.
    pub(super) fn give_piece(&mut self, piece: impl Into<Chunk>) -> Result<(), ProtocolError> {
        if !self.has_unsent() {
            self.stalled_since = Instant::now();
        }
        self.machine.body(piece)
    }

    /// Whether the transport has not taken and flushed everything yet.
    fn has_unsent(&self) -> bool {
        self.unflushed || !self.machine.output().is_empty()
    }

    fn report_progress(&self, step: &Step, body: &mut Body) {
        let all_gone = match step {
            Step::Body { .. } | Step::Wait { phase: Phase::Body } | Step::Handover => false,
            Step::Wait { .. } | Step::Event(Event::Accepted { .. }) => {
                self.machine.output().is_empty() && !self.machine.is_holding()
            }
            _ => return,
        };
        body.report_progress(self.machine.message_bytes_gone(), all_gone);
    }

    /// Writes and flushes what the machine has of the message, until it asks for more of it or
    /// yields another step.
    pub(super) async fn flush_body(&mut self) -> Result<Step> {
        loop {
            self.read_last_replies().await;
            match self.step()? {
                Step::Body { .. } if self.has_unsent() => self.feed(None).await?,
                // Without PIPELINING, the answer to a chunk comes before the next one goes.
                Step::Wait { .. } => self.feed(None).await?,
                step => return Ok(step),
            }
        }
    }

    /// Drives I/O until every command sent before is answered. Reads first what arrived since: a
    /// session that the server has ended meanwhile fails here, before anything is sent in it.
    pub(super) async fn until_ready(&mut self) -> Result<()> {
        self.read_available().await;
        self.body_wait = Duration::ZERO;
        loop {
            match self.next(None).await? {
                Step::Ready => return Ok(()),
                step @ (Step::Closed | Step::Body { .. } | Step::Upgrade) => {
                    let error = not_sent(step);
                    return Err(match self.machine.shutdown() {
                        Some(reply) => error.with_reply(reply.clone()),
                        None => error,
                    });
                }
                // The answer to an earlier call, which has ended.
                _ => {}
            }
        }
    }

    /// Reads what has arrived, without waiting for more. `true` if anything was read.
    pub(super) async fn read_available(&mut self) -> bool {
        // A socket is readable only after the runtime has polled the system for events, which it
        // does between two polls of its tasks.
        tokio::task::yield_now().await;
        poll_fn(|cx| Poll::Ready(self.poll_read(cx).is_ready())).await
    }

    /// Gives a command to the machine, and waits for its reply.
    pub(super) async fn ask(
        &mut self,
        give: impl FnOnce(&mut Machine) -> Result<(), ProtocolError>,
    ) -> Result<Reply> {
        self.until_ready().await?;
        give(&mut self.machine)?;
        match self.next(None).await? {
            Step::Event(Event::Sender { reply })
            | Step::Event(Event::Recipient { reply, .. })
            | Step::Event(Event::Reply { reply }) => Ok(reply),
            step => Err(not_sent(step)),
        }
    }

    /// Writes and flushes all output, or as much as a transport that fails takes.
    pub(super) async fn flush(&mut self) {
        poll_fn(|cx| {
            loop {
                let progress = self.poll_write(cx);
                if self.io_error.is_some() || !self.has_unsent() {
                    return Poll::Ready(());
                }
                ready!(progress);
            }
        })
        .await;
    }

    /// Writes what the transport takes without waiting, and shuts it down if `last`. Called in
    /// `Drop`, where nothing can be awaited: a waker that does nothing is enough, as nothing waits
    /// for the transport afterwards, or a later call polls it with a waker of its own.
    #[cfg(feature = "pool")]
    pub(super) fn try_flush(&mut self, last: bool) {
        let mut cx = Context::from_waker(Waker::noop());
        while self.poll_write(&mut cx).is_ready() {}
        if last {
            let _ = Pin::new(&mut self.transport).poll_shutdown(&mut cx);
        }
    }

    pub(super) fn step(&mut self) -> Result<Step> {
        let step = self.machine.step();
        self.end_reply_wait(matches!(step, Ok(Step::Closed) | Err(_)));
        if !self.handovers.is_empty() {
            self.handovers.keep_last(self.machine.held_messages());
        }
        match step {
            Ok(Step::Closed) => self.abort_error.take().map_or(Ok(Step::Closed), Err),
            Ok(step) => Ok(step),
            Err(error) => {
                let error = Error::from(error);
                Err(match self.io_error.take() {
                    Some((cause, _)) => error.with_io_error(cause).redacted(self.machine.secrets()),
                    None => error,
                })
            }
        }
    }

    /// Writes and reads until something happens, or the awaited reply is overdue.
    async fn exchange(&mut self, phase: Phase) {
        // One limit for a reply as a whole, however many reads and calls it takes.
        let since = match self.reply_wait {
            Some((before, _, since)) if before == phase => since,
            _ => Instant::now(),
        };
        self.reply_wait = Some((phase, self.machine.replies(), since));
        let limit = self.clock.limit(phase, since, &self.timeouts);
        let mut sleep = pin!(sleep_until(limit.at));
        let wait = ServerWait::start(self, Some(WaitFor::Reply(phase)));
        let in_time = poll_fn(|cx| match wait.driver.poll_io(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| false),
        })
        .await;
        drop(wait);
        if !in_time {
            self.time_out(phase, limit.why);
        }
    }

    /// Ends the wait for a reply, if that has come or the session has ended.
    fn end_reply_wait(&mut self, session_ended: bool) {
        let replies = self.machine.replies();
        let ended = |&mut (_, before, _): &mut _| session_ended || before != replies;
        if let Some((phase, before, since)) = self.reply_wait.take_if(ended) {
            let until = match before == replies {
                true => Instant::now(),
                false => self.last_read_at,
            };
            telemetry::waited(phase, until.duration_since(since));
        }
    }

    /// Writes the message and reads, or gives the next piece to the machine if it comes first. Only
    /// the time in which the server could have taken something counts: a slow source is not the
    /// server's fault.
    async fn feed(&mut self, mut body: Option<&mut Body>) -> Result<()> {
        enum Event {
            Io,
            Chunk(Option<Result<Chunk>>),
            TooSlow(LimitKind),
        }
        let mut sleep: Option<(Pin<Box<Sleep>>, LimitKind)> = None;
        let mut wait = ServerWait::start(self, None);
        let event = poll_fn(|cx| {
            // As long as the machine asks for more, pieces that are there come first: few large
            // writes cost less than many small ones.
            if let Some(body) = body.as_deref_mut()
                && let Poll::Ready(chunk) = body.poll_chunk(cx)
            {
                return Poll::Ready(Event::Chunk(chunk));
            }
            if wait.driver.poll_io(cx).is_ready() {
                return Poll::Ready(Event::Io);
            }
            // Without a source of pieces, the answer to a chunk is awaited.
            let server_is_slow = body.is_none() || wait.driver.has_unsent();
            wait.wait_for = server_is_slow.then_some(WaitFor::Body);
            let (timer, why) = sleep.get_or_insert_with(|| {
                let limit = wait.driver.body_limit(server_is_slow);
                (Box::pin(sleep_until(limit.at)), limit.why)
            });
            timer.as_mut().poll(cx).map(|()| Event::TooSlow(*why))
        })
        .await;
        drop(wait);
        match event {
            Event::Io => Ok(()),
            Event::Chunk(Some(Ok(chunk))) => Ok(self.give_piece(chunk)?),
            Event::Chunk(None) => self.finish_message(body),
            // A truncated message must not look complete: the session ends before the final dot.
            Event::Chunk(Some(Err(error))) => {
                self.machine
                    .abort(AbortReason::InputFailed(error.message().to_owned()));
                self.abort_error = Some(error);
                Ok(())
            }
            Event::TooSlow(why) => {
                self.time_out(Phase::Body, why);
                Ok(())
            }
        }
    }

    /// Gives the end of the message to the machine, and calls the callback of the message if it has
    /// one.
    fn finish_message(&mut self, body: Option<&mut Body>) -> Result<()> {
        self.machine.finish()?;
        if let Some(handovers) = body.and_then(|body| body.handovers()) {
            let recipients = self.machine.possible_recipients();
            let bytes = self.machine.message_bytes();
            self.handovers.push(handovers.start(recipients, bytes));
        }
        Ok(())
    }

    /// Waits for the caller to permit the end of a message, and reads meanwhile.
    async fn await_handover(&mut self) {
        let limit = self.clock.body_limit(None, &self.timeouts);
        let mut sleep = pin!(sleep_until(limit.at));
        let in_time = poll_fn(|cx| match self.poll_io(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| false),
        });
        if !in_time.await {
            self.time_out(Phase::Handover, limit.why);
        }
    }

    /// Polls the callbacks, and hands the first message over, or withdraws it.
    fn poll_handovers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The machine holds a message back for each callback.
        let called = match ready!(self.handovers.poll_first(cx)) {
            Ok(()) => self.machine.hand_over(),
            // The message keeps the error.
            Err(_) => self.machine.withdraw(),
        };
        debug_assert!(called.is_ok(), "{called:?}");
        Poll::Ready(())
    }

    /// When a server that takes nothing, or too little in all, is overdue.
    fn body_limit(&self, server_is_slow: bool) -> Limit {
        if !server_is_slow {
            return self.clock.body_limit(None, &self.timeouts);
        }
        let stalled = self.stalled_since + self.timeouts.body.min(FAR);
        let left = self
            .timeouts
            .body
            .saturating_add(self.time_at_min_rate())
            .saturating_sub(self.body_wait)
            .min(FAR);
        self.clock
            .body_limit(Some(stalled.min(Instant::now() + left)), &self.timeouts)
    }

    /// How long the server may take for the bytes given so far, by the lowest rate.
    fn time_at_min_rate(&self) -> Duration {
        Duration::from_secs(self.machine.message_bytes() / self.timeouts.min_rate.max(1))
    }

    /// Starts a transaction. Time that the message before it did not use is not carried over; its
    /// excess is.
    pub(super) fn start_transaction(&mut self, transaction: Transaction) -> Result<()> {
        self.body_wait = self.body_wait.saturating_sub(self.time_at_min_rate());
        Ok(self.machine.begin(transaction)?)
    }

    /// Writes what the transport takes and reads what is there, and polls the callbacks of messages
    /// that are to be handed over. Ready if any of these made progress.
    fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let wrote = self.poll_write(cx);
        let read = self.poll_read(cx);
        if wrote.is_ready() || read.is_ready() {
            return Poll::Ready(());
        }
        match self.handovers.is_empty() {
            true => Poll::Pending,
            false => self.poll_handovers(cx),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.machine.should_read_first() && self.poll_read(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut progress = Poll::Pending;
        while self.io_error.is_none() && self.has_unsent() {
            let gone = self.transport.encrypted_bytes_gone();
            let written = if self.unflushed {
                // What TLS still has goes first, so that it does not add short records to it.
                Pin::new(&mut self.transport)
                    .poll_flush(cx)
                    .map_ok(|()| None)
            } else {
                let output = self.machine.output();
                let mut slices = [IoSlice::new(&[]); 16];
                let filled = output.io_slices(&mut slices);
                Pin::new(&mut self.transport)
                    .poll_write_vectored(cx, &slices[..filled])
                    .map_ok(Some)
            };
            match written {
                Poll::Pending if self.transport.encrypted_bytes_gone() == gone => break,
                Poll::Pending => self.stalled_since = Instant::now(),
                Poll::Ready(Ok(None)) => self.unflushed = false,
                Poll::Ready(Ok(Some(0))) => self.transport_failed(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(Some(n))) => {
                    self.machine.wrote(n);
                    self.unflushed = true;
                    self.stalled_since = Instant::now();
                }
                Poll::Ready(Err(error)) => self.transport_failed(error),
            }
            progress = Poll::Ready(());
        }
        progress
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // No more than the machine takes is read, so no byte is left over. A machine that is full
        // has to be asked for its next step before more is read.
        let room = self.machine.input_room().min(READ_SIZE);
        if self.machine.is_input_ended() || room == 0 {
            return Poll::Pending;
        }
        // On the stack: an idle connection holds no buffer.
        let mut buffer = [MaybeUninit::uninit(); READ_SIZE];
        let mut buffer = ReadBuf::uninit(&mut buffer[..room]);
        match ready!(Pin::new(&mut self.transport).poll_read(cx, &mut buffer)) {
            Ok(()) if buffer.filled().is_empty() => self.machine.input_ended(),
            Ok(()) => {
                let taken = self.machine.input(buffer.filled());
                debug_assert_eq!(taken, buffer.filled().len(), "the machine has room");
                self.last_read_at = Instant::now();
            }
            Err(error) => {
                self.transport_failed(error);
                self.machine.input_ended();
            }
        }
        Poll::Ready(())
    }

    /// Records why the transport failed first, and when.
    fn transport_failed(&mut self, error: io::Error) {
        self.io_error.get_or_insert_with(|| (error, Instant::now()));
    }

    /// After a write failed, reads the replies that the server sent before it closed: they are the
    /// reason, and the failure is the consequence.
    async fn read_last_replies(&mut self) {
        let Some(&(_, failed_at)) = self.io_error.as_ref() else {
            return;
        };
        let reading = poll_fn(|cx| {
            while !self.machine.is_input_ended() && self.machine.input_room() > 0 {
                ready!(self.poll_read(cx));
            }
            Poll::Ready(())
        });
        // Whether the server closed or not, the connection is broken.
        let _: Result<(), _> = timeout_at(failed_at + DRAIN_TIME, reading).await;
        self.machine.input_ended();
    }

    fn time_out(&mut self, phase: Phase, why: LimitKind) {
        let has_port = self.machine.port().is_some();
        let hint = why.hint(phase, self.machine.is_secure(), has_port);
        let reason = AbortReason::TimedOut(too_slow(phase, why));
        let error = Error::from(self.machine.abort(reason));
        self.abort_error = Some(error.with_hint(hint));
    }
}

/// A wait for the server. Its time is charged when it ends, also if the future that waits is
/// dropped.
struct ServerWait<'d> {
    driver: &'d mut Driver,
    since: Instant,
    /// `None` while the server is not what is waited for.
    wait_for: Option<WaitFor>,
}

enum WaitFor {
    Reply(Phase),
    /// The server takes the message.
    Body,
}

impl<'d> ServerWait<'d> {
    fn start(driver: &'d mut Driver, wait_for: Option<WaitFor>) -> Self {
        ServerWait {
            driver,
            since: Instant::now(),
            wait_for,
        }
    }
}

impl Drop for ServerWait<'_> {
    fn drop(&mut self) {
        match self.wait_for {
            Some(WaitFor::Reply(phase)) => self.driver.clock.spend(phase, self.since.elapsed()),
            Some(WaitFor::Body) => self.driver.body_wait += self.since.elapsed(),
            None => {}
        }
    }
}

/// The message of a time-out.
pub(super) fn too_slow(phase: Phase, why: LimitKind) -> String {
    let what = match phase {
        Phase::Setup => "the message was not prepared",
        Phase::Connect => "the connection was not made",
        Phase::Tls => "the TLS handshake did not end",
        Phase::Greeting => "the server did not greet",
        Phase::Hello => "the server did not answer EHLO",
        Phase::StartTls => "the server did not answer STARTTLS",
        Phase::Auth => "the server did not answer the login",
        Phase::Mail => "the server did not answer MAIL",
        Phase::Rcpt => "the server did not answer RCPT",
        Phase::Data => "the server did not answer DATA",
        Phase::Body => "the server took too little of the message",
        Phase::Handover => "the hand-over of the message was not permitted",
        Phase::EndOfData => "the server did not confirm the message",
        Phase::Reset | Phase::Noop | Phase::Command | Phase::Quit => "the server did not answer",
    };
    match why {
        LimitKind::Phase(limit) => format!("{what} within {limit:?}"),
        LimitKind::Login(limit) => {
            format!("{what}, and the {limit:?} allowed for a login as a whole are over")
        }
        LimitKind::Waiting(limit) => {
            format!("{what}, and the {limit:?} allowed for waiting are over")
        }
        LimitKind::Deadline(limit) => format!("{what} before the deadline of {limit:?}"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::error::ErrorKind;
    use crate::proto::{ClientName, Settings};

    /// A transport that fails to write, and on which nothing can be read.
    struct BrokenWrites;

    impl AsyncRead for BrokenWrites {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for BrokenWrites {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn driver(stream: impl Stream + 'static, timeouts: &Timeouts) -> Driver {
        let name = ClientName::new("client.example.org").unwrap();
        Driver::new(
            Machine::new(Settings::new(name)),
            Box::new(stream),
            timeouts.clone(),
            Clock::start(timeouts),
        )
    }

    /// Drops the future of `next` again and again, until it is ready in time.
    async fn next_with_drops(driver: &mut Driver, each: Duration) -> Result<Step> {
        loop {
            if let Ok(step) = timeout(each, driver.next(None)).await {
                return step;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_next_does_not_renew_the_wait_after_a_failed_write() {
        let mut driver = driver(BrokenWrites, &Timeouts::default());
        let greeting = b"220 mail.example.org\r\n";
        assert_eq!(driver.machine.input(greeting), greeting.len());
        let started = Instant::now();
        let error = next_with_drops(&mut driver, Duration::from_millis(300)).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Closed);
        let elapsed = started.elapsed();
        assert!(
            elapsed >= DRAIN_TIME && elapsed < 2 * DRAIN_TIME,
            "{elapsed:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_next_is_charged_for_its_wait_and_for_no_more() {
        let (stream, _server) = duplex(1024);
        let timeouts = Timeouts {
            total_wait: Some(Duration::from_secs(60)),
            ..Timeouts::default()
        };
        let mut driver = driver(stream, &timeouts);
        for _ in 0..3 {
            let next = timeout(Duration::from_secs(5), driver.next(None)).await;
            assert!(next.is_err());
            // Not a wait for the server.
            sleep(Duration::from_secs(100)).await;
        }
        let now = Instant::now();
        let left = driver.clock.limit(Phase::Command, now, &timeouts).at - now;
        assert!(
            left <= Duration::from_secs(45) && left > Duration::from_secs(44),
            "{left:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_next_does_not_renew_the_limit_of_a_reply() {
        let (stream, _server) = duplex(1024);
        let timeouts = Timeouts::uniform(Duration::from_secs(20));
        let mut driver = driver(stream, &timeouts);
        let started = Instant::now();
        let error = next_with_drops(&mut driver, Duration::from_secs(3)).await;
        let error = error.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Timeout, Phase::Greeting)
        );
        let elapsed = started.elapsed();
        assert!(
            elapsed >= Duration::from_secs(20) && elapsed < Duration::from_secs(24),
            "{elapsed:?}"
        );
    }

    #[tokio::test]
    async fn input_that_the_machine_has_no_room_for_is_not_its_end() {
        let (stream, mut server) = duplex(1024 * 1024);
        let mut driver = driver(stream, &Timeouts::default());
        let flood = vec![b'x'; 512 * 1024];
        tokio::io::AsyncWriteExt::write_all(&mut server, &flood)
            .await
            .unwrap();
        // Reads without a step between them, until the machine is full.
        while driver.read_available().await {}
        assert!(driver.machine.input_room() == 0 && !driver.machine.is_input_ended());
        // The line is too long, which is what is wrong.
        let error = driver.next(None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }
}
