//! What the text of a policy leaves to its surroundings: the time, and the files that it names.

use std::fmt;
use std::io;
use std::path::Path;

/// What [`parse_in`](super::parse_in) asks its surroundings for.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Seconds since the Unix epoch, for what has ended.
    pub now_unix_s: u64,
    /// The folder of the policy, which names of source files start from.
    pub folder: &'a Path,
    /// Reads a source file; of one with more bytes than the second argument, any number above that.
    pub read: &'a dyn Fn(&Path, usize) -> io::Result<Vec<u8>>,
}

impl Context<'static> {
    /// For a text alone: nothing has ended yet, and no file can be read.
    pub fn alone() -> Self {
        Self { now_unix_s: 0, folder: Path::new(""), read: &no_file }
    }
}

fn no_file(_: &Path, _: usize) -> io::Result<Vec<u8>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this policy is read without its files"))
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = formatter.debug_struct("Context");
        fields.field("now_unix_s", &self.now_unix_s).field("folder", &self.folder).finish_non_exhaustive()
    }
}
