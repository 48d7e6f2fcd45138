//! What may be in the kernel without what: first the sets by which the firewall and a successor know a service, then
//! the virtual server, then the address that attracts traffic, then its route; and back in reverse.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use kube_router::kube::model::{
    Endpoint, EndpointPort, EndpointSlice, Node, Object, ObjectName, Service, ServicePort, ServiceWishes,
    WatchEvent,
};
use kube_router::names;
use kube_router::network_services::{Subject, base};
use kube_router::options::Options;
use kube_router::owner::Owner;
use linux::lane::Job;
use linux::reconciler::{Gate, Reconciler};
use linux::row::{Family, Key, LaneName, Member, Protocol, Row, SetKey, Table, VirtualServerKey};

use crate::cluster::{Cluster, HERE};

fn name(name: &str) -> ObjectName {
    ObjectName { namespace: "default".into(), name: name.into() }
}

/// Every sort of row there is: both families, a NodePort, hairpin.
fn everything() -> Cluster {
    let mut cluster = Cluster::new(Options::from_flags(&["--service-tcp-timeout=60s"]).unwrap());
    let ips = |texts: [&str; 2]| texts.map(|text| text.parse::<IpAddr>().unwrap()).to_vec();
    let port =
        ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: Some(30_080) };
    let service = Service {
        id: name("web"),
        created: 0,
        cluster_ips: ips(["10.96.0.1", "fd00:96::1"]),
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        ports: vec![port],
        is_load_balancer: false,
        affinity: None,
        internal_local: false,
        external_local: false,
        health_check_port: None,
        wishes: ServiceWishes { hairpin: true, ..ServiceWishes::default() },
    };
    let endpoint =
        |ip: IpAddr| Endpoint { ip, ready: true, serving: true, terminating: false, node: Some(HERE.into()) };
    let slice = EndpointSlice {
        id: name("web-1"),
        service: "web".into(),
        ports: [EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }].into(),
        endpoints: ips(["10.244.0.5", "fd00:244::5"]).into_iter().map(endpoint).collect(),
        triggered: None,
    };
    let node = Node {
        name: HERE.into(),
        internal_ips: ips(["10.0.0.1", "fd00::1"]),
        external_ips: Vec::new(),
        pod_cidrs: Vec::new(),
        routing: Default::default(),
    };
    for object in [Object::Node(node), Object::Service(service), Object::EndpointSlice(slice)] {
        cluster.apply(WatchEvent::Applied(object, Vec::new()));
    }
    cluster.plan(Instant::now());
    cluster
}

fn member(set: &str, ip: IpAddr, member: Member) -> Key {
    Key::Member(SetKey { family: Family::of(&ip), name: set.into() }.into(), member)
}

fn service_ip(ip: IpAddr) -> Key {
    member(names::set::SERVICE_IPS, ip, Member::Ip(ip))
}

fn ledger(server: &VirtualServerKey) -> Key {
    let VirtualServerKey::Address { ip, protocol, port } = *server else { panic!("{server:?}") };
    member(names::set::SERVICE_PORTS, ip, Member::IpPort(ip, protocol, port))
}

fn is_virtual_server(owner: &Owner) -> bool {
    matches!(owner, Owner::Services(Subject::VirtualServer(_)))
}

/// What each row of a virtual server's plan must wait for beyond what it stands on by itself.
fn expected(owner: &Owner, key: &Key) -> BTreeSet<Key> {
    let Owner::Services(Subject::VirtualServer(server)) = owner else { return BTreeSet::new() };
    let VirtualServerKey::Address { ip, .. } = *server else { panic!("{server:?}") };
    let own = ip.to_string() == "10.0.0.1" || ip.to_string() == "fd00::1";
    match key {
        Key::VirtualServer(_) => BTreeSet::from([ledger(server)]),
        Key::Address { .. } => BTreeSet::from([Key::VirtualServer(*server), service_ip(ip)]),
        Key::Route { destination, .. } => {
            BTreeSet::from([Key::Address { link: names::link::DUMMY.into(), net: *destination }])
        }
        key if *key == service_ip(ip) => {
            let local = own.then(|| member(names::set::LOCAL_IPS, ip, Member::Ip(ip)));
            local.into_iter().chain([ledger(server)]).collect()
        }
        Key::RealServer(..) | Key::Member(..) => BTreeSet::new(),
        other => panic!("{other:?} has no place in the plan of {owner}"),
    }
}

#[test]
fn every_claim_waits_for_what_it_needs() {
    let cluster = everything();
    let mut sorts = BTreeSet::new();
    for (owner, claims) in &cluster.wanted {
        for claim in claims {
            let after: BTreeSet<Key> = claim.after.iter().cloned().collect();
            assert_eq!(after, expected(owner, &claim.key), "{owner}: {:?}", claim.key);
            sorts.insert(claim.key.table());
        }
    }
    // The only rows the service proxy has none of.
    let others =
        [Table::PolicyRules, Table::FouPorts, Table::CniConfigs, Table::VerdictMaps, Table::Verdicts];
    let all = Table::ALL.into_iter().filter(|table| !others.contains(table));
    assert_eq!(sorts, all.collect::<BTreeSet<_>>(), "every sort of row is looked at");
    assert!(base::settings().count() > 0);

    // What is waited for, and what a row stands on, is wanted by somebody: nothing waits in vain.
    let rows = cluster.rows(|_| true);
    for claim in cluster.wanted.values().flatten() {
        for needed in claim.after.iter().chain(&claim.row.holds(&claim.key)) {
            assert!(rows.contains_key(needed), "{:?} needs {needed:?}, which nobody wants", claim.key);
        }
    }
}

/// Whatever else holds between two steps of any lane, no address attracts what is not served or not let in, and no
/// virtual server is without its mark of ownership.
fn hold_together(kernel: &BTreeMap<Key, Row>) {
    for key in kernel.keys() {
        match key {
            Key::Address { net, .. } => {
                assert!(kernel.contains_key(&service_ip(net.addr())), "{net} is not in the firewall");
                let served = kernel.keys().any(
                    |key| matches!(key, Key::VirtualServer(VirtualServerKey::Address { ip, .. }) if *ip == net.addr()),
                );
                assert!(served, "nobody answers at {net}");
            }
            Key::VirtualServer(server) => {
                assert!(kernel.contains_key(&ledger(server)), "{server:?} could be anybody's");
            }
            _ => {}
        }
    }
}

#[test]
fn no_step_of_any_lane_leaves_a_service_half_there() {
    let now = Instant::now();
    for first in 0..LaneName::ALL.len() {
        let (mut reconciler, mut kernel) = (Reconciler::<Owner>::new(), BTreeMap::new());
        let cluster = everything();
        reconciler.allow_removals([Gate::all()]);
        for (owner, claims) in &cluster.wanted {
            reconciler.set(owner, claims.clone());
        }
        settle(&mut reconciler, &mut kernel, first, now);
        assert_eq!(kernel, cluster.rows(|_| true));
        for owner in cluster.wanted.keys().filter(|owner| is_virtual_server(owner)) {
            reconciler.set(owner, Vec::new());
        }
        settle(&mut reconciler, &mut kernel, first, now);
        let left =
            |key: &&Key| matches!(key, Key::VirtualServer(_) | Key::Address { .. } | Key::Route { .. });
        assert_eq!(kernel.keys().filter(left).count(), 0);
    }
}

/// Gives every lane its jobs in turn, beginning with one of them, and looks at the kernel after each stage.
fn settle(reconciler: &mut Reconciler<Owner>, kernel: &mut BTreeMap<Key, Row>, first: usize, now: Instant) {
    for turn in 0..200 {
        let lane = LaneName::ALL[(first + turn) % LaneName::ALL.len()];
        match reconciler.next_job(lane, now) {
            Some(Job::Read) => {
                let rows = kernel.clone().into_iter().filter(|(key, _)| key.lane() == lane).collect();
                reconciler.was_read(lane, rows, |_, _| true);
            }
            Some(Job::Apply(stages)) => {
                let mut outcomes = Vec::new();
                for change in stages.into_iter().flatten() {
                    match change.to {
                        Some(row) => drop(kernel.insert(change.key.clone(), row)),
                        None => kernel.retain(|key, _| {
                            *key != change.key && key.container().as_ref() != Some(&change.key)
                        }),
                    }
                    hold_together(kernel);
                    outcomes.push((change.key, Ok(())));
                }
                reconciler.applied(lane, outcomes, now);
            }
            None => {}
        }
    }
}
