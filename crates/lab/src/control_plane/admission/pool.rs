//! What is handed out once: addresses of a range, node ports. Pure bookkeeping.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

/// The node port range of a default cluster.
pub(crate) const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

/// The addresses of one range.
#[derive(Debug)]
pub(crate) struct AddressPool {
    range: IpNet,
    /// Offsets handed out of the range.
    taken: BTreeSet<u128>,
    /// Where the next search starts: amortised O(1) while the range is not nearly full.
    next: u128,
}

impl AddressPool {
    /// All of `range` but its first `reserved` addresses and, for IPv4, the broadcast address.
    pub(crate) fn new(range: IpNet, reserved: u128) -> Self {
        let mut taken: BTreeSet<_> = (0..reserved).collect();
        if let (IpNet::V4(_), Some(last)) = (range, size(range).checked_sub(1)) {
            taken.insert(last);
        }
        Self { range: range.trunc(), taken, next: reserved }
    }

    /// Whether the address belongs to the range.
    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        self.range.contains(&address)
    }

    /// Whether the range is IPv4.
    pub(crate) fn is_ipv4(&self) -> bool {
        self.range.addr().is_ipv4()
    }

    /// Takes this address; `false` when it is taken or not of the range.
    pub(crate) fn take(&mut self, address: IpAddr) -> bool {
        self.covers(address) && self.taken.insert(number(address).wrapping_sub(number(self.range.addr())))
    }

    /// Takes the next free address; `None` when there is none.
    pub(crate) fn take_any(&mut self) -> Option<IpAddr> {
        let size = size(self.range);
        // One more candidate than there are taken ones: one of them is free, if any is.
        let candidates = (self.taken.len() as u128 + 1).min(size);
        let free =
            (0..candidates).map(|step| (self.next + step) % size).find(|at| !self.taken.contains(at))?;
        self.taken.insert(free);
        self.next = free + 1;
        Some(address(self.range, number(self.range.addr()) + free))
    }

    /// Gives an address back.
    pub(crate) fn release(&mut self, address: IpAddr) {
        if self.covers(address) {
            self.taken.remove(&number(address).wrapping_sub(number(self.range.addr())));
        }
    }
}

fn size(range: IpNet) -> u128 {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    1_u128.checked_shl(bits).unwrap_or(u128::MAX)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address(range: IpNet, number: u128) -> IpAddr {
    match range {
        IpNet::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or_default()).into(),
        IpNet::V6(_) => Ipv6Addr::from(number).into(),
    }
}

/// The node ports.
#[derive(Debug)]
pub(crate) struct PortPool {
    taken: BTreeSet<u16>,
    next: u16,
}

impl PortPool {
    /// All of [`NODE_PORTS`].
    pub(crate) fn new() -> Self {
        Self { taken: BTreeSet::new(), next: *NODE_PORTS.start() }
    }

    /// Takes this port; `false` when it is taken.
    pub(crate) fn take(&mut self, port: u16) -> bool {
        self.taken.insert(port)
    }

    /// Takes the next free port of the range; `None` when there is none.
    pub(crate) fn take_any(&mut self) -> Option<u16> {
        let from_next = self.next..=*NODE_PORTS.end();
        let port = from_next.chain(NODE_PORTS).find(|port| !self.taken.contains(port))?;
        self.taken.insert(port);
        self.next = if port == *NODE_PORTS.end() { *NODE_PORTS.start() } else { port + 1 };
        Some(port)
    }

    /// Gives a port back.
    pub(crate) fn release(&mut self, port: u16) {
        self.taken.remove(&port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(range: &str, reserved: u128) -> AddressPool {
        AddressPool::new(range.parse().unwrap(), reserved)
    }

    #[test]
    fn a_range_is_handed_out_once_and_whole() {
        let mut pool = pool("10.0.0.0/29", 2);
        let given: Vec<_> = std::iter::from_fn(|| pool.take_any()).map(|a| a.to_string()).collect();
        assert_eq!(given, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        pool.release("10.0.0.4".parse().unwrap());
        assert_eq!(pool.take_any().unwrap().to_string(), "10.0.0.4");
        assert_eq!(pool.take_any(), None);
    }

    #[test]
    fn a_requested_address_is_taken_once_and_skipped() {
        let mut pool = pool("fd00:96::/112", 1);
        assert!(pool.take("fd00:96::1".parse().unwrap()));
        assert!(!pool.take("fd00:96::1".parse().unwrap()));
        assert!(!pool.take("fd00:97::1".parse().unwrap()));
        assert_eq!(pool.take_any().unwrap().to_string(), "fd00:96::2");
    }

    #[test]
    fn node_ports_wrap_around() {
        let mut ports = PortPool::new();
        assert!(ports.take(30_000));
        assert_eq!(ports.take_any(), Some(30_001));
        ports.next = 32_767;
        assert_eq!(ports.take_any(), Some(32_767));
        ports.release(30_001);
        assert_eq!(ports.take_any(), Some(30_001));
    }
}
