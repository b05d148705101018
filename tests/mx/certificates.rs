//! The certificates of the mail servers, which the TLSA records of the zones name.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData, date_time_ymd,
};
use sha2::{Digest, Sha256, Sha512};

/// A CA, and the certificates that it has signed, by their ids.
pub struct Certificates {
    ca: CertifiedIssuer<'static, KeyPair>,
    issued: Mutex<BTreeMap<String, Issued>>,
}

/// A certificate of a server.
#[derive(Clone)]
pub struct Issued {
    der: Vec<u8>,
    spki: Vec<u8>,
    pub pem: String,
    pub key_pem: String,
}

impl Certificates {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("envoi lab CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        Certificates {
            ca: CertifiedIssuer::self_signed(params, key).unwrap(),
            issued: Mutex::default(),
        }
    }

    /// The CA's certificate, which a server may send after its own.
    pub fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    /// The certificate with this id, which is made when it is first asked for.
    ///
    /// The id is a host's name, and the certificate is for that host. After a colon, it may be
    /// unlike that: `mx1.example:expired`, `mx1.example:other-name`, `mx1.example:self-signed`.
    pub fn get(&self, id: &str) -> Issued {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        issued
            .entry(id.to_owned())
            .or_insert_with(|| self.issue(id))
            .clone()
    }

    /// The data of a TLSA record (RFC 6698, 2.1): `3 1 1 0A1B…`. Usages 0 and 2 name the CA, 1 and
    /// 3 the server's own certificate.
    pub fn tlsa(&self, id: &str, usage: u8, selector: u8, matching: u8) -> String {
        let (der, spki) = if matches!(usage, 0 | 2) {
            let key = self.ca.key().subject_public_key_info();
            (self.ca.der().to_vec(), key)
        } else {
            let issued = self.get(id);
            (issued.der, issued.spki)
        };
        let selected = if selector == 0 { der } else { spki };
        let data = match matching {
            1 => Sha256::digest(&selected).to_vec(),
            2 => Sha512::digest(&selected).to_vec(),
            _ => selected,
        };
        let hex: String = data.iter().map(|byte| format!("{byte:02X}")).collect();
        format!("{usage} {selector} {matching} {hex}")
    }

    fn issue(&self, id: &str) -> Issued {
        let (host, unlike) = id.split_once(':').unwrap_or((id, ""));
        let name = match unlike {
            "other-name" => "other.invalid",
            _ => host,
        };
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name = common_name(name);
        if unlike == "expired" {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = match unlike {
            "self-signed" => params.self_signed(&key),
            "" | "expired" | "other-name" => params.signed_by(&key, &self.ca),
            _ => panic!("no certificate is {unlike}: {id}"),
        }
        .unwrap();
        Issued {
            der: certificate.der().to_vec(),
            spki: key.subject_public_key_info(),
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
