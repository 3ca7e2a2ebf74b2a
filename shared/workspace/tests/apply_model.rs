//! Random work on both sides: what an apply makes of it is what git makes of three commits.
//!
//! `BANGER_CASES` says how many are tried, `BANGER_SEED` with which one they begin.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod world;

use banger_workspace::{Apply, Onto};
use std::fmt::Write as _;
use world::{World, differing, fingerprint};

/// Numbers that are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

const FILES: [&str; 7] = ["a", "b", "c", "d/e", "d/f", "g h", "x/y/z"];
const NEW: [&str; 4] = ["n", "d/n", "m/n/o", "d/e/q"];

/// Returns random edits; each line that is written is new, so that nothing comes about twice by chance.
fn edits(random: &mut Random, side: &str, only_lines: bool) -> String {
    let mut script = String::from("set +e\n");
    for step in 0..=random.below(4) {
        let file = FILES[random.below(FILES.len() as u64) as usize];
        let new = NEW[random.below(NEW.len() as u64) as usize];
        let (line, mark) = (random.below(30) + 1, format!("{side}{step}-{}", random.below(1000)));
        let _ = match if only_lines { random.below(4) } else { random.below(12) } {
            0..=2 => writeln!(script, "[ ! -f '{file}' ] || sed -i '{line}s/.*/{mark}/' '{file}'"),
            3 => writeln!(script, "[ ! -f '{file}' ] || echo {mark} >>'{file}'"),
            4 => writeln!(script, "[ ! -f '{file}' ] || sed -i '{line},+2d' '{file}'"),
            5 => writeln!(script, "rm -rf '{file}'"),
            6 => writeln!(script, "chmod +x '{file}'"),
            7 => writeln!(
                script,
                "mkdir -p \"$(dirname '{new}')\" && seq {line} 40 | sed s/^/{mark}/ >'{new}'"
            ),
            // The same on both sides.
            8 => writeln!(script, "mkdir -p same; echo {line} >same/{}", line % 3),
            9 => writeln!(script, "rm -f '{file}'; ln -s {mark} '{file}'"),
            10 => writeln!(script, "[ -L '{file}' ] || printf '{mark}\\0' >>'{file}'"),
            _ => writeln!(script, "rm -rf d; echo {mark} >d"),
        };
    }
    script + "true\n"
}

/// Makes a commit of all files of a directory, in a repository beside.
fn commit(world: &World, dir: &str, parent: &str) -> String {
    let parent = if parent.is_empty() { String::new() } else { format!("-p {parent}") };
    let script = format!(
        "cd $TOP/{dir}; export GIT_DIR=$TOP/model.git GIT_WORK_TREE=$TOP/{dir} GIT_INDEX_FILE=$TOP/model.index; \
         rm -f $GIT_INDEX_FILE; git add -A; git commit-tree {parent} -m x $(git write-tree)"
    );
    world.shell(world.path(), &script).trim().to_owned()
}

fn tree_of(world: &World, commit: &str) -> String {
    world.shell(world.path(), &format!("git --git-dir model.git rev-parse {commit}^{{tree}}"))
}

/// Applies, and compares with git's merge of three commits.
fn judge(world: &World, base: &str, told: &str) -> bool {
    let (ours, theirs) = (commit(world, "host", base), commit(world, "guest/root/repo", base));
    let merge = format!(
        "git --git-dir model.git -c merge.renames=false merge-tree --write-tree --no-messages \
         {ours} {theirs} | sed -n 1p; echo ${{PIPESTATUS[0]}}"
    );
    let merged = world.shell(world.path(), &format!("set +e; set +o pipefail; {merge}; true"));
    let (tree, status) = merged.split_once('\n').unwrap();
    let is_clean = status.trim() == "0";
    let before = fingerprint(&world.host());
    let apply = Apply::make(&world.vm(), &world.files(), &Onto::default());
    let apply = apply.unwrap_or_else(|error| panic!("{told}\n{}", error.chain()));
    let done = apply.run(&|| false).unwrap_or_else(|error| panic!("{told}\n{}", error.chain()));
    assert_eq!(done.is_applied, is_clean, "{told}\n{done:#?}\n{merged}");
    if is_clean {
        let now = commit(world, "host", "");
        let differs = format!("git --git-dir model.git diff --stat {now}^{{tree}} {tree}");
        assert_eq!(
            tree_of(world, &now).trim(),
            tree,
            "{told}\n{}\n{done:#?}",
            world.shell(world.path(), &differs)
        );
        assert_eq!(world.unexported(), [""; 0], "{told}");
    } else {
        let touched = differing(&fingerprint(&world.host()), &before);
        assert!(touched.is_empty(), "{told}\n{touched:?}");
        assert!(!world.unexported().is_empty(), "{told}");
    }
    is_clean
}

#[test]
fn an_apply_is_a_merge_of_three_commits() {
    let number = |name: &str, usual: u64| {
        std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(usual)
    };
    let (first, count) = (number("BANGER_SEED", 1), number("BANGER_CASES", 12));
    let (mut clean, mut again) = (0, 0);
    for seed in first..first + count {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut setup = String::from("git init -q; mkdir -p d x/y\n");
        for file in FILES {
            let _ = writeln!(setup, "seq 30 | sed 's,^,{file} ,' >'{file}'");
        }
        setup += "git add -A; git commit -qm one\n";
        // Edits go in too.
        setup += &edits(&mut random, "in", false);
        let (guest, host) = (edits(&mut random, "guest", false), edits(&mut random, "host", false));
        let mut told = format!("# case {seed}\n{setup}\n# guest\n{guest}\n# host\n{host}");
        let world = World::new(&setup);
        world.shell(world.path(), "git init -q --bare model.git");
        let wish = banger_workspace::Wish { include_untracked: true, ..world.wish() };
        world.prepare(&wish).unwrap_or_else(|error| panic!("{told}\n{}", error.chain()));
        let base = commit(&world, "guest/root/repo", "");
        world.shell(&world.guest(), &guest);
        world.shell(&world.host(), &host);
        if !judge(&world, &base, &told) {
            continue;
        }
        clean += 1;
        // Both go on in what they have.
        let base = commit(&world, "guest/root/repo", "");
        let (guest, host) =
            (edits(&mut random, "guest-", false), edits(&mut random, "host-", true));
        told = format!("{told}\n# applied; guest\n{guest}\n# host\n{host}");
        world.shell(&world.guest(), &guest);
        world.shell(&world.host(), &host);
        again += u64::from(judge(&world, &base, &told));
    }
    assert!(clean * 4 > count && again * 6 > count, "{clean} and {again} of {count} are clean");
}
