//! From what the core holds to what is told. Pure; O(rows) for virtual servers, O(tables) otherwise.

use linux::reconciler::Reconciler;
use linux::row::{Key, Row};

use super::{
    AnnouncedState, BackendState, ObjectionState, RefusedRow, ServiceState, Status, TableState, WatchState,
};
use crate::kube::model::{Kind, ObjectName};
use crate::objection::Objection;
use crate::owner::Owner;
use crate::store::Store;

/// Adds tables and refused rows.
pub fn rows(reconciler: &Reconciler<Owner>, status: &mut Status) {
    // Not the reconciler's word: an audit in progress leaves nothing unprogrammed.
    status.settled = reconciler.counts().all(|(_, count)| count.desired <= count.actual + count.refused);
    let used = |count: &linux::reconciler::TableCount| count.desired + count.actual + count.refused > 0;
    let counts = reconciler.counts().filter(|(_, count)| used(count));
    status.tables = counts
        .map(|(table, count)| TableState {
            table: table.as_str().to_owned(),
            desired: count.desired,
            actual: count.actual,
            refused: count.refused,
            healed: count.drifted,
        })
        .collect();
    let refused = reconciler.refusals().map(|(key, refused, owners)| RefusedRow {
        row: key.to_string(),
        wanted_by: owners.iter().map(ToString::to_string).collect(),
        reason: refused.reason.clone(),
        attempts: refused.attempts,
    });
    status.refused = refused.collect();
}

/// Adds the watches of these kinds.
pub fn watches(store: &Store, kinds: impl Iterator<Item = Kind>, status: &mut Status) {
    let watches = kinds.map(|kind| WatchState {
        kind: kind.as_str().to_owned(),
        synced: store.synced(kind),
        broken: store.broken(kind).map(str::to_owned),
    });
    status.watches = watches.collect();
}

/// Adds pods of which only the CNI plugin knows the addresses.
pub fn announced(store: &Store, status: &mut Status) {
    let pods = store.announced().map(|(told, known)| AnnouncedState {
        pod: told.id.to_string(),
        container: told.container.to_string(),
        addresses: told.ips.iter().map(ToString::to_string).collect(),
        known,
    });
    status.announced = pods.collect();
}

/// Adds objections.
pub fn objections<'a>(all: impl Iterator<Item = &'a Objection>, status: &mut Status) {
    status.objections.extend(all.map(|objection| ObjectionState {
        object: objection.object.to_string(),
        field: objection.field.clone(),
        value: objection.value.clone(),
        reason: objection.reason.clone(),
        remedy: objection.remedy.clone(),
    }));
}

/// Whose a virtual server is, and what kind of address it has.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Its key.
    pub key: Key,
    /// The Service.
    pub service: ObjectName,
    /// `ClusterIP`, `NodePort`, …
    pub kind: &'static str,
}

/// Adds virtual servers with what is in the kernel of them.
pub fn services(claimed: impl Iterator<Item = Claimed>, reconciler: &Reconciler<Owner>, status: &mut Status) {
    let state = |Claimed { key, service, kind }: Claimed| {
        let wanted = match reconciler.desired(&key) {
            Some(Row::VirtualServer(server)) => server.scheduler.as_str().to_owned(),
            _ => String::new(),
        };
        let backends = reconciler.contents(&key).filter_map(|(key, row)| match (key, row) {
            (Key::RealServer(_, ip, port), Row::RealServer(server)) => Some(BackendState {
                at: std::net::SocketAddr::new(*ip, *port).to_string(),
                weight: server.weight,
            }),
            _ => None,
        });
        let at = match &key {
            Key::VirtualServer(server) => server.to_string(),
            other => other.to_string(),
        };
        ServiceState {
            service: service.to_string(),
            at,
            kind: kind.to_owned(),
            scheduler: wanted,
            programmed: reconciler.actual(&key).is_some(),
            backends: backends.collect(),
        }
    };
    status.services.extend(claimed.map(state));
    status.services.sort_by(|a, b| (&a.service, &a.at).cmp(&(&b.service, &b.at)));
}
