//! kubectl and the API server: every manifest is taken, is the same the second time, and goes again.

use std::path::Path;

use lab::api_server::{ApiServer, Config};
use lab::process::{command, run};

use crate::manifests;

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_every_manifest() {
    let config = Config { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Config::default() };
    let server = ApiServer::start(config).await.unwrap();
    let address = server.addresses()[0];
    let home = tempfile::tempdir().unwrap();
    let kubectl = |verb: &str, file: &Path, more: &[&str]| {
        let mut kubectl = command(std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned()));
        kubectl.args(["--server", &format!("http://{address}"), verb, "-f"]).arg(file).args(more);
        run(kubectl.env("KUBECONFIG", "/dev/null").env("HOME", home.path()))
            .unwrap_or_else(|error| panic!("{error}"))
    };
    let lines = |text: &str, end: &str| text.lines().filter(|line| line.ends_with(end)).count();
    for (file, documents) in manifests() {
        let said = kubectl("apply", &file, &[]);
        assert_eq!(lines(&said, " created"), documents.len(), "{}: {said}", file.display());
        let again = kubectl("apply", &file, &[]);
        assert_eq!(lines(&again, " unchanged"), documents.len(), "{}: {again}", file.display());
        let gone = kubectl("delete", &file, &["--wait=false"]);
        assert_eq!(lines(&gone, " deleted"), documents.len(), "{}: {gone}", file.display());
    }
}
