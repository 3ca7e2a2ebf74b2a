//! Repositories go into a real guest and come back. The cases are those of `shared/workspace`, whose
//! own tests have a directory for a guest.

#[path = "../../shared/workspace/tests/cases/mod.rs"]
pub(crate) mod cases;
#[path = "../../shared/workspace/tests/random/mod.rs"]
mod random;

use crate::{fixture, guest::Guest};
use banger_tests::{Answer, Sandbox, have, program, run_bounded};
use cases::{CASES, Case};
use std::{
    cell::Cell,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

/// How `git status` is asked.
const STATUS: &str =
    "git --no-optional-locks status --porcelain=v2 -z --ignore-submodules=none | tr '\\0' '\\n'";

/// A watch of the VM `web`, which has `./linked`: an edit is seen by what runs in the guest, a commit follows, and other
/// commands work meanwhile.
fn what_is_saved_arrives(typed: &impl Fn(&str) -> Answer) {
    let watched = typed(
        "banger workspace watch web >watched 2>said & pid=$!; trap 'kill $pid' EXIT; \
         until_so() { for i in $(seq 300); do \"$@\" && return; sleep 0.1; done; echo \"never: $*\"; cat said watched; exit 1; }; \
         until_so grep -q Ctrl-C said; \
         banger vm exec web -- sh -c 'for i in $(seq 600); do grep -qx hot a && exec echo reloaded; sleep 0.1; done' >reloads & \
         echo hot >>linked/a; until_so grep -q reloaded reloads; \
         git -C linked commit -qam three; until_so grep -q '\"git\":true' watched; \
         banger workspace status web --check; banger vm exec web -- true; \
         banger vm exec web -- sh -c 'echo mine >>a'; echo yours >>linked/a; until_so grep -q '\"left\":\\[\"a\"\\]' watched; \
         kill $pid; trap - EXIT; wait $pid || echo ended $?; banger vm exec web -- cat a",
    );
    let said = watched.ok().text();
    assert_eq!(said, "ended 143\na\nhot\nmine\n", "{}", watched.all());
}

/// A guest with busybox and no git, and directories beside it.
pub(crate) struct World {
    pub(crate) guest: Guest,
}

impl World {
    pub(crate) fn boot() -> Self {
        let world = Self { guest: Guest::boot("busybox:1", &["sh", "-c"]) };
        fs::write(
            world.guest.sandbox.home().join(".gitconfig"),
            "[user]\n\tname = Ann\n\temail = ann@example.org\n[init]\n\tdefaultBranch = main\n\
             [commit]\n\tgpgsign = false\n[protocol \"file\"]\n\tallow = always\n",
        )
        .expect("a file");
        world
    }

    /// Returns a new directory, with the repository that `setup` makes in its `host`.
    pub(crate) fn repository(&self, name: &str, setup: &str) -> PathBuf {
        let top = self.guest.sandbox.dir().join(name);
        fs::create_dir_all(top.join("host")).expect("a directory");
        self.shell(&top, "host", setup);
        top
    }

    /// Runs a script on the host that has to succeed.
    pub(crate) fn shell(&self, top: &Path, dir: &str, script: &str) -> String {
        let mut command = self.guest.sandbox.command("/bin/bash");
        command
            .args(["-euo", "pipefail", "-c", script])
            .env("TOP", top)
            .env("GIT_TERMINAL_PROMPT", "0")
            .current_dir(top.join(dir));
        let ended = run_bounded(&mut command, None, Duration::from_mins(2));
        assert_eq!(ended.status, 0, "{script}\n{}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8_lossy(&ended.stdout).into_owned()
    }

    pub(crate) fn prepare(&self, top: &Path, more: &[&str]) -> Answer {
        let host = top.join("host");
        let words = [&["web", host.to_str().expect("text")], more].concat();
        self.guest.run("workspace-prepare", &words)
    }

    /// Brings the guest's tree out by the guest's own tar, into a new directory; also the stream.
    fn bring(&self, top: &Path, dir: &str, name: &str) -> Vec<u8> {
        let answer = self.anywhere(&format!("tar -C {dir} -cf - ."));
        let tar = answer.ok().stdout.clone();
        self.unpack(top, name, &tar);
        tar
    }

    pub(crate) fn unpack(&self, top: &Path, name: &str, tar: &[u8]) {
        let to = top.join(name);
        fs::create_dir(&to).expect("a directory");
        let words = ["--no-same-owner", "-C", to.to_str().expect("text"), "-xf", "-"];
        self.guest.sandbox.feed("/bin/tar", &words, tar).ok();
    }

    fn export(&self, top: &Path, more: &[&str]) -> Vec<u8> {
        let words = [&["--mark", "web"], more].concat();
        let answer = self.guest.sandbox.raw(program("banger-workspace-export"), &words);
        let patch = answer.ok().stdout.clone();
        fs::write(top.join("patch"), &patch).expect("a patch");
        patch
    }

    /// Runs a script in the guest, wherever the workspace is.
    pub(crate) fn anywhere(&self, script: &str) -> Answer {
        let words = ["--workdir=/", "web", "--", "sh", "-c", script];
        self.guest.sandbox.raw(program("banger-vm-exec"), &words)
    }

    /// Says whether deleting the VM would lose nothing.
    fn nothing_to_lose(&self) {
        self.guest.run("workspace-status", &["web", "--check"]).ok();
    }

    /// Gives the guest the host's git and bash, with what they need.
    pub(crate) fn bring_git(&self) {
        let script = "PATH=/usr/bin:/bin; core=/usr/lib/git-core; { echo /usr/bin/git; echo /bin/bash; \
             ldd /usr/bin/git /bin/bash | grep -o '/lib[^ ]*' | grep -v ':' | sort -u; \
             ls $core/git-submodule $core/git-sh-setup $core/git-sh-i18n $core/git-sh-i18n--envsubst; \
             } | tar -chf - --absolute-names --transform 's,^/,,' -T -";
        let tar = self.guest.sandbox.raw("/bin/bash", &["-euc", script]).ok().stdout.clone();
        let exec = program("banger-vm-exec");
        self.guest
            .sandbox
            .feed(&exec, &["-i", "web", "--", "tar", "-C", "/", "-xf", "-"], &tar)
            .ok();
        // Submodules call git by the way it has to itself.
        self.guest.says("ln -sf /usr/bin/git /bin/git; mkdir -p /usr/lib/git-core; ln -sf /usr/bin/git /usr/lib/git-core/git; git --version");
    }
}

/// Everything below a directory: names, types, modes, times, contents.
fn fingerprint(world: &World, top: &Path) -> String {
    let script = "find . -printf '%p %y %m %T@ %l\\n' | sort; find . -type f -print0 | sort -z | xargs -0r sha256sum";
    world.shell(top, "host", script)
}

fn round_trip(world: &World, number: usize, case: &Case) {
    let name = case.name;
    let top = world.repository(&format!("case-{number}"), case.setup);
    let mut expected = world.shell(&top, "host", STATUS);
    if !case.untracked {
        expected = expected
            .lines()
            .filter(|line| !line.starts_with("? "))
            .fold(String::new(), |all, line| all + line + "\n");
    }
    let before = fingerprint(world, &top);
    let place = format!("/root/{number}");
    let mut words = vec!["--force", "--guest-path", &place];
    words.extend(case.full.then_some("--mode=full_copy"));
    words.extend(case.untracked.then_some("--include-untracked"));
    let prepared = world.prepare(&top, &words);
    let base = prepared.ok().document()["base_commit"].as_str().unwrap_or_default().to_owned();
    assert_eq!(fingerprint(world, &top), before, "{name}: the host's repository is touched");

    world.bring(&top, &place, "got");
    assert_eq!(world.shell(&top, "got", STATUS), expected, "{name}: status");
    let list = if case.untracked { "-c -o --exclude-standard" } else { "-c" };
    let compare = format!(
        "git ls-files -z {list} | sort -zu | while IFS= read -rd '' f; do o=\"$TOP/host/$f\"; \
         if [ -L \"$f\" ]; then test \"$(readlink \"$f\")\" = \"$(readlink \"$o\")\"; \
         elif [ -f \"$f\" ]; then cmp \"$f\" \"$o\"; test $(stat -c %Y \"$f\") = $(stat -c %Y \"$o\"); \
         test -x \"$f\" -a -x \"$o\" -o ! -x \"$f\" -a ! -x \"$o\"; else test ! -f \"$o\"; fi; done; \
         git fsck --no-dangling"
    );
    world.shell(&top, "got", &compare);
    world.nothing_to_lose();

    // Where no directory is named, a command runs in the workspace.
    let script = format!("exec 3>&1 >&2\n{}\nexec >&3; tar -cf - .", case.work);
    let worked = world.guest.exec(&["bash", "-euo", "pipefail", "-c", &script]);
    let tar = worked.ok().stdout.clone();
    world.unpack(&top, "worked", &tar);
    world.export(&top, &[]);
    assert!(
        world.guest.exec(&["tar", "-cf", "-", "."]).ok().stdout == tar,
        "{name}: an export touches the guest"
    );
    world.nothing_to_lose();
    assert_eq!(fingerprint(world, &top), before, "{name}: the host's repository is touched");

    let others = if case.untracked { "" } else { "git clean -ffdqx;" };
    let lying = format!(
        "cp -a $TOP/host/. .; {others} git apply --allow-empty $TOP/patch; \
         list() {{ git -C $1 ls-files -z -c -o --exclude-standard; }}; \
         {{ list $TOP/worked; list .; }} | sort -zu | while IFS= read -rd '' f; do g=\"$TOP/worked/$f\"; \
         if [ -L \"$g\" ]; then test \"$(readlink \"$f\")\" = \"$(readlink \"$g\")\"; \
         elif [ -f \"$g\" ]; then cmp \"$f\" \"$g\"; else test -d \"$g\" -o ! -e \"$f\"; fi; done"
    );
    fs::create_dir(top.join("lies")).expect("a directory");
    world.shell(&top, "lies", &lying);

    let patch = world.export(&top, &["--base-commit", "prepared"]);
    world.nothing_to_lose();
    if matches!(name, "line ends" | "filters as of large files") {
        // What the guest has stands for itself there: no filter of the host's runs.
        assert!(!patch.is_empty() && !patch.windows(8).any(|w| w == b"b/x.big\n"), "{name}");
        return;
    }
    let tree =
        world.shell(&top, "worked", "cp -a . $TOP/all; cd $TOP/all; git add -A; git write-tree");
    let clean = format!(
        "cp -a $TOP/worked/.git .git; rm -f .git/index .git/MERGE_HEAD; \
         if [ -n '{base}' ]; then git read-tree --reset {base}; git checkout-index -qafu; fi; \
         if [ -s $TOP/patch ]; then git apply --index --binary $TOP/patch; fi; git write-tree"
    );
    fs::create_dir(top.join("clean")).expect("a directory");
    assert_eq!(world.shell(&top, "clean", &clean), tree, "{name}: the patch");
}

/// Removes a workspace in the guest, so that the next one is the only one.
fn leave(world: &World, place: &str) {
    world.anywhere(&format!("rm -rf {place}")).ok();
}

#[test]
fn every_sort_of_repository_goes_in_and_its_work_comes_out() {
    if !have("git") {
        return;
    }
    let world = World::boot();
    the_image_needs_no_git(&world);
    world.bring_git();
    leave(&world, "/root/repo");
    for (number, case) in CASES.iter().enumerate() {
        let begin = Instant::now();
        round_trip(&world, number, case);
        leave(&world, &format!("/root/{number}"));
        eprintln!("case '{}': {:.1} s", case.name, begin.elapsed().as_secs_f64());
    }
    random_work_is_all_on_the_host(&world);
    a_clock_that_is_behind_hides_no_edit(&world);
    leave(&world, "/root/clock");
    commits_come_out_as_mails(&world);
    leave(&world, "/root/mails");
    the_vm_is_a_remote(&world);
    leave(&world, "/root/remote");
    two_repositories_lie_side_by_side(&world);
    what_was_not_exported_stays(&world);
}

/// Random work by the guest's own git; shared/workspace tries many more with a directory for a guest.
fn random_work_is_all_on_the_host(world: &World) {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let count = number("BANGER_CASES").unwrap_or(if crate::survive::soak() { 100 } else { 3 });
    let first = number("BANGER_SEED").unwrap_or(1);
    for seed in first..first + count {
        let begin = Instant::now();
        let case = random::Case::new(seed);
        let top = world.repository(&format!("random-{seed}"), "");
        let far = Far { world, top, is_new: Cell::new(true) };
        if let Err(wrong) = case.run(&far) {
            panic!("{wrong}\n{}", case.script());
        }
        leave(world, &far.place());
        crate::survive::say(&format!("random case {seed}: {:.1} s", begin.elapsed().as_secs_f64()));
    }
}

/// A real guest, with a workspace that lies where what is brought of it lies on this machine.
struct Far<'a> {
    world: &'a World,
    top: PathBuf,
    is_new: Cell<bool>,
}

impl Far<'_> {
    fn place(&self) -> String {
        self.top.join("guest/root/repo").to_str().expect("text").to_owned()
    }

    fn stream(&self) -> Vec<u8> {
        let script = format!("tar -C {} -cf - guest", self.top.display());
        self.world.anywhere(&script).ok().stdout.clone()
    }
}

impl random::Bed for Far<'_> {
    fn top(&self) -> &Path {
        &self.top
    }

    fn on_host(&self, script: &str) {
        self.world.shell(&self.top, "host", &format!("set +eu\n{script}"));
    }

    fn in_guest(&self, script: &str) {
        let place = format!("--workdir={}", self.place());
        let words = [&place, "web", "--", "bash", "-c", script];
        self.world.guest.sandbox.raw(program("banger-vm-exec"), &words).ok();
    }

    fn bring(&self) {
        let _ = fs::remove_dir_all(self.top.join("guest"));
        let to = self.top.to_str().expect("text");
        let words = ["--no-same-owner", "-C", to, "-xf", "-"];
        self.world.guest.sandbox.feed("/bin/tar", &words, &self.stream()).ok();
    }

    fn fingerprint(&self) -> String {
        let mut sum = DefaultHasher::new();
        self.stream().hash(&mut sum);
        sum.finish().to_string()
    }

    fn prepare(&self, how: random::How) -> Result<Option<String>, String> {
        let place = self.place();
        let mut words = vec!["--guest-path", &place];
        words.extend(how.full.then_some("--mode=full_copy"));
        words.extend(how.untracked.then_some("--include-untracked"));
        words.extend(how.branch.then_some("--branch=task"));
        // What another case left is another workspace.
        words.extend(self.is_new.replace(false).then_some("--force"));
        let answer = self.world.prepare(&self.top, &words);
        if answer.status != 0 {
            return Err(answer.all());
        }
        Ok(answer.document()["base_commit"].as_str().map(ToOwned::to_owned))
    }

    fn unexported(&self) -> Result<Vec<String>, String> {
        let answer = self.world.guest.run("workspace-status", &["web"]);
        if answer.status != 0 {
            return Err(answer.all());
        }
        let found = answer.document()["unexported"].as_array().expect("a list");
        Ok(found.iter().map(|work| work["words"].as_str().expect("words").to_owned()).collect())
    }

    fn export(&self, of_commit: bool) -> Result<Vec<u8>, String> {
        let base = if of_commit { &["--base-commit", "prepared"][..] } else { &[] };
        let words = [&["--mark", "web"], base].concat();
        let answer = self.world.guest.sandbox.raw(program("banger-workspace-export"), &words);
        if answer.status == 0 { Ok(answer.stdout.clone()) } else { Err(answer.all()) }
    }

    fn mails(&self) -> Result<Vec<u8>, String> {
        let words = ["--mark", "--commits", "--base-commit", "prepared", "web"];
        let answer = self.world.guest.sandbox.raw(program("banger-workspace-export"), &words);
        if answer.status == 0 { Ok(answer.stdout.clone()) } else { Err(answer.all()) }
    }

    fn keeps(&self, unexported: &[String]) {
        if unexported.is_empty() {
            self.world.nothing_to_lose();
        } else {
            let words = ["--force", "web"];
            self.world.guest.run("vm-delete", &words).fails(4, "holds work that was not exported");
        }
    }
}

fn the_image_needs_no_git(world: &World) {
    world.guest.says("! command -v git");
    let top = world
        .repository("no-git", "git init -q; echo a >a; git add a; git commit -qm one; echo b >>a");
    world.prepare(&top, &[]).ok();
    world.bring(&top, "/root/repo", "got");
    assert_eq!(world.shell(&top, "got", "git status --porcelain; cat a"), " M a\na\nb\n");
    world.guest.says("echo c >>a; echo n >n");
    world.export(&top, &[]);
    let applied = "git apply $TOP/patch; cat a n";
    assert_eq!(world.shell(&top, "host", applied), "a\nb\nc\nn\n");
}

/// Git in the guest takes files for unchanged by times of the guest's.
fn a_clock_that_is_behind_hides_no_edit(world: &World) {
    let _alone = crate::clock::alone();
    let now = || -> i64 { world.anywhere("date +%s").ok().text().trim().parse().expect("a time") };
    let behind = now() - 1000;
    world.anywhere(&format!("date -s @{behind} >/dev/null")).ok();
    let young = behind + 500;
    let top = world.repository(
        "clock",
        &format!("git init -q; echo aaa >a; touch -d @{young} a; git add a; git commit -qm one"),
    );
    world.prepare(&top, &["--force", "--guest-path", "/root/clock"]).ok();
    assert!(now() < young, "the prepare took too long for this test");
    // An edit of the same size, in the second that the file has for its time.
    let edit =
        format!("date -s @{young} >/dev/null; echo bbb >a; stat -c %Y a; git status --porcelain");
    assert_eq!(world.guest.exec(&["bash", "-c", &edit]).ok().text(), format!("{young}\n M a\n"));
    world.guest.says(&format!("date -s @{} >/dev/null", behind + 1000));
}

/// A second repository goes beside the first; each has its own work, news and patch.
fn two_repositories_lie_side_by_side(world: &World) {
    let setup = "for name in api web; do git init -q ../$name; echo $name >../$name/a; \
                 git -C ../$name add a; git -C ../$name commit -qm one; done";
    let top = world.repository("two", setup);
    let prepare = |name: &str, more: &[&str]| {
        let host = top.join(name);
        let words = [&["web", host.to_str().expect("text")], more].concat();
        world.guest.run("workspace-prepare", &words)
    };
    let export = |words: &[&str]| {
        let words = [&["web"], words].concat();
        world.guest.sandbox.raw(program("banger-workspace-export"), &words)
    };
    let first = prepare("api", &["--guest-path", "/root/repo"]);
    assert_eq!(first.ok().document()["guest_path"], "/root/repo");
    assert_eq!(prepare("web", &[]).ok().document()["guest_path"], "/root/web");
    prepare("web", &["--guest-path", "/root/repo/inner"]).fails(4, "would lie one in the other");
    prepare("web", &["--guest-path", "/root", "--force"]).fails(4, "would lie one in the other");
    assert_eq!(world.guest.says("pwd; cat a ../web/a"), "/root/repo\napi\nweb\n");

    world.guest.says(
        "echo work >>a; git -C /root/web commit -q --allow-empty -m x; echo more >/root/web/new",
    );
    let both = "in '/root/repo' 1 changed file (a); in '/root/web' 1 changed file (new)";
    world
        .guest
        .run("vm-delete", &["--force", "web"])
        .fails(4, both)
        .fails(4, "1 commit on branch 'main'");
    // News of one go in beside the work of both.
    world.shell(&top, "web", "git commit -q --allow-empty -m two");
    let said = world.guest.exec(&["true"]);
    assert!(said.ok().stderr.contains("/two/web' has moved on since"), "{}", said.all());
    prepare("web", &[]).fails(4, "'/root/web' in the guest has work of its own");
    let all = world.guest.run("workspace-status", &["web"]);
    let places: Vec<&str> =
        all.ok().documents.iter().map(|one| one["guest_path"].as_str().expect("text")).collect();
    assert_eq!(places, ["/root/repo", "/root/web"]);

    export(&["--mark"]).fails(2, "VM 'web' has 2 workspaces: '/root/repo', '/root/web'");
    for (name, place, file, line) in
        [("api", "/root/repo", "a", "work"), ("web", "/root/web", "new", "more")]
    {
        let patch = export(&["--mark", "--guest-path", place]);
        fs::write(top.join("patch"), &patch.ok().stdout).expect("a patch");
        let check = format!(
            "git apply ../patch; grep -qx {line} {file}; git checkout -q .; git clean -qfd"
        );
        world.shell(&top, name, &check);
    }
    world.nothing_to_lose();
    // Exported, it may be overwritten by who says so.
    prepare("web", &["--force"]).ok();
    prepare("api", &["--force"]).ok();
}

/// The guest's git and the host's meet: fetch, pull and push.
fn the_vm_is_a_remote(world: &World) {
    let setup = "git init -q; seq 50 >a; git add a; git commit -qm one";
    let top = world.repository("remote", setup);
    world.prepare(&top, &["--force", "--guest-path", "/root/remote"]).ok();
    let work = "git switch -qc lines; echo l >>a; git commit -qam lines; git switch -q main; echo m >m; git add m; \
                git commit -qm m; git merge -q --no-edit lines; echo s >s; git add s; echo open >>a; echo new >new";
    world.guest.exec(&["bash", "-euo", "pipefail", "-c", work]).ok();
    let programs = program("git-remote-banger").parent().expect("a folder").to_owned();
    let git = |script: &str| {
        world.shell(&top, "host", &format!("export PATH={}:$PATH; {script}", programs.display()))
    };
    git("git remote add web banger::web; git fetch -q web; git fsck --strict");
    assert_eq!(git("git log --format=%s main..web/lines"), "lines\n");
    world.guest.run("workspace-status", &["web", "--check"]).fails(4, "");
    let pulled = world.guest.run("workspace-pull", &["web"]);
    assert_eq!(pulled.ok().document()["wip"], "web/wip");
    world.nothing_to_lose();
    git("git merge -q --ff-only web/main; git stash apply -q --index web/wip; git fsck --strict");
    let status = |dir: &str| world.shell(&top, dir, STATUS);
    world.bring(&top, "/root/remote", "pulled");
    assert_eq!(status("host"), status("pulled"));

    git("git stash -q -u; echo h >h; git add h; git commit -qm host; git push -q web HEAD:topic");
    world.nothing_to_lose();
    let merged = "git fsck --strict --no-dangling; git stash -q -u; git merge -q --ff-only topic; cat h; \
                  test \"$(stat -c %U .git/refs/heads/topic .git/objects/pack/*.pack | sort -u)\" = root";
    assert_eq!(world.guest.exec(&["bash", "-euo", "pipefail", "-c", merged]).ok().text(), "h\n");
    // The stash of a moment ago is work, and comes too.
    world.guest.run("workspace-status", &["web", "--check"]).fails(4, "");
    world.guest.run("workspace-pull", &["web"]).ok();
    world.nothing_to_lose();
    git("git stash apply -q web/stash/0; test -e new; git fsck --strict");
}

/// Deleting, pruning and `run --rm` keep a VM with work that nobody exported, in whichever workspace, however it
/// ended.
fn what_was_not_exported_stays(world: &World) {
    let export = |place: &str| {
        let words = ["--mark", "--guest-path", place, "web"];
        world.guest.sandbox.raw(program("banger-workspace-export"), &words).ok();
    };
    world.guest.says("echo w >>a; git commit -qam 'work that matters'; echo other >>../web/a");
    world.guest.run("vm-delete", &["--force", "web"]).fails(4, "1 commit on branch 'main'");
    world.guest.run("vm-stop", &["web"]).ok();
    for words in
        [&["vm-delete", "web"][..], &["vm-delete", "--force", "web"], &["vm-prune", "--force"]]
    {
        let refused = world.guest.run(words[0], &words[1..]);
        refused.fails(4, "holds work that was not exported: in '/root/repo' ");
        refused.fails(4, "; in '/root/web' 2 changed files (a, new)");
    }
    let kept = world.guest.run("workspace-status", &["web"]);
    assert_eq!(kept.ok().documents.len(), 2, "{}", kept.all());
    let kept = kept.documents[0]["unexported"].clone();
    let found = kept.as_array().and_then(|all| all.iter().find(|work| work["kind"] == "commits"));
    assert_eq!(found.expect("commits")["reference"], "refs/heads/main", "{kept}");

    world.guest.run("vm-start", &["web"]).ok();
    // Looking at the patch does not bring it out.
    let look = ["--guest-path", "/root/repo", "web"];
    world.guest.sandbox.raw(program("banger-workspace-export"), &look).ok();
    world.guest.run("workspace-status", &["web", "--check"]).fails(4, "1 commit on branch 'main'");
    export("/root/repo");
    let left = world.guest.run("workspace-status", &["web", "--check"]);
    left.fails(4, "in '/root/web' 2 changed files (a, new)");
    assert!(!left.all().contains("/root/repo"), "{}", left.all());
    export("/root/web");
    world.guest.run("vm-stop", &["web"]).ok();
    world.nothing_to_lose();
    world.guest.run("vm-start", &["web"]).ok();
    world.guest.says("echo more >>/root/repo/a; sync");
    world.guest.run("vm-kill", &["web"]).ok();
    world
        .guest
        .run("vm-delete", &["web"])
        .fails(4, "holds work that was not exported: in '/root/repo' 1 changed file (a)");
    export("/root/repo");
    world.guest.run("vm-delete", &["web"]).ok();
}

/// Commits come out as mails, and the work of a VM that is gone is there still.
fn commits_come_out_as_mails(world: &World) {
    let setup = "git init -q; seq 9 >a; seq 9 >b; git add -A; git commit -qm one; echo mine >>b";
    let top = world.repository("mails", setup);
    world.prepare(&top, &["--guest-path", "/root/mails"]).ok();
    world.guest.says(
        "git config user.name Grace; git config user.email grace@example.org; sed -i s/5/five/ a; \
         git commit -qm 'Say five' -m 'And why.' a; git checkout -qb lines; echo n >n; git add n; \
         git commit -qm 'Add n'; git gc -q; echo more >>n",
    );
    let export = program("banger-workspace-export");
    let printed = world.guest.sandbox.raw(&export, &["web", "--commits"]);
    let last = printed.ok().stderr.lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("printing does not count"), "{last}");
    let print = last.split('\'').find(|part| part.contains("exports --print"));
    let copy =
        print.and_then(|line| line.rsplit(' ').next()).expect("where its copy is").to_owned();
    let status = || world.guest.run("workspace-status", &["web", "--check"]);
    status().fails(4, "'lines'");
    fs::write(top.join("mbox"), &printed.stdout).expect("mails");
    let log = world.shell(
        &top,
        "host",
        "git am -q ../mbox; git status --short; git log --format='%an: %s' -n 3; cat n",
    );
    assert_eq!(log, " M b\nbanger: uncommitted work\nGrace: Add n\nGrace: Say five\nn\nmore\n");
    let marked = world.guest.sandbox.raw(&export, &["web", "--commits", "--mark"]);
    assert_eq!(marked.ok().stdout, printed.stdout);
    world.nothing_to_lose();
    let exports = program("banger-workspace-exports");
    let again = world.guest.sandbox.raw(exports, &["--print", &copy]);
    assert_eq!(again.ok().stdout, printed.stdout);
}

/// Either side is killed at moments spread over a prepare and an export. `BANGER_MOMENTS` says how
/// often: an agent that dies again and again is started again after longer and longer pauses.
#[test]
fn either_side_can_be_killed_at_any_moment() {
    if !have("git") {
        return;
    }
    let moments = |usual: u32| {
        let asked = std::env::var("BANGER_MOMENTS").ok();
        asked.and_then(|count| count.parse().ok()).unwrap_or(usual)
    };
    let world = World::boot();
    let setup = "git init -q; for i in $(seq 60); do mkdir -p d$((i % 7)); seq $i $((i * 40)) >d$((i % 7))/f$i; done; \
                 git add -A; git commit -qm one";
    let top = world.repository("killed", setup);
    let host = top.join("host").to_str().expect("text").to_owned();
    let prepare = ["web", &host, "--force"];
    let begin = Instant::now();
    world.guest.run("workspace-prepare", &prepare).ok();
    let first = begin.elapsed();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut within = |length: Duration| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        length.mul_f64((random >> 40) as f64 / f64::from(1 << 24))
    };

    for (side, count) in [("host", moments(10)), ("agent", moments(3))] {
        for round in 0..count {
            // Every other time the workspace is there already, and the host has news.
            if round % 2 == 0 {
                world.anywhere("rm -rf /root/repo").ok();
            } else {
                let news = format!(
                    "for i in $(seq 20); do echo {round} >>d$((i % 7))/f$i; done; git commit -qam {side}-{round}; echo edit >>d1/f1"
                );
                world.shell(&top, "host", &news);
            }
            let moment = within(first);
            kill_within(&world, "workspace-prepare", &prepare, side, moment);
            let what = format!("{side} killed after {moment:?} of a prepare");
            if world.anywhere("test -e /root/repo").status == 0 {
                world.bring(&top, "/root/repo", &format!("half-{side}-{round}"));
                world.shell(
                    &top,
                    &format!("half-{side}-{round}"),
                    "git fsck --no-dangling && git status",
                );
            }
            let again = world.guest.run("workspace-prepare", &["web", &host]);
            assert_eq!(again.status, 0, "{what}: {}", again.all());
            let name = format!("whole-{side}-{round}");
            world.bring(&top, "/root/repo", &name);
            let agree = format!(
                "cd $TOP; diff -r -x .git host {name}; cd {name}; git status --porcelain; git rev-parse HEAD; git fsck --no-dangling"
            );
            let expected = world.shell(
                &top,
                "host",
                "git status --porcelain; git rev-parse HEAD; git fsck --no-dangling",
            );
            assert_eq!(world.shell(&top, "host", &agree), expected, "{what}");
            assert_eq!(world.anywhere("ls -A /root | grep banger-put").text(), "", "{what}");
        }
    }

    world.guest.says("for i in $(seq 30); do echo more >>d$((i % 7))/f$i; done; seq 9000 >new");
    let begin = Instant::now();
    let expected = world.export(&top, &[]);
    let length = begin.elapsed();
    let tree = world.guest.exec(&["tar", "-cf", "-", "."]).ok().stdout.clone();
    for (side, count) in [("host", moments(10)), ("agent", moments(3))] {
        for _ in 0..count {
            let moment = within(length);
            kill_within(
                &world,
                "workspace-export",
                &["web", "--output", "half.patch"],
                side,
                moment,
            );
            let half = fs::read(world.guest.sandbox.dir().join("half.patch"));
            assert!(
                half.as_ref().map_or(true, |half| *half == expected),
                "a patch is whole or not there"
            );
            assert!(
                world.export(&top, &[]) == expected,
                "{side} killed after {moment:?} of an export"
            );
            assert!(
                world.guest.exec(&["tar", "-cf", "-", "."]).ok().stdout == tree,
                "the guest's tree"
            );
        }
    }
    world.guest.run("vm-delete", &["--force", "--lose-work", "web"]).ok();
}

/// Starts a program and kills it, or the guest's agent, after a time.
fn kill_within(world: &World, name: &str, words: &[&str], side: &str, moment: Duration) {
    let mut command = world.guest.sandbox.command(program(&format!("banger-{name}")));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let agent = || {
        let find = "ps -o pid,args | awk '/@banger-guest-agent/ && !/awk/ {print $1}'";
        world.anywhere(find).text().trim().to_owned()
    };
    let mut killed = String::new();
    if side == "agent" {
        killed = agent();
        assert!(killed.parse::<u32>().is_ok(), "one agent: {killed:?}");
        // Started before, since the agent starts it.
        let seconds = moment.as_secs_f64();
        world
            .anywhere(&format!(
                "(sleep {seconds:.3}; kill -9 {killed}) >/dev/null 2>&1 </dev/null &"
            ))
            .ok();
    }
    let mut child = command.spawn().expect("a program");
    if side == "host" {
        thread::sleep(moment);
        child.kill().expect("kill");
    }
    let end = Instant::now() + Duration::from_mins(2);
    while child.try_wait().expect("its end").is_none() {
        if Instant::now() > end {
            let _ = child.kill();
            panic!("{name} hangs with the {side} killed after {moment:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    if side == "agent" {
        // What was to be killed is, and the next one answers.
        let end = Instant::now() + Duration::from_mins(1);
        loop {
            let now = agent();
            if !now.is_empty() && now != killed {
                break;
            }
            assert!(Instant::now() < end, "no other agent comes");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// `vm run` with a repository: its tools, files of the host, the command's place, and what `--rm` keeps.
#[test]
fn a_vm_runs_with_a_repository() {
    if !have("git") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.set_limit(Duration::from_mins(5));
    fixture::kernel(&sandbox);
    let typed = |line: &str| {
        let beside = program("banger");
        let beside = beside.parent().expect("a folder").display().to_string();
        sandbox.raw_with("/bin/bash", &["-euo", "pipefail", "-c", line], |command| {
            command.env("PATH", format!("{beside}:{}", banger_tests::SYSTEM_PATH));
        })
    };
    // An image with a `mise` that says what it was asked.
    typed(
        "mkdir -p root/bin root/sbin root/root root/etc root/tmp; cp /bin/busybox root/bin; \
         for name in $(busybox --list | grep -vx busybox); do ln -sf busybox root/bin/$name; done; \
         ln -s ../bin/busybox root/sbin/init; echo ::sysinit:/bin/true >root/etc/inittab; \
         printf '#!/bin/sh\\n[ $1 = install ] && sleep 1\\necho mise $* in $PWD\\n' >root/bin/mise; chmod +x root/bin/mise; \
         tar -C root --owner=0 --group=0 -cf image.tar . && banger image import image.tar --name tools --kernel-ref generic-6.12",
    )
    .ok();
    typed(
        "git config --global user.name A; git config --global user.email a@b; \
         git init -q -b main repo; cd repo; echo a >a; echo 'node 22' >.tool-versions; git add .; git commit -qm one; \
         git worktree add -q -b side ../linked",
    )
    .ok();
    sandbox.config(
        "[[file_sync]]\nhost = '~/rc'\nguest = '~/.rc'\nmode = '0644'\n[[file_sync]]\nhost = '~/missing'\nguest = '~/missing'\n",
    );
    fs::write(sandbox.home().join("rc"), "from the host\n").expect("a file");

    typed(
        "banger allow ./linked && banger vm run -d --name web --image tools --memory 256M ./linked",
    )
    .ok();
    // Detached, the tools were waited for.
    let log = typed("banger vm exec web -- cat /root/.cache/banger/mise.log").ok().text();
    assert_eq!(log, "mise install in /root/repo\n");
    assert_eq!(
        typed("banger vm exec web -- stat -c '%a %u:%g' /root/.rc").ok().text(),
        "644 0:0\n"
    );
    let notes = typed("banger vm show web | jq -r '.running.notes[]'").ok().text();
    assert!(notes.contains("missing', skipped"), "{notes}");
    // Commands start in the workspace; a HEAD that moves on is said, from a linked work tree too.
    let quiet = typed("banger vm exec web -- sh -c 'pwd; cat a'");
    assert_eq!((quiet.ok().text(), quiet.stderr.as_str()), ("/root/repo\na\n".into(), ""));
    typed("cd linked; git commit -q --allow-empty -m two").ok();
    let warned = typed("banger vm exec web -- true");
    assert!(warned.ok().stderr.contains("has moved on since"), "{}", warned.all());
    typed("banger workspace prepare web ./linked").ok();
    assert_eq!(typed("banger vm exec web -- true").ok().stderr, "");
    what_is_saved_arrives(&typed);
    typed("git -C linked checkout -q a; banger vm exec web -- sed -i /mine/d a; banger workspace prepare web ./linked").ok();
    // What both sides do comes together on the host, or nothing changes there.
    typed("banger vm exec web -- sh -c 'echo guest >>a; echo n >n; mkdir d; echo e >d/e; chmod +x d/e'").ok();
    typed("sed -i 1s/^/top\\\\n/ linked/a; echo other >linked/n").ok();
    let refused = typed("banger workspace apply web");
    assert_eq!(refused.status, 4, "{}", refused.all());
    assert!(refused.stderr.contains("1 path is in conflict"), "{}", refused.all());
    assert_eq!(typed("git -C linked status -s").ok().text(), " M a\n?? n\n");
    typed("rm linked/n; banger workspace apply web --check").ok();
    let done =
        typed("banger workspace apply web | jq -c '[.changes[].path], .merged, .is_exported'");
    assert_eq!(done.ok().text(), "[\"a\",\"d/e\",\"n\"]\n[\"a\"]\ntrue\n", "{}", done.all());
    assert_eq!(typed("cat linked/a; test -x linked/d/e").ok().text(), "top\na\nhot\nguest\n");
    typed("banger workspace status web --check").ok();
    typed("banger vm exec web -- rm -r /root/repo").ok();
    let gone = typed("banger vm exec web -- true");
    assert!(gone.stderr.contains("--workdir"), "{}", gone.all());
    typed("banger vm exec --workdir / web -- true && banger vm delete --force --lose-work web")
        .ok();

    // The command's status is returned, and its work kept.
    let ran = typed(
        "banger vm run --rm --name kept --image tools --memory 256M ./repo -- sh -c 'echo w >>a; exit 7'",
    );
    assert_eq!(ran.status, 7, "{}", ran.all());
    assert!(ran.stderr.contains("VM 'kept' is kept"), "{}", ran.all());
    typed("banger workspace export --mark kept | git -C repo apply --index; grep -qx w repo/a")
        .ok();
    typed("banger vm exec --workdir / kept -- test ! -e /root/.cache/banger/mise.log").ok();
    typed("banger vm delete --force kept && test -z \"$(banger vm list)\"").ok();
    // And a VM without work goes.
    let ran = typed("banger vm run --rm --name gone --image tools --memory 256M ./repo -- cat a");
    assert_eq!(
        (ran.ok().text(), typed("banger vm list").ok().text()),
        ("a\nw\n".into(), String::new())
    );
    typed("banger vm run --dry-run ./repo | jq -r '.files[]' | grep -qx .tool-versions").ok();
}
