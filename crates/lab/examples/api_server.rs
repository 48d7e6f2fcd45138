//! The lab's API server alone, to try kubectl on: `cargo run -p lab --example api_server -- 127.0.0.1:8001`,
//! then `kubectl -s http://127.0.0.1:8001 get all -A`.

use std::error::Error;
use std::net::SocketAddr;

use lab::api_server::{Config, serve};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let listen = std::env::args().skip(1).map(|address| address.parse::<SocketAddr>());
    let mut config = Config { listen: listen.collect::<Result<_, _>>()?, ..Config::default() };
    if config.listen.is_empty() {
        config.listen.push("127.0.0.1:8001".parse()?);
    }
    serve(config).await?;
    Ok(())
}
