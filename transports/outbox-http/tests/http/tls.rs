//! TLS: a certificate that is not right is no connection.

use crate::support::{Server, message, read_request_from, serve_raw, serve_response};
use outbox_core::{failure::FailureClass, transport::Publisher};
use outbox_http::{HttpPublisher, Resolver};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;

/// Makes a certificate authority of its own.
pub(crate) fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
        .expect("a certificate")
}

/// Serves 204 over TLS with a certificate for the name.
async fn serve_tls(issuer: &CertifiedIssuer<'static, KeyPair>, name: &str) -> Server {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new([name.to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    serve_raw(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            // A client that does not trust the certificate ends the handshake.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                read_request_from(&mut stream).await;
                let response = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                stream.write_all(response).await.expect("the client reads");
                stream.shutdown().await.expect("the client reads");
            }
        }
    })
    .await
}

/// Finds every name on this host.
pub(crate) struct Here;

#[async_trait::async_trait]
impl Resolver for Here {
    async fn resolve(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    }
}

fn publisher(server: &Server) -> HttpPublisher {
    let url = format!("https://billing.test:{}/events", server.address.port());
    HttpPublisher::new(url).expect("a URL").resolver(Here).allow_loopback()
}

#[tokio::test]
async fn a_trusted_certificate_for_the_name_is_a_connection() {
    let issuer = authority();
    let server = serve_tls(&issuer, "billing.test").await;
    let receipt =
        publisher(&server).trust(issuer.pem()).publish(&message()).await.expect("confirmed");
    assert_eq!(receipt.destination, Some(format!("billing.test:{}", server.address.port())));
}

#[tokio::test]
async fn a_failure_of_tls_means_unavailable() {
    let (issuer, stranger) = (authority(), authority());
    for (what, server) in [
        ("a certificate of a stranger", serve_tls(&stranger, "billing.test").await),
        ("a certificate for another name", serve_tls(&issuer, "shipping.test").await),
        ("no TLS at all", serve_response("HTTP/1.1 204 No Content\r\n\r\n").await),
    ] {
        let error =
            publisher(&server).trust(issuer.pem()).publish(&message()).await.expect_err(what);
        assert_eq!(error.class(), FailureClass::Unavailable, "{what}: {}", error.full_text());
    }
}
