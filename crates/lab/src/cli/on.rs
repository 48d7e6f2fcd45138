//! `lab on NAME CMD…`: a command inside a node, a pod (`NAMESPACE.NAME`), the fabric or the outside host of a lab that
//! is up.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use lab::node::RUN_FOLDER;
use lab::process;

use super::Failure;

pub(super) fn run(name: &str, arguments: &[String]) -> Result<u8, Failure> {
    let place = find(name)?;
    let mut command = process::command("nsenter");
    command.arg(format!("--net={}", place.join("ns/net").display()));
    command.arg(format!("--mount={}", place.join("ns/mnt").display()));
    command.arg("--").args(arguments);
    // Returns only when it cannot be started.
    Err(command.exec().into())
}

/// In the lab whose shell this is, else in the only lab that has it.
fn find(name: &str) -> Result<PathBuf, Failure> {
    if let Some(folder) = std::env::var_os("LAB_FOLDER") {
        return present(Path::new(&folder), name).ok_or_else(|| format!("this lab has no {name}").into());
    }
    let labs = std::fs::read_dir(RUN_FOLDER).map_err(|_| "no lab is up")?;
    let mut found = labs.flatten().filter_map(|lab| present(&lab.path(), name));
    match (found.next(), found.next()) {
        (Some(place), None) => Ok(place),
        (None, _) => Err(format!("no lab that is up has {name}").into()),
        (Some(_), Some(_)) => {
            Err(format!("several labs have {name}; set LAB_FOLDER to one of {RUN_FOLDER}/*").into())
        }
    }
}

fn present(lab: &Path, name: &str) -> Option<PathBuf> {
    Some(lab.join(name)).filter(|place| place.join("ns/net").exists())
}
