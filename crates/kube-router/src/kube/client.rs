//! How to reach the API server, and what this node is called there.
//!
//! Decided here, from the options, the environment and the files of a pod: one client configuration and one node name.
//! Nothing is connected: whether the server answers, and how long to keep trying, is the watchers' business.

use std::io;
use std::path::{Path, PathBuf};

use ::kube::Config;
use ::kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use axum::http::Uri;

use super::proxy::{self, ProxyError};
use crate::options::Api;

/// The kubeconfig of the published manifests, used if nothing else is said and it exists.
const DEFAULT_KUBECONFIG: &str = "/var/lib/kube-router/kubeconfig";
/// The token the kubelet gives to pods.
const POD_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Holds the host name without asking libc.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// There is no usable way to the API server, or no node name.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig file cannot be read or used.
    #[error("cannot use the kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: KubeconfigError,
    },
    /// The files or variables the kubelet gives to pods are absent or bad.
    #[error(
        "cannot use the pod's own access to the API server (outside of a pod give --kubeconfig or --master)"
    )]
    InCluster(#[source] InClusterError),
    /// A proxy is named that cannot be one.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The host has no readable name.
    #[error("cannot read the host name from {HOST_NAME} (give --hostname-override)")]
    HostName(#[source] io::Error),
    /// The host's name is empty.
    #[error("the host has no name (give --hostname-override)")]
    NoHostName,
}

/// Where the client configuration comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// A kubeconfig, with the server of `--master` if there is one.
    Kubeconfig(PathBuf, Option<Uri>),
    /// A pod's token for the server of `--master`.
    PodToken(Uri),
    /// The server of `--master` without credentials.
    Anonymous(Uri),
    /// A pod's token for the server the kubelet names.
    InCluster,
}

/// The configuration of the client.
///
/// # Errors
/// [`ClientError`] if the chosen kubeconfig or the pod's files are unusable.
pub async fn config(api: &Api) -> Result<Config, ClientError> {
    let mut config = match source(api, Path::exists) {
        Source::Kubeconfig(path, master) => from_file(path, master).await?,
        Source::Anonymous(master) => Config::new(master),
        Source::PodToken(master) => {
            let mut config = Config::incluster_dns().map_err(ClientError::InCluster)?;
            config.cluster_url = master;
            config
        }
        Source::InCluster => Config::incluster_env().map_err(ClientError::InCluster)?,
    };
    if config.proxy_url.is_none() {
        config.proxy_url = proxy::from_environment(&config.cluster_url, |name| std::env::var(name).ok())?;
    }
    Ok(config)
}

fn source(api: &Api, exists: impl Fn(&Path) -> bool) -> Source {
    match (&api.kubeconfig, &api.master) {
        (Some(path), master) => Source::Kubeconfig(path.clone(), master.clone()),
        (None, Some(master)) if exists(Path::new(POD_TOKEN)) => Source::PodToken(master.clone()),
        (None, Some(master)) => Source::Anonymous(master.clone()),
        (None, None) if exists(Path::new(DEFAULT_KUBECONFIG)) => {
            Source::Kubeconfig(DEFAULT_KUBECONFIG.into(), None)
        }
        (None, None) => Source::InCluster,
    }
}

async fn from_file(path: PathBuf, master: Option<Uri>) -> Result<Config, ClientError> {
    let read = async {
        let file = Kubeconfig::read_from(&path)?;
        let proxy = proxy_of(&file).map(str::to_owned);
        Ok((Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?, proxy))
    };
    let read = read.await;
    let (mut config, proxy) = read.map_err(|source| ClientError::Kubeconfig { path, source })?;
    config.cluster_url = master.unwrap_or(config.cluster_url);
    config.proxy_url = proxy.map(|url| proxy::named("proxy-url in the kubeconfig", &url)).transpose()?;
    Ok(config)
}

/// `proxy-url` of the cluster in use.
fn proxy_of(file: &Kubeconfig) -> Option<&str> {
    let current = file.current_context.as_ref()?;
    let context = file.contexts.iter().find(|context| context.name == *current)?.context.as_ref()?;
    let cluster = file.clusters.iter().find(|cluster| cluster.name == context.cluster)?;
    cluster.cluster.as_ref()?.proxy_url.as_deref().filter(|url| !url.is_empty())
}

/// The name of this node: `--hostname-override`, else `$NODE_NAME`, else the host's own, unchanged.
///
/// # Errors
/// [`ClientError::HostName`] or [`ClientError::NoHostName`] if none of them is there.
pub fn node_name(api: &Api) -> Result<String, ClientError> {
    let given = api.hostname_override.clone().or_else(|| std::env::var("NODE_NAME").ok());
    choose_name(given, || std::fs::read_to_string(HOST_NAME))
}

fn choose_name(
    given: Option<String>,
    host: impl FnOnce() -> io::Result<String>,
) -> Result<String, ClientError> {
    if let Some(name) = given.filter(|name| !name.is_empty()) {
        return Ok(name);
    }
    let host = host().map_err(ClientError::HostName)?;
    match host.trim_end() {
        "" => Err(ClientError::NoHostName),
        name => Ok(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::connection;
    use crate::options::Options;

    fn api(flags: &[&str]) -> Api {
        Options::from_flags(flags).unwrap().api
    }

    #[test]
    fn the_most_explicit_source_wins() {
        let (nothing, everything) = (|_: &Path| false, |_: &Path| true);
        let master: Uri = "http://127.0.0.1:8080".parse().unwrap();
        let both = api(&["--kubeconfig=/k", "--master=http://127.0.0.1:8080"]);
        assert_eq!(source(&both, everything), Source::Kubeconfig("/k".into(), Some(master.clone())));
        assert_eq!(source(&api(&["--kubeconfig=/k"]), nothing), Source::Kubeconfig("/k".into(), None));
        let alone = api(&["--master=http://127.0.0.1:8080"]);
        assert_eq!(source(&alone, nothing), Source::Anonymous(master.clone()));
        assert_eq!(source(&alone, everything), Source::PodToken(master));
        assert_eq!(source(&api(&[]), everything), Source::Kubeconfig(DEFAULT_KUBECONFIG.into(), None));
        assert_eq!(source(&api(&[]), nothing), Source::InCluster);
    }

    #[tokio::test]
    async fn a_kubeconfig_is_read_and_its_server_can_be_overridden() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n\
                    clusters: [{name: k, cluster: {server: 'https://192.0.2.1:6443'}}]\nusers: [{name: u, user: {token: t}}]\n";
        std::fs::write(file.path(), text).unwrap();
        let flag = format!("--kubeconfig={}", file.path().display());
        assert_eq!(config(&api(&[&flag])).await.unwrap().cluster_url, "https://192.0.2.1:6443/");
        let overridden = config(&api(&[&flag, "--master=http://127.0.0.1:1"])).await.unwrap();
        assert_eq!(overridden.cluster_url, "http://127.0.0.1:1/");
        // Both kinds of server make a client: TLS finds its provider.
        assert!(connection::client(&overridden).is_ok());
        assert!(connection::client(&config(&api(&[&flag])).await.unwrap()).is_ok());

        let behind =
            |url: &str| text.replace("cluster: {server", &format!("cluster: {{proxy-url: '{url}', server"));
        std::fs::write(file.path(), behind("http://192.0.2.9:3128")).unwrap();
        let proxied = config(&api(&[&flag])).await.unwrap();
        assert_eq!(proxied.proxy_url.clone().unwrap(), "http://192.0.2.9:3128/");
        assert!(connection::client(&proxied).is_ok());
        std::fs::write(file.path(), behind("socks5://u:secret@192.0.2.9")).unwrap();
        let error = config(&api(&[&flag])).await.unwrap_err().to_string();
        assert!(error.contains("proxy-url") && !error.contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn an_unusable_kubeconfig_is_named() {
        let error = config(&api(&["--kubeconfig=/nonexistent/kubeconfig"])).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot use the kubeconfig /nonexistent/kubeconfig");
    }

    #[test]
    fn the_node_name_is_taken_as_it_is() {
        let host = || Ok("Node.Example\n".to_owned());
        assert_eq!(choose_name(Some("given".into()), host).unwrap(), "given");
        assert_eq!(choose_name(Some(String::new()), host).unwrap(), "Node.Example");
        assert_eq!(choose_name(None, host).unwrap(), "Node.Example");
        assert!(matches!(choose_name(None, || Ok("\n".to_owned())), Err(ClientError::NoHostName)));
    }
}
