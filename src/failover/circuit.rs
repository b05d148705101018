//! The state of each server, and the order in which a message tries them. There is no clock and no
//! I/O here: the time is given to each call.
//!
//! ```text
//!            failures in a row            the pause is over, and
//!            reach the limit              a message tries the server
//!  Closed ───────────────────────► Open ─────────────────────────────► HalfOpen
//!    ▲                              ▲ │                                  │   │
//!    │          success             │ │ success of an earlier attempt    │   │
//!    ├──────────────────────────────┼─┴───────────────◄──────────────────┘   │
//!    │                              └────────────────────────────────────────┘
//!    │                                     failure: the pause doubles
//! ```

use std::time::Duration;

use tokio::time::Instant;

use super::FailoverPolicy;

/// The states of all servers.
#[derive(Debug)]
pub(super) struct Circuits {
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    /// The share of the messages; `None` for a server that only serves where others fail.
    weight: Option<u32>,
    /// The messages that the server is owed, in units of the sum of all weights.
    credit: i64,
    circuit: Circuit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Circuit {
    /// The server is used. It has failed so many times in a row.
    Closed { failures: u32 },
    /// The server is paused.
    Open { until: Instant, pause: Duration },
    /// The pause is over, and one message tries whether the server works.
    HalfOpen { pause: Duration },
}

/// Whether an attempt decides about a server that was paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Normal,
    Trial,
}

impl Circuits {
    /// All servers are used. They have these weights.
    pub(super) fn new(weights: impl IntoIterator<Item = Option<u32>>) -> Self {
        let server = |weight| Server {
            weight,
            credit: 0,
            circuit: Circuit::Closed { failures: 0 },
        };
        Circuits {
            servers: weights.into_iter().map(server).collect(),
        }
    }

    /// The order in which the next message tries the servers: all of them, since a message does not
    /// fail because its servers are paused.
    ///
    /// First are those that are not paused: those with a weight, the first of them in proportion to
    /// the weights, then the others in their order. The paused ones follow, the one whose pause
    /// ends first before the others.
    pub(super) fn order(&mut self, now: Instant) -> Vec<usize> {
        let (mut usable, mut paused): (Vec<usize>, Vec<usize>) =
            (0..self.servers.len()).partition(|&index| self.is_usable(index, now));
        let weighted: Vec<usize> = usable
            .iter()
            .copied()
            .filter(|&index| self.weight(index) > 0)
            .collect();
        // Smooth weighted round-robin, as nginx has it: 3 and 1 give a, a, b, a.
        for &index in &weighted {
            self.servers[index].credit += self.weight(index);
        }
        let by_credit = |servers: &[Server], index: usize| {
            (servers[index].weight.is_none(), -servers[index].credit)
        };
        // Stable: without weights, the order stays.
        usable.sort_by_key(|&index| by_credit(&self.servers, index));
        if let Some(&first) = usable.first().filter(|first| weighted.contains(first)) {
            self.servers[first].credit -= weighted.iter().map(|&i| self.weight(i)).sum::<i64>();
        }
        paused.sort_by_key(|&index| match self.servers[index].circuit {
            Circuit::Open { until, .. } => until,
            Circuit::Closed { .. } | Circuit::HalfOpen { .. } => now,
        });
        usable.append(&mut paused);
        usable
    }

    fn weight(&self, index: usize) -> i64 {
        self.servers[index].weight.unwrap_or(0).into()
    }

    fn is_usable(&self, index: usize, now: Instant) -> bool {
        match self.servers[index].circuit {
            Circuit::Closed { .. } => true,
            Circuit::Open { until, .. } => until <= now,
            Circuit::HalfOpen { .. } => false,
        }
    }

    /// An attempt to send a message begins. One of `succeeded`, `failed` and `undecided` follows.
    pub(super) fn start(&mut self, index: usize, now: Instant) -> Attempt {
        let circuit = &mut self.servers[index].circuit;
        match *circuit {
            Circuit::Open { until, pause } if until <= now => {
                *circuit = Circuit::HalfOpen { pause };
                Attempt::Trial
            }
            _ => Attempt::Normal,
        }
    }

    /// The server works. Returns whether it was paused.
    pub(super) fn succeeded(&mut self, index: usize) -> bool {
        let closed = Circuit::Closed { failures: 0 };
        let before = std::mem::replace(&mut self.servers[index].circuit, closed);
        !matches!(before, Circuit::Closed { .. })
    }

    /// The server does not work. Returns the pause, if one begins.
    pub(super) fn failed(
        &mut self,
        index: usize,
        attempt: Attempt,
        policy: &FailoverPolicy,
        now: Instant,
    ) -> Option<Duration> {
        let circuit = &mut self.servers[index].circuit;
        let pause = match (*circuit, attempt) {
            (Circuit::Closed { failures }, _) if failures + 1 < policy.max_failures => {
                *circuit = Circuit::Closed {
                    failures: failures + 1,
                };
                return None;
            }
            (Circuit::Closed { .. }, _) => policy.pause,
            (Circuit::HalfOpen { pause }, Attempt::Trial) => pause.saturating_mul(2),
            // An attempt that began before the pause, or for want of another server.
            (Circuit::HalfOpen { .. } | Circuit::Open { .. }, _) => return None,
        };
        let pause = pause.min(policy.max_pause);
        *circuit = Circuit::Open {
            until: now + pause,
            pause,
        };
        Some(pause)
    }

    /// The attempt says nothing about the server, or was given up.
    pub(super) fn undecided(&mut self, index: usize, attempt: Attempt, now: Instant) {
        let circuit = &mut self.servers[index].circuit;
        if let (Circuit::HalfOpen { pause }, Attempt::Trial) = (*circuit, attempt) {
            // The next message tries the server.
            *circuit = Circuit::Open { until: now, pause };
        }
    }

    pub(super) fn state(&self, index: usize) -> Circuit {
        self.servers[index].circuit
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> FailoverPolicy {
        FailoverPolicy {
            max_failures: 3,
            pause: Duration::from_secs(10),
            max_pause: Duration::from_secs(35),
        }
    }

    #[test]
    fn a_server_is_paused_tried_and_used_again() {
        let (mut circuits, policy) = (Circuits::new([None, None]), policy());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for _ in 0..2 {
            assert_eq!(circuits.start(0, start), Attempt::Normal);
            assert_eq!(circuits.failed(0, Attempt::Normal, &policy, start), None);
            assert_eq!(circuits.order(start), [0, 1]);
        }
        // A success in between starts the count anew.
        assert!(!circuits.succeeded(0));
        for _ in 0..2 {
            assert_eq!(circuits.failed(0, Attempt::Normal, &policy, start), None);
        }
        let paused = circuits.failed(0, Attempt::Normal, &policy, start);
        assert_eq!(paused, Some(Duration::from_secs(10)));
        // Another attempt that began before.
        assert_eq!(circuits.failed(0, Attempt::Normal, &policy, at(3)), None);
        assert_eq!(circuits.order(at(9)), [1, 0]);
        // The pause is over: one message tries it, the others do not.
        let mut now = 10;
        for pause in [20, 35, 35] {
            assert_eq!(circuits.order(at(now)), [0, 1]);
            assert_eq!(circuits.start(0, at(now)), Attempt::Trial);
            assert_eq!(circuits.order(at(now)), [1, 0]);
            assert_eq!(circuits.start(0, at(now)), Attempt::Normal);
            let paused = circuits.failed(0, Attempt::Trial, &policy, at(now));
            assert_eq!(paused, Some(Duration::from_secs(pause)));
            now += pause;
        }
        // A trial that is given up is followed by another.
        assert_eq!(circuits.start(0, at(now)), Attempt::Trial);
        circuits.undecided(0, Attempt::Trial, at(now));
        assert_eq!(circuits.start(0, at(now)), Attempt::Trial);
        assert!(circuits.succeeded(0));
        assert_eq!(circuits.order(at(now)), [0, 1]);
        // The next pause is the shortest again.
        let failures = (0..3).map(|_| circuits.failed(0, Attempt::Normal, &policy, at(now)));
        assert_eq!(failures.last(), Some(Some(Duration::from_secs(10))));
    }

    #[test]
    fn where_all_are_paused_the_one_whose_pause_ends_first_is_tried_first() {
        let mut circuits = Circuits::new([None, None, None]);
        let policy = FailoverPolicy {
            max_failures: 1,
            ..policy()
        };
        let now = Instant::now();
        for (index, seconds) in [(0, 2), (1, 0), (2, 1)] {
            let at = now + Duration::from_secs(seconds);
            let _ = circuits.failed(index, Attempt::Normal, &policy, at);
        }
        assert_eq!(circuits.order(now + Duration::from_secs(3)), [1, 2, 0]);
    }

    #[test]
    fn weights_spread_the_messages_evenly() {
        let mut circuits = Circuits::new([None, Some(3), Some(1), None]);
        let now = Instant::now();
        let orders: Vec<_> = (0..4).map(|_| circuits.order(now)).collect();
        assert_eq!(
            orders,
            [[1, 2, 0, 3], [1, 2, 0, 3], [2, 1, 0, 3], [1, 2, 0, 3]]
        );
    }

    proptest! {
        #[test]
        fn each_server_gets_its_share(weights in prop::collection::vec(1_u32..8, 1..5)) {
            let mut circuits = Circuits::new(weights.iter().copied().map(Some));
            let now = Instant::now();
            for _ in 0..3 {
                let mut served = vec![0; weights.len()];
                for _ in 0..weights.iter().sum::<u32>() {
                    served[circuits.order(now)[0]] += 1;
                }
                prop_assert_eq!(&served, &weights);
            }
        }

        #[test]
        fn whatever_happens_the_states_are_sound(
            weights in prop::collection::vec(prop::option::of(1_u32..4), 1..4),
            steps in prop::collection::vec((0_usize..3, 0_usize..4, 0_u64..20), 0..200),
        ) {
            let policy = policy();
            let mut circuits = Circuits::new(weights.iter().copied());
            let mut now = Instant::now();
            let mut running: Vec<(usize, Attempt)> = Vec::new();
            let mut in_a_row = vec![0; weights.len()];
            for (which, what, seconds) in steps {
                now += Duration::from_secs(seconds);
                let order = circuits.order(now);
                let mut all = order.clone();
                all.sort_unstable();
                prop_assert!(all.into_iter().eq(0..weights.len()), "each server, once");
                // No server that is usable comes after one that is paused.
                let usable: Vec<_> = order.iter().map(|i| circuits.is_usable(*i, now)).collect();
                prop_assert!(usable.is_sorted_by(|a, b| a >= b), "{usable:?}");
                if what == 0 || running.is_empty() {
                    let index = order[which % order.len()];
                    running.push((index, circuits.start(index, now)));
                } else {
                    let (index, attempt) = running.remove(which % running.len());
                    match what {
                        1 => {
                            let _ = circuits.succeeded(index);
                            in_a_row[index] = 0;
                            prop_assert!(circuits.is_usable(index, now));
                        }
                        2 => {
                            in_a_row[index] += 1;
                            if let Some(pause) = circuits.failed(index, attempt, &policy, now) {
                                prop_assert!(pause >= policy.pause && pause <= policy.max_pause);
                                prop_assert!(in_a_row[index] >= 3 || attempt == Attempt::Trial);
                            }
                        }
                        _ => circuits.undecided(index, attempt, now),
                    }
                }
                for index in 0..weights.len() {
                    let trials = running
                        .iter()
                        .filter(|running| **running == (index, Attempt::Trial))
                        .count();
                    match circuits.state(index) {
                        Circuit::Closed { failures } => prop_assert!(failures < 3),
                        Circuit::Open { until, .. } => {
                            prop_assert!(until <= now + policy.max_pause);
                        }
                        // Some message decides about it, so it does not stay in this state.
                        Circuit::HalfOpen { .. } => prop_assert!(trials >= 1),
                    }
                }
            }
        }
    }
}
