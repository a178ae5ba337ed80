//! Who asks, and what they may do.

use std::{fmt, io, net::SocketAddr, os::fd::AsRawFd as _, sync::Arc};

use tokio::net::UnixStream;

use super::tokens::Token;
use crate::{
    commands::Failure,
    guard::{Guard, Host},
    history::Author,
};

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// Read, and check policies.
    Viewer,
    /// Everything.
    Operator,
}

impl Role {
    /// As the command line and the file of tokens write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        [Self::Viewer, Self::Operator].into_iter().find(|role| role.name() == name)
    }
}

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Peer {
    /// A process of this machine, with the identity it had when it connected.
    Local(Arc<Credentials>),
    /// Over TCP: a token says who.
    Remote {
        /// From where.
        address: SocketAddr,
        /// This end.
        local: SocketAddr,
    },
}

/// Who a process was when it connected.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) pid: Option<i32>,
    pub(super) uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl Credentials {
    /// Those of the other end, as the kernel noted them when it connected (`SO_PEERCRED` and `SO_PEERGROUPS` of
    /// unix(7)). Neither the user database, which says what a new login would get, nor /proc, where the number may be
    /// another process's by now, says that.
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        Ok(Self { pid: peer.pid(), uid: peer.uid(), gid: peer.gid(), groups: groups(stream)? })
    }

    fn is_member(&self, group: Option<u32>) -> bool {
        group.is_some_and(|group| self.gid == group || self.groups.contains(&group))
    }
}

/// Groups that a process may be in: `NGROUPS_MAX` of linux/limits.h.
const GROUPS_MAX: usize = 65_536;

fn groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let mut bytes = size_of_val(&*groups) as libc::socklen_t;
        // SAFETY: a descriptor that is open for the time of the call, and room for as many bytes as are named.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let needed = bytes as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || needed <= groups.len() || needed > GROUPS_MAX {
            return Err(error);
        }
        groups.resize(needed, 0);
    }
}

/// The groups that have a role over the socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Groups {
    pub(super) operators: Option<u32>,
    pub(super) viewers: Option<u32>,
}

/// The names that groups have unless others are asked for.
const OPERATORS: &str = "detector";
const VIEWERS: &str = "detector-viewer";

impl Groups {
    /// Looks them up. One that is asked for has to exist.
    ///
    /// # Errors
    ///
    /// It does not.
    pub(super) fn look_up(operators: Option<&str>, viewers: Option<&str>) -> Result<Self, Failure> {
        Ok(Self {
            operators: group(operators, OPERATORS, "--api-group")?,
            viewers: group(viewers, VIEWERS, "--api-viewer-group")?,
        })
    }

    /// What a process may do; `None`: nothing.
    pub(super) fn role(self, credentials: &Credentials) -> Option<Role> {
        if credentials.uid == 0 || credentials.is_member(self.operators) {
            return Some(Role::Operator);
        }
        credentials.is_member(self.viewers).then_some(Role::Viewer)
    }
}

fn group(asked: Option<&str>, default: &str, option: &str) -> Result<Option<u32>, Failure> {
    let name = asked.unwrap_or(default);
    let group = nix::unistd::Group::from_name(name)
        .map_err(|error| Failure::failed(format_args!("cannot look up the group {name}: {error}")))?;
    match (group, asked) {
        (Some(group), _) => Ok(Some(group.gid.as_raw())),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Failure::invalid(format_args!(
            "there is no group {name}: make it with `groupadd --system {name}`, or name another with {option}"
        ))),
    }
}

/// Who asks, once it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) who: Who,
    pub(super) role: Role,
    pub(super) peer: Peer,
    /// What says so, over TCP.
    pub(super) token: Option<Token>,
}

impl Caller {
    /// As whose changes are recorded. Asks the user database for the name: not to be called where others wait.
    pub(super) fn author(&self) -> Author {
        match &self.who {
            Who::User(uid) => Author::user(*uid),
            Who::Token(name) => Author { name: format!("token {name}"), uid: None },
        }
    }

    /// The guard of the daemon, for the peers of who asks. Which SSH session that is cannot be told where something else
    /// connects in its place, or from elsewhere: so all of them are guarded.
    pub(super) fn guard(&self, guard: &Guard) -> Guard {
        let everybody = Host::of_everybody();
        guard.with_host(match &self.peer {
            Peer::Local(credentials) => {
                everybody.and_of_process(credentials.pid.and_then(|pid| u32::try_from(pid).ok()))
            }
            Peer::Remote { address, local } => everybody.and_client(*address, *local),
        })
    }
}

/// The identity that changes are counted and logged under.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// A user of this machine.
    User(u32),
    /// The holder of a token.
    Token(String),
}

impl fmt::Display for Who {
    /// Asks the user database for the name: not to be done where others wait.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(name) => write!(formatter, "token {name}"),
            Self::User(uid) => match nix::unistd::User::from_uid((*uid).into()) {
                Ok(Some(user)) => write!(formatter, "{} (uid {uid})", user.name),
                _ => write!(formatter, "uid {uid}"),
            },
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote { address, .. } => write!(formatter, "{address}"),
            Self::Local(credentials) => match credentials.pid {
                Some(pid) => write!(formatter, "process {pid}"),
                None => write!(formatter, "a process"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_go_by_user_and_by_any_group() {
        let groups = Groups { operators: Some(10), viewers: Some(20) };
        let role = |uid, gid, others: &[u32]| {
            groups.role(&Credentials { pid: None, uid, gid, groups: others.to_vec() })
        };
        assert_eq!(role(0, 0, &[]), Some(Role::Operator));
        assert_eq!(role(5, 10, &[]), Some(Role::Operator));
        assert_eq!(role(5, 5, &[7, 10, 20]), Some(Role::Operator));
        assert_eq!(role(5, 20, &[7]), Some(Role::Viewer));
        assert_eq!(role(5, 5, &[20]), Some(Role::Viewer));
        assert_eq!(role(5, 5, &[7]), None);
        let nobody = Credentials { pid: None, uid: 5, gid: 0, groups: vec![0] };
        assert_eq!(Groups::default().role(&nobody), None, "the group of root is no role");
    }

    #[tokio::test]
    async fn the_kernel_tells_the_groups_of_the_other_end() {
        let (one, _other) = UnixStream::pair().unwrap();
        let credentials = Credentials::of(&one).unwrap();
        let own: Vec<u32> = own_groups();
        assert_eq!(credentials.groups, own);
        assert_eq!(credentials.pid, Some(std::process::id() as i32));
    }

    fn own_groups() -> Vec<u32> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
        line.split_whitespace().map(|group| group.parse().unwrap()).collect()
    }
}
