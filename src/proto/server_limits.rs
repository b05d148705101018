//! The limits that a server announces (LIMITS, RFC 9422).

#[cfg(feature = "client")]
use std::collections::HashMap;
use std::collections::HashSet;

use super::error::Result;
use super::{Phase, ProtocolError, Reason};
use crate::address::Address;

/// The limits of a server (RFC 9422).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerLimits {
    /// The maximum number of messages in a session.
    pub mail_max: Option<usize>,
    /// The maximum number of recipients of a message.
    pub rcpt_max: Option<usize>,
    /// The maximum number of different domains among the recipients of a message.
    pub rcpt_domain_max: Option<usize>,
}

impl ServerLimits {
    /// Why one transaction cannot have these recipients, if it cannot.
    pub(super) fn find_excess(&self, recipients: &[Address]) -> Option<Reason> {
        if let Some(max) = self.rcpt_max
            && recipients.len() > max
        {
            let number = recipients.len();
            return Some(Reason::TooManyRecipients { number, max });
        }
        if let Some(max) = self.rcpt_domain_max
            && recipients.len() > max
        {
            let domains: HashSet<String> = recipients.iter().map(Address::domain_key).collect();
            if domains.len() > max {
                let number = domains.len();
                return Some(Reason::TooManyDomains { number, max });
            }
        }
        None
    }

    /// Checks that one more recipient may follow `others`. `domains` contains theirs; the domain of
    /// the new one is added.
    pub(super) fn check_another(
        &self,
        others: usize,
        domains: &mut HashSet<String>,
        recipient: &Address,
    ) -> Result<()> {
        if let Some(max) = self.rcpt_max
            && others >= max
        {
            let number = others + 1;
            return Err(too_many(Reason::TooManyRecipients { number, max }));
        }
        if let Some(max) = self.rcpt_domain_max {
            let domain = recipient.domain_key();
            if domains.len() >= max && !domains.contains(&domain) {
                let number = domains.len() + 1;
                return Err(too_many(Reason::TooManyDomains { number, max }));
            }
            domains.insert(domain);
        }
        Ok(())
    }

    /// Checks that `more` transactions may follow those that the session has had.
    pub(super) fn check_session(&self, begun: usize, more: usize) -> Result<()> {
        match self.mail_max {
            Some(max) if more > max => Err(too_many(Reason::TooManyParts { parts: more, max })),
            Some(max) if begun + more > max => Err(too_many(Reason::SessionFull { max, begun })),
            _ => Ok(()),
        }
    }

    /// Groups the indexes of recipients into transactions, the fewest or nearly so that the limits
    /// allow. The recipients of a domain stay together.
    #[cfg(feature = "client")]
    pub(crate) fn parts(&self, recipients: &[Address]) -> Vec<Vec<usize>> {
        if self.find_excess(recipients).is_none() {
            return vec![(0..recipients.len()).collect()];
        }
        let mut places: Vec<usize> = (0..recipients.len()).collect();
        // The index of each recipient's domain, in order of first occurrence.
        let mut domain_of = Vec::new();
        if self.rcpt_domain_max.is_some() {
            let mut numbers = HashMap::new();
            domain_of.extend(recipients.iter().map(|recipient| {
                let next = numbers.len();
                *numbers.entry(recipient.domain_key()).or_insert(next)
            }));
            places.sort_by_key(|place| domain_of[*place]);
        }
        let mut parts: Vec<Vec<usize>> = Vec::new();
        let (mut domains, mut last_domain) = (0, None);
        for place in places {
            let domain = domain_of.get(place);
            let is_new = domain != last_domain;
            let is_full = |part: &Vec<usize>| {
                self.rcpt_max.is_some_and(|max| part.len() >= max)
                    || self
                        .rcpt_domain_max
                        .is_some_and(|max| is_new && domains >= max)
            };
            match parts.last_mut().filter(|part| !is_full(part)) {
                Some(part) => {
                    part.push(place);
                    domains += usize::from(is_new);
                }
                None => {
                    parts.push(vec![place]);
                    domains = 1;
                }
            }
            last_domain = domain;
        }
        parts
    }
}

fn too_many(reason: Reason) -> ProtocolError {
    ProtocolError::new(Phase::Mail, reason)
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "client")]
    use proptest::prelude::*;

    use super::*;

    fn limits(rcpt_max: Option<usize>, rcpt_domain_max: Option<usize>) -> ServerLimits {
        ServerLimits {
            mail_max: None,
            rcpt_max,
            rcpt_domain_max,
        }
    }

    fn addresses(names: &[&str]) -> Vec<Address> {
        names
            .iter()
            .map(|name| Address::new(*name).unwrap())
            .collect()
    }

    #[test]
    fn recipients_are_checked_against_the_limits() {
        let to = addresses(&["a@x", "b@y", "c@x"]);
        for (limits, is_within) in [
            (limits(None, None), true),
            (limits(Some(3), Some(2)), true),
            (limits(Some(2), None), false),
            (limits(None, Some(1)), false),
        ] {
            assert_eq!(limits.find_excess(&to).is_none(), is_within, "{limits:?}");
        }
    }

    #[test]
    fn messages_of_a_session_are_checked_against_mailmax() {
        let limits = ServerLimits {
            mail_max: Some(3),
            ..ServerLimits::default()
        };
        let full = |begun| Some(Reason::SessionFull { max: 3, begun });
        for (begun, more, reason) in [
            (0, 3, None),
            (1, 2, None),
            (3, 0, None),
            (0, 4, Some(Reason::TooManyParts { parts: 4, max: 3 })),
            (1, 3, full(1)),
            (3, 1, full(3)),
        ] {
            let error = limits.check_session(begun, more).err();
            let found = error.map(|error| error.reason().clone());
            assert_eq!(found, reason, "{begun} and {more}");
        }
        ServerLimits::default().check_session(1000, 1000).unwrap();
    }

    #[cfg(feature = "client")]
    #[test]
    fn parts_keep_recipients_in_order_unless_grouped_by_domain() {
        let to = addresses(&["a@x", "b@y", "c@X", "d@z", "e@y"]);
        assert_eq!(limits(None, None).parts(&to), [[0, 1, 2, 3, 4]]);
        assert_eq!(
            limits(Some(2), None).parts(&to),
            [&[0, 1][..], &[2, 3], &[4]]
        );
        assert_eq!(
            limits(None, Some(1)).parts(&to),
            [&[0, 2][..], &[1, 4], &[3]]
        );
        assert_eq!(limits(None, Some(2)).parts(&to), [&[0, 2, 1, 4][..], &[3]]);
        assert_eq!(limits(Some(5), Some(3)).parts(&to), [[0, 1, 2, 3, 4]]);
        assert_eq!(
            limits(Some(3), Some(2)).parts(&to),
            [&[0, 2, 1][..], &[4, 3]]
        );
    }

    #[test]
    fn spellings_of_a_domain_count_once() {
        let to = addresses(&[
            "a@EXAMPLE.org",
            "b@example.org",
            "c@ex\u{e4}mple.org",
            "d@xn--exmple-cua.org",
        ]);
        let domains = if cfg!(feature = "idna") { 2 } else { 3 };
        assert_eq!(limits(Some(4), Some(domains)).find_excess(&to), None);
        assert!(limits(Some(3), None).find_excess(&to).is_some());
        assert!(limits(None, Some(1)).find_excess(&to).is_some());
    }

    #[cfg(feature = "client")]
    proptest! {
        /// Every recipient is in exactly one group, and each group is within the limits.
        #[test]
        fn parts_stay_within_the_limits(
            domains in prop::collection::vec(0..5u8, 1..30),
            rcpt_max in prop::option::of(1..6usize),
            rcpt_domain_max in prop::option::of(1..4usize),
        ) {
            let address = |n: &_| Address::new(format!("a@d{n}")).unwrap();
            let to: Vec<Address> = domains.iter().map(address).collect();
            let limits = limits(rcpt_max, rcpt_domain_max);
            let parts = limits.parts(&to);
            for part in &parts {
                let part: Vec<Address> = part.iter().map(|place| to[*place].clone()).collect();
                prop_assert_eq!(limits.find_excess(&part), None);
            }
            let mut places = parts.concat();
            places.sort_unstable();
            prop_assert_eq!(places, (0..to.len()).collect::<Vec<_>>());
        }
    }
}
