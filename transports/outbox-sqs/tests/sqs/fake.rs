//! A service that does what a test wants: for replies that no emulator gives when it is asked to.

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::sleep};

/// What the service does about a request.
pub(crate) struct Reaction {
    /// How long it takes.
    pub(crate) after: Duration,
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Reaction {
    /// Replies in the form of SQS.
    pub(crate) fn json(body: &Value) -> Self {
        Self { after: Duration::ZERO, status: 200, body: body.to_string() }
    }

    /// Replies in the form of SNS, with one value.
    pub(crate) fn xml(action: &str, name: &str, value: &str) -> Self {
        let body = format!(
            "<{action}Response xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><{action}Result>\
             <{name}>{value}</{name}></{action}Result></{action}Response>"
        );
        Self { after: Duration::ZERO, status: 200, body }
    }

    pub(crate) fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }
}

/// A service, ended when it is dropped.
pub(crate) struct Fake {
    address: String,
    /// The requests that came, by their actions; those of SNS without what is in them.
    pub(crate) came: mpsc::UnboundedReceiver<(String, Value)>,
    _task: JoinSet<()>,
}

impl Fake {
    /// Starts one that reacts to each request by its action. It names queues and creates them by
    /// itself.
    pub(crate) async fn start(
        react: impl Fn(&str, &Value) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let (report, came) = mpsc::unbounded_channel();
        let react = Arc::new(react);
        let serve = move |headers: HeaderMap, body: String| {
            let (action, request) = read(&headers, &body);
            let reaction = match action.as_str() {
                "GetQueueUrl" | "CreateQueue" => {
                    let name = request["QueueName"].as_str().unwrap_or_default();
                    Reaction::json(&json!({ "QueueUrl": format!("http://h/000000000000/{name}") }))
                }
                _ => react(&action, &request),
            };
            let _ = report.send((action, request));
            async move {
                sleep(reaction.after).await;
                let status = StatusCode::from_u16(reaction.status).expect("a status");
                let kind = if reaction.body.starts_with('<') { "text/xml" } else { JSON };
                (status, [("content-type", kind)], reaction.body)
            }
        };
        let router = Router::new().route("/", post(serve));
        let mut task = JoinSet::new();
        task.spawn(async move {
            // It ends with the test.
            let _ = axum::serve(listener, router).await;
        });
        Self { address, came, _task: task }
    }

    /// The URL for a service: `sqs` or `sns`.
    pub(crate) fn url(&self, service: &str) -> String {
        format!("{service}+http://{}/000000000000", self.address)
    }
}

const JSON: &str = "application/x-amz-json-1.0";

/// Reads the action of a request, and what is in it where that is JSON.
fn read(headers: &HeaderMap, body: &str) -> (String, Value) {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    if let Some((_, action)) = target.and_then(|target| target.split_once('.')) {
        return (action.to_owned(), serde_json::from_str(body).unwrap_or_default());
    }
    let action = body.split('&').find_map(|pair| pair.strip_prefix("Action="));
    (action.unwrap_or_default().to_owned(), Value::Null)
}
