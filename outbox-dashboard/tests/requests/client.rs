//! A browser without windows: requests as one makes them, and what it shows of the answer.

use axum::{Router, body::Body, extract::ConnectInfo};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use std::net::SocketAddr;
use tower::ServiceExt;

/// Whoever asks the router.
pub(crate) struct Client {
    router: Router,
    peer: SocketAddr,
    headers: Vec<(String, String)>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Client {
    /// Asks from this machine.
    pub(crate) fn of(router: Router) -> Self {
        let peer = SocketAddr::from(([127, 0, 0, 1], 5_000));
        let host = ("host".to_owned(), "127.0.0.1:8080".to_owned());
        Self { router, peer, headers: vec![host] }
    }

    /// Asks from another machine.
    pub(crate) fn of_peer(mut self, peer: &str) -> Self {
        self.peer = peer.parse().unwrap();
        self
    }

    /// Sends a header with each request, in place of one of the same name.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(there, _)| there != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Loads a page.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, "").await
    }

    /// Posts a form.
    pub(crate) async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        let mut encoded = url::form_urlencoded::Serializer::new(String::new());
        encoded.extend_pairs(form);
        self.send(Method::POST, path, Some("application/x-www-form-urlencoded"), &encoded.finish())
            .await
    }

    /// Posts a form, and loads the page to which the browser is sent.
    pub(crate) async fn submit(&self, path: &str, form: &[(&str, &str)]) -> (String, Answer) {
        let answer = self.post(path, form).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path} {form:?}: {}", answer.body);
        let base = url::Url::parse("http://127.0.0.1:8080").unwrap().join(path).unwrap();
        let to = base.join(answer.headers[header::LOCATION].to_str().unwrap()).unwrap();
        let to = format!("{}?{}", to.path(), to.query().unwrap_or_default());
        let page = self.get(&to).await;
        (to, page)
    }

    /// Posts a document.
    pub(crate) async fn post_json(&self, path: &str, document: &serde_json::Value) -> Answer {
        self.send(Method::POST, path, Some("application/json"), &document.to_string()).await
    }

    /// Sends a request.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.extension(ConnectInfo(self.peer)).body(Body::from(body.to_owned()));
        let answer = self.router.clone().oneshot(request.unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }
}

impl Answer {
    /// Checks the status, and that the body has these texts, whatever letter a sentence begins with.
    pub(crate) fn says(&self, status: u16, texts: &[&str]) {
        let body = self.body.replace("&quot;", "\"").replace("&#39;", "'").replace("&#34;", "\"");
        assert_eq!(self.status.as_u16(), status, "{body}");
        for text in texts {
            let has = body.to_lowercase().contains(&text.to_lowercase());
            assert!(has, "it does not say {text:?}: {body}");
        }
    }

    /// Gives the body as a document.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}
