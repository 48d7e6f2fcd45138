//! Whatever the order of events, plans end where planning from scratch begins; and an event costs what it concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use kube_router::core::Controller as _;
use kube_router::kube::model::{
    Endpoint, EndpointPort, EndpointSlice, Kind, Node, Object, ObjectName, Pod, Service, ServicePort,
    ServiceWishes, WatchEvent,
};
use kube_router::network_services::Subject;
use kube_router::objection::Objection;
use kube_router::options::Options;
use kube_router::owner::Owner;
use linux::reconciler::Claim;
use linux::row::{Protocol, Scheduler, VirtualServerKey};
use proptest::prelude::*;

use crate::cluster::{Cluster, HERE};

const SERVICES: u8 = 4;
const SLICES: u8 = 5;
const PODS: u8 = 4;

fn id(kind: &str, number: u8) -> ObjectName {
    ObjectName { namespace: format!("team-{}", number % 2).into(), name: format!("{kind}-{number}").into() }
}

/// A Service of which every bit of `shape` is a feature. Two external addresses are shared by all, so that they are
/// contested.
fn service(number: u8, shape: u16) -> Object {
    let has = |bit: u16| shape & (1 << bit) != 0;
    let port =
        |name: &str, protocol, port, node_port| ServicePort { name: name.into(), protocol, port, node_port };
    let mut ports = vec![port("http", Protocol::Tcp, 80, has(0).then_some(30_080 + u16::from(number)))];
    if has(1) {
        ports.push(port("dns", Protocol::Udp, 53, None));
    }
    let mut cluster_ips = vec![IpAddr::from([10, 96, 0, number])];
    if has(2) {
        cluster_ips.push(format!("fd00:96::{number}").parse().unwrap());
    }
    let shared = |bit: u16, last: u8| has(bit).then(|| IpAddr::from([198, 51, 100, last]));
    let scheduler = if has(3) { Scheduler::SourceHash } else { Scheduler::RoundRobin };
    Object::Service(Service {
        id: id("service", number),
        created: i64::from(shape & 3),
        cluster_ips,
        external_ips: shared(4, 1).into_iter().chain(shared(5, 2)).collect(),
        load_balancer_ips: shared(6, 1).into_iter().collect(),
        ports,
        is_load_balancer: has(6),
        affinity: has(7).then_some(60),
        internal_local: has(8),
        external_local: has(9),
        health_check_port: has(10).then_some(32_000 + u16::from(number % 2)),
        wishes: ServiceWishes {
            scheduler,
            hairpin: has(11),
            hairpin_external_ips: has(12),
            skip_load_balancer_ips: has(13),
            ..ServiceWishes::default()
        },
    })
}

/// A slice with up to four endpoints here and elsewhere; `shape` says which and in which condition.
fn slice(number: u8, of: u8, shape: u16) -> Object {
    let endpoint = |bit: u16| Endpoint {
        ip: IpAddr::from([10, 244, (bit % 2) as u8, bit as u8]),
        ready: shape & (1 << (bit + 4)) == 0,
        serving: shape & (1 << (bit + 8)) == 0,
        terminating: shape & (1 << (bit + 4)) != 0,
        node: Some(if bit.is_multiple_of(2) { HERE.into() } else { "there".into() }),
    };
    let port = |name: &str, protocol, port| EndpointPort { name: name.into(), protocol, port };
    let ports = [port("http", Protocol::Tcp, 8080), port("dns", Protocol::Udp, 5353)];
    Object::EndpointSlice(EndpointSlice {
        id: ObjectName { namespace: id("service", of).namespace, name: format!("slice-{number}").into() },
        service: id("service", of).name,
        ports: ports.into(),
        endpoints: (0..4).filter(|bit| shape & (1 << bit) != 0).map(endpoint).collect(),
        triggered: None,
    })
}

fn pod(number: u8, shape: u16) -> Object {
    let ip = |prefix: &str| format!("{prefix}{}", shape % 3 + 1).parse().unwrap();
    Object::Pod(Pod {
        id: id("pod", number),
        uid: kube_router::kube::model::PodUid::of(""),
        ips: vec![ip("10.244.0."), ip("fd00:244::")],
        node: Some(if shape & 8 == 0 { HERE.into() } else { "there".into() }),
        host_network: shape & 0x30 == 0x30,
        finished: shape & 0xc0 == 0xc0,
        terminating: shape & 0x300 == 0x300,
        grace_seconds: 7,
        labels: kube_router::kube::model::Labels::default(),
        ports: std::sync::Arc::from([]),
    })
}

fn node(shape: u16) -> Object {
    let v4 = IpAddr::from([10, 0, 0, 1 + (shape & 1) as u8]);
    let v6: IpAddr = "fd00::1".parse().unwrap();
    Object::Node(Node {
        name: HERE.into(),
        internal_ips: if shape & 2 == 0 { vec![v4] } else { vec![v4, v6] },
        external_ips: Vec::new(),
        pod_cidrs: if shape & 4 == 0 { Vec::new() } else { vec!["10.244.0.0/24".parse().unwrap()] },
        routing: Default::default(),
    })
}

#[derive(Debug, Clone)]
enum Step {
    Put(Object),
    Delete(Kind, ObjectName),
    Ignore(Kind, ObjectName),
    /// A new list of a kind that names, of what is there, only objects whose bit is set.
    Relist(Kind, u16),
    Plan,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let any_id = prop_oneof![
        (0..SERVICES).prop_map(|number| (Kind::Service, id("service", number))),
        (0..SLICES, 0..SERVICES).prop_map(|(number, of)| {
            let object = slice(number, of, 0);
            (object.kind(), object.id())
        }),
        (0..PODS).prop_map(|number| (Kind::Pod, id("pod", number))),
    ];
    let kinds = prop_oneof![Just(Kind::Service), Just(Kind::EndpointSlice), Just(Kind::Pod)];
    let step = prop_oneof![
        6 => (0..SERVICES, any::<u16>()).prop_map(|(number, shape)| Step::Put(service(number, shape))),
        6 => (0..SLICES, 0..SERVICES, any::<u16>()).prop_map(|(n, of, shape)| Step::Put(slice(n, of, shape))),
        3 => (0..PODS, any::<u16>()).prop_map(|(number, shape)| Step::Put(pod(number, shape))),
        1 => any::<u16>().prop_map(|shape| Step::Put(node(shape))),
        2 => any_id.clone().prop_map(|(kind, id)| Step::Delete(kind, id)),
        1 => any_id.prop_map(|(kind, id)| Step::Ignore(kind, id)),
        1 => (kinds, any::<u16>()).prop_map(|(kind, kept)| Step::Relist(kind, kept)),
        4 => Just(Step::Plan),
        1 => (1u64..40).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..60)
}

fn put(object: Object) -> WatchEvent {
    WatchEvent::Applied(object, Vec::new())
}

/// The objects there are, by kind and name.
type Present = BTreeMap<(Kind, ObjectName), Object>;

fn relist(cluster: &mut Cluster, present: &mut Present, kind: Kind, kept: u16) {
    cluster.apply(WatchEvent::ListBegins(kind));
    let of_kind: Vec<_> = present.keys().filter(|(other, _)| *other == kind).cloned().collect();
    for (place, key) in of_kind.into_iter().enumerate() {
        if kept & (1 << (place % 16)) == 0 {
            present.remove(&key);
        } else if let Some(object) = present.get(&key) {
            cluster.apply(put(object.clone()));
        }
    }
    cluster.apply(WatchEvent::ListEnds(kind));
}

fn run(steps: Vec<Step>, flags: &[&str], begin: Instant) -> (Cluster, Present, Instant) {
    let mut cluster = Cluster::new(Options::from_flags(flags).unwrap());
    let mut present = Present::new();
    let mut now = begin;
    for step in std::iter::once(Step::Put(node(0))).chain(steps) {
        match step {
            Step::Put(object) => {
                present.insert((object.kind(), object.id()), object.clone());
                cluster.apply(put(object));
            }
            Step::Delete(kind, id) => {
                present.remove(&(kind, id.clone()));
                cluster.apply(WatchEvent::Deleted(kind, id));
            }
            Step::Ignore(kind, id) => {
                present.remove(&(kind, id.clone()));
                cluster.apply(WatchEvent::Ignored(kind, id, Vec::new()));
            }
            Step::Relist(kind, kept) => relist(&mut cluster, &mut present, kind, kept),
            Step::Plan => {
                cluster.plan(now);
                cluster.rows(|_| true); // no two owners disagree, at any time
            }
            Step::Wait(seconds) => now += Duration::from_secs(seconds),
        }
    }
    cluster.plan(now);
    cluster.rows(|_| true);
    (cluster, present, now)
}

fn from_scratch(present: Present, flags: &[&str], now: Instant) -> Cluster {
    let mut cluster = Cluster::new(Options::from_flags(flags).unwrap());
    // Backwards, to meet them in another order than the one they came in.
    present.into_values().rev().for_each(|object| cluster.apply(put(object)));
    cluster.plan(now);
    cluster
}

fn sorted(cluster: &Cluster) -> BTreeMap<Owner, Vec<Claim>> {
    let sort = |claims: &Vec<Claim>| {
        let mut claims = claims.clone();
        claims.sort_by(|a, b| a.key.cmp(&b.key));
        claims.dedup();
        claims
    };
    cluster.wanted.iter().map(|(owner, claims)| (owner.clone(), sort(claims))).collect()
}

fn objections(cluster: &Cluster) -> Vec<Objection> {
    cluster.objections.iter().cloned().collect()
}

const OPEN: &str = "--strict-external-ip-validation=false";

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_events_ends_as_from_scratch(steps in steps()) {
        let flags = [OPEN];
        let (cluster, present, now) = run(steps, &flags, Instant::now());
        let fresh = from_scratch(present, &flags, now);
        prop_assert_eq!(sorted(&cluster), sorted(&fresh));
        prop_assert_eq!(objections(&cluster), objections(&fresh));
        prop_assert_eq!(cluster.services.health_ports().wanted(), fresh.services.health_ports().wanted());
    }

    /// Drains end. What is left then is what there would be without them.
    #[test]
    fn drains_leave_nothing_behind(steps in steps()) {
        let flags = [OPEN, "--hairpin-mode", "--nodeport-bindon-all-ip", "--ipvs-graceful-termination"];
        let (mut cluster, present, now) = run(steps, &flags, Instant::now());
        let later = now + Duration::from_secs(3600);
        cluster.plan(later);
        let fresh = from_scratch(present, &flags, later);
        prop_assert_eq!(sorted(&cluster), sorted(&fresh));
        prop_assert_eq!(cluster.services.next_deadline(), None);
        prop_assert_eq!(cluster.plan(later), BTreeSet::new(), "nothing happened, nothing is planned");
    }
}

#[test]
fn an_event_plans_only_what_it_concerns() {
    let mut cluster = Cluster::new(Options::from_flags(&[]).unwrap());
    let now = Instant::now();
    cluster.apply(put(node(0)));
    for number in 0..100 {
        cluster.apply(put(service(number, 0b11)));
        cluster.apply(put(slice(number, number, 0b1111)));
        cluster.apply(put(pod(number, 0)));
    }
    assert_eq!(cluster.plan(now).len(), 300 + 4, "three each, and the node's own");

    let server = |ip: [u8; 4], protocol, port| {
        Owner::from(Subject::VirtualServer(VirtualServerKey::Address { ip: ip.into(), protocol, port }))
    };
    let of_the_seventh = BTreeSet::from([
        server([10, 96, 0, 7], Protocol::Tcp, 80),
        server([10, 96, 0, 7], Protocol::Udp, 53),
        server([10, 0, 0, 1], Protocol::Tcp, 30_087),
    ]);
    cluster.apply(put(slice(7, 7, 0b0111)));
    assert_eq!(cluster.plan(now), of_the_seventh, "an endpoint went");
    cluster.apply(put(service(7, 0b1011)));
    assert_eq!(cluster.plan(now), of_the_seventh, "another scheduler");
    cluster.apply(put(service(7, 0b1011)));
    assert_eq!(cluster.plan(now), BTreeSet::new(), "the same again");
    cluster.apply(put(slice(6, 200, 0b1111)));
    assert_eq!(cluster.plan(now).len(), 3, "a slice that left its Service for one that is not there");
    cluster.apply(put(pod(7, 1)));
    assert_eq!(cluster.plan(now), BTreeSet::from([Subject::NodePods.into()]), "a pod changed its address");
    cluster.apply(put(pod(101, 8)));
    assert_eq!(cluster.plan(now), BTreeSet::new(), "a pod of another node");
}
