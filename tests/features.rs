//! What the features add. The tests hold for any set of features; `.ci/run` runs them in the
//! package for several, as the dev-dependency of a clone on itself enables nearly all.

use envoi::proto::Mechanism;

#[test]
fn tokens_need_no_feature() {
    for mechanism in [
        Mechanism::Plain,
        Mechanism::Login,
        Mechanism::OAuthBearer,
        Mechanism::XOAuth2,
        Mechanism::External,
        Mechanism::Anonymous,
    ] {
        assert!(mechanism.is_built(), "{mechanism}");
    }
}

#[test]
fn sasl_adds_scram_and_cram_md5() {
    for &mechanism in Mechanism::ALL {
        let name = mechanism.as_str();
        let is_added = name.starts_with("SCRAM-") || name == "CRAM-MD5";
        assert_eq!(
            mechanism.is_built(),
            !is_added || cfg!(feature = "sasl"),
            "{mechanism}"
        );
    }
}

#[cfg(feature = "client")]
mod client {
    use std::sync::Arc;

    use envoi::tls::rustls::crypto::{CryptoProvider, aws_lc_rs};
    use envoi::tls::rustls::pki_types::PrivateKeyDer;
    use envoi::tls::rustls::{CipherSuite, ServerConfig};
    use envoi::tls::{Security, TlsSettings, Trust};
    use envoi::{Client, Endpoint, ErrorKind};
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    /// The beginning of a session.
    async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
        stream.write_all(b"220 localhost ESMTP\r\n").await.unwrap();
        while stream.read_u8().await.unwrap() != b'\n' {}
        stream.write_all(b"250 localhost\r\n").await.unwrap();
        stream.flush().await.unwrap();
    }

    const BUILT_IN: bool = cfg!(any(feature = "aws-lc-rs", feature = "ring"));

    /// Without cryptography in the build, each policy but `None` fails before connecting.
    #[tokio::test]
    async fn without_a_provider_tls_fails_before_connecting() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for security in [
            Security::Opportunistic,
            Security::Required,
            Security::Implicit,
        ] {
            if BUILT_IN {
                continue;
            }
            let endpoint = Endpoint::new("127.0.0.1").port(port).security(security);
            let error = Client::new(endpoint).connect().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
            let text = error.to_string();
            assert!(
                text.contains("aws-lc-rs") && text.contains("ring"),
                "{text}"
            );
            let connected = tokio::time::timeout(std::time::Duration::ZERO, listener.accept());
            assert!(connected.await.is_err(), "{security}: it connected");
        }
        let plain = Endpoint::new("127.0.0.1")
            .port(port)
            .security(Security::None);
        let client = Client::new(plain);
        let (connection, ()) = tokio::join!(client.connect(), async {
            greet(&mut listener.accept().await.unwrap().0).await;
        });
        assert!(connection.is_ok());
    }

    /// A provider with one cipher suite: the connection shows that it was used.
    #[tokio::test]
    async fn a_provider_of_the_caller_is_used() {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![key.cert.der().clone()],
                PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            let mut stream = acceptor.accept(stream).await.unwrap();
            greet(&mut stream).await;
        });

        let only = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
        let mut provider: CryptoProvider = aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| suite.suite() == only);
        let settings = TlsSettings::new(Trust::empty().pem(key.cert.pem()))
            .crypto_provider(Arc::new(provider));
        let endpoint = Endpoint::new("localhost")
            .port(port)
            .security(Security::Implicit)
            .tls(settings);
        let connection = Client::new(endpoint).connect().await;
        let connection = connection.unwrap_or_else(|error| panic!("{error}"));
        let tls = connection.tls().unwrap();
        assert_eq!(tls.cipher, "TLS13_CHACHA20_POLY1305_SHA256");
        drop(connection);
        server.await.unwrap();
    }
}

#[cfg(feature = "testing")]
mod testing {
    use envoi::proto::Mechanism;
    use envoi::testing::Server;
    use envoi::{Client, mail_builder::MessageBuilder};

    #[tokio::test]
    async fn the_test_server_brings_neither_cryptography_nor_mechanisms() {
        let server = Server::builder().plaintext().start().await.unwrap();
        let mail = MessageBuilder::new()
            .from("a@example.org")
            .to("b@example.org")
            .text_body("Hello.");
        let client = Client::from_url(&server.url()).unwrap();
        assert!(client.send(mail).await.unwrap().all_accepted());

        let has_tls = cfg!(any(feature = "aws-lc-rs", feature = "ring"));
        let started = Server::start().await;
        assert_eq!(started.is_ok(), has_tls);
        if let Err(error) = started {
            assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
        }

        let scram = Server::builder()
            .plaintext()
            .mechanisms([Mechanism::ScramSha256]);
        assert_eq!(scram.start().await.is_ok(), cfg!(feature = "sasl"));
    }
}

/// Every public type is `Debug`, which `missing_debug_implementations` checks as well, and can be
/// sent to another task. Values can be shared between tasks.
mod traits {
    use std::fmt::Debug;

    #[cfg(feature = "client")]
    fn is_send<T: Debug + Send>() {}
    fn is_shared<T: Debug + Send + Sync>() {}

    macro_rules! all {
        ($check:ident: $($type:ty),* $(,)?) => { $($check::<$type>();)* };
    }

    #[test]
    fn protocol_types_are_debug_send_and_sync() {
        use envoi::delivery::*;
        use envoi::proto::*;
        use envoi::*;

        all!(is_shared: Address, Credentials, DeliveryOptions, Envelope, Error, ErrorKind, Phase);
        all!(is_shared: Secret, DeliverBy, DsnReturn, EnvelopeId, FutureRelease, Notify);
        all!(is_shared: OriginalRecipient, Priority, Capabilities, ChannelBinding, ClientName);
        all!(is_shared: Content, EnhancedCode, ExchangeFault, Limits, Machine, Mechanism, Protocol);
        all!(is_shared: RawCommand, Reply, ReplyError, ReplyParser, SaslSession<'_>);
        all!(is_shared: envoi::proto::Settings, Mailbox, MailboxError, MailboxList, ReversePath);
        all!(is_shared: envoi::mailbox::Entry, envoi::mailbox::Group);
        all!(is_shared: StartTls, Step, Transaction, Transcript, Box<dyn SaslExchange>);
    }

    #[cfg(feature = "client")]
    #[test]
    fn client_types_are_debug_and_send() {
        use envoi::tls::*;
        use envoi::*;

        all!(is_shared: Client, Endpoint, LineEnds, Outcome, Receipt, Recipient, SocketOptions);
        all!(is_shared: Settings, Timeouts, TokenRequest, UploadProgress, Anchor, Certificate);
        all!(is_shared: CertificateFailure, CertificateProblem, ClientCertificate, Security);
        all!(is_shared: TlsInfo, TlsSettings, TlsVersion, Trust, TrustSummary);
        all!(is_send: Attachment, Body, Connection, DataWriter<'_>, Message<'_>, PreparedMessage);
    }

    #[cfg(feature = "pool")]
    #[test]
    fn pool_types_are_debug_and_send() {
        all!(is_shared: envoi::Pool, envoi::PoolConfig);
        all!(is_send: envoi::PooledConnection);
    }

    #[cfg(feature = "dkim")]
    #[test]
    fn dkim_types_are_debug_send_and_sync() {
        use envoi::dkim::*;
        all!(is_shared: Canonicalization, DkimAlgorithm, DkimKey, DkimRecord, DkimSigner);
        all!(is_shared: MessageSigner);
    }

    #[cfg(feature = "testing")]
    #[test]
    fn testing_types_are_debug_and_send() {
        use envoi::testing::*;
        all!(is_shared: Builder, ReceivedMessage, Server, Session);
    }

    #[test]
    fn secrets_are_not_printed() {
        let credentials = envoi::Credentials::new("alice", "hunter2");
        let shown = format!("{credentials:?} {:?}", envoi::Secret::new("hunter2"));
        assert!(
            shown.contains("alice") && shown.ends_with(" Secret(***)"),
            "{shown}"
        );
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
