//! Repositories of every sort go into a guest and come back, next to what git itself says of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod cases;
mod world;

use banger_doc::WorkspaceMode;
use cases::{CASES, Case};
use std::fs;
use world::{World, differing, fingerprint};

/// Runs `git status`, without the lines of untracked files unless they matter.
fn status(world: &World, dir: &std::path::Path, untracked: bool) -> String {
    let text = world.shell(dir, "git --no-optional-locks status --porcelain=v2 -z --ignore-submodules=none | tr '\\0' '\\n'");
    text.lines().filter(|line| untracked || !line.starts_with("? ")).collect::<Vec<_>>().join("\n")
}

fn tree(world: &World, dir: &std::path::Path, keep: &str) -> String {
    let script =
        format!("cp -a {} $TOP/{keep}; cd $TOP/{keep}; git add -A; git write-tree", dir.display());
    world.shell(world.path(), &script)
}

/// Applies a patch to the host's checkout as it lies, as anybody would: then both have the same files, byte by
/// byte.
fn as_it_lies(world: &World, case: &Case, patch: &[u8]) {
    fs::write(world.path().join("patch"), patch).unwrap();
    let others = if case.untracked { "" } else { "git clean -ffdqx;" };
    let script = format!(
        "cp -a host lies; cd lies; {others} git apply --allow-empty ../patch; \
         list() {{ git -C $1 ls-files -z -c -o --exclude-standard; }}; \
         {{ list $TOP/guest/root/repo; list .; }} | sort -zu | while IFS= read -rd '' f; do \
         g=\"$TOP/guest/root/repo/$f\"; \
         if [ -L \"$g\" ]; then test \"$(readlink \"$f\")\" = \"$(readlink \"$g\")\"; \
         elif [ -f \"$g\" ]; then cmp \"$f\" \"$g\"; if [ -x \"$g\" ]; then test -x \"$f\"; else test ! -x \"$f\"; fi; \
         elif [ -d \"$g\" ]; then test -d \"$f\"; else test ! -e \"$f\" -a ! -L \"$f\"; fi || {{ echo \"$f\"; exit 1; }}; done"
    );
    world.shell(world.path(), &script);
}

fn round_trip(case: &Case) {
    let name = case.name;
    let world = World::new(case.setup);
    let expected = status(&world, &world.host(), case.untracked);
    let fsck = "git fsck --no-dangling 2>&1 | grep -v '^notice' || true";
    let checked = world.shell(&world.host(), fsck);
    let before = fingerprint(&world.host());
    let mut wish = world.wish();
    if case.full {
        wish.mode = WorkspaceMode::FullCopy;
    }
    wish.include_untracked = case.untracked;
    let planned = banger_workspace::dry_run(&wish, None).unwrap();
    let record = world.prepare(&wish).unwrap_or_else(|error| panic!("{name}: {}", error.chain()));
    assert_eq!(record.files, planned.files.len() as u64, "{name}: the dry run is exact");

    let (host, guest) = (world.host(), world.guest());
    assert_eq!(status(&world, &guest, true), expected, "{name}: status in the guest");
    assert_eq!(world.shell(&guest, fsck), checked, "{name}: git fsck");
    let list = if case.untracked {
        "git ls-files -z -c -o --exclude-standard"
    } else {
        "git ls-files -z -c"
    };
    let compare = format!(
        "{list} | sort -zu | while IFS= read -rd '' f; do \
         if [ -L \"$f\" ]; then test \"$(readlink \"$f\")\" = \"$(readlink \"$TOP/host/$f\")\"; \
         elif [ -f \"$f\" ]; then cmp \"$f\" \"$TOP/host/$f\"; test $(stat -c %Y \"$f\") = $(stat -c %Y \"$TOP/host/$f\"); \
         test -x \"$f\" -a -x \"$TOP/host/$f\" -o ! -x \"$f\" -a ! -x \"$TOP/host/$f\"; \
         else test ! -f \"$TOP/host/$f\"; fi; done"
    );
    world.shell(&guest, &compare);
    assert_eq!(world.unexported(), [""; 0], "{name}: nothing to lose yet");

    let again = world.prepare(&wish).unwrap_or_else(|error| panic!("{name}: {}", error.chain()));
    assert_eq!(again.prepared_tree, record.prepared_tree, "{name}: a second prepare");

    world.shell(&guest, case.work);
    let guest_before = fingerprint(&guest);
    let lying = world.export();
    let touched = differing(&fingerprint(&guest), &guest_before);
    assert!(touched.is_empty(), "{name}: an export touches the guest: {touched:?}");
    let touched = differing(&fingerprint(&host), &before);
    assert!(touched.is_empty(), "{name}: the host's repository is touched: {touched:?}");
    assert_eq!(world.unexported(), [""; 0], "{name}: all is exported");

    as_it_lies(&world, case, &lying);
    let patch = world.export_of(Some("prepared"));
    assert_eq!(world.unexported(), [""; 0], "{name}: all is exported against the commit too");
    fs::write(world.path().join("patch"), &patch).unwrap();
    let base = record.base_commit.as_deref().unwrap_or("");
    let clean = format!(
        "cp -a $TOP/guest/root/repo/.git $TOP/cleangit; mkdir $TOP/clean; mv $TOP/cleangit $TOP/clean/.git; cd $TOP/clean; \
         rm -f .git/index .git/MERGE_HEAD; cp $TOP/host/.git/config $TOP/hostconfig 2>/dev/null || true; \
         if [ -n '{base}' ]; then git read-tree --reset {base}; git checkout-index -qafu; fi; \
         if [ -s $TOP/patch ]; then git apply --index --binary $TOP/patch; fi; git write-tree"
    );
    // What a filter made is no text that a mail could change.
    if case.name != "filters as of large files" {
        fs::write(world.path().join("mbox"), world.mails()).unwrap();
        let am = format!(
            "mkdir $TOP/am; cp -a $TOP/guest/root/repo/.git $TOP/am/.git; cd $TOP/am; \
             rm -f .git/index .git/MERGE_HEAD; git symbolic-ref HEAD refs/heads/none; \
             if [ -n '{base}' ]; then git checkout -qf --detach {base}; fi; \
             if [ -s $TOP/mbox ]; then git am -q $TOP/mbox; fi; git write-tree"
        );
        assert_eq!(
            world.shell(world.path(), &am),
            tree(&world, &guest, "am-copy"),
            "{name}: the mails"
        );
        assert_eq!(world.unexported(), [""; 0], "{name}: all is exported as mails too");
    }
    if case.name != "line ends" && case.name != "filters as of large files" {
        assert_eq!(
            world.shell(world.path(), &clean),
            tree(&world, &guest, "copy"),
            "{name}: the patch"
        );
    } else {
        assert!(!patch.is_empty() && !patch.windows(9).any(|w| w == b"b/x.big\n\0"), "{name}");
    }
}

macro_rules! parts {
    ($($test:ident $from:literal $to:expr;)*) => {$(
        #[test]
        fn $test() {
            for case in &CASES[$from..$to] {
                eprintln!("case '{}'", case.name);
                round_trip(case);
            }
        }
    )*};
}

parts! {
    what_guests_do 0 6;
    what_lies_on_hosts 6 10;
    states_of_head 10 16;
    sorts_of_repository 16 22;
    contents 22 28;
    the_rest 28 CASES.len();
}
