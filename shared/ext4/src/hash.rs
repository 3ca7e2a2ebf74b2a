//! The hash by which the entries of a large directory are found: half of MD4, with a seed, over
//! signed bytes.

const SQRT_2: u32 = 0x5a82_7999;
const SQRT_3: u32 = 0x6ed9_eba1;
/// Stands for the end of a directory, so no name may have it.
const END: u32 = 0xffff_fffe;

/// Returns a name's hash, whose lowest bit is clear.
pub(crate) fn hash(seed: &[u8; 16], name: &[u8]) -> u32 {
    let mut state = [0; 4];
    for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(4)) {
        *word = u32::from_le_bytes(bytes.try_into().expect("because chunks have four bytes"));
    }
    let mut rest = name;
    loop {
        mix(&mut state, &words(rest));
        if rest.len() <= 32 {
            break;
        }
        rest = &rest[32..];
    }
    let hash = state[1] & !1;
    if hash == END { END - 2 } else { hash }
}

/// Packs up to 32 bytes into words, and fills up with the number of bytes that are left.
fn words(bytes: &[u8]) -> [u32; 8] {
    let length = bytes.len() as u32;
    let pad = (length | length << 8) & 0xffff;
    let pad = pad | pad << 16;
    let mut words = [pad; 8];
    for (word, part) in words.iter_mut().zip(bytes.chunks(4)) {
        *word = part.iter().fold(pad, |word, byte| (word << 8).wrapping_add(*byte as i8 as u32));
    }
    words
}

fn mix(state: &mut [u32; 4], input: &[u32; 8]) {
    fn choose(x: u32, y: u32, z: u32) -> u32 {
        z ^ (x & (y ^ z))
    }
    fn most(x: u32, y: u32, z: u32) -> u32 {
        (x & y).wrapping_add((x ^ y) & z)
    }
    fn odd(x: u32, y: u32, z: u32) -> u32 {
        x ^ y ^ z
    }
    type Round = (fn(u32, u32, u32) -> u32, u32, [usize; 8], [u32; 4]);
    const ROUNDS: [Round; 3] = [
        (choose, 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (most, SQRT_2, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (odd, SQRT_3, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for (function, constant, order, shifts) in ROUNDS {
        for (step, place) in order.into_iter().enumerate() {
            let sum = a
                .wrapping_add(function(b, c, d))
                .wrapping_add(input[place])
                .wrapping_add(constant)
                .rotate_left(shifts[step % 4]);
            (a, b, c, d) = (d, sum, b, c);
        }
    }
    for (word, more) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(more);
    }
}
