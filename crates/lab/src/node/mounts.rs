//! The folders a node has for itself.
//!
//! Three agents on one machine would otherwise share one xtables lock, one IPAM, one rt_tables. Each node gets an empty
//! tmpfs over what is written at run time, a copy of what is only added to, and the sysfs of its own network namespace.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};

/// State that starts empty on a new node.
const EMPTY: &[&str] = &["/run", "/etc/cni/net.d", "/var/lib/cni", "/var/lib/kube-router"];

/// Configuration that programs add lines to.
const COPIED: &[&str] = &["/etc/iproute2"];

/// Gives the calling thread, alone in a new mount namespace, the private folders of a node.
pub(super) fn privatise() -> io::Result<()> {
    // Mounts made here stay here.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)?;
    for folder in EMPTY {
        fs::create_dir_all(folder)?;
        tmpfs(folder)?;
    }
    for folder in COPIED {
        fs::create_dir_all(folder)?;
        let files = read_files(Path::new(folder))?;
        tmpfs(folder)?;
        for (name, content) in files {
            fs::write(Path::new(folder).join(name), content)?;
        }
    }
    // sysfs shows the network devices of the namespace it is mounted from.
    Ok(mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?)
}

fn tmpfs(folder: &str) -> io::Result<()> {
    Ok(mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))?)
}

fn read_files(folder: &Path) -> io::Result<Vec<(std::ffi::OsString, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.metadata()?.is_file() {
            files.push((entry.file_name(), fs::read(entry.path())?));
        }
    }
    Ok(files)
}
