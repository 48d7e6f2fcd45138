use std::net::IpAddr;
use std::sync::Arc;

use linux::row::{Protocol, Scheduler};
use serde_json::{Value, json};

use super::*;
use crate::kube::model::{EndpointSlice, Node, Pod, PodUid, Service, ServiceWishes};
use crate::names::label;

fn convert<W: Wire>(value: Value) -> Converted {
    serde_json::from_value::<W>(value)
        .expect("every JSON object is readable")
        .convert(&mut Interner::default())
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

fn fields(converted: &Converted) -> Vec<&str> {
    converted.objections.iter().map(|objection| objection.field.as_str()).collect()
}

/// Changes one place of a JSON object, given as a pointer; missing parents are made.
fn with(mut value: Value, pointer: &str, to: Value) -> Value {
    let mut place = &mut value;
    for key in pointer.split('/').skip(1) {
        let key = key.replace("~1", "/");
        place = match key.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[key],
        };
    }
    *place = to;
    value
}

fn a_service() -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": "web", "creationTimestamp": "2026-01-31T08:30:00Z", "resourceVersion": "7",
                     "managedFields": [{"fieldsV1": {"f:spec": {}}}]},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00:96::a"],
            "externalIPs": ["192.0.2.7"], "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30123,
            "ports": [{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"},
                      {"name": "dns", "port": 53, "protocol": "UDP"}]
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}, {"hostname": "lb.example"},
                                                {"ip": "203.0.113.10", "ipMode": "Proxy"},
                                                {"ip": "203.0.113.11", "ipMode": "VIP"}]}}
    })
}

fn service(value: Value) -> (Service, Converted) {
    let mut converted = convert::<wire::Service>(value);
    match std::mem::replace(&mut converted.object, Err(Unused::Unusable)) {
        Ok(Object::Service(service)) => (service, converted),
        other => panic!("not a service: {other:?}, {:?}", converted.objections),
    }
}

#[test]
fn a_service_is_read_whole() {
    let (service, converted) = service(a_service());
    assert_eq!(converted.objections, []);
    assert_eq!(service.id.to_string(), "shop/web");
    assert_eq!(service.created, 1_769_848_200);
    assert_eq!(service.cluster_ips, ips(&["10.96.0.10", "fd00:96::a"]));
    assert_eq!(service.external_ips, ips(&["192.0.2.7"]));
    assert_eq!(service.load_balancer_ips, ips(&["203.0.113.9", "203.0.113.11"]));
    let ports: Vec<_> =
        service.ports.iter().map(|port| (&*port.name, port.protocol, port.port, port.node_port)).collect();
    assert_eq!(ports, [("http", Protocol::Tcp, 80, Some(30080)), ("dns", Protocol::Udp, 53, None)]);
    assert!(service.is_load_balancer && service.external_local && !service.internal_local);
    assert_eq!((service.affinity, service.health_check_port), (None, Some(30123)));
    assert_eq!(service.wishes, ServiceWishes::default());
}

#[test]
fn affinity_has_the_default_of_the_api() {
    let sticky = with(a_service(), "/spec/sessionAffinity", json!("ClientIP"));
    assert_eq!(service(sticky.clone()).0.affinity, Some(10_800));
    let timeout = "/spec/sessionAffinityConfig/clientIP/timeoutSeconds";
    assert_eq!(service(with(sticky.clone(), timeout, json!(60))).0.affinity, Some(60));
    for bad in [json!(0), json!(-1), json!(86_401), json!("60")] {
        let (service, converted) = service(with(sticky.clone(), timeout, bad));
        assert_eq!((service.affinity, converted.objections.len()), (Some(10_800), 1));
    }
}

#[test]
fn annotations_of_a_service_are_read() {
    let value = with(a_service(), "/spec/externalTrafficPolicy", json!("Cluster"));
    let annotations = json!({
        "kube-router.io/service.scheduler": "mh", "kube-router.io/service.schedflags": "flag-1,flag-2",
        "kube-router.io/service.local": "true", "kube-router.io/service.dsr": "tunnel",
        "kube-router.io/service.advertise.clusterip": "false", "unrelated": 5
    });
    let (service, converted) = service(with(value, "/metadata/annotations", annotations));
    assert_eq!(converted.objections, []);
    assert_eq!((service.wishes.scheduler, service.wishes.scheduler_flags), (Scheduler::Maglev, 0x18));
    assert!(service.external_local && service.wishes.direct_return);
    assert_eq!(service.wishes.advertise_cluster_ip, Some(false));
}

#[test]
fn services_that_concern_us_not_are_left_out() {
    let label = |name: &str, value: &str| with(a_service(), "/metadata/labels", json!({name: value}));
    let cases = [
        (with(a_service(), "/spec/clusterIP", json!("None")), Unused::Headless),
        (with(a_service(), "/spec/clusterIP", json!("")), Unused::Headless),
        (with(a_service(), "/spec/clusterIP", Value::Null), Unused::Headless),
        (with(a_service(), "/spec", Value::Null), Unused::Headless),
        (with(a_service(), "/spec/type", json!("ExternalName")), Unused::ExternalName),
        (label(label::HEADLESS, ""), Unused::Headless),
        (label(label::SERVICE_PROXY_NAME, "cilium"), Unused::OtherProxy),
        (label(label::SERVICE_PROXY_NAME, ""), Unused::OtherProxy),
    ];
    for (value, why) in cases {
        let converted = convert::<wire::Service>(value);
        assert_eq!(converted.object, Err(why));
        assert_eq!(converted.objections, []);
        assert_eq!(converted.id.to_string(), "shop/web");
    }
    service(label(label::SERVICE_PROXY_NAME, label::PROXY_NAME));
}

/// For every malformed part: the part is left out and named, the rest of the object is what it was.
#[test]
fn a_malformed_part_of_a_service_costs_only_that_part() {
    let good = service(a_service()).0;
    type Change = fn(&mut Service);
    let first_port_gone: Change = |service| drop(service.ports.remove(0));
    let no_external: Change = |service| service.external_ips.clear();
    let no_node_port: Change = |service| service.ports[0].node_port = None;
    let cases: &[(&str, Value, &str, Change)] = &[
        ("/spec/ports/0/port", json!(99_999), "spec.ports[0].port", first_port_gone),
        ("/spec/ports/0/port", json!(0), "spec.ports[0].port", first_port_gone),
        ("/spec/ports/0/port", json!(-1), "spec.ports[0].port", first_port_gone),
        ("/spec/ports/0/port", json!("80"), "spec.ports[0].port", first_port_gone),
        ("/spec/ports/0/protocol", json!("ICMP"), "spec.ports[0].protocol", first_port_gone),
        ("/spec/ports/0/protocol", json!(6), "spec.ports[0].protocol", first_port_gone),
        ("/spec/ports/0", json!("http"), "spec.ports[0]", first_port_gone),
        ("/spec/ports/0/nodePort", json!(70_000), "spec.ports[0].nodePort", no_node_port),
        ("/spec/ports", json!({"port": 80}), "spec.ports", |service| service.ports.clear()),
        ("/spec/externalIPs/0", json!("10.0.0"), "spec.externalIPs[0]", no_external),
        ("/spec/externalIPs/0", json!("010.0.0.1"), "spec.externalIPs[0]", no_external),
        ("/spec/externalIPs/0", json!("10.0.0.1/32"), "spec.externalIPs[0]", no_external),
        ("/spec/externalIPs/0", json!("127.0.0.1"), "spec.externalIPs[0]", no_external),
        ("/spec/externalIPs/0", json!("169.254.1.1"), "spec.externalIPs[0]", no_external),
        ("/spec/externalIPs/0", json!("::"), "spec.externalIPs[0]", no_external),
        ("/spec/externalIPs/0", json!("ff02::1"), "spec.externalIPs[0]", no_external),
        ("/spec/externalIPs/0", json!("fe80::1%eth0"), "spec.externalIPs[0]", no_external),
        ("/spec/externalIPs/0", json!("::ffff:127.0.0.1"), "spec.externalIPs[0]", no_external),
        ("/spec/externalIPs/0", json!(5), "spec.externalIPs[0]", no_external),
        ("/spec/externalIPs", json!("192.0.2.7"), "spec.externalIPs", no_external),
        ("/spec/clusterIPs/1", json!("fd00::x"), "spec.clusterIPs[1]", |service| {
            service.cluster_ips.truncate(1)
        }),
        ("/spec/clusterIP", json!("10.96.0"), "spec.clusterIP", |_| {}),
        ("/spec/externalTrafficPolicy", json!("local"), "spec.externalTrafficPolicy", |service| {
            service.external_local = false;
        }),
        ("/spec/sessionAffinity", json!(true), "spec.sessionAffinity", |_| {}),
        ("/spec/healthCheckNodePort", json!(1.5), "spec.healthCheckNodePort", |service| {
            service.health_check_port = None;
        }),
        ("/status/loadBalancer/ingress/0/ip", json!("x"), "status.loadBalancer.ingress[0].ip", |service| {
            let _ = service.load_balancer_ips.remove(0);
        }),
        ("/status", json!([]), "status", |service| service.load_balancer_ips.clear()),
        ("/metadata/creationTimestamp", json!("yesterday"), "metadata.creationTimestamp", |service| {
            service.created = i64::MAX;
        }),
    ];
    for (pointer, bad, field, change) in cases {
        let (service, converted) = service(with(a_service(), pointer, bad.clone()));
        let mut expected = good.clone();
        change(&mut expected);
        assert_eq!(service, expected, "{pointer} = {bad}");
        assert_eq!(fields(&converted), [*field], "{pointer} = {bad}");
        assert_eq!(converted.objections[0].object.to_string(), "Service shop/web");
    }
}

#[test]
fn equal_addresses_are_one() {
    let value = with(a_service(), "/spec/externalIPs", json!(["192.0.2.7", "::ffff:192.0.2.7", "192.0.2.7"]));
    assert_eq!(service(value).0.external_ips, ips(&["192.0.2.7"]));
}

#[test]
fn an_object_without_a_name_is_not_used() {
    for metadata in [Value::Null, json!("x"), json!({}), json!({"name": 5}), json!({"name": ""})] {
        let converted = convert::<wire::Node>(json!({"metadata": metadata}));
        assert_eq!(converted.object, Err(Unused::Unusable));
        assert!(fields(&converted).contains(&"metadata.name"));
        assert!(matches!(converted.into_event(), WatchEvent::Ignored(Kind::Node, ..)));
    }
}

fn a_slice() -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": "web-x7k2p", "generateName": "web-",
                     "labels": {"kubernetes.io/service-name": "web"},
                     "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-31T08:30:00.25Z"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.1.0.5"], "conditions": {"ready": true, "serving": true, "terminating": false},
             "nodeName": "node-1", "targetRef": {"kind": "Pod", "name": "web-0", "namespace": "shop"}},
            {"addresses": ["10.1.1.6"], "conditions": {"ready": false, "serving": true, "terminating": true},
             "nodeName": "node-2"}
        ]
    })
}

fn slice(value: Value) -> (EndpointSlice, Converted) {
    let mut converted = convert::<wire::EndpointSlice>(value);
    match std::mem::replace(&mut converted.object, Err(Unused::Unusable)) {
        Ok(Object::EndpointSlice(slice)) => (slice, converted),
        other => panic!("not a slice: {other:?}, {:?}", converted.objections),
    }
}

#[test]
fn a_slice_is_read_whole() {
    let (slice, converted) = slice(a_slice());
    assert_eq!(converted.objections, []);
    assert_eq!(slice.service_id().to_string(), "shop/web");
    assert_eq!(slice.triggered, Some(1_769_848_200_250));
    assert_eq!((&*slice.ports[0].name, slice.ports[0].port), ("http", 8080));
    let endpoint = &slice.endpoints[0];
    assert_eq!((endpoint.ready, endpoint.serving, endpoint.terminating), (true, true, false));
    assert_eq!(endpoint.node.as_deref(), Some("node-1"));
    let endpoint = &slice.endpoints[1];
    assert_eq!((endpoint.ready, endpoint.serving, endpoint.terminating), (false, true, true));
    assert_eq!(endpoint.node.as_deref(), Some("node-2"));
}

#[test]
fn the_service_of_a_slice_is_its_label_its_owner_or_its_origin() {
    let unlabelled = with(a_slice(), "/metadata/labels", Value::Null);
    let owned = |owners: Value| with(unlabelled.clone(), "/metadata/ownerReferences", owners);
    assert_eq!(&*slice(owned(json!([{"name": "by-owner"}]))).0.service, "by-owner");
    assert_eq!(&*slice(owned(json!([{"name": "a"}, {"name": "b"}]))).0.service, "web");
    assert_eq!(&*slice(unlabelled.clone()).0.service, "web");
    assert_eq!(
        &*slice(with(unlabelled.clone(), "/metadata/generateName", json!("plain"))).0.service,
        "plain"
    );
    for nothing in [Value::Null, json!(""), json!("-")] {
        let converted =
            convert::<wire::EndpointSlice>(with(unlabelled.clone(), "/metadata/generateName", nothing));
        assert_eq!(converted.object, Err(Unused::Unusable));
        assert_eq!(fields(&converted), ["metadata.labels[kubernetes.io/service-name]"]);
    }
}

#[test]
fn absent_conditions_mean_what_the_api_says() {
    let cases = [
        (Value::Null, (true, true, false)),
        (json!({}), (true, true, false)),
        (json!({"ready": false}), (false, false, false)),
        (json!({"ready": true}), (true, true, false)),
        (json!({"ready": false, "serving": true}), (false, true, false)),
        (json!({"ready": null, "serving": null, "terminating": true}), (true, true, true)),
        (json!({"ready": "yes"}), (false, false, false)),
    ];
    for (conditions, expected) in cases {
        let endpoint =
            slice(with(a_slice(), "/endpoints/0/conditions", conditions.clone())).0.endpoints.remove(0);
        assert_eq!((endpoint.ready, endpoint.serving, endpoint.terminating), expected, "{conditions}");
    }
}

#[test]
fn ports_without_number_or_name_are_legal() {
    let (slice, converted) =
        slice(with(a_slice(), "/ports", json!([{"name": "any"}, {"port": 53, "protocol": "UDP"}, {}])));
    assert_eq!(converted.objections, []);
    let ports: Vec<_> = slice.ports.iter().map(|port| (&*port.name, port.protocol, port.port)).collect();
    assert_eq!(ports, [("", Protocol::Udp, 53)]);
    for none in [Value::Null, json!([])] {
        assert!(self::slice(with(a_slice(), "/ports", none)).0.ports.is_empty());
    }
}

#[test]
fn every_address_of_an_endpoint_counts_once() {
    let value = with(a_slice(), "/endpoints/0/addresses", json!(["10.1.0.5", "10.1.0.7", "10.1.0.5"]));
    let value = with(value, "/endpoints/1/addresses", json!(["10.1.0.5"]));
    let slice = slice(value).0;
    let found: Vec<_> = slice.endpoints.iter().map(|endpoint| (endpoint.ip, endpoint.ready)).collect();
    let [five, seven] = ips(&["10.1.0.5", "10.1.0.7"])[..] else { unreachable!() };
    assert_eq!(found, [(five, true), (seven, true), (five, false)]);
}

#[test]
fn slices_that_concern_us_not_are_left_out() {
    let headless = with(a_slice(), "/metadata/labels/service.kubernetes.io~1headless", json!(""));
    assert_eq!(convert::<wire::EndpointSlice>(headless).object, Err(Unused::Headless));
    let names = convert::<wire::EndpointSlice>(with(a_slice(), "/addressType", json!("FQDN")));
    assert_eq!((names.object, names.objections.len()), (Err(Unused::Fqdn), 0));
    for unknown in [Value::Null, json!("IPv5"), json!(4)] {
        let converted = convert::<wire::EndpointSlice>(with(a_slice(), "/addressType", unknown));
        assert_eq!(converted.object, Err(Unused::Unusable));
        assert!(fields(&converted).contains(&"addressType"));
    }
}

#[test]
fn a_malformed_part_of_a_slice_costs_only_that_part() {
    let first_gone = ["10.1.1.6"];
    let cases = [
        ("/endpoints/0/addresses/0", json!("127.0.0.1"), "endpoints[0].addresses[0]"),
        ("/endpoints/0/addresses/0", json!("0.0.0.0"), "endpoints[0].addresses[0]"),
        ("/endpoints/0/addresses/0", json!("169.254.169.254"), "endpoints[0].addresses[0]"),
        ("/endpoints/0/addresses/0", json!("224.0.0.1"), "endpoints[0].addresses[0]"),
        ("/endpoints/0/addresses/0", json!("fd00::5"), "endpoints[0].addresses[0]"),
        ("/endpoints/0/addresses/0", json!("web-0.example"), "endpoints[0].addresses[0]"),
        ("/endpoints/0/addresses/0", json!(null), ""),
        ("/endpoints/0/addresses", json!("10.1.0.5"), "endpoints[0].addresses"),
        ("/endpoints/0", json!("10.1.0.5"), "endpoints[0]"),
    ];
    for (pointer, bad, field) in cases {
        let (slice, converted) = slice(with(a_slice(), pointer, bad.clone()));
        let left: Vec<_> = slice.endpoints.iter().map(|endpoint| endpoint.ip).collect();
        assert_eq!(left, ips(&first_gone), "{pointer} = {bad}");
        assert_eq!(fields(&converted).first().copied().unwrap_or_default(), field, "{pointer} = {bad}");
    }
    let (slice, converted) = slice(with(a_slice(), "/ports/0/port", json!(99_999)));
    assert_eq!((slice.ports.len(), slice.endpoints.len()), (0, 2));
    assert_eq!(fields(&converted), ["ports[0].port"]);
}

#[test]
fn names_are_shared_within_and_between_slices() {
    let mut names = Interner::default();
    let mut read = |value: Value| match serde_json::from_value::<wire::EndpointSlice>(value)
        .expect("readable")
        .convert(&mut names)
        .object
    {
        Ok(Object::EndpointSlice(slice)) => slice,
        other => panic!("{other:?}"),
    };
    let first = read(with(a_slice(), "/endpoints/1/nodeName", json!("node-1")));
    let second = read(with(a_slice(), "/metadata/name", json!("web-2")));
    let node = |slice: &EndpointSlice, index: usize| slice.endpoints[index].node.clone().expect("a node");
    assert!(Arc::ptr_eq(&node(&first, 0), &node(&first, 1)));
    assert!(Arc::ptr_eq(&node(&first, 0), &node(&second, 0)));
    assert!(Arc::ptr_eq(&first.service, &second.service));
    assert!(Arc::ptr_eq(&first.id.namespace, &second.id.namespace));
}

fn node(value: Value) -> (Node, Converted) {
    let mut converted = convert::<wire::Node>(value);
    match std::mem::replace(&mut converted.object, Err(Unused::Unusable)) {
        Ok(Object::Node(node)) => (node, converted),
        other => panic!("not a node: {other:?}, {:?}", converted.objections),
    }
}

fn a_node() -> Value {
    json!({
        "metadata": {"name": "node-1"},
        "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00:1::/64"]},
        "status": {"addresses": [
            {"type": "Hostname", "address": "node-1"}, {"type": "ExternalIP", "address": "203.0.113.1"},
            {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "InternalIP", "address": "fd00::1"},
            {"type": "InternalIP", "address": "10.0.0.300"}, {"type": "InternalIP", "address": "10.0.0.1"}]}
    })
}

#[test]
fn addresses_of_a_node_keep_their_order() {
    let (node, converted) = node(a_node());
    assert_eq!(node.internal_ips, ips(&["10.0.0.1", "fd00::1"]));
    assert_eq!(node.external_ips, ips(&["203.0.113.1"]));
    assert_eq!(node.primary_ip(), Some(ips(&["10.0.0.1"])[0]));
    assert_eq!(fields(&converted), ["status.addresses[4].address"]);
}

#[test]
fn pod_prefixes_come_from_the_first_source_that_has_any() {
    let cidr = "kube-router.io/pod-cidr";
    let cidrs = "kube-router.io/pod-cidrs";
    let spec: &[&str] = &["10.1.0.0/24", "fd00:1::/64"];
    let cases: &[(Value, &[&str], usize)] = &[
        (json!({}), spec, 0),
        (json!({cidr: "10.2.0.0/24"}), &["10.2.0.0/24"], 0),
        (json!({cidrs: "10.3.0.0/24, fd00:3::/64"}), &["10.3.0.0/24", "fd00:3::/64"], 0),
        (json!({cidr: "10.2.0.0/24", cidrs: "10.3.0.0/24"}), &["10.2.0.0/24"], 0),
        (json!({cidr: "10.2.0.9/24"}), &["10.2.0.0/24"], 0),
        (json!({cidr: "nonsense", cidrs: "10.3.0.0/24"}), &["10.3.0.0/24"], 1),
        (json!({cidr: "", cidrs: "10.3.0.0/33,x"}), spec, 2),
        (json!({cidrs: "10.3.0.0/24,x"}), &["10.3.0.0/24"], 1),
    ];
    let clean = with(a_node(), "/status/addresses", json!([]));
    for (annotations, expected, objections) in cases {
        let (node, converted) = node(with(clean.clone(), "/metadata/annotations", annotations.clone()));
        let found: Vec<_> = node.pod_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(found, *expected, "{annotations}");
        assert_eq!(converted.objections.len(), *objections, "{annotations}");
    }
    let single = with(clean, "/spec", json!({"podCIDR": "10.1.0.0/24"}));
    assert_eq!(node(single).0.pod_cidrs.len(), 1);
}

#[test]
fn pods_are_read() {
    let value = json!({
        "metadata": {"namespace": "shop", "name": "web-0"},
        "spec": {"nodeName": "node-1", "hostNetwork": true, "terminationGracePeriodSeconds": 5},
        "status": {"phase": "Running", "podIP": "10.1.0.5", "podIPs": [{"ip": "10.1.0.5"}, {"ip": "fd00:1::5"}]}
    });
    let pod = |value: Value| match convert::<wire::Pod>(value).object {
        Ok(Object::Pod(pod)) => pod,
        other => panic!("{other:?}"),
    };
    let read: Pod = pod(value.clone());
    assert_eq!(read.ips, ips(&["10.1.0.5", "fd00:1::5"]));
    assert!(read.host_network && !read.finished);
    assert_eq!((read.node.as_deref(), read.grace_seconds), (Some("node-1"), 5));

    assert_eq!(pod(with(value.clone(), "/status/podIPs", Value::Null)).ips, ips(&["10.1.0.5"]));
    assert!(pod(with(value.clone(), "/status/phase", json!("Failed"))).finished);
    let deleted = json!({"namespace": "shop", "name": "web-0", "deletionTimestamp": "2026-01-01T00:00:00Z"});
    assert!(!read.terminating && pod(with(value.clone(), "/metadata", deleted)).terminating);
    let grace = |seconds: Value| {
        pod(with(value.clone(), "/spec/terminationGracePeriodSeconds", seconds)).grace_seconds
    };
    assert_eq!(grace(Value::Null), 30);
    assert_eq!(grace(json!(0)), 0);
    assert_eq!(grace(json!(-7)), 1);
    let bare = pod(json!({"metadata": {"namespace": "shop", "name": "new"}}));
    assert_eq!((bare.ips.len(), bare.node), (0, None));
    let uid = |metadata: Value| pod(with(value.clone(), "/metadata", metadata)).uid;
    assert_eq!(uid(json!({"name": "web-0", "uid": "a"})), PodUid::of("a"));
    // A static pod runs under a UID of its own, which the object that stands for it names.
    let mirror = json!({"kubernetes.io/config.mirror": "b"});
    assert_eq!(uid(json!({"name": "web-0", "uid": "a", "annotations": mirror})), PodUid::of("b"));
}

#[test]
fn one_malformed_object_leaves_its_list_readable() {
    let list = json!({"metadata": {"resourceVersion": "9"}, "items": [
        a_service(),
        {"metadata": {"name": "bad", "namespace": 5, "labels": ["x"], "annotations": {"a": {}}}, "spec": {"ports": 1}},
        {"metadata": 7, "spec": [], "status": "x"},
        a_service(),
    ]});
    let page: wire::Page<wire::Service> = serde_json::from_str(&list.to_string()).expect("readable");
    let mut names = Interner::default();
    let converted: Vec<_> = page.items.into_iter().flatten().map(|item| item.convert(&mut names)).collect();
    assert_eq!(converted.len(), 4);
    assert!(converted[0].object.is_ok() && converted[3].object.is_ok());
    assert!(converted[1].object.is_err() && converted[2].object.is_err());
}
