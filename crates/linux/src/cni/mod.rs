//! The CNI configuration file of the pods' bridge, as one row: from which prefixes pods get addresses, and their MTU.
//!
//! Decided here: what of the file is ours, how it is found in a file somebody else wrote, and how it is changed without
//! touching the rest. Ours are the `mtu` of the first plugin of type `bridge`, and in its `ipam` those range sets that
//! hold one subnet and nothing else. A range set that says more (a start, a gateway) is its author's and stays.
//! Which prefixes and MTU there should be is a plan's business. A plugin that is to follow the others is a row of its own.

mod chained;
mod lane;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

pub use chained::{chain, is_chained, unchain};
pub use lane::CniLane;

/// What of a CNI configuration is ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniConfig {
    /// Prefixes pods get addresses from, host bits zero.
    pub subnets: BTreeSet<IpNet>,
    /// MTU of the bridge and of pods, in bytes; `None` leaves what the file says, or the kernel's default.
    pub mtu: Option<u32>,
}

/// Why a file is no configuration for a bridge of pods.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON.
    #[error("is not JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Nothing in it is a bridge.
    #[error("has no plugin of type \"bridge\"; write one as in cni/10-kuberouter.conf")]
    NoBridge,
    /// The bridge assigns no addresses.
    #[error("gives its bridge plugin no \"ipam\"; write one of type \"host-local\"")]
    NoIpam,
    /// There is no list a plugin could be added to.
    #[error(
        "is one plugin and no list, so none can follow it; write it as a list (\"plugins\") in a file that ends in .conflist"
    )]
    NoList,
    /// Part of it has another form than CNI's.
    #[error("has a {0} of another form than the CNI specification gives it")]
    Form(&'static str),
}

/// Reads what of a configuration looks like ours.
///
/// # Errors
/// When the text configures no bridge with an address plugin.
pub fn read(text: &str) -> Result<CniConfig, Error> {
    let mut file: Value = serde_json::from_str(text)?;
    let bridge = bridge(&mut file)?;
    let mtu = bridge.get("mtu").and_then(Value::as_u64).and_then(|mtu| u32::try_from(mtu).ok());
    let ipam = ipam(bridge)?;
    let legacy = ipam.get("subnet").and_then(subnet);
    let plain = ranges(ipam)?.iter().filter_map(plain_subnet);
    Ok(CniConfig { subnets: plain.chain(legacy).collect(), mtu })
}

/// The text with our part as wanted and everything else as it was, unless it says so already; an `ipam.subnet` of the
/// old form becomes a range. Keys come out sorted, as Go writes them.
///
/// # Errors
/// As [`read`].
pub fn revise(text: &str, wanted: &CniConfig) -> Result<Option<String>, Error> {
    let before: Value = serde_json::from_str(text)?;
    let mut file = before.clone();
    let bridge = bridge(&mut file)?;
    if let Some(mtu) = wanted.mtu {
        bridge.insert("mtu".to_owned(), json!(mtu));
    }
    let ipam = ipam(bridge)?;
    ipam.remove("subnet");
    let mut sets = std::mem::take(ranges(ipam)?);
    sets.retain(|set| plain_subnet(set).is_none());
    // A range its author made for one of the prefixes serves it already.
    let covered = |net: &IpNet| sets.iter().any(|set| subnets(set).any(|there| there == *net));
    let missing: Vec<Value> = wanted
        .subnets
        .iter()
        .filter(|net| !covered(net))
        .map(|net| json!([{"subnet": net.to_string()}]))
        .collect();
    sets.extend(missing);
    *ranges(ipam)? = sets;
    Ok((file != before).then(|| file.to_string()))
}

/// The bridge: the first in a list of plugins, or the file itself.
fn bridge(file: &mut Value) -> Result<&mut Map<String, Value>, Error> {
    let is_bridge = |plugin: &Value| plugin.get("type").and_then(Value::as_str) == Some("bridge");
    if file.get("plugins").is_none() {
        return if is_bridge(file) {
            file.as_object_mut().ok_or(Error::NoBridge)
        } else {
            Err(Error::NoBridge)
        };
    }
    let plugins = file.get_mut("plugins").and_then(Value::as_array_mut).ok_or(Error::Form("\"plugins\""))?;
    plugins.iter_mut().find(|plugin| is_bridge(plugin)).and_then(Value::as_object_mut).ok_or(Error::NoBridge)
}

fn ipam(bridge: &mut Map<String, Value>) -> Result<&mut Map<String, Value>, Error> {
    bridge.get_mut("ipam").and_then(Value::as_object_mut).ok_or(Error::NoIpam)
}

fn ranges(ipam: &mut Map<String, Value>) -> Result<&mut Vec<Value>, Error> {
    let ranges = ipam.entry("ranges").or_insert_with(|| json!([]));
    ranges.as_array_mut().ok_or(Error::Form("\"ranges\""))
}

/// The subnet of a range set that holds it and nothing else.
fn plain_subnet(set: &Value) -> Option<IpNet> {
    let [range] = set.as_array()?.as_slice() else { return None };
    let range = range.as_object().filter(|range| range.len() == 1)?;
    subnet(range.get("subnet")?)
}

fn subnets(set: &Value) -> impl Iterator<Item = IpNet> {
    set.as_array().into_iter().flatten().filter_map(|range| subnet(range.get("subnet")?))
}

fn subnet(text: &Value) -> Option<IpNet> {
    text.as_str()?.parse::<IpNet>().ok().map(|net| net.trunc())
}
