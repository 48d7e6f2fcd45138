//! Looking at IPVS without touching it: connections of draining real servers, counters for metrics.
//!
//! A socket of its own, so that neither a scrape nor a drain ever waits for the lane's writes.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use crate::netlink;
use crate::row::VirtualServerKey;

use super::codec::{ConnectionCount, Counters};
use super::table::{IpvsTable, OpenError};

/// A read-only view of IPVS.
#[derive(Debug)]
pub struct Connections {
    table: IpvsTable,
}

impl Connections {
    /// Opens the view in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`OpenError`], also when the kernel has no IPVS.
    pub fn open() -> Result<Connections, OpenError> {
        Ok(Connections { table: IpvsTable::open()? })
    }

    /// Connections of each real server asked for, in order; `None` for one that is not in the kernel. One dump for
    /// each virtual server mentioned: O(their real servers), whatever else IPVS holds.
    ///
    /// # Errors
    /// When the kernel cannot be read at all.
    pub fn of(
        &mut self,
        real_servers: &[(VirtualServerKey, IpAddr, u16)],
    ) -> Result<Vec<Option<ConnectionCount>>, netlink::Error> {
        let mut seen: BTreeMap<VirtualServerKey, HashMap<(IpAddr, u16), ConnectionCount>> = BTreeMap::new();
        for (key, _, _) in real_servers {
            if !seen.contains_key(key) {
                let there = self.table.destinations(key)?;
                let counts = there.iter().map(|record| ((record.ip, record.port), record.connections));
                seen.insert(*key, counts.collect());
            }
        }
        let count = |(key, ip, port): &(VirtualServerKey, IpAddr, u16)| {
            seen.get(key).and_then(|counts| counts.get(&(*ip, *port))).copied()
        };
        Ok(real_servers.iter().map(count).collect())
    }

    /// Counters of every virtual server, foreign ones too. One dump, O(virtual servers).
    ///
    /// # Errors
    /// When the kernel cannot be read at all.
    pub fn service_counters(&mut self) -> Result<Vec<(VirtualServerKey, Counters)>, netlink::Error> {
        let services = self.table.services()?;
        Ok(services.into_iter().map(|record| (record.key, record.counters)).collect())
    }
}
