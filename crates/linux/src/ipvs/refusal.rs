//! What an errno of IPVS means, in words a person can act on (`net/netfilter/ipvs/ip_vs_ctl.c`).

use crate::lane::Refusal;
use crate::netlink;
use crate::row::{Key, Row};

use super::Verb;

/// The kernel's refusal of `verb` for a row, with the remedy where there is one.
pub(super) fn explain(verb: Verb, key: &Key, row: Option<&Row>, error: &netlink::Error) -> Refusal {
    let doing = match verb {
        Verb::Create => "creating",
        Verb::Change => "changing",
        Verb::Remove => "removing",
    };
    let what = match key {
        Key::VirtualServer(_) => "virtual server",
        Key::RealServer(..) => "real server",
        _ => "IPVS timeouts",
    };
    let known = error.errno().and_then(|errno| words(key, row, errno));
    let why = known.unwrap_or_else(|| error.to_string());
    Refusal { reason: format!("{doing} the {what}: {why}"), errno: error.errno() }
}

fn words(key: &Key, row: Option<&Row>, errno: i32) -> Option<String> {
    let text = match (errno, key, row) {
        (libc::ENOENT, Key::VirtualServer(_), Some(Row::VirtualServer(server))) => {
            let name = server.scheduler.as_str();
            return Some(format!(
                "the kernel has no scheduler `{name}`: load its module on the node with `modprobe ip_vs_{name}`"
            ));
        }
        // The service is looked up first, so that on a real server ESRCH is about its virtual server.
        (libc::ESRCH, Key::RealServer(..), _) => "its virtual server is not in the kernel",
        (libc::ENOENT, Key::RealServer(..), _) => "its virtual server, or it itself, is not in the kernel",
        (libc::EINVAL, Key::RealServer(..), _) => {
            "the kernel does not take its address: as seen from this node it is neither unicast nor local"
        }
        (libc::EPROTONOSUPPORT, Key::VirtualServer(_), _) => {
            "this kernel's IPVS does not balance the protocol (CONFIG_IP_VS_PROTO_*)"
        }
        (libc::EAFNOSUPPORT, ..) => "this kernel's IPVS does not know the address family (CONFIG_IP_VS_IPV6)",
        (libc::ERANGE, ..) => "the weight is out of range: at most 2147483647",
        (libc::EPERM, ..) => "not permitted: it takes CAP_NET_ADMIN in the user namespace of this network",
        _ => return None,
    };
    Some(text.to_owned())
}
