//! External BGP peers: four parallel lists become one list of peers.

use std::net::IpAddr;

use ::bgp::Asn;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::bgp::in_range;
use super::refusal::BadFlag;
use super::syntax::{Item, List, Uint, csv_record, items};
use crate::secret::Secret;

const IPS: &str = "peer-router-ips";
const ASNS: &str = "peer-router-asns";
const PORTS: &str = "peer-router-ports";
const PASSWORDS: &str = "peer-router-passwords";
const BGP_PORT: u16 = 179;

/// A router outside of the cluster every node peers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalPeer {
    /// Its address.
    pub ip: IpAddr,
    /// Its AS number.
    pub asn: Asn,
    /// Its TCP port.
    pub port: u16,
    /// The TCP MD5 key (RFC 2385), decoded; `None` for a session without.
    pub password: Option<Secret>,
}

impl Item for Secret {
    fn read(text: &str) -> Result<Self, String> {
        Ok(Secret::new(text))
    }
}

/// The lists as written on the command line.
pub(super) struct PeerLists {
    pub(super) ips: Vec<List<IpAddr>>,
    pub(super) asns: Vec<List<Uint<u32>>>,
    pub(super) ports: Vec<List<Uint<u32>>>,
    pub(super) passwords: Vec<List<Secret>>,
}

impl PeerLists {
    /// One peer per address. The other lists have as many items; ports and passwords may be absent.
    pub(super) fn zip(self) -> Result<Vec<ExternalPeer>, BadFlag> {
        let ips = items(self.ips);
        let asns = items(self.asns).into_iter().map(|n| n.0).collect::<Vec<u32>>();
        let ports = items(self.ports).into_iter().map(|n| n.0).collect::<Vec<u32>>();
        if asns.len() != ips.len() {
            return Err(BadFlag::new(ASNS, join(&asns), counts(asns.len(), ips.len())));
        }
        if !ports.is_empty() && ports.len() != ips.len() {
            return Err(BadFlag::new(PORTS, join(&ports), counts(ports.len(), ips.len())));
        }
        let mut peers = Vec::with_capacity(ips.len());
        for (position, (ip, asn)) in ips.into_iter().zip(asns).enumerate() {
            let asn = Asn::peer(asn).map_err(|error| BadFlag::new(ASNS, asn, error.to_string()))?;
            let port = match ports.get(position) {
                Some(port) => in_range(PORTS, *port, 1, 65_535)?,
                None => BGP_PORT,
            };
            peers.push(ExternalPeer { ip, asn, port, password: None });
        }
        set_passwords(&mut peers, &items(self.passwords))
            .map_err(|reason| BadFlag::secret(PASSWORDS, reason))?;
        Ok(peers)
    }
}

/// Gives `peers` the passwords of a `--peer-router-passwords-file`: one line, in the order of the addresses.
///
/// # Errors
/// What is wrong with the text, without quoting it.
pub fn set_passwords_from_file(peers: &mut [ExternalPeer], text: &str) -> Result<(), String> {
    let text = text.trim_end();
    if text.is_empty() {
        // More likely a file being written than the wish to have no password.
        return Err("is empty".to_owned());
    }
    let passwords = csv_record(text).ok_or("quotes are not balanced")?;
    let passwords: Vec<Secret> = passwords.into_iter().map(Secret::new).collect();
    set_passwords(peers, &passwords)
}

fn set_passwords(peers: &mut [ExternalPeer], passwords: &[Secret]) -> Result<(), String> {
    if !passwords.is_empty() && passwords.len() != peers.len() {
        return Err(counts(passwords.len(), peers.len()));
    }
    for (position, (peer, encoded)) in peers.iter_mut().zip(passwords).enumerate() {
        let encoded = encoded.reveal().trim();
        let not_base64 = || format!("item {} is not the base64 of a text", position + 1);
        let decoded = STANDARD.decode(encoded).map_err(|_| not_base64())?;
        let password = String::from_utf8(decoded).map_err(|_| not_base64())?;
        peer.password = (!password.is_empty()).then(|| Secret::new(password));
    }
    Ok(())
}

fn counts(items: usize, ips: usize) -> String {
    format!("has {items} items, --{IPS} has {ips}")
}

fn join(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Vec<ExternalPeer> {
        ["192.0.2.1", "2001:db8::1"]
            .map(|ip| ExternalPeer {
                ip: ip.parse().unwrap(),
                asn: Asn::new(65_000).unwrap(),
                port: BGP_PORT,
                password: None,
            })
            .to_vec()
    }

    #[test]
    fn a_password_file_is_read_like_the_flag() {
        let mut peers = peers();
        set_passwords_from_file(&mut peers, "aHVudGVyMg==,\n").unwrap();
        let passwords: Vec<_> = peers.iter().map(|p| p.password.as_ref().map(Secret::reveal)).collect();
        assert_eq!(passwords, [Some("hunter2"), None]);
    }

    #[test]
    fn an_empty_file_is_no_list_of_passwords() {
        assert_eq!(set_passwords_from_file(&mut peers(), "\n").unwrap_err(), "is empty");
    }

    #[test]
    fn a_bad_password_is_not_quoted() {
        let error = set_passwords_from_file(&mut peers(), "aHVudGVyMg==,hunter2!").unwrap_err();
        assert_eq!(error, "item 2 is not the base64 of a text");
        assert!(set_passwords_from_file(&mut peers(), "aHVudGVyMg==").unwrap_err().contains("has 1 items"));
    }
}
