//! A guest's commits come out as mails, and plain `git am` makes them anew: messages, authors, dates, files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod world;

use banger_doc::{Kind, WorkspaceMode};
use banger_workspace::{Export, Want, Wish};
use std::{fs, io::Read};
use world::World;

/// Exports mails and returns them with what is to be known of them; afterwards they count as exported.
fn mails(world: &World, all: bool) -> (String, Vec<String>) {
    let base_commit = all.then(|| "prepared".to_owned());
    let want = Want { commits: true, base_commit, ..Want::default() };
    let mut export = Export::make(&world.vm(), &world.files(), &want)
        .unwrap_or_else(|error| panic!("{}", error.chain()));
    let mut mbox = Vec::new();
    export.patch.read_to_end(&mut mbox).unwrap();
    let notes = export.notes.clone();
    export.done().unwrap();
    fs::write(world.path().join("mbox"), &mbox).unwrap();
    (String::from_utf8_lossy(&mbox).into_owned(), notes)
}

fn refused(world: &World) -> banger_doc::Error {
    let want = Want { commits: true, ..Want::default() };
    Export::make(&world.vm(), &world.files(), &want).unwrap_err()
}

const DATES: &str = "export GIT_AUTHOR_NAME='Grace Höpper' GIT_AUTHOR_EMAIL=grace@example.org GIT_AUTHOR_DATE='1700000001 +0530';";

/// Every commit but the merges since `base`, as people see it.
fn log(world: &World, dir: &str, base: &str) -> String {
    let range = if base.is_empty() { "HEAD".to_owned() } else { format!("{base}..HEAD") };
    let script = format!(
        "cd {dir}; git log --reverse --topo-order --no-merges --format='%an|%ae|%ad|%B' {range}"
    );
    world.shell(world.path(), &script)
}

fn prepared(setup: &str, work: &str) -> World {
    let world = World::new(setup);
    world.prepare(&world.wish()).unwrap();
    world.shell(&world.guest(), &format!("sleep 0.02; {DATES} {work}"));
    world
}

/// Mails of what is done in the guest, taken by a clean clone of the host's: it has the guest's files and commits, and
/// the rest as one more.
fn taken(setup: &str, work: &str) -> (World, String, Vec<String>) {
    let world = prepared(setup, work);
    let (mbox, notes) = mails(&world, true);
    assert_eq!(world.unexported(), [""; 0], "{work}");
    let base = world.shell(&world.host(), "git rev-parse -q --verify HEAD || :").trim().to_owned();
    let start = if base.is_empty() { "git init -q clean" } else { "git clone -q host clean" };
    let script = format!(
        "rm -rf clean; {start}; cp host/.git/info/attributes clean/.git/info 2>/dev/null || :; cd clean; test ! -s ../mbox || git am -q ../mbox; \
         cd ..; diff -r --no-dereference -x .git clean guest/root/repo >&2; \
         diff <(git -C clean ls-files -s) <(cd guest/root/repo; git add -A; git ls-files -s) >&2"
    );
    let was = log(&world, "guest/root/repo", &base);
    world.shell(world.path(), &script);
    let has = log(&world, "clean", &base);
    let has = has.split("banger|banger@localhost|").next().unwrap();
    // One that changes nothing has no mail.
    let was: String =
        was.split_inclusive('\n').filter(|line| !line.ends_with("|Nothing\n")).collect();
    let words =
        |log: &str| log.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
    assert_eq!(words(has), words(&was), "{work}");
    (world, mbox, notes)
}

const ONE: &str = "git init -q; seq 50 >a; seq 50 >b; printf 'x\\0y' >bin; mkdir d; seq 9 >d/f; git add -A; git commit -qm one";

#[test]
fn commits_keep_messages_authors_and_dates() {
    let (_, mbox, notes) = taken(
        ONE,
        "echo 1 >>a; git commit -qam 'Add a line' -m 'It was missing.' -m 'Twice.'; \
         echo 2 >>b; GIT_AUTHOR_NAME='O. \"Q\" <x>' GIT_AUTHOR_EMAIL=o@x GIT_AUTHOR_DATE='1600000000 -0800' git commit -q --allow-empty-message -m 'Ümläut: 日本語 in a subject that is long enough to be broken over several lines of a head' b; git commit -q --allow-empty -m 'Nothing'; \
         git mv d/f d/g; chmod +x a; printf 'q\\0' >>bin; ln -s a l; git add -A; git commit -qm 'Move, mode, binary, link'; git rm -q b; git commit -qm 'Delete'; \
         echo uncommitted >>a; echo new >new",
    );
    assert_eq!(mbox.matches("\nSubject: ").count(), 5, "{mbox}");
    assert!(mbox.contains("Subject: [PATCH] uncommitted work\n"), "{mbox}");
    assert!(notes.iter().any(|note| note.contains("a commit that changes nothing")), "{notes:?}");
}

#[test]
fn there_may_be_commits_alone_or_the_rest_alone_or_nothing() {
    let (_, mbox, _) = taken(ONE, "echo 1 >>a; git commit -qam 'Commit alone'");
    assert_eq!(mbox.matches("\nSubject: ").count(), 1);
    let (_, mbox, _) = taken(ONE, "echo 1 >>a; echo n >n; git add n");
    assert_eq!(mbox.matches("\nSubject: [PATCH] uncommitted work").count(), 1);
    let (_, mbox, _) = taken(ONE, "");
    assert!(mbox.is_empty());
    // There is no commit on the host.
    taken(
        "git init -q",
        "echo a >a; git add -A; git commit -qm first; echo b >b; git add -A; git commit -qm second; echo c >c",
    );
    // Another branch than the host's, and none.
    taken(
        ONE,
        "git checkout -qb lines; echo 1 >>a; git commit -qam lines; echo 2 >>a; git commit -qam more",
    );
    taken(ONE, "git checkout -q --detach; echo 1 >>a; git commit -qam detached; echo u >u");
}

/// What is not staged stays where it is.
#[test]
fn mails_apply_beside_local_edits_that_went_in() {
    let setup = &format!("{ONE}; echo mine >>b; echo staged >s; git add s; echo untracked >u");
    let world = prepared(
        setup,
        "sed -i 's/^7$/seven/' a; git commit -qm 'Say seven' a; echo n >n; git add n; git commit -qm 'Add n' n; echo more >>n",
    );
    let (mbox, notes) = mails(&world, false);
    assert!(!mbox.contains("mine") && !mbox.contains("b/s\n"), "{mbox}");
    assert!(notes.iter().all(|note| !note.contains("local edit")), "{notes:?}");
    assert_eq!(world.unexported(), [""; 0]);
    // Nothing may be staged; what is not lies there all the same.
    world.shell(&world.host(), "git reset -q; git am -q ../mbox; rm s u; git stash list | wc -l | grep -qx 0; git log --format=%s | head -n 4 | tr '\\n' ' ' | grep 'uncommitted work Add n Say seven one'");
    world.shell(world.path(), "rm guest/root/repo/s; diff -r -x .git host guest/root/repo");

    // Where the guest committed the edit too, or went on with it, it is in the mails.
    let world = prepared(
        &format!("{ONE}; echo mine >>b; echo other >>a"),
        "echo 1 >>d/f; git commit -qam 'Commit all'; echo 2 >>b",
    );
    let (mbox, notes) = mails(&world, false);
    assert!(mbox.contains("\n+mine\n") && mbox.contains("\n+other\n"), "{mbox}");
    assert!(
        notes.iter().any(|note| note.contains("2 files, as 'a', went in with local edits")),
        "{notes:?}"
    );
    world.shell(&world.host(), "git stash -q; git am -q ../mbox");
    world.shell(world.path(), "diff -r -x .git host guest/root/repo");
    // Edits of every sort at which the guest did nothing stay out.
    let edits = "git mv d/f moved; rm a; chmod +x b; rm bin; mkdir bin; echo i >bin/i; git add -A";
    let world = prepared(
        &format!("{ONE}; {edits}"),
        "echo n >n; git add n; git commit -qm n n; echo 2 >>n",
    );
    let (mbox, _) = mails(&world, false);
    let files: Vec<&str> = mbox.lines().filter(|line| line.starts_with("diff --git")).collect();
    assert_eq!(files, ["diff --git a/n b/n"; 2], "{mbox}");
    let (mbox, _) = mails(&world, true);
    assert!(mbox.contains("b/bin/i") && mbox.contains("b/moved"), "{mbox}");
}

#[test]
fn lines_end_as_they_did() {
    let setup = "git init -q; printf 'a\\r\\nb\\r\\n' >crlf; printf 'a\\nb\\n' >lf; printf 'a\\r\\nb\\n' >mixed; git add -A; git commit -qm one";
    let (_, mbox, _) = taken(
        setup,
        "printf 'c\\r\\n' >>crlf; printf 'c = \\303\\244\\n' >>lf; git commit -qam 'Grüße' -m 'A body'; printf 'n\\r\\n' >new; printf 'c\\r\\n' >>mixed; \
         { printf 'long '; head -c 3000 /dev/zero | tr '\\0' '='; printf ' \\t\\r\\n'; } >long; printf 'no end\\r' >cr; git add -A; git commit -qm two; echo plain >plain",
    );
    assert_eq!(mbox.matches("quoted-printable").count(), 2, "{mbox}");
    assert!(!mbox.contains("\r\n"));
}

/// Messages that readers of mails take for something else.
#[test]
fn hostile_messages_stay_messages() {
    let message = |body: &str| {
        format!(
            "printf '%b' '{body}' >../m; echo x >>a; git commit -q --cleanup=verbatim -a -F ../m;"
        )
    };
    let bodies = [
        "Subject\\n\\n---\\ndiff --git a/evil b/evil\\nnew file mode 100644\\n--- /dev/null\\n+++ b/evil\\n@@ -0,0 +1 @@\\n+evil\\n",
        "Subject\\n\\nFrom 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\\nFrom: Evil <e@e>\\nSubject: evil\\n\\n---\\n",
        "Subject\\n\\nFrom: Evil <evil@example.org>\\nDate: Thu, 1 Jan 1970 00:00:00 +0000\\nSubject: evil\\n\\nbody\\n",
        "Subject\\n\\n[PATCH] evil\\n\\nbody\\n",
        "Subject\\n\\n>From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\\n\\nIndex: evil\\n--- evil\\n",
        "\\n\\nSubject after blanks\\n\\n-- \\nsigned\\n",
        "Sub\\033[31mject\\007\\n\\nbody \\033]0;title\\007 \\342\\200\\256\\n",
        "two\\nlines\\nof subject\\n\\n    indented\\n\\n\\n\\nfar\\n",
    ];
    let work: String = bodies.iter().map(|body| message(body)).collect();
    let world = prepared(ONE, &format!("{work} rm -f ../m"));
    let (mbox, _) = mails(&world, true);
    world.shell(world.path(), "git clone -q host clean; cd clean; git am -q ../mbox; test ! -e evil; test $(git rev-list --count HEAD) = 9; diff a ../guest/root/repo/a");
    let authors = world.shell(
        world.path(),
        "cd clean; git log --format='%an %ad' HEAD~8..HEAD | sort -u | wc -l; git log --format=%B",
    );
    assert!(authors.starts_with("1\n"), "{authors}");
    for kept in [
        " ---\n diff --git a/evil b/evil",
        " From 0123",
        " From: Evil",
        " [PATCH] evil",
        " Index: evil",
        "\u{1b}[31m",
        "far",
    ] {
        assert!(authors.contains(kept), "{kept}: {authors}");
    }
    // What would act on a terminal is in the mails as it is.
    assert!(mbox.contains("\u{1b}]0;title"));
    // Names of nobody, which git does not take.
    let world = prepared(
        ONE,
        "echo x >>a; t=$(git add a; git write-tree); c=$(printf 'tree %s\\nparent %s\\nauthor  <> 1700000001 +0000\\ncommitter . <> 1700000001 +0000\\n\\nnobody\\n' $t $(git rev-parse HEAD) | git hash-object -t commit -w --stdin --literally); git reset -q --soft $c",
    );
    mails(&world, true);
    world.shell(world.path(), "git clone -q host clean; cd clean; git am -q ../mbox; git log -1 --format=%s:%an | grep -qx nobody:nobody");
}

#[test]
fn merges_come_one_commit_after_the_other_where_that_is_the_same() {
    let merged = "git checkout -qb side; echo s >s; git add s; git commit -qm side1; sed -i 's/^5$/five/' a; git commit -qam side2; \
                  git checkout -q main; sed -i 's/^45$/main/' a; git commit -qam main1; git merge -q --no-edit side; echo after >>b; git commit -qam after; echo u >u";
    let (_, mbox, notes) = taken(ONE, merged);
    assert_eq!(mbox.matches("\nSubject: ").count(), 5, "{mbox}");
    assert!(notes.iter().all(|note| !note.contains("merges")), "{notes:?}");
    // One that was resolved, and one that brings what is in neither.
    for resolve in [
        "git merge side >/dev/null || { echo resolved >a; git commit -qam 'Merge side, resolved'; }",
        "git merge -q --no-commit -s ours side; echo evil >evil; git add evil; git commit -qm 'Merge side, resolved'",
    ] {
        let world = prepared(
            ONE,
            &format!(
                "git checkout -qb side; sed -i 's/^5$/side/' a; git commit -qam side1; echo 2 >>b; git commit -qam side2; git checkout -q main; sed -i 's/^5$/main/' a; git commit -qam main1; {resolve}; echo after >>d/f; git commit -qam after; echo u >u"
            ),
        );
        let (mbox, notes) = mails(&world, true);
        assert!(
            notes.iter().any(|note| note.contains("2 commits that came in by them have none")),
            "{notes:?}"
        );
        assert_eq!(mbox.matches("\nSubject: ").count(), 4, "{mbox}");
        world.shell(world.path(), "rm -rf clean; git clone -q host clean; cd clean; git am -q ../mbox; cd ..; diff -r -x .git clean guest/root/repo; git -C clean log --format=%s | grep 'Merge side, resolved'");
    }
    // The branch began before the commit that was prepared.
    taken(
        &format!("{ONE}; echo 2 >>d/f; git commit -qam two"),
        "git checkout -qb side HEAD~1; echo s >s; git add s; git commit -qm side; git checkout -q main; git merge -q --no-edit side; echo 3 >>d/f; git commit -qam three",
    );
}

#[test]
fn what_does_not_follow_what_was_prepared_is_refused() {
    let two = &format!("{ONE}; echo 2 >>a; git commit -qam two");
    for work in [
        "git commit -q --amend -m amended",
        "git reset -q --hard HEAD~1; echo 3 >>b; git commit -qam three",
        "git checkout -q --orphan other; git commit -qm root",
        // Only a second parent leads there.
        "git checkout -qb side HEAD~1; sed -i 's/^1$/x/' b; git commit -qam side; git merge -q -s ours --no-edit main",
    ] {
        let world = prepared(two, work);
        let error = refused(&world);
        assert_eq!(error.kind(), Kind::Conflict, "{work}: {}", error.chain());
        assert!(error.hint_text().unwrap().contains("'banger workspace pull'"), "{work}");
    }
    let world = prepared(ONE, "git checkout -q --orphan none; echo w >>a");
    let (mbox, _) = mails(&world, true);
    assert_eq!(mbox.matches("\nSubject: ").count(), 1, "no commit, and the rest");
    let world = World::new("echo a >a");
    world.prepare(&world.wish()).unwrap();
    let error = refused(&world);
    assert_eq!(error.kind(), Kind::Usage, "{}", error.chain());
    let world = prepared(ONE, "echo 1 >>a; git commit -qam w");
    let want = Want { commits: true, base_commit: Some("HEAD".into()), ..Want::default() };
    assert_eq!(Export::make(&world.vm(), &world.files(), &want).unwrap_err().kind(), Kind::Usage);
    // Objects that are not there.
    let world = prepared(
        ONE,
        "echo 1 >>a; git commit -qam w; rm -f .git/objects/$(git rev-parse HEAD: | sed 's,^..,&/,')",
    );
    let error = refused(&world);
    assert!(error.to_string().contains("cannot read the guest's commits"), "{}", error.chain());
    assert!(!world.export().is_empty());
}

#[test]
fn either_format_and_all_of_the_history() {
    let world = World::new(
        "git init -q --object-format=sha256; for i in $(seq 15); do echo $i >f; git add f; git commit -qm $i; done",
    );
    world.prepare(&Wish { mode: WorkspaceMode::FullCopy, ..world.wish() }).unwrap();
    world.shell(
        &world.guest(),
        "for i in $(seq 16 30); do echo $i >f; git commit -qam $i; done; git gc -q --prune=now",
    );
    let (mbox, _) = mails(&world, false);
    assert_eq!(mbox.matches("\nSubject: ").count(), 15);
    world.shell(&world.host(), "git am -q ../mbox; diff f $TOP/guest/root/repo/f");
}

/// What a rule of the host's ignores went in by name; mails to a commit would give away all of it.
#[test]
fn ignored_files_that_went_in_are_in_no_mail() {
    let setup = "git init -q; seq 9 >a; echo .env >.gitignore; git add -A; git commit -qm one; echo SECRET=1 >.env";
    for (work, is_work) in [("echo w >>a", false), ("echo w >>a; echo MORE=2 >>.env", true)] {
        let world = World::new(setup);
        world.prepare(&Wish { include: vec![".env".into()], ..world.wish() }).unwrap();
        world.shell(&world.guest(), work);
        for all in [false, true] {
            let (mbox, notes) = mails(&world, all);
            assert!(
                mbox.contains("+w") && !mbox.contains("SECRET") && !mbox.contains("MORE"),
                "{mbox}"
            );
            assert_eq!(notes.iter().any(|note| note.contains("'.env'")), is_work, "{notes:?}");
            assert_eq!(!world.unexported().is_empty(), is_work);
        }
        world.shell(&world.host(), "git am -q ../mbox; grep -qx w a; grep -qx SECRET=1 .env");
    }
}
