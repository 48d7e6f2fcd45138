//! The pods of `daemonset/` in containers: prepared, started, at work, stopped, cleaned up after.
//!
//! [`variants`] says which there are and what each does, [`work`] where that is seen, [`life`] how an agent's container
//! begins and ends, [`stage`] what is around it. [`pod`] and [`containerd`] are the kubelet's part and the runtime's.

mod containerd;
mod life;
mod pod;
mod stage;
mod variants;
mod work;

use std::time::Duration;

/// Longer than anything here takes on a loaded machine; a condition that is met ends the wait.
const SOON: Duration = Duration::from_secs(120);
