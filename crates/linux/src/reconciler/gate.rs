//! Which rows that nobody wants may be removed, and when.
//!
//! A row read from the kernel and wanted by nobody is a leftover, or its owner has not spoken yet. Which of the two is
//! known to whoever plans such rows: it hands in a [`Gate`] for each group and opens it when it knows enough. Absence
//! of a wish means nothing before. A wish that was there and is taken back may mean something sooner, where the group
//! says so.

use crate::row::{Key, Row};

/// A group of rows, told by what is in the kernel.
pub type Rows = fn(&Key, &Row) -> bool;

/// Whether the unwanted rows of a group may go.
///
/// Several gates may cover one row: it goes when all of them are open. A row that no gate covers stays, so that a
/// group forgotten here is left behind and not lost.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    /// The group. The same function always stands for the same group.
    pub covers: Rows,
    /// Whether its owner knows enough.
    pub open: bool,
    /// Whether what its owner wanted and wants no longer may go before that.
    pub withdrawn: bool,
}

impl Gate {
    /// The group with its removals as allowed as `open` says.
    pub fn new(covers: Rows, open: bool) -> Gate {
        Gate { covers, open, withdrawn: false }
    }

    /// The same; what was wanted in this life and is no longer goes though it is shut.
    #[must_use]
    pub fn but_for_the_withdrawn(self) -> Gate {
        Gate { withdrawn: true, ..self }
    }

    /// Everything may go.
    pub fn all() -> Gate {
        Gate::new(|_, _| true, true)
    }
}

/// All gates.
#[derive(Debug, Default)]
pub(super) struct Gates(Vec<Gate>);

impl Gates {
    /// Replaces them. Says whether another row may go now, or may no longer: compared by number and openness, for
    /// groups keep their order.
    pub(super) fn replace(&mut self, gates: impl IntoIterator<Item = Gate>) -> bool {
        let gates: Vec<Gate> = gates.into_iter().collect();
        let same = gates.iter().map(|gate| gate.open).eq(self.0.iter().map(|gate| gate.open));
        self.0 = gates;
        !same
    }

    /// Whether this row, which nobody wants (any more: `withdrawn`), may go. O(gates).
    pub(super) fn let_go(&self, key: &Key, row: &Row, withdrawn: bool) -> bool {
        let mut covering = self.0.iter().filter(|gate| (gate.covers)(key, row)).peekable();
        covering.peek().is_some() && covering.all(|gate| gate.open || (withdrawn && gate.withdrawn))
    }
}
