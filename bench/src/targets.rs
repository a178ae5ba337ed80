//! What the product was built to reach, against what a run found.

use detector_user::commands::{count, table};

use crate::report::{Decision, Report};
