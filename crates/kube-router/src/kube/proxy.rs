//! Whether the API server is asked by way of an HTTP proxy, as every Go program decides it: a kubeconfig's `proxy-url`, else
//! the variables `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` (golang.org/x/net/http/httpproxy). Drop-in for one of them, the
//! agent goes the same way. The client library knows the variables, too, but compares `NO_PROXY` with the proxy.

use std::net::IpAddr;

use axum::http::Uri;
use axum::http::uri::InvalidUri;
use hyper_util::client::proxy::matcher::Matcher;

/// Something names a proxy that cannot be used. What exactly is not repeated: a password may be in it.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// It is no URL.
    #[error("the proxy that {named_by} names is no URL (mend it, or put the API server into NO_PROXY)")]
    NoUrl {
        /// A variable, or a field of the kubeconfig.
        named_by: &'static str,
        /// What is wrong with it.
        #[source]
        source: InvalidUri,
    },
    /// It is spoken to in another way than plain HTTP.
    #[error("the proxy that {named_by} names is not an http:// one, and others are not supported")]
    Scheme {
        /// As above.
        named_by: &'static str,
    },
}

/// A proxy by its URL, or what Go takes for one: without a scheme it is `http`.
///
/// # Errors
/// If it cannot be used.
pub fn named(named_by: &'static str, url: &str) -> Result<Uri, ProxyError> {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let proxy: Uri = url.parse().map_err(|source| ProxyError::NoUrl { named_by, source })?;
    if proxy.scheme_str() == Some("http") { Ok(proxy) } else { Err(ProxyError::Scheme { named_by }) }
}

/// The proxy for this server by the variables of the environment, of which `variable` tells the values.
///
/// # Errors
/// If the proxy to be used cannot be.
pub fn from_environment(
    server: &Uri,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Uri>, ProxyError> {
    let get = |names: [&'static str; 2]| {
        let found = names.into_iter().find_map(|name| Some((name, variable(name)?)));
        found.map(|(name, value)| (name, value.trim().to_owned())).filter(|(_, value)| !value.is_empty())
    };
    let names = match server.scheme_str() {
        Some("https") => ["HTTPS_PROXY", "https_proxy"],
        _ => ["HTTP_PROXY", "http_proxy"],
    };
    let Some((variable, proxy)) = get(names) else { return Ok(None) };
    let except = get(["NO_PROXY", "no_proxy"]).map(|(_, value)| value).unwrap_or_default();
    // Whatever the proxy is: only the rule of exceptions is asked for.
    let matcher = Matcher::builder().all("http://proxy.invalid").no(except.as_str()).build();
    if except == "*" || is_here(server) || matcher.intercept(server).is_none() {
        return Ok(None);
    }
    named(variable, &proxy).map(Some)
}

/// A proxy elsewhere would ask itself.
fn is_here(server: &Uri) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(server: &str, variables: &[(&str, &str)]) -> Option<String> {
        let get = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        from_environment(&server.parse().unwrap(), get).unwrap().map(|uri| uri.to_string())
    }

    #[test]
    fn the_scheme_of_the_server_chooses_the_variable() {
        let both = [("HTTPS_PROXY", "http://a:3128"), ("http_proxy", "b:3128")];
        assert_eq!(proxy("https://192.0.2.1:6443", &both).as_deref(), Some("http://a:3128/"));
        assert_eq!(proxy("http://192.0.2.1:8080", &both).as_deref(), Some("http://b:3128/"));
        assert_eq!(proxy("https://192.0.2.1:6443", &[]), None);
        assert_eq!(proxy("https://192.0.2.1:6443", &[("HTTPS_PROXY", " ")]), None);
        let secret = [("https_proxy", "http://user:pa%40ss@a:3128")];
        assert_eq!(proxy("https://k.example:6443", &secret).as_deref(), Some("http://user:pa%40ss@a:3128/"));
    }

    #[test]
    fn exceptions_are_networks_addresses_and_domains() {
        let with = |except| [("HTTPS_PROXY", "http://a:3128"), ("NO_PROXY", except)];
        for (server, except) in [
            ("https://10.96.0.1", "10.0.0.0/8"),
            ("https://10.96.0.1:443", "192.0.2.1, 10.96.0.1"),
            ("https://[fd00::1]:6443", "fd00::/8"),
            ("https://api.cluster.example:6443", ".cluster.example"),
            ("https://api.cluster.example:6443", "cluster.example"),
            ("https://10.96.0.1", "*"),
            ("https://127.0.0.1:6443", ""),
            ("https://[::1]:6443", ""),
            ("https://localhost:6443", ""),
        ] {
            assert_eq!(proxy(server, &with(except)), None, "{server} with {except}");
        }
        for (server, except) in
            [("https://11.96.0.1", "10.0.0.0/8"), ("https://api.example:6443", "cluster.example")]
        {
            assert!(proxy(server, &with(except)).is_some(), "{server} with {except}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_told_without_its_value() {
        for value in ["http://user:secret@a b", "https://user:secret@a", "socks5://user:secret@a:1080"] {
            let get = |name: &str| (name == "HTTPS_PROXY").then(|| value.to_owned());
            let error = from_environment(&"https://192.0.2.1".parse().unwrap(), get).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(said.contains("HTTPS_PROXY") && !said.contains("secret"), "{said}");
        }
    }
}
