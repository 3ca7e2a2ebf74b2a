#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| banger_fuzz::relay(input));
libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    banger_fuzz::mutate::layer(data, size, max_size, seed)
});
