//! What the application says of sources: that customers are there, or that abuse is confirmed. What becomes of it: see
//! [`actions::hints`](crate::actions::hints).

use axum::{
    extract::{Path, Query, Request, State},
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Api,
    admission::Operator,
    change::{Wanted, checked_reason, is_within, response, say, unprocessable},
    input,
    input::Input,
    limits::{HINTS_BYTES_MAX, ROWS_MAX},
    reads::{Answer, beside},
    refusal::Refusal,
};
use crate::{
    actions::{
        hints::{Hint, Label},
        limits::{HINT_BY_CHARS_MAX, HINT_S_MAX, HINTS_MAX},
    },
    clock,
    commands::Failure,
    daemon::Running,
    history::{Author, Entry, Origin, Which},
    kernel::{mapped::Access, maps::Maps, read},
    policy::{REASON_CHARS_MAX, target},
};

const _: () = assert!(
    HINTS_MAX == 100_000 && HINT_S_MAX == 31_622_400 && HINT_BY_CHARS_MAX == 255 && REASON_CHARS_MAX == 255,
    "the attributes below say these bounds to the schema, and take nothing but literals"
);

/// What is said of sources.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddHints {
    /// What.
    label: Label,
    /// Of whom: addresses or prefixes. Of abuse /24 or longer, of IPv6 /48 or longer; a customer may have more.
    #[schema(min_items = 1, max_items = 100_000, example = json!(["198.51.100.7", "2001:db8:1:2::/64"]))]
    sources: Vec<String>,
    /// Only at this service of the policy.
    service: Option<String>,
    /// Seconds until it ends.
    #[schema(minimum = 1, maximum = 31_622_400)]
    for_s: u64,
    /// Who says so, if it is somebody else than who asks.
    #[schema(min_length = 1, max_length = 255, example = "billing")]
    by: Option<String>,
    /// Why.
    #[schema(min_length = 1, max_length = 255)]
    reason: Option<String>,
}

/// Hints that were kept.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HintsKept)]
pub(super) struct Kept {
    /// Their numbers, in the order of the sources.
    ids: Vec<u64>,
    /// When they end, seconds since the Unix epoch.
    until_s: u64,
    /// Why the history does not have the change.
    unrecorded: Option<String>,
}

/// Say of sources that customers are there, or that their abuse is confirmed; all of them or none. What was said of the same source, label
/// and service before is said anew, under its number.
#[utoipa::path(post, path = "/v1/hints", request_body = AddHints, responses((status = OK, description = "They are kept.", body = Kept)))]
pub(super) async fn add_hints(
    State(app): State<Api>,
    operator: Operator,
    request: Request,
) -> Result<Response, Refusal> {
    let permit = app.hints.take().await?;
    let (body, permit): (AddHints, _) = input::large(&app, request, HINTS_BYTES_MAX, permit).await?;
    let reason = checked_reason(body.reason.as_deref())?;
    if body.sources.is_empty() || body.sources.len() > HINTS_MAX {
        return Err(unprocessable(&format!("`sources` has 1 to {HINTS_MAX} addresses or prefixes")));
    }
    if !is_within(body.for_s, std::time::Duration::from_secs(HINT_S_MAX)) {
        return Err(unprocessable(&format!("`for_s` is from 1 to {HINT_S_MAX}")));
    }
    let target = target_of(&body.sources);
    let wanted = Wanted { what: "hint", target: target.clone(), reason: reason.clone() };
    let kept = say(app.clone(), operator, wanted, move |running, caller| {
        let _permit = permit;
        add(running, &caller.author(), AddHints { reason, ..body }, &target)
    });
    Ok(response(kept.await))
}

/// The first source, and how many more there are.
fn target_of(sources: &[String]) -> String {
    // It is not read yet, and may be anything.
    let first: String = sources.iter().take(1).flat_map(|first| first.chars().take(64)).collect();
    match sources.len() {
        0 | 1 => first,
        count => format!("{first} and {} more", count - 1),
    }
}

fn add(running: &Running, author: &Author, asked: AddHints, target: &str) -> Result<Kept, Failure> {
    let AddHints { label, sources, service, for_s, by, reason } = asked;
    let refuse = |failure: Failure| {
        let entry = Entry::new(clock::unix_s(), author, Origin::Api, "hint", target);
        note(running, &Entry { refusal: Some(&failure.message), reason: reason.as_deref(), ..entry });
        failure
    };
    let at_s = clock::unix_s();
    let (by, until_s) = (by.unwrap_or_else(|| author.name.clone()), at_s + for_s);
    let read = |text: &String| -> Result<Hint, Failure> {
        let prefix = target::source(text)
            .map_err(|wrong| Failure::invalid(format_args!("source {text:?}: {wrong}")))?;
        let (by, service, reason) = (by.clone(), service.clone(), reason.clone());
        let hint = Hint { id: 0, prefix, label, service, by, reason, at_s, until_s };
        hint.checked().map_err(Failure::invalid)
    };
    let kept = check_service(running, service.as_deref())
        .and_then(|()| sources.iter().map(read).collect::<Result<Vec<_>, _>>())
        .and_then(|hints| Ok(running.history.keep_hints(&hints, at_s)?));
    let ids = kept.map_err(refuse)?;
    let entry = Entry::new(at_s, author, Origin::Api, "hint", target);
    let after = serde_json::json!({ "label": label, "service": service, "by": by, "until_s": until_s, "count": ids.len() });
    let unrecorded = note(running, &Entry { after: Some(after), reason: reason.as_deref(), ..entry });
    Ok(Kept { ids, until_s, unrecorded })
}

fn check_service(running: &Running, service: Option<&str>) -> Result<(), Failure> {
    let Some(service) = service else { return Ok(()) };
    let maps = Maps::pinned(&running.pins.loaded()?, Access::Read)?;
    let services = read::consistently(&maps, |active| active.manifest())?.unwrap_or_default().services;
    if services.contains_key(service) {
        return Ok(());
    }
    let names: Vec<_> = services.keys().map(String::as_str).collect();
    Err(Failure::invalid(format_args!(
        "there is no service {service:?}: expected one of the policy's, {}; without `service` a hint holds at each",
        names.join(", ")
    )))
}

/// Writes an audit entry; why it cannot be written.
fn note(running: &Running, entry: &Entry<'_>) -> Option<String> {
    running.history.record(entry).err().map(|error| error.to_string())
}

/// The highest number that a hint can have, and that the schema takes.
const ID_MAX: u64 = i64::MAX as u64;

/// Which hints to answer with.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct WantedHints {
    /// Only those that say something of this address, or of a part of this prefix.
    source: Option<String>,
    /// Only those with this label.
    #[param(inline)]
    label: Option<Label>,
    /// Only those with a higher number: the last one of the rows before.
    #[param(default = 0)]
    after: u64,
    /// Rows at most.
    #[param(minimum = 1, maximum = 10_000, default = 100)]
    rows: usize,
}

impl Default for WantedHints {
    fn default() -> Self {
        Self { source: None, label: None, after: 0, rows: 100 }
    }
}

/// Hints.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Hints)]
pub(super) struct Listed {
    /// How many hold.
    count: u64,
    /// How many there may be.
    most: usize,
    /// Those that were asked for, by number.
    hints: Vec<Hint>,
}

/// What the application says of sources, as far as it holds.
#[utoipa::path(get, path = "/v1/hints", params(WantedHints), responses((status = OK, description = "Hints.", body = Listed)))]
pub(super) async fn hints(
    State(app): State<Api>,
    Input(Query(wanted)): Input<Query<WantedHints>>,
) -> Answer<Listed> {
    let WantedHints { source, label, after, rows } = wanted;
    if !(1..=ROWS_MAX).contains(&rows) || after > ID_MAX {
        return Err(unprocessable(&format!("`rows` is from 1 to {ROWS_MAX}, `after` from 0 to {ID_MAX}")));
    }
    let about = source.as_deref().map(target::source).transpose();
    let about = about.map_err(|wrong| unprocessable(&format!("`source`: {wrong}")))?;
    let which = Which { about, label, after, rows };
    beside(&app, move |running| {
        let (count, hints) = running.history.hints(clock::unix_s(), &which)?;
        Ok(Listed { count, most: HINTS_MAX, hints })
    })
    .await
}

/// A hint that was taken back.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HintTakenBack)]
pub(super) struct TakenBack {
    /// The hint.
    hint: Hint,
    /// Why the history does not have the change.
    unrecorded: Option<String>,
}

/// Take back what was said of a source.
#[utoipa::path(
    delete,
    path = "/v1/hints/{id}",
    params(("id" = u64, Path, description = "The number of the hint.", minimum = 1, example = 3)),
    responses((status = OK, description = "It holds no more.", body = TakenBack))
)]
pub(super) async fn take_back_hint(
    State(app): State<Api>,
    operator: Operator,
    Input(Path(id)): Input<Path<u64>>,
) -> Result<Response, Refusal> {
    let wanted = Wanted { what: "unhint", target: format!("hint {id}"), reason: None };
    let done = say(app.clone(), operator, wanted, move |running, caller| {
        let author = caller.author();
        let entry = Entry::new(clock::unix_s(), &author, Origin::Api, "unhint", "");
        match running.history.take_back_hint(id) {
            Ok(hint) => {
                let target = hint.prefix.to_string();
                let before = Some(serde_json::json!(hint));
                let unrecorded = note(running, &Entry { target: &target, before, ..entry });
                Ok(TakenBack { hint, unrecorded })
            }
            Err(error) => {
                let (target, why) = (format!("hint {id}"), error.to_string());
                note(running, &Entry { target: &target, refusal: Some(&why), ..entry });
                Err(error.into())
            }
        }
    });
    Ok(response(done.await))
}
