//! Test executables that need the VM: found by what they say about themselves, run in one boot.
//!
//! A test that needs IPVS, dummy links or tunnels is `#[ignore = "vm: <reason>"]`. Ignored tests with another reason are
//! not run here, and named, so that none is skipped in silence.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::job::Step;
use super::{Error, Options};
use crate::process::{self, command};

/// A test executable and where cargo would run it.
#[derive(Debug, Clone)]
pub struct Executable {
    /// The file.
    pub path: PathBuf,
    /// Folder of its package.
    pub folder: PathBuf,
    /// Package and target, for headings.
    pub name: String,
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    executable: Option<PathBuf>,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    target: Target,
    #[serde(default)]
    profile: Profile,
}

#[derive(Deserialize, Default)]
struct Target {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize, Default)]
struct Profile {
    #[serde(default)]
    test: bool,
}

#[derive(Deserialize)]
struct Listed {
    event: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    ignore_message: Option<String>,
}

/// Builds the workspace's tests (`arguments` go to cargo, such as `-p linux`) and returns their executables.
pub fn build(arguments: &[String]) -> Result<Vec<Executable>, Error> {
    let mut cargo = command("cargo");
    cargo.args(["test", "--no-run", "--quiet", "--message-format=json"]).args(arguments);
    let text = process::run(&mut cargo)?;
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    Ok(messages.filter_map(executable).collect())
}

fn executable(message: Message) -> Option<Executable> {
    if message.reason != "compiler-artifact" || !message.profile.test {
        return None;
    }
    let folder = message.manifest_path.parent()?.to_owned();
    let package = folder.file_name()?.to_string_lossy().into_owned();
    Some(Executable { path: message.executable?, folder, name: format!("{package}/{}", message.target.name) })
}

/// A test executable given by path, run where this process is.
pub fn by_path(path: &Path) -> Result<Executable, Error> {
    let path = std::fs::canonicalize(path).map_err(Error::Here)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Executable { path, folder: std::env::current_dir().map_err(Error::Here)?, name })
}

/// Runs every `vm:` test whose name contains `filter`, one executable after the other in one boot. Returns the number of
/// executables that failed.
pub fn run(executables: &[Executable], filter: &str, options: &Options) -> Result<usize, Error> {
    let mut steps = Vec::new();
    for executable in executables {
        let Some(step) = plan(executable, filter)? else { continue };
        steps.push(step);
    }
    if steps.is_empty() {
        eprintln!("lab: no test asks for the VM");
        return Ok(0);
    }
    let statuses = super::run(steps.clone(), options)?;
    let mut failed = 0;
    for (step, status) in steps.iter().zip(&statuses).filter(|(_, status)| **status != 0) {
        failed += 1;
        eprintln!("lab: failed with status {status}: {}", step.argv.first().map_or("", String::as_str));
    }
    Ok(failed)
}

fn plan(executable: &Executable, filter: &str) -> Result<Option<Step>, Error> {
    // The listing that carries the reasons is not stable yet; the variable is the harness's own switch for it.
    let mut list = command(&executable.path);
    list.args(["--list", "--ignored", "--format", "json", "-Z", "unstable-options"])
        .env("RUSTC_BOOTSTRAP", "1")
        .current_dir(&executable.folder);
    let text = process::run(&mut list)?;
    let (wanted, others) = vm_tests(&text).ok_or_else(|| Error::Listing(executable.name.clone()))?;
    if !others.is_empty() {
        eprintln!("lab: {}: ignored for another reason, not run: {}", executable.name, others.join(", "));
    }
    let names: Vec<String> = wanted.into_iter().filter(|name| name.contains(filter)).collect();
    if names.is_empty() {
        return Ok(None);
    }
    let title = format!("\n     Running {} in the VM ({} tests)", executable.name, names.len());
    let mut argv = vec![executable.path.to_string_lossy().into_owned()];
    argv.extend(["--ignored", "--exact", "--test-threads=1"].map(str::to_owned));
    argv.extend(names);
    let manifest = ("CARGO_MANIFEST_DIR".to_owned(), executable.folder.to_string_lossy().into_owned());
    Ok(Some(Step { title: Some(title), argv, cwd: executable.folder.clone(), env: vec![manifest] }))
}

/// Names of the tests in a listing of the ignored ones: those for the VM, and those ignored for another reason. None if
/// the listing does not end as listings do: a format not understood must not pass for "no tests".
fn vm_tests(listing: &str) -> Option<(Vec<String>, Vec<String>)> {
    let events: Vec<Listed> = listing.lines().map(serde_json::from_str).collect::<Result<_, _>>().ok()?;
    if events.last()?.event != "completed" {
        return None;
    }
    let ignored = events.into_iter().filter(|test| test.event == "discovered");
    let (wanted, others): (Vec<Listed>, Vec<Listed>) = ignored
        .partition(|test| test.ignore_message.as_deref().is_some_and(|reason| reason.starts_with("vm:")));
    let names = |tests: Vec<Listed>| tests.into_iter().map(|test| test.name).collect();
    Some((names(wanted), names(others)))
}

#[cfg(test)]
mod unit {
    use super::vm_tests;

    #[test]
    fn tests_are_chosen_by_their_reason() {
        let start = r#"{"type":"suite","event":"discovery"}"#;
        let one =
            r#"{"type":"test","event":"discovered","name":"a","ignore":false,"ignore_message":"vm: IPVS"}"#;
        let two = r#"{"type":"test","event":"discovered","name":"b","ignore":false,"ignore_message":"slow"}"#;
        let end = r#"{"type":"suite","event":"completed","tests":2}"#;
        let expected = (vec!["a".to_owned()], vec!["b".to_owned()]);
        assert_eq!(vm_tests(&[start, one, two, end].join("\n")), Some(expected));
        assert_eq!(vm_tests(&[start, one].join("\n")), None);
        assert_eq!(vm_tests("a: test"), None);
    }
}
