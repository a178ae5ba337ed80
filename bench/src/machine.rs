//! What the figures were measured on.

use std::{fs, process::Command, thread};

use anyhow::{Context as _, Result};

use detector_common::{limits::SOURCES_DEFAULT, way::Way};
use detector_tests::rows::Rig;

use crate::report::{Machine, Memory};

/// This machine, today.
pub(crate) fn machine() -> Result<Machine> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
    let field = |name: &str| {
        let value = cpuinfo.lines().find(|line| line.starts_with(name))?.split_once(':')?.1;
        Some(value.trim().to_owned())
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's release")?;
    let today = Command::new("date").args(["-u", "+%F"]).output().context("asking `date` for the day")?;
    Ok(Machine {
        processor: field("model name").unwrap_or_default(),
        cpus: thread::available_parallelism().context("counting CPUs")?.get(),
        last_level_cache_bytes: last_level_cache_bytes(),
        kernel: version(kernel.trim()).to_owned(),
        date: String::from_utf8_lossy(&today.stdout).trim().to_owned(),
    })
}

/// A kernel's release up to the number of its distribution: what follows is whose build it is.
fn version(release: &str) -> &str {
    let is_name = |part: &str| part.starts_with(|first: char| !first.is_ascii_digit());
    let names = release.match_indices('-').find(|(at, _)| is_name(&release[at + 1..]));
    names.map_or(release, |(at, _)| &release[..at])
}

/// Memory of the product's maps at the default size.
pub(crate) fn memory() -> Memory {
    let bytes = Rig::new(SOURCES_DEFAULT).map_bytes();
    Memory { bytes: bytes.fixed, bytes_each_cpu: bytes.each_cpu, way_bytes: size_of::<Way>() as u64 }
}

/// Size of the last cache of CPU 0, as sysfs has it: kibibytes with a K.
fn last_level_cache_bytes() -> u64 {
    let size = |index: u32| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        let text = fs::read_to_string(path).ok()?;
        text.trim().strip_suffix('K')?.parse::<u64>().ok()
    };
    (0..8).filter_map(size).max().unwrap_or_default() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_named_without_whose_build_it_is() {
        let of = ["6.18.44", "6.18.44-local-7", "6.8.0-45-generic", "6.1.0-28-cloud-amd64"].map(version);
        assert_eq!(of, ["6.18.44", "6.18.44", "6.8.0-45", "6.1.0-28"]);
    }
}
