//! See `bgp_fuzz::speaker`.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    bgp_fuzz::speaker(octets);
});
