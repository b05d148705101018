//! How much a server takes at once, by what it offers (LIMITS, RFC 9422).

#[cfg(feature = "client")]
use std::collections::HashMap;
use std::collections::HashSet;

use crate::Address;
use crate::error::{Error, ErrorKind, Phase, Result};

/// How much a server takes at once (RFC 9422).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerLimits {
    /// Messages in a session.
    pub mail_max: Option<usize>,
    /// Recipients of a message.
    pub rcpt_max: Option<usize>,
    /// Different domains among the recipients of a message.
    pub rcpt_domain_max: Option<usize>,
}

impl ServerLimits {
    /// So many recipients can be had in one transaction.
    pub(super) fn check(&self, recipients: &[Address]) -> Result<()> {
        if let Some(max) = self.rcpt_max
            && recipients.len() > max
        {
            return Err(too_many(recipients.len(), max, "recipients"));
        }
        if let Some(max) = self.rcpt_domain_max
            && recipients.len() > max
        {
            let domains: HashSet<String> = recipients.iter().map(Address::domain_key).collect();
            if domains.len() > max {
                return Err(too_many(domains.len(), max, "domains of recipients"));
            }
        }
        Ok(())
    }

    /// One more recipient can be had after so many others. `domains` has theirs, and gets its own.
    pub(super) fn check_another(
        &self,
        others: usize,
        domains: &mut HashSet<String>,
        recipient: &Address,
    ) -> Result<()> {
        if let Some(max) = self.rcpt_max
            && others >= max
        {
            return Err(too_many(others + 1, max, "recipients"));
        }
        if let Some(max) = self.rcpt_domain_max {
            let domain = recipient.domain_key();
            if domains.len() >= max && !domains.contains(&domain) {
                return Err(too_many(domains.len() + 1, max, "domains of recipients"));
            }
            domains.insert(domain);
        }
        Ok(())
    }

    /// So many more transactions can follow those that this session has had.
    pub(super) fn check_session(&self, mails: usize, more: usize) -> Result<()> {
        match self.mail_max {
            Some(max) if more > max => {
                let message = format!(
                    "the message goes in {more} parts, and the server takes {max} in a session \
                        (LIMITS)"
                );
                Err(
                    Error::new(ErrorKind::Unsupported, Phase::Mail, message).with_hint(
                        "Client::send opens as many connections as it needs; or send it to fewer \
                        recipients at a time.",
                    ),
                )
            }
            // The session works as before, and is of no more use: what is to be done is what is
            // done about one that ended.
            Some(max) if mails + more > max => {
                let message = format!(
                    "the server takes {max} messages in a session (LIMITS), and has had {mails}"
                );
                Err(Error::new(ErrorKind::Closed, Phase::Mail, message)
                    .with_hint("Send it over a new connection."))
            }
            _ => Ok(()),
        }
    }

    /// The places of the recipients in as few parts as the limits allow, or nearly so: those of a
    /// domain stay together.
    #[cfg(feature = "client")]
    pub(crate) fn parts(&self, recipients: &[Address]) -> Vec<Vec<usize>> {
        if self.check(recipients).is_ok() {
            return vec![(0..recipients.len()).collect()];
        }
        let mut places: Vec<usize> = (0..recipients.len()).collect();
        // The number of each recipient's domain, in the order of their first recipients.
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

fn too_many(number: usize, max: usize, what: &str) -> Error {
    let message =
        format!("the message has {number} {what}, and the server takes {max} at once (LIMITS)");
    Error::new(ErrorKind::Unsupported, Phase::Mail, message).with_hint(
        "Send it in several parts. That happens by itself, unless the message is read from a \
            stream, or is to go to all \
         recipients or to none.",
    )
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
            assert_eq!(limits.check(&to).is_ok(), is_within, "{limits:?}");
        }
    }

    #[test]
    fn messages_of_a_session_are_checked_against_mailmax() {
        let limits = ServerLimits {
            mail_max: Some(3),
            ..ServerLimits::default()
        };
        for (before, more, kind) in [
            (0, 3, None),
            (1, 2, None),
            (3, 0, None),
            (0, 4, Some(ErrorKind::Unsupported)),
            (1, 3, Some(ErrorKind::Closed)),
            (3, 1, Some(ErrorKind::Closed)),
        ] {
            let told = limits
                .check_session(before, more)
                .err()
                .map(|error| error.kind());
            assert_eq!(told, kind, "{before} and {more}");
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
        limits(Some(4), Some(if cfg!(feature = "idna") { 2 } else { 3 }))
            .check(&to)
            .unwrap();
        assert!(
            limits(Some(3), None).check(&to).is_err() && limits(None, Some(1)).check(&to).is_err()
        );
    }

    #[cfg(feature = "client")]
    proptest! {
        /// Everybody is in one part, and each part keeps to the limits.
        #[test]
        fn parts_stay_within_the_limits(
            domains in prop::collection::vec(0..5u8, 1..30),
            rcpt_max in prop::option::of(1..6usize),
            rcpt_domain_max in prop::option::of(1..4usize),
        ) {
            let to: Vec<Address> = domains.iter().map(|n| Address::new(format!("a@d{n}")).unwrap()).collect();
            let limits = limits(rcpt_max, rcpt_domain_max);
            let parts = limits.parts(&to);
            for part in &parts {
                let part: Vec<Address> = part.iter().map(|place| to[*place].clone()).collect();
                prop_assert!(limits.check(&part).is_ok());
            }
            let mut places = parts.concat();
            places.sort_unstable();
            prop_assert_eq!(places, (0..to.len()).collect::<Vec<_>>());
        }
    }
}
