//! `lab api-server`: the API server alone, for kubectl or an agent started by hand.

use std::net::SocketAddr;

use clap::Args;
use lab::api_server::{Config, serve};

use super::Failure;

#[derive(Args)]
pub(super) struct Flags {
    /// Address to listen on (repeatable)
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: Vec<SocketAddr>,
    /// Store objects as they come: no defaults, no addresses, no controllers
    #[arg(long)]
    bare: bool,
}

pub(super) fn run(flags: Flags) -> Result<u8, Failure> {
    let mut config = Config { listen: flags.listen, ..Config::default() };
    if flags.bare {
        config.control_plane = None;
    }
    tokio::runtime::Runtime::new()?.block_on(serve(config))?;
    Ok(0)
}
