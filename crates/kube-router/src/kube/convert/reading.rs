//! Reading one object: fields out of their lenient wrappings, addresses and numbers out of text, objections kept.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use linux::row::{Name, Protocol};

use crate::kube::interner::Interner;
use crate::kube::lenient::Lenient;
use crate::kube::model::{Kind, Labels, NamedPort, ObjectName};
use crate::kube::wire::{List, Meta, Text};
use crate::objection::Objection;

/// An object being read. Field paths are given as anything printable and are only printed for an objection.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    kind: Kind,
    id: ObjectName,
    names: &'a mut Interner,
    objections: Vec<Objection>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(kind: Kind, id: ObjectName, names: &'a mut Interner) -> Reading<'a> {
        Reading { kind, id, names, objections: Vec::new() }
    }

    pub(super) fn finish(self) -> (Kind, ObjectName, Vec<Objection>) {
        (self.kind, self.id, self.objections)
    }

    pub(super) fn id(&self) -> &ObjectName {
        &self.id
    }

    /// Takes over objections found elsewhere.
    pub(super) fn extend(&mut self, objections: Vec<Objection>) {
        self.objections.extend(objections);
    }

    /// The one copy of a name that many objects mention.
    pub(super) fn shared(&mut self, name: &str) -> Name {
        self.names.name(name)
    }

    /// Notes that `value` at `field` is not used.
    pub(super) fn object_to(
        &mut self,
        field: impl Display,
        value: impl Display,
        reason: impl Display,
        remedy: impl Display,
    ) {
        self.objections.push(Objection {
            object: self.id.of_kind(self.kind),
            field: field.to_string(),
            value: value.to_string(),
            reason: reason.to_string(),
            remedy: remedy.to_string(),
        });
    }

    /// The value of a field, if there is one of the right type.
    pub(super) fn take<T>(&mut self, field: impl Display, value: Lenient<T>) -> Option<T> {
        match value {
            Lenient::Found(value) => Some(value),
            Lenient::Absent => None,
            Lenient::Refused { found, reason } => {
                let reason = format!("has the wrong type ({reason})");
                self.object_to(field, found, reason, "the field is left out");
                None
            }
        }
    }

    /// A field that must hold text to mean anything; empty text is absent.
    pub(super) fn text(&mut self, field: impl Display, value: Text) -> Option<String> {
        self.take(field, value).filter(|text| !text.is_empty())
    }

    /// The usable elements of a list with their places in it.
    pub(super) fn list<T>(&mut self, field: &'static str, list: List<T>) -> Vec<(usize, T)> {
        let list = self.take(field, list).unwrap_or_default();
        let mut elements = Vec::with_capacity(list.len());
        for (place, element) in list.into_iter().enumerate() {
            if let Some(element) = self.take(format_args!("{field}[{place}]"), element) {
                elements.push((place, element));
            }
        }
        elements
    }

    /// An address that packets can be sent to across nodes.
    pub(super) fn ip(&mut self, field: impl Display, text: &str) -> Option<IpAddr> {
        let ip = match text.parse::<IpAddr>() {
            // ::ffff:10.0.0.1 is 10.0.0.1 to everyone else who reads the object
            Ok(ip) => ip.to_canonical(),
            Err(_) => {
                self.object_to(field, text, "is not an IP address", "the address is left out");
                return None;
            }
        };
        if let Some(what) = unreachable(ip) {
            self.object_to(field, text, format_args!("is {what}"), "the address is left out");
            return None;
        }
        Some(ip)
    }

    /// A prefix, host bits cleared.
    pub(super) fn net(&mut self, field: impl Display, text: &str) -> Option<IpNet> {
        self.net_or(field, text, "the prefix is left out")
    }

    /// A prefix, host bits cleared; `remedy` says what its absence means.
    pub(super) fn net_or(&mut self, field: impl Display, text: &str, remedy: &str) -> Option<IpNet> {
        match text.trim().parse::<IpNet>() {
            Ok(net) => Some(net.trunc()),
            Err(_) => {
                self.object_to(field, text, "is not a prefix like 10.1.2.0/24", remedy);
                None
            }
        }
    }

    /// The one copy of a label set that many objects have. What is no text is left out.
    pub(super) fn labels(&mut self, labels: Lenient<BTreeMap<String, Text>>) -> Labels {
        let labels = self.take("metadata.labels", labels).unwrap_or_default();
        let mut pairs = Vec::with_capacity(labels.len());
        for (key, value) in labels {
            if let Some(value) = self.take(format_args!("metadata.labels[{key}]"), value) {
                pairs.push((self.shared(&key), self.shared(&value)));
            }
        }
        self.names.labels(pairs)
    }

    /// The one copy of a list of named ports that many pods have.
    pub(super) fn named_ports(&mut self, ports: Vec<NamedPort>) -> Arc<[NamedPort]> {
        self.names.ports(ports)
    }

    /// A port that is not 0.
    pub(super) fn port(&mut self, field: impl Display, number: i64, remedy: &str) -> Option<u16> {
        match u16::try_from(number) {
            Ok(port) if port != 0 => Some(port),
            _ => {
                self.object_to(field, number, "is not a port (1-65535)", remedy);
                None
            }
        }
    }

    /// A protocol; absent means TCP, as for the API server.
    pub(super) fn protocol(&mut self, field: impl Display, protocol: Text) -> Option<Protocol> {
        self.protocol_or(field, protocol, "the port is left out")
    }

    /// A protocol; absent means TCP. `remedy` says what an unknown one means.
    pub(super) fn protocol_or(
        &mut self,
        field: impl Display,
        protocol: Text,
        remedy: &str,
    ) -> Option<Protocol> {
        let text = match protocol {
            Lenient::Absent => return Some(Protocol::Tcp),
            Lenient::Found(text) => text,
            Lenient::Refused { found, .. } => found.into(),
        };
        match text.as_str() {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => {
                self.object_to(field, text, "is not TCP, UDP or SCTP", remedy);
                None
            }
        }
    }

    /// A time in RFC 3339 form.
    pub(super) fn time(&mut self, field: impl Display, text: &str) -> Option<k8s_openapi::jiff::Timestamp> {
        match text.parse() {
            Ok(time) => Some(time),
            Err(_) => {
                self.object_to(
                    field,
                    text,
                    "is not a time like 2026-01-31T08:30:00Z",
                    "the time is left out",
                );
                None
            }
        }
    }
}

/// What makes an address useless as a destination in the cluster, if anything does. Traffic redirected to loopback
/// or link-local addresses would reach services that their owners believe closed to the network.
fn unreachable(ip: IpAddr) -> Option<&'static str> {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if ip.is_unspecified() {
        Some("the unspecified address")
    } else if ip.is_loopback() {
        Some("a loopback address")
    } else if ip.is_multicast() {
        Some("a multicast address")
    } else if link_local {
        Some("a link-local address")
    } else {
        None
    }
}

impl Meta {
    /// The value of a label, if it is text.
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.get()?.get(name)?.get().map(String::as_str)
    }

    /// The value of an annotation, if it is text.
    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get()?.get(name)?.get().map(String::as_str)
    }
}

/// Removes later equals; order stays. O(n²), for lists that are short by nature.
pub(super) fn dedup<T: PartialEq>(values: Vec<T>) -> Vec<T> {
    let mut kept = Vec::with_capacity(values.len());
    for value in values {
        if !kept.contains(&value) {
            kept.push(value);
        }
    }
    kept
}
