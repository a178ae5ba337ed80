//! `detector token`: a new token for the API over TCP.

use serde::Serialize;

use super::{EXIT_DONE, Failure, print_json, print_line};
use crate::{
    api::tokens::{is_name, line},
    cli::TokenArgs,
    hexadecimal,
};

#[derive(Debug, Serialize)]
struct Answer {
    token: String,
    line: String,
}

/// Makes a token.
pub fn token(args: &TokenArgs) -> Result<u8, Failure> {
    let name = &args.name;
    if !is_name(name) {
        return Err(Failure::invalid(format_args!(
            "{name:?} cannot name a token: expected 1 to 63 of A-Z, a-z, 0-9, `_`, `.`, `:` and `-`"
        )));
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::failed(format_args!("cannot draw a random token: {error}")))?;
    let token = hexadecimal::digits(&bytes);
    let line = line(args.role, name, &token);
    if args.json {
        print_json(&Answer { token, line })?;
    } else {
        print_line(&format!(
            "token, shown only now: {token}\nline for the file of `run --api-tokens`:\n{line}"
        ));
    }
    Ok(EXIT_DONE)
}
