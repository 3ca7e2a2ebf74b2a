//! What happens in a case, by its number.

use super::{Case, How, Random, Step};

/// Paths as a shell has them: plain, below others, odd, ignored in some cases.
const FILES: &[&str] = &[
    "./a",
    "./b",
    "./app/p",
    "./app/src/i",
    "./app/src/j",
    "./d/e/f",
    "./web/index",
    "./run.sh",
    "./x.o",
    "./.env",
    "./odd' 'name",
    "./-dash",
    "./ü",
    "./:x",
    "./*",
    "$'./n\\nl'",
    "./back\\\\slash",
    "./'q\"'",
];
/// Directories, of which files are tracked in some.
const DIRS: &[&str] = &["app", "app/src", "d", "d/e", "web", "new", "dep", "deep/er"];
const BRANCHES: &[&str] = &["b1", "b2", "main", "topic/x"];
/// Texts of links, also such as a tidy path would not have.
const LINKS: &[&str] = &[
    "a",
    "app//p",
    "./app/./src",
    "/usr//bin/",
    "../x/../y/",
    "nowhere",
    "app/",
    "/",
    ".",
    "a/b/../../a",
    "//x",
];
const RULES: &[&str] =
    &["*.o", ".env", "dep/", "web/", "/b", "app/src/", "!x.o", "*.tmp", ".claude/"];
const TREES: &[&str] = &["w1", ".claude/w2", "../w3", "dep/w4", "app/w5"];

/// A random walk that writes shell.
struct Writer {
    random: Random,
    /// Makes each content another one.
    count: usize,
    has_module: bool,
}

pub(super) fn case(seed: u64) -> Case {
    let mut writer = Writer { random: Random::new(seed), count: 0, has_module: false };
    writer.has_module = writer.random.one_in(3);
    let untracked = writer.random.one_in(4);
    let how = How {
        full: writer.has_module || writer.random.one_in(4),
        untracked,
        branch: writer.random.one_in(10),
    };
    let mut steps: Vec<Step> = writer.setup().into_iter().map(Step::Setup).collect();
    let is_plain = writer.random.one_in(6);
    for _ in 0..=writer.random.below(2) {
        for _ in 0..writer.random.below(9) + 2 {
            let (script, plain) = if is_plain || writer.random.one_in(4) {
                (writer.plain(), true)
            } else {
                (writer.any(), false)
            };
            steps.push(Step::Work(script, plain));
        }
        if writer.random.one_in(3) {
            let script = writer.hosts();
            steps.push(Step::Host(script));
        }
        // What it ends with is an export anyway.
        match writer.random.below(4) {
            0 => steps.push(Step::Again),
            1 => steps.extend([Step::Export, Step::Again]),
            2 => steps.push(Step::Export),
            _ => {}
        }
    }
    Case { seed, how, steps }
}

impl Writer {
    fn n(&mut self) -> usize {
        self.count += 1;
        self.count
    }

    fn file(&mut self) -> &'static str {
        // The first are tracked in most cases.
        if self.random.one_in(2) { self.random.of(&FILES[..6]) } else { self.random.of(FILES) }
    }

    fn put(&mut self) -> String {
        let (verb, file, n) = (self.random.of(&["put", "add"]), self.file(), self.n());
        format!("{verb} {file} {n}")
    }

    fn setup(&mut self) -> Vec<String> {
        let mut steps = vec![
            "git init -q; put ./a 1; put ./app/p 2; put ./app/src/i 3; put ./d/e/f 4; git add -A; git commit -qm one".into(),
        ];
        for _ in 0..self.random.below(9) {
            let (file, link, rule, n) =
                (self.file(), self.random.of(LINKS), self.random.of(RULES), self.n());
            let put = self.put();
            steps.push(match self.random.below(11) {
                0 | 1 => put,
                2 | 3 => format!("ln -sfn {link} l{n}"),
                4 => format!("chmod +x {file}"),
                5 => format!("echo '{rule}' >>.gitignore"),
                6 => "git branch b1; git tag v1".into(),
                7 => format!("git checkout -qb b1; {put}; git add -A; git commit -qm b1; git checkout -q main"),
                8 => format!("git add -A; git commit -qm {n}; {put}"),
                9 => format!("git rm -q {file}"),
                _ => format!("mkdir -p s{n}; echo {n} >s{n}/f"),
            });
        }
        if self.random.one_in(10) {
            steps.push("echo '*' >.git/info/exclude; git add -f .env x.o".into());
        } else {
            steps.push("git add -A".into());
        }
        steps.push("git commit -qm two".into());
        if self.has_module {
            steps.push(
                "git init -q ../s; cd ../s; for i in 1 2 3; do echo $i >l; git add l; git commit -qm $i; done".into(),
            );
            steps.push("git submodule -q add \"$PWD/../s\" lib; git commit -qm lib".into());
        }
        if self.random.one_in(3) {
            let put = self.put();
            steps.push(format!(
                "{put}; {}",
                self.random.of(&["git add -A", ":", "git rm -q a", "git mv a c"])
            ));
        }
        if self.random.one_in(12) {
            steps.push("git sparse-checkout set --no-cone /a /app".into());
        }
        steps
    }

    /// Something that a patch holds.
    fn plain(&mut self) -> String {
        // What is removed is not made again: that leaves the index of git.
        let (file, gone, n) =
            (self.random.of(&FILES[1..4]), self.random.of(&["./a", "./d/e/f"]), self.n());
        match self.random.below(9) {
            0 | 1 => format!("add {file} {n}"),
            2 => format!("put ./new/f{n} {n}"),
            3 => format!("rm -f {gone}"),
            4 => format!("git mv {gone} f{n}"),
            5 => format!("chmod +x {file}"),
            6 => format!("ln -s {} l{n}", self.random.of(LINKS)),
            7 => format!("add {file} {n}; git commit -qam {n}"),
            _ => format!("git add -A; git commit -qm {n}"),
        }
    }

    fn any(&mut self) -> String {
        if self.has_module && self.random.one_in(3) {
            return self.in_module();
        }
        match self.random.below(6) {
            0 => self.files(),
            1 | 5 => self.index(),
            2 => self.refs(),
            3 => self.nested(),
            _ => self.linked(),
        }
    }

    fn files(&mut self) -> String {
        let (file, other, dir, n) = (self.file(), self.file(), self.random.of(DIRS), self.n());
        let put = self.put();
        match self.random.below(18) {
            0 => put,
            1 => format!("rm -rf {dir}"),
            2 => format!("rm -rf {file}; mkdir -p {file}; echo {n} >{file}/f"),
            3 => format!("rm -rf {dir}; echo {n} >{dir}"),
            4 => format!("rm -rf {dir}; ln -s app {dir}"),
            5 => format!("mv {file} {other}"),
            6 => format!("mv {dir} moved{n}"),
            7 => format!("ln -sfn '{}' {file}", self.random.of(LINKS)),
            8 => format!("ln -f {file} hard{n}"),
            9 => format!("chmod {} {file}", self.random.of(&["+x", "-x", "600", "400"])),
            10 => format!(
                "touch -r {file} t{n}; tr 0-9 1-90 <{file} >u{n}; cat u{n} >{file}; touch -r t{n} {file}; rm t{n} u{n}"
            ),
            11 => format!("mkfifo pipe{n}; mkdir -p empty/{n}"),
            12 => format!("echo '{}' >>.gitignore; {put}", self.random.of(RULES)),
            13 => format!("echo '{}' >>.git/info/exclude; {put}", self.random.of(RULES)),
            14 => format!(
                "mkdir -p {dir}; echo '{}' >>{dir}/.gitignore",
                self.random.of(&["*", "*.o", "i", "!i", "/f"])
            ),
            15 => format!("git init -q --bare {dir}/bare.git"),
            16 => format!("mkdir .GIT; echo {n} >.GIT/x; {put}"),
            _ => format!("seq {n} 9999 >{file}"),
        }
    }

    fn index(&mut self) -> String {
        let (file, other, n) = (self.file(), self.file(), self.n());
        let put = self.put();
        let rule = self.random.of(&[".env", "*.o", "/app/", "/a", "d/"]);
        match self.random.below(24) {
            0 => format!("put {file} {n}; git add -f {file}; rm {file}"),
            1 => format!("put {file} {n}; git add -f {file}; put {file} 0"),
            2 => format!(
                "git update-index --add --cacheinfo 100644,$(echo {n} | git hash-object -w --stdin),only{n}"
            ),
            3 => format!("git rm -rq --cached {file}"),
            22 | 23 => format!(
                "git rm -rq --cached {file}; echo {rule} >>.gitignore; git add .gitignore; git commit -qm {n}"
            ),
            4 => format!("git rm -rq --cached {file}; git commit -qm {n}"),
            5 | 6 => format!(
                "echo '{rule}' >>.gitignore; git rm -rq --cached .; git add -A; git commit -qm {n}"
            ),
            7 => format!("put {file} {n}; git add -N {file}"),
            8 => format!("git add -f {file} {other}; git commit -qm {n}"),
            9 => format!("git update-index --assume-unchanged {file}; add {file} {n}"),
            10 => format!("git update-index --skip-worktree {file}; add {file} {n}"),
            11 => format!("git update-index --skip-worktree {file}; rm -f {file}"),
            12 => format!("git update-index --chmod=+x {file}"),
            13 => format!("{put}; git stash -q"),
            14 => format!("{put}; git stash -qu; {put}"),
            15 => format!("git stash {} -q", self.random.of(&["pop", "drop", "apply"])),
            16 => "git reset -q".into(),
            17 => "git sparse-checkout set --no-cone /app".into(),
            18 => format!(
                "git update-index {}",
                self.random.of(&["--split-index", "--index-version 4", "--force-write-index"])
            ),
            19 => format!("git mv {file} {other}; {put}"),
            20 => "git read-tree --empty".into(),
            _ => format!(
                "git checkout -q HEAD -- .; git clean -q{} .",
                self.random.of(&["f", "fd", "fdx"])
            ),
        }
    }

    fn refs(&mut self) -> String {
        let (branch, other, n) = (self.random.of(BRANCHES), self.random.of(BRANCHES), self.n());
        let put = self.put();
        match self.random.below(26) {
            0 | 1 => format!("{put}; git add -A; git commit -qm {n}"),
            2 => format!(
                "git checkout -qb {branch}; {put}; git add -A; git commit -qm {n}; git checkout -q {other}"
            ),
            3 => format!("git checkout -qf {branch}"),
            4 => format!("git branch {branch}"),
            5 => format!("git branch -M {branch}"),
            6 => format!("git branch -D {branch}"),
            7 => format!("git tag t{n}"),
            8 => format!("git tag -am {n} a{n}"),
            9 => {
                format!("git reset -q {} HEAD~1", self.random.of(&["--hard", "--soft", "--mixed"]))
            }
            10 => format!(
                "{put}; git commit -qam {n}; git branch kept{n}; git reset -q --hard HEAD~1"
            ),
            11 => format!("git merge -q {branch}"),
            12 => format!("git rebase -q {branch}"),
            13 => format!("git cherry-pick {branch}"),
            14 => "git revert --no-edit HEAD".into(),
            15 => "git merge --abort || git rebase --abort || git cherry-pick --abort".into(),
            16 => format!("git checkout -q --detach; {put}; git commit -qam {n}"),
            17 => format!("git checkout -q --orphan o{n}; {put}; git add -A; git commit -qm {n}"),
            18 => format!("{put}; git commit -qa --amend -m {n}"),
            19 => format!("git notes add -m {n}"),
            20 => format!("git update-ref refs/wip/{n} $(git commit-tree -m {n} HEAD^{{tree}})"),
            21 => self.random.of(&["git pack-refs --all", "git gc -q", "git repack -qad"]).into(),
            22 => "git refs migrate --ref-format=reftable".into(),
            23 => format!("git symbolic-ref refs/heads/alias{n} refs/heads/{branch}"),
            _ => self
                .random
                .of(&[
                    "rm -rf .git; git init -q; git add -A; git commit -qm anew",
                    "git commit -q --allow-empty -m empty",
                    "git init -q --separate-git-dir ../elsewhere",
                ])
                .into(),
        }
    }

    fn nested(&mut self) -> String {
        let (dir, n) = (self.random.of(DIRS), self.n());
        let commit = format!("echo {n} >n{n}; git add -A; git commit -qm {n}");
        let begun = format!("mkdir -p {dir}; cd {dir}; git init -q");
        match self.random.below(15) {
            0 | 1 => begun,
            2 => format!("{begun}; echo {n} >n{n}"),
            3..=5 => format!("{begun}; {commit}"),
            6 => format!("{begun}; echo {n} >n{n}; git add -A; rm n{n}"),
            7 => format!(
                "{begun}; {commit}; git checkout -qb x; {commit}{n}; rm n{n}; git checkout -q main"
            ),
            8 => format!("{begun}; {commit}; mkdir -p in/ner; cd in/ner; git init -q; {commit}"),
            9 => format!("git clone -q . {dir}/clone; cd {dir}/clone; {commit}"),
            10 => format!(
                "mkdir -p {dir}; git init -q --separate-git-dir ../sep{n} {dir}; cd {dir}; {commit}"
            ),
            11 => format!("({begun}; {commit}); git add -f {dir}; git commit -qm {n}"),
            12 => format!(
                "git init -q ../src{n}; (cd ../src{n}; {commit}); git submodule -q add \"$PWD/../src{n}\" {dir}/mod; git commit -qm {n}"
            ),
            13 => format!("rm -rf {dir}/.git"),
            _ => format!("cd {dir} && {commit}"),
        }
    }

    fn linked(&mut self) -> String {
        let (tree, branch, n) = (self.random.of(TREES), self.random.of(BRANCHES), self.n());
        let commit = format!("echo {n} >n{n}; git add -A; git commit -qm {n}");
        match self.random.below(12) {
            0 => format!("git worktree add -q --detach {tree}"),
            1 | 2 => format!("git worktree add -q --detach {tree}; echo {n} >{tree}/n{n}"),
            3 => format!("git worktree add -q -b x{n} {tree}; cd {tree}; {commit}"),
            4 => format!("git worktree add -q --detach {tree}; cd {tree}; {commit}"),
            5 => format!("git worktree add -q {tree} {branch}; cd {tree}; {commit}; echo {n} >>a"),
            6 => format!(
                "git worktree add -q --detach {tree}; cd {tree}; echo {n} >n; git add n; rm n"
            ),
            7 => format!("git worktree remove {} {tree}", self.random.of(&["", "--force"])),
            8 => format!("rm -rf {tree}"),
            9 => format!("git worktree move {tree} moved{n}"),
            10 => "git worktree prune".into(),
            _ => format!("cd {tree} && {commit}"),
        }
    }

    /// Work on the submodule `lib` that was given.
    fn in_module(&mut self) -> String {
        let n = self.n();
        let commit = format!("echo {n} >>l; git commit -qam {n}");
        match self.random.below(22) {
            0 => "git -C lib checkout -q HEAD~1; git add lib; git commit -qm back".into(),
            1 => "git -C lib checkout -q HEAD~1".into(),
            2 => "git update-index --cacheinfo 160000,$(git -C lib rev-parse HEAD~1),lib; git commit -qm back".into(),
            3 => "git update-index --cacheinfo 160000,$(git -C lib rev-parse HEAD~1),lib".into(),
            4 => format!("cd lib; {commit}"),
            5 => format!("(cd lib; {commit}); git add lib; git commit -qm {n}"),
            6 => format!("cd lib; git checkout -qb side; {commit}; git checkout -q main"),
            7 => format!("echo {n} >>lib/l"),
            8 => format!("echo {n} >lib/new"),
            9 => "rm lib/l".into(),
            10 => format!("cd lib; echo {n} >n; git add n; rm n"),
            11 => format!("cd lib; echo {n} >l; git add l; git show HEAD:l >l"),
            12 => format!("cd lib; echo {n} >>l; git stash -q"),
            13 => format!("cd lib; {commit}; git tag kept; git reset -q --hard HEAD~1"),
            14 => "git rm -qf lib; git commit -qm gone".into(),
            15 => "git submodule deinit -qf lib".into(),
            16 => "git mv lib lib2; git commit -qm moved".into(),
            17 => format!("cd lib; git worktree add -q --detach ../../w{n}; echo {n} >../../w{n}/n"),
            18 => format!("mkdir lib/in; cd lib/in; git init -q; {commit}; echo {n} >n; git add n; git commit -qm {n}"),
            19 => "rm -rf lib".into(),
            20 => "git rm -qf lib; mkdir lib; echo plain >lib/l; git add -A; git commit -qm plain".into(),
            _ => format!("cd lib; {commit}; git pack-refs --all; git checkout -q --detach HEAD~1"),
        }
    }

    /// News on the host.
    fn hosts(&mut self) -> String {
        let (put, n) = (self.put(), self.n());
        match self.random.below(6) {
            0 => put,
            1 | 2 => format!("{put}; git add -A; git commit -qm host{n}"),
            3 => format!("git checkout -qb host{n}; {put}; git add -A; git commit -qm host{n}"),
            4 => "git rm -q a; git commit -qm less".into(),
            _ => "git branch hosts; git tag -f hosts".into(),
        }
    }
}
