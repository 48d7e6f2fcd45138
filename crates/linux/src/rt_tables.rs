//! Names of routing tables as `ip` shows them: lines `NUMBER NAME` in files that every program may add to.
//!
//! Decided here: whether a name has to be added, and to which file. A number or name that is there already is its
//! author's and stays. Names are never taken away: whoever reads a table by its name may go on doing so.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where a distribution that ships the file keeps it.
const FILE: &str = "/etc/iproute2/rt_tables";
/// Read besides the file, wherever that is.
const FOLDER: &str = "/etc/iproute2/rt_tables.d";

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("naming the routing table {name} in {path}: {source}")]
pub struct Error {
    name: String,
    path: PathBuf,
    source: io::Error,
}

/// Sees to it that table `number` has this name.
///
/// # Errors
/// When the file cannot be read or added to; the table works without a name.
pub fn ensure(number: u32, name: &str) -> Result<(), Error> {
    ensure_in(Path::new(FILE), Path::new(FOLDER), number, name)
}

fn ensure_in(file: &Path, folder: &Path, number: u32, name: &str) -> Result<(), Error> {
    let failed = |path: &Path| {
        let (name, path) = (name.to_owned(), path.to_owned());
        move |source| Error { name, path, source }
    };
    let path = match fs::exists(file) {
        Ok(true) => file.to_owned(),
        _ => folder.join("kube-router.conf"),
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(&path)(error)),
    };
    let Some(line) = missing(&text, number, name) else { return Ok(()) };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed(folder))?;
    }
    let opened = OpenOptions::new().create(true).append(true).open(&path);
    // In one write: others add lines, too.
    opened.and_then(|mut file| file.write_all(line.as_bytes())).map_err(failed(&path))
}

/// The line to be added, unless the number or the name is taken.
fn missing(text: &str, number: u32, name: &str) -> Option<String> {
    let entries = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let taken = entries.map(str::split_whitespace).any(|mut words| {
        let is_number = words.next().and_then(|word| word.parse::<u32>().ok()) == Some(number);
        is_number || words.next() == Some(name)
    });
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    (!taken).then(|| format!("{newline}{number} {name}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_added_once_and_never_replaced() {
        let text = "255\tlocal\n254 main # the usual\n#77 other";
        assert_eq!(missing(text, 77, "kube-router").as_deref(), Some("\n77 kube-router\n"));
        assert_eq!(missing("77 kube-router\n", 77, "kube-router"), None);
        assert_eq!(missing("77 mine\n", 77, "kube-router"), None, "the number is somebody's");
        assert_eq!(missing("100 kube-router\n", 77, "kube-router"), None, "the name is somebody's");
        assert_eq!(missing("", 77, "kube-router").as_deref(), Some("77 kube-router\n"));
    }

    #[test]
    fn the_file_is_added_to_or_a_new_one_is_made_beside() {
        let place = tempfile::tempdir().unwrap();
        let (file, folder) = (place.path().join("rt_tables"), place.path().join("rt_tables.d"));
        ensure_in(&file, &folder, 77, "kube-router").unwrap();
        assert_eq!(fs::read_to_string(folder.join("kube-router.conf")).unwrap(), "77 kube-router\n");
        fs::write(&file, "255 local\n").unwrap();
        ensure_in(&file, &folder, 77, "kube-router").unwrap();
        ensure_in(&file, &folder, 77, "kube-router").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "255 local\n77 kube-router\n");
    }
}
