//! The commands for people: `kube-router status` and its like. They ask a running agent and change nothing.
//!
//! A first argument that names one makes the call a command; flags of the agent never do, so its command line stays
//! upstream's.

use std::ffi::OsString;
use std::future::Future;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::run::chain;
use crate::status::command::StatusCommand;

/// Runs the command these arguments name, if they name one. The exit status is 0, 1 if it failed, 2 for bad arguments.
pub(crate) async fn run(args: &[OsString]) -> Option<ExitCode> {
    let name = args.get(1)?.to_str()?;
    let rest = args.get(1..)?.iter();
    match name {
        "status" => Some(show(StatusCommand::try_parse_from(rest).map(StatusCommand::run)).await),
        _ => None,
    }
}

async fn show<E: std::error::Error>(
    command: Result<impl Future<Output = Result<String, E>>, clap::Error>,
) -> ExitCode {
    let command = match command {
        Ok(command) => command,
        Err(error) => {
            // Help goes to stdout with status 0; if nobody reads either, nobody is told.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match command.await {
        Ok(text) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "Error: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}
