//! The file system of the booted kernel: a shell, the tests, and the libraries they need.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::command::{cannot_start, command, read};

/// Where `/init` looks for modules, programs and tests. It runs each in the order of names.
const MODULES: &str = "modules";
const PROGRAMS: &str = "usr/bin";
const TESTS: &str = "tests";

/// A directory that becomes an initramfs.
pub(crate) struct Initramfs {
    root: PathBuf,
}

impl Initramfs {
    /// An empty one with its shell and `/init`; what was at `root` is removed.
    pub(crate) fn new(root: PathBuf, init: &str) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
        }
        for directory in ["bin", "dev", "proc", "sys", "tmp", "run", "var", "etc", PROGRAMS, MODULES, TESTS] {
            let directory = root.join(directory);
            fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        }
        let initramfs = Self { root };
        initramfs.copy(Path::new("/bin/busybox"), "bin/busybox")?;
        initramfs.write("init", init.as_bytes())?;
        Ok(initramfs)
    }

    /// Adds a kernel module, to be inserted after those added before.
    pub(crate) fn add_module(&self, order: usize, module: &Path) -> Result<()> {
        let name = module.file_stem().unwrap_or_default().to_string_lossy();
        let plain = if module.extension().is_some_and(|extension| extension == "xz") {
            let mut xz = command("xz");
            xz.args(["--decompress", "--stdout"]).arg(module);
            let unpacked =
                xz.output().with_context(|| cannot_start("unpacking a module", &xz, "install xz-utils"))?;
            if !unpacked.status.success() {
                bail!("unpacking {}: {}", module.display(), unpacked.status);
            }
            unpacked.stdout
        } else {
            fs::read(module).with_context(|| format!("reading {}", module.display()))?
        };
        self.write(&format!("{MODULES}/{order:02}-{}", name.trim_end_matches(".ko")), &plain)
    }

    /// Adds a test program with its libraries.
    pub(crate) fn add_test(&self, name: &str, executable: &Path) -> Result<()> {
        self.add_executable(&format!("{TESTS}/{name}"), executable)
    }

    /// Adds a program for tests to start, with its libraries. Returns its path in the booted system.
    pub(crate) fn add_program(&self, name: &str, executable: &Path) -> Result<String> {
        let inside = format!("{PROGRAMS}/{name}");
        self.add_executable(&inside, executable)?;
        Ok(format!("/{inside}"))
    }

    /// Packs the directory into an image that the kernel unpacks.
    pub(crate) fn pack(&self, image: &Path) -> Result<()> {
        let what = "packing the initramfs";
        let file = fs::File::create(image).with_context(|| format!("making {}", image.display()))?;
        let mut cpio = command("cpio");
        cpio.args(["--create", "--format=newc", "--owner=+0:+0", "--quiet"]).current_dir(&self.root);
        let mut child = cpio
            .stdin(Stdio::piped())
            .stdout(file)
            .spawn()
            .with_context(|| cannot_start(what, &cpio, "run `cargo xtask setup`"))?;
        let mut names = child.stdin.take().context("cpio's input was piped a moment ago")?;
        for name in self.names()? {
            writeln!(names, "{name}").with_context(|| format!("{what}: naming {name}"))?;
        }
        drop(names);
        let status = child.wait().with_context(|| what.to_owned())?;
        if !status.success() {
            bail!("{what}: {status}\n  command: {cpio:?}");
        }
        Ok(())
    }

    fn add_executable(&self, inside: &str, executable: &Path) -> Result<()> {
        self.copy(executable, inside)?;
        // Debug information is most of a test program, and the guest has little memory. What it is without is only
        // line numbers in a backtrace, so a machine without `strip` will do.
        let _unstripped = command("strip").arg("--strip-debug").arg(self.root.join(inside)).output();
        let mut ldd = command("ldd");
        ldd.arg(executable);
        let what = format!("asking which libraries {} needs", executable.display());
        for library in libraries(&read(&what, &mut ldd, "see whether it is a program of this machine")?) {
            if !self.root.join(library).exists() {
                self.copy(&Path::new("/").join(library), library)?;
            }
        }
        Ok(())
    }

    fn copy(&self, from: &Path, inside: &str) -> Result<()> {
        let to = self.root.join(inside);
        let directory = to.parent().unwrap_or(&self.root);
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        fs::copy(from, &to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
        Ok(())
    }

    fn write(&self, inside: &str, content: &[u8]) -> Result<()> {
        let file = self.root.join(inside);
        fs::write(&file, content)
            .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("writing {}", file.display()))
    }

    /// Every file and directory in it, directories before what they hold, in an order that is always the same.
    fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let mut unread = vec![self.root.clone()];
        while let Some(directory) = unread.pop() {
            for entry in
                fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?
            {
                let path = entry.with_context(|| format!("reading {}", directory.display()))?.path();
                let name = path.strip_prefix(&self.root).unwrap_or(&path).to_string_lossy().into_owned();
                names.push(name);
                if path.is_dir() {
                    unread.push(path);
                }
            }
        }
        names.sort();
        Ok(names)
    }
}

/// The files in the answer of `ldd`, relative to `/`.
fn libraries(answer: &str) -> Vec<&str> {
    answer
        .lines()
        .filter_map(|line| {
            let file = line.split_once("=> ").map_or(line, |(_name, file)| file).trim();
            let (path, _address) = file.split_once(" (")?;
            path.strip_prefix('/')
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_with_a_file() {
        let answer = "\tlinux-vdso.so.1 (0x00007ffc)\n\
            \tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f1c)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f2f)\n";
        assert_eq!(libraries(answer), ["lib/x86_64-linux-gnu/libgcc_s.so.1", "lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(libraries("\tstatically linked\n"), Vec::<&str>::new());
    }
}
