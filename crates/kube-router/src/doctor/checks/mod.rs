//! Judgements on [`super::Facts`], each for one part of a node. Pure.

pub mod api;
pub mod firewall;
pub mod kernel;
pub mod network;
pub mod paths;
pub mod process;
pub mod settings;
