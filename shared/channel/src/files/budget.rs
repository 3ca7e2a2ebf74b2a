//! What a guest may take of the host: time, bytes, memory for names, entries.

use banger_doc::{Error, Result};
use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

/// The most bytes of files that come from a guest where nobody says otherwise.
const BYTES: u64 = 16 << 30;
/// The most memory that names, and other small things that a guest tells, may take together.
const NAMES: u64 = 160 << 20;
/// The most entries of all trees that are looked at.
const ENTRIES: u64 = 2_000_000;
/// How much a name takes beside its bytes, wherever it is kept.
const NAME: u64 = 120;

/// What a command lets a guest take. It is made once, from what the caller allows; every operation takes
/// from it, a copy is the same budget, and one that is made of another is never larger. Nothing that a
/// guest says adds to it.
#[derive(Clone, Debug)]
pub struct Budget {
    end: Instant,
    more_time: Option<&'static str>,
    bytes: Pot,
    names: Pot,
    entries: Pot,
}

/// An amount that only shrinks. What is taken of it is taken of the one it was made of, too.
#[derive(Clone, Debug)]
struct Pot(Rc<Level>);

#[derive(Debug)]
struct Level {
    most: u64,
    left: Cell<u64>,
    above: Option<Pot>,
}

impl Pot {
    fn new(most: u64, above: Option<Self>) -> Self {
        Self(Rc::new(Level { most, left: Cell::new(most), above }))
    }

    fn part(&self, most: u64) -> Self {
        Self::new(most.min(self.left()), Some(self.clone()))
    }

    fn left(&self) -> u64 {
        let above = self.0.above.as_ref().map_or(u64::MAX, Self::left);
        self.0.left.get().min(above)
    }

    /// Takes all of it or nothing; returns the amount that does not allow it.
    fn take(&self, count: u64) -> std::result::Result<(), u64> {
        let left = self.0.left.get().checked_sub(count).ok_or(self.0.most)?;
        if let Some(above) = &self.0.above {
            above.take(count)?;
        }
        self.0.left.set(left);
        Ok(())
    }
}

impl Budget {
    /// Makes the budget of a command that may last for `time`.
    pub fn new(time: Duration) -> Self {
        Self::of(time, BYTES, NAMES, ENTRIES)
    }

    /// Makes one whose amounts the caller knows better.
    pub fn of(time: Duration, bytes: u64, names: u64, entries: u64) -> Self {
        Self {
            end: Instant::now() + time,
            more_time: None,
            bytes: Pot::new(bytes, None),
            names: Pot::new(names, None),
            entries: Pot::new(entries, None),
        }
    }

    /// Returns a part of it for files of at most so many bytes.
    #[must_use]
    pub fn bytes(&self, most: u64) -> Self {
        Self { bytes: self.bytes.part(most), ..self.clone() }
    }

    /// Returns a part of it for at most so many entries.
    #[must_use]
    pub fn entries(&self, most: u64) -> Self {
        Self { entries: self.entries.part(most), ..self.clone() }
    }

    /// Returns a part of it that ends sooner.
    #[must_use]
    pub fn time(&self, most: Duration) -> Self {
        Self { end: self.end.min(Instant::now() + most), ..self.clone() }
    }

    /// Says what to type for more time, where there is such a word.
    #[must_use]
    pub fn or_more_time(self, hint: &'static str) -> Self {
        Self { more_time: Some(hint), ..self }
    }

    /// Returns when it is over.
    pub fn end(&self) -> Instant {
        self.end
    }

    /// Returns the time that is left, or says that there is none.
    pub fn left(&self) -> Result<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::failed("the guest took too long")
                .hint(self.more_time.unwrap_or("the guest may be busy, broken or hostile")));
        }
        Ok(left)
    }

    /// Takes bytes of files; else says which amount does not allow it.
    pub(super) fn take_bytes(&self, count: u64) -> std::result::Result<(), u64> {
        self.bytes.take(count)
    }

    /// Takes an entry; else says which amount does not allow it.
    pub(super) fn take_entry(&self) -> std::result::Result<(), u64> {
        self.entries.take(1)
    }

    /// Takes memory for a name of so many bytes, or for something as small, before it is kept.
    pub fn take_name(&self, bytes: usize) -> Result<()> {
        self.take_names(1, bytes as u64)
    }

    /// Takes memory for so many names of so many bytes together, before they are kept.
    pub fn take_names(&self, count: u64, bytes: u64) -> Result<()> {
        let over = |most: u64| {
            Error::failed(format!(
                "what the guest tells takes more than {} MiB of memory",
                most >> 20
            ))
            .hint("fewer files in the guest, or shorter names, are looked at; the guest may be hostile")
        };
        let all = count.checked_mul(NAME).and_then(|all| all.checked_add(bytes));
        self.names.take(all.ok_or_else(|| over(self.names.0.most))?).map_err(over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_only_shrinks_and_its_parts_share_it() {
        let whole = Budget::of(Duration::from_secs(100), 1000, 1000, 10);
        let part = whole.bytes(600).entries(20).time(Duration::from_hours(1));
        assert_eq!(part.end(), whole.end(), "no part lasts longer than the whole");
        assert_eq!(part.take_bytes(601), Err(600));
        part.take_bytes(500).unwrap();
        assert_eq!(part.take_bytes(101), Err(600), "nothing was taken by what was refused");
        whole.clone().take_bytes(450).unwrap();
        assert_eq!(part.take_bytes(51), Err(1000), "the whole has too little left");
        part.take_bytes(50).unwrap();
        assert_eq!(whole.take_bytes(1), Err(1000));
        (0..10).for_each(|_| part.take_entry().unwrap());
        assert!(whole.take_entry().is_err());
        assert_eq!(whole.bytes(u64::MAX).take_bytes(1), Err(0), "a part of nothing is nothing");
    }

    #[test]
    fn what_would_overflow_is_too_much() {
        let budget = Budget::of(Duration::from_secs(1), u64::MAX, u64::MAX, u64::MAX);
        budget.take_bytes(u64::MAX).unwrap();
        assert!(budget.take_bytes(1).is_err());
        assert!(budget.take_names(u64::MAX, 1).is_err());
        assert!(budget.take_names(1, u64::MAX).is_err());
    }

    #[test]
    fn time_that_is_over_is_an_error() {
        let budget = Budget::new(Duration::from_hours(1));
        assert!(budget.left().is_ok());
        let hint = |budget: &Budget| {
            let late = budget.time(Duration::ZERO).left().unwrap_err();
            late.hint_text().map(ToOwned::to_owned)
        };
        assert!(hint(&budget).is_some_and(|hint| hint.contains("hostile")));
        assert_eq!(hint(&budget.or_more_time("wait")).as_deref(), Some("wait"));
    }
}
