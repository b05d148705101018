//! The end of a session that the server brings about: 421, or the end of its input.

use super::error::Result;
use super::queue::PendingReply;
use super::transaction::{FinalReplies, TransactionState};
use super::transcript::{CONNECTION_ENDED, UNFINISHED_REPLY};
use super::{Event, Machine, Missing, Phase, ProtocolError, Reason, Reply, ReplyParser, State};

impl Machine {
    // ---- 421 ----

    /// 421: the server ends the session, whatever it answers (RFC 5321, 3.8).
    pub(super) fn on_shutdown(
        &mut self,
        pending: PendingReply,
        phase: Phase,
        reply: Reply,
    ) -> Result<()> {
        use PendingReply as P;
        let phase = match (&pending, phase) {
            // Like any other refusal of a message whose end was not sent.
            (P::EndOfData { .. }, Phase::Handover) => Phase::Body,
            _ => phase,
        };
        let (phase, reply) = match self.transactions.front() {
            Some(state) => state.reason(phase, reply),
            None => (phase, reply),
        };
        let shutdown = reply.clone();
        match pending {
            P::Greeting | P::Ehlo | P::Helo | P::Lhlo | P::StartTls => {
                return Err(ProtocolError::refused(phase, Reason::Unavailable, reply));
            }
            P::Login(login) => self.login_refused(&login, reply),
            P::EndOfData { .. } if self.outcome_unknown() && self.has_several_final_replies() => {
                return self.on_shutdown_between_recipients(phase, reply);
            }
            P::Mail | P::Rcpt(_) | P::Data | P::Chunk | P::EndOfData { .. } => {
                // The outcome is certain, even if the whole message was sent.
                self.conclude_unsent(Some((phase, reply)));
            }
            P::Reset | P::Noop | P::Command => self.events.push_back(Event::Reply { reply }),
            // The outcome of what these belong to was reported before.
            P::EmptyMessage | P::DiscardedChunk | P::AutoRset | P::Quit => {}
        }
        self.end_by_shutdown(shutdown);
        Ok(())
    }

    /// 421 in place of one of several replies to a message. In LMTP it answers for one recipient,
    /// and no reply for the others will come. So it is with PRDR; there, in place of the last reply
    /// it does not say what became of the message.
    fn on_shutdown_between_recipients(&mut self, phase: Phase, reply: Reply) -> Result<()> {
        let is_for_all = self
            .transactions
            .front()
            .is_some_and(|front| front.next_verdict().is_none() && front.refusal().is_none());
        if is_for_all || self.on_final_reply(reply.clone()) {
            let reason = Reason::ShutDownBetweenRecipients;
            self.failure = Some(ProtocolError::refused(phase, reason, reply));
        } else {
            self.end_by_shutdown(reply);
        }
        Ok(())
    }

    /// Whether the message has a reply for each recipient (LMTP, PRDR).
    fn has_several_final_replies(&self) -> bool {
        let for_each = |front: &TransactionState| {
            matches!(
                front.final_replies,
                FinalReplies::Each | FinalReplies::EachAndOne
            )
        };
        self.transactions.front().is_some_and(for_each)
    }

    /// Whether replies may follow the 421 that answers this command: to messages that were handed
    /// over after it, or to the message whose RCPT it was.
    pub(super) fn reads_on_after(&self, pending: &PendingReply) -> bool {
        let front = self
            .transactions
            .front()
            .filter(|state| state.is_handed_over(self.wire.written));
        let others = self.handed_over().nth(1).is_some();
        match (pending, front) {
            (_, None) => false,
            (PendingReply::Rcpt(_), Some(state)) => others || state.may_yet_be_sent(),
            (PendingReply::Mail, Some(_)) => others,
            (PendingReply::EndOfData { .. }, Some(state)) => others && state.is_last_reply_next(),
            // What it was about has its outcome, and all that was handed over follows it.
            (PendingReply::AutoRset, Some(_)) => true,
            _ => false,
        }
    }

    /// Stops writing, and reads on.
    pub(super) fn start_ending(&mut self, reply: &Reply) {
        self.state = State::Ending;
        self.shutdown.get_or_insert_with(|| reply.clone());
        self.wire.output.clear();
        self.wire.drop_held();
        self.message.discard();
    }

    /// Whether a message that was handed over may still be accepted. Only the first one has had
    /// replies.
    pub(super) fn awaits_final_reply(&self) -> bool {
        let mut handed_over = self.handed_over();
        handed_over
            .next()
            .is_some_and(|front| front.refusal().is_none())
            || handed_over.next().is_some()
    }

    /// Ends the session once each message that was handed over has its outcome or is refused for
    /// certain.
    pub(super) fn conclude_ending(&mut self) {
        let refused = self
            .transactions
            .front()
            .filter(|state| state.is_handed_over(self.wire.written));
        if let Some((phase, reply)) = refused.and_then(TransactionState::refusal) {
            let reply = reply.clone();
            self.conclude_unsent(Some((phase, reply)));
        }
        if let Some(reply) = self.shutdown.take() {
            self.end_by_shutdown(reply);
        }
    }

    /// Ends the session by this 421, for which a transaction without an outcome fails.
    pub(super) fn end_by_shutdown(&mut self, reply: Reply) {
        if !self
            .transactions
            .front()
            .is_some_and(|state| state.complete)
        {
            self.shutdown = Some(reply);
            return self.close();
        }
        let (phase, reason) = match self.outcome_unknown() {
            true => (Phase::EndOfData, Reason::ShutDownBeforeConfirmation),
            false => (Phase::Mail, Reason::ShutDownBeforeMessage),
        };
        self.failure = Some(ProtocolError::refused(phase, reason, reply));
    }

    // ---- The end of the input ----

    pub(super) fn on_end(&mut self) -> Result<()> {
        // As the reply to a message, it says nothing for certain.
        let answers_message = self.outcome_unknown()
            && matches!(
                self.wire.queue.front(),
                Some(PendingReply::EndOfData { .. })
            );
        if !answers_message && let Some(reply) = self.parser.unterminated_421(&self.input) {
            self.input.clear();
            self.parser = ReplyParser::new(self.settings.limits.clone());
            return self.on_whole_reply(reply);
        }
        let is_partial = !self.input.is_empty() || self.parser.is_mid_reply();
        if !is_partial && matches!(self.wire.queue.front(), Some(PendingReply::Quit)) {
            // It is over either way.
            self.close();
            return Ok(());
        }
        if is_partial {
            let note = format!("{UNFINISHED_REPLY}{}", self.unread());
            self.wire.transcript.note(&note);
        }
        self.wire.transcript.note(CONNECTION_ENDED);
        let error = self.failed(Reason::ConnectionEnded {
            before: self.missing(),
            secure: self.secure,
            port: self.port(),
        });
        if let Some(shutdown) = self.shutdown.take() {
            self.on_end_after(shutdown, error);
            return Ok(());
        }
        Err(error)
    }

    /// The server closed after a 421. Only the first message can have had replies since.
    fn on_end_after(&mut self, shutdown: Reply, error: ProtocolError) {
        let Some(front) = self.transactions.front() else {
            return self.close();
        };
        if front.refusal().is_none() && !front.accepted.is_empty() {
            // It may have been accepted, too. The reply to the message itself is missing.
            self.transactions.truncate(1);
            self.failure = Some(error.with_reply(shutdown));
            return;
        }
        let phase = if front.answered == 0 {
            Phase::Mail
        } else {
            Phase::Rcpt
        };
        let (phase, reply) = front.reason(phase, shutdown.clone());
        self.conclude_unsent(Some((phase, reply)));
        // The server closed before it answered their MAIL, as 421 had announced.
        self.transactions
            .iter_mut()
            .for_each(|state| state.ends_at = None);
        self.end_by_shutdown(shutdown);
    }

    /// What was missing at the end of the input.
    fn missing(&self) -> Missing {
        if !self.input.is_empty() || self.parser.is_mid_reply() {
            return Missing::RestOfReply(self.unread());
        }
        match self.wire.queue.front() {
            _ if matches!(self.phase(), Phase::Body | Phase::Handover) => Missing::RestOfMessage,
            Some(PendingReply::EndOfData { .. }) => Missing::FinalReply,
            Some(pending) => Missing::Reply(pending.wanted()),
            None => Missing::Nothing,
        }
    }
}
