//! Before a pod's first packet: the CNI plugin `kube-router-cni`, and the agent's end of its conversation.
//!
//! The kubelet learns a pod's addresses from CNI and tells the API server later, when the pod's programs run already. The
//! plugin stands last in the list of plugins and closes that gap: it hands the addresses to the agent of its node and
//! returns when the pod's rules are in the kernel.
//!
//! ```text
//! runtime ─ADD─► bridge, … ─► kube-router-cni ──PUT──► agent: store ─► plans ─► kernel
//!         ◄──────────────────  prevResult    ◄──200──                              ┘
//! ```
//!
//! Decided here: what is handed over ([`wire`]), how it outlives a restart of the agent ([`records`]), how long is waited
//! and what happens then ([`plugin`]). Which rules a pod needs is the controllers' business.

pub mod plugin;
pub mod records;
pub mod socket;
pub mod wire;
