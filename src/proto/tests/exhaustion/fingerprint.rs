//! What distinguishes two states of the machine: all that has a bearing on what it does later.
//! What it only counts is left out.

use std::hash::{Hash, Hasher};
use std::io::IoSlice;

use crate::proto::queue::{CommandQueue, PendingReply};
use crate::proto::transaction::TransactionState;
use crate::proto::{Machine, Output, Reply};

pub fn output(output: &Output) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); 64];
    let filled = output.io_slices(&mut slices);
    assert!(filled < slices.len());
    slices[..filled]
        .iter()
        .flat_map(|slice| slice.iter().copied())
        .collect()
}

/// Each field is named here, so that a new one does not compile before it is decided on.
pub fn hash(machine: &Machine, hasher: &mut impl Hasher) {
    let Machine {
        state,
        wire,
        events,
        input,
        input_ended,
        parser,
        transactions,
        message,
        rset_due,
        secure,
        shutdown,
        failure,
        // Settings, and what follows from the replies that the model of the server has, too.
        settings: _,
        secrets: _,
        nothing: _,
        greeting: _,
        capabilities,
        channel: _,
        // What is counted.
        transactions_started: _,
        round_trip_pending: _,
        round_trips: _,
        replies: _,
        unconfirmed_messages: _,
    } = machine;
    assert!(events.is_empty(), "all events were taken");
    std::mem::discriminant(state).hash(hasher);
    hash_queue(wire, hasher);
    (&input[..], input_ended).hash(hasher);
    (parser.is_mid_reply(), rset_due, failure.is_some()).hash(hasher);
    (secure, capabilities.keywords().len()).hash(hasher);
    hash_reply(shutdown.as_ref(), hasher);
    format!("{message:?}").hash(hasher);
    for transaction in transactions {
        hash_transaction(transaction, wire.written, hasher);
    }
}

fn hash_queue(wire: &CommandQueue, hasher: &mut impl Hasher) {
    let CommandQueue {
        output: waiting,
        written,
        queue,
        unsent,
        transcript: _,
        held,
    } = wire;
    output(waiting).hash(hasher);
    for flight in held {
        (flight.part, output(&flight.output)).hash(hasher);
        for (end, expected) in &flight.replies {
            (end, std::mem::discriminant(expected)).hash(hasher);
        }
    }
    for end in unsent {
        (end - written).hash(hasher);
    }
    for expected in &queue.entries {
        std::mem::discriminant(expected).hash(hasher);
        match expected {
            PendingReply::Rcpt(index) => index.hash(hasher),
            PendingReply::EndOfData { begins_at } => written.cmp(begins_at).hash(hasher),
            PendingReply::Login(login) => login.challenges().hash(hasher),
            _ => {}
        }
    }
}

fn hash_transaction(state: &TransactionState, written: u64, hasher: &mut impl Hasher) {
    let TransactionState {
        // It does not change.
        transaction: _,
        utf8: _,
        domains: _,
        complete,
        next,
        mail_reply,
        answered,
        accepted,
        final_replies,
        verdicts,
        last_rcpt_refusal,
        framing,
        is_end_held,
        is_withdrawn,
        held_size,
        ends_at,
    } = state;
    (complete, answered, accepted).hash(hasher);
    (is_end_held, is_withdrawn, held_size).hash(hasher);
    format!("{next:?} {final_replies:?} {framing:?}").hash(hasher);
    for reply in verdicts {
        hash_reply(Some(reply), hasher);
    }
    hash_reply(mail_reply.as_ref(), hasher);
    hash_reply(last_rcpt_refusal.as_ref(), hasher);
    ends_at.map(|end| end.saturating_sub(written)).hash(hasher);
}

fn hash_reply(reply: Option<&Reply>, hasher: &mut impl Hasher) {
    reply
        .map(|reply| (reply.code(), reply.lines()))
        .hash(hasher);
}
