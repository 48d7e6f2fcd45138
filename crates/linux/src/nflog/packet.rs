//! The ends of a packet, from its first bytes: addresses, protocol, ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The ends of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Who sends it.
    pub source: IpAddr,
    /// Who is to receive it.
    pub destination: IpAddr,
    /// IANA number of what it carries.
    pub protocol: u8,
    /// Source and destination port; none for protocols without, and in fragments but the first.
    pub ports: Option<(u16, u16)>,
}

/// IPv6 extension headers that are stepped over.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// More than this many in a row are nobody's packet.
const MOST_EXTENSIONS: usize = 8;

impl Packet {
    /// Reads IPv4 or IPv6 headers; `None` for anything else, or if they are cut short.
    pub fn read(bytes: &[u8]) -> Option<Packet> {
        match bytes.first()? >> 4 {
            4 => v4(bytes),
            6 => v6(bytes),
            _ => None,
        }
    }
}

fn v4(bytes: &[u8]) -> Option<Packet> {
    let length = usize::from(bytes.first()? & 0x0f) * 4;
    let address = |at: usize| Some(Ipv4Addr::from(*bytes.get(at..)?.first_chunk::<4>()?));
    let offset = half(bytes, 6)? & 0x1fff;
    let protocol = *bytes.get(9)?;
    let ports = if offset == 0 { ports(protocol, bytes.get(length..)) } else { None };
    Some(Packet { source: address(12)?.into(), destination: address(16)?.into(), protocol, ports })
}

fn v6(bytes: &[u8]) -> Option<Packet> {
    let address = |at: usize| Some(Ipv6Addr::from(*bytes.get(at..)?.first_chunk::<16>()?));
    let (source, destination) = (address(8)?.into(), address(24)?.into());
    let (mut protocol, mut at) = (*bytes.get(6)?, 40);
    for _ in 0..MOST_EXTENSIONS {
        let length = match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                bytes.get(at + 1).map_or(usize::MAX, |units| (usize::from(*units) + 1) * 8)
            }
            FRAGMENT if half(bytes, at + 2).is_none_or(|offset| offset & 0xfff8 != 0) => {
                let protocol = bytes.get(at).copied().unwrap_or(protocol);
                return Some(Packet { source, destination, protocol, ports: None });
            }
            FRAGMENT => 8,
            _ => break,
        };
        let Some(next) = bytes.get(at) else { break };
        protocol = *next;
        at = at.saturating_add(length);
    }
    Some(Packet { source, destination, protocol, ports: ports(protocol, bytes.get(at..)) })
}

/// TCP, UDP, DCCP, SCTP and UDP-Lite begin with both ports.
fn ports(protocol: u8, bytes: Option<&[u8]>) -> Option<(u16, u16)> {
    let bytes = bytes?;
    matches!(protocol, 6 | 17 | 33 | 132 | 136).then_some(())?;
    Some((half(bytes, 0)?, half(bytes, 2)?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk::<2>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4_bytes(protocol: u8, offset: u16, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 244, 1, 2, 10, 244, 2, 3];
        bytes[6..8].copy_from_slice(&offset.to_be_bytes());
        bytes.extend_from_slice(rest);
        bytes
    }

    fn v6_bytes(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        bytes.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend_from_slice(rest);
        bytes
    }

    const PORTS: [u8; 4] = [0x9c, 0x40, 0, 80];

    #[test]
    fn ends_of_ipv4_packets() {
        let packet = Packet::read(&v4_bytes(6, 0x4000, &PORTS)).unwrap();
        assert_eq!(
            (packet.source.to_string(), packet.destination.to_string()),
            ("10.244.1.2".into(), "10.244.2.3".into())
        );
        assert_eq!((packet.protocol, packet.ports), (6, Some((40_000, 80))));
        assert_eq!(Packet::read(&v4_bytes(17, 0x2001, &PORTS)).unwrap().ports, None, "a later fragment");
        assert_eq!(Packet::read(&v4_bytes(1, 0, &PORTS)).unwrap().ports, None, "ICMP has no ports");
        assert_eq!(Packet::read(&v4_bytes(6, 0, &PORTS[..3])).unwrap().ports, None, "cut short");
    }

    #[test]
    fn ends_of_ipv6_packets_behind_extensions() {
        assert_eq!(Packet::read(&v6_bytes(17, &PORTS)).unwrap().ports, Some((40_000, 80)));
        let mut behind = vec![FRAGMENT, 0, 0, 0, 0, 0, 0, 0, 132, 0, 0, 1, 0, 0, 0, 9];
        behind.extend(PORTS);
        let packet = Packet::read(&v6_bytes(HOP_BY_HOP, &behind)).unwrap();
        assert_eq!((packet.protocol, packet.ports), (132, Some((40_000, 80))));
        let later = [6, 0, 0, 8, 0, 0, 0, 9];
        let packet = Packet::read(&v6_bytes(FRAGMENT, &later)).unwrap();
        assert_eq!((packet.protocol, packet.ports), (6, None));
    }

    #[test]
    fn anything_short_of_headers_is_nothing() {
        for bytes in [&[][..], &[0x45, 0, 0], &[0x60; 30], &[0x10; 64]] {
            assert_eq!(Packet::read(bytes), None);
        }
        for length in 0..60 {
            // Whatever is cut off, nothing breaks.
            let _ = Packet::read(v6_bytes(HOP_BY_HOP, &[0xff; 20]).get(..length).unwrap_or_default());
        }
    }
}
