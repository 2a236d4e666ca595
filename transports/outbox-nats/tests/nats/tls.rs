//! TLS: under `tls://`, and under `nats://` where the server asks for it. A certificate that is not
//! right is no connection.

use crate::support::{CONSUMER, STREAM, failure, full, next, stream};
use outbox_core::{failure::FailureClass, transport::Publisher};
use outbox_nats::{DurableConsumer, NatsPublisher, NatsSubscriber};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::{fs, os::unix::fs::PermissionsExt};
use tempfile::TempDir;
use tests::servers::{Server, nats};

/// A server with a certificate for a name, the authority that signed it, and their folder.
async fn secured(name: &str) -> (Server, String, TempDir) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
        .expect("a certificate");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new([name.to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let visible = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), visible).expect("its owner may open it");
    let write = |file: &str, text: String| {
        let path = folder.path().join(file);
        fs::write(&path, text).expect("it can be written");
        path.to_string_lossy().into_owned()
    };
    let (certificate, key) =
        (write("certificate.pem", certificate.pem()), write("key.pem", key.serialize_pem()));
    let settings = ["--tls", "--tlscert", &certificate, "--tlskey", &key];
    (nats::start_with(&settings).await, issuer.pem(), folder)
}

#[tokio::test]
async fn events_go_over_tls_where_the_authority_is_trusted() {
    let (server, authority, _folder) = secured("127.0.0.1").await;
    for scheme in ["nats://", "tls://"] {
        let url = server.url().replace("nats://", scheme);
        let publisher = NatsPublisher::new(&url).expect("a URL").declare([stream()]);
        let error = failure(&publisher).await;
        assert_eq!(error.class(), FailureClass::Unavailable, "{scheme}: {error}");
        let publisher = publisher.trust(&authority);
        let sent = full();
        publisher.publish(&sent).await.expect("confirmed");
        let mut subscriber = NatsSubscriber::new(&url, STREAM, CONSUMER)
            .expect("a URL")
            .declare_consumer(DurableConsumer::new())
            .trust(&authority);
        let delivery = next(&mut subscriber).await;
        assert_eq!(delivery.message.as_ref().map(|message| message.id), Ok(sent.id));
        delivery.ack().await.expect("accepted");
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_no_connection() {
    let (server, authority, _folder) = secured("broker.example").await;
    let publisher = NatsPublisher::new(server.url()).expect("a URL").trust(&authority);
    let error = failure(&publisher).await;
    assert_eq!(error.class(), FailureClass::Unavailable);
    assert!(error.to_string().contains("certificate"), "{error}");
}
