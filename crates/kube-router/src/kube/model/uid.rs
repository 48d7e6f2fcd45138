//! Which of the pods that have had a name.

use std::hash::{DefaultHasher, Hasher};

/// A pod as its kubelet tells it from others of the same name: a fingerprint of `metadata.uid`, and of a static pod's mirror
/// of the static pod's own. Eight bytes, for there are many pods; it is only ever compared among pods of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(u64);

impl PodUid {
    /// The fingerprint of a UID as text.
    pub fn of(text: &str) -> PodUid {
        let mut hasher = DefaultHasher::new();
        hasher.write(text.as_bytes());
        PodUid(hasher.finish())
    }
}
