//! The only place of the lab that starts processes.
//!
//! What is here: a command builder, a bounded-output `run` whose error says which command failed and what it said, and
//! a way to start processes that cannot outlive the lab. What is not: any knowledge of namespaces; a caller that wants
//! a process inside one calls these from a thread that is there ([`crate::node::Namespace::run`]).

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

/// A process that could not be started, or that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program could not be started at all.
    #[error("cannot start `{command}`: {source}")]
    Start {
        /// The command line as typed.
        command: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Talking to the running process failed.
    #[error("lost `{command}` while it ran: {source}")]
    Lost {
        /// The command line as typed.
        command: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The program ran and said no.
    #[error("`{command}` failed ({status}): {stderr}")]
    Failed {
        /// The command line as typed.
        command: String,
        /// Exit status or signal.
        status: ExitStatus,
        /// What it printed on standard error, or on standard output when that was empty.
        stderr: String,
    },
}

/// A command of which the caller sets arguments, environment and streams.
#[allow(
    clippy::disallowed_methods,
    reason = "the lab's one place for processes; linux::command is the agent's"
)]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// A command that the kernel kills when the *thread* that starts it ends, so that nothing outlives a killed lab.
/// Start it from a thread that lives as long as the process should.
pub fn tied(program: impl AsRef<OsStr>) -> Command {
    let mut command = command("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Program and arguments in one line, for messages.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Starts `command`.
pub fn spawn(command: &mut Command) -> Result<Child, Error> {
    command.spawn().map_err(|source| Error::Start { command: describe(command), source })
}

/// Runs `command` to its end with captured output; a non-zero status is an error that carries standard error.
pub fn run(command: &mut Command) -> Result<String, Error> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start { command: describe(command), source })?;
    finish(command, output)
}

/// [`run`] with `input` on standard input.
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String, Error> {
    let name = describe(command);
    let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(input.as_bytes()),
        None => Ok(()),
    };
    let output = child.wait_with_output().map_err(|source| Error::Lost { command: name.clone(), source })?;
    // A program that stops reading has a reason; its own words are better than "broken pipe".
    let text = finish(command, output)?;
    written.map_err(|source| Error::Lost { command: name, source })?;
    Ok(text)
}

fn finish(command: &Command, output: Output) -> Result<String, Error> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let mut stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if stderr.is_empty() {
        stderr = stdout.trim().to_owned();
    }
    Err(Error::Failed { command: describe(command), status: output.status, stderr })
}

/// Exit status as a shell reports it: the code, or 128 + signal.
pub fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

/// [`run`] with this process's standard input, for programs that ask the terminal.
pub fn run_on_terminal(command: &mut Command) -> Result<String, Error> {
    let output = command
        .stdin(Stdio::inherit())
        .output()
        .map_err(|source| Error::Start { command: describe(command), source })?;
    finish(command, output)
}
