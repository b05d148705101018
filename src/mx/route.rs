//! Which server is tried next: a state machine without I/O, clock and randomness.
//!
//! [`order`] puts the hosts of a domain into the order in which they are tried. A [`Route`] then
//! says, step by step, which host is to be looked up and which address is to be tried, and learns
//! what came of it: the addresses of a host, or the recipients for which the message may still go
//! to another server. [`judge`] reads that from the result of an attempt. [`Failures`] remembers
//! the servers that failed lately; the time is given.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::connection::clock::FAR;
use crate::dns::DomainName;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::proto::Reply;
use crate::receipt::{Outcome, Receipt, Recipient};

/// Puts the hosts of MX records into the order in which they are tried (RFC 5321, 5.1): by
/// preference, those of equal preference in a random order, which the seed decides. A host that is
/// named several times counts once, by its lowest number.
///
/// Where a host is one of `own`, it is left out, and so are all hosts that are not preferred to it:
/// the message would come back to this server.
pub(super) fn order(
    mut exchanges: Vec<(u16, DomainName)>,
    own: &[DomainName],
    seed: u64,
) -> Vec<DomainName> {
    let own = exchanges.iter().filter(|(_, host)| own.contains(host));
    if let Some(own) = own.map(|(preference, _)| *preference).min() {
        exchanges.retain(|(preference, _)| *preference < own);
    }
    fastrand::Rng::with_seed(seed).shuffle(&mut exchanges);
    exchanges.sort_by_key(|(preference, _)| *preference);
    // A domain may have thousands of records.
    let mut seen = HashSet::new();
    let hosts = exchanges.into_iter().map(|(_, host)| host);
    hosts.filter(|host| seen.insert(host.clone())).collect()
}

/// Puts the addresses of a host into the order in which they are tried: in a random order, which
/// the seed decides, but IPv6 and IPv4 alternate, so that a family that does not work here uses up
/// no more than half of the attempts. Each is there once.
pub(super) fn alternate(mut addresses: Vec<IpAddr>, seed: u64) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    fastrand::Rng::with_seed(seed).shuffle(&mut addresses);
    let (v6, v4): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    let mut turns = Vec::with_capacity(v6.len() + v4.len());
    loop {
        let turn = [v6.next(), v4.next()];
        if turn == [None, None] {
            return turns;
        }
        turns.extend(turn.into_iter().flatten());
    }
}

/// An address of a host, which is given by its index in the order of the hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) host: usize,
    pub(super) address: IpAddr,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The addresses of this host are looked up, for [`Route::found`].
    LookUp(usize),
    /// The message is sent to this server for the [open](Route::open) recipients, for
    /// [`Route::tried`].
    Try(Server),
    /// No server is left, or none may be tried any more.
    End,
}

/// The way of a message to the servers of one domain.
#[derive(Debug)]
pub(super) struct Route {
    /// The hosts that were not looked up yet.
    hosts: std::ops::Range<usize>,
    /// The addresses of the hosts that were looked up.
    ready: VecDeque<Server>,
    /// Those that failed lately: they are tried after all others.
    avoided: VecDeque<Server>,
    /// How many addresses may still be tried.
    attempts_left: usize,
    /// The indices of the recipients that another server may still accept.
    open: Vec<usize>,
}

impl Route {
    /// The way to this number of hosts, with a message for this number of recipients; at most
    /// `max_addresses` are tried.
    pub(super) fn new(hosts: usize, recipients: usize, max_addresses: usize) -> Self {
        Route {
            hosts: 0..hosts,
            ready: VecDeque::new(),
            avoided: VecDeque::new(),
            attempts_left: max_addresses,
            open: (0..recipients).collect(),
        }
    }

    /// The recipients that get the message from the next server, by their indices.
    pub(super) fn open(&self) -> &[usize] {
        &self.open
    }

    /// Says what is to be done next. A step is said once.
    pub(super) fn next(&mut self) -> Step {
        if self.open.is_empty() || self.attempts_left == 0 {
            return Step::End;
        }
        let server = match self.ready.pop_front() {
            Some(server) => Some(server),
            None => match self.hosts.next() {
                Some(host) => return Step::LookUp(host),
                None => self.avoided.pop_front(),
            },
        };
        let Some(server) = server else {
            return Step::End;
        };
        self.attempts_left -= 1;
        Step::Try(server)
    }

    /// The host has these addresses, which are tried in their order; none if they are not known or
    /// may not be used. Those that failed lately come after all other hosts.
    pub(super) fn found(
        &mut self,
        host: usize,
        addresses: impl IntoIterator<Item = IpAddr>,
        failed_lately: impl Fn(IpAddr) -> bool,
    ) {
        for address in addresses {
            let server = Server { host, address };
            match failed_lately(address) {
                false => self.ready.push_back(server),
                true => self.avoided.push_back(server),
            }
        }
    }

    /// The attempt has ended. Of the open recipients, `remaining` says for each in their order
    /// whether another server may get the message for it.
    pub(super) fn tried(&mut self, remaining: impl IntoIterator<Item = bool>) {
        let mut remaining = remaining.into_iter();
        self.open.retain(|_| remaining.next().unwrap_or_default());
    }

    /// No further host is looked up: only the addresses that are known are tried.
    pub(super) fn stop_looking_up(&mut self) {
        self.hosts = 0..0;
    }

    /// No further server is tried.
    pub(super) fn stop(&mut self) {
        self.open.clear();
    }
}

/// What an attempt means for the servers after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    /// For each recipient of the attempt, whether another server may get the message for it.
    pub(super) remaining: Vec<bool>,
    /// The server does not work, or not for this client: it is avoided for a while.
    pub(super) has_failed: bool,
}

/// Judges an attempt: the receipt, or the error with its receipt, of a message to this number of
/// recipients.
///
/// Where the session failed, or was refused, the next server gets the message. Refusals with 4xx,
/// of the sender, a recipient or the message, leave the recipient open; those with 5xx are final.
/// After an unknown outcome, and where the message itself is at fault, there is no other server.
pub(super) fn judge(result: &Result<Receipt>, recipients: usize) -> Judgement {
    let (receipt, error) = match result {
        Ok(receipt) => (Some(receipt), None),
        Err(error) => (error.receipt(), Some(error)),
    };
    let outcomes = receipt.map_or(&[][..], |receipt| &receipt.recipients);
    let is_unknown = error.is_some_and(Error::outcome_unknown)
        || outcomes
            .iter()
            .any(|recipient| recipient.outcome == Outcome::Unknown);
    let is_over = is_unknown || error.is_some_and(is_about_message);
    let remains = |index| match outcomes.get(index) {
        Some(recipient) => may_go_on(recipient, error),
        None => error.is_some_and(may_go_on_untried),
    };
    Judgement {
        remaining: (0..recipients)
            .map(|index| !is_over && remains(index))
            .collect(),
        has_failed: error.is_some_and(is_about_server),
    }
}

/// Whether another server may accept the message for a recipient of this outcome.
fn may_go_on(recipient: &Recipient, error: Option<&Error>) -> bool {
    match &recipient.outcome {
        Outcome::Accepted(_) | Outcome::Unknown => false,
        Outcome::Refused(reply) => reply.is_transient() || recipient.is_transient(),
        Outcome::NotTried => error.map_or(recipient.is_transient(), may_go_on_untried),
    }
}

/// Whether another server may accept the message for a recipient that was not tried because of this
/// error: unless the sender was refused with 5xx, or another recipient where it is all or none.
fn may_go_on_untried(error: &Error) -> bool {
    let is_refused = error.kind() == ErrorKind::Refused && error.phase().is_of_message();
    !is_refused || error.is_transient() || error.reply().is_some_and(Reply::is_transient)
}

/// The request, the message or its hand-over failed here, or the client was closed, whatever the
/// server.
fn is_about_message(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Request | ErrorKind::Input | ErrorKind::Handover | ErrorKind::PoolClosed => true,
        // Not that the addresses of a server cannot be reached from a local address.
        ErrorKind::Config => error.phase() != Phase::Connect,
        // The message itself was waited for, or its hand-over.
        ErrorKind::Timeout => error.phase() == Phase::Handover,
        _ => false,
    }
}

/// The error says that the server does not work.
fn is_about_server(error: &Error) -> bool {
    match error.kind() {
        // Waiting for a connection to become free.
        ErrorKind::Timeout => !matches!(error.phase(), Phase::Setup | Phase::Handover),
        ErrorKind::Refused => {
            !error.phase().is_of_message() || error.reply().is_some_and(|reply| reply.code() == 421)
        }
        ErrorKind::Connect
        | ErrorKind::Closed
        | ErrorKind::Protocol
        | ErrorKind::Tls
        | ErrorKind::Auth
        | ErrorKind::Insecure => true,
        ErrorKind::Request
        | ErrorKind::Input
        | ErrorKind::Config
        | ErrorKind::Unsupported
        | ErrorKind::Handover
        | ErrorKind::PoolClosed => false,
    }
}

/// The servers that failed lately.
#[derive(Debug)]
pub(super) struct Failures<K> {
    until: HashMap<K, Instant>,
}

impl<K> Default for Failures<K> {
    fn default() -> Self {
        Failures {
            until: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash> Failures<K> {
    /// More are not remembered, as a domain may have any number of servers.
    const MAX: usize = 10_000;

    /// The server failed: it is avoided for this time, at most a year.
    pub(super) fn failed(&mut self, server: K, now: Instant, pause: Duration) {
        let pause = pause.min(FAR);
        if self.until.len() >= Self::MAX {
            self.until.retain(|_, until| *until > now);
        }
        if self.until.len() < Self::MAX {
            self.until.insert(server, now + pause);
        }
    }

    /// The server works.
    pub(super) fn works(&mut self, server: &K) {
        self.until.remove(server);
    }

    /// Whether the server is avoided now.
    pub(super) fn is_avoided(&self, server: &K, now: Instant) -> bool {
        self.until.get(server).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> DomainName {
        text.parse().unwrap()
    }

    fn reply(text: &str) -> Reply {
        text.parse().unwrap()
    }

    #[test]
    fn own_hosts_and_those_that_are_not_preferred_to_them_are_left_out() {
        let exchanges = || {
            vec![
                (10, name("a.test")),
                (20, name("b.test")),
                (20, name("c.test")),
            ]
        };
        let ordered = |own: &[DomainName]| order(exchanges(), own, 1);
        assert_eq!(ordered(&[]).len(), 3);
        assert_eq!(ordered(&[name("b.test")]), [name("a.test")]);
        assert_eq!(ordered(&[name("a.test")]), []);
        assert_eq!(ordered(&[name("d.test")]).len(), 3);
        // By its lowest number.
        let twice = [(20, "a.test"), (10, "b.test"), (5, "a.test")];
        let twice = twice.map(|(preference, host)| (preference, name(host)));
        assert_eq!(order(twice.into(), &[], 1), ["a.test", "b.test"].map(name));
    }

    #[test]
    fn hosts_of_equal_preference_are_shuffled() {
        let exchanges: Vec<_> = ["a", "b", "c", "d"].map(|host| (10, name(host))).into();
        let orders: HashSet<_> = (0..64)
            .map(|seed| order(exchanges.clone(), &[], seed))
            .collect();
        assert!(orders.len() > 10, "{orders:?}");
    }

    #[test]
    fn families_alternate() {
        let addresses = ["::1", "::2", "::3", "1.1.1.1", "::3"].map(|text| text.parse().unwrap());
        let turns = alternate(addresses.into(), 7);
        assert_eq!(turns.len(), 4);
        assert!(turns[0].is_ipv6() && turns[1].is_ipv4(), "{turns:?}");
    }

    #[test]
    fn what_an_attempt_means_for_the_next_server() {
        let error = |kind, phase| Error::new(kind, phase, "it failed");
        let refused = |phase, text: &str| error(ErrorKind::Refused, phase).with_reply(reply(text));
        let unknown = error(ErrorKind::Closed, Phase::EndOfData).with_outcome_unknown(true);
        let bound = error(ErrorKind::Config, Phase::Connect);
        for (error, goes_on, has_failed) in [
            (error(ErrorKind::Connect, Phase::Connect), true, true),
            (error(ErrorKind::Timeout, Phase::Greeting), true, true),
            (error(ErrorKind::Closed, Phase::Rcpt), true, true),
            (error(ErrorKind::Protocol, Phase::Greeting), true, true),
            (error(ErrorKind::Tls, Phase::Tls), true, true),
            (refused(Phase::Greeting, "554 5.7.1 No"), true, true),
            (refused(Phase::Greeting, "450 4.7.1 Later"), true, true),
            (refused(Phase::Hello, "550 5.7.1 No"), true, true),
            (refused(Phase::Mail, "421 4.3.2 Shutting down"), true, true),
            (refused(Phase::Mail, "451 4.3.0 Later"), true, false),
            (refused(Phase::Mail, "550 5.7.1 No"), false, false),
            (error(ErrorKind::Unsupported, Phase::Mail), true, false),
            (error(ErrorKind::Timeout, Phase::Setup), true, false),
            (bound, true, false),
            (unknown, false, true),
            (error(ErrorKind::Request, Phase::Setup), false, false),
            (error(ErrorKind::Input, Phase::Body), false, false),
            (error(ErrorKind::Handover, Phase::Handover), false, false),
            (error(ErrorKind::Timeout, Phase::Handover), false, false),
            (error(ErrorKind::Config, Phase::Setup), false, false),
            (error(ErrorKind::PoolClosed, Phase::Setup), false, false),
        ] {
            let text = format!("{error:?}");
            let mut receipt = Receipt::new("mx.test");
            receipt.recipients = vec![Recipient::untried("a@example.org".parse().unwrap())];
            for error in [error.clone(), error.with_receipt(receipt)] {
                let judgement = judge(&Err(error), 1);
                assert_eq!(judgement.remaining, [goes_on], "{text}");
                assert_eq!(judgement.has_failed, has_failed, "{text}");
            }
        }
    }

    #[test]
    fn each_recipient_has_its_own_outcome() {
        let outcomes = [
            (Outcome::Accepted(reply("250 2.1.5 Ok")), false),
            (Outcome::Refused(reply("450 4.2.1 Later")), true),
            (Outcome::Refused(reply("550 5.1.1 No such user")), false),
            (Outcome::NotTried, false),
        ];
        let mut receipt = Receipt::new("mx.test");
        receipt.recipients = (outcomes.iter().enumerate())
            .map(|(index, (outcome, _))| {
                let address = format!("{index}@example.org").parse().unwrap();
                Recipient::new(address, outcome.clone())
            })
            .collect();
        let expected: Vec<bool> = outcomes.iter().map(|(_, remains)| *remains).collect();
        let judgement = judge(&Ok(receipt.clone()), 4);
        assert_eq!(
            (judgement.remaining, judgement.has_failed),
            (expected, false)
        );
        // Where one outcome is unknown, no other server is tried for any recipient.
        receipt.recipients[3].outcome = Outcome::Unknown;
        let lost = Error::new(ErrorKind::Closed, Phase::EndOfData, "it was lost");
        let lost = lost.with_outcome_unknown(true).with_receipt(receipt);
        assert_eq!(judge(&Err(lost), 4).remaining, [false; 4]);
    }

    #[test]
    fn failures_are_forgotten() {
        let mut failures = Failures::default();
        let (now, minute) = (Instant::now(), Duration::from_secs(60));
        failures.failed("a", now, minute);
        assert!(failures.is_avoided(&"a", now) && !failures.is_avoided(&"b", now));
        assert!(!failures.is_avoided(&"a", now + minute));
        failures.works(&"a");
        assert!(!failures.is_avoided(&"a", now));
        failures.failed("a", now, Duration::MAX);
        assert!(failures.is_avoided(&"a", now + minute));
    }

    /// A host of a made-up domain.
    #[derive(Clone, Debug)]
    struct MadeUp {
        preference: u16,
        /// For each address: whether it failed lately, and what comes of an attempt there.
        addresses: Vec<(bool, Answer)>,
    }

    /// What comes of an attempt.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Answer {
        /// The session fails.
        Fails,
        /// All outcomes are final.
        Final,
        /// The recipients with an odd index may go on.
        Partly,
    }

    fn made_up() -> impl Strategy<Value = MadeUp> {
        let answer = prop_oneof![
            6 => Just(Answer::Fails),
            1 => Just(Answer::Final),
            2 => Just(Answer::Partly),
        ];
        let addresses = prop::collection::vec((any::<bool>(), answer), 0..4);
        (0..3u16, addresses).prop_map(|(preference, addresses)| MadeUp {
            preference,
            addresses,
        })
    }

    proptest! {
        #[test]
        fn every_server_has_its_turn_and_no_recipient_two_answers(
            hosts in prop::collection::vec(made_up(), 0..6),
            recipients in 1..5usize,
            max_addresses in 0..12usize,
            seed in any::<u64>(),
        ) {
            let exchanges = (hosts.iter().enumerate())
                .map(|(index, host)| (host.preference, name(&format!("h{index}"))))
                .collect();
            let order: Vec<usize> = order(exchanges, &[], seed)
                .iter()
                .map(|host| host.as_str()[1..].parse().unwrap())
                .collect();
            prop_assert!(order.is_sorted_by_key(|host| hosts[*host].preference));
            prop_assert_eq!(order.iter().collect::<HashSet<_>>().len(), hosts.len());

            let place = |address: IpAddr| match address {
                IpAddr::V4(address) => (address.octets()[2].into(), address.octets()[3].into()),
                IpAddr::V6(_) => unreachable!("no such address was made up"),
            };
            let server = |address| -> (bool, Answer) {
                let (host, index): (usize, usize) = place(address);
                hosts[host].addresses[index]
            };
            let mut route = Route::new(order.len(), recipients, max_addresses);
            let (mut looked_up, mut tried) = (Vec::new(), Vec::new());
            let mut decided = HashSet::new();
            loop {
                match route.next() {
                    Step::LookUp(host) => {
                        looked_up.push(host);
                        let host_index = order[host];
                        let addresses = (0..hosts[host_index].addresses.len())
                            .map(|index| IpAddr::from([10, 0, host_index as u8, index as u8]));
                        route.found(host, addresses, |address| server(address).0);
                    }
                    Step::Try(Server { host, address }) => {
                        prop_assert_eq!(order[host], place(address).0);
                        let open = route.open().to_vec();
                        prop_assert!(!open.is_empty());
                        prop_assert!(open.iter().all(|index| !decided.contains(index)));
                        tried.push(address);
                        let remains = |index: &usize| match server(address).1 {
                            Answer::Fails => true,
                            Answer::Final => false,
                            Answer::Partly => index % 2 == 1,
                        };
                        decided.extend(open.iter().copied().filter(|index| !remains(index)));
                        route.tried(open.iter().map(remains));
                    }
                    Step::End => break,
                }
            }
            // Each at most once, within the bound.
            prop_assert!(looked_up.is_sorted_by(|one, other| one < other));
            prop_assert_eq!(tried.iter().collect::<HashSet<_>>().len(), tried.len());
            prop_assert!(tried.len() <= max_addresses);
            // Those that failed lately come last; before and among them, the order of the hosts.
            let rank = |address: &IpAddr| {
                let host = order.iter().position(|host| *host == place(*address).0);
                (server(*address).0, host, place(*address).1)
            };
            prop_assert!(tried.is_sorted_by_key(rank));
            // No server is left out while a recipient is open and the bound allows one more.
            let all: usize = hosts.iter().map(|host| host.addresses.len()).sum();
            let is_open = decided.len() < recipients;
            prop_assert!(!is_open || tried.len() == all.min(max_addresses));
            // What stays open was answered by no server.
            prop_assert_eq!(route.open().len(), recipients - decided.len());
        }
    }
}
