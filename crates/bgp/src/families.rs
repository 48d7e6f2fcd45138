//! A set of address families, small enough to copy.

use std::fmt;

use crate::family::Family;

/// Some of the families the speaker knows.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Families(u8);

impl Families {
    /// No family.
    pub const NONE: Families = Families(0);

    /// Every family the speaker knows.
    pub fn all() -> Self {
        Family::ALL.into_iter().collect()
    }

    /// Whether `family` is one of them.
    pub const fn contains(self, family: Family) -> bool {
        self.0 & Self::bit(family) != 0
    }

    /// Adds one; says whether it was not there.
    pub const fn insert(&mut self, family: Family) -> bool {
        let new = !self.contains(family);
        self.0 |= Self::bit(family);
        new
    }

    /// Takes one out; says whether it was there.
    pub const fn remove(&mut self, family: Family) -> bool {
        let was = self.contains(family);
        self.0 &= !Self::bit(family);
        was
    }

    /// Those of both sets.
    #[must_use]
    pub const fn and(self, other: Families) -> Families {
        Families(self.0 & other.0)
    }

    /// Those of this set that the other lacks.
    #[must_use]
    pub const fn without(self, other: Families) -> Families {
        Families(self.0 & !other.0)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The families, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |family| self.contains(*family))
    }

    const fn bit(family: Family) -> u8 {
        1 << family.index()
    }
}

impl FromIterator<Family> for Families {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        let mut set = Families::NONE;
        for family in families {
            set.insert(family);
        }
        set
    }
}

impl fmt::Debug for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
