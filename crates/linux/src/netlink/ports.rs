//! Whose a notification is: the port ids of our own sockets.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Port ids of this process's own sockets, shared between those that write and the one that listens, so that a change
/// of ours is not taken for someone else's.
#[derive(Debug, Clone, Default)]
pub struct OwnPorts(Arc<Mutex<HashSet<u32>>>);

impl OwnPorts {
    /// Adds a socket's port. Ports are never removed: a socket lives as long as its lane.
    pub fn add(&self, port: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
    }

    /// Whether a port is one of ours.
    pub fn contains(&self, port: u32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&port)
    }
}
