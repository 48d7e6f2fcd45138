//! Where a pod is in kernel sets: in those of every selection it is in that some policy in force here asks for.

use linux::reconciler::Claim;
use linux::row::{Family, Key, Member, Row};

use crate::kube::model::ObjectName;
use crate::network_policy::index::Index;
use crate::network_policy::selections::SetKind;

/// The memberships of a pod, here or elsewhere. O(selections it is in).
pub(in crate::network_policy) fn claims(id: &ObjectName, index: &Index) -> Vec<Claim> {
    let Some((pod, group)) = index.pod(id) else { return Vec::new() };
    let ips: Vec<_> = pod.ips().iter().copied().filter(|ip| index.enforces(Family::of(ip))).collect();
    let mut claims = Vec::new();
    let selections = group.selections.iter().filter_map(|number| index.selections.get(*number));
    for (kind, needed) in selections.flat_map(|selection| &selection.sets) {
        for ip in &ips {
            let member = match kind {
                SetKind::Addresses => Some(Member::Ip(*ip)),
                SetKind::Ports { here: true, .. } if !pod.here => None,
                SetKind::Ports { name, protocol, .. } => {
                    group.port(name, *protocol).map(|port| Member::IpPort(*ip, *protocol, port))
                }
            };
            let set = needed.key(Family::of(ip)).clone();
            claims.extend(member.map(|member| Claim::new(Key::Member(set, member), Row::Member)));
        }
    }
    claims
}
