//! The tokens that the API takes over TCP: a file with a line for each, `role name sha256-of-token`.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{caller::Role, limits::TOKENS_MAX};
use crate::{commands::Failure, hexadecimal};

/// The tokens of a file, as it was when it was read last.
#[derive(Debug, Clone)]
pub struct Tokens {
    file: PathBuf,
    tokens: Arc<RwLock<Vec<Token>>>,
}

/// A token, of which only the digest is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) role: Role,
    pub(super) name: String,
    digest: [u8; 32],
}

impl Tokens {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// It cannot be read, everybody can read it, or a line is not a token's.
    pub(super) fn read(file: &Path) -> Result<Self, Failure> {
        let tokens = read(file)?;
        Ok(Self { file: file.to_owned(), tokens: Arc::new(RwLock::new(tokens)) })
    }

    /// Reads the file again. One that cannot be used changes nothing.
    pub(super) fn reload(&self) {
        match read(&self.file) {
            Ok(tokens) => {
                tracing::info!(tokens = tokens.len(), file = %self.file.display(), "read the tokens again");
                *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
            }
            Err(failure) => tracing::error!("the old tokens of the API stay: {}", failure.message),
        }
    }

    /// The token that this is. Takes as long for one that is none.
    pub(super) fn find(&self, secret: &str) -> Option<Token> {
        let digest = digest(secret);
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        // All of them, wherever it is found.
        tokens.iter().fold(None, |found, token| {
            if bool::from(token.digest.ct_eq(&digest)) { Some(token.clone()) } else { found }
        })
    }

    /// Whether a token still is one of them, with the same secret and the same role.
    pub(super) fn has(&self, token: &Token) -> bool {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).contains(token)
    }
}

/// The line of a file that admits a token.
pub fn line(role: Role, name: &str, secret: &str) -> String {
    format!("{} {name} {}", role.name(), hexadecimal::digits(&digest(secret)))
}

/// Whether a name can stand in a line: the names of policies.
pub fn is_name(name: &str) -> bool {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "_.:-".contains(character);
    (1..=63).contains(&name.len()) && name.chars().all(is_plain)
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn read(file: &Path) -> Result<Vec<Token>, Failure> {
    let place = file.display();
    let cannot = |error| {
        Failure::invalid(format_args!(
            "cannot read the tokens {place}: {error}; make the file with `detector token NAME`"
        ))
    };
    let mode = fs::metadata(file).map_err(cannot)?.mode();
    if mode & 0o007 != 0 {
        return Err(Failure::invalid(format_args!(
            "{place} is open to everybody (mode {:03o}): `chmod 640 {place}`",
            mode & 0o777
        )));
    }
    parse(&fs::read_to_string(file).map_err(cannot)?)
        .map_err(|wrong| Failure::invalid(format_args!("{place}:{wrong}")))
}

fn parse(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens: Vec<Token> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        let number = number + 1;
        let token = token(content).ok_or_else(|| {
            format!("{number}: not a token: expected `viewer` or `operator`, a name and 64 hexadecimal digits, as `detector token NAME` prints them")
        })?;
        if tokens.iter().any(|other| other.name == token.name) {
            return Err(format!("{number}: the name {} stands twice: give each token its own", token.name));
        }
        if tokens.len() == TOKENS_MAX {
            return Err(format!("{number}: more than {TOKENS_MAX} tokens"));
        }
        tokens.push(token);
    }
    Ok(tokens)
}

fn token(line: &str) -> Option<Token> {
    let mut words = line.split_whitespace();
    let (role, name, digits) = (words.next()?, words.next()?, words.next()?);
    let (role, digest) = (Role::of_name(role)?, hexadecimal::bytes(digits)?);
    if words.next().is_some() || !is_name(name) {
        return None;
    }
    Some(Token { role, name: name.to_owned(), digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_admits_its_token_and_no_other() {
        let text = format!(
            "# who\n{}\n\n{} # dashboards\n",
            line(Role::Operator, "ci", "one"),
            line(Role::Viewer, "grafana", "two")
        );
        let tokens = Arc::new(RwLock::new(parse(&text).unwrap()));
        let tokens = Tokens { file: PathBuf::new(), tokens };
        let found = |secret| tokens.find(secret).map(|token| (token.role, token.name));
        assert_eq!(found("one"), Some((Role::Operator, "ci".to_owned())));
        assert_eq!(found("two"), Some((Role::Viewer, "grafana".to_owned())));
        assert_eq!(found("three"), None);
        assert_eq!(found(""), None);
        let ci = tokens.find("one").unwrap();
        assert!(tokens.has(&ci));
        assert!(!tokens.has(&Token { role: Role::Viewer, ..ci.clone() }), "lowered");
        assert!(!tokens.has(&Token { digest: digest("four"), ..ci }), "rotated");
    }

    #[test]
    fn what_is_no_token_is_named_by_its_line() {
        let good = line(Role::Viewer, "a", "x");
        let twice = format!("{good}\n{good}");
        for wrong in
            ["viewer a", "root a 00", "viewer a+b 00", "viewer a zz", &twice[..twice.len() - 1], &twice]
        {
            let error = parse(&format!("\n{wrong}\n")).unwrap_err();
            assert!(error.starts_with("2:") || error.starts_with("3:"), "{wrong}: {error}");
        }
    }
}
