//! What becomes of one path of which host and guest may each have made something else.

use crate::git::LINK;

/// A file or a link, by what it holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct File {
    /// Type and permissions, as in a tree of git.
    pub(super) mode: u32,
    /// SHA-256 of its bytes as they lie there, or of a link's target; empty if only the object is known.
    pub(super) sum: String,
    /// The object of git that stands for it; empty if none is known.
    pub(super) oid: String,
}

impl File {
    pub(super) fn is_link(&self) -> bool {
        self.mode == LINK
    }

    /// Says whether both are of one type and hold the same.
    pub(super) fn holds_same(&self, other: &Self) -> bool {
        let same = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a == b;
        let is_summed = !self.sum.is_empty() && !other.sum.is_empty();
        // Objects of different bytes may be the same where line ends or a filter come in between.
        let same_bytes =
            if is_summed { same(&self.sum, &other.sum) } else { same(&self.oid, &other.oid) };
        self.is_link() == other.is_link() && same_bytes
    }
}

/// What a checkout got from the guest the last time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Got<'a> {
    /// Nothing is known of a last time.
    Never,
    /// What it had at a path after that.
    Had(Option<&'a File>),
}

impl<'a> Got<'a> {
    /// Returns the file, if there was one.
    pub(super) fn file(self) -> Option<&'a File> {
        match self {
            Self::Never => None,
            Self::Had(file) => file,
        }
    }
}

/// What the sides have at a path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sides<'a> {
    /// What the host has.
    pub(super) ours: Option<&'a File>,
    /// What went in.
    pub(super) base: Option<&'a File>,
    /// What this checkout got the last time.
    pub(super) last: Got<'a>,
    /// What the guest has.
    pub(super) theirs: Option<&'a File>,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Decision {
    /// The host has what the guest has.
    Same,
    /// What the guest has takes its place.
    Take,
    /// The guest has no news since the last time, and the host went on from there.
    Keep,
    /// Both hold text or bytes that have to be merged.
    Merge,
    /// The guest deleted it, and the host changed it.
    DeletedInGuest,
    /// The host deleted it, and the guest changed it.
    DeletedOnHost,
    /// Both have it, and nothing went in.
    BothAdded,
    /// One has a link where the other has a file, or each a link to elsewhere.
    Types,
}

fn is_same(a: Option<&File>, b: Option<&File>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.mode == b.mode && a.holds_same(b),
        (None, None) => true,
        _ => false,
    }
}

/// Decides by what the sides have alone.
pub(super) fn decide(sides: Sides<'_>) -> Decision {
    let Sides { ours, base, last, theirs } = sides;
    if is_same(ours, theirs) {
        return Decision::Same;
    }
    if is_same(ours, base) {
        return Decision::Take;
    }
    if let Got::Had(last) = last {
        if is_same(ours, last) {
            return Decision::Take;
        }
        if is_same(last, theirs) {
            return Decision::Keep;
        }
    } else if is_same(base, theirs) {
        return Decision::Keep;
    }
    let before = last.file().or(base);
    match (ours, theirs) {
        (_, None) => Decision::DeletedInGuest,
        (None, _) => Decision::DeletedOnHost,
        (Some(ours), Some(theirs)) if ours.is_link() || theirs.is_link() => Decision::Types,
        (Some(ours), Some(theirs)) if ours.holds_same(theirs) && before.is_none() => Decision::Take,
        _ if before.is_none() => Decision::BothAdded,
        _ if before.is_some_and(File::is_link) => Decision::Types,
        _ => Decision::Merge,
    }
}

/// Returns the mode of a file that both have, by what it was: there are two, so that who changed it wins.
pub(super) fn merged_mode(ours: u32, base: u32, theirs: u32) -> u32 {
    if ours == base { theirs } else { ours }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Option<File> {
        let (mode, sum) = match text.split_once(':') {
            Some(("x", sum)) => (0o100_755, sum),
            Some(("l", sum)) => (LINK, sum),
            _ => (0o100_644, text),
        };
        (!text.is_empty()).then(|| File { mode, sum: sum.into(), oid: String::new() })
    }

    fn decided(ours: &str, base: &str, last: Option<&str>, theirs: &str) -> Decision {
        let [ours, base, theirs] = [ours, base, theirs].map(file);
        let last = last.map(file);
        let got = last.as_ref().map_or(Got::Never, |last| Got::Had(last.as_ref()));
        decide(Sides {
            ours: ours.as_ref(),
            base: base.as_ref(),
            last: got,
            theirs: theirs.as_ref(),
        })
    }

    #[test]
    fn who_alone_changed_a_path_is_heeded() {
        use Decision::{BothAdded, DeletedInGuest, DeletedOnHost, Keep, Merge, Same, Take, Types};
        for (ours, base, theirs, expected) in [
            ("a", "a", "b", Take),
            ("a", "a", "", Take),
            ("", "", "b", Take),
            ("b", "a", "b", Same),
            ("", "a", "", Same),
            ("a", "a", "x:a", Take),
            ("x:a", "a", "b", Merge),
            ("c", "a", "b", Merge),
            ("c", "a", "", DeletedInGuest),
            ("", "a", "b", DeletedOnHost),
            ("c", "", "b", BothAdded),
            ("b", "", "x:b", Take),
            ("l:t", "a", "b", Types),
            ("l:t", "l:s", "l:u", Types),
            ("a", "a", "l:t", Take),
            ("b", "l:t", "c", Types),
            ("b", "a", "a", Keep),
        ] {
            assert_eq!(decided(ours, base, None, theirs), expected, "{ours} {base} {theirs}");
        }
        for (ours, base, last, theirs, expected) in [
            // The guest went on, or took back what it did.
            ("b", "a", "b", "c", Take),
            ("b", "a", "b", "a", Take),
            ("b", "", "b", "", Take),
            ("", "a", "", "b", Take),
            // The host put away what it got, and gets it again.
            ("a", "a", "b", "b", Take),
            // The host went on, and the guest did not.
            ("c", "a", "b", "b", Keep),
            ("", "", "b", "b", Same),
            ("c", "a", "b", "d", Merge),
            ("c", "", "b", "d", Merge),
        ] {
            let expected = if (ours, base, theirs) == ("", "", "b") { Take } else { expected };
            assert_eq!(decided(ours, base, Some(last), theirs), expected, "{ours} {last} {theirs}");
        }
    }

    #[test]
    fn modes_are_merged_apart_from_content() {
        assert_eq!(merged_mode(0o100_644, 0o100_644, 0o100_755), 0o100_755);
        assert_eq!(merged_mode(0o100_755, 0o100_644, 0o100_644), 0o100_755);
        assert_eq!(merged_mode(0o100_644, 0o100_755, 0o100_755), 0o100_644);
    }

    #[test]
    fn bytes_count_where_they_are_known() {
        let [sum, oid] = [("a", "o"), ("", "o")].map(|(sum, oid)| File {
            mode: 0o100_644,
            sum: sum.into(),
            oid: oid.into(),
        });
        let other = File { sum: "b".into(), ..sum.clone() };
        assert!(sum.holds_same(&oid) && !sum.holds_same(&other) && other.holds_same(&oid));
        assert!(!File::default().holds_same(&File::default()));
    }
}
