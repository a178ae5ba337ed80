//! Reading requests, with refusals that look like every other failure.

use axum::{
    body::{Bytes, to_bytes},
    extract::{FromRequestParts, Request},
    http::{StatusCode, header, request::Parts},
};
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{App, blocking, limits::BODY_BYTES_MAX, refusal::Refusal};

/// A path or a query.
pub(super) struct Input<T>(pub(super) T);

impl<S, T> FromRequestParts<S> for Input<T>
where
    S: Send + Sync,
    T: FromRequestParts<S>,
    Refusal: From<T::Rejection>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        Ok(Self(T::from_request_parts(parts, state).await?))
    }
}

/// Receives and reads a body that is small.
pub(super) async fn small<T: DeserializeOwned>(app: &App, request: Request) -> Result<T, Refusal> {
    let bytes = receive(app, request, BODY_BYTES_MAX).await?;
    object(&bytes)
}

/// Receives and reads a body of at most so many bytes, beside other requests. The permits are held while it is read, and
/// are given back with it.
pub(super) async fn large<T, P>(
    app: &App,
    request: Request,
    bytes_max: usize,
    permits: P,
) -> Result<(T, P), Refusal>
where
    T: DeserializeOwned + Send + 'static,
    P: Send + 'static,
{
    let bytes = receive(app, request, bytes_max).await?;
    let read = move || Ok((object(&bytes), permits));
    let (body, permits) = blocking(read).await?;
    Ok((body?, permits))
}

/// Reads a JSON object. An array is none, though serde takes one for the fields in their order.
fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        let message = "the body is an array: expected an object, see /v1/openapi.json";
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message));
    }
    serde_json::from_slice(bytes).map_err(|error| unreadable(&error))
}

async fn receive(app: &App, request: Request, bytes_max: usize) -> Result<Bytes, Refusal> {
    if !is_json(&request) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body is not JSON by its header: expected `Content-Type: application/json`",
        ));
    }
    let late = |_| {
        let seconds = app.body_time_max.as_secs_f64();
        Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format_args!("the body did not come within {seconds} s: send it faster"),
        )
    };
    let received = timeout(app.body_time_max, to_bytes(request.into_body(), bytes_max));
    received.await.map_err(late)?.map_err(|error| {
        let error = error.into_inner();
        if error.is::<LengthLimitError>() {
            let message = format!("the body is too large: {} KiB is the bound of this path", bytes_max >> 10);
            return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message);
        }
        Refusal::new(StatusCode::BAD_REQUEST, format_args!("cannot receive the body: {error}"))
    })
}

fn unreadable(error: &serde_json::Error) -> Refusal {
    let status = if error.is_data() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
    Refusal::new(
        status,
        format_args!("cannot read the body: {error}; /v1/openapi.json says what is expected"),
    )
}

fn is_json(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}
