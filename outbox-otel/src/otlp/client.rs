//! The exporter's HTTP client.
//!
//! The SDK exports on threads of its own, without a runtime. So the requests run on a task of the
//! program's runtime, and the threads wait for their answers.

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use outbox_core::runtime::spawn;
use reqwest::redirect;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// Time for a whole request.
///
/// # Source
/// OpenTelemetry Protocol Exporter, the default of `OTEL_EXPORTER_OTLP_TIMEOUT`.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that wait: spans and metrics have one under way each.
const WAITING: usize = 4;

type Answer = Result<Response<Bytes>, HttpError>;

/// Hands requests to the task that makes them.
#[derive(Debug, Clone)]
pub(super) struct Client(mpsc::Sender<(Request<Bytes>, oneshot::Sender<Answer>)>);

impl Client {
    /// Builds the client, and starts its task on the present runtime.
    pub(super) fn start() -> Result<Self, HttpError> {
        let client = client()?;
        let (requests, mut waiting) =
            mpsc::channel::<(Request<Bytes>, oneshot::Sender<Answer>)>(WAITING);
        let work = async move {
            while let Some((request, answer)) = waiting.recv().await {
                let client = client.clone();
                // One that is slow does not hold up the other.
                spawn(async move {
                    // An exporter that has given up asks for no answer.
                    let _ = answer.send(send(&client, request).await);
                })
                .detach();
            }
        };
        spawn(work).detach();
        Ok(Self(requests))
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Answer {
        let (sender, answer) = oneshot::channel();
        let stopped = || HttpError::from("the runtime that exports has stopped");
        self.0.send((request, sender)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

async fn send(client: &reqwest::Client, request: Request<Bytes>) -> Answer {
    let response = client.execute(request.try_into()?).await?.error_for_status()?;
    let status = response.status();
    let mut answer = Response::new(response.bytes().await?);
    *answer.status_mut() = status;
    Ok(answer)
}

/// Builds the client with this crate's own crypto provider, whatever the process has installed.
fn client() -> Result<reqwest::Client, HttpError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let tls = match Verifier::new(provider) {
        Ok(verifier) => tls.dangerous().with_custom_certificate_verifier(Arc::new(verifier)),
        // Small containers have no system certificates, and plain HTTP needs none.
        Err(_) => tls.with_root_certificates(RootCertStore::empty()),
    };
    let tls = tls.with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .timeout(TIMEOUT)
        .build();
    Ok(client?)
}
