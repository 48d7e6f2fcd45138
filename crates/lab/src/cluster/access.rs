//! Other ways of an agent to the API server than `--master` over plain HTTP: TLS, and what the agent finds by itself.

use std::net::SocketAddr;

use super::builder::listen;
use super::{Cluster, Error};
use crate::api_server::Tls;

/// Port of the API server with TLS on the fabric's router, beside the one without.
const TLS_PORT: u16 = 6443;

impl Cluster {
    /// Serves over TLS, too, and returns where: an address of each family, IPv4 first. Needs the runtime. Whoever asks
    /// there shows a certificate or a token ([`crate::api_server::Faults::set_tokens`]).
    pub fn serve_tls(&self, tls: &Tls) -> Result<Vec<SocketAddr>, Error> {
        let listeners = listen(&self.fabric, TLS_PORT)?.into_iter();
        listeners.map(|listener| self.api.add_tls_listener(listener, tls).map_err(Error::Api)).collect()
    }

    /// Starts the agent of node number `index` (from 1) without `--master` from now on: it takes the node's
    /// `/var/lib/kube-router/kubeconfig`, else what the kubelet gives to pods, of which this sets the variables. The
    /// files are the caller's to write, in the node's namespaces.
    pub fn set_agent_without_master(&mut self, index: usize, server: SocketAddr) -> Result<(), Error> {
        let command = self.command_mut(index)?;
        command.master = None;
        command.environment = vec![
            ("KUBERNETES_SERVICE_HOST".to_owned(), server.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT".to_owned(), server.port().to_string()),
        ];
        Ok(())
    }

    /// Gives the agent of node number `index` these variables besides, from its next start on.
    pub fn add_to_agent_environment(
        &mut self,
        index: usize,
        variables: &[(&str, &str)],
    ) -> Result<(), Error> {
        let given = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.command_mut(index)?.environment.extend(given);
        Ok(())
    }
}
