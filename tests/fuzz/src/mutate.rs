//! How inputs are broken: by libFuzzer, which knows what reaches new code, and by changes that know
//! the format.

use crate::seeds;
use libfuzzer_sys::fuzzer_mutate;
use std::sync::LazyLock;

static ARCHIVES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(seeds::archives);
static PACKED: LazyLock<Vec<Vec<u8>>> = LazyLock::new(seeds::packed);

/// Breaks an archive; most of its headers' checksums are made right again.
pub fn layer(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random(u64::from(seed) << 1 | 1);
    let size = if size < 512 || random.below(3) == 0 {
        let mut stack = vec![data[..size].to_vec()];
        stack.extend(ARCHIVES.iter().cloned());
        replace(data, max_size, &blocks(&stack, &mut random))
    } else {
        fuzzer_mutate(data, size, max_size)
    };
    if random.below(10) > 0 {
        sum(&mut data[..size]);
    }
    size
}

/// Breaks bytes of gzip and zstd.
pub fn packed(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random(u64::from(seed) << 1 | 1);
    if random.below(3) > 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let mut inputs = vec![data[..size].to_vec()];
    inputs.extend(PACKED.iter().cloned());
    replace(data, max_size, &bytes(&inputs, &mut random))
}

fn replace(data: &mut [u8], max_size: usize, input: &[u8]) -> usize {
    let size = input.len().min(max_size);
    data[..size].copy_from_slice(&input[..size]);
    size
}

/// Makes the checksums of headers right.
fn sum(input: &mut [u8]) {
    for block in input.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

/// A small generator of numbers; good enough to break things.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

const WORDS: [&[u8]; 30] = [
    b"..",
    b"/",
    b".wh.",
    b".wh..wh..opq",
    b"a",
    b"a/b",
    b"\0",
    b"ustar\x0000",
    b"ustar  \0",
    b"./",
    b"//",
    b"777777777777",
    b"99999999999",
    b"\x80\0\0\0\0\0\0\x01",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"12 path=a/b\n",
    b"11 size=12\n",
    b"19 GNU.sparse.map=\n",
    b"25 GNU.sparse.major=1\n",
    b"GNU.sparse.size",
    b"SCHILY.xattr.user.x=1",
    b"mtime=-1.5",
    b"30 ",
    b"system.posix_acl_access",
    b"@sha256:",
    b":",
    b"localhost:5000/",
    b"\xc3\xa9",
    b"[::1]",
    b"library",
];

/// Breaks bytes in a few random places.
fn bytes(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..1 + random.below(6) {
        let at = random.below(input.len());
        match random.below(9) {
            0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
            1 if !input.is_empty() => input[at] = random.next() as u8,
            2 => input.truncate(at),
            3 => {
                let word = WORDS[random.below(WORDS.len())];
                input.splice(at..at, word.iter().copied());
            }
            4 | 5 => {
                let word = WORDS[random.below(WORDS.len())];
                let end = (at + word.len()).min(input.len());
                input[at..end].copy_from_slice(&word[..end - at]);
            }
            6 => {
                let end = (at + random.below(64)).min(input.len());
                input.drain(at..end);
            }
            7 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                let end = (from + random.below(2048)).min(other.len());
                input.splice(at..at, other[from..end].iter().copied());
            }
            _ => {
                let end = (at + random.below(600)).min(input.len());
                let part = input[at..end].to_vec();
                input.extend(part);
            }
        }
    }
    input.truncate(1 << 20);
    input
}

/// Puts entries of several archives together, and changes fields of their headers.
fn blocks(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..1 + random.below(12) {
        let seed = &seeds[random.below(seeds.len())];
        if seed.len() < 512 {
            continue;
        }
        let from = random.below(seed.len() / 512) * 512;
        let end = (from + (1 + random.below(6)) * 512).min(seed.len());
        input.extend_from_slice(&seed[from..end]);
    }
    const FIELDS: [(usize, usize); 12] = [
        (0, 100),
        (100, 8),
        (108, 8),
        (116, 8),
        (124, 12),
        (136, 12),
        (156, 1),
        (157, 100),
        (257, 8),
        (329, 16),
        (345, 155),
        (386, 110),
    ];
    if input.is_empty() {
        return seeds[1].clone();
    }
    for _ in 0..random.below(6) {
        let block = random.below(input.len() / 512) * 512;
        let (field, length) = FIELDS[random.below(FIELDS.len())];
        let word = match random.below(4) {
            0 => vec![random.next() as u8; length],
            1 => b"0123456xgLKS"[random.below(12)..].to_vec(),
            2 => format!("{:0width$o}", random.below(5000), width = length.saturating_sub(1))
                .into_bytes(),
            _ => WORDS[random.below(WORDS.len())].to_vec(),
        };
        let count = word.len().min(length);
        if let Some(place) = input.get_mut(block + field..block + field + count) {
            place.copy_from_slice(&word[..count]);
        }
    }
    input
}
