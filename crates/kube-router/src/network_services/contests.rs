//! Who answers where: of several Services that ask for one (address, protocol, port), the one the API server gave it
//! to; if it gave it to none, the oldest.
//!
//! Cluster IPs and NodePorts are given out once. An external address is written by whoever may write a Service, at any
//! time of its life: it must not take from another Service what that was given (CVE-2020-8554), however old its own.
//!
//! The thing planned is the virtual server, not the Service, so that a contest is settled in one place: the winner's
//! real servers are in the kernel, the losers are told, and when the winner goes the next takes over in place.

use std::collections::{HashMap, HashSet};

use linux::row::VirtualServerKey;

use super::frontends::{Frontend, Kind};
use crate::kube::model::ObjectName;

/// What a claim to an address rests on, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Given once, by the API server.
    Allocated,
    /// Given by a controller, through the Service's status.
    Assigned,
    /// Written into the Service.
    Written,
}

/// A Service that asks for a virtual server. Ordered by right, then by age, then by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claimant {
    /// How the address came to the Service: given by the API server, by a load-balancer controller, or written by
    /// whoever may write a Service.
    pub right: Right,
    /// `metadata.creationTimestamp`, seconds since 1970.
    pub created: i64,
    /// Which Service.
    pub service: ObjectName,
    /// Kind of address.
    pub kind: Kind,
    /// Index into its ports.
    pub port: usize,
}

/// The index from virtual servers to claimants, and back.
#[derive(Debug, Default)]
pub struct Contests {
    /// In order of their rights; nearly always one.
    claimants: HashMap<VirtualServerKey, Vec<Claimant>>,
    asked: HashMap<ObjectName, (i64, Vec<Frontend>)>,
}

impl Contests {
    /// Replaces what a Service asks for, and returns every virtual server that must be planned anew: all it asks for
    /// now and all it asked for before. O(its frontends).
    pub fn replace(
        &mut self,
        service: &ObjectName,
        created: i64,
        frontends: Vec<Frontend>,
    ) -> HashSet<VirtualServerKey> {
        let mut touched: HashSet<VirtualServerKey> = frontends.iter().map(|frontend| frontend.key).collect();
        if let Some((created, before)) = self.asked.remove(service) {
            for frontend in before {
                touched.insert(frontend.key);
                self.withdraw(&claimant(service, created, &frontend), &frontend.key);
            }
        }
        for frontend in &frontends {
            let (claimant, claimants) =
                (claimant(service, created, frontend), self.claimants.entry(frontend.key).or_default());
            if let Err(place) = claimants.binary_search(&claimant) {
                claimants.reserve_exact(1);
                claimants.insert(place, claimant);
            }
        }
        if !frontends.is_empty() {
            self.asked.insert(service.clone(), (created, frontends));
        }
        touched
    }

    /// Whether this is what a Service asks for already.
    pub fn asks(&self, service: &ObjectName, created: i64, frontends: &[Frontend]) -> bool {
        match self.asked.get(service) {
            Some((since, asked)) => *since == created && asked == frontends,
            None => frontends.is_empty(),
        }
    }

    /// Other Services that ask for one of these. O(log n) for each.
    pub fn rivals<'a>(
        &'a self,
        service: &'a ObjectName,
        keys: impl IntoIterator<Item = &'a VirtualServerKey>,
    ) -> impl Iterator<Item = &'a ObjectName> {
        let claimants = keys.into_iter().filter_map(|key| self.claimants.get(key)).flatten();
        claimants.map(|claimant| &claimant.service).filter(move |other| *other != service)
    }

    /// Every Service that asks for anything.
    pub fn services(&self) -> impl Iterator<Item = &ObjectName> {
        self.asked.keys()
    }

    /// Who answers there.
    pub fn winner(&self, key: &VirtualServerKey) -> Option<&Claimant> {
        self.claimants.get(key)?.first()
    }

    /// Who asks for it in vain.
    pub fn losers(&self, key: &VirtualServerKey) -> impl Iterator<Item = &Claimant> {
        self.claimants.get(key).into_iter().flat_map(|claimants| claimants.iter().skip(1))
    }

    /// What a Service asks for.
    pub fn frontends_of(&self, service: &ObjectName) -> &[Frontend] {
        self.asked.get(service).map(|(_, frontends)| frontends.as_slice()).unwrap_or_default()
    }

    /// Every virtual server asked for, with its winner. O(virtual servers).
    pub fn winners(&self) -> impl Iterator<Item = (&VirtualServerKey, &Claimant)> {
        self.claimants.iter().filter_map(|(key, claimants)| Some((key, claimants.first()?)))
    }

    fn withdraw(&mut self, claimant: &Claimant, key: &VirtualServerKey) {
        if let Some(claimants) = self.claimants.get_mut(key) {
            claimants.retain(|other| other != claimant);
            if claimants.is_empty() {
                self.claimants.remove(key);
            }
        }
    }
}

fn claimant(service: &ObjectName, created: i64, frontend: &Frontend) -> Claimant {
    let right = match frontend.kind {
        Kind::ClusterIp | Kind::NodePort => Right::Allocated,
        Kind::LoadBalancerIp => Right::Assigned,
        Kind::ExternalIp => Right::Written,
    };
    Claimant { right, created, service: service.clone(), kind: frontend.kind, port: frontend.port }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use linux::row::Protocol;

    use super::*;

    fn service(name: &str) -> ObjectName {
        ObjectName { namespace: "default".into(), name: name.into() }
    }

    fn frontend(port: u16) -> Frontend {
        let ip = IpAddr::from([198, 51, 100, 1]);
        let key = VirtualServerKey::Address { ip, protocol: Protocol::Tcp, port };
        Frontend { key, kind: Kind::ExternalIp, port: 0 }
    }

    #[test]
    fn the_older_keeps_it_whatever_the_order_of_events() {
        let mut contests = Contests::default();
        contests.replace(&service("young"), 200, vec![frontend(80)]);
        contests.replace(&service("old"), 100, vec![frontend(80)]);
        let key = frontend(80).key;
        assert_eq!(contests.winner(&key).unwrap().service, service("old"));
        assert_eq!(
            contests.losers(&key).map(|loser| &loser.service).collect::<Vec<_>>(),
            [&service("young")]
        );

        let touched = contests.replace(&service("old"), 100, vec![frontend(81)]);
        assert_eq!(touched, HashSet::from([key, frontend(81).key]));
        assert_eq!(contests.winner(&key).unwrap().service, service("young"), "the next takes over");

        let given = Frontend { kind: Kind::ClusterIp, ..frontend(80) };
        contests.replace(&service("given"), 300, vec![given]);
        assert_eq!(
            contests.winner(&key).unwrap().service,
            service("given"),
            "what is given is not for the taking"
        );
        contests.replace(&service("given"), 300, Vec::new());

        contests.replace(&service("young"), 200, Vec::new());
        assert!(contests.winner(&key).is_none());
        assert!(contests.frontends_of(&service("young")).is_empty());
    }
}
