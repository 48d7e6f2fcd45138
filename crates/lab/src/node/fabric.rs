//! The network between the nodes: a namespace with one bridge per segment, which is also the router between segments
//! and everyone's default gateway. It stands for what a data centre provides, not for anything kube-router does.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;

use super::{Error, Families, Namespace};

/// Folder of one lab: links to its namespaces and its logs, removed with it.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    /// Held for as long as the lab lives; `lab clean` takes a folder whose lock is free.
    _lock: nix::fcntl::Flock<std::fs::File>,
}

/// Where the folders of labs are.
pub const RUN_FOLDER: &str = "/run/kube-router-lab";

impl RunFolder {
    fn new() -> Result<Self, Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(RUN_FOLDER).join(name);
        let failed = |source| Error::File { path: path.clone(), source };
        // A folder left by an earlier process of the same number.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).map_err(failed)?;
        let file = std::fs::File::create(path.join("lock")).map_err(failed)?;
        let lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| failed(errno.into()))?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Removes the folders of labs that are no more. Their namespaces and processes went with them. Returns what it removed.
pub fn sweep() -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::File { path: RUN_FOLDER.into(), source };
    let entries = match std::fs::read_dir(RUN_FOLDER) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut removed = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        // A VM's folder (`vm-…`) is kept the same way.
        let Ok(file) = std::fs::File::open(path.join("lock")) else { continue };
        if nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).is_ok() {
            std::fs::remove_dir_all(&path).map_err(failed)?;
            removed.push(path);
        }
    }
    Ok(removed)
}

/// The network between the nodes.
#[derive(Debug)]
pub struct Fabric {
    families: Families,
    namespace: Namespace,
    segments: u8,
    ports: AtomicU32,
    folder: RunFolder,
}

impl Fabric {
    /// A network of `segments` subnets (at least one), routed to each other.
    pub fn new(families: Families, segments: u8) -> Result<Self, Error> {
        let folder = RunFolder::new()?;
        let namespace = Namespace::network("fabric")?;
        namespace.sysctls(FORWARDING)?;
        let segments = segments.max(1);
        let mut lines = String::new();
        for segment in 0..segments {
            // Else a bridge takes the lowest address of its ports: with one plugged in or out, the router would have
            // another, and packets to it be lost until everyone has asked for it again.
            let fixed = format!("02:00:00:00:{segment:02x}:01");
            lines +=
                &format!("link add seg{segment} address {fixed} type bridge\nlink set seg{segment} up\n");
            for gateway in families.gateway(segment) {
                lines += &format!("addr add {gateway} dev seg{segment}{}\n", nodad(gateway));
            }
        }
        namespace.ip(&lines)?;
        let fabric = Self { families, namespace, segments, ports: AtomicU32::new(0), folder };
        fabric.publish(&fabric.namespace)?;
        Ok(fabric)
    }

    /// Families of everything on it.
    pub fn families(&self) -> Families {
        self.families
    }

    /// Number of subnets.
    pub fn segments(&self) -> u8 {
        self.segments
    }

    /// The router's own namespace: a listener bound here is reached from every node under [`Fabric::gateway`].
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Addresses of the router on `segment`.
    pub fn gateway(&self, segment: u8) -> Vec<IpAddr> {
        super::addresses(&self.families.gateway(segment))
    }

    /// Folder for logs of this lab, gone with it.
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// Makes `namespace` findable by hand: `nsenter --net=/run/kube-router-lab/…/NAME/ns/net`.
    pub(crate) fn publish(&self, namespace: &Namespace) -> Result<(), Error> {
        let path = self.folder.path.join(namespace.name());
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(namespace.proc_path(), &path)
            .map_err(|source| Error::File { path, source })
    }

    /// Takes the name back, unless a successor has it.
    pub(crate) fn withdraw(&self, namespace: &Namespace) {
        let path = self.folder.path.join(namespace.name());
        if std::fs::read_link(&path).is_ok_and(|target| target == namespace.proc_path()) {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Plugs `namespace` into `segment` as `eth0` with these addresses and default routes through the router. Returns
    /// the name of the port on this side.
    pub(crate) fn plug(
        &self,
        namespace: &Namespace,
        segment: u8,
        addresses: &[IpNet],
    ) -> Result<String, Error> {
        let port = format!("port{}", self.ports.fetch_add(1, Ordering::Relaxed));
        self.namespace.ip(&format!(
            "link add {port} type veth peer name eth0 netns {}\nlink set {port} master seg{segment} up\n",
            namespace.net_path().display()
        ))?;
        let mut lines = "link set eth0 up\n".to_owned();
        for address in addresses {
            lines += &format!("addr add {address} dev eth0{}\n", nodad(*address));
        }
        for gateway in self.gateway(segment) {
            lines += &format!("route add default via {gateway}\n");
        }
        namespace.ip(&lines)?;
        Ok(port)
    }

    /// Takes a port away, and the link on the other side with it.
    pub(crate) fn unplug(&self, port: &str) {
        let _ = self.namespace.ip(&format!("link del {port}\n"));
    }
}

/// A router's sysctls. Duplicate address detection would make every address wait a second for nothing.
pub(crate) const FORWARDING: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
];

fn nodad(net: IpNet) -> &'static str {
    if matches!(net, IpNet::V6(_)) { " nodad" } else { "" }
}
