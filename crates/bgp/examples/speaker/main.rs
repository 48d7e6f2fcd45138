//! A BGP router without a forwarding plane, for labs: `speaker --config FILE.json --socket PATH`.
//!
//! It announces the networks of its configuration, takes in what peers tell, and answers questions on a unix socket, one
//! JSON line each (see `control.rs`). News are JSON lines on standard error. SIGTERM ends it: with a Cease, or
//! without a word where graceful restart is on.

mod config;
mod control;
mod view;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bgp::driver;
use clap::Parser;
use config::File;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

/// The agent's, so that measurements are of the same thing.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// News taken at a time.
const BURST: usize = 256;

#[derive(Parser)]
struct Arguments {
    /// Configuration in JSON
    #[arg(long)]
    config: PathBuf,
    /// Unix socket to answer on
    #[arg(long)]
    socket: PathBuf,
    /// Say nothing of routes
    #[arg(long)]
    quiet: bool,
}

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    #[error("{0}: {1}")]
    Config(PathBuf, String),
    #[error("cannot listen on {0}: {1}")]
    Socket(PathBuf, std::io::Error),
    #[error("cannot wait for signals: {0}")]
    Signal(std::io::Error),
}

/// What is in force, for the differences to the next.
struct Wish {
    handle: driver::Handle,
    networks: Mutex<config::Networks>,
}

impl Wish {
    /// Puts a configuration in force: peers and networks that are no longer named go.
    fn apply(&self, file: &File) -> Result<(), String> {
        let networks = file.networks()?;
        self.handle.configure(file.speaker()?, file.routing());
        let mut known = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .keys()
            .filter(|prefix| !networks.contains_key(prefix))
            .for_each(|prefix| self.handle.withdraw(*prefix));
        for (prefix, attributes) in &networks {
            if known.get(prefix) != Some(attributes) {
                self.handle.announce(*prefix, attributes.clone());
            }
        }
        *known = networks;
        Ok(())
    }

    fn announce(&self, networks: config::Networks) {
        let mut known = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        for (prefix, attributes) in networks {
            self.handle.announce(prefix, attributes.clone());
            known.insert(prefix, attributes);
        }
    }

    fn withdraw(&self, prefixes: &[ipnet::IpNet]) {
        let mut known = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        for prefix in prefixes {
            self.handle.withdraw(*prefix);
            known.remove(prefix);
        }
    }
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Error> {
    let path = arguments.config;
    let text = std::fs::read_to_string(&path).map_err(|error| Error::Read(path.clone(), error))?;
    let file: File =
        serde_json::from_str(&text).map_err(|error| Error::Config(path.clone(), error.to_string()))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signal)?;

    let (handle, mut events) =
        driver::start(&tokio::runtime::Handle::current(), u64::from(std::process::id()));
    let wish = Arc::new(Wish { handle: handle.clone(), networks: Mutex::default() });
    wish.apply(&file).map_err(|error| Error::Config(path, error))?;

    // A predecessor that was killed leaves its socket behind.
    let _ = std::fs::remove_file(&arguments.socket);
    let socket = UnixListener::bind(&arguments.socket)
        .map_err(|error| Error::Socket(arguments.socket.clone(), error))?;
    let control = tokio::spawn(control::serve(socket, wish));
    let mut burst = Vec::with_capacity(BURST);
    loop {
        tokio::select! {
            count = events.recv_many(&mut burst, BURST) => {
                if count == 0 {
                    break;
                }
                let loud = |event: &driver::Event| !arguments.quiet || !matches!(event, driver::Event::Routes(_));
                burst.drain(..).filter(loud).for_each(|event| eprintln!("{}", view::event(&event)));
            }
            _ = terminate.recv() => handle.stop("speaker ends"),
            _ = interrupt.recv() => handle.stop("speaker ends"),
        }
    }
    control.abort();
    let _ = std::fs::remove_file(&arguments.socket);
    Ok(())
}
