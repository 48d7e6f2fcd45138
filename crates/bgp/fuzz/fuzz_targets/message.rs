//! See `bgp_fuzz::message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    bgp_fuzz::message(octets);
});
