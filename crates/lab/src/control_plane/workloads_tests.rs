use super::*;

fn workload(replicas: usize, image: &str) -> Value {
    json!({"metadata": {"name": "web", "namespace": "default", "uid": "u"}, "spec": {
        "replicas": replicas,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": image}]}},
    }})
}

fn running(plan: &Plan) -> Vec<Value> {
    let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    plan.create
        .iter()
        .cloned()
        .map(|mut pod| {
            pod["status"] = ready.clone();
            pod
        })
        .collect()
}

fn refs(pods: &[Value]) -> Vec<&Value> {
    pods.iter().collect()
}

#[test]
fn a_new_deployment_gets_named_and_owned_pods() {
    let plan = deployment(&workload(3, "a"), &[]);
    assert_eq!((plan.create.len(), plan.delete.len()), (3, 0));
    let pod = &plan.create[0];
    let hash = hash_of(pod);
    assert!(name(pod).starts_with(&format!("web-{hash}-")), "{pod}");
    assert_eq!(text(pod, &["metadata", "labels", "app"]), "web");
    assert_eq!(super::super::pods::controller(pod), Some(("u", "Deployment")));
}

#[test]
fn scaling_down_takes_the_pods_that_are_not_ready_first() {
    let mut pods = running(&deployment(&workload(3, "a"), &[]));
    pods[1]["status"]["conditions"][0]["status"] = json!("False");
    let plan = deployment(&workload(2, "a"), &refs(&pods));
    assert_eq!(plan.delete, [name(&pods[1])]);
    assert_eq!(plan.create, [] as [Value; 0]);
}

#[test]
fn a_new_template_comes_up_before_the_old_goes() {
    let (old, new) = (workload(4, "a"), workload(4, "b"));
    let mut pods = running(&deployment(&old, &[]));
    let mut steps = 0;
    loop {
        let plan = deployment(&new, &refs(&pods));
        if plan.create.is_empty() && plan.delete.is_empty() {
            break;
        }
        pods.retain(|pod| !plan.delete.iter().any(|doomed| doomed == name(pod)));
        assert!(pods.len() >= 3, "fewer than maxUnavailable allows");
        pods.extend(running(&plan));
        assert!(pods.len() <= 5 + plan.delete.len(), "more than maxSurge allows");
        steps += 1;
        assert!(steps < 20, "the rollout does not end");
    }
    assert_eq!(pods.len(), 4);
    assert!(pods.iter().all(|pod| hash_of(pod) == template_hash(&new)));
    let status = deployment(&new, &refs(&pods)).status;
    assert_eq!((&status["updatedReplicas"], &status["readyReplicas"]), (&json!(4), &json!(4)));
}

#[test]
fn recreate_empties_before_it_fills() {
    let pods = running(&deployment(&workload(2, "a"), &[]));
    let mut new = workload(2, "b");
    new["spec"]["strategy"] = json!({"type": "Recreate"});
    let plan = deployment(&new, &refs(&pods));
    assert_eq!((plan.create.len(), plan.delete.len()), (0, 2));
    assert_eq!(deployment(&new, &[]).create.len(), 2);
}

#[test]
fn an_unchanged_deployment_has_an_unchanged_status() {
    let mut object = workload(1, "a");
    let pods = running(&deployment(&object, &[]));
    let plan = deployment(&object, &refs(&pods));
    object["status"] = plan.status.clone();
    assert_eq!(deployment(&object, &refs(&pods)), plan);
}

#[test]
fn terminating_and_ended_pods_are_replaced() {
    let object = workload(2, "a");
    let mut pods = running(&deployment(&object, &[]));
    pods[0]["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    pods[1]["status"]["phase"] = json!("Failed");
    assert_eq!(deployment(&object, &refs(&pods)).create.len(), 2);
}

#[test]
fn a_daemon_set_has_one_pod_on_each_fitting_node() {
    let nodes = ["a", "b", "c"].map(|node| json!({"metadata": {"name": node, "labels": {"n": node}}}));
    let nodes = refs(&nodes);
    let mut set = workload(0, "a");
    let plan = daemon_set(&set, &[], &nodes);
    assert_eq!(plan.create.len(), 3);
    let pods = running(&plan);
    assert_eq!(daemon_set(&set, &refs(&pods), &nodes).create.len(), 0);
    assert_eq!(daemon_set(&set, &refs(&pods), &nodes[..2]).delete.len(), 1);
    set["spec"]["template"]["spec"]["nodeSelector"] = json!({"n": "b"});
    let plan = daemon_set(&set, &refs(&pods), &nodes);
    assert_eq!(plan.status["desiredNumberScheduled"], 1);
    // Two strays, and the old template's pod on the wanted node, since that node is up.
    assert_eq!(plan.delete.len(), 3);
}

#[test]
fn a_daemon_set_replaces_one_node_at_a_time() {
    let nodes = ["a", "b"].map(|node| json!({"metadata": {"name": node}}));
    let nodes = refs(&nodes);
    let mut pods = running(&daemon_set(&workload(0, "a"), &[], &nodes));
    let new = workload(0, "b");
    let plan = daemon_set(&new, &refs(&pods), &nodes);
    assert_eq!((plan.create.len(), plan.delete.len()), (0, 1));
    pods.retain(|pod| name(pod) != plan.delete[0]);
    let plan = daemon_set(&new, &refs(&pods), &nodes);
    assert_eq!((plan.create.len(), plan.delete.len()), (1, 0));
}
