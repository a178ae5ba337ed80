//! Reading requests, with refusals that look like every other failure.

use axum::{
    body::Bytes,
    extract::{FromRequest as _, FromRequestParts, Request},
    http::{StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{App, blocking, refusal::Refusal};

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

/// Receives and reads the body of a request: in time, within the bound of its path, and beside other requests.
pub(super) async fn body<T: DeserializeOwned + Send + 'static>(
    app: &App,
    request: Request,
) -> Result<T, Refusal> {
    if !is_json(&request) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body is not JSON by its header: expected `Content-Type: application/json`",
        ));
    }
    let received = timeout(app.body_time_max, Bytes::from_request(request, &()));
    let late = |_| {
        let seconds = app.body_time_max.as_secs_f64();
        Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format_args!("the body did not come within {seconds} s: send it faster"),
        )
    };
    let bytes = received.await.map_err(late)??;
    let read = move || Ok(serde_json::from_slice(&bytes));
    blocking(read).await?.map_err(|error: serde_json::Error| {
        let status = if error.is_data() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
        Refusal::new(
            status,
            format_args!("cannot read the body: {error}; /v1/openapi.json says what is expected"),
        )
    })
}

fn is_json(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}
