use linux::row::Protocol;

use super::*;
use crate::kube::model::{
    Namespace, NetworkPolicy, Operator, Peer, Pod, PodUid, PolicyPort, PolicyRule, PortRange, Requirement,
    Selector,
};
use crate::network_policy::Touched;
use crate::network_policy::selections::SetKind;

fn id(namespace: &str, name: &str) -> ObjectName {
    ObjectName { namespace: namespace.into(), name: name.into() }
}

fn labels(app: &str) -> Labels {
    [("app".into(), app.into())].into_iter().collect()
}

fn selector(app: &str) -> Selector {
    let operator = Operator::of_values(true, [app.into()]);
    [Requirement { key: "app".into(), operator }].into_iter().collect()
}

fn pod(id: &ObjectName, app: &str, last: u8, node: &str) -> Pod {
    Pod {
        id: id.clone(),
        uid: PodUid::of(""),
        ips: vec![[10, 0, 0, last].into()],
        node: Some(node.into()),
        host_network: false,
        finished: false,
        terminating: false,
        grace_seconds: 30,
        labels: labels(app),
        ports: Arc::from([NamedPort { name: "http".into(), protocol: Protocol::Tcp, port: 80 }]),
    }
}

/// To pods `target`, from pods `from` of its namespace, at port `http`.
fn policy(id: &ObjectName, target: &str, from: &str) -> NetworkPolicy {
    let peer = Peer::Pods { namespaces: None, pods: selector(from) };
    let port = PolicyPort { protocol: Protocol::Tcp, port: PortRange::Named("http".into()) };
    let rule = PolicyRule { peers: Some(vec![peer]), ports: Some(vec![port]) };
    NetworkPolicy { id: id.clone(), target: selector(target), ingress: Some(vec![rule]), egress: None }
}

struct Fixture {
    index: Index,
    touched: Touched,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture { index: Index::new("here".into(), true, false), touched: Touched::default() }
    }

    fn pod(&mut self, name: &str, as_now: Option<(&str, u8, &str)>) -> Touched {
        let id = id("shop", name);
        let pod = as_now.map(|(app, last, node)| Arc::new(pod(&id, app, last, node)));
        self.index.pod_changed(&id, pod.as_ref(), &mut self.touched);
        std::mem::take(&mut self.touched)
    }

    fn policy(&mut self, name: &str, as_now: Option<(&str, &str)>) -> Touched {
        let id = id("shop", name);
        let policy = as_now.map(|(target, from)| policy(&id, target, from));
        self.index.policy_changed(&id, policy.as_ref(), &mut self.touched);
        std::mem::take(&mut self.touched)
    }

    fn sets_of(&self, name: &str) -> Vec<SetKind> {
        let (_, group) = self.index.pod(&id("shop", name)).expect("a pod");
        let selections = group.selections.iter().filter_map(|number| self.index.selections.get(*number));
        selections.flat_map(|selection| selection.sets.keys().cloned()).collect()
    }
}

fn names(ids: &BTreeSet<ObjectName>) -> Vec<&str> {
    ids.iter().map(|id| &*id.name).collect()
}

#[test]
fn a_policy_is_in_force_while_it_selects_a_pod_of_this_node() {
    let mut fixture = Fixture::new();
    fixture.pod("db-0", Some(("db", 3, "there")));
    fixture.pod("web-0", Some(("web", 2, "there")));
    let touched = fixture.policy("to-web", Some(("web", "db")));
    assert_eq!(touched, Touched::default(), "it selects no pod here");
    assert_eq!(fixture.sets_of("db-0"), []);

    let touched = fixture.pod("web-1", Some(("web", 1, "here")));
    assert_eq!(names(&touched.policies), ["to-web"]);
    assert_eq!(names(&touched.pods), ["web-1"]);
    assert!(touched.members.contains(&id("shop", "db-0")), "its peers are in a set now: {touched:?}");
    assert_eq!(fixture.sets_of("db-0"), [SetKind::Addresses]);
    assert!(fixture.index.in_force(&id("shop", "to-web")).is_some());

    let touched = fixture.pod("web-1", None);
    assert_eq!(names(&touched.policies), ["to-web"]);
    assert!(touched.members.contains(&id("shop", "db-0")));
    assert_eq!(fixture.sets_of("db-0"), []);
    assert!(fixture.index.in_force(&id("shop", "to-web")).is_none());
}

#[test]
fn a_pod_elsewhere_touches_its_own_members_only() {
    let mut fixture = Fixture::new();
    fixture.pod("web-0", Some(("web", 1, "here")));
    fixture.policy("to-web", Some(("web", "db")));
    fixture.pod("db-0", Some(("db", 3, "there")));
    let touched = fixture.pod("db-1", Some(("db", 4, "there")));
    let members = [id("shop", "db-1")].into();
    assert_eq!(touched, Touched { members, ..Touched::default() });
    assert_eq!(fixture.sets_of("db-1"), [SetKind::Addresses]);
    let touched = fixture.pod("db-1", Some(("db", 4, "there")));
    assert_eq!(touched, Touched::default(), "nothing changed");
    // Its flows are looked at when it changes sides, not when it comes or goes.
    let touched = fixture.pod("db-1", Some(("other", 4, "there")));
    assert_eq!(touched.flows, [[10, 0, 0, 4].into()].into());
    assert_eq!(fixture.pod("db-1", None).flows, BTreeSet::new());
}

#[test]
fn an_edit_keeps_the_sets_both_versions_need() {
    let mut fixture = Fixture::new();
    fixture.pod("web-0", Some(("web", 1, "here")));
    fixture.pod("db-0", Some(("db", 3, "there")));
    fixture.policy("to-web", Some(("web", "db")));
    let touched = fixture.policy("to-web", Some(("web", "db")));
    assert_eq!(touched.members, BTreeSet::new(), "no member comes or goes");
    let touched = fixture.policy("to-web", Some(("web", "cache")));
    assert_eq!(names(&touched.members), ["db-0"]);
    assert_eq!(names(&touched.pods), ["web-0"]);
    assert_eq!(touched.flows, [[10, 0, 0, 1].into()].into(), "running flows are judged anew");
}

#[test]
fn two_pods_of_one_address_are_told_apart() {
    let mut fixture = Fixture::new();
    let ip = [10, 0, 0, 9].into();
    fixture.pod("old", Some(("web", 9, "here")));
    fixture.pod("new", Some(("db", 9, "here")));
    assert_eq!(fixture.index.pods_at(ip).count(), 2);
    fixture.pod("old", None);
    let left: Vec<&str> = fixture.index.pods_at(ip).map(|(pod, _)| &*pod.id().name).collect();
    assert_eq!(left, ["new"]);
    fixture.pod("new", None);
    assert_eq!(fixture.index.pods_at(ip).count(), 0);
}

#[test]
fn a_pod_that_is_being_deleted_yields_its_address() {
    let mut fixture = Fixture::new();
    let ip: IpAddr = [10, 0, 0, 9].into();
    let mut change = |name: &str, as_now: Option<bool>| {
        let id = id("shop", name);
        let pod = as_now.map(|terminating| Arc::new(Pod { terminating, ..pod(&id, name, 9, "here") }));
        fixture.index.pod_changed(&id, pod.as_ref(), &mut fixture.touched);
        let at = fixture.index.pods_at(ip).map(|(pod, _)| pod.id().name.to_string());
        (at.collect::<Vec<_>>().join(" "), std::mem::take(&mut fixture.touched))
    };
    change("old", Some(false));
    assert_eq!(change("old", Some(true)), ("old".into(), Touched::default()), "nobody else has it");
    let (at, touched) = change("new", Some(false));
    assert_eq!((&*at, names(&touched.pods)), ("new", vec!["new", "old"]));
    assert_eq!(touched.flows, [ip].into(), "running flows are judged anew");
    assert_eq!(change("old", Some(true)), ("new".into(), Touched::default()), "told again");
    assert_eq!(change("old", Some(false)).0, "new old", "who is right cannot be told");
    assert_eq!(change("old", Some(true)).0, "new");
    // Both go: until one is gone, neither is the other's successor.
    assert_eq!(change("new", Some(true)).0, "new old");
    assert_eq!(change("new", Some(false)).0, "new");
    assert_eq!(change("new", None).0, "old", "its successor was gone first");
    assert_eq!(change("new", Some(false)).0, "new");
    assert_eq!(change("old", None), ("new".into(), Touched::default()));
    change("new", None);
    assert!(fixture.index.is_empty(), "{:#?}", fixture.index);
}

#[test]
fn nothing_is_kept_of_what_is_gone() {
    let mut fixture = Fixture::new();
    let namespace = Namespace { name: "shop".into(), labels: labels("x") };
    fixture.index.namespace_changed(&namespace.name, Some(&namespace), &mut fixture.touched);
    for number in 0..5u8 {
        let name = format!("pod-{number}");
        fixture.pod(&name, Some((["web", "db"][usize::from(number % 2)], number, "here")));
        fixture.policy(&format!("policy-{number}"), Some(("web", ["db", "web"][usize::from(number % 2)])));
    }
    for number in 0..5 {
        fixture.policy(&format!("policy-{number}"), None);
    }
    for number in 0..5 {
        fixture.pod(&format!("pod-{number}"), None);
    }
    fixture.index.namespace_changed(&namespace.name, None, &mut fixture.touched);
    assert!(fixture.index.is_empty(), "{:#?}", fixture.index);
}
