//! Who may put data where, decided before any of it comes, so that sources that work at the same
//! time always give the same disk.

use crate::layout::{BLOCK, DESCRIPTORS_A_BLOCK, GROUP_BLOCKS};
use banger_doc::{Error, Result};

/// The first block for data. The superblock and the descriptors of all groups fit before it.
pub(crate) const FIRST_DATA: u32 = 512;
/// The most groups a disk can have.
pub(crate) const MAX_GROUPS: u32 = (FIRST_DATA / 2) * DESCRIPTORS_A_BLOCK;
/// The most blocks a disk can have: 4 TiB.
pub(crate) const MAX_BLOCKS: u64 = MAX_GROUPS as u64 * GROUP_BLOCKS as u64;
/// Blocks of one run beyond a source's own home.
const RUN: u64 = 4096;
/// How much room a source gets for each byte that it says it comes as.
const GROWTH: u64 = 4;

/// The room of every source: first a home of its own, as large as its data will probably be; then
/// runs that all sources take turns in, whether they need them or not. What nobody uses is a hole.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    homes: Vec<(u64, u64)>,
    beyond: u64,
}

impl Places {
    /// Divides the disk between sources that will bring about that many bytes each.
    pub(crate) fn new(sizes: &[Option<u64>]) -> Self {
        let mut next = u64::from(FIRST_DATA);
        // A lone source needs no fence.
        let alone = sizes.len() == 1;
        let homes = sizes
            .iter()
            .map(|size| {
                let blocks = match size {
                    Some(size) if !alone => {
                        size.saturating_mul(GROWTH).min(1 << 40).div_ceil(BLOCK as u64)
                    }
                    _ => 0,
                };
                let home = (next, blocks);
                next += blocks;
                home
            })
            .collect();
        Self { homes, beyond: next }
    }

    /// Returns a source's stretch number `turn`: its first block and how many.
    pub(crate) fn stretch(&self, source: usize, turn: u64) -> Result<(u32, u32)> {
        let (start, home) = self.homes[source];
        let (start, length) = if home > 0 && turn == 0 {
            (start, home)
        } else {
            let run = if home > 0 { turn - 1 } else { turn };
            (self.beyond + (run * self.homes.len() as u64 + source as u64) * RUN, RUN)
        };
        if start + length > MAX_BLOCKS {
            return Err(Error::failed("the data does not fit on a disk of 4 TiB"));
        }
        Ok((start as u32, length as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_never_meet() {
        let places = Places::new(&[Some(10 << 20), None, Some(0), Some(1)]);
        let mut all: Vec<_> = (0..4)
            .flat_map(|source| (0..5).map(move |turn| (source, turn)))
            .map(|(source, turn)| places.stretch(source, turn).unwrap())
            .collect();
        all.sort_unstable();
        assert!(all.iter().all(|(start, _)| *start >= FIRST_DATA));
        assert!(all.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{all:?}");
    }

    #[test]
    fn a_lone_source_leaves_no_gap() {
        let places = Places::new(&[Some(10 << 20)]);
        let (first, second) = (places.stretch(0, 0).unwrap(), places.stretch(0, 1).unwrap());
        assert_eq!(first.0, FIRST_DATA);
        assert_eq!(first.0 + first.1, second.0);
    }

    #[test]
    fn the_end_is_an_error() {
        let places = Places::new(&[None; 512]);
        assert!(places.stretch(511, 1000).is_err());
    }
}
