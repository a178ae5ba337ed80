//! Who changes something.

use std::fmt;

use nix::unistd::{Uid, User, getuid};
use serde::Serialize;
use utoipa::ToSchema;

/// Who changed something, as far as this machine can tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Author {
    /// The name of the user, or of who is no user of this machine.
    pub name: String,
    /// The number of the user; none: no user of this machine.
    pub uid: Option<u32>,
}

impl Author {
    /// The program in the kernel: it takes trials back by itself.
    pub fn kernel() -> Self {
        Self { name: "kernel".to_owned(), uid: None }
    }

    /// Who runs this process: who became root by `sudo`, else the real user.
    pub fn current() -> Self {
        let variable = |name| std::env::var(name).ok();
        Self::of(getuid(), variable("SUDO_USER"), variable("SUDO_UID"))
    }

    /// Only root is believed what it says of who it was.
    fn of(real: Uid, sudo_user: Option<String>, sudo_uid: Option<String>) -> Self {
        let sudo_user = sudo_user.filter(|name| real.is_root() && is_name(name));
        match sudo_user {
            Some(name) => Self { name, uid: Some(sudo_uid.and_then(|uid| uid.parse().ok()).unwrap_or(0)) },
            None => Self::user(real.as_raw()),
        }
    }

    /// A user by number.
    pub fn user(uid: u32) -> Self {
        // Where the user database cannot be read the number has to do.
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let name = user.map_or_else(|| format!("uid {uid}"), |user| user.name);
        Self { name, uid: Some(uid) }
    }
}

/// Whether a text can stand in one column of a table.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.chars().all(|letter| !letter.is_control())
}

impl fmt::Display for Author {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.uid {
            Some(uid) => write!(formatter, "{} (uid {uid})", self.name),
            None => formatter.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_is_believed_who_it_was() {
        let of = |uid, user: &str| Author::of(Uid::from_raw(uid), Some(user.to_owned()), Some("1000".into()));
        assert_eq!(of(0, "ada"), Author { name: "ada".into(), uid: Some(1000) });
        assert_eq!(of(0, "").name, "root");
        assert_eq!(of(0, "a\nb").name, "root");
        assert_eq!(of(4_000_000_000, "ada").to_string(), "uid 4000000000 (uid 4000000000)");
        assert_eq!(Author::of(Uid::from_raw(0), None, None), Author { name: "root".into(), uid: Some(0) });
    }
}
