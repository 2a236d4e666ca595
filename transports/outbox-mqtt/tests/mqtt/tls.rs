//! TLS: a certificate that is not right is no connection.

use crate::support::{TOPIC, connected, failure, full, next};
use outbox_core::{failure::FailureClass, transport::Publisher};
use outbox_mqtt::{MqttPublisher, MqttSubscriber};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use std::{net::SocketAddr, sync::Arc};
use tests::servers::{Server, mosquitto};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// TLS before a server, until it is dropped.
struct Front {
    address: SocketAddr,
    authority: String,
    _tasks: JoinSet<()>,
    _server: Server,
}

/// Takes TLS connections with a certificate for the name, and hands what comes to a server.
async fn front(name: &str) -> Front {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
        .expect("a certificate");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new([name.to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let backend = mosquitto::start().await;
    let server = format!("127.0.0.1:{}", backend.port());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, server) = (acceptor.clone(), server.clone());
            connections.spawn(async move {
                // A client that does not trust the certificate ends the handshake.
                if let Ok(mut outside) = acceptor.accept(stream).await {
                    let mut inside = TcpStream::connect(server).await.expect("the server is there");
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                }
            });
        }
    });
    Front { address, authority: issuer.pem(), _tasks: tasks, _server: backend }
}

impl Front {
    fn url(&self) -> String {
        format!("mqtts://localhost:{}", self.address.port())
    }

    fn publisher(&self) -> MqttPublisher {
        MqttPublisher::new(self.url()).expect("a URL")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_halves_speak_tls_to_a_server_that_they_trust() {
    let front = front("localhost").await;
    let sent = full();
    let subscriber = MqttSubscriber::new(front.url(), "billing-1").expect("a URL").topic(TOPIC);
    let mut subscriber = connected(subscriber.trust(&front.authority)).await;
    let publisher = front.publisher().trust(&front.authority);
    publisher.publish(&sent).await.expect("confirmed");
    let delivery = next(&mut subscriber).await;
    assert_eq!(delivery.message.as_ref().map(|message| message.id), Ok(sent.id));
    delivery.ack().await.expect("acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_a_stranger_or_of_another_name_is_no_connection() {
    let unknown = front("localhost").await;
    let error = failure(&unknown.publisher()).await;
    assert_eq!(error.class(), FailureClass::Unavailable);
    assert!(error.to_string().contains("certificate"), "{error}");
    let misnamed = front("other.example").await;
    let error = failure(&misnamed.publisher().trust(&misnamed.authority)).await;
    assert_eq!(error.class(), FailureClass::Unavailable);
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[test]
fn a_text_that_is_no_certificate_is_refused() {
    let error = MqttPublisher::new("mqtts://localhost")
        .expect("a URL")
        .trust("nonsense")
        .build()
        .expect_err("wrong");
    assert!(error.to_string().contains("no PEM certificate"), "{error}");
}
