//! The CNI plugin: this program under the name `kube-router-cni`, started by the container runtime for each pod.
//!
//! Decided here: what each verb of the [specification](https://www.cni.dev/docs/spec/) does, and what happens when the
//! rules of a pod are not there in time. It makes no link and gives no address: what the plugins before it made is handed
//! on untouched.
//!
//! | verb | does |
//! |---|---|
//! | `ADD` | writes the pod's record, tells the agent, waits for the pod's rules |
//! | `CHECK` | the same without a record |
//! | `DEL` | removes the record, tells the agent if there is one; never fails for want of one |
//! | `STATUS` | fails while no agent answers, if pods would not start without one |
//! | `GC` | does what `DEL` does for every pod that is recorded and not in use |
//! | `VERSION` | lists the versions spoken |

mod call;
mod conversation;
mod error;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use call::{Call, OnTimeout, Verb};
pub use error::PluginError;

use super::records;
use super::wire::Sandbox;
use crate::names;

/// Longest network configuration taken in, bytes.
const LONGEST_INPUT: u64 = 16 << 20;

/// Whether a program started under this name is to be the plugin.
pub fn is_named_by(program: &OsStr) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == names::CNI_PLUGIN)
}

/// The process, from its environment and input to its output and exit status: 0, or 1 with an error as CNI has it.
pub fn main() -> ExitCode {
    let mut input = String::new();
    let read = std::io::stdin().take(LONGEST_INPUT).read_to_string(&mut input);
    let environment = |name: &str| std::env::var(name).ok();
    let answer = read.map_err(PluginError::Input).and_then(|_| run(environment, &input));
    let (text, code) = match answer {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => (error.as_json(&call::version_of(&input)), ExitCode::FAILURE),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// One call: what is to be printed.
fn run(environment: impl Fn(&str) -> Option<String>, input: &str) -> Result<String, PluginError> {
    let call = match Verb::read(&environment)? {
        Verb::Version => return Ok(call::versions(input)),
        verb => Call::read(verb, environment, input)?,
    };
    match call.verb {
        Verb::Add => {
            let result = call.result()?;
            settle(&call, hand_over(&call))?;
            Ok(result)
        }
        Verb::Check => settle(&call, converse(conversation::announce(&call))).map(|()| String::new()),
        Verb::Delete => {
            delete(&call)?;
            Ok(String::new())
        }
        Verb::Status => settle(&call, converse(conversation::is_there(&call))).map(|()| String::new()),
        Verb::Collect => {
            collect(&call)?;
            Ok(String::new())
        }
        Verb::Version => Ok(call::versions(input)),
    }
}

/// A pod whose rules are not known to be there starts all the same, or not, as the configuration says.
fn settle(call: &Call, handed_over: Result<(), PluginError>) -> Result<(), PluginError> {
    match (handed_over, call.on_timeout) {
        (Err(error), OnTimeout::Open) => {
            // The runtime's log has what a plugin says here. If nobody reads it, nobody is told.
            let _ = writeln!(std::io::stderr(), "{}: let go without its rules: {error}", names::CNI_PLUGIN);
            Ok(())
        }
        (handed_over, _) => handed_over,
    }
}

/// The record first: an agent that starts just now reads it, if it does not hear of the pod.
fn hand_over(call: &Call) -> Result<(), PluginError> {
    records::write(&records::folder(&call.socket), &call.sandbox()?)?;
    converse(conversation::announce(call))
}

fn delete(call: &Call) -> Result<(), PluginError> {
    // A sandbox of no pod was never handed over.
    let Ok(sandbox) = call.sandbox() else { return Ok(()) };
    forget(call, &sandbox)
}

/// Forgets recorded sandboxes that are in use no more. A runtime that does not say which are removes none.
fn collect(call: &Call) -> Result<(), PluginError> {
    let Some(attached) = &call.attached else { return Ok(()) };
    let (recorded, _unreadable) = records::read_all(&records::folder(&call.socket));
    let gone = recorded.iter().filter(|sandbox| !attached.contains(&sandbox.container));
    // One that cannot be forgotten keeps none of the others.
    gone.map(|sandbox| forget(call, sandbox)).fold(Ok(()), Result::and)
}

fn forget(call: &Call, sandbox: &Sandbox) -> Result<(), PluginError> {
    records::remove(&records::folder(&call.socket), sandbox)?;
    // An agent that is not there has nothing to forget.
    drop(converse(conversation::withdraw(call, sandbox)));
    Ok(())
}

fn converse(conversation: impl Future<Output = Result<(), PluginError>>) -> Result<(), PluginError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(PluginError::Runtime)?.block_on(conversation)
}
