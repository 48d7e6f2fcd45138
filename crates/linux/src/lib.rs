//! The kernel as tables of desired rows.
