//! The paths to one destination: most often one, which then needs no allocation.

use std::ops::{Deref, DerefMut};

use super::Path;

/// As large as a path.
#[derive(Debug, Default)]
pub(super) enum Paths {
    #[default]
    None,
    One(Path),
    #[allow(clippy::box_collection, reason = "a vector in place would make every destination larger by half")]
    Many(Box<Vec<Path>>),
}

impl Deref for Paths {
    type Target = [Path];

    fn deref(&self) -> &[Path] {
        match self {
            Paths::None => &[],
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(paths) => paths,
        }
    }
}

impl DerefMut for Paths {
    fn deref_mut(&mut self) -> &mut [Path] {
        match self {
            Paths::None => &mut [],
            Paths::One(path) => std::slice::from_mut(path),
            Paths::Many(paths) => paths,
        }
    }
}

impl Paths {
    /// Adds one. O(1) on average; at most half of the room is spare.
    pub(super) fn push(&mut self, path: Path) {
        *self = match std::mem::take(self) {
            Paths::None => Paths::One(path),
            Paths::One(first) => Paths::Many(Box::new(vec![first, path])),
            Paths::Many(mut paths) => {
                if paths.len() == paths.capacity() {
                    paths.reserve_exact(paths.len() / 2 + 1);
                }
                paths.push(path);
                Paths::Many(paths)
            }
        };
    }

    /// Takes one out; the last one comes into its place.
    pub(super) fn swap_remove(&mut self, at: usize) -> Option<Path> {
        match std::mem::take(self) {
            Paths::One(path) if at == 0 => Some(path),
            Paths::Many(mut paths) if at < paths.len() => {
                let path = paths.swap_remove(at);
                if paths.len() * 4 < paths.capacity() {
                    paths.shrink_to(paths.len() * 2);
                }
                *self = match (paths.len(), paths.pop()) {
                    (1, Some(last)) => Paths::One(last),
                    (_, Some(last)) => {
                        paths.push(last);
                        Paths::Many(paths)
                    }
                    (_, None) => Paths::None,
                };
                Some(path)
            }
            others => {
                *self = others;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use super::*;
    use crate::attributes::Attributes;
    use crate::rib::Standing;
    use crate::source::PeerId;

    fn path(peer: u32) -> Path {
        let learned = Arc::new(Attributes::local(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        Path { learned, accepted: None, peer: PeerId(peer), standing: Standing::Waiting }
    }

    #[test]
    fn takes_the_room_of_a_path() {
        assert_eq!((size_of::<Path>(), size_of::<Paths>()), (24, 24));
    }

    /// Against a vector.
    #[test]
    fn holds_what_it_was_given() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut paths, mut model) = (Paths::default(), Vec::new());
        for peer in 0..2_000 {
            if random.u8(..5) < 3 && model.len() < 20 {
                paths.push(path(peer));
                model.push(peer);
            } else if !model.is_empty() {
                let at = random.usize(..model.len());
                assert_eq!(paths.swap_remove(at).map(|path| path.peer.0), Some(model.swap_remove(at)));
            }
            assert!(paths.swap_remove(model.len()).is_none());
            assert_eq!(paths.iter().map(|path| path.peer.0).collect::<Vec<_>>(), model);
        }
    }
}
