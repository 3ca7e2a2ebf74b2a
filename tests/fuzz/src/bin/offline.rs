#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| banger_fuzz::offline(input));
