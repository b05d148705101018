//! The certificates of the mail servers, which the TLSA records of the zones name.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, date_time_ymd,
};
use sha2::{Digest, Sha256, Sha512};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

/// Authorities, and the certificates that they have signed, by their ids.
pub struct Certificates {
    ca: Authority,
    /// Self-signed, and its dates are over.
    expired: Authority,
    /// Self-signed, of X.509 version 1.
    version1: Authority,
    /// Below `ca`.
    below: Authority,
    /// Below `ca`, and its dates are over.
    below_expired: Authority,
    issued: Mutex<BTreeMap<String, Issued>>,
}

/// An authority that signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
    /// Its certificate and those above it.
    chain: String,
}

impl Authority {
    fn new(name: &str, is_expired: bool, above: Option<&Authority>) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        if is_expired {
            expire(&mut params);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = match above {
            Some(above) => params.signed_by(&key, &above.issuer),
            None => params.self_signed(&key),
        }
        .unwrap();
        Authority {
            issuer: Issuer::new(params, key),
            der: certificate.der().to_vec(),
            chain: certificate.pem() + above.map_or("", |above| &above.chain),
        }
    }

    /// One that `openssl x509 -req -signkey` made, as rcgen makes certificates of version 3 alone.
    fn version1() -> Self {
        let text = include_str!("version1.pem");
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("envoi lab CA of version 1");
        Authority {
            issuer: Issuer::new(params, KeyPair::from_pem(text).unwrap()),
            der: CertificateDer::from_pem_slice(text.as_bytes())
                .unwrap()
                .to_vec(),
            chain: text[text.find("-----BEGIN CERTIFICATE").unwrap()..].to_owned(),
        }
    }
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
        let ca = Authority::new("envoi lab CA", false, None);
        Certificates {
            expired: Authority::new("envoi lab CA of 2020", true, None),
            version1: Authority::version1(),
            below: Authority::new("envoi lab CA below", false, Some(&ca)),
            below_expired: Authority::new("envoi lab CA below of 2020", true, Some(&ca)),
            ca,
            issued: Mutex::default(),
        }
    }

    /// The CA's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca.chain
    }

    /// The certificates that a server may send after its own of this id: that of the authority, and
    /// those above it.
    pub fn chain_pem(&self, id: &str) -> &str {
        &self.authority(id).chain
    }

    /// The authority that an id names, or that has signed the certificate of this id.
    fn authority(&self, id: &str) -> &Authority {
        match unlike(id).1 {
            "ca-expired" => &self.expired,
            "ca-version1" => &self.version1,
            "ca-below" => &self.below,
            "ca-below-expired" => &self.below_expired,
            _ => &self.ca,
        }
    }

    /// The certificate with this id, which is made when it is first asked for.
    ///
    /// The id is a host's name, and the certificate is for that host. After a colon, it says what
    /// is different: `mx1.example:expired`, or that another authority has signed it:
    /// `mx1.example:ca-below`.
    pub fn get(&self, id: &str) -> Issued {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        issued
            .entry(id.to_owned())
            .or_insert_with(|| self.issue(id))
            .clone()
    }

    /// The data of a TLSA record (RFC 6698, 2.1): `3 1 1 0A1B…`. Usages 0 and 2 name the authority,
    /// others the server's own certificate.
    pub fn tlsa(&self, id: &str, usage: u8, selector: u8, matching: u8) -> String {
        let (der, spki) = if matches!(usage, 0 | 2) {
            let authority = self.authority(id);
            let key = authority.issuer.key().subject_public_key_info();
            (authority.der.clone(), key)
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
        let (host, unlike) = unlike(id);
        let name = match unlike {
            "other-name" => "other.invalid".to_owned(),
            "wildcard" => format!("*.{}", host.split_once('.').unwrap().1),
            _ => host.to_owned(),
        };
        let names = match unlike {
            "common-name" => Vec::new(),
            _ => vec![name.clone()],
        };
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = common_name(&name);
        match unlike {
            "" | "other-name" | "self-signed" | "wildcard" | "common-name" => {}
            "ca-expired" | "ca-version1" | "ca-below" | "ca-below-expired" => {}
            "expired" => expire(&mut params),
            "client" => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            _ => panic!("no certificate is {unlike}: {id}"),
        }
        let key = KeyPair::generate().unwrap();
        let certificate = match unlike {
            "self-signed" => params.self_signed(&key),
            _ => params.signed_by(&key, &self.authority(id).issuer),
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

/// The name in an id, and what is different.
fn unlike(id: &str) -> (&str, &str) {
    id.split_once(':').unwrap_or((id, ""))
}

fn expire(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
