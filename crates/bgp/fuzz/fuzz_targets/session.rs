//! See `bgp_fuzz::session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    bgp_fuzz::session(octets);
});
