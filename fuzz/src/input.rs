//! A policy and its source files in one input.

use std::borrow::Cow;
use std::io;
use std::path::Path;

/// What the bytes of an input stand for: lines `=== NAME` divide the text of a policy and the source files beside it, so
/// that a policy alone is an input.
#[derive(Debug)]
pub struct Input<'a> {
    /// The text of the policy.
    pub policy: Cow<'a, str>,
    /// Names and contents.
    files: Vec<(&'a [u8], &'a [u8])>,
}

const MARK: &[u8] = b"\n=== ";

impl<'a> From<&'a [u8]> for Input<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        let (policy, mut rest) = split(bytes, MARK);
        let mut files = Vec::new();
        while let Some(file) = rest {
            let (file, next) = split(file, MARK);
            let (name, content) = split(file, b"\n");
            files.push((name, content.unwrap_or_default()));
            rest = next;
        }
        Self { policy: String::from_utf8_lossy(policy), files }
    }
}

impl Input<'_> {
    /// A source file, as [`Context`](crate::policy::Context) reads one: all of it, whatever it may have.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.file(path.as_os_str().as_encoded_bytes())
            .map(<[u8]>::to_vec)
            .ok_or(io::ErrorKind::NotFound.into())
    }

    /// The bytes of a source file.
    pub fn file(&self, name: &[u8]) -> Option<&[u8]> {
        self.files.iter().find(|file| file.0 == name).map(|file| file.1)
    }
}

/// What comes before the first `mark`, and what comes after it.
fn split<'a>(bytes: &'a [u8], mark: &[u8]) -> (&'a [u8], Option<&'a [u8]>) {
    match bytes.windows(mark.len()).position(|window| window == mark) {
        Some(at) => (&bytes[..at], Some(&bytes[at + mark.len()..])),
        None => (bytes, None),
    }
}
