//! The commands for people: `kube-router status` and its like. They ask a running agent, or the node itself, and change
//! nothing.
//!
//! A first argument that is no flag makes the call a command; flags of the agent never are one, so its command line stays
//! upstream's.

use std::ffi::OsString;
use std::future::Future;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use clap_complete::Shell;

use crate::causes::with_causes;
use crate::doctor::command::DoctorCommand;
use crate::explain::command::ExplainCommand;
use crate::monitor::command::MonitorCommand;
use crate::options;
use crate::status::command::StatusCommand;

/// Names of all commands, with what each is for, in the order of the help text.
const COMMANDS: [(&str, &str); 5] = [
    ("status", "Show what the agent of this node knows, has programmed, and could not"),
    ("explain", "Explain what becomes of packets from here to there, and why"),
    ("monitor", "Show packets that network policy refuses, as they are refused"),
    ("doctor", "Look at this node as kube-router finds it; say what is wrong, with the fix"),
    ("completion", "Print a script that completes commands and flags in a shell"),
];

/// Runs the command these arguments name, if they name one. The exit status is 0, 1 if it failed, 2 for bad arguments.
pub(crate) async fn run(args: &[OsString]) -> Option<ExitCode> {
    let name = args.get(1)?;
    if name.as_encoded_bytes().starts_with(b"-") {
        return None;
    }
    let rest = args.get(1..)?.iter();
    Some(match name.to_str() {
        Some("status") => show(StatusCommand::try_parse_from(rest).map(StatusCommand::run)).await,
        Some("explain") => show(ExplainCommand::try_parse_from(rest).map(ExplainCommand::run)).await,
        Some("monitor") => show(MonitorCommand::try_parse_from(rest).map(MonitorCommand::run)).await,
        Some("doctor") => doctor(DoctorCommand::try_parse_from(rest)).await,
        Some("completion") => complete(CompletionCommand::try_parse_from(rest)),
        Some("help") => help(args.get(2)),
        _ => unknown(&name.to_string_lossy()),
    })
}

/// The list of commands as the agent's usage text shows it.
pub(crate) fn list() -> String {
    let mut text = String::from("Commands (kube-router COMMAND --help says more):\n");
    for (name, about) in COMMANDS {
        text.push_str(&format!("  {name:<12}{about}\n"));
    }
    text
}

fn help(of: Option<&OsString>) -> ExitCode {
    let text = match of.and_then(|name| name.to_str()) {
        None => options::usage(),
        Some(name) => match all().into_iter().find(|(known, _)| *known == name) {
            Some((_, mut command)) => command.render_long_help().to_string(),
            None => return unknown(name),
        },
    };
    say(std::io::stdout(), &text);
    ExitCode::SUCCESS
}

fn all() -> [(&'static str, clap::Command); 5] {
    [
        ("status", StatusCommand::command()),
        ("explain", ExplainCommand::command()),
        ("monitor", MonitorCommand::command()),
        ("doctor", DoctorCommand::command()),
        ("completion", CompletionCommand::command()),
    ]
}

/// Prints a script that completes commands and flags. For one session: source <(kube-router completion bash)
#[derive(Parser, Debug)]
#[command(name = "kube-router completion", bin_name = "kube-router completion")]
struct CompletionCommand {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

fn complete(command: Result<CompletionCommand, clap::Error>) -> ExitCode {
    let shell = match command {
        Ok(command) => command.shell,
        Err(error) => return refused(&error),
    };
    let mut root = options::flags().bin_name("kube-router");
    for ((name, command), (_, about)) in all().into_iter().zip(COMMANDS) {
        root = root.subcommand(command.name(name).about(about));
    }
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut root, "kube-router", &mut script);
    say(std::io::stdout(), &String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}

async fn doctor(command: Result<DoctorCommand, clap::Error>) -> ExitCode {
    let command = match command {
        Ok(command) => command,
        Err(error) => return refused(&error),
    };
    match command.run().await {
        Ok(diagnosis) => {
            say(std::io::stdout(), &diagnosis.text);
            if diagnosis.well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            failed(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn unknown(name: &str) -> ExitCode {
    say(std::io::stderr(), &format!("Error: unknown command {name:?}\n\n{}", options::usage()));
    ExitCode::from(2)
}

async fn show<E: std::error::Error>(
    command: Result<impl Future<Output = Result<String, E>>, clap::Error>,
) -> ExitCode {
    let command = match command {
        Ok(command) => command,
        Err(error) => return refused(&error),
    };
    match command.await {
        Ok(text) => {
            say(std::io::stdout(), &text);
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn refused(error: &clap::Error) -> ExitCode {
    // Help goes to stdout with status 0; if nobody reads either, nobody is told.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    say(std::io::stderr(), &format!("Error: {}\n", with_causes(error)));
    ExitCode::FAILURE
}

/// If nobody reads it any more, nobody is told.
fn say(mut to: impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes());
}
