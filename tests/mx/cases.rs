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
    /// STARTTLS that is refused.
    Broken,
}

/// A domain and the last octet of its server's address; 0 for none of its own.
pub struct Case {
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
        case("broken", 173, Broken, Delayed),
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
    ]
};

impl Case {
    pub fn recipient(&self) -> String {
        format!("someone@{}.dane.example", self.domain)
    }

    /// Whether DANE applies, by records that are proven or cannot be had.
    pub fn is_dane(&self) -> bool {
        let without = ["none", "none-plain", "insecure-host", "insecure-tlsa"];
        !without.contains(&self.domain) && !self.domain.ends_with(".unsigned")
    }

    async fn start(&self) -> Option<Server> {
        let own = format!("mx.{}.dane.example", self.domain);
        let (id, is_chain) = match self.presents {
            Presents::Certificate(id) => (id, false),
            Presents::Chain => (own.as_str(), true),
            Presents::ChainOf(id) => (id, true),
            Presents::Own | Presents::Nothing | Presents::Broken => (own.as_str(), false),
        };
        let issued = lab().certificates.get(id);
        let chain = match is_chain {
            true => issued.pem + &lab().certificates.ca_pem(),
            false => issued.pem,
        };
        let server = Server::builder()
            .address(lab().address(self.address))
            .port(25)
            .certificate_pem(chain, issued.key_pem);
        let server = match self.presents {
            Presents::Nothing => server.plaintext(),
            Presents::Broken => server.fault(Fault::reply(Step::StartTls, "454 4.7.0 Not now")),
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
    // Of the first host of `second`.
    let own = lab().server(189, "mx1.second.dane.example");
    servers.push(own.start().await.unwrap());
    servers
}
