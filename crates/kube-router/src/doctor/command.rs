//! `kube-router doctor`: looks, judges, shows. The exit status is 0 without problems, else 1.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Parser;

use super::{Check, Level, gather, judge, text};
use crate::options::{self, Options, Refusal, Request};
use crate::status::socket;
use crate::terminal::{Output, Paint};

/// Looks at this node as kube-router finds it and says what is wrong, each with the fix. Writes nothing. Works without a
/// running agent; of one that runs it takes the flags. Give flags behind -- to have others checked:
/// kube-router doctor -- --run-router=false --kubeconfig=FILE
#[derive(Parser, Debug)]
#[command(name = "kube-router doctor", bin_name = "kube-router doctor")]
pub struct DoctorCommand {
    /// How to show it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Socket of the agent [default: $KUBE_ROUTER_SOCKET, else /run/kube-router/kube-router.sock]
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Flags of the agent [default: those of the running one]
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<OsString>,
}

/// Nothing was looked at, or nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// Flags behind `--` the agent would not start with.
    #[error("flags of the agent")]
    Flags(#[source] Refusal),
    /// Flags of the agent that runs, perhaps of another version, which this one does not know.
    #[error("flags of the running agent; give others behind --")]
    FlagsOfAgent(#[source] Refusal),
    /// They ask for something else.
    #[error("flags of the agent: --help, --version and --cleanup-config do not go with doctor")]
    OtherRequest,
    /// It cannot be shown as JSON.
    #[error("cannot show the checks")]
    Show(#[from] serde_json::Error),
}

impl DoctorError {
    /// The exit status: 2 for what is wrong with the command line, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            DoctorError::Flags(_) | DoctorError::OtherRequest => 2,
            DoctorError::FlagsOfAgent(_) | DoctorError::Show(_) => 1,
        }
    }
}

/// What is to be shown, and whether all is well.
#[derive(Debug)]
pub struct Diagnosis {
    /// The text.
    pub text: String,
    /// No check found a problem.
    pub well: bool,
}

impl DoctorCommand {
    /// Looks and judges.
    ///
    /// # Errors
    /// [`DoctorError`].
    pub async fn run(self) -> Result<Diagnosis, DoctorError> {
        let socket = self.socket.clone().unwrap_or_else(socket::path);
        let are_agents = self.flags.is_empty();
        let options = if are_agents {
            read(running_flags(&socket).await, DoctorError::FlagsOfAgent)?
        } else {
            read(self.flags, DoctorError::Flags)?
        };
        let checks = judge(&gather::all(&options, &socket, are_agents).await);
        let well = checks.iter().all(|check: &Check| check.level != Level::Problem);
        let text = match self.output {
            Output::Table => text::of(&checks, Paint::for_stdout()),
            Output::Json => serde_json::to_string_pretty(&checks)? + "\n",
        };
        Ok(Diagnosis { text, well })
    }
}

fn read(flags: Vec<OsString>, refused: fn(Refusal) -> DoctorError) -> Result<Options, DoctorError> {
    let program = OsString::from("kube-router");
    match options::read(std::iter::once(program).chain(flags)).map_err(refused)? {
        Request::Run(options) => Ok(*options),
        _ => Err(DoctorError::OtherRequest),
    }
}

/// The arguments of the agent that runs, if its process can be seen from here.
async fn running_flags(socket: &Path) -> Vec<OsString> {
    use std::os::unix::ffi::OsStringExt;
    let pid = gather::agent(socket).await.and_then(|agent| agent.pid);
    let line = pid.and_then(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok()).unwrap_or_default();
    let arguments = line.split(|byte| *byte == 0).skip(1).filter(|argument| !argument.is_empty());
    arguments.map(|argument| OsString::from_vec(argument.to_vec())).collect()
}
