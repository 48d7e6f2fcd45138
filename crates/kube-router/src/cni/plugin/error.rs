//! What can go wrong, as CNI tells it to the runtime.

use std::io;

use serde_json::json;

use crate::cni::records::RecordError;
use crate::status::client::ClientError;

/// The call failed; see the variants.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The configuration is of a version that is not spoken.
    #[error("cniVersion {0:?} is not spoken; write one of {spoken}", spoken = super::call::VERSIONS.join(", "))]
    Version(String),
    /// The runtime's environment lacks something, or has it in another form.
    #[error("{variable} {reason}")]
    Environment {
        /// Which variable.
        variable: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// Standard input could not be read.
    #[error("reading the network configuration: {0}")]
    Input(io::Error),
    /// Standard input is no network configuration.
    #[error("the network configuration cannot be read: {0}")]
    Decode(serde_json::Error),
    /// A key of the configuration has a value that cannot be used.
    #[error("{field} {value} of the network configuration {reason}")]
    Configuration {
        /// The key.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong, with the remedy.
        reason: String,
    },
    /// The pod's record could not be kept.
    #[error("keeping the record of the pod: {0}")]
    Record(#[from] RecordError),
    /// The process could not be set up.
    #[error("cannot set up the process: {0}")]
    Runtime(io::Error),
    /// No agent has answered in time.
    #[error("the pod's rules are not known to be in the kernel: {0}")]
    Unanswered(ClientError),
    /// No agent answers, so that no pod could start.
    #[error("no agent is there to wait for: {0}")]
    Unavailable(ClientError),
    /// The agent has not done it in time, or will not.
    #[error("the pod's rules are not in the kernel: {0}")]
    NotReady(String),
}

impl PluginError {
    /// The number the specification gives to it; from 100 on they are the plugin's own.
    fn code(&self) -> u32 {
        match self {
            PluginError::Version(_) => 1,
            PluginError::Environment { .. } => 4,
            PluginError::Input(_) | PluginError::Record(_) => 5,
            PluginError::Decode(_) => 6,
            PluginError::Configuration { .. } => 7,
            // "Try again later."
            PluginError::Unanswered(_) | PluginError::NotReady(_) => 11,
            // "The plugin is not available (i.e. cannot service ADD requests)."
            PluginError::Unavailable(_) => 50,
            PluginError::Runtime(_) => 100,
        }
    }

    /// What is printed instead of a result.
    pub(super) fn as_json(&self, version: &str) -> String {
        let text = format!("{}: {self}", crate::names::CNI_PLUGIN);
        json!({ "cniVersion": version, "code": self.code(), "msg": text }).to_string()
    }
}
