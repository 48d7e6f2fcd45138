//! The iptables programs of this node: flavour, version, and running them.
//!
//! Decided here: which flavour is used. Two sets of tables exist side by side in the kernel, the old ones
//! (`iptables-legacy`) and those made of nftables (`iptables-nft`); rules in both are both obeyed. The one that
//! already holds Kubernetes chains is taken, then the one with more rules, then whatever `iptables-restore` is.

use std::fmt;
use std::fs;
use std::time::Duration;

use super::restore::Failure;
use super::save;
use crate::command;
use crate::row::{Family, FilterTable};

/// Seconds a legacy restore waits for the xtables lock; longer is the reconciler's to retry.
const LOCK_WAIT: &str = "5";
/// Far above what the largest rule sets take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Which of the kernel's two implementations the programs speak to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// `ip_tables`, guarded by the xtables lock.
    Legacy,
    /// nftables behind iptables' syntax.
    Nft,
}

impl Flavour {
    /// As program names have it: `legacy`, `nft`.
    pub fn as_str(self) -> &'static str {
        match self {
            Flavour::Legacy => "legacy",
            Flavour::Nft => "nft",
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A program could not tell us what we asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It did not run, or failed.
    #[error(transparent)]
    Run(#[from] command::Error),
    /// Somebody wrote rules with `nft` into a table that iptables-nft shares, which iptables then cannot show. Taken
    /// for empty, it would be written into again and again.
    #[error("{program} cannot show table {}: it holds rules made by nft; move those to a table of another name", table.as_str())]
    Unreadable {
        /// Its name.
        program: String,
        /// The table.
        table: FilterTable,
    },
    /// It did not say its version.
    #[error("{program} --version printed no version: {said}")]
    Version {
        /// Its name.
        program: String,
        /// What it printed.
        said: String,
    },
}

/// The programs to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    flavour: Flavour,
    version: (u32, u32, u32),
    /// What stands between `iptables` and `-save`: nothing, `-legacy` or `-nft`.
    infix: &'static str,
}

impl Programs {
    /// Finds the programs of the flavour this network namespace uses. Up to six processes, once.
    ///
    /// # Errors
    /// When there is no `iptables-restore`, or it does not work.
    pub fn detect() -> Result<Programs, Error> {
        let default = Programs::named("")?;
        let (Ok(legacy), Ok(nft)) = (Programs::of(Flavour::Legacy), Programs::of(Flavour::Nft)) else {
            return Ok(default);
        };
        let (in_legacy, in_nft) = (legacy.weight(), nft.weight());
        Ok(match in_legacy.cmp(&in_nft) {
            std::cmp::Ordering::Greater => legacy,
            std::cmp::Ordering::Less => nft,
            std::cmp::Ordering::Equal => default,
        })
    }

    /// The programs of one flavour, by their explicit names.
    ///
    /// # Errors
    /// When they are not installed.
    pub fn of(flavour: Flavour) -> Result<Programs, Error> {
        Programs::named(match flavour {
            Flavour::Legacy => "-legacy",
            Flavour::Nft => "-nft",
        })
    }

    fn named(infix: &'static str) -> Result<Programs, Error> {
        let program = format!("iptables{infix}-restore");
        let said = output(&program, &["--version"])?;
        let (flavour, version) = parse_version(&said).ok_or(Error::Version { program, said })?;
        Ok(Programs { flavour, version, infix })
    }

    /// Flavour of these programs.
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// Version, e.g. `(1, 8, 9)`.
    pub fn version(&self) -> (u32, u32, u32) {
        self.version
    }

    /// Whether SNAT and MASQUERADE take `--random-fully`: from 1.6.2 on.
    pub fn random_fully(&self) -> bool {
        self.version >= (1, 6, 2)
    }

    /// Everything in the tables of a family, as text. Empty without a process where no legacy table was ever used.
    ///
    /// # Errors
    /// When the program fails.
    pub fn save(&self, family: Family) -> Result<String, Error> {
        if self.flavour == Flavour::Legacy && !legacy_tables_exist(family) {
            return Ok(String::new());
        }
        let program = self.program(family, "save");
        let dump = output(&program, &[])?;
        match save::unreadable(&dump) {
            Some(table) => Err(Error::Unreadable { program, table }),
            None => Ok(dump),
        }
    }

    /// Runs one transaction, keeping whatever it does not mention.
    ///
    /// # Errors
    /// [`Failure`]; nothing was applied then.
    pub fn restore(&self, family: Family, input: &str) -> Result<(), Failure> {
        let program = self.program(family, "restore");
        let waits = self.flavour == Flavour::Legacy && self.version >= (1, 6, 2);
        let args: &[&str] = if waits { &["--noflush", "-w", LOCK_WAIT] } else { &["--noflush"] };
        match command::run(&program, args, input.as_bytes(), TIMEOUT) {
            Ok(_) => Ok(()),
            Err(command::Error::Failed { stderr, .. }) => Err(Failure::from_output(&stderr)),
            Err(error) => Err(Failure::Broken(error.to_string())),
        }
    }

    /// Name of the program of a family that does `what`: `save` or `restore`.
    pub fn program(&self, family: Family, what: &str) -> String {
        let base = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        format!("{base}{}-{what}", self.infix)
    }

    /// How much this flavour is in use: chains of Kubernetes programs first, then rules. A flavour that cannot be
    /// read holds nothing.
    fn weight(&self) -> (usize, usize) {
        let dumps: Vec<String> =
            Family::ALL.iter().map(|family| self.save(*family).unwrap_or_default()).collect();
        let kubernetes =
            |dump: &String| save::chain_names(dump).filter(|name| name.starts_with("KUBE-")).count();
        (dumps.iter().map(kubernetes).sum(), dumps.iter().map(|dump| save::rule_count(dump)).sum())
    }
}

/// The legacy tables this network namespace has; reading the list creates none, unlike asking for a table. It is
/// the calling thread's namespace, which need not be that of `/proc/net`.
pub fn legacy_tables_exist(family: Family) -> bool {
    let file = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    fs::read_to_string(file).is_ok_and(|names| !names.trim().is_empty())
}

fn output(program: &str, args: &[&str]) -> Result<String, Error> {
    let output = command::run(program, args, b"", TIMEOUT)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `iptables-restore v1.8.9 (nf_tables)`; before 1.8 no flavour is printed, and there was only one.
fn parse_version(said: &str) -> Option<(Flavour, (u32, u32, u32))> {
    let version = said.split_whitespace().find_map(|word| word.strip_prefix('v'))?;
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    let version = (numbers.next()??, numbers.next()??, numbers.next().flatten().unwrap_or(0));
    let flavour = if said.contains("(nf_tables)") { Flavour::Nft } else { Flavour::Legacy };
    Some((flavour, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_both_flavours_are_understood() {
        let nft = "iptables-nft-restore v1.8.9 (nf_tables)\n";
        assert_eq!(parse_version(nft), Some((Flavour::Nft, (1, 8, 9))));
        assert_eq!(parse_version("iptables-restore v1.6.1"), Some((Flavour::Legacy, (1, 6, 1))));
        assert_eq!(parse_version("busybox"), None);
    }
}
