//! The OpenAPI document: what the endpoints say of themselves, and what is true of all of them.

use utoipa::{
    ToSchema as _,
    openapi::{
        ContentBuilder, Info, OpenApi, OpenApiBuilder, PathItem, Ref, RefOr, Required, ResponseBuilder,
        path::Operation,
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use crate::commands::Failure;

const TEXT: &str = "\
What the commands of detector do. Over its unix socket the user and groups of the process say who asks; over TLS, a token \
does. Viewers may read and check; operators may change. Every change is logged. `docs/api.md` has the bounds.";

/// The name of the scheme for tokens.
const TOKEN: &str = "token";

/// The document without its paths.
pub(super) fn head() -> OpenApi {
    let mut info = Info::new("detector", env!("CARGO_PKG_VERSION"));
    info.description = Some(TEXT.to_owned());
    OpenApiBuilder::new().info(info).build()
}

/// The document.
pub fn document() -> OpenApi {
    let (_, mut document) = super::endpoints().split_for_parts();
    let components = document.components.get_or_insert_default();
    let mut schemas = Vec::new();
    Failure::schemas(&mut schemas);
    components.schemas.extend(schemas);
    components.schemas.insert("Failure".into(), <Failure as utoipa::PartialSchema>::schema());
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.security_schemes.insert(TOKEN.into(), RefOr::T(token));
    // Over the socket nothing has to be sent.
    let none: [&str; 0] = [];
    document.security = Some(vec![SecurityRequirement::default(), SecurityRequirement::new(TOKEN, none)]);
    for item in document.paths.paths.values_mut() {
        operations(item).for_each(refusals);
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (bool, &mut Operation)> {
    let changes = [item.post.as_mut(), item.delete.as_mut()].into_iter().flatten();
    let get = item.get.as_mut().map(|operation| (false, operation));
    get.into_iter().chain(changes.map(|operation| (true, operation)))
}

/// Adds what may be answered instead, by what the endpoint takes.
fn refusals((may_change, operation): (bool, &mut Operation)) {
    let has_body = operation.request_body.is_some();
    let has_input = has_body || operation.parameters.is_some();
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        body.required = Some(Required::True);
    }
    let is_change = may_change && !matches!(operation.operation_id.as_deref(), Some("check" | "planned"));
    let refusals = [
        (has_input, "400", "What was sent cannot be read."),
        (true, "401", "A token is needed, or is not known."),
        (true, "403", "Whoever asks may not."),
        (has_body, "408", "The body took too long."),
        (is_change, "409", "Something else waits to be ended first, or nothing does."),
        (has_body, "413", "The body is too large."),
        (has_body, "415", "The body is not JSON by its header."),
        (has_input, "422", "What was sent can be read and is invalid."),
        (is_change, "429", "Too many changes: try again later."),
        (true, "500", "It could not be done."),
        (true, "503", "Nothing is loaded, there is no policy, or too many ask: try again later."),
    ];
    for (_, status, text) in refusals.into_iter().filter(|(is_possible, ..)| *is_possible) {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Failure"))).build();
        let response = ResponseBuilder::new().description(text).content("application/json", content).build();
        operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
    }
}
