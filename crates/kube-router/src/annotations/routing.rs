//! What the annotations of a Node say of routing: its AS, its part in route reflection, its external peers, and what
//! is done to paths.
//!
//! Decided here, from one object alone: typed values. What cannot be read is left out with an [`Objection`] and the
//! rest is used; a peer is left out alone where the annotation still tells which values are its own.

use std::net::{IpAddr, Ipv4Addr};

use bgp::{Asn, Community};
use ipnet::IpNet;

use super::peers::{NodePeer, read_peers};
use super::{node, unusable};
use crate::objection::{ObjectRef, Objection};

/// A node's part in route reflection (RFC 4456), with the cluster ID given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reflector {
    /// It reflects between its clients.
    Server(Ipv4Addr),
    /// It peers with reflectors only.
    Client(Ipv4Addr),
}

/// How often an AS number is put before paths told to external peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepend {
    /// The AS number.
    pub asn: Asn,
    /// 1 to 255 times.
    pub times: u8,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingAnnotations {
    /// `kube-router.io/node.asn`
    pub asn: Option<Asn>,
    /// `kube-router.io/rr.server`, else `kube-router.io/rr.client`
    pub reflector: Option<Reflector>,
    /// `kube-router.io/bgp-local-addresses`; `None` leaves it to the node's addresses.
    pub local_addresses: Option<Vec<IpAddr>>,
    /// `kube-router.io/node.bgp.communities`
    pub communities: Vec<Community>,
    /// `kube-router.io/path-prepend.as` and `.repeat-n`
    pub prepend: Option<Prepend>,
    /// `kube-router.io/node.bgp.customimportreject`: these prefixes, and longer ones in them, are not accepted.
    pub import_reject: Vec<IpNet>,
    /// `kube-router.io/peers`, else the lists `kube-router.io/peer.*`
    pub peers: Vec<NodePeer>,
}

impl RoutingAnnotations {
    /// Reads the annotations of `object`; `get` finds the value of a key.
    pub fn read<'a>(object: &ObjectRef, get: impl Fn(&str) -> Option<&'a str>) -> (Self, Vec<Objection>) {
        let mut reader = Reader { object, get: &get, objections: Vec::new() };
        let annotations = Self {
            asn: reader.parsed(node::ASN, "the node has none"),
            reflector: reader.reflector(),
            local_addresses: reader.local_addresses(),
            communities: reader.items(node::BGP_COMMUNITIES, "the others are used"),
            prepend: reader.prepend(),
            import_reject: reader.items(node::BGP_IMPORT_REJECT, "the others are used"),
            peers: read_peers(&mut reader),
        };
        (annotations, reader.objections)
    }
}

/// One object's annotations being read.
pub(super) struct Reader<'o, 'a> {
    pub(super) object: &'o ObjectRef,
    pub(super) get: &'o dyn Fn(&str) -> Option<&'a str>,
    pub(super) objections: Vec<Objection>,
}

impl<'a> Reader<'_, 'a> {
    /// The value of a key; blank is as absent.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        (self.get)(key).map(str::trim).filter(|text| !text.is_empty())
    }

    pub(super) fn object_to(&mut self, key: &str, value: &str, reason: &str, remedy: &str) {
        self.objections.push(unusable(self.object, key, value, reason, remedy));
    }

    fn parsed<T>(&mut self, key: &str, otherwise: &str) -> Option<T>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let text = self.text(key)?;
        let read = text.parse::<T>();
        if let Err(error) = &read {
            let remedy = format!("correct it; until then {otherwise}");
            self.object_to(key, text, &format!("cannot be used: {error}"), &remedy);
        }
        read.ok()
    }

    /// The usable items of a comma-separated list. Blank items count for nothing.
    fn items<T>(&mut self, key: &str, otherwise: &str) -> Vec<T>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let text = self.text(key).unwrap_or_default();
        let mut items = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match item.parse() {
                Ok(item) => items.push(item),
                Err(error) => {
                    let remedy = format!("correct the item; {otherwise}");
                    self.object_to(key, item, &format!("cannot be used: {error}"), &remedy);
                }
            }
        }
        items
    }

    /// A node that is both is a server, as with upstream.
    fn reflector(&mut self) -> Option<Reflector> {
        if let Some(id) = self.cluster_id(node::ROUTE_REFLECTOR_SERVER) {
            return Some(Reflector::Server(id));
        }
        self.cluster_id(node::ROUTE_REFLECTOR_CLIENT).map(Reflector::Client)
    }

    /// A number or an IPv4 address: the same 32 bits (RFC 4456 section 7).
    fn cluster_id(&mut self, key: &str) -> Option<Ipv4Addr> {
        let text = self.text(key)?;
        let number = || text.parse::<u32>().ok().map(Ipv4Addr::from);
        let id = text.parse().ok().or_else(number).filter(|id: &Ipv4Addr| !id.is_unspecified());
        if id.is_none() {
            let reason = "is neither a number (1 to 4294967295) nor an IPv4 address";
            self.object_to(
                key,
                text,
                reason,
                "use one of them; the node takes no part in reflection until then",
            );
        }
        id
    }

    fn local_addresses(&mut self) -> Option<Vec<IpAddr>> {
        self.text(node::BGP_LOCAL_ADDRESSES)?;
        let addresses = self.items(node::BGP_LOCAL_ADDRESSES, "the speaker listens on the others");
        (!addresses.is_empty()).then_some(addresses)
    }

    fn prepend(&mut self) -> Option<Prepend> {
        let asn = self.parsed::<Asn>(node::PATH_PREPEND_AS, "nothing is put before paths");
        let times = self.parsed::<u8>(node::PATH_PREPEND_REPEAT, "nothing is put before paths");
        let given = |reader: &Self, key| reader.text(key).is_some();
        for (key, other) in [
            (node::PATH_PREPEND_AS, node::PATH_PREPEND_REPEAT),
            (node::PATH_PREPEND_REPEAT, node::PATH_PREPEND_AS),
        ] {
            if given(self, key) && !given(self, other) {
                let value = self.text(key).unwrap_or_default();
                self.object_to(key, value, "has no effect alone", &format!("add {other}, or remove it"));
            }
        }
        Some(Prepend { asn: asn?, times: times.filter(|times| *times > 0)? })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::node::*;
    use super::*;

    fn read(annotations: &[(&str, &'static str)]) -> (RoutingAnnotations, Vec<String>) {
        let map: BTreeMap<&str, &'static str> = annotations.iter().copied().collect();
        let object = ObjectRef { kind: "Node", namespace: String::new(), name: "n1".to_owned() };
        let (read, objections) = RoutingAnnotations::read(&object, |key| map.get(key).copied());
        (read, objections.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(read(&[]), (RoutingAnnotations::default(), vec![]));
        assert_eq!(read(&[(ASN, " "), (PEERS, "")]), (RoutingAnnotations::default(), vec![]));
    }

    #[test]
    fn a_cluster_id_is_32_bits_however_it_is_written() {
        for (text, id) in [("42", [0, 0, 0, 42]), ("10.0.0.1", [10, 0, 0, 1])] {
            let (routing, objections) = read(&[(ROUTE_REFLECTOR_SERVER, text)]);
            assert_eq!(routing.reflector, Some(Reflector::Server(id.into())));
            assert!(objections.is_empty());
        }
        let (routing, objections) = read(&[(ROUTE_REFLECTOR_CLIENT, "one")]);
        assert_eq!((routing.reflector, objections.len()), (None, 1));
        let (routing, _) = read(&[(ROUTE_REFLECTOR_CLIENT, "1"), (ROUTE_REFLECTOR_SERVER, "1")]);
        assert_eq!(routing.reflector, Some(Reflector::Server([0, 0, 0, 1].into())));
    }

    #[test]
    fn a_bad_item_is_left_out_alone() {
        let (routing, objections) = read(&[(BGP_COMMUNITIES, "no-export, 64512:1,nobody")]);
        assert_eq!(routing.communities, [Community::NO_EXPORT, Community(0xfc00_0001)]);
        assert_eq!(objections.len(), 1);
        let (routing, objections) = read(&[(BGP_IMPORT_REJECT, "10.0.0.0/8, 2001:db8::/33,10.0.0.0/40")]);
        assert_eq!((routing.import_reject.len(), objections.len()), (2, 1));
        let (routing, objections) = read(&[(BGP_LOCAL_ADDRESSES, "10.0.0.1,here, fd00::1")]);
        assert_eq!(routing.local_addresses.map(|list| list.len()), Some(2));
        assert_eq!(objections.len(), 1);
        assert_eq!(read(&[(BGP_LOCAL_ADDRESSES, "here")]).0.local_addresses, None);
    }

    #[test]
    fn prepending_takes_both_annotations() {
        let (routing, objections) = read(&[(PATH_PREPEND_AS, "64512"), (PATH_PREPEND_REPEAT, "3")]);
        assert_eq!(routing.prepend, Some(Prepend { asn: Asn::new(64_512).unwrap(), times: 3 }));
        assert!(objections.is_empty());
        for alone in [(PATH_PREPEND_AS, "64512"), (PATH_PREPEND_REPEAT, "3")] {
            let (routing, objections) = read(&[alone]);
            assert_eq!((routing.prepend, objections.len()), (None, 1));
        }
        let (routing, objections) = read(&[(PATH_PREPEND_AS, "64512"), (PATH_PREPEND_REPEAT, "256")]);
        assert_eq!((routing.prepend, objections.len()), (None, 1));
    }

    #[test]
    fn an_asn_is_read_as_go_reads_it() {
        assert_eq!(read(&[(ASN, "0xfc00")]).0.asn, Asn::new(64_512).ok());
        let (routing, objections) = read(&[(ASN, "0")]);
        assert_eq!((routing.asn, objections.len()), (None, 1));
    }
}
