//! Network policy without a kernel: random clusters and orders of events, judged by an evaluator that knows only the
//! text of the Kubernetes API, and by reading the rows as the kernel would.

mod chains;
mod golden;
mod guarded;
mod naive;
mod node;
mod properties;
mod world;
