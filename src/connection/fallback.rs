//! Decides which mechanisms may be tried after a failed login.
//!
//! | The attempt ended because | Next |
//! |---|---|
//! | the server rejects the user, the password or the token, or cannot decide now | none |
//! | the server did not prove its identity, or the TLS connection is another one | none |
//! | the session ended (421) | none |
//! | anything else, of a mechanism with -PLUS | one that the caller names, by the rows below |
//! | the server does not know the mechanism | any |
//! | the server does not allow the mechanism here | not one that reveals the password after one that did |
//! | the exchange broke, inside verified TLS | one that does not reveal the password, after one that did not |
//! | the exchange broke, elsewhere | none |
//!
//! All failures count, not only the last: a mechanism that was ruled out stays ruled out.

use crate::proto::{ExchangeFault, Mechanism, Reply};

/// Why a mechanism did not log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// No other mechanism would do, or it would be dangerous.
    Final,
    /// The server does not know the mechanism.
    NotKnown,
    /// The server does not allow the mechanism for this user, or on this connection.
    NotAllowed,
    /// What came in the exchange could not be understood.
    Broken,
}

impl Reason {
    /// By the reply, whether the server explained it in the mechanism's own words, and what the
    /// exchange found.
    pub(super) fn new(reply: &Reply, is_explained: bool, fault: Option<ExchangeFault>) -> Self {
        match fault {
            _ if reply.code() == 421 => Reason::Final,
            Some(ExchangeFault::Broken) => Reason::Broken,
            Some(_) => Reason::Final,
            None if is_explained => Reason::Final,
            None if is_not_known(reply) => Reason::NotKnown,
            None if is_not_allowed(reply) => Reason::NotAllowed,
            None => Reason::Final,
        }
    }
}

/// Whether `next` may be tried after `failed`. `is_named` says that the caller named it,
/// `is_verified` that the connection is inside verified TLS.
pub(super) fn may_follow(
    next: Mechanism,
    failed: Mechanism,
    reason: Reason,
    is_named: bool,
    is_verified: bool,
) -> bool {
    // RFC 5802, 6: what is offered with -PLUS and then refused may have been refused by another
    // server, between.
    (is_named || !failed.is_bound())
        && match reason {
            Reason::Final => false,
            Reason::NotKnown => true,
            // LOGIN is for servers that do not know PLAIN: where that is not allowed, this shows
            // the password no less.
            Reason::NotAllowed => !(failed.shows_secret() && next.shows_secret()),
            Reason::Broken => is_verified && !failed.shows_secret() && !next.shows_secret(),
        }
}

/// RFC 4954, 4 and 6, and what servers say in place of it.
fn is_not_known(reply: &Reply) -> bool {
    const FAULTS: [&str; 6] = [
        "invalid",
        "unrecognized",
        "unrecognised",
        "unsupported",
        "unknown",
        "no such",
    ];
    const LACKS: [&str; 7] = [
        "not supported",
        "unsupported",
        "not available",
        "unavailable",
        "not implemented",
        "unimplemented",
        "not enabled",
    ];
    if reply.code() == 504 || matches!(enhanced(reply), Some((5, 5, 4) | (5, 7, 4))) {
        return true;
    }
    let text = words(reply);
    let is_said = |subject: &str| {
        FAULTS
            .iter()
            .any(|fault| text.contains(&format!("{fault} {subject}")))
            || LACKS
                .iter()
                .any(|lack| text.contains(&format!("{subject} {lack}")))
    };
    let kinds = ["mechanism", "type", "method", "scheme"];
    let kinds = kinds
        .into_iter()
        .flat_map(|kind| ["authentication ", "auth ", "sasl "].map(|of| of.to_owned() + kind));
    reply.is_permanent()
        && (is_said("mechanism")
            || kinds.into_iter().any(|kind| is_said(&kind))
            || text.contains("no mechanism available"))
}

/// RFC 4954, 6: the mechanism is too weak (534 5.7.9), wants encryption (538), or the password must
/// be set anew for it (432). Not where the password must be another one, made for applications,
/// which is said with 534 5.7.9, too.
fn is_not_allowed(reply: &Reply) -> bool {
    let text = words(reply);
    let about_password = ["application", "app password", "app-specific"]
        .iter()
        .any(|word| text.contains(word));
    match (reply.code(), enhanced(reply)) {
        (432 | 538, _) | (_, Some((5, 7, 11) | (4, 7, 12))) => true,
        (534, Some((5, 7, 9)) | None) => !about_password,
        _ => false,
    }
}

/// In small letters, without what is only grammar.
fn words(reply: &Reply) -> String {
    reply
        .text()
        .to_ascii_lowercase()
        .replace('\n', " ")
        .replace(" is ", " ")
        .replace(" was ", " ")
}

fn enhanced(reply: &Reply) -> Option<(u8, u16, u16)> {
    reply
        .enhanced()
        .map(|code| (code.class, code.subject, code.detail))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::proto::{Limits, ReplyParser};

    fn reply(line: &str) -> Reply {
        let mut input = BytesMut::from(format!("{line}\r\n").as_str());
        ReplyParser::new(Limits::default())
            .parse(&mut input)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn the_fallback_reason_depends_on_reply_and_exchange() {
        use ExchangeFault::{Broken, Distrusted};
        for (line, is_explained, fault, reason) in [
            (
                "535 5.7.8 Authentication credentials invalid",
                false,
                None,
                Reason::Final,
            ),
            (
                "535 5.7.8 Error: authentication failed: UGFzc3dvcmQ6",
                false,
                None,
                Reason::Final,
            ),
            (
                "535 5.7.8 Invalid credentials for this mechanism",
                false,
                None,
                Reason::Final,
            ),
            (
                "535 5.7.139 Authentication unsuccessful, basic authentication is disabled",
                false,
                None,
                Reason::Final,
            ),
            (
                "454 4.7.0 Temporary authentication failure",
                false,
                None,
                Reason::Final,
            ),
            (
                "454 4.7.0 Authentication mechanism unavailable",
                false,
                None,
                Reason::Final,
            ),
            (
                "530 5.7.0 Must issue a STARTTLS command first",
                false,
                None,
                Reason::Final,
            ),
            (
                "534 5.7.9 Application-specific password required",
                false,
                None,
                Reason::Final,
            ),
            ("421 4.7.0 Too many errors", false, None, Reason::Final),
            (
                "421 4.7.0 Too many errors",
                true,
                Some(Broken),
                Reason::Final,
            ),
            (
                "504 5.5.4 Unrecognized authentication type",
                false,
                None,
                Reason::NotKnown,
            ),
            ("504 no", false, None, Reason::NotKnown),
            (
                "535 5.7.4 Security features not supported",
                false,
                None,
                Reason::NotKnown,
            ),
            ("501 5.5.4 Invalid argument", false, None, Reason::NotKnown),
            (
                "535 5.7.8 Error: authentication failed: Invalid authentication mechanism",
                false,
                None,
                Reason::NotKnown,
            ),
            (
                "535 5.7.8 Error: authentication failed: no mechanism available",
                false,
                None,
                Reason::NotKnown,
            ),
            (
                "535 authentication mechanism not supported",
                false,
                None,
                Reason::NotKnown,
            ),
            (
                "550 SASL mechanism is not supported",
                false,
                None,
                Reason::NotKnown,
            ),
            ("535 Unknown auth type", false, None, Reason::NotKnown),
            (
                "502 auth type unimplemented (#5.5.1)",
                false,
                None,
                Reason::NotKnown,
            ),
            (
                "432 4.7.12 A password transition is needed",
                false,
                None,
                Reason::NotAllowed,
            ),
            (
                "534 5.7.9 Authentication mechanism is too weak",
                false,
                None,
                Reason::NotAllowed,
            ),
            (
                "538 5.7.11 Encryption required for requested authentication mechanism",
                false,
                None,
                Reason::NotAllowed,
            ),
            ("535 5.7.8 no", true, None, Reason::Final),
            ("504 5.5.4 no", true, None, Reason::Final),
            (
                "501 5.7.0 Authentication aborted",
                true,
                Some(Broken),
                Reason::Broken,
            ),
            ("535 5.7.8 no", true, Some(Broken), Reason::Broken),
            (
                "501 5.7.0 Authentication aborted",
                true,
                Some(Distrusted),
                Reason::Final,
            ),
            ("504 5.5.4 no", true, Some(Distrusted), Reason::Final),
        ] {
            assert_eq!(
                Reason::new(&reply(line), is_explained, fault),
                reason,
                "{line}, {fault:?}"
            );
        }
    }

    /// One line for each row of the table.
    #[test]
    fn the_next_mechanism_depends_on_the_reason() {
        use Mechanism::{
            CramMd5, Login, Plain, ScramSha1, ScramSha1Plus, ScramSha256, ScramSha256Plus,
        };
        use Reason::{Broken, Final, NotAllowed, NotKnown};
        let (named, verified) = (true, true);
        for (failed, reason, next, is_named, is_verified, may) in [
            // The credentials are wrong, the server is not trusted, or the session is over.
            (ScramSha256, Final, Plain, !named, verified, false),
            (ScramSha256, Final, ScramSha1, !named, verified, false),
            (ScramSha256, Final, ScramSha1, named, verified, false),
            (ScramSha256Plus, Final, ScramSha256, named, verified, false),
            // With -PLUS.
            (
                ScramSha256Plus,
                NotKnown,
                ScramSha256,
                !named,
                verified,
                false,
            ),
            (ScramSha256Plus, NotKnown, Plain, !named, verified, false),
            (
                ScramSha256Plus,
                NotKnown,
                ScramSha1Plus,
                !named,
                verified,
                false,
            ),
            (
                ScramSha256Plus,
                NotAllowed,
                ScramSha256,
                !named,
                verified,
                false,
            ),
            (
                ScramSha256Plus,
                Broken,
                ScramSha256,
                !named,
                verified,
                false,
            ),
            (
                ScramSha256Plus,
                NotKnown,
                ScramSha256,
                named,
                verified,
                true,
            ),
            (ScramSha256Plus, NotKnown, Plain, named, verified, true),
            (
                ScramSha256Plus,
                NotAllowed,
                ScramSha256,
                named,
                verified,
                true,
            ),
            (ScramSha256Plus, Broken, ScramSha256, named, verified, true),
            (ScramSha256Plus, Broken, Plain, named, verified, false),
            (
                ScramSha256Plus,
                Broken,
                ScramSha256,
                named,
                !verified,
                false,
            ),
            // The mechanism is not known.
            (ScramSha256, NotKnown, ScramSha1, !named, verified, true),
            (ScramSha256, NotKnown, Plain, !named, verified, true),
            (ScramSha256, NotKnown, Plain, !named, !verified, true),
            (Plain, NotKnown, Login, !named, verified, true),
            // It is not allowed.
            (ScramSha256, NotAllowed, Plain, !named, verified, true),
            (Plain, NotAllowed, Login, !named, verified, false),
            (Plain, NotAllowed, CramMd5, !named, verified, true),
            // The exchange broke.
            (ScramSha256, Broken, ScramSha1, !named, verified, true),
            (ScramSha256, Broken, CramMd5, !named, verified, true),
            (CramMd5, Broken, ScramSha1, named, verified, true),
            (ScramSha256, Broken, Plain, !named, verified, false),
            (ScramSha256, Broken, Plain, named, verified, false),
            (ScramSha256, Broken, ScramSha1, !named, !verified, false),
            (ScramSha256, Broken, ScramSha1, named, !verified, false),
            (Login, Broken, CramMd5, !named, verified, false),
        ] {
            let is = may_follow(next, failed, reason, is_named, is_verified);
            assert_eq!(
                is, may,
                "{failed}, {reason:?}, then {next}, named {is_named}, verified {is_verified}"
            );
        }
    }
}
