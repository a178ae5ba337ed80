//! A memory as a file: what it is, its format, then the memory in `postcard` and zstd, and the SHA-256 of all that.

use std::{
    fs,
    io::{self, BufWriter, Read as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use sha2::{Digest as _, Sha256};

use super::{limits::MEMORY_BYTES_MAX, memory::Memory, store::StoreError};

/// How such a file begins.
const MAGIC: &[u8; 16] = b"detector fleets\n";

/// The format of what follows. To be raised with each change of what is remembered: an older file is not read.
pub const FORMAT: u32 = 9;

const HEAD_BYTES: usize = MAGIC.len() + size_of::<u32>();

/// The SHA-256 of a file's contents, which ends it.
pub type Digest = [u8; 32];

/// A level at which a gigabyte takes seconds.
pub(super) const ZSTD_LEVEL: i32 = 1;

/// Writes what goes by to a file and adds it to a digest.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes a memory beside a file and then puts it in its place: whoever reads it finds the old one or the new one. Gives its digest.
///
/// # Errors
///
/// It cannot be written.
pub fn write(path: &Path, memory: &Memory) -> Result<Digest, StoreError> {
    let new = path.with_extension("new");
    let failed = |source| StoreError::Io { what: "write", path: new.clone(), source };
    let file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new);
    let mut output = Hashing { inner: BufWriter::new(file.map_err(failed)?), hash: Sha256::new() };
    let written = (|| {
        output.write_all(MAGIC)?;
        output.write_all(&FORMAT.to_le_bytes())?;
        // Numbers come one by one: not each of them goes through the compression by itself.
        let mut packed = BufWriter::with_capacity(1 << 16, zstd::Encoder::new(&mut output, ZSTD_LEVEL)?);
        postcard::to_io(memory, &mut packed).map_err(io::Error::other)?;
        packed.into_inner().map_err(io::IntoInnerError::into_error)?.finish()?;
        let Hashing { mut inner, hash } = output;
        let digest: Digest = hash.finalize().into();
        inner.write_all(&digest)?;
        inner.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()?;
        Ok(digest)
    })();
    let digest = written.map_err(failed)?;
    fs::rename(&new, path).map_err(|source| StoreError::Io {
        what: "replace",
        path: path.to_owned(),
        source,
    })?;
    Ok(digest)
}

/// Reads a memory, and its digest. `None`: there is none.
///
/// # Errors
///
/// The file cannot be read, is none of ours, is damaged, or of another format.
pub fn read(path: &Path) -> Result<Option<(Memory, Digest)>, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::Io { what: "read", path: path.to_owned(), source }),
    };
    let refused = |found: &str| StoreError::Damaged { path: path.to_owned(), found: found.to_owned() };
    if !bytes.starts_with(MAGIC) {
        return Err(refused("it does not begin as one"));
    }
    let ends = bytes.split_last_chunk().filter(|(contents, _)| contents.len() >= HEAD_BYTES);
    let (contents, digest): (_, &Digest) = ends.ok_or_else(|| refused("it ends too early"))?;
    if Digest::from(Sha256::digest(contents)) != *digest {
        return Err(refused("its checksum is wrong"));
    }
    let (head, packed) = contents.split_at(HEAD_BYTES);
    let format = head.last_chunk().map_or(0, |format| u32::from_le_bytes(*format));
    if format != FORMAT {
        return Err(StoreError::OtherFormat { path: path.to_owned(), found: format });
    }
    let plain = unpacked(packed, MEMORY_BYTES_MAX).map_err(|error| refused(&error.to_string()))?;
    let memory = postcard::from_bytes(&plain).map_err(|error| refused(&error.to_string()))?;
    Ok(Some((memory, *digest)))
}

/// What was packed, of so many bytes at most.
pub(super) fn unpacked(packed: &[u8], most: u64) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    zstd::Decoder::new(packed)?.take(most + 1).read_to_end(&mut plain)?;
    if plain.len() as u64 > most {
        return Err(io::Error::other(format!("it is larger than {most} bytes")));
    }
    Ok(plain)
}
