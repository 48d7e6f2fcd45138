//! Destinations packed by what is said of them: one UPDATE for all prefixes with equal attributes.

use std::sync::Arc;

use hashbrown::HashMap;
use ipnet::IpNet;

use super::log::Position;
use crate::attributes::Attributes;
use crate::rib::DestinationId;
use crate::source::PeerId;

/// What a batch was made from; members at the same place are told the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    /// Destinations by number, from the first up to the second.
    Numbers(DestinationId, DestinationId),
    /// Log entries.
    Log(Position, Position),
}

/// Destinations of which the same is said.
#[derive(Debug)]
pub(crate) struct Item {
    /// `None` for destinations that are told no longer.
    pub(crate) attributes: Option<Arc<Attributes>>,
    /// Who told us, and so does not need to be told.
    pub(crate) source: PeerId,
    pub(crate) ids: Vec<DestinationId>,
    /// Of the same order.
    pub(crate) prefixes: Vec<IpNet>,
}

/// What is said, and whose path it is. Attributes are interned, so that their address says which they are.
type Key = (Option<*const Attributes>, PeerId);

/// Items under construction.
#[derive(Debug, Default)]
pub(crate) struct Packing {
    places: HashMap<Key, usize>,
    /// Where the last destination went: neighbours in the table often came together.
    last: Option<(Key, usize)>,
    items: Vec<Item>,
}

/// Room for this many destinations in a new item: on the Internet, six have the same attributes.
const ROOM: usize = 8;

impl Packing {
    /// Adds a destination. O(1).
    pub(crate) fn add(
        &mut self,
        id: DestinationId,
        prefix: IpNet,
        attributes: Option<&Arc<Attributes>>,
        source: PeerId,
    ) {
        let key = (attributes.map(Arc::as_ptr), source);
        let place = match self.last {
            Some((last, place)) if last == key => place,
            _ => *self.places.entry(key).or_insert_with(|| {
                let (ids, prefixes) = (Vec::with_capacity(ROOM), Vec::with_capacity(ROOM));
                self.items.push(Item { attributes: attributes.cloned(), source, ids, prefixes });
                self.items.len() - 1
            }),
        };
        self.last = Some((key, place));
        if let Some(item) = self.items.get_mut(place) {
            item.ids.push(id);
            item.prefixes.push(prefix);
        }
    }

    /// The items, in the order in which their first destinations came.
    pub(crate) fn finish(self) -> Vec<Item> {
        self.items
    }
}
