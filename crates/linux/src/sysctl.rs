//! Sysctls: files below `/proc/sys`.
//!
//! Decided here: where a key is found when `/proc/sys` is read-only (in most containers it is, and the host's is mounted
//! elsewhere), and how absence reads. Which value a key should have is a plan's business.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::lane::{Change, Lane, ReadError, Refusal};
use crate::row::{Key, Name, Row};

/// A sysctl could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key is no plain path below the root.
    #[error("{key} is not a sysctl key")]
    BadKey {
        /// Key.
        key: String,
    },
    /// No root has it.
    #[error("no such sysctl{}", module(key).map(|name| format!("; module {name} brings it: modprobe {name}")).unwrap_or_default())]
    Absent {
        /// Key.
        key: String,
    },
    /// The file system is mounted read-only.
    #[error(
        "/proc/sys is read-only here; run privileged, or mount the host's /proc/sys/net writable at /host/proc/sys/net"
    )]
    ReadOnly {
        /// Cause.
        source: io::Error,
    },
    /// Not allowed.
    #[error(
        "not allowed; writing sysctls of a network namespace needs CAP_NET_ADMIN in the user namespace that owns it, others need root"
    )]
    Denied {
        /// Cause.
        source: io::Error,
    },
    /// The kernel does not take the value.
    #[error("the kernel does not take {value:?}: {source}")]
    BadValue {
        /// Value.
        value: String,
        /// Cause.
        source: io::Error,
    },
    /// Anything else.
    #[error("{path}: {source}")]
    File {
        /// File.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// Where sysctls are found. Blocking, but only the kernel is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctls {
    roots: Vec<PathBuf>,
}

impl Default for Sysctls {
    /// `/proc/sys`, then `/host/proc/sys`.
    fn default() -> Sysctls {
        Sysctls::new(vec![PathBuf::from("/proc/sys"), PathBuf::from("/host/proc/sys")])
    }
}

impl Sysctls {
    /// Directories that stand for `/proc/sys`, in order of preference. A key is written in the first in which it is
    /// writable, and read in the first that has it. The last may hold a part only, such as `net`.
    pub fn new(roots: Vec<PathBuf>) -> Sysctls {
        Sysctls { roots }
    }

    /// Value of a key such as `net/ipv4/ip_forward`, without surrounding white space; `None` if this kernel has none.
    ///
    /// # Errors
    /// [`Error::Denied`] and [`Error::File`]; absence is not an error.
    pub fn read(&self, key: &str) -> Result<Option<String>, Error> {
        let relative = path_of(key)?;
        for root in &self.roots {
            let path = root.join(relative);
            match fs::read_to_string(&path) {
                Ok(text) => return Ok(Some(text.trim().to_owned())),
                Err(error) if is_absent(&error) => {}
                Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(Error::Denied { source });
                }
                Err(source) => return Err(Error::File { path, source }),
            }
        }
        Ok(None)
    }

    /// Whether a root would take a value for a key: it is opened for that, and nothing is written.
    pub fn is_writable(&self, key: &str) -> bool {
        let opens = |path: PathBuf| fs::OpenOptions::new().write(true).open(path).is_ok();
        path_of(key).is_ok_and(|relative| self.roots.iter().any(|root| opens(root.join(relative))))
    }

    /// Writes a key.
    ///
    /// # Errors
    /// The reason of the first root that has the key, if none takes the value.
    pub fn write(&self, key: &str, value: &str) -> Result<(), Error> {
        let relative = path_of(key)?;
        let mut reason = None;
        for root in &self.roots {
            let path = root.join(relative);
            match fs::OpenOptions::new().write(true).open(&path) {
                Ok(file) => return write_to(file, path, value),
                Err(error) if is_absent(&error) => {}
                Err(error) => reason = reason.or(Some(explain(error, path, value))),
            }
        }
        Err(reason.unwrap_or_else(|| Error::Absent { key: key.to_owned() }))
    }
}

/// One write call: the kernel takes a value whole or not at all.
fn write_to(mut file: fs::File, path: PathBuf, value: &str) -> Result<(), Error> {
    io::Write::write_all(&mut file, value.as_bytes()).map_err(|source| explain(source, path, value))
}

fn explain(source: io::Error, path: PathBuf, value: &str) -> Error {
    match source.raw_os_error() {
        Some(libc::EROFS) => Error::ReadOnly { source },
        Some(libc::EACCES | libc::EPERM) => Error::Denied { source },
        Some(libc::EINVAL | libc::ERANGE) => Error::BadValue { value: value.to_owned(), source },
        _ => Error::File { path, source },
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A key is a relative path without `..`: a link name from elsewhere must not lead out of the root.
fn path_of(key: &str) -> Result<&Path, Error> {
    let plain = !key.is_empty() && key.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if plain { Ok(Path::new(key)) } else { Err(Error::BadKey { key: key.to_owned() }) }
}

/// Module that brings a key, for those kube-router sets.
fn module(key: &str) -> Option<&'static str> {
    let modules = [
        ("net/ipv4/vs/", "ip_vs"),
        ("net/bridge/", "br_netfilter"),
        ("net/netfilter/", "nf_conntrack"),
        ("net/ipv6/", "ipv6"),
    ];
    modules.iter().find(|(prefix, _)| key.starts_with(prefix)).map(|(_, module)| *module)
}

/// Sysctls as a lane: reads the keys it was told to watch and those it has written.
#[derive(Debug)]
pub struct SysctlLane {
    sysctls: Sysctls,
    keys: BTreeSet<Name>,
}

impl SysctlLane {
    /// A lane over `sysctls` that reads `keys`.
    pub fn new(sysctls: Sysctls, keys: Vec<Name>) -> SysctlLane {
        SysctlLane { sysctls, keys: keys.into_iter().collect() }
    }

    fn change(&self, change: &Change) -> Result<(), Refusal> {
        match (&change.key, &change.to) {
            (Key::Sysctl(key), Some(Row::Sysctl(value))) => {
                let refused = |error: Error| {
                    let errno = match &error {
                        Error::Absent { .. } => Some(libc::ENOENT),
                        Error::ReadOnly { source }
                        | Error::Denied { source }
                        | Error::BadValue { source, .. }
                        | Error::File { source, .. } => source.raw_os_error(),
                        Error::BadKey { .. } => None,
                    };
                    Refusal { reason: format!("writing: {error}"), errno }
                };
                self.sysctls.write(key, value).map_err(refused)
            }
            // A sysctl has no absence of its own: one that is no longer desired stays as it is.
            (Key::Sysctl(_), None) => Ok(()),
            _ => Err(Refusal::new("not a sysctl")),
        }
    }
}

impl Lane for SysctlLane {
    /// Keys this kernel does not have are no rows.
    fn read(&mut self) -> Result<Vec<(Key, Row)>, ReadError> {
        let mut rows = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            let value = self
                .sysctls
                .read(key)
                .map_err(|source| ReadError { table: "sysctls", source: Box::new(source) })?;
            if let Some(value) = value {
                rows.push((Key::Sysctl(key.clone()), Row::Sysctl(Name::from(value))));
            }
        }
        Ok(rows)
    }

    fn apply(&mut self, stage: &[Change]) -> Vec<Result<(), Refusal>> {
        self.keys.extend(stage.iter().filter_map(|change| match &change.key {
            Key::Sysctl(key) => Some(key.clone()),
            _ => None,
        }));
        stage.iter().map(|change| self.change(change)).collect()
    }
}
