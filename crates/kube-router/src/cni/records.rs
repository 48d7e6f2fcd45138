//! Sandboxes as files, one for each pod: what an agent that starts knows of pods whose addresses the API server does not
//! show yet. The plugin alone writes and removes them, whether an agent runs or not.
//!
//! They lie below /run: a reboot ends every sandbox, and takes the records along.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};

use super::wire::Sandbox;

/// A record could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system says no.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a record.
    #[error("{} is no record of a pod: {source}", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> RecordError {
    let path = path.to_owned();
    |source| RecordError::File { path, source }
}

/// The folder of records beside an agent's socket.
pub fn folder(socket: &Path) -> PathBuf {
    socket.with_file_name("pods")
}

/// One file for each name of a pod, whatever is in the name and however long it is.
fn file(folder: &Path, sandbox: &Sandbox) -> PathBuf {
    let name = format!("{}/{}", sandbox.namespace, sandbox.name);
    let hash = digest(&SHA256, name.as_bytes());
    let digits: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    folder.join(digits + ".json")
}

/// Writes the record of a sandbox in place of an older one of its pod. A reader sees the old or the new.
///
/// # Errors
/// [`RecordError`].
pub fn write(folder: &Path, sandbox: &Sandbox) -> Result<(), RecordError> {
    fs::create_dir_all(folder).map_err(at(folder))?;
    let path = file(folder, sandbox);
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let text =
        serde_json::to_vec(sandbox).map_err(|source| RecordError::Format { path: path.clone(), source })?;
    let opened = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    let written = opened.and_then(|mut file| file.write_all(&text)).and_then(|()| fs::rename(&new, &path));
    written.map_err(|source| {
        // What could not be put in place is of no use to anyone; that it is there is no news either.
        let _ = fs::remove_file(&new);
        RecordError::File { path, source }
    })
}

/// Removes the record of a sandbox, if it is its pod's.
///
/// # Errors
/// [`RecordError`]; none where there is no such record.
pub fn remove(folder: &Path, sandbox: &Sandbox) -> Result<(), RecordError> {
    let path = file(folder, sandbox);
    match read(&path) {
        Ok(there) if there.container != sandbox.container => return Ok(()),
        Err(RecordError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Unreadable ones are removed, too: the pod's next sandbox writes a new one.
        Ok(_) | Err(_) => {}
    }
    fs::remove_file(&path).map_err(at(&path))
}

/// All records that can be read, and what is wrong with the others. O(pods of the node).
pub fn read_all(folder: &Path) -> (Vec<Sandbox>, Vec<RecordError>) {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (found, wrong),
        Err(error) => return (found, vec![at(folder)(error)]),
    };
    for entry in entries {
        let path = match entry {
            Ok(entry) => entry.path(),
            Err(error) => {
                wrong.push(at(folder)(error));
                continue;
            }
        };
        if path.extension().is_some_and(|extension| extension == "json") {
            match read(&path) {
                Ok(sandbox) => found.push(sandbox),
                // Removed since it was listed.
                Err(RecordError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => wrong.push(error),
            }
        }
    }
    (found, wrong)
}

fn read(path: &Path) -> Result<Sandbox, RecordError> {
    let text = fs::read(path).map_err(at(path))?;
    serde_json::from_slice(&text).map_err(|source| RecordError::Format { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_its_pods_latest_sandbox() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("pods");
        assert!(read_all(&folder).0.is_empty() && read_all(&folder).1.is_empty());
        let sandbox = |container: &str| Sandbox {
            namespace: "shop".into(),
            name: "web-0".into(),
            container: container.into(),
            addresses: vec!["10.244.1.5".parse().unwrap()],
            ..Sandbox::default()
        };
        write(&folder, &sandbox("c1")).unwrap();
        write(&folder, &sandbox("c2")).unwrap();
        assert_eq!(read_all(&folder).0, [sandbox("c2")]);
        remove(&folder, &sandbox("c1")).unwrap();
        assert_eq!(read_all(&folder).0, [sandbox("c2")], "the older one went late");
        fs::write(folder.join("x.json"), "{").unwrap();
        assert_eq!((read_all(&folder).0.len(), read_all(&folder).1.len()), (1, 1));
        remove(&folder, &sandbox("c2")).unwrap();
        remove(&folder, &sandbox("c2")).unwrap();
        assert!(read_all(&folder).0.is_empty());
    }
}
