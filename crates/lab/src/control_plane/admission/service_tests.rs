use super::*;

fn allocator(ranges: &[&str]) -> Allocator {
    Allocator::new(&ranges.iter().map(|range| range.parse().unwrap()).collect::<Vec<_>>())
}

fn v4() -> Allocator {
    allocator(&["10.96.0.0/24"])
}

fn dual() -> Allocator {
    allocator(&["10.96.0.0/24", "fd00:96::/112"])
}

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "s"}, "spec": spec})
}

fn created(allocator: &mut Allocator, spec: Value) -> Value {
    let mut object = service(spec);
    allocator.create(&mut object).unwrap();
    object
}

fn refused(allocator: &mut Allocator, spec: Value) -> String {
    allocator.create(&mut service(spec)).unwrap_err().to_string()
}

fn updated(allocator: &mut Allocator, old: &Value, change: Value) -> Value {
    let mut new = old.clone();
    crate::api_server::merge(&mut new, &json!({ "spec": change }));
    allocator.update(old, &mut new).unwrap();
    new
}

#[test]
fn a_plain_service_is_completed() {
    let object = created(&mut v4(), json!({"ports": [{"port": 80}]}));
    assert_eq!(
        object["spec"],
        json!({
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "clusterIP": "10.96.0.2", "clusterIPs": ["10.96.0.2"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        })
    );
}

#[test]
fn client_affinity_lasts_three_hours_by_default() {
    let object = created(&mut v4(), json!({"sessionAffinity": "ClientIP"}));
    assert_eq!(object["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10_800);
}

#[test]
fn a_requested_address_is_honoured_once() {
    let mut allocator = v4();
    let first = created(&mut allocator, json!({"clusterIP": "10.96.0.9"}));
    assert_eq!(first["spec"]["clusterIPs"], json!(["10.96.0.9"]));
    assert!(refused(&mut allocator, json!({"clusterIP": "10.96.0.9"})).contains("already allocated"));
    assert!(refused(&mut allocator, json!({"clusterIP": "10.97.0.9"})).contains("not in the valid range"));
    assert!(refused(&mut allocator, json!({"clusterIP": "10.96.0.999"})).contains("valid IP"));
    allocator.removed(&first);
    created(&mut allocator, json!({"clusterIP": "10.96.0.9"}));
}

#[test]
fn a_refused_service_leaves_nothing_allocated() {
    let mut allocator = v4();
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 1, "nodePort": 30001}, {"port": 2, "nodePort": 1}]});
    assert!(refused(&mut allocator, spec).contains("30000-32767"));
    created(
        &mut allocator,
        json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 1, "nodePort": 30001}]}),
    );
}

#[test]
fn families_follow_policy_cluster_and_request() {
    for (spec, families) in [
        (json!({}), json!(["IPv4"])),
        (json!({"ipFamilies": ["IPv6"]}), json!(["IPv6"])),
        (json!({"clusterIP": "fd00:96::9"}), json!(["IPv6"])),
        (json!({"ipFamilyPolicy": "PreferDualStack"}), json!(["IPv4", "IPv6"])),
        (json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}), json!(["IPv6", "IPv4"])),
        (json!({"ipFamilies": ["IPv6", "IPv4"]}), json!(["IPv6", "IPv4"])),
        (json!({"clusterIP": "None"}), json!(["IPv4", "IPv6"])),
        (json!({"clusterIP": "None", "selector": {"a": "b"}}), json!(["IPv4"])),
    ] {
        let object = created(&mut dual(), spec.clone());
        assert_eq!(object["spec"]["ipFamilies"], families, "{spec}");
    }
    let single = created(&mut v4(), json!({"ipFamilyPolicy": "PreferDualStack"}));
    assert_eq!(single["spec"]["ipFamilies"], json!(["IPv4"]));
    assert!(refused(&mut v4(), json!({"ipFamilyPolicy": "RequireDualStack"})).contains("dual-stack"));
    assert!(refused(&mut v4(), json!({"ipFamilies": ["IPv6"]})).contains("not configured"));
}

#[test]
fn headless_and_external_name_services_hold_no_address() {
    let mut allocator = v4();
    let headless = created(&mut allocator, json!({"clusterIP": "None", "selector": {"a": "b"}}));
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let external = created(&mut allocator, json!({"type": "ExternalName", "externalName": "a.b"}));
    assert_eq!(external["spec"].get("clusterIP"), None);
    assert_eq!(created(&mut allocator, json!({}))["spec"]["clusterIP"], "10.96.0.2");
}

#[test]
fn node_ports_are_allocated_kept_and_collide() {
    let mut allocator = v4();
    let spec = json!({"type": "NodePort", "ports": [{"port": 53, "protocol": "UDP", "nodePort": 30053},
                                                    {"port": 53, "nodePort": 30053}, {"port": 80}]});
    let first = created(&mut allocator, spec);
    assert_eq!(first["spec"]["ports"][2]["nodePort"], 30_000);
    assert_eq!(first["spec"]["externalTrafficPolicy"], "Cluster");
    let second = json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30053}]});
    assert!(refused(&mut allocator, second).contains("already allocated"));
    let change = json!({"ports": [{"port": 80, "targetPort": 8080}, {"port": 81}]});
    let changed = updated(&mut allocator, &first, change);
    assert_eq!(changed["spec"]["ports"][0]["nodePort"], 30_000);
    assert_eq!(changed["spec"]["ports"][1]["nodePort"], 30_001);
    let internal = updated(&mut allocator, &changed, json!({"type": "ClusterIP"}));
    assert_eq!(internal["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(internal["spec"].get("externalTrafficPolicy"), None);
    created(
        &mut allocator,
        json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30053}, {"port": 2, "nodePort": 30000}]}),
    );
}

#[test]
fn a_local_balancer_has_a_health_port_for_as_long_as_it_is_local() {
    let mut allocator = v4();
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
    let local = created(&mut allocator, spec);
    assert_eq!(local["spec"]["healthCheckNodePort"], 30_001);
    let cluster = updated(&mut allocator, &local, json!({"externalTrafficPolicy": "Cluster"}));
    assert_eq!(cluster["spec"].get("healthCheckNodePort"), None);
    created(&mut allocator, json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}]}));
}

#[test]
fn a_balancer_may_go_without_node_ports() {
    let spec =
        json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]});
    let object = created(&mut v4(), spec);
    assert_eq!(object["spec"]["ports"][0].get("nodePort"), None);
}

#[test]
fn the_cluster_address_stays_and_cannot_change() {
    let mut allocator = v4();
    let old = created(&mut allocator, json!({"ports": [{"port": 80}]}));
    let mut bare = service(json!({"ports": [{"port": 81}]}));
    allocator.update(&old, &mut bare).unwrap();
    assert_eq!(bare["spec"]["clusterIP"], old["spec"]["clusterIP"]);
    let mut moved = old.clone();
    moved["spec"]["clusterIP"] = json!("10.96.0.77");
    let error = allocator.update(&old, &mut moved).unwrap_err();
    assert!(error.to_string().contains("may not change once set"));
}

#[test]
fn the_second_family_comes_and_goes_with_the_policy() {
    let mut allocator = dual();
    let single = created(&mut allocator, json!({}));
    let both = updated(&mut allocator, &single, json!({"ipFamilyPolicy": "PreferDualStack"}));
    assert_eq!(both["spec"]["clusterIPs"], json!(["10.96.0.2", "fd00:96::2"]));
    let single = updated(&mut allocator, &both, json!({"ipFamilyPolicy": "SingleStack"}));
    assert_eq!(single["spec"]["clusterIPs"], json!(["10.96.0.2"]));
    created(&mut allocator, json!({"clusterIP": "fd00:96::2"}));
}
