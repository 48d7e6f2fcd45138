use super::*;

fn service(ports: Value) -> Value {
    json!({"metadata": {"name": "web", "namespace": "default", "uid": "s"},
           "spec": {"selector": {"app": "web"}, "ipFamilies": ["IPv4"], "ports": ports}})
}

fn http() -> Value {
    service(json!([{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]))
}

fn pod(index: usize, ready: bool) -> Value {
    let ip = format!("10.244.{}.{}", index / 250, index % 250 + 1);
    let ip6 = format!("fd00::{index:x}");
    json!({"metadata": {"name": format!("p{index}"), "namespace": "default", "uid": format!("u{index}")},
           "spec": {"nodeName": "n", "containers": []},
           "status": {"podIPs": [{"ip": ip}, {"ip": ip6}],
                      "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
}

fn pods(count: usize) -> Vec<Value> {
    (0..count).map(|index| pod(index, true)).collect()
}

fn refs(list: &[Value]) -> Vec<&Value> {
    list.iter().collect()
}

fn sizes(slices: &[Value]) -> Vec<usize> {
    slices.iter().map(|slice| items(slice, &["endpoints"]).len()).collect()
}

#[test]
fn endpoints_say_who_serves_and_how_well() {
    let mut list = vec![pod(0, true), pod(1, false), pod(2, true), pod(3, true)];
    list[2]["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    list[3]["status"]["phase"] = json!("Succeeded");
    let plan = slices(&http(), &refs(&list), &[]);
    let slice = &plan.create[0];
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "web");
    let conditions: Vec<_> = items(slice, &["endpoints"]).iter().map(|e| e["conditions"].clone()).collect();
    assert_eq!(
        conditions,
        [
            json!({"ready": true, "serving": true, "terminating": false}),
            json!({"ready": false, "serving": false, "terminating": false}),
            json!({"ready": false, "serving": true, "terminating": true}),
        ]
    );
    assert_eq!(slice["endpoints"][0]["targetRef"]["uid"], "u0");
    let mut all = http();
    all["spec"]["publishNotReadyAddresses"] = json!(true);
    let plan = slices(&all, &refs(&list), &[]);
    assert!(items(&plan.create[0], &["endpoints"]).iter().all(|e| e["conditions"]["ready"] == true));
}

#[test]
fn a_slice_holds_a_hundred_and_one_change_touches_one_slice() {
    let mut list = pods(250);
    let created = slices(&http(), &refs(&list), &[]).create;
    assert_eq!(sizes(&created), [100, 100, 50]);
    let present = refs(&created);
    assert_eq!(slices(&http(), &refs(&list), &present), Plan::default());
    list[0] = pod(0, false);
    let plan = slices(&http(), &refs(&list), &present);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    list.remove(0);
    list.push(pod(300, true));
    let plan = slices(&http(), &refs(&list), &present);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    assert_eq!(sizes(&plan.update), [100]);
}

#[test]
fn slices_that_empty_go_but_for_a_last_one() {
    let list = pods(150);
    let created = slices(&http(), &refs(&list), &[]).create;
    let present = refs(&created);
    let first = items(&created[0], &["endpoints"]).iter().map(|e| text(e, &["targetRef", "name"]));
    let first: Vec<_> = first.collect();
    let left: Vec<_> = list.iter().filter(|pod| first.contains(&name(pod))).collect();
    let plan = slices(&http(), &left, &present);
    assert_eq!((plan.create.len(), plan.update.len()), (0, 0));
    assert_eq!(plan.delete, [name(&created[1])]);
    let none = slices(&http(), &[], &[]);
    assert_eq!(sizes(&none.create), [0]);
    assert_eq!(slices(&http(), &[], &refs(&none.create)), Plan::default());
}

#[test]
fn each_family_has_its_own_slices() {
    let mut dual = http();
    dual["spec"]["ipFamilies"] = json!(["IPv6", "IPv4"]);
    let plan = slices(&dual, &refs(&pods(1)), &[]);
    let found: Vec<_> =
        plan.create.iter().map(|s| (text(s, &["addressType"]), key(&s["endpoints"][0]))).collect();
    assert_eq!(found, [("IPv4", "10.244.0.1".to_owned()), ("IPv6", "fd00::".to_owned())]);
}

#[test]
fn named_ports_resolve_by_pod() {
    let service = service(json!([{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]));
    let mut list = pods(3);
    for (pod, port) in list.iter_mut().zip([8080, 9090]) {
        pod["spec"]["containers"] =
            json!([{"ports": [{"name": "web", "containerPort": port, "protocol": "TCP"}]}]);
    }
    let plan = slices(&service, &refs(&list), &[]);
    let found: Vec<_> =
        plan.create.iter().map(|s| (s["ports"][0]["port"].clone(), items(s, &["endpoints"]).len())).collect();
    assert_eq!(found, [(Value::Null, 1), (json!(8080), 1), (json!(9090), 1)]);
}

#[test]
fn changed_ports_replace_the_slice() {
    let list = pods(2);
    let before = slices(&http(), &refs(&list), &[]).create;
    let mut changed = http();
    changed["spec"]["ports"][0]["targetPort"] = json!(9090);
    let plan = slices(&changed, &refs(&list), &refs(&before));
    assert_eq!(sizes(&plan.create), [2]);
    assert_eq!(plan.delete, [name(&before[0])]);
}

#[test]
fn older_endpoints_part_ready_from_not_ready() {
    let list = [pod(0, true), pod(1, false)];
    let object = endpoints(&http(), &refs(&list));
    assert_eq!(object["subsets"][0]["addresses"][0]["ip"], "10.244.0.1");
    assert_eq!(object["subsets"][0]["notReadyAddresses"][0]["ip"], "10.244.0.2");
    assert_eq!(endpoints(&http(), &[])["subsets"], json!([]));
}

#[test]
fn selectorless_and_alias_services_are_left_alone() {
    assert!(is_planned(&http()));
    assert!(!is_planned(&json!({"spec": {}})));
    assert!(!is_planned(&json!({"spec": {"selector": {}}})));
    assert!(!is_planned(&json!({"spec": {"selector": {"a": "b"}, "type": "ExternalName"}})));
}
