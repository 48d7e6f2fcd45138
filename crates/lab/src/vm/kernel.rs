//! A Debian kernel in a folder of ours: fetched once, never installed.
//!
//! Decided here: which package, where it is kept, how the uncompressed image comes out of it. A kernel is complete or
//! absent: it is prepared in a temporary folder and renamed into place.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::process::{self, command};

/// Step that failed while a kernel was prepared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The package list does not know a kernel.
    #[error("apt knows no kernel package behind {0}; is the package list of this machine readable?")]
    NoPackage(String),
    /// apt, dpkg or depmod failed.
    #[error("cannot prepare the kernel: {0}")]
    Tool(#[from] process::Error),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The package does not hold what a kernel package holds.
    #[error("{path}: {reason}")]
    Content {
        /// The offending file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A kernel ready to boot.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// `uname -r` of the guest.
    pub version: String,
    /// Uncompressed ELF image.
    pub image: PathBuf,
    /// Folder that holds `lib/modules/VERSION`, with `modules.dep`.
    pub modules_root: PathBuf,
}

impl Kernel {
    /// Finds the kernel of `package` under `cache`, or fetches it. `package` is a kernel package or a metapackage that
    /// depends on one; `progress` is told about slow steps only.
    pub fn prepare(cache: &Path, package: &str, progress: impl Fn(&str)) -> Result<Self, Error> {
        let home = cache.join("kernel");
        // A kernel already there is used without asking apt: the package list may have moved on or be unreachable.
        if let Some(kernel) = Self::cached(&home.join(package))? {
            return Ok(kernel);
        }
        progress("fetching a kernel package (once)");
        let package_file = download(&home, package)?;
        progress("unpacking the kernel");
        let unpacked = temporary(&home)?;
        process::run(command("dpkg").arg("-x").arg(&package_file).arg(unpacked.path()))?;
        let version = only_entry(&unpacked.path().join("boot"), "vmlinuz-")?;
        let modules = unpacked.path().join("lib/modules").join(&version);
        if !modules.is_dir() {
            return Err(Error::Content { path: modules, reason: "no modules in the kernel package" });
        }
        process::run(command("depmod").arg("-b").arg(unpacked.path()).arg(&version))?;
        extract_image(
            &unpacked.path().join(format!("boot/vmlinuz-{version}")),
            &unpacked.path().join("vmlinux"),
        )?;
        let home = home.join(package);
        let kept = unpacked.keep();
        fs::rename(&kept, &home).or_else(|source| match home.is_dir() {
            // Another run was faster; its kernel is as good.
            true => fs::remove_dir_all(&kept).map_err(file(&kept)),
            false => Err(Error::File { path: home.clone(), source }),
        })?;
        let _ = fs::remove_file(&package_file);
        Self::cached(&home)?.ok_or(Error::Content { path: home, reason: "incomplete after unpacking" })
    }

    fn cached(home: &Path) -> Result<Option<Self>, Error> {
        let image = home.join("vmlinux");
        if !image.is_file() {
            return Ok(None);
        }
        let version = only_entry(&home.join("boot"), "vmlinuz-")?;
        Ok(Some(Self { version, image, modules_root: home.to_owned() }))
    }
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| Error::File { path: path.to_owned(), source }
}

fn temporary(home: &Path) -> Result<tempfile::TempDir, Error> {
    fs::create_dir_all(home).map_err(file(home))?;
    tempfile::Builder::new().prefix("new-").tempdir_in(home).map_err(file(home))
}

/// Downloads the versioned package; asks for a fresh package list once if the known one does not lead there.
fn download(home: &Path, package: &str) -> Result<PathBuf, Error> {
    let folder = temporary(home)?;
    let fetch = || -> Result<(), Error> {
        let name = versioned(package)?;
        process::run(command("apt-get").args(["-qq", "download", &name]).current_dir(folder.path()))?;
        Ok(())
    };
    if fetch().is_err() {
        process::run(command("apt-get").args(["-qq", "update"]))?;
        fetch()?;
    }
    let name = only_entry(folder.path(), "")?;
    let target = home.join(&name);
    fs::rename(folder.path().join(&name), &target).map_err(file(&target))?;
    Ok(target)
}

/// `linux-image-amd64` → `linux-image-6.1.0-…-amd64`; a package with no such dependency stands for itself.
fn versioned(package: &str) -> Result<String, Error> {
    let text = process::run(command("apt-cache").args(["depends", package]))?;
    let mut depends = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    match depends.find(|name| name.starts_with("linux-image-")) {
        Some(name) => Ok(name.to_owned()),
        None if text.trim().is_empty() => Err(Error::NoPackage(package.to_owned())),
        None => Ok(package.to_owned()),
    }
}

/// The rest of the name of the only entry of `folder` that starts with `prefix`.
fn only_entry(folder: &Path, prefix: &str) -> Result<String, Error> {
    let entries = fs::read_dir(folder).map_err(file(folder))?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter_map(|name| name.strip_prefix(prefix).map(str::to_owned))
        .next()
        .ok_or(Error::Content { path: folder.to_owned(), reason: "empty, a kernel package was expected" })
}

/// Cuts the compressed ELF out of a bzImage by its setup header (Linux boot protocol 2.08: `setup_sects` at 0x1f1,
/// `payload_offset` at 0x248, `payload_length` at 0x24c) and decompresses it. The uncompressed image boots in half the
/// time where the decompressor is emulated.
fn extract_image(bzimage: &Path, target: &Path) -> Result<(), Error> {
    let bytes = fs::read(bzimage).map_err(file(bzimage))?;
    let broken = |reason| Error::Content { path: bzimage.to_owned(), reason };
    let payload = payload(&bytes).ok_or_else(|| broken("not a bzImage with a payload"))?;
    let tool = match payload {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "xz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        _ => return Err(broken("payload is neither xz nor zstd")),
    };
    let out = fs::File::create(target).map_err(file(target))?;
    let mut child = process::spawn(command(tool).arg("-dcq").stdin(Stdio::piped()).stdout(out))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(payload).map_err(file(target))?;
    }
    let status = child.wait().map_err(file(target))?;
    let head = fs::read(target).map_err(file(target))?;
    match status.success() && head.starts_with(b"\x7fELF") {
        true => Ok(()),
        false => Err(broken("payload does not decompress to an ELF image")),
    }
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    let sectors = match *image.get(0x1f1)? {
        0 => 4,
        n => usize::from(n),
    };
    let start = (sectors + 1) * 512 + word(0x248)?;
    // The build appends the uncompressed size in four bytes, which are no part of the stream.
    image.get(start..start + word(0x24c)?.checked_sub(4)?)
}

#[cfg(test)]
mod tests {
    use super::payload;

    #[test]
    fn payload_is_cut_by_the_setup_header() {
        let mut image = vec![0u8; 2048];
        image[0x1f1] = 1;
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&12u32.to_le_bytes());
        image[1040..1048].copy_from_slice(b"compress");
        assert_eq!(payload(&image), Some(&b"compress"[..]));
        assert_eq!(payload(&image[..1000]), None);
    }
}
