//! Debian's kernels: the newest of a series, fetched and unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::command::{command, read, run, say};
use crate::packages;

/// Debian's small kernel for virtual machines.
const FLAVOUR: &str = "cloud-amd64";

/// An unpacked kernel.
pub(crate) struct Kernel {
    /// The name of its package.
    pub name: String,
    /// The file to boot.
    pub image: PathBuf,
    modules: PathBuf,
}

/// The newest kernel of that series: fetched, or as it was fetched before.
pub(crate) fn kernel(series: &str, directory: &Path) -> Result<Kernel> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("kernels are booted on x86_64 machines only, and this is {}", std::env::consts::ARCH);
    }
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    match newest_fetched(series, directory) {
        Ok(kernel) => Ok(kernel),
        Err(error) => {
            // The lists may be absent, or older than the archive, which drops a kernel when it has the next one.
            say("kernels", format!("{error:#}"));
            packages::refresh();
            newest_fetched(series, directory)
        }
    }
}

fn newest_fetched(series: &str, directory: &Path) -> Result<Kernel> {
    let mut search = command("apt-cache");
    search.args(["search", "--names-only", &format!("^linux-image-.*-{FLAVOUR}$")]);
    let listing =
        read("asking apt for kernels", &mut search, "booting kernels needs apt: use a Debian machine")?;
    let Some(name) = newest(&listing, series) else {
        bail!(
            "apt knows no kernel linux-image-{series}.*-{FLAVOUR}\n  next: Debian 12 has them, also in its security archive"
        );
    };
    let unpacked = directory.join(name);
    // The directory gets its name when it is complete.
    if !unpacked.is_dir() {
        fetch(name, directory, &unpacked)?;
    }
    Kernel::at(name, &unpacked)
}

fn fetch(name: &str, directory: &Path, unpacked: &Path) -> Result<()> {
    say(
        "kernels",
        format!("fetching Debian package {name} (about 30 MB); it is unpacked here, not installed"),
    );
    let mut download = command("apt-get");
    // apt's own user cannot write into somebody's directory.
    download.args(["-qq", "-o", "APT::Sandbox::User=root", "download", name]).current_dir(directory);
    run("fetching a kernel", &mut download, "see whether Debian's archive is in reach")?;
    let prefix = format!("{name}_");
    let package = entries(directory)?
        .into_iter()
        .find(|file| file.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix)))
        .with_context(|| format!("apt-get fetched {name}, but it is not in {}", directory.display()))?;
    let partial = directory.join("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("removing {}", partial.display()))?;
    }
    let mut unpack = command("dpkg-deb");
    unpack.arg("-x").arg(&package).arg(&partial);
    run("unpacking a kernel", &mut unpack, "see whether the disk is full")?;
    fs::remove_file(&package).with_context(|| format!("removing {}", package.display()))?;
    fs::rename(&partial, unpacked).with_context(|| format!("naming {}", unpacked.display()))
}

impl Kernel {
    fn at(name: &str, unpacked: &Path) -> Result<Self> {
        let image = entries(&unpacked.join("boot"))?
            .into_iter()
            .find(|file| file.file_name().is_some_and(|file| file.to_string_lossy().starts_with("vmlinuz")));
        let Some(image) = image else {
            bail!("package {name} has no kernel in it\n  next: remove {} and try again", unpacked.display());
        };
        Ok(Self { name: name.to_owned(), image, modules: unpacked.join("lib/modules") })
    }

    /// The file of a module, unless the kernel has it built in or not at all.
    pub(crate) fn module(&self, name: &str) -> Result<Option<PathBuf>> {
        let mut unread = vec![self.modules.clone()];
        while let Some(directory) = unread.pop() {
            for path in entries(&directory)? {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                if file == format!("{name}.ko") || file == format!("{name}.ko.xz") {
                    return Ok(Some(path));
                }
                if path.is_dir() && !path.is_symlink() {
                    unread.push(path);
                }
            }
        }
        Ok(None)
    }
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let reading = || format!("reading {}", directory.display());
    fs::read_dir(directory)
        .with_context(reading)?
        .map(|entry| entry.map(|entry| entry.path()).with_context(reading))
        .collect()
}

/// The package with the highest version of that series in a listing of `apt-cache search`.
fn newest<'a>(listing: &'a str, series: &str) -> Option<&'a str> {
    listing
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter_map(|name| Some((version(name, series)?, name)))
        .max()
        .map(|(_version, name)| name)
}

/// The numbers after the series: `[0, 56]` for 6.1 and `linux-image-6.1.0-56-cloud-amd64`.
fn version(name: &str, series: &str) -> Option<Vec<u32>> {
    let version = name.strip_prefix("linux-image-")?.strip_suffix(FLAVOUR)?.strip_suffix('-')?;
    let rest = version.strip_prefix(series)?.strip_prefix('.')?;
    // `117+deb12` and `0-56` differ in what follows the number that counts.
    let numbers = rest.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
    Some(numbers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
        linux-image-6.1.0-9-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)\n\
        linux-image-6.1.0-56-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)\n\
        linux-image-6.1.0-57-cloud-amd64-unsigned - Linux 6.1 for x86-64 cloud\n\
        linux-image-6.1.0-58-amd64 - Linux 6.1 for 64-bit PCs (signed)\n\
        linux-image-6.12-cloud-amd64 - Linux for x86-64 cloud (meta-package)\n\
        linux-image-6.12.100+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)\n\
        linux-image-6.12.99+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)\n\
        linux-image-cloud-amd64 - Linux for x86-64 cloud (meta-package)\n";

    #[test]
    fn the_newest_is_newest_by_number() {
        assert_eq!(newest(LISTING, "6.1"), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest(LISTING, "6.12"), Some("linux-image-6.12.100+deb12-cloud-amd64"));
    }

    #[test]
    fn a_series_is_not_the_beginning_of_another() {
        assert_eq!(newest(LISTING, "6"), Some("linux-image-6.12.100+deb12-cloud-amd64"));
        assert_eq!(newest(LISTING, "5.10"), None);
        assert_eq!(version("linux-image-6.12.100+deb12-cloud-amd64", "6.1"), None);
    }
}
