//! The file as a lane: read, revised, and put in place whole.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{CniConfig, Error, chain, is_chained, read, revise, unchain};
use crate::lane::{Change, Lane, ReadError, Refusal};
use crate::row::{Key, Name, Row};

/// One CNI configuration file.
#[derive(Debug)]
pub struct CniLane {
    places: Vec<PathBuf>,
    /// What the file was last asked to say: how much of it counts as ours depends on that.
    asked: Option<Arc<CniConfig>>,
    /// A plugin that may follow the others.
    plugin: Option<Plugin>,
}

#[derive(Debug)]
struct Plugin {
    kind: Name,
    /// Where runtimes look for its program.
    folders: Vec<PathBuf>,
}

impl CniLane {
    /// For the first of these files that is there. One must be for anything to be written: how pods are wired is the
    /// operator's choice, this lane only keeps prefixes and MTU right.
    pub fn new(places: Vec<PathBuf>) -> CniLane {
        CniLane { places, asked: None, plugin: None }
    }

    /// Also reads and writes whether a plugin of this type is in the list; it is not added while its program is in none
    /// of these folders, for no pod could be made then.
    pub fn with_plugin(self, kind: Name, folders: Vec<PathBuf>) -> CniLane {
        CniLane { plugin: Some(Plugin { kind, folders }), ..self }
    }

    /// The file that is there, otherwise the first: it is the one to be named as missing.
    fn path(&self) -> PathBuf {
        let there = self.places.iter().find(|path| path.exists());
        there.or(self.places.first()).cloned().unwrap_or_default()
    }

    fn put(&self, edit: impl FnOnce(&str) -> Result<Option<String>, Error>) -> Result<(), Refusal> {
        let path = self.path();
        let says = |error: &dyn std::fmt::Display| Refusal::new(format!("{}: {error}", path.display()));
        let failed = |error: io::Error| Refusal { errno: error.raw_os_error(), ..says(&error) };
        let text = fs::read_to_string(&path).map_err(failed)?;
        match edit(&text).map_err(|error| says(&error))? {
            Some(revised) => replace(&path, &revised).map_err(failed),
            None => Ok(()),
        }
    }

    fn put_plugin(&self, kind: &str, wanted: bool) -> Result<(), Refusal> {
        if !wanted {
            return self.put(|text| unchain(text, kind));
        }
        let folders = self.plugin.iter().flat_map(|plugin| &plugin.folders);
        if !folders.clone().any(|folder| folder.join(kind).is_file()) {
            let folders: Vec<String> = folders.map(|folder| folder.display().to_string()).collect();
            return Err(Refusal::new(format!(
                "there is no program {kind} in {}; copy or link kube-router to that name where the runtime looks for plugins, \
                 or name the folder in CNI_PATH",
                folders.join(", ")
            )));
        }
        self.put(|text| chain(text, kind))
    }
}

impl Lane for CniLane {
    fn read(&mut self) -> Result<Vec<(Key, Row)>, ReadError> {
        let text = match fs::read_to_string(self.path()) {
            Ok(text) => text,
            // Not there yet: an installer may still be at work. Writing will say so.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(ReadError { table: "the CNI configuration", source: Box::new(error) }),
        };
        let as_asked = self.asked.clone().filter(|asked| matches!(revise(&text, asked), Ok(None)));
        // A file without a bridge is nothing of ours; writing to it will say what it lacks.
        let found = as_asked.or_else(|| read(&text).ok().map(Arc::new));
        let plugin = self.plugin.iter().map(|plugin| &plugin.kind).filter(|kind| is_chained(&text, kind));
        let plugin = plugin.map(|kind| (Key::CniPlugin(kind.clone()), Row::CniPlugin));
        Ok(found.map(|config| (Key::CniConfig, Row::CniConfig(config))).into_iter().chain(plugin).collect())
    }

    fn apply(&mut self, stage: &[Change]) -> Vec<Result<(), Refusal>> {
        let answer = |change: &Change| match (&change.key, &change.to) {
            (Key::CniConfig, Some(Row::CniConfig(wanted))) => {
                self.asked = Some(wanted.clone());
                self.put(|text| revise(text, wanted))
            }
            (Key::CniPlugin(kind), wanted) => self.put_plugin(kind, wanted.is_some()),
            // The file outlives the agent: pods are still being made by it.
            (Key::CniConfig, None) => Ok(()),
            _ => Err(Refusal::new("not a row of the CNI lane")),
        };
        stage.iter().map(answer).collect()
    }
}

/// A reader sees the old text or the new, also after a crash.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    // The runtime reads names that end in .conf, .conflist and .json only.
    let new = path.with_extension("kube-router-new");
    let written = fs::File::create(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&new, path)).inspect_err(|_| {
        // What could not be put in place is of no use to anyone; that it is there is no news either.
        let _ = fs::remove_file(&new);
    })
}
