//! What callers ask of a driver, put where they need not wait.
//!
//! Wishes replace each other: of several configurations only the last counts, and of several paths to a prefix. So the box
//! holds no more than one wish for each prefix, however late the driver looks.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio::sync::{Notify, oneshot};

use super::PeerReport;
use crate::attributes::Attributes;
use crate::config::Config;
use crate::policy::{PrefixRange, SetName};
use crate::speaker::{PathView, Routing};

/// Something to be done once, in order.
#[derive(Debug)]
pub(super) enum Request {
    ChangeSet { name: SetName, add: Vec<PrefixRange>, remove: Vec<PrefixRange> },
    NextHopMetric(IpAddr, Option<u32>),
    StopPeer(IpAddr, String),
    StartPeer(IpAddr),
    ResetPeer(IpAddr, String),
    RefreshPeer(IpAddr),
    Peers(oneshot::Sender<Vec<PeerReport>>),
    Paths(oneshot::Sender<Vec<PathView>>),
}

/// What has been asked for since the driver last looked.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) configuration: Option<Box<(Config, Routing)>>,
    /// `None` for a path to be withdrawn.
    pub(super) paths: BTreeMap<IpNet, Option<Attributes>>,
    pub(super) requests: VecDeque<Request>,
    /// End, and tell the peers this.
    pub(super) stop: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Mailbox {
    wishes: Mutex<Wishes>,
    wake: Notify,
}

impl Mailbox {
    /// Adds to the wishes.
    pub(super) fn put(&self, change: impl FnOnce(&mut Wishes)) {
        change(&mut self.lock());
        self.wake.notify_one();
    }

    /// Returns once something has been put since the last return.
    pub(super) async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Takes everything out.
    pub(super) fn take(&self) -> Wishes {
        std::mem::take(&mut *self.lock())
    }

    /// Takes out what makes sense before there is a configuration, and that if there is one.
    pub(super) fn take_but_paths(&self) -> Wishes {
        let mut wishes = self.lock();
        let paths = std::mem::take(&mut wishes.paths);
        let taken = std::mem::take(&mut *wishes);
        wishes.paths = paths;
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Wishes> {
        // A caller that panicked while it held the lock left at worst a wish out.
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
