//! What a process has in memory, for tests that measure it.

/// Resident anonymous memory in bytes, by the page tables: the counters of `statm` are kept for each processor, and late by up
/// to half a megabyte.
pub(crate) fn resident() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("procfs");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("anonymous memory");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}
