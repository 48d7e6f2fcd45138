//! What the kernel says of a running process: its capabilities, and how it sees the file system.

use std::fs;

/// A process, as it was when asked for.
pub(crate) struct Process {
    status: String,
    mounts: String,
}

impl Process {
    /// By the id it has here, whatever its own namespace calls it.
    pub(crate) fn of(pid: u32) -> Self {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        Self { status: read("status"), mounts: read("mountinfo") }
    }

    /// These capabilities and no others, now and later: no new privileges, and a filter of system calls.
    pub(crate) fn has_only(&self, capabilities: &[&str]) {
        let bit = |name: &&str| match *name {
            "NET_BIND_SERVICE" => 1u64 << 10,
            "NET_ADMIN" => 1 << 12,
            "NET_RAW" => 1 << 13,
            other => panic!("{other}"),
        };
        let wanted = capabilities.iter().map(bit).sum::<u64>();
        for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
            assert_eq!(u64::from_str_radix(self.field(set), 16).unwrap(), wanted, "{set} {}", self.status);
        }
        assert_eq!((self.field("NoNewPrivs:"), self.field("Seccomp:")), ("1", "2"));
    }

    fn field(&self, name: &str) -> &str {
        let line = self.status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{}", self.status)).trim()
    }

    /// A place is mounted, and with this option first: `ro` or `rw`.
    pub(crate) fn sees(&self, place: &str, wanted: &str) {
        // The last is on top.
        let mut fields = self.mounts.lines().rev().map(|line| line.split(' ').skip(4));
        let found = fields.find_map(|mut fields| (fields.next()? == place).then(|| fields.next()).flatten());
        let options = found.unwrap_or_else(|| panic!("{place} is not mounted: {}", self.mounts));
        assert_eq!(options.split(',').next(), Some(wanted), "{place}: {}", self.mounts);
    }
}
