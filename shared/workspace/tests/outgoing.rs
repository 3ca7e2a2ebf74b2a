//! A patch against what went in applies, by plain `git apply`, to the checkout as it lies there, whatever lies
//! there and whatever the guest did.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod world;

use banger_doc::WorkspaceMode;
use banger_workspace::{Export, Want, Wish};
use std::fs;
use world::{World, counts};

/// Prepares what `setup` makes, works in the guest, exports, and applies the patch as anybody would: then host and
/// guest have the same files, byte by byte, but for what `apart` names.
fn same(setup: &str, work: &str, wish: impl Fn(Wish) -> Wish, apart: &str) -> World {
    let world = World::new(setup);
    world.prepare(&wish(world.wish())).unwrap_or_else(|error| panic!("{setup}: {}", error.chain()));
    world.shell(&world.guest(), &format!("sleep 0.02; {work}"));
    fs::write(world.path().join("patch"), world.export()).unwrap();
    let script = format!(
        "cd host; git apply --allow-empty ../patch; cd ..; \
         diff -r --no-dereference -x .git {apart} host guest/root/repo >&2; \
         modes() {{ (cd $1; find . -name .git -prune -o -type f -perm -100 -print | sort); }}; \
         diff <(modes host) <(modes guest/root/repo) >&2"
    );
    world.shell(world.path(), &script);
    world
}

fn plain(setup: &str, work: &str) -> World {
    let world = same(setup, work, |wish| wish, "");
    assert_eq!(world.unexported(), [""; 0], "{setup}; {work}");
    world
}

const DIRTY: &str = "git init -q; seq 50 >a; seq 50 >b; seq 9 >staged; echo gone >gone; echo r >removed; mkdir d; \
                     seq 30 >d/moved; printf 'x\\0y' >bin; echo run >run; ln -s a link; git add -A; git commit -qm one; \
                     sed -i 's/^2$/mine/' a; echo s >>staged; git add staged; echo more >>staged; rm gone; \
                     git rm -q removed; git mv d/moved d/there; printf 'p\\0q' >bin; chmod +x run; ln -sf b link";

#[test]
fn on_local_edits_of_every_sort() {
    for work in [
        "",
        "echo guest >>a; sed -i 's/^40$/guest/' b",
        // Next to the line that the host edited.
        "sed -i 's/^mine$/guest/' a; echo t >>staged",
        "rm a staged bin link; git rm -qf run",
        "mv d/there d/again; mv b c; git add -A; git commit -qm w; sed -i 's/^7$/seven/' c d/again",
        "printf 'q\\0\\0' >>bin; head -c 100000 /dev/urandom >big; printf 'new\\0' >bin2; : >empty",
        "chmod -x run; chmod +x a b; echo x >x; chmod +x x",
        "ln -sf nowhere link; ln -s d newlink; rm b; ln -s a b",
        "rm a; mkdir a; echo i >a/i; rm -r d; echo d >d; rm link; echo l >link",
        "echo back >gone; echo back >removed; git checkout -q HEAD d/moved",
        "git reset -q --hard",
        "git stash -q; git stash pop -q; git checkout -qb other; git commit -qam all; echo o >>a; git commit -qam o",
    ] {
        plain(DIRTY, work);
    }
}

#[test]
fn with_names_of_every_sort() {
    plain(
        "git init -q; echo 1 >$'a\\nb'; echo 2 >$'\\xff\\xfe'; echo 3 >' lead'; echo 4 >'q\"uo\\te'; echo 5 >'trail '; \
         mkdir 'a dir' ' b' é; echo 6 >'a dir/-dash'; echo 7 >ü; echo 8 >'*'; echo 9 >' b/ '; echo 10 >$'t\\tab'; \
         echo 11 >'a => b'; echo 12 >'{c => d}'; echo 13 >é/é; git add -A; git commit -qm one; \
         for f in $'a\\nb' ' lead' 'q\"uo\\te'; do echo mine >>\"$f\"; done",
        "for f in $'a\\nb' $'\\xff\\xfe' ' lead' 'q\"uo\\te' 'trail ' 'a dir/-dash' ü '*' ' b/ ' $'t\\tab' 'a => b'; do echo w >>\"$f\"; done; \
         mv '{c => d}' $'new\\n'; rm -r é; echo n >$'\\xfe'; echo n >'new '; printf '\\0' >' bin '; chmod +x ü; ln -s 'a dir' ' link'; \
         echo /dev/null >'b'; mkdir -p a/dev; echo n >a/dev/null",
    );
}

#[test]
fn with_line_ends_of_every_sort() {
    let files = "printf 'a\\r\\nb\\r\\nc\\r\\n' >crlf; printf 'a\\nb\\nc\\n' >lf; printf 'a\\r\\nb\\nc\\r\\n' >mixed; \
                 printf 'a\\r\\nb' >noend; printf 'a\\r\\n\\0' >bin; printf 's\\n' >s.sh; printf 'd\\r\\n' >d.bat";
    let work = "printf 'w\\r\\n' >>crlf; printf 'w\\n' >>lf; printf 'w\\r\\n' >>mixed; printf 'x\\r\\n' >>noend; \
                printf 'w\\r\\n' >>bin; printf 'w\\n' >>s.sh; printf 'w\\r\\n' >>d.bat; printf 'n\\r\\n' >n.bat; printf 'n\\n' >n.sh";
    for edits in
        ["", "printf 'mine\\r\\n' >>crlf; printf 'mine\\n' >>lf; printf 'mine\\r\\n' >>d.bat"]
    {
        // What is committed is what lies there.
        plain(&format!("git init -q; {files}; git add -A; git commit -qm one; {edits}"), work);
        plain(
            &format!(
                "git init -q; printf '*.sh text eol=lf\\n*.bat text eol=crlf\\n*.bin -text\\n' >.gitattributes; {files}; \
                 git add -A; git commit -qm one; {edits}"
            ),
            work,
        );
    }
    // Git takes line ends of the system's sort for the ones that it keeps.
    for setting in ["autocrlf true", "eol crlf"] {
        plain(
            &format!(
                "git init -q; git config core.{setting}; echo '* text=auto' >.gitattributes; \
                 printf 'a\\r\\nb\\r\\n' >a; printf 'b\\r\\n' >b; printf 'x\\r\\n\\0' >bin; git add -A; git commit -qm one; \
                 rm .gitattributes; git checkout -q .; printf 'mine\\r\\n' >>b"
            ),
            "printf 'w\\r\\n' >>a; printf 'w\\r\\n' >>b; printf 'w\\r\\n' >>bin; printf 'n\\r\\n' >n",
        );
    }
}

#[test]
fn with_every_state_of_a_repository() {
    // No commits; with an index, and without.
    plain("git init -q", "echo a >a; git add a; git commit -qm first");
    plain(
        "git init -q; echo a >a; git add a; echo b >>a",
        "echo c >>a; echo n >n; git add -A; git commit -qm w",
    );
    // An unfinished merge, cherry-pick and revert, with conflicts in files.
    let two = "git init -q; seq 20 >a; seq 9 >other; git add -A; git commit -qm one; git checkout -qb side; sed -i 's/^3$/side/' a; \
               echo side >>other; git commit -qam side; git checkout -q main; sed -i 's/^3$/main/' a; git commit -qam main;";
    for state in ["git merge side || :", "git cherry-pick side || :", "git revert HEAD~1 || :"] {
        plain(&format!("{two} {state}"), "sed -i '/^[<=>|]/d' a; echo w >>other");
        plain(
            &format!("{two} {state}"),
            "git checkout -q --theirs a 2>/dev/null || :; git add -A; git commit -qm done || :",
        );
    }
    // Modes that the host does not keep.
    plain(
        "git init -q; git config core.filemode false; echo a >a; echo b >b; chmod +x b; git add -A; git commit -qm one; chmod +x a; echo mine >>a; chmod -x a",
        "echo w >>a; echo w >>b",
    );
    // What is taken for unchanged, and what is only meant to be added.
    plain(
        "git init -q; seq 9 >a; seq 9 >b; git add -A; git commit -qm one; git update-index --assume-unchanged b; echo mine >>b; echo n >n; git add -N n",
        "echo w >>b; echo w >>n; echo w >>a",
    );
    // A branch of the guest's own.
    same(
        "git init -q; seq 9 >a; git add -A; git commit -qm one; echo mine >>a",
        "echo w >>a; git commit -qam w; echo x >x",
        |wish| Wish { branch: Some("task".into()), ..wish },
        "",
    );
}

#[test]
fn with_untracked_files_that_went_in() {
    let setup = "git init -q; seq 9 >a; echo '*.o' >.gitignore; git add -A; git commit -qm one; mkdir u; seq 9 >u/v; \
                 echo k >key; chmod +x key; ln -s a l; printf 'b\\0' >bin; echo o >x.o";
    let world = same(
        setup,
        "echo w >>u/v; rm l; printf 'c\\0' >bin; mv key kept; echo n >n; git add u; git commit -qm w",
        |wish| Wish { include_untracked: true, ..wish },
        "-x x.o",
    );
    assert_eq!(world.unexported(), [""; 0]);
    let sum = String::from_utf8(world.export_of(Some("prepared"))).unwrap();
    assert!(sum.contains("+++ b/u/v") && sum.contains("new file mode 100755"), "{sum}");
}

#[test]
fn on_a_directory_without_git() {
    for work in
        ["echo w >>a; rm -r d; echo n >n; ln -s a l; chmod +x n", "mv a moved; printf 'x\\0' >>bin"]
    {
        plain("seq 9 >a; mkdir d; echo b >d/b; printf 'q\\0' >bin", work);
    }
}

#[test]
fn on_submodules() {
    let setup = "git init -q $TOP/m; (cd $TOP/m; echo m >f; git add f; git commit -qm m; echo 2 >>f; git commit -qam m2); \
                 git init -q; seq 9 >a; git submodule --quiet add $TOP/m sub; git submodule --quiet add $TOP/m two; git add -A; \
                 git commit -qm one; echo mine >>a; git -C two checkout -q HEAD~1";
    let full = |wish| Wish { mode: WorkspaceMode::FullCopy, ..wish };
    // The commit of a submodule is in no file; that it moved is in the patch.
    let world = same(
        setup,
        "echo w >>a; git -C sub checkout -q HEAD~1; git add sub; git commit -qm s",
        full,
        "-x f",
    );
    let patch = String::from_utf8(world.export()).unwrap();
    assert!(patch.contains("+Subproject commit"), "{patch}");
    same(setup, "echo w >>a; git rm -qf two; echo n >n", full, "-x two");
}

/// What a sparse checkout leaves out does not lie there: what the guest makes of it is new, and what it deletes of it
/// is in a patch to the commit alone.
#[test]
fn on_sparse_checkouts() {
    let setup = "git init -q; mkdir in out far; for i in 1 2 3; do seq $i 20 >in/$i; seq $i 30 >out/$i; seq $i 40 >far/$i; done; \
                 git add -A; git commit -qm one; git sparse-checkout set in; echo mine >>in/1";
    plain(setup, "test ! -e out; echo w >>in/1; echo w >>in/2; echo n >in/n");
    plain(
        setup,
        "git sparse-checkout set in out; echo w >>in/1; git sparse-checkout set in; echo o >>in/3",
    );
    let made = plain(setup, "mkdir out; echo new >out/1; echo n >out/n; mv in/2 far");
    let patch = String::from_utf8(made.export()).unwrap();
    assert!(patch.contains("--- /dev/null\n+++ b/out/1"), "{patch}");
    let sum = String::from_utf8(made.export_of(Some("prepared"))).unwrap();
    assert!(sum.contains("--- a/out/1\n+++ b/out/1"), "{sum}");
    // A file in the place of a directory that is not there.
    plain(setup, "echo far >far");

    let world =
        same(setup, "git rm -q --sparse --cached out/1 far/2; echo w >>in/1", |wish| wish, "");
    counts(&world, "3 changed files (far/2, ...)");
    let export = Export::make(&world.vm(), &world.files(), &Want::default()).unwrap();
    assert!(
        export.notes.iter().any(|note| note.contains("the deletion of 2 files, as 'far/2'")),
        "{:?}",
        export.notes
    );
    drop(export);
    let sum = String::from_utf8(world.export_of(Some("prepared"))).unwrap();
    assert_eq!(sum.matches("deleted file mode").count(), 2, "{sum}");
    assert_eq!(world.unexported(), [""; 0]);
}

/// What is ignored in the guest and lay there before is not there for a patch.
#[test]
fn with_rules_that_the_guest_changes() {
    let setup =
        "git init -q; seq 9 >a; echo k >k.log; git add -A; git commit -qm one; echo mine >>k.log";
    plain(setup, "echo '*.log' >.gitignore; echo w >>k.log; echo w >>a");
    let world = same(
        setup,
        "echo '*.log' >.gitignore; git rm -q --cached k.log; git add -A; git commit -qm w",
        |wish| wish,
        "-x k.log",
    );
    world.shell(&world.host(), "test ! -e k.log");
}

/// Git that is asked for a commit named as the word that stands for the one that was prepared.
#[test]
fn a_branch_named_as_the_word_has_a_longer_name() {
    let world = World::new(
        "git init -q; seq 9 >a; git add -A; git commit -qm one; git branch prepared; echo 2 >>a; git commit -qam two; echo mine >>a",
    );
    world.prepare(&world.wish()).unwrap();
    let count = |base: &str| {
        let patch = String::from_utf8(world.export_of(Some(base))).unwrap();
        patch.lines().filter(|line| line.starts_with('+') && !line.starts_with("+++")).count()
    };
    assert_eq!((count("prepared"), count("refs/heads/prepared")), (1, 2));
    let want = Want { base_commit: Some("--output=x".into()), ..Want::default() };
    let refused = Export::make(&world.vm(), &world.files(), &want).unwrap_err();
    assert!(refused.hint_text().is_some(), "{}", refused.chain());
}
