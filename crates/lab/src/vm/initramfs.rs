//! The first file system of the guest: busybox, the few modules that reach the host's files, and a script of ten lines.
//!
//! It is built for each boot (some megabytes, milliseconds) because it is a function of the kernel and nothing else
//! worth caching.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::kernel::Kernel;
use crate::process::{self, command};

/// What could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is missing or unreadable.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel lacks a module without which the guest cannot reach its files.
    #[error("the kernel {version} has no module {module}, and cannot reach the host's files without it")]
    NoModule {
        /// `uname -r`.
        version: String,
        /// Which module.
        module: String,
    },
    /// A compressed module could not be unpacked.
    #[error(transparent)]
    Tool(#[from] process::Error),
}

/// Modules that lead to the root file system and to the output ports; what they stand on follows from `modules.dep`.
const NEEDED: &[&str] = &["virtio_pci", "9pnet_virtio", "9p", "virtio_console"];

/// Mounts the host's root read-write: the guest then covers with tmpfs what it must not touch (see `guest`).
/// A probe that is not answered keeps a socket for seconds, so many may be open. `$lab` and `$job` come from the kernel command line.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
for m in $($b cat /modules); do $b insmod $m || echo "lab: cannot insert $m"; done
for w in $($b cat /proc/cmdline); do case $w in lab.bin=*) lab=${w#lab.bin=};; lab.job=*) job=${w#lab.job=};; esac; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose host /host || echo "lab: cannot mount the host"
$b umount /proc
$b mount --move /dev /host/dev
ulimit -n 65536
exec $b switch_root -c /dev/console /host "$lab" vm guest "$job"
"#;

/// The archive for `-initrd`.
pub(super) fn build(kernel: &Kernel) -> Result<Vec<u8>, Error> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "host", "m"] {
        archive.add(folder, 0o40755, &[]);
    }
    archive.add("bin/busybox", 0o100755, &read(Path::new("/bin/busybox"))?);
    archive.add("init", 0o100755, INIT.as_bytes());
    let mut order = String::new();
    for module in insertion_order(kernel)? {
        let bytes = unpacked(&module)?;
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("m/{}", name.split(".ko").next().unwrap_or(&name));
        order.push_str(&format!("/{name}\n"));
        archive.add(&name, 0o100644, &bytes);
    }
    archive.add("modules", 0o100644, order.as_bytes());
    Ok(archive.finish())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// Newer Debian kernels ship compressed modules; busybox inserts plain ones.
fn unpacked(path: &Path) -> Result<Vec<u8>, Error> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return read(path),
    };
    let scratch = tempfile::NamedTempFile::new()
        .map_err(|source| Error::File { path: std::env::temp_dir(), source })?;
    let out = scratch.reopen().map_err(|source| Error::File { path: scratch.path().to_owned(), source })?;
    let mut child = process::spawn(command(tool).arg("-dcq").arg(path).stdout(out))?;
    child.wait().map_err(|source| Error::File { path: path.to_owned(), source })?;
    read(scratch.path())
}

/// Files of the needed modules, each after those it depends on.
fn insertion_order(kernel: &Kernel) -> Result<Vec<PathBuf>, Error> {
    let root = kernel.modules_root.join("lib/modules").join(&kernel.version);
    let text = String::from_utf8_lossy(&read(&root.join("modules.dep"))?).into_owned();
    let builtin = String::from_utf8_lossy(&read(&root.join("modules.builtin"))?).into_owned();
    let builtin: BTreeSet<String> = builtin.lines().map(module_name).collect();
    let mut order = Vec::new();
    for module in NEEDED {
        if builtin.contains(*module) {
            continue;
        }
        let Some(files) = with_dependencies(&text, module) else {
            return Err(Error::NoModule { version: kernel.version.clone(), module: (*module).to_owned() });
        };
        for file in files {
            let file = root.join(file);
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    Ok(order)
}

/// `modules.dep` lists for each module all it stands on, the ones to insert first last.
fn with_dependencies<'a>(modules_dep: &'a str, module: &str) -> Option<Vec<&'a str>> {
    let (file, needs) = modules_dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(file, _)| module_name(file) == module)?;
    Some(needs.split_whitespace().rev().chain(std::iter::once(file)).collect())
}

fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

/// A cpio archive in the `newc` format (Documentation/driver-api/early-userspace/buffer-format.rst in the kernel).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inodes: BTreeMap<String, u32>,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        let inode = u32::try_from(self.inodes.len()).unwrap_or(0) + 1;
        self.inodes.insert(name.to_owned(), inode);
        let fields = [inode, mode, 0, 0, 1, 0, size(content.len()), 0, 0, 0, 0, size(name.len() + 1), 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

/// Sizes in the archive have 32 bits; a file of 4 GiB in an initramfs would not boot anyway.
fn size(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first() {
        let dep = "a/9p.ko: a/netfs.ko b/9pnet.ko\nb/9pnet.ko:\nkernel/x/virtio-pci.ko.xz: v/virtio.ko.xz\n";
        assert_eq!(with_dependencies(dep, "9p"), Some(vec!["b/9pnet.ko", "a/netfs.ko", "a/9p.ko"]));
        assert_eq!(
            with_dependencies(dep, "virtio_pci"),
            Some(vec!["v/virtio.ko.xz", "kernel/x/virtio-pci.ko.xz"])
        );
        assert_eq!(with_dependencies(dep, "ext4"), None);
    }

    #[test]
    fn archive_is_what_cpio_reads() {
        let mut archive = Archive::default();
        archive.add("folder", 0o40755, &[]);
        archive.add("folder/file", 0o100644, b"hello");
        let dir = tempfile::tempdir().expect("temporary folder");
        std::fs::write(dir.path().join("a.cpio"), archive.finish()).expect("written");
        let listing =
            process::run(command("cpio").args(["-t", "--quiet", "-F", "a.cpio"]).current_dir(dir.path()));
        assert_eq!(listing.expect("cpio reads it"), "folder\nfolder/file\n");
    }
}
