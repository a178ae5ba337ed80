//! What is answered instead of what was asked for: a [`Failure`], with an HTTP status.

use axum::{
    extract::rejection::{PathRejection, QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::limits::CHANGE_EVERY;
use crate::commands::{Cause, EXIT_FAILED, EXIT_INVALID, Failure};

/// A failure and its status.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    failure: Failure,
}

/// Says in a response what went wrong, for the log of refused changes.
#[derive(Debug, Clone)]
pub(super) struct Told(pub(super) String);

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl std::fmt::Display) -> Self {
        let is_input = status.is_client_error() && status != StatusCode::CONFLICT;
        let code = if is_input { EXIT_INVALID } else { EXIT_FAILED };
        Self { status, failure: Failure { code, ..Failure::failed(message) } }
    }

    /// What went wrong and what to do.
    pub(super) fn message(&self) -> &str {
        &self.failure.message
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let status = match failure.cause {
            Cause::Input => StatusCode::UNPROCESSABLE_ENTITY,
            Cause::Conflict => StatusCode::CONFLICT,
            Cause::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Cause::Other => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, failure }
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let told = Told(self.failure.message.clone());
        let mut response = json(self.status, &self.failure);
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            // Whom nobody knows keeps no place.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(CHANGE_EVERY.as_secs()));
        }
        response.extensions_mut().insert(told);
        response
    }
}

/// An answer of 200 as JSON.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: serde::Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        json(StatusCode::OK, &self.0)
    }
}

fn json(status: StatusCode, answer: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(answer) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(error) => {
            let text = format!("cannot write the answer as JSON: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

/// For paths that are no endpoint.
pub(super) async fn no_such_path() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "there is no such path: /v1/openapi.json names them all")
}

/// For endpoints that are asked with another method.
pub(super) async fn no_such_method() -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path has no such method: /v1/openapi.json names those it has",
    )
}
