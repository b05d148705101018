//! The driver of the machine: the one place where bytes, time and the protocol meet.
//!
//! [`Driver::next`] writes what the socket takes and reads what is there in the same poll, so that
//! a server that answers early is heard at once, and none can make both sides wait for each other.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
#[cfg(feature = "pool")]
use std::task::Waker;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::clock::{Clock, FAR, Limit, LimitKind};
use super::not_sent;
use crate::Timeouts;
use crate::error::{Error, Phase, Result};
use crate::message::Body;
use crate::proto::{AbortReason, Chunk, Machine, ProtocolError, Reply, Step, Transaction};
use crate::transport::{Stream, Transport};

/// After a write failed, a reply may still be waiting to be read: why the server closed.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// How much is read at a time; replies are short.
const READ_SIZE: usize = 8 * 1024;

/// The machine with its stream and its clock.
pub(super) struct Driver {
    pub(super) machine: Machine,
    pub(super) transport: Transport,
    buffer: Box<[u8]>,
    /// Something was written and not flushed.
    unflushed: bool,
    /// Nothing more can be read.
    read_eof: bool,
    /// Why the transport broke, if it did.
    io_error: Option<io::Error>,
    /// Why the session was aborted, until [`step`](Self::step) has told what the machine says of
    /// that.
    abort_error: Option<Error>,
    /// When the server was last heard.
    pub(super) last_read_at: Instant,
    /// Since when the server has taken nothing of what waits for it.
    stalled_since: Instant,
    /// The reply that is waited for, by its phase and number, and since when.
    wait: Option<(Phase, u64, Instant)>,
    /// Since when a wait lasts of which the clock was not told; the future that waited may be gone.
    waiting_since: Option<(Phase, Instant)>,
    /// How long this message has waited for the server, all in all; and those before it, where they
    /// waited longer than they may.
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
            buffer: vec![0; READ_SIZE].into(),
            unflushed: false,
            read_eof: false,
            io_error: None,
            abort_error: None,
            last_read_at: Instant::now(),
            stalled_since: Instant::now(),
            wait: None,
            waiting_since: None,
            body_wait: Duration::ZERO,
            timeouts,
            clock,
        }
    }

    /// Until the machine has more to say than that it waits. What it wants of the message comes
    /// from `body`, if that is given.
    pub(super) async fn next(&mut self, body: Option<&mut Body>) -> Result<Step> {
        match self.drive(body, |_| false).await? {
            Some(step) => Ok(step),
            None => self.step(),
        }
    }

    /// The same, or until another transaction can begin.
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
            let step = self.step()?;
            // What came before the next command was written does not answer it.
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
                (Step::Wait { .. } | Step::Ready, _) if stop_when(&self.machine) => {
                    return Ok(None);
                }
                (Step::Body { .. }, Some(body)) => self.feed(Some(body)).await?,
                (Step::Wait { phase: Phase::Body }, _) => self.feed(None).await?,
                (Step::Wait { phase }, _) => {
                    // One limit for a reply as a whole, however many reads and calls it takes.
                    let replies = self.machine.replies();
                    let since = match self.wait {
                        Some((before, replies_before, since))
                            if before == phase && replies_before == replies =>
                        {
                            since
                        }
                        _ => Instant::now(),
                    };
                    self.wait = Some((phase, replies, since));
                    self.exchange(phase, since).await?;
                }
                (step, _) => return Ok(Some(step)),
            }
        }
    }

    fn report_progress(&self, step: &Step, body: &mut Body) {
        let all_gone = match step {
            Step::Body { .. } | Step::Wait { phase: Phase::Body } => false,
            Step::Wait { .. } | Step::Accepted { .. } => self.machine.output().is_empty(),
            _ => return,
        };
        body.report_progress(self.machine.message_bytes_gone(), all_gone);
    }

    /// Until all that the machine has of the message is with the transport and more may be given,
    /// or something else is to be told.
    pub(super) async fn flush_body(&mut self) -> Result<Step> {
        loop {
            match self.step()? {
                Step::Body { .. } if !self.machine.output().is_empty() => self.feed(None).await?,
                // Without PIPELINING, the answer to a chunk comes before the next one goes.
                Step::Wait { .. } => self.feed(None).await?,
                step => return Ok(step),
            }
        }
    }

    /// Until nothing that was sent before is unanswered. What came unasked since is looked at
    /// first: a connection that the server has given up says so before anything is sent on it.
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
                // The answer to something that nobody waits for any more.
                _ => {}
            }
        }
    }

    /// Takes what has come, without waiting for more, and says whether something has.
    pub(super) async fn read_available(&mut self) -> bool {
        // The runtime asks the system what has come only when tasks rest.
        tokio::task::yield_now().await;
        poll_fn(|cx| Poll::Ready(self.poll_read(cx).is_ready())).await
    }

    /// Gives a command, and waits for its reply.
    pub(super) async fn ask(
        &mut self,
        give: impl FnOnce(&mut Machine) -> Result<(), ProtocolError>,
    ) -> Result<Reply> {
        self.until_ready().await?;
        give(&mut self.machine)?;
        match self.next(None).await? {
            Step::Sender { reply } | Step::Recipient { reply, .. } | Step::Reply { reply } => {
                Ok(reply)
            }
            step => Err(not_sent(step)),
        }
    }

    /// Until all that is to be said has left, or cannot.
    pub(super) async fn flush(&mut self) {
        poll_fn(|cx| {
            loop {
                let progress = self.poll_write(cx);
                if self.io_error.is_some() || (self.machine.output().is_empty() && !self.unflushed)
                {
                    return Poll::Ready(());
                }
                ready!(progress);
            }
        })
        .await;
    }

    /// The same, as far as it can leave at once; the end of the session, too, if these are the last
    /// words.
    #[cfg(feature = "pool")]
    pub(super) fn try_flush(&mut self, last: bool) {
        let mut cx = Context::from_waker(Waker::noop());
        while self.poll_write(&mut cx).is_ready() {}
        if last {
            let _ = Pin::new(&mut self.transport).poll_shutdown(&mut cx);
        }
    }

    pub(super) fn step(&mut self) -> Result<Step> {
        match self.machine.step() {
            Ok(Step::Closed) => self.abort_error.take().map_or(Ok(Step::Closed), Err),
            Ok(step) => Ok(step),
            Err(error) => {
                let error = Error::from(error);
                Err(match self.io_error.take() {
                    Some(cause) => error.with_io_error(cause).redacted(self.machine.secrets()),
                    None => error,
                })
            }
        }
    }

    /// Writes and reads until something happens, or this reply has taken too long.
    async fn exchange(&mut self, phase: Phase, since: Instant) -> Result<()> {
        self.charge_wait();
        let limit = self.clock.limit(phase, since, &self.timeouts);
        self.waiting_since = Some((phase, Instant::now()));
        let mut sleep = pin!(sleep_until(limit.at));
        let in_time = poll_fn(|cx| match self.poll_io(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| false),
        })
        .await;
        self.charge_wait();
        if in_time {
            return self.read_remaining().await;
        }
        self.time_out(phase, limit.why);
        Ok(())
    }

    /// Tells the clock how long the server was waited for.
    fn charge_wait(&mut self) {
        if let Some((phase, since)) = self.waiting_since.take() {
            self.clock.spend(phase, since);
        }
    }

    /// Writes the message and reads, and gives the machine the next piece if it comes first. Only
    /// the time counts in which the server could have taken something: a slow source is no fault of
    /// the server's.
    async fn feed(&mut self, mut body: Option<&mut Body>) -> Result<()> {
        enum Event {
            Io,
            Chunk(Option<Result<Chunk>>),
            TooSlow(LimitKind),
        }
        let began = Instant::now();
        let mut server_is_slow = false;
        let mut sleep: Option<(Pin<Box<Sleep>>, LimitKind)> = None;
        let event = poll_fn(|cx| {
            // As long as the machine asks for more, what is there comes first: few large writes
            // cost less than many small ones.
            if let Some(body) = body.as_deref_mut()
                && let Poll::Ready(chunk) = body.poll_chunk(cx)
            {
                return Poll::Ready(Event::Chunk(chunk));
            }
            if self.poll_io(cx).is_ready() {
                return Poll::Ready(Event::Io);
            }
            // Without a piece to wait for, it is an answer to a chunk that is waited for.
            server_is_slow = body.is_none() || !self.machine.output().is_empty();
            let (timer, why) = sleep.get_or_insert_with(|| {
                let limit = self.body_limit(server_is_slow);
                (Box::pin(sleep_until(limit.at)), limit.why)
            });
            timer.as_mut().poll(cx).map(|()| Event::TooSlow(*why))
        })
        .await;
        if server_is_slow {
            self.body_wait += began.elapsed();
        }
        match event {
            Event::Io => self.read_remaining().await,
            Event::Chunk(Some(Ok(chunk))) => {
                if !server_is_slow {
                    self.stalled_since = Instant::now();
                }
                Ok(self.machine.body(chunk)?)
            }
            Event::Chunk(None) => Ok(self.machine.finish()?),
            // What is missing must not look like the end: the session ends before the final dot.
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

    /// When a server that takes nothing, or too little in all, has had its time.
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

    /// How long the server may take for what was given of the message, by the lowest rate.
    fn time_at_min_rate(&self) -> Duration {
        Duration::from_secs(self.machine.message_bytes() / self.timeouts.min_rate.max(1))
    }

    /// Begins a message. What the one before it had left of its time is not for this one; what it
    /// lacked, is.
    pub(super) fn start_transaction(&mut self, transaction: Transaction) -> Result<()> {
        self.body_wait = self.body_wait.saturating_sub(self.time_at_min_rate());
        Ok(self.machine.begin(transaction)?)
    }

    /// Writes what the transport takes and reads what is there. Ready, if anything came of it.
    fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let wrote = self.poll_write(cx);
        let read = self.poll_read(cx);
        if wrote.is_ready() { wrote } else { read }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.machine.should_read_first() && self.poll_read(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut progress = Poll::Pending;
        while self.io_error.is_none() && (self.unflushed || !self.machine.output().is_empty()) {
            let output = self.machine.output();
            let written = if output.is_empty() {
                // Before a reply is waited for, everything must have left.
                Pin::new(&mut self.transport)
                    .poll_flush(cx)
                    .map_ok(|()| None)
            } else {
                let mut slices = [IoSlice::new(&[]); 16];
                let filled = output.io_slices(&mut slices);
                Pin::new(&mut self.transport)
                    .poll_write_vectored(cx, &slices[..filled])
                    .map_ok(Some)
            };
            match written {
                Poll::Pending => break,
                Poll::Ready(Ok(None)) => self.unflushed = false,
                Poll::Ready(Ok(Some(0))) => self.io_error = Some(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(Some(n))) => {
                    self.machine.wrote(n);
                    self.unflushed = true;
                    self.stalled_since = Instant::now();
                }
                Poll::Ready(Err(error)) => self.io_error = Some(error),
            }
            progress = Poll::Ready(());
        }
        progress
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.read_eof {
            return Poll::Pending;
        }
        let mut buffer = ReadBuf::new(&mut self.buffer);
        let read = ready!(Pin::new(&mut self.transport).poll_read(cx, &mut buffer));
        let bytes = buffer.filled();
        match read {
            // The machine looks at what it has before it is given more, so it has room.
            Ok(()) if !bytes.is_empty() && self.machine.input(bytes) == bytes.len() => {
                self.last_read_at = Instant::now();
                return Poll::Ready(());
            }
            Ok(()) => {}
            Err(error) => {
                self.io_error.get_or_insert(error);
            }
        }
        self.read_eof = true;
        self.machine.input_ended();
        Poll::Ready(())
    }

    /// After a write failed, whatever the server said before it closed is read: it is the reason,
    /// and the failure only its consequence.
    async fn read_remaining(&mut self) -> Result<()> {
        if self.io_error.is_some() && !self.read_eof {
            let reading = poll_fn(|cx| {
                while !self.read_eof {
                    ready!(self.poll_read(cx));
                }
                Poll::Ready(())
            });
            // In vain or not: the connection is broken.
            let _: Result<(), _> = timeout(DRAIN_TIME, reading).await;
            self.read_eof = true;
            self.machine.input_ended();
        }
        Ok(())
    }

    fn time_out(&mut self, phase: Phase, why: LimitKind) {
        let hint = why.hint(phase, self.machine.is_secure());
        let reason = AbortReason::TimedOut(too_slow(phase, why));
        let error = Error::from(self.machine.abort(reason));
        self.abort_error = Some(error.with_hint(hint));
    }
}

/// What took too long, in words.
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
