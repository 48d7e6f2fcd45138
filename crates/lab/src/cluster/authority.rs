//! Certificates of a cluster: an authority and what it signs, made by `openssl`.
//!
//! They are good for two days, keys are on P-256, and nothing is kept but the files.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::Error;
use crate::process::{command, run};

/// Of an authority: it may sign, and nothing else.
const SIGNS: &str = "basicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign, cRLSign\n";

/// A certificate with its private key: files, PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key, PKCS #8, not encrypted.
    pub key: PathBuf,
}

/// Signs certificates.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    own: Pair,
}

impl Authority {
    /// A new authority. Its files are in `folder`, which is made.
    pub fn new(folder: &Path, name: &str) -> Result<Self, Error> {
        std::fs::create_dir_all(folder).map_err(|source| Error::Log { path: folder.to_owned(), source })?;
        Ok(Self { folder: folder.to_owned(), own: make(folder, name, SIGNS, None)? })
    }

    /// Its own certificate, by which others know what it signed.
    pub fn certificate(&self) -> &Path {
        &self.own.certificate
    }

    /// A certificate of a server that is reached by these addresses; one at least.
    pub fn server(&self, name: &str, addresses: &[IpAddr]) -> Result<Pair, Error> {
        let names: Vec<String> = addresses.iter().map(|ip| format!("IP:{ip}")).collect();
        let of_a_server = format!("extendedKeyUsage = serverAuth\nsubjectAltName = {}\n", names.join(", "));
        self.sign(name, &of_a_server)
    }

    /// A certificate of a client.
    pub fn client(&self, name: &str) -> Result<Pair, Error> {
        self.sign(name, "extendedKeyUsage = clientAuth\n")
    }

    fn sign(&self, name: &str, extensions: &str) -> Result<Pair, Error> {
        make(&self.folder, name, &format!("basicConstraints = CA:FALSE\n{extensions}"), Some(&self.own))
    }
}

/// One key and one certificate, `NAME.key` and `NAME.crt`, signed by `signer` or by itself.
fn make(folder: &Path, name: &str, extensions: &str, signer: Option<&Pair>) -> Result<Pair, Error> {
    let file = |extension: &str| folder.join(format!("{name}.{extension}"));
    let (config, pair) = (file("cnf"), Pair { certificate: file("crt"), key: file("key") });
    let text = format!(
        "[req]\ndistinguished_name = subject\nprompt = no\n[subject]\nCN = {name}\n[extensions]\n{extensions}"
    );
    std::fs::write(&config, text).map_err(|source| Error::Log { path: config.clone(), source })?;
    let mut openssl = command("openssl");
    openssl
        .args(["req", "-x509", "-days", "2", "-nodes", "-newkey", "ec"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-extensions", "extensions", "-config"])
        .arg(&config)
        .arg("-keyout")
        .arg(&pair.key)
        .arg("-out")
        .arg(&pair.certificate);
    if let Some(signer) = signer {
        openssl.arg("-CA").arg(&signer.certificate).arg("-CAkey").arg(&signer.key);
    }
    run(&mut openssl)?;
    Ok(pair)
}
