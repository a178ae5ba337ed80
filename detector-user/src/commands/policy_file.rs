//! A policy's text with its source files, read once, and what they say.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::Path,
};

use sha2::{Digest as _, Sha256};

use super::{Failure, read_text};
use crate::{
    clock, hexadecimal,
    history::{Content, SourceFile},
    policy::{
        self, Checked, Context, Diagnostic,
        compile::{Clocks, CompileError, Manifest, Tables, compile},
    },
};

/// A policy's text and what it says.
#[derive(Debug)]
pub struct PolicyFile {
    /// The path as it was given.
    pub name: String,
    /// The text.
    pub text: String,
    /// The source files that it names, by name.
    pub sources: Vec<SourceFile>,
    /// SHA-256 of the text and the source files, hexadecimal: what makes two policies the same.
    pub digest: String,
    /// The policy and its warnings.
    pub checked: Checked,
}

/// Reads and checks a policy.
pub fn read_policy(path: &Path) -> Result<PolicyFile, Failure> {
    PolicyFile::parse(&path.display().to_string(), read_text(path)?, SourceFiles::beside(path))
}

/// Where the source files of a policy are.
#[derive(Debug, Clone, Copy)]
pub enum SourceFiles<'a> {
    /// In the file system; relative paths start from this folder.
    Folder(&'a Path),
    /// These, by the path that the policy names; nothing is read from the file system.
    Sent(&'a BTreeMap<String, String>),
}

impl<'a> SourceFiles<'a> {
    /// Those of the policy of a path.
    pub fn beside(policy: &'a Path) -> Self {
        Self::Folder(folder_of(policy))
    }

    fn folder(self) -> &'a Path {
        match self {
            Self::Folder(folder) => folder,
            Self::Sent(_) => Path::new(""),
        }
    }

    fn read(self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
        let Self::Sent(files) = self else { return read_at_most(path, bytes_max) };
        let file = path.to_str().and_then(|path| files.get(path));
        let missing = || io::Error::new(io::ErrorKind::NotFound, "it was not sent with the policy");
        Ok(file.ok_or_else(missing)?.clone().into_bytes())
    }
}

/// Checks the text of a policy, as of now and with its source files.
pub fn parse_policy(text: &str, source_files: SourceFiles<'_>) -> Result<Checked, Vec<Diagnostic>> {
    parse_with(source_files.folder(), text, &|path, bytes_max| source_files.read(path, bytes_max))
}

type Read<'a> = dyn Fn(&Path, usize) -> io::Result<Vec<u8>> + 'a;

fn parse_with(folder: &Path, text: &str, read: &Read<'_>) -> Result<Checked, Vec<Diagnostic>> {
    policy::parse_in(text, &Context { now_unix_s: clock::unix_s(), folder, read })
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

impl PolicyFile {
    /// Checks the text of a policy, as of now.
    ///
    /// # Errors
    ///
    /// The policy is not valid.
    pub fn parse(name: &str, text: String, source_files: SourceFiles<'_>) -> Result<Self, Failure> {
        let read = |path: &Path, bytes_max: usize| source_files.read(path, bytes_max);
        Self::parse_with(name, source_files.folder(), text, &read)
    }

    /// Keeps the source files that are read.
    fn parse_with(name: &str, folder: &Path, text: String, read: &Read<'_>) -> Result<Self, Failure> {
        let files = RefCell::new(BTreeMap::new());
        let keep = |path: &Path, bytes_max: usize| {
            let bytes = read(path, bytes_max)?;
            files.borrow_mut().insert(name_in(folder, path), bytes.clone());
            Ok(bytes)
        };
        match parse_with(folder, &text, &keep) {
            Ok(checked) => {
                let sources = files.into_inner().into_iter();
                let sources: Vec<_> = sources.map(|(name, bytes)| SourceFile { name, bytes }).collect();
                let digest = digest(&text, &sources);
                Ok(Self { name: name.to_owned(), text, sources, digest, checked })
            }
            Err(diagnostics) => Err(Failure::policy(name, &text, diagnostics)),
        }
    }

    /// Checks the policy of a version, with the source files of then; no file is read.
    ///
    /// # Errors
    ///
    /// The policy is not valid any more.
    pub fn of_version(name: &str, content: Content) -> Result<Self, Failure> {
        let folder = folder_of(Path::new(name));
        let Content { text, sources } = content;
        let read = |path: &Path, _: usize| {
            let name = name_in(folder, path);
            let found = sources.iter().find(|source| source.name == name);
            let bytes = found.map(|source| source.bytes.clone());
            bytes.ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, "it was not recorded with the version")
            })
        };
        Self::parse_with(name, folder, text, &read)
    }

    /// Compiles the policy; what does not fit is told like any other error of the file.
    pub fn compile(&self, previous: &Manifest, clocks: Clocks) -> Result<Tables, Failure> {
        compile(&self.checked.policy, previous, clocks).map_err(|error| self.does_not_fit(&error))
    }

    /// Whether it is valid but likely to hurt nearly everyone.
    pub fn needs_force(&self) -> bool {
        self.checked.warnings.iter().any(|warning| warning.needs_force)
    }

    /// Refuses what is valid but likely to hurt nearly everyone. `how`: what who means it has to do.
    ///
    /// # Errors
    ///
    /// A warning that needs to be forced.
    pub fn check_force(&self, how: &str) -> Result<(), Failure> {
        if !self.needs_force() {
            return Ok(());
        }
        let warnings = self.checked.warnings.iter().filter(|warning| warning.needs_force);
        let mut failure = Failure::policy(&self.name, &self.text, warnings.cloned().collect());
        failure.message += "\nnot applied: this is about nearly everyone; if it is meant, ";
        failure.message += how;
        Err(failure)
    }

    /// The failure of a policy that is larger than the kernel's tables.
    pub fn does_not_fit(&self, error: &CompileError) -> Failure {
        Failure::policy(&self.name, &self.text, vec![error.diagnostic(&self.text)])
    }
}

/// The name of a source file: a policy that is moved with its files stays the same.
fn name_in(folder: &Path, path: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}

/// Lengths stand before names and contents, so that no two policies are written in the same bytes.
fn digest(text: &str, sources: &[SourceFile]) -> String {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(text.as_bytes());
    for SourceFile { name, bytes } in sources {
        add(name.as_bytes());
        add(bytes);
    }
    hexadecimal::digits(&hash.finalize())
}

/// The bytes of a file; of one with more than `bytes_max`, one more than that.
fn read_at_most(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str =
        "version = 1\n[[rule]]\nname = \"r\"\nsource_file = \"list.txt\"\naction = \"drop\"\n";

    fn with_list(name: &str, text: &str, list: &'static [u8]) -> PolicyFile {
        let folder = folder_of(Path::new(name));
        PolicyFile::parse_with(name, folder, text.to_owned(), &|_, _| Ok(list.to_vec())).unwrap()
    }

    #[test]
    fn a_policy_is_the_same_wherever_it_lies_and_another_with_other_source_files() {
        let one = with_list("/etc/policy.toml", POLICY, b"198.51.100.0/24\n");
        assert_eq!(one.sources[0].name, "list.txt");
        assert_eq!(one.digest, with_list("new.toml", POLICY, b"198.51.100.0/24\n").digest);
        assert_ne!(one.digest, with_list("/etc/policy.toml", POLICY, b"198.51.101.0/24\n").digest);
        let text = POLICY.to_owned() + "# more\n";
        assert_ne!(one.digest, with_list("/etc/policy.toml", &text, b"198.51.100.0/24\n").digest);
    }

    #[test]
    fn a_version_is_read_with_the_source_files_of_then() {
        let one = with_list("/nowhere/policy.toml", POLICY, b"198.51.100.0/24\n");
        let content = Content { text: one.text.clone(), sources: one.sources.clone() };
        let again = PolicyFile::of_version("/nowhere/policy.toml", content.clone()).unwrap();
        assert_eq!((&again.checked, &again.digest), (&one.checked, &one.digest));
        let failure =
            PolicyFile::of_version("p.toml", Content { sources: Vec::new(), ..content }).unwrap_err();
        assert!(failure.message.contains("it was not recorded with the version"), "{}", failure.message);
    }
}
