use super::*;

fn registry() -> Registry {
    let mut registry = Registry::new(Store::new(100), Box::new(AdmitAll));
    registry.create(Resource::Namespaces, None, json!({"metadata": {"name": "default"}}), false).unwrap();
    registry
}

fn pod(node: &str) -> Value {
    json!({"metadata": {"name": "a"}, "spec": {"nodeName": node, "terminationGracePeriodSeconds": 5}})
}

const POD: Place<'static> = Place { resource: Resource::Pods, namespace: "default", name: "a" };

#[test]
fn a_stale_update_conflicts_and_a_fresh_one_wins() {
    let mut registry = registry();
    let first = registry.create(Resource::Pods, None, pod("n"), false).unwrap();
    let mut change = (*first.value).clone();
    set_metadata(&mut change, "labels", json!({"x": "1"}));
    let second = registry.replace(POD, change.clone(), Part::Main, false).unwrap();
    assert!(second.version > first.version);
    set_metadata(&mut change, "labels", json!({"x": "2"}));
    let stale = registry.replace(POD, change, Part::Main, false);
    assert!(matches!(stale, Err(ApiError::Conflict { .. })), "{stale:?}");
}

#[test]
fn a_write_that_changes_nothing_makes_no_version() {
    let mut registry = registry();
    let first = registry.create(Resource::Pods, None, pod("n"), false).unwrap();
    let same = registry.replace(POD, (*first.value).clone(), Part::Main, false).unwrap();
    assert_eq!(same.version, first.version);
}

#[test]
fn status_and_the_rest_are_written_apart() {
    let mut registry = registry();
    registry.create(Resource::Pods, None, pod("n"), false).unwrap();
    let both = Patch::Merge(json!({"metadata": {"labels": {"x": "1"}}, "status": {"phase": "Running"}}));
    let after = registry.patch(POD, &both, Part::Status, false).unwrap();
    assert_eq!(text(&after.value, &["status", "phase"]), "Running");
    assert_eq!(at(&after.value, &["metadata", "labels"]), None);
    let other = Patch::Merge(json!({"metadata": {"labels": {"x": "1"}}, "status": {"phase": "Failed"}}));
    let after = registry.patch(POD, &other, Part::Main, false).unwrap();
    assert_eq!(text(&after.value, &["status", "phase"]), "Running");
    assert_eq!(text(&after.value, &["metadata", "labels", "x"]), "1");
}

#[test]
fn a_scheduled_pod_stays_for_its_grace_period() {
    let mut registry = registry();
    registry.create(Resource::Pods, None, pod("n"), false).unwrap();
    let Deletion::Begun(marked) = registry.delete(POD, &DeleteOptions::default()).unwrap() else {
        panic!("the pod went at once")
    };
    assert!(is_deleting(&marked.value));
    assert_eq!(at(&marked.value, &["metadata", "deletionGracePeriodSeconds"]), Some(&json!(5)));
    let longer = DeleteOptions { grace: Some(60), ..DeleteOptions::default() };
    let Deletion::Begun(again) = registry.delete(POD, &longer).unwrap() else { panic!("gone") };
    assert_eq!(again.version, marked.version);
    let now = DeleteOptions { grace: Some(0), ..DeleteOptions::default() };
    assert!(matches!(registry.delete(POD, &now), Ok(Deletion::Done(_))));
    assert!(registry.get(POD).is_err());
}

#[test]
fn an_unscheduled_pod_goes_at_once() {
    let mut registry = registry();
    registry.create(Resource::Pods, None, pod(""), false).unwrap();
    assert!(matches!(registry.delete(POD, &DeleteOptions::default()), Ok(Deletion::Done(_))));
}

#[test]
fn finalizers_hold_an_object_until_they_are_taken_off() {
    let mut registry = registry();
    let place = Place::new(Resource::Services, None, "s");
    let service = json!({"metadata": {"name": "s", "finalizers": ["x/y"]}});
    registry.create(Resource::Services, None, service, false).unwrap();
    assert!(matches!(registry.delete(place, &DeleteOptions::default()), Ok(Deletion::Begun(_))));
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    registry.patch(place, &release, Part::Main, false).unwrap();
    assert!(registry.get(place).is_err());
}

#[test]
fn a_namespace_ends_when_it_is_finalized_and_takes_nothing_new_before() {
    let mut registry = registry();
    let space = json!({"metadata": {"name": "x"}, "spec": {"finalizers": ["kubernetes"]}});
    registry.create(Resource::Namespaces, None, space, false).unwrap();
    let place = Place::new(Resource::Namespaces, None, "x");
    assert!(matches!(registry.delete(place, &DeleteOptions::default()), Ok(Deletion::Begun(_))));
    let late = registry.create(Resource::Pods, Some("x"), pod("n"), false);
    assert!(matches!(late, Err(ApiError::Forbidden(_))));
    registry.finalize_namespace("x").unwrap();
    assert!(registry.get(place).is_err());
    let missing = registry.create(Resource::Pods, Some("x"), pod("n"), false);
    assert!(matches!(missing, Err(ApiError::NotFound { .. })));
}

#[test]
fn generation_counts_specs_only() {
    let mut registry = registry();
    let place = Place::new(Resource::Deployments, None, "d");
    let object = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1}});
    registry.create(Resource::Deployments, None, object, false).unwrap();
    let generation = |object: &Object| at(&object.value, &["metadata", "generation"]).cloned();
    let label = Patch::Merge(json!({"metadata": {"labels": {"x": "1"}}}));
    let after = registry.patch(place, &label, Part::Main, false).unwrap();
    assert_eq!(generation(&after), Some(json!(1)));
    let scale = Patch::Merge(json!({"spec": {"replicas": 2}}));
    let after = registry.patch(place, &scale, Part::Main, false).unwrap();
    assert_eq!(generation(&after), Some(json!(2)));
}

#[test]
fn server_side_apply_creates_and_then_merges() {
    let mut registry = registry();
    let place = Place::new(Resource::Services, None, "s");
    let port = |port: u16| Patch::Apply(json!({"spec": {"ports": [{"port": port}]}}));
    registry.patch(place, &port(80), Part::Main, false).unwrap();
    let after = registry.patch(place, &port(81), Part::Main, false).unwrap();
    assert_eq!(at(&after.value, &["spec", "ports"]), Some(&json!([{"port": 80}, {"port": 81}])));
}

#[test]
fn names_and_types_are_checked() {
    let mut registry = registry();
    for (object, what) in [
        (json!({"metadata": {"name": "A_b"}}), "name"),
        (json!({"metadata": {}}), "no name"),
        (json!({"kind": "Service", "metadata": {"name": "a"}}), "kind"),
    ] {
        assert!(registry.create(Resource::Pods, None, object, false).is_err(), "{what}");
    }
    let generated = json!({"metadata": {"generateName": "web-"}});
    let pod = registry.create(Resource::Pods, None, generated, false).unwrap();
    assert!(object::name(&pod.value).starts_with("web-") && object::name(&pod.value).len() == 9);
    let role = json!({"metadata": {"name": "system:kube-router"}});
    registry.create(Resource::ClusterRoles, None, role, false).unwrap();
}
