//! IP-in-IP tunnels as link attributes, plain or in generic UDP encapsulation.
//!
//! Decided here: how a tunnel of ours is set up, so that it works with one made by the Go kube-router at the other end.
//! Only the ends and the encapsulation make it the same tunnel; time to live and the like are written, not compared.

use std::net::IpAddr;

use crate::netlink::{Attributes, MessageBuilder};
use crate::row::Tunnel;

use super::kernel::tunnel as number;

/// Of an encapsulated packet, upstream's value.
const TTL_IN_UDP: u8 = 225;

/// The kernel's name of the kind, which is also the name of its module (`ip6tnl` loads `ip6_tunnel` by alias).
pub(super) fn kind_name(tunnel: &Tunnel) -> &'static str {
    if tunnel.local.is_ipv4() { "ipip" } else { "ip6tnl" }
}

/// Writes what `IFLA_INFO_DATA` holds.
pub(super) fn put(data: &mut MessageBuilder, tunnel: &Tunnel) {
    data.put_ip(number::LOCAL, tunnel.local).put_ip(number::REMOTE, tunnel.remote);
    let v4 = tunnel.local.is_ipv4();
    if !v4 {
        // The option costs eight bytes of every packet, and routers drop packets for having it.
        data.put_u32(number::FLAGS, number::NO_ENCAP_LIMIT);
    }
    match tunnel.udp_port {
        None => {
            data.put_u8(number::TTL, 0);
            // With it, packets with the "do not fragment" bit that are too big for the tunnel would not pass.
            if v4 {
                data.put_u8(number::PATH_MTU_DISCOVERY, 0);
            }
        }
        Some(port) => {
            let (protocol, flags) =
                if v4 { (libc::IPPROTO_IPIP, 0) } else { (libc::IPPROTO_IPV6, number::CHECKSUM_V6) };
            data.put_u8(number::TTL, TTL_IN_UDP).put_u8(number::PROTOCOL, protocol as u8);
            data.put_u16(number::ENCAP_TYPE, number::GUE).put_u16(number::ENCAP_FLAGS, flags);
            data.put_be16(number::ENCAP_SOURCE_PORT, 0).put_be16(number::ENCAP_PORT, port);
        }
    }
}

/// Reads what `IFLA_INFO_DATA` holds; `None` for other kinds, and for tunnels without two ends.
pub(super) fn parse(kind: &str, data: Attributes<'_>) -> Option<Tunnel> {
    if kind != "ipip" && kind != "ip6tnl" {
        return None;
    }
    let end = |kind: u16| data.get(kind)?.ip().filter(|ip: &IpAddr| !ip.is_unspecified());
    let encapsulated = data.get(number::ENCAP_TYPE).and_then(|kind| kind.u16()) == Some(number::GUE);
    let port = || data.get(number::ENCAP_PORT)?.be16();
    Some(Tunnel {
        local: end(number::LOCAL)?,
        remote: end(number::REMOTE)?,
        udp_port: encapsulated.then(port).flatten(),
    })
}
