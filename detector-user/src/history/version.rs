//! A version of the policy: what is said of it.

use rusqlite::{
    ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::Author;

/// An enum whose variants stand as words in the database and in JSON.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        $(#[$doc])*
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// The word for it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            fn of(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.name().into())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                let word = value.as_str()?;
                Self::of(word).ok_or_else(|| FromSqlError::Other(
                    format!("`{word}` is no {}", stringify!($name)).into(),
                ))
            }
        }
    };
}

words! {
    /// By which way a change came.
    #[schema(as = ChangeOrigin)]
    Origin {
        /// `detector apply`.
        Apply = "apply",
        /// The daemon's start.
        Start = "start",
        /// The daemon read its policy again (SIGHUP).
        Reload = "reload",
        /// `detector rollback`.
        Rollback = "rollback",
        /// The API.
        Api = "api",
        /// Another command.
        Command = "command",
        /// The daemon, by itself.
        Daemon = "daemon",
        /// The program in the kernel, by itself.
        Kernel = "kernel",
    }
}

words! {
    /// What became of a version.
    #[schema(as = VersionState)]
    State {
        /// It is being put into the kernel.
        Applying = "applying",
        /// The kernel did not take it: it was never active.
        Failed = "failed",
        /// It is active, and taken back unless it is confirmed.
        Trial = "trial",
        /// It became active to stay.
        Applied = "applied",
        /// It was on trial, and taken back.
        TakenBack = "taken_back",
    }
}

/// A version as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PolicyVersion)]
pub struct Version {
    /// Its number: 1, 2, ….
    pub version: u64,
    /// When it was applied, seconds since the Unix epoch.
    pub time_s: u64,
    /// By whom.
    pub author: Author,
    /// By which way.
    pub origin: Origin,
    /// The path of the policy as it was given.
    pub file: String,
    /// SHA-256 of the text and the source files, hexadecimal.
    pub digest: String,
    /// Why.
    pub reason: Option<String>,
    /// Whether `--force` was given.
    pub forced: bool,
    /// Seconds that it had to be confirmed in; none: it was not on trial.
    pub confirm_s: Option<u64>,
    /// The version that was active before; none: there was none, or it was not recorded.
    pub replaced: Option<u64>,
    /// The version that it is again.
    pub again: Option<u64>,
    /// What became of it.
    pub state: State,
    /// Why the kernel did not take it.
    pub failure: Option<String>,
}

/// A file that a policy names, as it was when the policy was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path, from the folder of the policy on where it lies in that.
    pub name: String,
    /// What it held.
    pub bytes: Vec<u8>,
}

/// What a version is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The text of the policy.
    pub text: String,
    /// The source files, by name.
    pub sources: Vec<SourceFile>,
}

/// A version to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewVersion<'a> {
    /// The time now, seconds since the Unix epoch.
    pub time_s: u64,
    /// By whom.
    pub author: &'a Author,
    /// By which way.
    pub origin: Origin,
    /// The path of the policy as it was given.
    pub file: &'a str,
    /// The text of the policy.
    pub text: &'a str,
    /// The source files, by name.
    pub sources: &'a [SourceFile],
    /// SHA-256 of the text and the source files, hexadecimal.
    pub digest: &'a str,
    /// Why.
    pub reason: Option<&'a str>,
    /// Whether `--force` was given.
    pub forced: bool,
    /// Seconds that it has to be confirmed in.
    pub confirm_s: Option<u64>,
    /// The version that is active so far.
    pub replaced: Option<u64>,
    /// The version that it is again.
    pub again: Option<u64>,
}
