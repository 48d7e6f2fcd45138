//! Who wants which rows, and what each claim has to wait for.

use std::hash::Hash;
use std::num::NonZeroU32;

use crate::numbers::Numbers;
use crate::row::{Key, Row};

/// One row wanted by an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which.
    pub key: Key,
    /// How.
    pub row: Row,
    /// Rows that must be there before this one, and may go only after it, beyond what the row says itself: an address
    /// after the virtual server that answers at it.
    pub after: Vec<Key>,
}

impl Claim {
    /// A claim that waits for nothing but what its row stands on.
    pub fn new(key: Key, row: Row) -> Claim {
        Claim { key, row, after: Vec::new() }
    }

    /// The same, after these.
    pub fn after(self, keys: impl IntoIterator<Item = Key>) -> Claim {
        Claim { after: keys.into_iter().collect(), ..self }
    }
}

/// An owner's claims, sorted by key, rows left out: the row is in the entry.
type Held = Box<[(Key, Box<[Key]>)]>;

/// A short name of an owner, for entries: the place of the owner in [`Claims`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnerNumber(NonZeroU32);

impl OwnerNumber {
    /// The owner at this place. Four billion places are not reached: memory ends first.
    pub(super) fn at(place: usize) -> OwnerNumber {
        OwnerNumber(NonZeroU32::MIN.saturating_add(u32::try_from(place).unwrap_or(u32::MAX)))
    }

    fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// All owners, numbered so that an entry can name them cheaply.
#[derive(Debug)]
pub(super) struct Claims<O> {
    numbers: Numbers<OwnerNumber>,
    owners: Vec<Slot<O>>,
    free: Vec<OwnerNumber>,
}

/// Of an owner that has a number.
type Slot<O> = Option<(O, Held)>;

impl<O> Default for Claims<O> {
    fn default() -> Self {
        Claims { numbers: Numbers::default(), owners: Vec::new(), free: Vec::new() }
    }
}

/// What replacing an owner's claims comes to.
pub(super) struct Replaced {
    /// The owner's number.
    pub(super) owner: OwnerNumber,
    pub(super) wanted: Vec<(Key, Row)>,
    pub(super) dropped: Vec<Dropped>,
}

/// A claim an owner no longer makes.
pub(super) struct Dropped {
    pub(super) key: Key,
    /// Whose it was.
    pub(super) owner: OwnerNumber,
    /// What the claim waited for.
    pub(super) after: Box<[Key]>,
}

impl<O: Clone + Eq + Hash> Claims<O> {
    /// The owner's number, given on first use.
    pub(super) fn id(&mut self, owner: &O) -> OwnerNumber {
        if let Some(id) = self.numbers.find(owner, |id| owner_at(&self.owners, id)) {
            return id;
        }
        let slot = Some((owner.clone(), Held::default()));
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(place) = self.owners.get_mut(id.place()) {
                    *place = slot;
                }
                id
            }
            None => {
                self.owners.push(slot);
                OwnerNumber::at(self.owners.len() - 1)
            }
        };
        self.numbers.insert(owner, id, |id| owner_at(&self.owners, id));
        id
    }

    /// Replaces the owner's claims; of two claims to one key the later counts.
    pub(super) fn replace(&mut self, owner: &O, mut claims: Vec<Claim>) -> Replaced {
        let id = self.id(owner);
        claims.sort_by(|a, b| a.key.cmp(&b.key));
        claims.reverse();
        claims.dedup_by(|a, b| a.key == b.key);
        claims.reverse();
        let held: Held = claims.iter().map(|claim| (claim.key.clone(), claim.after.clone().into())).collect();
        let before = self.held_mut(id).map(|place| std::mem::replace(place, held)).unwrap_or_default();
        let dropped = before
            .into_iter()
            .filter(|(key, _)| claims.binary_search_by(|claim| claim.key.cmp(key)).is_err())
            .map(|(key, after)| Dropped { key, owner: id, after })
            .collect();
        if claims.is_empty() {
            self.forget(owner, id);
        }
        let wanted = claims.into_iter().map(|claim| (claim.key, claim.row)).collect();
        Replaced { owner: id, wanted, dropped }
    }

    /// Prerequisite lists of a row, one for each of its claims.
    pub(super) fn prerequisites<'a>(
        &'a self,
        key: &'a Key,
        claimants: impl Iterator<Item = OwnerNumber> + 'a,
    ) -> impl Iterator<Item = &'a [Key]> {
        claimants.filter_map(move |id| {
            let (_, held) = self.owners.get(id.place())?.as_ref()?;
            let at = held.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
            held.get(at).map(|(_, after)| &**after)
        })
    }

    pub(super) fn owners_of(&self, claimants: impl Iterator<Item = OwnerNumber>) -> Vec<O> {
        let slots = claimants.filter_map(|id| self.owners.get(id.place())?.as_ref());
        slots.map(|(owner, _)| owner.clone()).collect()
    }

    fn held_mut(&mut self, id: OwnerNumber) -> Option<&mut Held> {
        self.owners.get_mut(id.place())?.as_mut().map(|(_, held)| held)
    }

    fn forget(&mut self, owner: &O, id: OwnerNumber) {
        self.numbers.remove(owner, id);
        if let Some(place) = self.owners.get_mut(id.place()) {
            *place = None;
            self.free.push(id);
        }
    }
}

fn owner_at<O>(owners: &[Slot<O>], id: OwnerNumber) -> Option<&O> {
    owners.get(id.place())?.as_ref().map(|(owner, _)| owner)
}
