//! Following a queue: an object a line for what comes out of it, until one end goes away.

use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use tokio_stream::{Stream, StreamExt as _};

use super::{
    App,
    caller::Caller,
    limits::{FOLLOWERS_MAX, FOLLOWERS_OF_ONE_MAX},
    permits::Permit,
    refusal::Refusal,
    tokens::Tokens,
};

/// Objects, each on a line.
pub(super) type Lines = serde_json::Result<Bytes>;

/// Somebody who follows, and has a place until then.
pub(super) struct Follower {
    _permits: [Permit; 2],
    caller: Caller,
    tokens: Option<Tokens>,
}

impl Follower {
    /// Admits a follower.
    pub(super) fn admit(app: &App, caller: Caller) -> Result<Self, Refusal> {
        let full = |message| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message);
        let of_one = app.followers_of_each.try_take(&caller.who).ok_or_else(|| {
            full(format!("{FOLLOWERS_OF_ONE_MAX} followers of yours follow already: end one of them first"))
        })?;
        let of_all = app.followers.try_take();
        let of_all =
            of_all.ok_or_else(|| full(format!("{FOLLOWERS_MAX} follow already: end one of them first")))?;
        Ok(Self { _permits: [of_one, of_all], caller, tokens: app.tokens.clone() })
    }

    /// Whether it still may follow: a token may have gone since.
    fn is_admitted(&self) -> bool {
        match (&self.caller.token, &self.tokens) {
            (Some(token), Some(tokens)) => tokens.has(token),
            _ => true,
        }
    }

    /// Answers with the lines of what comes, where it has some, for as long as it may.
    pub(super) fn follow<T: Send + 'static>(
        self,
        queue: impl Stream<Item = T> + Send + 'static,
        lines: impl FnMut(T) -> Option<Lines> + Send + 'static,
    ) -> Response {
        // The places are free again when the stream ends, which has them.
        let stream = queue.take_while(move |_| self.is_admitted()).filter_map(lines);
        let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
        (headers, Body::from_stream(stream)).into_response()
    }
}

/// An object a line.
pub(super) fn lines<'a, T: Serialize + 'a>(objects: impl IntoIterator<Item = &'a T>) -> Lines {
    let mut lines = Vec::new();
    for object in objects {
        serde_json::to_writer(&mut lines, object)?;
        lines.push(b'\n');
    }
    Ok(Bytes::from(lines))
}
