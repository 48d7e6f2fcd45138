//! `limit` and `continue`: all pages of a list show the cluster at one resource version.
//!
//! The first page takes the matching objects' shared pointers aside; the token names that snapshot and an offset.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ApiError;
use super::object::Object;

/// Snapshots kept; the oldest goes when a further list starts, as after a compaction in etcd.
const KEPT: usize = 64;

/// One page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Object>>,
    /// Version all pages show.
    pub(crate) version: u64,
    /// Token of the next page, with how many objects it and its successors hold.
    pub(crate) next: Option<(String, usize)>,
}

/// The lists being paged through.
#[derive(Default)]
pub(crate) struct Snapshots {
    taken: u64,
    by_id: BTreeMap<u64, (u64, Vec<Arc<Object>>)>,
}

impl Snapshots {
    /// The first page of a list; `limit` 0 is the whole of it.
    pub(crate) fn first(&mut self, objects: Vec<Arc<Object>>, version: u64, limit: usize) -> Page {
        if limit == 0 || objects.len() <= limit {
            return Page { objects, version, next: None };
        }
        self.taken += 1;
        let id = self.taken;
        while self.by_id.len() >= KEPT {
            self.by_id.pop_first();
        }
        let page = cut(id, &objects, version, 0, limit);
        self.by_id.insert(id, (version, objects));
        page
    }

    /// The page a token names, or 410 when its snapshot is gone.
    pub(crate) fn next(&mut self, token: &str, limit: usize) -> Result<Page, ApiError> {
        let parsed = token.split_once('.').and_then(|(id, at)| Some((id.parse().ok()?, at.parse().ok()?)));
        let (id, offset): (u64, usize) =
            parsed.ok_or_else(|| ApiError::BadRequest("continue key is not valid".to_owned()))?;
        let Some((version, objects)) = self.by_id.get(&id) else {
            let message = "The provided continue parameter is too old to display a consistent list result. \
                           You can start a new list without the continue parameter.";
            return Err(ApiError::Expired(message.to_owned()));
        };
        let limit = if limit == 0 { objects.len() } else { limit };
        let page = cut(id, objects, *version, offset, limit);
        if page.next.is_none() {
            self.by_id.remove(&id);
        }
        Ok(page)
    }

    /// Forgets every list, as a compaction does.
    pub(crate) fn clear(&mut self) {
        self.by_id.clear();
    }
}

fn cut(id: u64, objects: &[Arc<Object>], version: u64, offset: usize, limit: usize) -> Page {
    let end = offset.saturating_add(limit).min(objects.len());
    let page = objects.get(offset..end).unwrap_or_default().to_vec();
    let rest = objects.len() - end;
    Page { objects: page, version, next: (rest > 0).then(|| (format!("{id}.{end}"), rest)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn objects(count: u64) -> Vec<Arc<Object>> {
        (1..=count).map(|version| Arc::new(Object::new(json!({}), version))).collect()
    }

    fn versions(page: &Page) -> Vec<u64> {
        page.objects.iter().map(|object| object.version).collect()
    }

    #[test]
    fn pages_cover_the_list_once_at_one_version() {
        let mut snapshots = Snapshots::default();
        let first = snapshots.first(objects(5), 9, 2);
        assert_eq!((versions(&first), first.version), (vec![1, 2], 9));
        let (token, rest) = first.next.unwrap();
        assert_eq!(rest, 3);
        let second = snapshots.next(&token, 2).unwrap();
        assert_eq!((versions(&second), second.version), (vec![3, 4], 9));
        let third = snapshots.next(&second.next.unwrap().0, 2).unwrap();
        assert_eq!(versions(&third), [5]);
        assert_eq!(third.next, None);
        assert!(snapshots.by_id.is_empty());
    }

    #[test]
    fn a_forgotten_list_is_gone_and_a_bad_token_is_bad() {
        let mut snapshots = Snapshots::default();
        let (token, _) = snapshots.first(objects(3), 1, 1).next.unwrap();
        snapshots.clear();
        assert!(matches!(snapshots.next(&token, 1), Err(ApiError::Expired(_))));
        assert!(matches!(snapshots.next("x", 1), Err(ApiError::BadRequest(_))));
    }

    #[test]
    fn old_lists_make_room() {
        let mut snapshots = Snapshots::default();
        let (token, _) = snapshots.first(objects(2), 1, 1).next.unwrap();
        for _ in 0..KEPT {
            snapshots.first(objects(2), 1, 1);
        }
        assert!(snapshots.next(&token, 1).is_err());
    }
}
