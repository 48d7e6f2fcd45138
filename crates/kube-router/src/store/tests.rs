use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::kube::model::{EndpointPort, Labels, PodUid, Selector, ServicePort, ServiceWishes};
use linux::row::Protocol;

fn id(namespace: &str, name: &str) -> ObjectName {
    ObjectName { namespace: namespace.into(), name: name.into() }
}

fn service(id: ObjectName, port: u16) -> Object {
    Object::Service(Service {
        id,
        created: 0,
        cluster_ips: vec!["10.96.0.1".parse().expect("an address")],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        ports: vec![ServicePort { name: "".into(), protocol: Protocol::Tcp, port, node_port: None }],
        is_load_balancer: false,
        affinity: None,
        internal_local: false,
        external_local: false,
        health_check_port: None,
        wishes: ServiceWishes::default(),
    })
}

fn endpoint(last: u8) -> Endpoint {
    Endpoint {
        ip: [10, 1, 0, last].into(),
        ready: true,
        serving: true,
        terminating: false,
        node: Some("node-1".into()),
    }
}

fn slice(id: ObjectName, service: &str, lasts: &[u8], triggered: Option<i64>) -> Object {
    let ports: Arc<[EndpointPort]> =
        [EndpointPort { name: "".into(), protocol: Protocol::Tcp, port: 80 }].into();
    let endpoints = lasts.iter().copied().map(endpoint).collect();
    Object::EndpointSlice(EndpointSlice { id, service: service.into(), ports, endpoints, triggered })
}

fn node(name: &str, last: u8) -> Object {
    let internal_ips = vec![[10, 0, 0, last].into()];
    Object::Node(Node {
        name: name.into(),
        internal_ips,
        external_ips: Vec::new(),
        pod_cidrs: Vec::new(),
        routing: Arc::default(),
    })
}

fn pod(id: ObjectName, last: u8) -> Object {
    let ips = vec![[10, 1, 0, last].into()];
    Object::Pod(Pod {
        id,
        uid: PodUid::of(""),
        ips,
        node: None,
        host_network: false,
        finished: false,
        terminating: false,
        grace_seconds: 30,
        labels: Labels::default(),
        ports: Arc::from([]),
    })
}

fn objection(kind: Kind, id: &ObjectName, value: &str) -> Objection {
    Objection {
        object: id.of_kind(kind),
        field: "spec".into(),
        value: value.into(),
        reason: "is bad".into(),
        remedy: "mend it".into(),
    }
}

fn applied(object: Object) -> WatchEvent {
    WatchEvent::Applied(object, Vec::new())
}

fn store() -> Store {
    Store::new("node-1".into())
}

fn services(ids: &[ObjectName]) -> Dirty {
    Dirty { services: ids.iter().cloned().collect(), ..Dirty::default() }
}

#[test]
fn slices_dirty_their_service_once_it_is_known() {
    let (mut store, web) = (store(), id("shop", "web"));
    assert!(store.apply(applied(slice(id("shop", "web-1"), "web", &[1], None))).is_empty());
    assert_eq!(store.apply(applied(service(web.clone(), 80))), services(std::slice::from_ref(&web)));
    assert_eq!(store.endpoints(&web).count(), 1);
    let two = slice(id("shop", "web-1"), "web", &[1, 2], None);
    assert_eq!(store.apply(applied(two.clone())), services(std::slice::from_ref(&web)));
    assert!(store.apply(applied(two)).is_empty(), "nothing changed");
    let ips: Vec<_> =
        store.endpoints(&web).map(|(slice, endpoint)| (slice.ports.len(), endpoint.ip)).collect();
    assert_eq!(ips, [(1, [10, 1, 0, 1].into()), (1, [10, 1, 0, 2].into())]);
}

#[test]
fn a_new_trigger_time_alone_is_kept_and_dirties_nothing() {
    let (mut store, web) = (store(), id("shop", "web"));
    store.apply(applied(service(web.clone(), 80)));
    store.apply(applied(slice(id("shop", "web-1"), "web", &[1], Some(1))));
    assert!(store.apply(applied(slice(id("shop", "web-1"), "web", &[1], Some(2)))).is_empty());
    assert_eq!(store.slices(&web).next().and_then(|slice| slice.triggered), Some(2));
}

#[test]
fn a_slice_that_changes_its_service_dirties_both() {
    let (mut store, web, api) = (store(), id("shop", "web"), id("shop", "api"));
    store.apply(applied(service(web.clone(), 80)));
    store.apply(applied(service(api.clone(), 80)));
    store.apply(applied(slice(id("shop", "x"), "web", &[1], None)));
    let dirty = store.apply(applied(slice(id("shop", "x"), "api", &[1], None)));
    assert_eq!(dirty, services(&[web.clone(), api.clone()]));
    assert_eq!((store.endpoints(&web).count(), store.endpoints(&api).count()), (0, 1));
    assert_eq!(store.apply(WatchEvent::Deleted(Kind::EndpointSlice, id("shop", "x"))), services(&[api]));
}

#[test]
fn equal_names_in_different_namespaces_never_meet() {
    let mut store = store();
    for (namespace, name) in [("team", "a-web"), ("team-a", "web")] {
        store.apply(applied(service(id(namespace, name), 80)));
    }
    store.apply(applied(slice(id("team", "s"), "a-web", &[1], None)));
    assert_eq!(store.endpoints(&id("team", "a-web")).count(), 1);
    assert_eq!(store.endpoints(&id("team-a", "web")).count(), 0);
}

#[test]
fn a_list_removes_only_at_its_end_what_it_did_not_name() {
    let (mut store, [a, b, c]) = (store(), [id("n", "a"), id("n", "b"), id("n", "c")]);
    assert!(store.apply(WatchEvent::ListBegins(Kind::Service)).is_empty());
    for id in [&a, &b] {
        store.apply(applied(service(id.clone(), 80)));
    }
    assert!(!store.synced(Kind::Service));
    assert_eq!(store.apply(WatchEvent::ListEnds(Kind::Service)).synced, BTreeSet::from([Kind::Service]));
    assert!(store.synced(Kind::Service) && !store.synced(Kind::Pod));

    // a list that breaks off removes nothing, nor does its successor before it is complete
    store.apply(WatchEvent::ListBegins(Kind::Service));
    store.apply(WatchEvent::Broken(Kind::Service, "away".into()));
    assert_eq!(store.broken(Kind::Service), Some("away"));
    store.apply(WatchEvent::ListBegins(Kind::Service));
    assert_eq!(store.broken(Kind::Service), None);
    assert_eq!(store.apply(applied(service(c.clone(), 80))), services(std::slice::from_ref(&c)));
    assert!(store.apply(applied(service(a.clone(), 80))).is_empty());
    assert!(store.service(&b).is_some() && store.synced(Kind::Service));
    assert_eq!(store.apply(WatchEvent::ListEnds(Kind::Service)), services(std::slice::from_ref(&b)));
    assert!(store.service(&b).is_none() && store.service(&a).is_some() && store.service(&c).is_some());
}

#[test]
fn what_is_ignored_is_absent() {
    let (mut store, web) = (store(), id("n", "web"));
    store.apply(applied(service(web.clone(), 80)));
    let dirty = store.apply(WatchEvent::Ignored(Kind::Service, web.clone(), Vec::new()));
    assert_eq!((dirty, store.service(&web)), (services(&[web]), None));
}

#[test]
fn our_own_node_is_told_apart() {
    let mut store = store();
    let dirty = store.apply(applied(node("node-2", 2)));
    assert!(dirty.nodes.contains("node-2") && !dirty.own_node);
    assert!(store.apply(applied(node("node-1", 1))).own_node);
    assert!(store.apply(applied(node("node-1", 1))).is_empty());
    assert!(store.own_node().is_some());
    assert!(store.apply(WatchEvent::Deleted(Kind::Node, ObjectName::cluster_wide("node-1".into()))).own_node);
}

#[test]
fn objections_are_new_once_and_end_with_their_object() {
    let (mut store, web) = (store(), id("n", "web"));
    let bad =
        |value| WatchEvent::Applied(service(web.clone(), 80), vec![objection(Kind::Service, &web, value)]);
    assert_eq!(store.apply(bad("x")).objections.len(), 1);
    assert!(store.apply(bad("x")).is_empty(), "said before");
    assert_eq!(store.apply(bad("y")).objections, [objection(Kind::Service, &web, "y")]);
    store.apply(applied(service(web.clone(), 80)));
    assert!(store.objections().is_empty());

    let ignored = vec![objection(Kind::Service, &web, "z")];
    assert_eq!(store.apply(WatchEvent::Ignored(Kind::Service, web.clone(), ignored)).objections.len(), 1);
    store.apply(WatchEvent::ListBegins(Kind::Service));
    assert_eq!(store.objections().len(), 1);
    store.apply(WatchEvent::ListEnds(Kind::Service));
    assert!(store.objections().is_empty(), "the object is gone");
}

/// By far the most numerous value of a large cluster; `tests/store_memory.rs` measures what one costs in all.
#[test]
fn an_endpoint_is_small() {
    assert!(size_of::<Endpoint>() <= 56, "{}", size_of::<Endpoint>());
}

/// What the cluster may hold of one object: nothing, or one of a few versions of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Absent,
    Ignored,
    As(u8),
}

const OBJECTS: usize = 18;

/// The object number `number` as it is in a version; three of each kind, slices pointing at changing services.
fn event(number: usize, version: Version) -> WatchEvent {
    let name = ["a", "b", "c"][number % 3];
    let kind = Kind::ALL[number / 3];
    let id = if matches!(kind, Kind::Node | Kind::Namespace) {
        ObjectName::cluster_wide(format!("node-{}", number % 3).into())
    } else {
        id("n", name)
    };
    let value = match version {
        Version::Absent => return WatchEvent::Deleted(kind, id),
        Version::Ignored => {
            let objections = vec![objection(kind, &id, "ignored")];
            return WatchEvent::Ignored(kind, id, objections);
        }
        Version::As(value) => value,
    };
    let objections = if value == 2 { vec![objection(kind, &id, "two")] } else { Vec::new() };
    let object = match kind {
        Kind::Service => service(id, 80 + u16::from(value)),
        Kind::EndpointSlice => {
            slice(id, ["a", "b", "c"][usize::from(value) % 3], &[value], Some(i64::from(value)))
        }
        Kind::Node => node(&id.name, value),
        Kind::Pod => pod(id, value),
        Kind::Namespace => Object::Namespace(Namespace {
            name: id.name.clone(),
            labels: [("value".into(), value.to_string().into())].into_iter().collect(),
        }),
        Kind::NetworkPolicy => Object::NetworkPolicy(NetworkPolicy {
            id: id.clone(),
            target: Selector::default(),
            ingress: (value % 2 == 0).then(Vec::new),
            egress: (value > 1).then(Vec::new),
        }),
    };
    WatchEvent::Applied(object, objections)
}

/// What a plan can see of a store.
fn view(store: &Store) -> String {
    let endpoints: Vec<_> = store
        .services()
        .map(|service| (&service.id, store.endpoints(&service.id).collect::<Vec<_>>()))
        .collect();
    let nodes: Vec<_> = store.nodes().collect();
    let pods: Vec<_> = store.pods().collect();
    let policies: Vec<_> = store.policies().collect();
    let namespaces: Vec<_> = store.namespaces().collect();
    let objections: Vec<_> = store.objections().iter().collect();
    let services: Vec<_> = store.services().collect();
    format!("{:#?}", (services, endpoints, nodes, pods, policies, namespaces, objections))
}

/// What the plan of one service can see.
fn view_of(store: &Store, service: &ObjectName) -> String {
    let endpoints: Vec<_> = store
        .endpoints(service)
        .map(|(slice, endpoint)| (&slice.id, &slice.ports, endpoint))
        .filter(|_| store.service(service).is_some())
        .collect();
    format!("{:?}", (store.service(service), endpoints))
}

fn list(store: &mut Store, kind: Kind, cluster: &[Version], order: &[usize]) -> Dirty {
    let mut dirty = store.apply(WatchEvent::ListBegins(kind));
    for &number in order.iter().filter(|&&number| Kind::ALL[number / 3] == kind) {
        if cluster[number] != Version::Absent {
            dirty.merge(store.apply(event(number, cluster[number])));
        }
    }
    dirty.merge(store.apply(WatchEvent::ListEnds(kind)));
    dirty
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![1 => Just(Version::Absent), 1 => Just(Version::Ignored), 4 => (0..4u8).prop_map(Version::As)]
}

#[derive(Debug, Clone)]
enum Happens {
    /// An object changes.
    Change(usize, Version),
    /// The last version of an object arrives again.
    Again(usize),
    /// A watch lists anew, in some order, after changes it did not tell one by one.
    Relist(Vec<(usize, Version)>, Vec<usize>),
    /// A list breaks off in the middle.
    HalfList(Kind, usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    let order = Just((0..OBJECTS).collect::<Vec<_>>()).prop_shuffle();
    prop_oneof![
        6 => (0..OBJECTS, version()).prop_map(|(number, version)| Happens::Change(number, version)),
        1 => (0..OBJECTS).prop_map(Happens::Again),
        2 => (prop::collection::vec((0..OBJECTS, version()), 0..4), order)
            .prop_map(|(changes, order)| Happens::Relist(changes, order)),
        1 => (prop::sample::select(&Kind::ALL[..]), 0..3usize).prop_map(|(kind, named)| Happens::HalfList(kind, named)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happened on the way: the same objects make the same store; every object that looks
    /// different afterwards was named dirty in between; and events that change nothing name nothing.
    #[test]
    fn the_way_does_not_matter(
        history in prop::collection::vec(happens(), 0..40),
        order in Just((0..OBJECTS).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut store = store();
        let mut cluster = [Version::Absent; OBJECTS];
        for happens in history {
            let before: Vec<_> = ["a", "b", "c"].iter().map(|name| view_of(&store, &id("n", name))).collect();
            let nodes: Vec<_> = (0..3).map(|n| store.node(&format!("node-{n}")).cloned()).collect();
            let pods: Vec<_> = ["a", "b", "c"].iter().map(|name| store.pod(&id("n", name)).cloned()).collect();
            let policies: Vec<_> =
                ["a", "b", "c"].iter().map(|name| store.policy(&id("n", name)).cloned()).collect();
            let namespaces: Vec<_> = (0..3).map(|n| store.namespace(&format!("node-{n}")).cloned()).collect();
            let mut dirty = Dirty::default();
            match happens {
                Happens::Change(number, version) => {
                    cluster[number] = version;
                    dirty.merge(store.apply(event(number, version)));
                }
                Happens::Again(number) => {
                    let again = store.apply(event(number, cluster[number]));
                    prop_assert!(again.is_empty(), "{again:?}");
                }
                Happens::Relist(changes, order) => {
                    for (number, version) in changes {
                        cluster[number] = version;
                    }
                    for kind in Kind::ALL {
                        dirty.merge(list(&mut store, kind, &cluster, &order));
                    }
                }
                Happens::HalfList(kind, named) => {
                    dirty.merge(store.apply(WatchEvent::ListBegins(kind)));
                    let first = Kind::ALL.iter().position(|of| *of == kind).unwrap_or_default() * 3;
                    for (number, version) in cluster.iter().enumerate().skip(first).take(named) {
                        dirty.merge(store.apply(event(number, *version)));
                    }
                    dirty.merge(store.apply(WatchEvent::Broken(kind, "away".into())));
                    // the list that must follow
                    dirty.merge(list(&mut store, kind, &cluster, &order));
                    dirty.synced.clear();
                    prop_assert!(dirty.is_empty(), "{dirty:?}");
                }
            }
            for (index, name) in ["a", "b", "c"].iter().enumerate() {
                let changed = view_of(&store, &id("n", name)) != before[index];
                prop_assert_eq!(changed, dirty.services.contains(&id("n", name)), "service {}", name);
                let changed = store.pod(&id("n", name)) != pods[index].as_ref();
                prop_assert_eq!(changed, dirty.pods.contains(&id("n", name)), "pod {}", name);
                let changed = store.policy(&id("n", name)) != policies[index].as_ref();
                prop_assert_eq!(changed, dirty.policies.contains(&id("n", name)), "policy {}", name);
                let name = format!("node-{index}");
                let changed = store.namespace(&name) != namespaces[index].as_ref();
                prop_assert_eq!(changed, dirty.namespaces.contains(&*name), "namespace {}", name);
                let changed = store.node(&format!("node-{index}")) != nodes[index].as_ref();
                prop_assert_eq!(changed, dirty.nodes.contains(&*format!("node-{index}")), "node {}", index);
            }
        }

        let mut from_scratch = self::store();
        let mut all = Dirty::default();
        for kind in Kind::ALL {
            all.merge(list(&mut from_scratch, kind, &cluster, &order));
        }
        prop_assert_eq!(view(&store), view(&from_scratch));
        let everything: BTreeSet<_> = from_scratch.services().map(|service| service.id.clone()).collect();
        prop_assert_eq!(all.services, everything);
    }
}
