//! Whether this machine can run the program, asked before anything is touched.

use std::{fs, io};

use thiserror::Error;

/// The oldest kernel that is tested: 6.1.
pub const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// Why the program cannot run here.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ProbeError {
    /// The kernel is too old.
    #[error(
        "this kernel is {release}, at least {}.{} is needed: boot a newer one (Debian 12 has 6.1)",
        OLDEST_KERNEL.0,
        OLDEST_KERNEL.1
    )]
    OldKernel {
        /// As `uname -r` says.
        release: String,
    },
    /// Capabilities are missing.
    #[error(
        "missing {missing}: run as root, or with `setpriv`/systemd granting CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, or ask the daemon's API as a member of the group `detector`"
    )]
    Privileges {
        /// The names of the missing ones.
        missing: String,
    },
}

const SYS_ADMIN: u32 = 21;
const NEEDED: &[(u32, &str)] = &[(39, "CAP_BPF"), (12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON")];

/// Asks the kernel for its version and this process for its capabilities.
pub fn probe() -> Result<(), ProbeError> {
    check_release(&release().unwrap_or_else(|error| error.to_string()))?;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    check_capabilities(&status)
}

fn release() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned())
}

fn check_release(release: &str) -> Result<(), ProbeError> {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST_KERNEL {
        return Err(ProbeError::OldKernel { release: release.to_owned() });
    }
    Ok(())
}

fn check_capabilities(status: &str) -> Result<(), ProbeError> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let has = |bit: u32| effective & 1 << bit != 0;
    let missing: Vec<_> =
        NEEDED.iter().filter(|(bit, _)| !has(*bit) && !has(SYS_ADMIN)).map(|(_, name)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(ProbeError::Privileges { missing: missing.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        for good in ["6.1.0-56-cloud-amd64", "6.12.117+deb12-amd64", "6.18.44", "7.0-rc1", "10.0.1"] {
            assert_eq!(check_release(good), Ok(()), "{good}");
        }
        for old in ["5.15.0-generic", "6.0.19", "4.19", "", "unknown"] {
            assert_eq!(check_release(old), Err(ProbeError::OldKernel { release: old.into() }), "{old}");
        }
    }

    #[test]
    fn missing_capabilities_are_named() {
        let status = |bits: u64| format!("Name:\tx\nCapEff:\t{bits:016x}\nCapBnd:\t0\n");
        assert_eq!(check_capabilities(&status(1 << 39 | 1 << 12 | 1 << 38)), Ok(()));
        assert_eq!(check_capabilities(&status(1 << 12 | 1 << 21)), Ok(()));
        let missing = "CAP_BPF, CAP_PERFMON".to_owned();
        assert_eq!(check_capabilities(&status(1 << 12)), Err(ProbeError::Privileges { missing }));
    }
}
