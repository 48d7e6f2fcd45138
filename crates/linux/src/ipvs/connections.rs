//! Looking at IPVS without touching it: connections of draining real servers, counters for metrics.
//!
//! A socket of its own, so that neither a scrape nor a drain ever waits for the lane's writes.

use std::collections::BTreeMap;
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
    /// each virtual server mentioned: O(their real servers), whatever else IPVS holds. A dump is not a snapshot (see
    /// [`super::IpvsLane`]), so where one is missing there is a second look before it is believed.
    ///
    /// # Errors
    /// When the kernel cannot be read at all.
    pub fn of(
        &mut self,
        real_servers: &[(VirtualServerKey, IpAddr, u16)],
    ) -> Result<Vec<Option<ConnectionCount>>, netlink::Error> {
        let mut wanted: BTreeMap<VirtualServerKey, BTreeMap<(IpAddr, u16), Option<ConnectionCount>>> =
            BTreeMap::new();
        for (key, ip, port) in real_servers {
            wanted.entry(*key).or_default().insert((*ip, *port), None);
        }
        for (key, counts) in &mut wanted {
            for _look in 0..2 {
                for record in self.table.destinations(key)? {
                    if let Some(count) = counts.get_mut(&(record.ip, record.port)) {
                        *count = Some(record.connections);
                    }
                }
                if counts.values().all(Option::is_some) {
                    break;
                }
            }
        }
        let count = |(key, ip, port): &(VirtualServerKey, IpAddr, u16)| {
            wanted.get(key).and_then(|counts| counts.get(&(*ip, *port))).copied().flatten()
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
