//! Domains with TLSA records, and what becomes of a message to each (RFC 7672).

use envoi::testing::{Fault, Server, Step};

use crate::lab::lab;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is sent to a server that was verified by its records.
    Verified,
    /// It is sent with TLS, to a server that was not verified.
    Encrypted,
    /// It is sent in plaintext.
    Plain,
    /// It is not sent, and may be later.
    Delayed,
    /// It is not sent, and never will be.
    Returned,
    /// It may have been delivered.
    Unknown,
}

/// What the server of a domain presents.
#[derive(Clone, Copy)]
enum Presents {
    /// The certificate with this id, or the one for the host, without the CA's.
    Own,
    Certificate(&'static str),
    /// The same, with the CA's.
    Chain,
    ChainOf(&'static str),
    /// No TLS.
    Nothing,
    /// The own certificate, and this reply at a step.
    Refusal(Step, &'static str),
    /// The own certificate, and the end of the connection at a step.
    Loss(Step),
}

/// A domain and the last octet of its server's address; 0 for none of its own.
pub struct Case {
    /// Below `dane.example`, or absolute with a final dot.
    pub domain: &'static str,
    address: u8,
    presents: Presents,
    pub decision: Decision,
}

/// The domains of `zones/dane.example.zone`.
pub const CASES: &[Case] = {
    use Decision::*;
    use Presents::*;
    const fn case(
        domain: &'static str,
        address: u8,
        presents: Presents,
        decision: Decision,
    ) -> Case {
        Case {
            domain,
            address,
            presents,
            decision,
        }
    }
    &[
        case("ee", 150, Own, Verified),
        case("ee-certificate", 151, Own, Verified),
        case("ee-full", 152, Own, Verified),
        case(
            "ee-expired",
            153,
            Certificate("mx.ee-expired.dane.example:expired"),
            Verified,
        ),
        case(
            "ee-other-name",
            154,
            Certificate("mx.ee-other-name.dane.example:other-name"),
            Verified,
        ),
        case(
            "ee-self-signed",
            155,
            Certificate("mx.ee-self-signed.dane.example:self-signed"),
            Verified,
        ),
        case("ee-mismatch", 156, Own, Delayed),
        case("ta", 157, Chain, Verified),
        case("ta-key", 158, Chain, Verified),
        case("ta-not-sent", 159, Own, Delayed),
        case("ta-held", 160, Own, Verified),
        case("ta-key-held", 161, Own, Verified),
        case(
            "ta-expired",
            162,
            ChainOf("mx.ta-expired.dane.example:expired"),
            Delayed,
        ),
        case(
            "ta-other-name",
            163,
            ChainOf("mx.ta-other-name.dane.example:other-name"),
            Delayed,
        ),
        case(
            "ta-domain",
            164,
            ChainOf("ta-domain.dane.example"),
            Verified,
        ),
        case(
            "ta-beside",
            165,
            ChainOf("mx.ta-beside.dane.example:self-signed"),
            Delayed,
        ),
        case("pkix", 166, Own, Encrypted),
        case("pkix-plain", 167, Nothing, Delayed),
        case("pkix-and-ee", 168, Own, Delayed),
        case("short", 169, Own, Encrypted),
        case("next-key", 170, Own, Verified),
        case("weaker", 171, Own, Delayed),
        case("plain", 172, Nothing, Delayed),
        case(
            "broken",
            173,
            Refusal(Step::StartTls, "454 4.7.0 Not now"),
            Delayed,
        ),
        case("forged", 174, Own, Delayed),
        case("stripped", 175, Own, Delayed),
        case("missing", 176, Own, Delayed),
        case("bogus", 177, Own, Delayed),
        case("none", 178, Own, Encrypted),
        case("none-plain", 179, Nothing, Plain),
        case("insecure-host", 180, Own, Encrypted),
        case("insecure-tlsa", 181, Own, Encrypted),
        case(
            "host-alias",
            182,
            ChainOf("real.host-alias.dane.example"),
            Verified,
        ),
        case(
            "host-alias-own",
            183,
            ChainOf("mx.host-alias-own.dane.example"),
            Verified,
        ),
        case(
            "host-leaves",
            184,
            ChainOf("mx.host-leaves.dane.example"),
            Verified,
        ),
        case("records-alias", 185, Own, Verified),
        case(
            "domain-alias",
            186,
            ChainOf("domain-alias.dane.example"),
            Verified,
        ),
        case(
            "domain-alias-led",
            187,
            ChainOf("real.domain-alias-led.dane.example"),
            Verified,
        ),
        case(
            "implicit",
            188,
            Certificate("implicit.dane.example"),
            Verified,
        ),
        case("second", 190, Own, Verified),
        case("insecure-mx.unsigned", 0, Nothing, Encrypted),
        case("insecure-mx-mismatch.unsigned", 0, Nothing, Encrypted),
        case("ee-full-certificate", 192, Own, Verified),
        case(
            "ee-client",
            193,
            Certificate("mx.ee-client.dane.example:client"),
            Verified,
        ),
        case(
            "ta-client",
            194,
            ChainOf("mx.ta-client.dane.example:client"),
            Delayed,
        ),
        case(
            "ta-below",
            195,
            ChainOf("mx.ta-below.dane.example:ca-below"),
            Verified,
        ),
        case(
            "ta-is-below",
            196,
            ChainOf("mx.ta-is-below.dane.example:ca-below"),
            Verified,
        ),
        case(
            "ta-is-expired",
            197,
            ChainOf("mx.ta-is-expired.dane.example:ca-expired"),
            Delayed,
        ),
        case(
            "ta-is-below-expired",
            198,
            ChainOf("mx.ta-is-below-expired.dane.example:ca-below-expired"),
            Delayed,
        ),
        case(
            "ta-below-expired",
            199,
            ChainOf("mx.ta-below-expired.dane.example:ca-below-expired"),
            Delayed,
        ),
        case(
            "ta-is-version1",
            200,
            ChainOf("mx.ta-is-version1.dane.example:ca-version1"),
            Verified,
        ),
        case(
            "ta-wildcard",
            201,
            ChainOf("mx.ta-wildcard.dane.example:wildcard"),
            Verified,
        ),
        case(
            "ta-wildcard-deep",
            202,
            ChainOf("mx.ta-wildcard-deep.dane.example:wildcard"),
            Delayed,
        ),
        case(
            "ta-common-name",
            203,
            ChainOf("mx.ta-common-name.dane.example:common-name"),
            Verified,
        ),
        case("unknown", 204, Own, Encrypted),
        case("unknown-plain", 205, Nothing, Delayed),
        case("second-bogus", 207, Own, Verified),
        case("second-forged", 209, Own, Verified),
        case("mx-forged", 210, Own, Delayed),
        case("unproven", 211, Own, Delayed),
        case("unproven-type", 212, Own, Delayed),
        case("host-alias-forged", 213, Own, Delayed),
        case("records-wildcard", 214, Own, Verified),
        case(
            "any.wildcard",
            215,
            Certificate("mx.of-wildcard.dane.example"),
            Verified,
        ),
        case(
            "below.dname",
            216,
            ChainOf("below.dname.dane.example"),
            Verified,
        ),
        case(
            "host-dname",
            217,
            ChainOf("mx.dname-target.dane.example"),
            Verified,
        ),
        case(
            "implicit-alias",
            218,
            ChainOf("implicit-alias.dane.example"),
            Verified,
        ),
        case("domain-leaves", 0, Nothing, Encrypted),
        case("domain-enters.unsigned", 0, Nothing, Encrypted),
        case("two-families", 219, Own, Verified),
        case("null", 0, Nothing, Returned),
        case("absent", 0, Nothing, Returned),
        case("host-absent", 0, Nothing, Returned),
        case(
            "refuses",
            220,
            Refusal(Step::Rcpt, "550 5.1.1 No such user"),
            Returned,
        ),
        case(
            "refuses-later",
            221,
            Refusal(Step::Rcpt, "450 4.2.0 Later"),
            Delayed,
        ),
        case(
            "refuses-session",
            222,
            Refusal(Step::Greeting, "554 5.7.1 No"),
            Returned,
        ),
        case("next-refuses-session", 224, Own, Verified),
        case("next-refuses-later", 226, Own, Verified),
        case("next-refuses", 228, Own, Returned),
        case("next-lost", 233, Own, Verified),
        case("lost", 229, Loss(Step::Message), Unknown),
        case("optout.example.", 14, Own, Encrypted),
        case("ed25519.example.", 21, Own, Delayed),
        case(
            "p384.example.",
            23,
            Certificate("mx.p384.example"),
            Verified,
        ),
        case("ed448.example.", 22, Own, Encrypted),
        case("expired.example.", 0, Nothing, Delayed),
        case("wrongds.example.", 0, Nothing, Delayed),
        case("missing.example.", 0, Nothing, Delayed),
    ]
};

impl Case {
    fn domain(&self) -> String {
        match self.domain.strip_suffix('.') {
            Some(domain) => domain.to_owned(),
            None => format!("{}.dane.example", self.domain),
        }
    }

    pub fn recipient(&self) -> String {
        format!("someone@{}", self.domain())
    }

    /// Whether no server of the domain is known, or it refuses the message.
    pub fn is_not_about_tls(&self) -> bool {
        let failing = [
            "bogus",
            "mx-forged",
            "expired.example.",
            "wrongds.example.",
            "missing.example.",
        ];
        matches!(self.decision, Decision::Returned | Decision::Unknown)
            || self.domain == "refuses-later"
            || failing.contains(&self.domain)
    }

    /// Whether there are TLSA records that are proven, and none is usable.
    pub fn is_unusable(&self) -> bool {
        ["pkix", "short", "unknown"].contains(&self.domain)
    }

    async fn start(&self) -> Option<Server> {
        let own = format!("mx.{}", self.domain());
        let (id, is_chain) = match self.presents {
            Presents::Certificate(id) => (id, false),
            Presents::Chain => (own.as_str(), true),
            Presents::ChainOf(id) => (id, true),
            _ => (own.as_str(), false),
        };
        let issued = lab().certificates.get(id);
        let chain = match is_chain {
            true => issued.pem + lab().certificates.chain_pem(id),
            false => issued.pem,
        };
        let server = Server::builder()
            .address(lab().address(self.address))
            .port(25)
            .certificate_pem(chain, issued.key_pem);
        let server = match self.presents {
            Presents::Nothing => server.plaintext(),
            Presents::Refusal(step, reply) => server.fault(Fault::reply(step, reply)),
            Presents::Loss(step) => server.fault(Fault::close(step)),
            _ => server,
        };
        match self.address {
            0 => None,
            _ => Some(server.start().await.unwrap()),
        }
    }
}

/// Starts the servers of all cases.
pub async fn start() -> Vec<Server> {
    let mut servers = Vec::new();
    for case in CASES {
        servers.extend(case.start().await);
    }
    // The first hosts of these domains. That of `second-bogus` is not known.
    for (address, host, fault) in [
        (189, "mx1.second", None),
        (208, "mx1.second-forged", None),
        (
            223,
            "mx1.next-refuses-session",
            Some(Fault::reply(Step::Greeting, "554 5.7.1 No")),
        ),
        (
            225,
            "mx1.next-refuses-later",
            Some(Fault::reply(Step::Rcpt, "450 4.2.0 Later")),
        ),
        (
            227,
            "mx1.next-refuses",
            Some(Fault::reply(Step::Rcpt, "550 5.1.1 No such user")),
        ),
        (232, "mx1.next-lost", Some(Fault::close(Step::Mail))),
    ] {
        let server = lab().server(address, &format!("{host}.dane.example"));
        let server = match fault {
            Some(fault) => server.fault(fault),
            None => server,
        };
        servers.push(server.start().await.unwrap());
    }
    servers
}
