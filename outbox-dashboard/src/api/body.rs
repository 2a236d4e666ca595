//! Documents that come and go.

use crate::{access::Refusal, builder::Shared};
use axum::{
    Json,
    extract::{FromRequest, Request},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use outbox_core::admin::escaped_json;
use serde::{Serialize, de::DeserializeOwned};

/// The document of a request.
#[derive(Debug)]
pub(super) struct Document<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Shared> for Document<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, Refusal> {
        let read = Json::<T>::from_request(request, state).await;
        read.map(|Json(document)| Self(document)).map_err(|error| {
            // A document with a wrong field is as wrong as one that is no JSON.
            let status = match error.status() {
                StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
                status => status,
            };
            Refusal::new(status, "That document cannot be read")
                .because(error.body_text())
                .advising("openapi.json says what it has to be.")
        })
    }
}

/// Answers with a document.
pub(super) fn respond(status: StatusCode, document: &impl Serialize) -> Result<Response, Refusal> {
    let json = serde_json::to_string(document).map_err(|error| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "The document cannot be written")
            .because(error.to_string())
    })?;
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Ok((status, kind, escaped_json(&json)).into_response())
}
