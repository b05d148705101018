//! Every failure here is real: a server with such a certificate is at the other end of a stream.

mod certificates;
mod chains;
#[cfg(feature = "keystores")]
mod client_certificate;
#[cfg(feature = "mx")]
mod dane;
mod defects;
mod handshakes;
mod openssl;
mod shared;
#[cfg(feature = "keystores")]
mod stores;
mod trust;

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::*;
use crate::proto::speaks_tls;
use crate::{Error, ErrorKind, Phase, Result, file};

const HOST: &str = "mail.example.com";

/// An authority or a server: a certificate and its key.
struct Party {
    der: CertificateDer<'static>,
    pem: String,
    key: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Party {
    fn new(params: CertificateParams, above: Option<&Party>) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = match above {
            Some(above) => params.signed_by(&key, &above.issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        Party {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            key: key.serialize_der(),
            issuer: Issuer::new(params, key),
        }
    }

    fn authority(name: &str, above: Option<&Party>) -> Self {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Party::new(params, above)
    }

    fn server(above: Option<&Party>) -> Self {
        Party::new(named(HOST, &[HOST]), above)
    }
}

fn named(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

fn provider() -> Arc<CryptoProvider> {
    connector::provider().unwrap()
}

fn server_config(chain: &[&Party]) -> ServerConfig {
    let key = PrivateKeyDer::try_from(chain[0].key.clone()).unwrap();
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12, &TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.iter().map(|party| party.der.clone()).collect(), key)
        .unwrap()
}

/// A server at the other end: it sends a greeting inside TLS, reads to EOF and closes.
fn serve(config: &Arc<ServerConfig>) -> DuplexStream {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let acceptor = TlsAcceptor::from(config.clone());
    tokio::spawn(async move {
        if let Ok(mut stream) = acceptor.accept(server).await {
            let _ = stream.write_all(b"220 hello\r\n").await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    client
}

async fn connect(connector: &Connector, config: ServerConfig) -> Result<TlsInfo> {
    let handshake = connector.handshake(HOST, serve(&Arc::new(config)), TlsMode::StartTls);
    Ok(sendable(handshake).await?.1)
}

/// The driver's futures are spawned, so they must be `Send`.
fn sendable<F: Future + Send>(future: F) -> F {
    future
}

fn trusting(party: &Party) -> TlsSettings {
    TlsSettings::new(Trust::empty().pem(&party.pem))
}

fn connector(settings: &TlsSettings) -> Connector {
    Connector::new(settings, VerifyMode::Verified).unwrap()
}

/// The failure of a client that trusts `trusted` with a server that sends `chain`.
async fn failure(trusted: &Party, chain: &[&Party]) -> Error {
    let error = connect(&connector(&trusting(trusted)), server_config(chain))
        .await
        .unwrap_err();
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Tls, Phase::Tls));
    assert!(error.is_permanent());
    error
}

fn cause(error: &Error) -> &CertificateFailure {
    error.source().unwrap().downcast_ref().unwrap()
}

#[track_caller]
fn assert_says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}
