//! A customer's endpoint, as any library of Standard Webhooks would make it: it answers 2xx when it has
//! done its work, and knows nothing of this framework.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, sync::Notify, time::timeout};

const SOON: Duration = Duration::from_secs(30);

pub(crate) struct Customer {
    pub(crate) name: &'static str,
    pub(crate) secret: &'static str,
    pub(crate) url: String,
    endpoint: Arc<Endpoint>,
}

#[derive(Debug, Default)]
struct Endpoint {
    is_broken: AtomicBool,
    /// Ids that were seen, and the invoices in their order: a repeat of an id is answered, and not done
    /// again.
    seen: Mutex<(BTreeSet<String>, Vec<u32>)>,
    changed: Notify,
}

#[derive(Deserialize)]
struct Invoice {
    number: u32,
}

impl Customer {
    pub(crate) async fn open(name: &'static str, secret: &'static str) -> io::Result<Self> {
        let endpoint = Arc::new(Endpoint::default());
        let app = Router::new().route("/hook", post(receive)).with_state(endpoint.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/hook", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { name, secret, url, endpoint })
    }

    pub(crate) fn break_endpoint(&self) {
        self.endpoint.is_broken.store(true, Ordering::Relaxed);
    }

    pub(crate) fn repair_endpoint(&self) {
        self.endpoint.is_broken.store(false, Ordering::Relaxed);
    }

    /// Gives the invoices that came, once there are so many.
    pub(crate) async fn seen(
        &self,
        invoices: usize,
    ) -> Result<Vec<u32>, tokio::time::error::Elapsed> {
        timeout(SOON, async {
            loop {
                let changed = self.endpoint.changed.notified();
                let seen =
                    self.endpoint.seen.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
                if seen.len() >= invoices {
                    return seen;
                }
                changed.await;
            }
        })
        .await
    }
}

/// A real endpoint verifies the signature first, with the library of its language.
async fn receive(
    State(endpoint): State<Arc<Endpoint>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    if endpoint.is_broken.load(Ordering::Relaxed) {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(id), Some(_signature)) = (header("webhook-id"), header("webhook-signature")) else {
        return StatusCode::UNAUTHORIZED;
    };
    let Ok(Invoice { number }) = serde_json::from_slice(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut seen = endpoint.seen.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.0.insert(id.to_owned()) {
        seen.1.push(number);
    }
    drop(seen);
    endpoint.changed.notify_waiters();
    StatusCode::NO_CONTENT
}
