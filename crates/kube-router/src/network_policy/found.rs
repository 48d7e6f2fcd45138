//! What is wrong with a policy as things are: nothing in its text, but nothing can come of it either.

use linux::row::Family;

use super::compile::{Compiled, Direction, named};
use super::index::Index;
use crate::kube::model::Kind;
use crate::objection::Objection;

/// Named ports that none of the pods they could be on has, and blocks of families that are off. O(named ports × groups of
/// pods they could be on).
pub(super) fn objections(policy: &Compiled, index: &Index) -> Vec<Objection> {
    let object = policy.id.of_kind(Kind::NetworkPolicy);
    let mut objections: Vec<Objection> = Vec::new();
    for direction in Direction::ALL {
        for (place, permit) in policy.permits(direction).unwrap_or_default().iter().enumerate() {
            let owners = policy.owners_of_named_port(direction, &permit.peers);
            for port in permit.ports.iter().flatten() {
                let Some(name) = named(port) else { continue };
                if owners.iter().any(|owner| index.has_port(*owner, name, port.protocol)) {
                    continue;
                }
                objections.push(Objection {
                    object: object.clone(),
                    field: format!("spec.{}[{place}].ports", direction.as_str()),
                    value: format!("{name}/{}", port.protocol),
                    reason: "is a name that no port of the pods it is meant for has".to_owned(),
                    remedy: "it permits nothing until one has; correct the name or name the containers' port"
                        .to_owned(),
                });
            }
        }
    }
    objections.extend(policy.off.iter().map(|(field, net)| {
        let family = match Family::of_net(net) {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        Objection {
            object: object.clone(),
            field: field.to_string(),
            value: net.to_string(),
            reason: format!("is of {family}, which is off on this node"),
            remedy: format!("it permits nothing here; switch on --enable-{}", family.to_lowercase()),
        }
    }));
    objections.dedup();
    objections
}
