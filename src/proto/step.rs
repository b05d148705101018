//! What the driver of a machine does next.

use super::{Event, Phase};

/// What the driver does next: follow an instruction, or take an event.
///
/// An instruction is repeated until it is followed. An event is returned once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a step may hold an event, which is returned once"]
#[non_exhaustive]
pub enum Step {
    /// Write the [output](super::Machine::output), and read.
    Wait {
        /// What the machine waits for, which decides on the time-out.
        phase: Phase,
    },
    /// Make the TLS handshake, then call [`Machine::upgraded`](super::Machine::upgraded).
    Upgrade,
    /// Nothing is outstanding. Log in, begin a transaction or go on with the open one, give a
    /// command, or quit.
    Ready,
    /// Give the next piece of the message ([`Machine::body`](super::Machine::body)) or its end
    /// ([`Machine::finish`](super::Machine::finish)).
    Body {
        /// The preferred maximum in bytes; larger pieces are accepted.
        room: usize,
    },
    /// Call [`Machine::hand_over`](super::Machine::hand_over) once the end of the message may be
    /// written, or [`Machine::withdraw`](super::Machine::withdraw). Read meanwhile, with no
    /// time-out: the server is not waited for.
    Handover,
    /// The session is over.
    Closed,
    /// A reply came. The next call to [`Machine::step`](super::Machine::step) returns what follows.
    Event(Event),
}
