//! Destinations packed by what is said of them: one UPDATE for all prefixes with equal attributes.

use std::collections::HashMap;
use std::sync::Arc;

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

/// Items under construction.
#[derive(Debug, Default)]
pub(crate) struct Packing {
    places: HashMap<(Option<*const Attributes>, PeerId), usize>,
    items: Vec<Item>,
}

impl Packing {
    /// Adds a destination. Attributes are interned, so that their address says which they are.
    pub(crate) fn add(
        &mut self,
        id: DestinationId,
        prefix: IpNet,
        attributes: Option<&Arc<Attributes>>,
        source: PeerId,
    ) {
        let place = *self.places.entry((attributes.map(Arc::as_ptr), source)).or_insert_with(|| {
            let attributes = attributes.cloned();
            self.items.push(Item { attributes, source, ids: Vec::new(), prefixes: Vec::new() });
            self.items.len() - 1
        });
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
