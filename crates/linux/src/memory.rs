//! What the allocator does with memory that was freed. It is asked of mimalloc, which programs of this project use.

use std::ffi::c_int;

/// `mi_option_purge_delay` of mimalloc 3 (`mimalloc.h`): milliseconds from free to given back.
const PURGE_DELAY: c_int = 15;

/// Gives freed pages back to the system at once. The default is a second later, by whoever allocates then: after the start of
/// an agent nobody does, and a quarter of its memory would be what nothing needs any more.
///
/// To be called first in `main`, before there are threads.
#[allow(unsafe_code)] // the allocator's options have no safe form
pub fn give_back_at_once() {
    // SAFETY: stores a number in a table of options; nobody reads it at the same time while there is one thread.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 0) }
}

#[cfg(test)]
#[allow(unsafe_code)] // as above
mod tests {
    use super::*;

    /// The number of an option is not promised from version to version.
    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: reads a number from a table of options, and no other test writes it.
        let get = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(get(), 1000, "the default of no other option");
        give_back_at_once();
        assert_eq!(get(), 0);
    }
}
