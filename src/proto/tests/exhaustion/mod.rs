//! The machine, proved by exhaustion: every sequence of calls, replies and splits, against a model
//! of a server that keeps to the RFCs.
//!
//! Two messages to two recipients are sent in each configuration. Each state is reached again by
//! the moves that led to it, and states that nothing distinguishes are one. What must hold at every
//! turn: no outcome is reported but the server's, none is missing and nothing is reported twice; a
//! call out of turn changes nothing; no command is out of order; machine and server never wait for
//! each other; and every path ends.
//!
//! `ENVOI_EXHAUSTION=3` takes three messages to three recipients, and every split in every
//! configuration.

mod fingerprint;
mod server;
mod world;

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use world::{Move, World};

/// The end of a message with DATA.
const CONTENT_END: &[u8] = b"\r\n.\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Smtp,
    Lmtp,
    Prdr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Data,
    /// One chunk, with the commands.
    Chunk,
    Chunks,
}

#[derive(Clone, Copy, Debug)]
struct Configuration {
    kind: Kind,
    framing: Framing,
    pipelining: bool,
    all_or_nothing: bool,
    by_steps: bool,
    /// The end of each message is held back until it is handed over or withdrawn.
    hand_over: bool,
    /// The session itself, from the greeting on: TLS, login, QUIT.
    session: bool,
    /// Commands and replies are split, too, and not only messages, their final replies and 421.
    splits: bool,
    messages: usize,
    recipients: usize,
}

impl Configuration {
    fn new(kind: Kind, framing: Framing, pipelining: bool) -> Self {
        let deeper = std::env::var("ENVOI_EXHAUSTION").ok();
        let size = deeper.as_ref().map_or(2, |size| {
            size.parse().expect("ENVOI_EXHAUSTION is a number")
        });
        Configuration {
            kind,
            framing,
            pipelining,
            all_or_nothing: false,
            by_steps: false,
            hand_over: false,
            session: false,
            // A chunk goes with all of its commands, which makes for many states.
            splits: deeper.is_some() || framing != Framing::Chunk || !pipelining,
            messages: size,
            recipients: size,
        }
    }

    /// The pieces of a message.
    fn pieces(&self, message: usize) -> [String; 2] {
        let end = match self.framing {
            Framing::Data | Framing::Chunk => ".\r\n",
            Framing::Chunks => ".",
        };
        [format!("{message}\r\n"), format!(".{end}")]
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {:?}", self.kind, self.framing)?;
        let flags = [
            (self.pipelining, "PIPELINING"),
            (self.all_or_nothing, "all or nothing"),
            (self.by_steps, "step by step"),
            (self.hand_over, "with a hand-over"),
            (self.session, "the session itself"),
        ];
        for (_, name) in flags.iter().filter(|(is_set, _)| *is_set) {
            write!(f, ", {name}")?;
        }
        Ok(())
    }
}

/// 128 bits, so that no two states that differ are taken for one.
fn key(world: &World) -> (u64, u64) {
    let (mut one, mut other) = (DefaultHasher::new(), DefaultHasher::new());
    1u8.hash(&mut other);
    world.hash(&mut one);
    world.hash(&mut other);
    (one.finish(), other.finish())
}

struct Walk {
    configuration: Configuration,
    /// Each state: where it was reached from, and by what.
    states: Vec<(usize, Option<Move>)>,
    known: HashMap<(u64, u64), usize>,
    transitions: Vec<(usize, usize)>,
}

impl Walk {
    fn path(&self, mut state: usize) -> Vec<Move> {
        let mut path = Vec::new();
        while let (before, Some(step)) = self.states[state] {
            path.push(step);
            state = before;
        }
        path.reverse();
        path
    }

    fn reach(&self, path: &[Move]) -> World {
        let mut world = World::new(self.configuration);
        path.iter().for_each(|step| world.apply(*step));
        world
    }

    /// Makes a move from a state, and tells which one it leads to.
    fn go(&mut self, from: usize, path: &[Move], step: Move, mut world: World) -> usize {
        self.attempt(&mut world, path, Some(step), |world| world.apply(step));
        let next = self.states.len();
        let to = *self.known.entry(key(&world)).or_insert(next);
        if to == next {
            self.states.push((from, Some(step)));
        }
        self.transitions.push((from, to));
        to
    }

    fn attempt<R>(
        &self,
        world: &mut World,
        path: &[Move],
        step: Option<Move>,
        act: impl FnOnce(&mut World) -> R,
    ) -> R {
        match catch_unwind(AssertUnwindSafe(|| act(world))) {
            Ok(result) => result,
            Err(panic) => {
                eprintln!(
                    "{}\nmoves: {path:?}\nlast: {step:?}\n{}",
                    self.configuration,
                    world.dialogue()
                );
                resume_unwind(panic)
            }
        }
    }

    fn all(configuration: Configuration) {
        let began = Instant::now();
        let mut walk = Walk {
            configuration,
            states: vec![(0, None)],
            known: HashMap::from([(key(&World::new(configuration)), 0)]),
            transitions: Vec::new(),
        };
        let mut state = 0;
        while state < walk.states.len() {
            let path = walk.path(state);
            let mut world = walk.reach(&path);
            let moves = walk.attempt(&mut world, &path, None, |world| {
                world.check_calls();
                world.moves()
            });
            if let Some((last, others)) = moves.split_last() {
                for step in others {
                    walk.go(state, &path, *step, walk.reach(&path));
                }
                walk.go(state, &path, *last, world);
            }
            state += 1;
        }
        walk.check_ends();
        println!(
            "{:6} states, {:7} transitions, {:5.1} s: {configuration}",
            walk.states.len(),
            walk.transitions.len(),
            began.elapsed().as_secs_f32()
        );
    }

    /// No path goes in a cycle, so every one ends: states are taken away that no other one leads
    /// to, until none is left.
    fn check_ends(&self) {
        let mut leading = vec![0; self.states.len()];
        let mut followers = vec![Vec::new(); self.states.len()];
        for (from, to) in &self.transitions {
            leading[*to] += 1;
            followers[*from].push(*to);
        }
        let mut free: Vec<usize> = (0..leading.len()).filter(|s| leading[*s] == 0).collect();
        let mut taken = 0;
        while let Some(state) = free.pop() {
            taken += 1;
            for follower in &followers[state] {
                leading[*follower] -= 1;
                if leading[*follower] == 0 {
                    free.push(*follower);
                }
            }
        }
        assert_eq!(taken, self.states.len(), "a path goes in a cycle");
    }
}

fn walk(framing: Framing) {
    for pipelining in [false, true] {
        for kind in [Kind::Smtp, Kind::Lmtp, Kind::Prdr] {
            let configuration = Configuration::new(kind, framing, pipelining);
            Walk::all(configuration);
            // PRDR is asked for with MAIL where the recipients are known by then.
            if kind != Kind::Prdr {
                Walk::all(Configuration {
                    by_steps: true,
                    ..configuration
                });
            }
        }
        let all_or_nothing = Configuration {
            all_or_nothing: true,
            ..Configuration::new(Kind::Smtp, framing, pipelining)
        };
        Walk::all(all_or_nothing);
        Walk::all(Configuration {
            by_steps: true,
            ..all_or_nothing
        });
    }
}

#[test]
fn every_path_with_data_ends_as_the_server_said() {
    walk(Framing::Data);
}

#[test]
fn every_path_with_one_chunk_ends_as_the_server_said() {
    walk(Framing::Chunk);
}

#[test]
fn every_path_with_several_chunks_ends_as_the_server_said() {
    walk(Framing::Chunks);
}

#[test]
fn every_path_with_a_handover_ends_as_the_server_said() {
    for framing in [Framing::Data, Framing::Chunk, Framing::Chunks] {
        for pipelining in [false, true] {
            for kind in [Kind::Smtp, Kind::Lmtp] {
                Walk::all(Configuration {
                    hand_over: true,
                    splits: false,
                    ..Configuration::new(kind, framing, pipelining)
                });
            }
        }
    }
    // A message that is withdrawn between two others.
    Walk::all(Configuration {
        hand_over: true,
        splits: false,
        messages: 3,
        recipients: 1,
        ..Configuration::new(Kind::Smtp, Framing::Chunk, true)
    });
}

#[test]
fn every_path_of_a_session_ends_as_the_server_said() {
    for kind in [Kind::Smtp, Kind::Lmtp] {
        Walk::all(Configuration {
            session: true,
            ..Configuration::new(kind, Framing::Data, true)
        });
    }
}
