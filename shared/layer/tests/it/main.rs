//! Layers become disks; the disks are read back by others.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

/// One test for each case: what checks it, then names and what is checked.
macro_rules! each {
    ($check:path { $($name:ident: $($argument:expr),+;)+ }) => {
        $(#[test]
        fn $name() {
            $check($($argument),+);
        })+
    };
}

mod archives;
mod escapes;
mod exhaustion;
mod memory;
mod metadata;
mod packing;
mod random;
mod stack;
mod support;
mod syntax;
mod traced;
