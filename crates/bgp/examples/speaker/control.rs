//! Questions on a unix socket: a JSON line in, a JSON line out, as many as you like; `{"error": "…"}` for what cannot be done.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::config::{File, Network};
use crate::{Wish, view};

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    /// All peers.
    Peers,
    /// All paths, of peers and of our own.
    Paths,
    /// Adds networks.
    Announce { networks: Vec<Network> },
    /// Takes networks away.
    Withdraw { prefixes: Vec<IpNet> },
    /// Replaces the configuration.
    Apply { config: Box<File> },
    /// Ends a session and stays away.
    Shutdown { peer: IpAddr, text: String },
    /// Begins again with a peer that was shut down.
    Start { peer: IpAddr },
    /// Asks a peer for its paths again.
    Refresh { peer: IpAddr },
}

pub(crate) async fn serve(socket: UnixListener, wish: Arc<Wish>) {
    while let Ok((stream, _)) = socket.accept().await {
        tokio::spawn(answer_all(stream, Arc::clone(&wish)));
    }
}

async fn answer_all(stream: UnixStream, wish: Arc<Wish>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let answer = match answer(&line, &wish).await {
            Ok(answer) => answer,
            Err(error) => json!({ "error": error }),
        };
        if write.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn answer(line: &str, wish: &Wish) -> Result<Value, String> {
    let ended = |_| "the speaker has ended".to_owned();
    match serde_json::from_str(line).map_err(|error| error.to_string())? {
        Request::Peers => {
            let peers = wish.handle.peers().await.map_err(ended)?;
            return Ok(json!({ "peers": peers.iter().map(view::peer).collect::<Vec<_>>() }));
        }
        Request::Paths => {
            let paths = wish.handle.paths().await.map_err(ended)?;
            return Ok(json!({ "paths": paths.iter().map(view::path).collect::<Vec<_>>() }));
        }
        Request::Announce { networks } => {
            wish.announce(networks.iter().map(Network::read).collect::<Result<_, _>>()?);
        }
        Request::Withdraw { prefixes } => wish.withdraw(&prefixes),
        Request::Apply { config } => wish.apply(&config)?,
        Request::Shutdown { peer, text } => wish.handle.stop_peer(peer, text),
        Request::Start { peer } => wish.handle.start_peer(peer),
        Request::Refresh { peer } => wish.handle.refresh_peer(peer),
    }
    Ok(json!({}))
}
