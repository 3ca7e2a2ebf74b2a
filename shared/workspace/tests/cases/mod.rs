//! Repositories of every sort, for whoever has a guest to put them into.

#![allow(unreachable_pub, missing_docs, reason = "several test programs have this as a module")]

/// A repository, what the guest does with it, and how it goes in.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    /// Makes the repository; `$TOP` is a directory for more.
    pub setup: &'static str,
    /// What is done in the guest.
    pub work: &'static str,
    /// Whether all of its history and submodules go.
    pub full: bool,
    /// Whether untracked files go.
    pub untracked: bool,
}

const fn case(name: &'static str, setup: &'static str, work: &'static str) -> Case {
    Case { name, setup, work, full: false, untracked: false }
}

const fn with_untracked(case: Case) -> Case {
    Case { untracked: true, ..case }
}

const fn full(case: Case) -> Case {
    Case { full: true, ..case }
}

const BASIC: &str = "git init -q; mkdir d; echo a >a; echo b >d/b; printf 'x\\0y' >bin; \
                     echo run >run; chmod +x run; ln -s d/b link; git add -A; git commit -qm one";

pub const CASES: &[Case] = &[
    case("untouched", BASIC, ""),
    case("edit", BASIC, "echo more >>a; printf 'q\\0' >>bin"),
    case(
        "new, deleted, renamed",
        BASIC,
        "echo n >new; rm a; mv d/b d/c; mkdir -p x/y; echo z >x/y/z",
    ),
    case(
        "modes and links",
        BASIC,
        "chmod +x a; chmod -x run; ln -sf a link; ln -s nowhere dangling",
    ),
    case(
        "a file becomes a directory and the other way round",
        BASIC,
        "rm a; mkdir a; echo q >a/q; rm -r d; echo d >d; rm link; mkdir link; echo l >link/l",
    ),
    case(
        "commits in the guest",
        BASIC,
        "echo 1 >>a; git commit -qam two; echo 2 >>a; git add a; echo 3 >>a; echo n >n; git add n",
    ),
    case(
        "local edits on the host",
        "git init -q; for f in a b c d e; do echo $f >$f; done; git add -A; git commit -qm one; \
          echo edit >>a; git add a; echo more >>a; rm b; git rm -q c; git mv d dd; chmod +x e; echo u >untracked",
        "echo guest >>a",
    ),
    with_untracked(case(
        "untracked files",
        "git init -q; echo a >a; echo '*.o' >.gitignore; git add -A; git commit -qm one; \
          mkdir u; echo u >u/v; echo o >x.o; ln -s a l; echo i >u/i.o",
        "echo 1 >>u/v; echo p >p.o; echo q >q",
    )),
    case(
        "odd names",
        "git init -q; echo 1 >$'a\\nb'; echo 2 >$'\\xff\\xfe'; echo 3 >' lead'; echo 4 >'q\"uo\\te'; \
          mkdir 'dir with space'; echo 5 >'dir with space/-dash'; echo 6 >ünïcode; echo 7 >'*'; git add -A; git commit -qm one",
        "echo x >>$'a\\nb'; rm ' lead'; echo new >$'n\\tew'; echo y >>$'\\xff\\xfe'",
    ),
    case("empty repository", "git init -q", "echo a >a; git add a; git commit -qm first"),
    case(
        "unborn branch with an index",
        "git init -q; echo a >a; git add a; echo b >>a",
        "echo c >c",
    ),
    case(
        "detached",
        "git init -q; for i in 1 2 3; do echo $i >a; git add a; git commit -qm $i; done; git checkout -q HEAD~1",
        "echo x >>a",
    ),
    case(
        "in the middle of a merge",
        "git init -q; echo a >a; git add a; git commit -qm one; git checkout -qb other; echo o >a; \
          git commit -qam o; git checkout -q main; echo m >a; git commit -qam m; git merge other || true",
        "echo resolved >a",
    ),
    case(
        "deep history",
        "git init -q; for i in $(seq 25); do echo $i >f; echo $i >g$i; git add -A; git commit -qm $i; done; git tag v1; git tag -am annotated v2",
        "git log --oneline | wc -l >n; git describe --tags >v",
    ),
    full(case(
        "all of the history",
        "git init -q; for i in $(seq 15); do echo $i >f; git add f; git commit -qm $i; done; git branch old HEAD~12; git tag -am t t HEAD~13",
        "test $(git log --oneline | wc -l) = 15; git log -1 old t >n",
    )),
    case(
        "merges in the history",
        "git init -q; echo 0 >a; git add a; git commit -qm 0; for i in 1 2 3 4 5 6; do git checkout -qb b$i; echo $i >f$i; \
          git add -A; git commit -qm f$i; git checkout -q main; echo $i >>a; git commit -qam m$i; git merge -q -m merge b$i; done",
        "git log --oneline >/dev/null; git fsck >/dev/null; echo x >>a",
    ),
    case(
        "shallow clone",
        "mkdir $TOP/o; (cd $TOP/o; git init -q; for i in $(seq 8); do echo $i >f; git add f; git commit -qm $i; done); \
          git clone -q --depth 3 file://$TOP/o .",
        "test $(git log --oneline | wc -l) = 3; echo x >>f",
    ),
    case(
        "linked worktree",
        "git init -q $TOP/main; cd $TOP/main; echo a >a; git add a; git commit -qm one; git worktree add -q -b side $TOP/host; \
          cd $TOP/host; echo s >s; git add s; git commit -qm s; echo edit >>a",
        "test $(git rev-parse --abbrev-ref HEAD) = side; echo x >>s",
    ),
    case(
        "sparse checkout",
        "git init -q; mkdir in out; echo i >in/i; echo o >out/o; echo r >r; git add -A; git commit -qm one; \
          git sparse-checkout set in",
        "test ! -e out; echo x >>in/i",
    ),
    case(
        "sparse index",
        "git init -q; mkdir in out; echo i >in/i; echo o >out/o; echo r >r; git add -A; git commit -qm one; \
          git sparse-checkout set --sparse-index in",
        "test ! -e out; echo x >>in/i",
    ),
    case(
        "split index",
        "git init -q; for i in $(seq 50); do echo $i >f$i; done; git add -A; git commit -qm one; git update-index --split-index; \
          echo x >f1; git add f1",
        "echo x >>f2",
    ),
    case(
        "index version 4",
        "git init -q; mkdir -p a/b; for i in $(seq 9); do echo $i >a/b/f$i; done; git add -A; git commit -qm one; \
          git update-index --index-version 4",
        "echo x >>a/b/f2",
    ),
    case(
        "intent to add",
        "git init -q; echo a >a; git add a; git commit -qm one; echo n >n; git add -N n",
        "echo x >>n",
    ),
    case(
        "line ends",
        "git init -q; git config core.autocrlf true; printf 'a\\r\\nb\\r\\n' >a; printf 'u\\n' >u; printf 'x\\r\\n\\0' >b; \
          printf '*.sh eol=lf\\n' >.gitattributes; printf 's\\n' >s.sh; git add -A; git commit -qm one",
        "printf 'c\\r\\n' >>a; printf 'new\\r\\n' >n",
    ),
    case(
        "filters as of large files",
        "git init -q; echo '*.big filter=lfs' >.gitattributes; git config filter.lfs.clean 'sha256sum | cut -c1-64'; \
          git config filter.lfs.smudge 'echo SMUDGED'; git config filter.lfs.required true; seq 999 >x.big; echo a >a; \
          sleep 0.02; git add -A; git commit -qm one; sleep 0.02; git status >/dev/null",
        "echo x >>a",
    ),
    case(
        "sha-256",
        "git init -q --object-format=sha256; echo a >a; git add a; git commit -qm one; echo e >>a; echo n >n; git add n",
        "echo x >>a; git commit -qam two; echo y >y",
    ),
    case(
        "forced past the rules",
        "git init -q; echo '*.o' >.gitignore; echo k >kept.o; git add -f kept.o .gitignore; git commit -qm one",
        "echo x >>kept.o; echo f >forced.o; git add -f forced.o; echo i >ignored.o",
    ),
    case(
        "rules that change in the guest",
        "git init -q; echo '*.o' >.gitignore; echo a >a; git add -A; git commit -qm one",
        "echo '*.p' >.gitignore; echo o >now.o; echo p >now.p; mkdir s; echo '!*.p' >s/.gitignore; echo p >s/t.p; mkdir -p t/u; \
          echo u/ >t/.gitignore; echo v >t/u/v",
    ),
    case(
        "packed references and tags",
        "git init -q; echo a >a; git add a; git commit -qm one; git tag -am t v1; git branch b; git pack-refs --all; git gc -q",
        "git rev-parse v1 b >/dev/null; echo x >>a",
    ),
    case(
        "stash and assume-unchanged",
        "git init -q; echo a >a; echo b >b; git add -A; git commit -qm one; git update-index --assume-unchanged b; echo s >>a; git stash -q",
        "echo x >>a",
    ),
    case(
        "binary and large",
        "git init -q; head -c 3000000 /dev/urandom >r; seq 200000 >s; git add -A; git commit -qm one",
        "head -c 1000 /dev/urandom >>r; echo end >>s",
    ),
    full(case(
        "submodules",
        "for m in m n; do git init -q $TOP/$m; (cd $TOP/$m; echo $m >f; git add f; git commit -qm $m); done; \
          (cd $TOP/m; git submodule --quiet add $TOP/n deep/n; git commit -qm n); git init -q; echo a >a; git add a; git commit -qm one; \
          git submodule --quiet add $TOP/m sub; git submodule --quiet update --init --recursive; git commit -qm sub; echo e >>a",
        "git submodule status --recursive >/dev/null; git -C sub/deep/n log >/dev/null; echo x >>a",
    )),
];
