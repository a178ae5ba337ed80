//! The unix socket: who may connect to it, and that it goes when its daemon does.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{XattrFlags, setxattr};
use tokio::{
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::caller::Groups;
use crate::commands::Failure;

/// The file of a socket; removed when this is dropped, unless it is another's by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("cannot remove the socket {}: {error}", self.path.display());
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Listens at a path, in the place of a socket that nobody listens at any more.
///
/// # Errors
///
/// Somebody listens there, something else is there, or the socket cannot be made.
pub(super) async fn bind(path: &Path, groups: Groups) -> Result<(UnixListener, SocketFile), Failure> {
    check_free(path).await?;
    let cannot = |error: io::Error| {
        Failure::failed(format_args!(
            "cannot serve the API at {}: {error}; choose another path with --api, or `off`",
            path.display()
        ))
    };
    let bound = make(path, groups).map_err(cannot)?;
    tracing::info!(path = %path.display(), "the API is served");
    Ok(bound)
}

/// How long is waited for whoever may listen at a path.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

async fn check_free(path: &Path) -> Result<(), Failure> {
    let place = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(metadata) if metadata.file_type().is_socket() => {}
        _ => {
            return Err(Failure::invalid(format_args!(
                "{place} is not a socket: choose another path with --api, or `off`"
            )));
        }
    }
    match timeout(ANSWER_TIME_MAX, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        _ => Err(Failure::failed(format_args!(
            "another program serves at {place}: stop it, or choose another path with --api, or `off`"
        ))),
    }
}

/// Makes the socket in a directory that nobody else may enter, and moves it to its path when it is as it should be.
fn make(path: &Path, groups: Groups) -> io::Result<(UnixListener, SocketFile)> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    let workshop = parent.join(format!(".api-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&workshop)?;
    let made = make_in(&workshop, path, groups);
    fs::remove_dir_all(&workshop)?;
    made
}

fn make_in(workshop: &Path, path: &Path, groups: Groups) -> io::Result<(UnixListener, SocketFile)> {
    let new = workshop.join("socket");
    let listener = UnixListener::bind(&new)?;
    chown(&new, None, groups.operators)?;
    let mode = if groups.operators.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(&new, Permissions::from_mode(mode))?;
    if let Some(viewers) = groups.viewers {
        // A file has one group; the second is in its access control list.
        let list = access_list(mode, viewers);
        if let Err(error) = setxattr(&new, "system.posix_acl_access", &list, XattrFlags::empty()) {
            tracing::warn!(
                "viewers cannot connect to {}: its file system takes no access control list ({error}); put the socket on \
                 another one with --api, or give them tokens",
                path.display()
            );
        }
    }
    let identity = identity(&new)?;
    fs::rename(&new, path)?;
    Ok((listener, SocketFile { path: path.to_owned(), identity }))
}

/// An access control list that lets one more group read and write, as acl(5) and `linux/posix_acl_xattr.h` have it.
fn access_list(mode: u32, group: u32) -> Vec<u8> {
    const VERSION: u32 = 2;
    const USER_OWNER: u16 = 0x01;
    const GROUP_OWNER: u16 = 0x04;
    const GROUP: u16 = 0x08;
    const MASK: u16 = 0x10;
    const OTHERS: u16 = 0x20;
    const NOBODY: u32 = u32::MAX;
    let read_and_write = 0o6;
    let entries = [
        (USER_OWNER, read_and_write, NOBODY),
        (GROUP_OWNER, (mode >> 3 & 0o7) as u16, NOBODY),
        (GROUP, read_and_write, group),
        (MASK, read_and_write, NOBODY),
        (OTHERS, 0, NOBODY),
    ];
    let mut list = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(u16::to_le_bytes(tag));
        list.extend(u16::to_le_bytes(permissions));
        list.extend(u32::to_le_bytes(id));
    }
    list
}
