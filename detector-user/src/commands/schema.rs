//! `detector schema`: the policy language as a JSON Schema.

use super::{EXIT_DONE, Failure, print_json};
use crate::policy::json_schema;

/// Prints the schema.
pub fn schema() -> Result<u8, Failure> {
    print_json(&json_schema())?;
    Ok(EXIT_DONE)
}
