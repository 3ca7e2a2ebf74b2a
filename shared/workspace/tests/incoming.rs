//! Repositories that somebody hostile wrote: each is refused, or goes in without anything of the host's; no
//! file but the repository's and the user's own settings of git is opened on the way, and nothing waits.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod world;

use banger_doc::WorkspaceMode;
use banger_workspace::Wish;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};
use world::World;

/// What nobody may see.
const SECRET: &str = "SECRET-OF-THE-HOST";
/// A repository with two commits, and an edit.
const ONE: &str = "git init -q; mkdir d; echo a >a; echo f >d/f; git add -A; git commit -qm one; \
                   echo b >>a; git commit -qam two; echo edit >>a";

/// What becomes of a repository.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It is refused with these words.
    Refused(&'static str),
    /// It goes in.
    Goes,
}
use End::{Goes, Refused};

/// Makes a host with a secret file and a private repository beside the hostile one.
fn hostile(setup: &str) -> World {
    let private = "mkdir -p $TOP/secret/private; echo SECRET-OF-THE-HOST >$TOP/secret/id; mkdir $TOP/tmp; \
                   (cd $TOP/secret/private; git init -q; echo SECRET-OF-THE-HOST >s; git add s; \
                   git commit -qm SECRET-OF-THE-HOST; git branch topic)";
    World::new(&format!("{private}; {setup}"))
}

/// Plays the program that is watched: prepares what the environment says, and prints what went wrong.
#[test]
fn prepare_as_told() {
    let told = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let Some(top) = told("WATCHED_TOP") else { return };
    let guest = top.join("guest/root/repo");
    let is_full = told("WATCHED_FULL").is_some();
    let wish = Wish {
        is_named: true,
        mode: if is_full { WorkspaceMode::FullCopy } else { WorkspaceMode::Shallow },
        branch: told("WATCHED_FROM").map(|_| "made".into()),
        from: told("WATCHED_FROM").map(|from| from.to_str().unwrap().to_owned()),
        include_untracked: told("WATCHED_UNTRACKED").is_some(),
        ..Wish::of("web", &told("WATCHED_PATH").unwrap(), guest.to_str().unwrap())
    };
    match banger_workspace::prepare(&top.join("vm"), &world::files(), &wish) {
        Ok(_) => println!("\nWATCHED: it went in"),
        Err(error) => println!("\nWATCHED: {}", error.chain()),
    }
}

/// Prepares under strace, and returns the words of the refusal, if it is one. Nothing else is opened.
fn watched(world: &World, at: &str, how: &[(&str, &str)]) -> Option<String> {
    let top = world.path();
    let log = top.join("tmp/log");
    let output = Command::new("timeout")
        .args(["60", "strace", "-f", "-y", "--seccomp-bpf", "-s", "4096", "-o"])
        .arg(&log)
        .args(["-e", "trace=open,openat,openat2,creat,execve"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "prepare_as_told", "--nocapture", "--test-threads=1"])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", top.join("home"))
        .env("TMPDIR", top.join("tmp"))
        .env("WATCHED_TOP", top)
        .env("WATCHED_PATH", world.host().join(at))
        .envs(how.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = said.lines().find_map(|line| line.strip_prefix("WATCHED: "));
    let said = said.unwrap_or_else(|| panic!("it did not end: {output:?}")).to_owned();
    let text = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
    let may_open = |path: &str| {
        let path = Path::new(path);
        let own = ["host", "vm", "guest", "home", "tmp"];
        own.iter().any(|dir| path.starts_with(top.join(dir)))
            || ["/usr", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev/null", "/dev/urandom"]
                .iter()
                .any(|dir| path.starts_with(dir))
            || path == std::env::current_exe().unwrap()
            // Directories on the way, of which nothing is read.
            || top.ancestors().any(|dir| dir == path)
            // Whether a work tree is one of a repository, the latter says in these.
            || (path.ends_with("gitdir") || path.ends_with("commondir"))
                && path.ancestors().nth(2).is_some_and(|dir| dir.ends_with("worktrees"))
            || path.is_dir() && path.parent().is_some_and(|dir| dir.ends_with("worktrees"))
    };
    for line in text.lines() {
        assert!(!line.contains("execve(") || !line.contains("pwned"), "{line}");
        let opened = line.rsplit_once(" = ").and_then(|(_, fd)| fd.split_once('<'));
        if let Some((_, path)) = opened.filter(|_| line.contains("open")) {
            let path = path.trim_end_matches('>');
            assert!(may_open(path), "'{path}' was opened: {line}");
        }
    }
    assert!(text.contains("execve("), "the trace is of the right program");
    (said != "it went in").then_some(said)
}

fn holds_secret(dir: &Path) -> Option<PathBuf> {
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                waiting.push(path);
            } else if meta.is_file() {
                let bytes = fs::read(&path).unwrap();
                if bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()) {
                    return Some(path);
                }
            }
        }
    }
    None
}

/// Tries repositories: what makes them, what is named of them, what becomes of it.
fn all(cases: &[(&str, &str, End)], how: &[(&str, &str)]) {
    thread::scope(|scope| {
        for part in cases.chunks(cases.len().div_ceil(2)) {
            scope.spawn(move || {
                for (setup, at, end) in part {
                    one(setup, at, *end, how);
                }
            });
        }
    });
}

fn one(setup: &str, at: &str, end: End, how: &[(&str, &str)]) {
    let world = hostile(setup);
    let refused = watched(&world, at, how);
    match end {
        Refused(words) => {
            let said = refused.unwrap_or_else(|| panic!("it went in: {setup}"));
            assert!(said.contains(words), "{setup}: {said}");
            assert!(!world.guest().exists(), "{setup}");
        }
        Goes => {
            assert_eq!(refused, None, "{setup}");
            world.shell(&world.guest(), "git fsck --no-dangling; git status; git log -p --all");
            let log = world.shell(&world.guest(), "git log -p --all");
            assert!(!log.contains(SECRET), "{setup}");
        }
    }
    assert_eq!(holds_secret(&world.guest()), None, "{setup}");
    assert!(!world.path().join("pwned").exists(), "{setup}");
}

#[test]
fn links_of_a_git_directory_are_not_followed_out_of_it() {
    let id = |at: &str| {
        format!(
            "{ONE}; mkdir -p $(dirname .git/{at}); rm -rf .git/{at}; ln -s $TOP/secret/id .git/{at}"
        )
    };
    let private = |at: &str| {
        format!(
            "{ONE}; rm -rf .git/{at}; mkdir -p $(dirname .git/{at}); ln -s $TOP/secret/private/.git/{at} .git/{at}"
        )
    };
    let mut setups: Vec<String> = [
        "info/exclude",
        "info/attributes",
        "info/sparse-checkout",
        "MERGE_MSG",
        "MERGE_HEAD",
        "MERGE_MODE",
        "SQUASH_MSG",
        "CHERRY_PICK_HEAD",
        "REVERT_HEAD",
        "ORIG_HEAD",
        "HEAD",
        "config",
        "index",
        "shallow",
        "packed-refs",
        "commondir",
        "refs/heads/other",
        "refs/tags/t",
        "objects/ab/cdef",
        "objects/info/alternates",
        "objects/info/commit-graph",
        "objects/pack/pack-1.idx",
    ]
    .into_iter()
    .map(id)
    .collect();
    let of_private = [
        "refs",
        "refs/heads",
        "refs/heads/topic",
        "objects",
        "objects/pack",
        "objects/info",
        "info",
    ];
    setups.extend(of_private.into_iter().map(private));
    setups.push(format!("{ONE}; git config extensions.worktreeConfig true; ln -s $TOP/secret/id .git/config.worktree"));
    setups.push(format!("{ONE}; ln -s ../../../../../../secret/id .git/MERGE_MSG; ln -sf /proc/self/environ .git/SQUASH_MSG"));
    setups.push(format!(
        "{ONE}; git update-index --split-index; ln -sf $TOP/secret/id .git/sharedindex.*"
    ));
    setups.push(format!("{ONE}; for d in $TOP/secret/private/.git/objects/??; do ln -s $d .git/objects/ || true; done"));
    setups.push("rm -rf .git; ln -s $TOP/secret/private/.git .git; echo 'a*' >s".into());
    let cases: Vec<_> = setups
        .iter()
        .map(|setup| (setup.as_str(), "", Refused("leads out of the repository")))
        .collect();
    all(&cases, &[]);
}

#[test]
fn git_directories_elsewhere_are_not_used() {
    let leads_out = Refused("leads out of the repository");
    all(
        &[
            // The history of another repository.
            (&format!("{ONE}; echo $TOP/secret/private/.git >.git/commondir"), "", leads_out),
            (&format!("{ONE}; echo ../../secret/private/.git >.git/commondir"), "d", leads_out),
            ("echo gitdir: $TOP/secret/private/.git >.git; echo x >s", "", leads_out),
            ("echo gitdir: ../secret/private/.git >.git; echo x >s", "", leads_out),
            // A linked work tree that somebody else made up.
            (
                "mkdir -p w/worktrees/x; cd w/worktrees/x; echo ref: refs/heads/main >HEAD; \
                 echo $TOP/secret/private/.git >commondir; echo $TOP/host/.git >gitdir; cd ../../..; \
                 echo gitdir: w/worktrees/x >.git",
                "",
                leads_out,
            ),
            (
                "git -C $TOP/secret/private worktree add -q ../real; cp -r $TOP/secret/real/.git .git; echo x >s",
                "",
                leads_out,
            ),
            // A submodule of another repository.
            (
                "git init -q $TOP/secret/m; cd $TOP/secret/m; git commit -q --allow-empty -m1; cd ../private; \
                 git submodule --quiet add ../m m; cd $TOP/host; echo gitdir: $TOP/secret/private/.git/modules/m >.git",
                "",
                leads_out,
            ),
            // Objects of another repository.
            (
                &format!(
                    "{ONE}; echo $TOP/secret/private/.git/objects >.git/objects/info/alternates"
                ),
                "",
                leads_out,
            ),
            (
                &format!(
                    "{ONE}; echo ../../../secret/private/.git/objects >.git/objects/info/alternates"
                ),
                "",
                leads_out,
            ),
            (
                &format!(
                    "{ONE}; printf '\"%s\"\\n' $TOP/secret/private/.git/objects >.git/objects/info/alternates"
                ),
                "",
                Refused("not followed"),
            ),
            (
                &format!(
                    "{ONE}; mkdir -p .git/more/info; echo $TOP/secret/private/.git/objects >.git/more/info/alternates; \
                     echo ../more >.git/objects/info/alternates"
                ),
                "",
                leads_out,
            ),
            // Files that lie elsewhere.
            (&format!("{ONE}; git config core.worktree $TOP/secret"), "", Refused("core.worktree")),
            (
                &format!("{ONE}; git config core.worktree ../../secret"),
                "",
                Refused("core.worktree"),
            ),
            // The inside of a repository that looks like one, as a clone may bring it.
            (
                &format!(
                    "{ONE}; mkdir -p docs/refs docs/objects/info docs/info; cp .git/HEAD docs; \
                     printf '[core]\\n\\tbare = false\\n\\tworktree = ..\\n' >docs/config; \
                     echo ../../.git/objects >docs/objects/info/alternates; touch docs/refs/x; \
                     ln -s $TOP/secret/id docs/info/exclude; git add -A; git commit -qm docs"
                ),
                "docs",
                Refused("bare repository"),
            ),
            (
                &format!("{ONE}; mkdir -p docs/refs/deep docs/objects; cp .git/HEAD docs"),
                "docs/refs/deep",
                Refused("inside a bare repository"),
            ),
            (ONE, ".git/refs", Refused("not in a work tree")),
        ],
        &[],
    );
}

#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let pipe = |at: &str| format!("{ONE}; mkdir -p $(dirname {at}); rm -rf {at}; mkfifo {at}");
    let mut setups: Vec<(String, &str)> = [
        "MERGE_MSG",
        "shallow",
        "HEAD",
        "config",
        "index",
        "packed-refs",
        "refs/heads/x",
        "info/exclude",
        "info/attributes",
        "info/sparse-checkout",
        "commondir",
        "objects/info/alternates",
        "objects/pack/x.idx",
        "objects/12/3456",
        "ORIG_HEAD",
        "reftable/tables.list",
    ]
    .into_iter()
    .map(|at| (pipe(&format!(".git/{at}")), "."))
    .collect();
    setups.push((pipe(".gitignore"), "no file"));
    setups.push((pipe("d/.gitignore"), "no file"));
    // Git would take as much memory as it says to hold.
    setups.push((format!("{ONE}; truncate -s 9G .gitignore"), "is larger than"));
    setups.push((format!("{ONE}; truncate -s 9G d/.gitignore"), "is larger than"));
    setups.push((pipe(".gitattributes"), "no file"));
    setups.push((format!("{}; echo e >d/f", pipe("d/.gitattributes")), "no file"));
    setups.push(("mkfifo .git; echo x >x".into(), "no directory and no file"));
    setups.push((
        format!(
            "{ONE}; rm .git/HEAD; python3 -c 'import socket; socket.socket(1).bind(\".git/HEAD\")'"
        ),
        "no regular file",
    ));
    setups.push((
        format!("{ONE}; git config extensions.worktreeConfig true; mkfifo .git/config.worktree"),
        "no regular file",
    ));
    setups.push((
        format!(
            "{ONE}; git update-index --split-index; f=$(echo .git/sharedindex.*); rm $f; mkfifo $f"
        ),
        "no regular file",
    ));
    let cases: Vec<_> =
        setups.iter().map(|(setup, words)| (setup.as_str(), "", Refused(words))).collect();
    all(&cases, &[]);
}

#[test]
fn what_has_no_end_is_refused() {
    all(
        &[
            (&format!("{ONE}; truncate -s 3G .git/index"), "", Refused("larger than")),
            (&format!("{ONE}; truncate -s 3G .git/packed-refs"), "", Refused("larger than")),
            (&format!("{ONE}; truncate -s 3G .git/config"), "", Refused("larger than")),
            (&format!("{ONE}; truncate -s 3G .git/HEAD"), "", Refused("larger than")),
            (&format!("{ONE}; truncate -s 3G .git/info/exclude"), "", Refused("larger than")),
            (&format!("{ONE}; truncate -s 3G .git/MERGE_MSG"), "", Refused("larger than")),
            (&format!("{ONE}; truncate -s 3G .git/refs/heads/large"), "", Refused("larger than")),
            (
                &format!("{ONE}; truncate -s 3G .git/objects/info/alternates"),
                "",
                Refused("larger than"),
            ),
            (&format!("{ONE}; truncate -s 3G .git/shallow"), "", Refused("larger than")),
            ("truncate -s 3G .git; echo x >x", "", Refused("larger than")),
            // Deeper than anybody's files are.
            (
                &format!(
                    "{ONE}; for i in $(seq 45); do mkdir -p d/d/d/d/d/d; cd d/d/d/d/d/d; done"
                ),
                "",
                Refused("deeper than 254"),
            ),
            (
                &format!(
                    "{ONE}; for i in $(seq 42); do mkdir -p d/d/d/d/d/d; cd d/d/d/d/d/d; done; echo u >u"
                ),
                "",
                Goes,
            ),
            // Alternates of alternates, and one that is its own.
            (
                &format!(
                    "{ONE}; for i in $(seq 9); do mkdir -p .git/m$i/info; echo ../m$((i+1)) >.git/m$i/info/alternates; done; \
                     mkdir .git/m10; echo ../m1 >.git/objects/info/alternates"
                ),
                "",
                Refused("not followed"),
            ),
            (&format!("{ONE}; echo ../objects >.git/objects/info/alternates"), "", Goes),
        ],
        &[],
    );
}

#[test]
fn settings_of_a_repository_name_no_file_and_run_nothing() {
    let touch = "touch $TOP/pwned; cat; #pwned";
    let all_of = |settings: &[(&str, &str)]| {
        let set = |(key, value): &(&str, &str)| format!("; git config --add {key} \"{value}\"");
        ONE.to_owned() + &settings.iter().map(set).collect::<String>()
    };
    let mut setups: Vec<String> = vec![
        all_of(&[
            ("core.excludesFile", "$TOP/secret/id"),
            ("core.attributesFile", "$TOP/secret/id"),
            ("includeIf.gitdir:/.path", "$TOP/secret/id"),
            ("includeIf.onbranch:main.path", "$TOP/secret/id"),
            ("include.path", "../../secret/private/.git/config"),
        ]),
        all_of(&[("core.excludesFile", "../secret/id"), ("include.path", "$TOP/secret/id")]),
        // What would be followed by a shell of the user's.
        all_of(&[
            ("core.hooksPath", "~/hooks"),
            ("core.attributesFile", "~/x"),
            ("core.excludesFile", "~/x"),
            ("commit.template", "~/x"),
        ]),
        all_of(&[
            ("core.pager", touch),
            ("core.sshCommand", touch),
            ("core.editor", touch),
            ("core.askPass", touch),
            ("core.gitProxy", touch),
            ("core.alternateRefsCommand", touch),
            ("credential.helper", &format!("!{touch}")),
            ("diff.external", touch),
            ("uploadpack.packObjectsHook", touch),
            ("gpg.program", touch),
            ("alias.rev-parse", &format!("!{touch}")),
            ("remote.origin.url", &format!("ext::sh -c {touch}")),
            ("core.fsmonitor", touch),
        ]),
        all_of(&[
            ("trace2.normalTarget", "$TOP/pwned"),
            ("core.untrackedCache", "true"),
            ("index.threads", "9999"),
            ("submodule.recurse", "true"),
            ("core.splitIndex", "true"),
            ("remote.origin.fetch", "nonsense"),
            ("branch.main.merge", "../x"),
        ]),
        all_of(&[
            ("core.compression", "nonsense"),
            ("pack.threads", "nonsense"),
            ("core.abbrev", "-7"),
        ]),
        all_of(&[
            ("filter.x.clean", touch),
            ("filter.x.smudge", touch),
            ("filter.x.process", touch),
            ("filter.x.required", "true"),
            ("diff.x.textconv", touch),
            ("diff.x.command", touch),
            ("merge.x.driver", touch),
        ]) + "; echo '* filter=x diff=x merge=x' >.gitattributes; touch a d/f",
        format!(
            "{ONE}; mkdir -p .git/hooks; for h in post-index-change post-checkout reference-transaction; do \
             printf \"#!/bin/sh\\ntouch $TOP/pwned\\n\" >.git/hooks/$h; done; chmod +x .git/hooks/*"
        ),
        // A HEAD as git wrote it long ago.
        format!("{ONE}; rm .git/HEAD; ln -s refs/heads/main .git/HEAD"),
        format!("{ONE}; git replace HEAD HEAD~1; git rev-parse HEAD >.git/info/grafts"),
    ];
    // A repository inside that is somebody else's: nothing of it is looked at.
    setups.push(format!(
        "{ONE}; mkdir n; echo gitdir: $TOP/secret/private/.git >n/.git; echo s >n/s"
    ));
    setups.push(format!("{ONE}; mkdir n; ln -s $TOP/secret/private/.git n/.git; echo s >n/s"));
    setups.push(format!("{ONE}; mkdir -p n/.git; mkfifo n/.git/HEAD n/.git/config; echo s >n/s"));
    setups.push(format!("{ONE}; ln -s $TOP/secret out; ln -s $TOP/secret/id .gitignore; ln -s $TOP/secret/id d/.gitattributes; echo e >>d/f"));
    setups.push(format!("{ONE}; rm -r d; ln -s $TOP/secret d"));
    let cases: Vec<_> = setups.iter().map(|setup| (setup.as_str(), "", Goes)).collect();
    all(&cases, &[]);
}

#[test]
fn a_repository_that_would_fetch_or_that_git_does_not_take_is_refused() {
    let fetches = "git config protocol.ext.allow always; git config remote.evil.url \"ext::sh -c touch% $TOP/pwned\"";
    let partial = Refused("partial clone");
    all(
        &[
            (&format!("{ONE}; {fetches}; git config remote.evil.promisor true"), "", partial),
            (&format!("{ONE}; {fetches}; git config extensions.partialClone evil"), "", partial),
            (
                &format!("{ONE}; {fetches}; git config remote.evil.partialclonefilter blob:none"),
                "",
                partial,
            ),
            // Without a word of it, what is absent is absent.
            (
                &format!(
                    "{ONE}; {fetches}; touch .git/objects/pack/pack-1.promisor; rm -r .git/objects/??"
                ),
                "",
                Refused("missing object"),
            ),
            (
                &format!(
                    "{ONE}; git config core.repositoryformatversion 1; git config extensions.unheardof true"
                ),
                "",
                Refused("unheardof"),
            ),
            (&format!("{ONE}; git config core.repositoryformatversion 99"), "", Refused("99")),
            (&format!("{ONE}; echo '[' >>.git/config"), "", Refused("bad config line")),
            (
                &format!("{ONE}; : >.git/HEAD; echo .env >.gitignore; echo S >.env"),
                "",
                Refused("not a git repository"),
            ),
            (&format!("{ONE}; rm .git/HEAD"), "d", Refused("not a git repository")),
            (&format!("{ONE}; rm -r .git/*"), "", Refused("not a git repository")),
            ("mkdir .git; echo S >.env", "", Refused("not a git repository")),
            ("echo gitdir: /gone >.git; echo S >.env", "", Refused("/gone")),
            ("echo nonsense >.git; echo S >.env", "", Refused("does not say where git is")),
            ("ln -s /gone .git; echo S >.env", "", Refused("leads nowhere")),
            (&format!("{ONE}; echo $(printf '%040d' 1) >.git/HEAD"), "", Refused("HEAD")),
            (&format!("{ONE}; git config core.bare true"), "", Refused("bare repository")),
        ],
        &[],
    );
}

#[test]
fn other_ways_to_ask_open_nothing_else_either() {
    let all_of_it = [("WATCHED_FULL", "1")];
    let module = "git init -q $TOP/host/s; (cd s; echo 1 >l; git add l; git commit -qm 1); git init -q; echo a >a; git add a; \
                  git submodule -q add ./s lib; git commit -qm one";
    all(
        &[
            (
                &format!("{module}; echo gitdir: $TOP/secret/private/.git >lib/.git"),
                "",
                Refused("leads out"),
            ),
            (
                &format!("{module}; rm lib/.git; ln -s $TOP/secret/private/.git lib/.git"),
                "",
                Refused("leads out"),
            ),
            (
                &format!(
                    "{module}; git config -f .git/modules/lib/config core.worktree $TOP/secret"
                ),
                "",
                Refused("core.worktree"),
            ),
            (&format!("{module}; rm -r lib; ln -s $TOP/secret/private lib"), "", Goes),
            (
                &format!("{module}; ln -sf $TOP/secret/id .git/modules/lib/info/exclude"),
                "",
                Refused("leads out"),
            ),
            (module, "", Goes),
        ],
        &all_of_it,
    );
    all(
        &[
            (
                &format!("{ONE}; mv .git/logs $TOP/secret/; ln -s $TOP/secret/logs .git/logs"),
                "",
                Refused("leads out"),
            ),
            (
                &format!("{ONE}; rm .git/logs/HEAD; mkfifo .git/logs/HEAD"),
                "",
                Refused("no regular file"),
            ),
        ],
        &[("WATCHED_FROM", "HEAD@{1}")],
    );
    all(
        &[(ONE, "", Goes), (&format!("{ONE}; git branch x HEAD~1"), "", Goes)],
        &[("WATCHED_FROM", "HEAD@{1}")],
    );
    all(
        &[
            (
                &format!("{ONE}; git config core.excludesFile $TOP/secret/id; echo .env >.env"),
                "",
                Refused("core.excludesFile"),
            ),
            (&format!("{ONE}; ln -s $TOP/secret/id link; mkfifo pipe"), "", Goes),
        ],
        &[("WATCHED_UNTRACKED", "1")],
    );
}

#[test]
fn a_directory_without_git_is_no_way_out() {
    let world = hostile(
        "echo x >x; ln -s $TOP/secret out; mkfifo pipe .bangerignore; mkdir d; mkfifo d/.bangerignore; \
                         ln -s $TOP/secret/id d/.gitattributes; mkdir n; echo gitdir: $TOP/secret/private/.git >n/.git; \
                         echo y >n/y; mkdir e; ln -s $TOP/secret/id e/.bangerignore",
    );
    assert_eq!(watched(&world, "", &[]), None);
    assert_eq!(holds_secret(&world.guest()), None);
    let there = world.shell(&world.guest(), "find . ! -type d | sort");
    assert_eq!(there, "./d/.gitattributes\n./e/.bangerignore\n./n/y\n./out\n./x\n");
    let pipe = hostile("echo x >x; mkfifo .gitattributes");
    assert!(watched(&pipe, "", &[]).unwrap().contains("no file"));
}

#[test]
fn rules_of_a_directory_are_bounded_together_and_as_deep_as_paths_are() {
    let large = "for i in 1 2 3 4 5; do mkdir $i; truncate -s 15M $i/.bangerignore; done";
    let plan = |world: &World| banger_workspace::dry_run(&world.wish(), None);
    let refused = plan(&World::new(large)).unwrap_err();
    assert!(refused.to_string().contains("bytes together"), "{refused}");
    assert!(refused.hint_text().is_some());
    let name = "d".repeat(200);
    let far = "mkdir $N; cd $N; echo '*.o' >.bangerignore; echo o >o.o";
    let deep = World::new(&format!("N={name}; for i in $(seq 20); do {far}; done; mkdir end"));
    let files = plan(&deep).unwrap().files;
    assert!(!files.iter().any(|file| file.contains("o.o")), "{files:?}");
}

/// What people really have: without a word it is refused, and the hint says the word.
#[test]
fn layouts_that_lead_out_go_in_for_those_who_say_so() {
    let same = "git log --all --format=%H%D; git status --short; git show HEAD:a";
    for (setup, trusted) in [
        (format!("{ONE}; git init -q --separate-git-dir $TOP/apart"), vec!["apart"]),
        (format!("{ONE}; mv .git $TOP/apart; ln -s $TOP/apart .git"), vec!["apart"]),
        (
            format!(
                "{ONE}; mkdir $TOP/store; for part in objects refs config info; do mv .git/$part $TOP/store; \
                 ln -s $TOP/store/$part .git/$part; done"
            ),
            vec!["store"],
        ),
        (
            format!(
                "mkdir $TOP/one; (cd $TOP/one; {ONE}); git clone -q --shared $TOP/one $TOP/two; \
                 (cd $TOP/two; echo t >t; git add t; git commit -qm t); git clone -q --shared $TOP/two .; \
                 echo h >h; git add h; git commit -qm h; cd .git/objects/info; \
                 echo ../../../two/.git/objects >alternates"
            ),
            vec!["one/.git/objects", "two/.git"],
        ),
        (
            format!(
                "{ONE}; mkdir $TOP/c; mv .git/objects/pack $TOP/c/; ln -s $TOP/c/pack .git/objects/pack"
            ),
            vec!["c"],
        ),
        (
            format!("{ONE}; mkdir $TOP/i; mv .git/index $TOP/i/; ln -s $TOP/i/index .git/index"),
            vec!["i"],
        ),
        (
            format!(
                "{ONE}; mv .git ../common; mkdir .git; cp ../common/HEAD ../common/index .git; echo $TOP/common >.git/commondir"
            ),
            vec!["common"],
        ),
    ] {
        let world = World::new(&setup);
        let error = world.prepare(&world.wish()).unwrap_err();
        assert!(error.to_string().contains("leads out of the repository"), "{setup}: {error}");
        let hint = error.hint_text().unwrap();
        let named = trusted
            .iter()
            .map(|dir| world.path().join(dir))
            .any(|dir| hint.contains(&format!("'--trust-git-dir {}", dir.display())));
        assert!(named, "{setup}: {hint}");
        let trusted = trusted.iter().map(|dir| world.path().join(dir)).collect();
        let wish = Wish { trusted, mode: WorkspaceMode::FullCopy, ..world.wish() };
        world.prepare(&wish).unwrap();
        assert_eq!(world.shell(&world.guest(), same), world.shell(&world.host(), same), "{setup}");
        // What was said once holds for this workspace.
        assert_eq!(world.unexported(), [""; 0]);
        world.shell(&world.guest(), "echo more >>a");
        let from = banger_workspace::status(&world.vm(), &world.files(), true, &[]).unwrap();
        assert_eq!(from.unexported.len(), 1, "{from:?}");
    }
}

#[test]
fn layouts_that_name_each_other_go_in_as_they_are() {
    let same = "git log --all --format=%H; git status --short; git rev-parse --abbrev-ref HEAD";
    let world = World::new(
        "git init -q --bare .bare; echo gitdir: ./.bare >.git; git worktree add -q --orphan -b main w 2>/dev/null || \
         { git symbolic-ref HEAD refs/heads/none; git worktree add -q w $(git commit-tree -m0 $(git hash-object -t tree -w /dev/null)) -b main; }; \
         cd w; echo a >a; git add a; git commit -qm one; echo e >>a; git worktree add -q -b side ../v",
    );
    for at in ["w", "v"] {
        let wish =
            Wish { path: world.host().join(at), mode: WorkspaceMode::FullCopy, ..world.wish() };
        world.shell(world.path(), "rm -rf vm guest; mkdir vm");
        world.prepare(&wish).unwrap();
        assert_eq!(world.shell(&world.guest(), same), world.shell(&world.host().join(at), same));
        assert!(!world.shell(&world.guest(), "git config --list").contains("bare=true"));
    }
    let error = world.prepare(&world.wish()).unwrap_err();
    assert!(error.to_string().contains("bare repository"), "{error}");
    // A work tree that was moved is told how it is mended.
    world.shell(&world.host(), "mv w moved");
    let wish = Wish { path: world.host().join("moved"), ..world.wish() };
    let error = world.prepare(&wish).unwrap_err();
    assert!(error.hint_text().unwrap().contains("git worktree repair"), "{error:?}");
    world.shell(&world.host().join("moved"), "git worktree repair 2>/dev/null");
    world.shell(world.path(), "rm -rf vm guest; mkdir vm");
    world.prepare(&wish).unwrap();
}

#[test]
fn a_repository_on_another_disk_above_is_none_that_git_would_find() {
    let world = World::new(ONE);
    let line = "mount -t tmpfs none \"$0\" && exec \"$1\" --exact prepare_as_told --nocapture";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", line])
        .args([world.host().join("d"), std::env::current_exe().unwrap()])
        .env("WATCHED_TOP", world.path())
        .env("WATCHED_PATH", world.host().join("d"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    // Where no namespace is to be had there is nothing to see.
    if said.contains("WATCHED") {
        assert!(said.contains("is on another file system"), "{said}");
    }
}

#[test]
fn what_the_user_set_counts_wherever_it_is_written() {
    let world = World::new(
        "git init -q; echo a >a; git add a; git commit -qm one; echo s >a.swp; echo k >k; \
         printf '*.swp\\n' >$TOP/home/rules; git config --global core.excludesFile '~/rules'; \
         git config --global includeIf.gitdir:$TOP/.path '~/work'; printf '[user]\\n\\temail = w@work\\n' >$TOP/home/work; \
         git config --global includeIf.onbranch:main.path '~/main'; printf '[core]\\n\\tsafecrlf = warn\\n' >$TOP/home/main",
    );
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "prepare_as_told", "--nocapture"])
        .env("HOME", world.path().join("home"))
        .env("WATCHED_TOP", world.path())
        .env("WATCHED_PATH", world.host())
        .env("WATCHED_UNTRACKED", "1")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("it went in"), "{output:?}");
    assert_eq!(
        world.shell(&world.guest(), "ls; git config user.email; git config core.safecrlf"),
        "a\nk\nw@work\nwarn\n"
    );
    assert!(world.shell(&world.guest(), "cat .git/info/exclude").contains("*.swp"));
}

#[test]
fn a_directory_that_may_not_be_read_stays_behind_unless_it_is_tracked() {
    let world = World::new(&format!(
        "{ONE}; echo u >u; mkdir pg seen; touch pg/x seen/x; chmod 000 pg; chmod 444 seen"
    ));
    let prepare = || {
        // Root without capabilities is an ordinary owner.
        let mut command = if nix::unistd::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set=-all", "--inh-caps=-all"]);
            command.arg(std::env::current_exe().unwrap());
            command
        } else {
            Command::new(std::env::current_exe().unwrap())
        };
        let output = command
            .args(["--exact", "prepare_as_told", "--nocapture"])
            .env("HOME", world.path().join("home"))
            .env("WATCHED_TOP", world.path())
            .env("WATCHED_PATH", world.host())
            .env("WATCHED_UNTRACKED", "1")
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = prepare();
    world.shell(&world.host(), "chmod 000 d");
    let tracked = prepare();
    world.shell(&world.host(), "chmod 755 pg seen d");
    assert!(said.contains("it went in"), "{said}");
    assert_eq!(world.shell(&world.guest(), "ls"), "a\nd\nu\n");
    assert!(!tracked.contains("it went in"), "{tracked}");
}

#[test]
fn a_repository_of_somebody_else_is_refused_as_git_does() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let world = World::new(&format!("{ONE}; chown -R 12345 ."));
    let error = world.prepare(&world.wish()).unwrap_err();
    assert!(error.chain().contains("dubious ownership in repository at '"), "{}", error.chain());
}

#[test]
fn head_is_found_wherever_it_lies() {
    let world = World::new(
        "git init -q; git commit -q --allow-empty -m one; git worktree add -q -b side $TOP/linked; \
         cd $TOP/linked; git commit -q --allow-empty -m two",
    );
    let dirs = [world.host(), world.path().join("linked")];
    for then in ["true", "git pack-refs --all", "git checkout -q --detach side"] {
        world.shell(&world.host(), then);
        for dir in &dirs {
            let head = world.shell(dir, "git rev-parse HEAD");
            assert_eq!(banger_workspace::head_of(dir, &[]).as_deref(), Some(head.trim()), "{then}");
        }
    }
    world.shell(
        world.path(),
        "git init -q empty; git init -q odd; echo ref: ../../x >odd/.git/HEAD",
    );
    for none in ["nowhere", "empty", "odd", "home"] {
        assert_eq!(banger_workspace::head_of(&world.path().join(none), &[]), None, "{none}");
    }
    // As `vm exec` asks: nothing of another repository is told.
    world.shell(&world.host(), "rm .git/HEAD; ln -s $TOP/linked/.git .git/HEAD");
    assert_eq!(banger_workspace::head_of(&world.host(), &[]), None);
    world.shell(&world.host(), "rm .git/HEAD; mkfifo .git/HEAD");
    assert_eq!(banger_workspace::head_of(&world.host(), &[]), None);
}
