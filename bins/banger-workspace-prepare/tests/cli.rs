//! What `banger-workspace-prepare` prints and leaves; the way into a guest is tested in
//! `shared/workspace` and in the flows.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_channel::bridge;
use banger_tests::{Answer, Running, Sandbox, program};
use serde_json::json;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
    process::Command,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-workspace-prepare");

/// Makes a repository with one commit, an edit, an untracked and an ignored file.
fn repository(sandbox: &Sandbox) -> String {
    let dir = sandbox.dir().join("repo");
    fs::create_dir(&dir).expect("a directory");
    let script = "git init -q -b main; echo '*.o' >.gitignore; echo a >a; git add -A; \
                  git -c user.name=A -c user.email=a@b commit -qm one; echo e >>a; echo u >u; echo o >x.o";
    let status = Command::new("timeout")
        .args(["60", "sh", "-ec", script])
        .current_dir(&dir)
        .env("HOME", sandbox.dir())
        .status()
        .expect("a shell");
    assert!(status.success());
    dir.to_str().expect("text").to_owned()
}

#[test]
fn a_dry_run_lists_exactly_what_would_go() {
    let sandbox = Sandbox::new();
    let repository = repository(&sandbox);
    let answer = sandbox.run(PROGRAM, &["web", &repository, "--dry-run"]);
    answer.ok();
    let plan = &answer.documents[0];
    assert_eq!(plan["schema"], "banger.workspace-plan/1");
    assert_eq!(plan["files"], serde_json::json!([".gitignore", "a"]));
    assert_eq!(plan["untracked_left"], 1);
    assert_eq!(plan["mode"], "shallow");
    assert!(answer.stderr.contains("--include-untracked"), "{}", answer.stderr);
    assert!(!sandbox.state().join("vms").exists(), "a dry run makes nothing");

    let answer = sandbox.run(PROGRAM, &["web", &repository, "--dry-run", "--include-untracked"]);
    answer.ok();
    assert_eq!(answer.documents[0]["files"], serde_json::json!([".gitignore", "a", "u"]));
}

#[test]
fn wrong_lines_and_wrong_paths_are_refused() {
    let sandbox = Sandbox::new();
    let repository = repository(&sandbox);
    sandbox.run(PROGRAM, &["web", &repository]).fails(3, "no VM 'web'");
    sandbox.run(PROGRAM, &["web", "/nowhere", "--dry-run"]).fails(3, "no '/nowhere'");
    let dry = |more: &[&str]| {
        let words = [&["web", &repository, "--dry-run"], more].concat();
        sandbox.run(PROGRAM, &words)
    };
    dry(&["--guest-path", "repo"]).fails(2, "no absolute path");
    dry(&["--include", ""]).fails(2, "it is empty");
    dry(&["--include", "a\nb"]).fails(2, "more than one line");
    dry(&["--include", "../a"]).fails(2, "leads out of the directory");
    dry(&["--guest-path", "/a/../etc"]).fails(2, "no absolute path");
    dry(&["--from", "HEAD"]).fails(2, "--branch");
    dry(&["--mode", "rsync"]).fails(2, "neither shallow nor full_copy");
    dry(&["--branch", "main"]).fails(4, "exists on the host");
    dry(&["--branch", "-x"]).fails(2, "");
    dry(&["--branch=a..b"]).fails(2, "not the name of a branch");
    dry(&["--branch", "x", "--from", "nothing"]).fails(3, "no commit 'nothing'");
    let bare = sandbox.dir().join("bare");
    Command::new("git").args(["init", "-q", "--bare"]).arg(&bare).status().unwrap();
    let bare = bare.to_str().unwrap();
    sandbox.run(PROGRAM, &["web", bare, "--dry-run"]).fails(2, "bare repository");
}

/// A VM whose image names a user, with this machine in place of a guest.
fn guest(sandbox: &Sandbox, user: &str) -> Running {
    let mut running = sandbox.plant_running("web", &json!({}));
    let bridge = |listener, device| drop(bridge::run(listener, bridge::Device::Port(device)));
    running.start_agent(sandbox, &json!({ "user": user }), bridge);
    running
}

fn owners(dir: &Path, found: &mut Vec<u32>) {
    let meta = fs::symlink_metadata(dir).unwrap();
    found.push(meta.uid());
    if meta.is_dir() {
        for entry in fs::read_dir(dir).unwrap() {
            owners(&entry.unwrap().path(), found);
        }
    }
}

#[test]
fn a_workspace_belongs_to_the_guests_user_wherever_it_lies() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let repository = repository(&sandbox);
    let _guest = guest(&sandbox, "54321:54321");
    let world = tempfile::tempdir_in("/run").unwrap();
    fs::set_permissions(world.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let home = world.path().join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(54_321), Some(54_321)).unwrap();
    let prepare =
        |more: &[&str]| -> Answer { sandbox.run(PROGRAM, &[&["web", &repository], more].concat()) };
    let all = |path: &Path| {
        let mut found = Vec::new();
        owners(path, &mut found);
        found.sort_unstable();
        found.dedup();
        found
    };
    for path in ["home/repo", "roots/deep/repo"] {
        let path = world.path().join(path);
        let text = path.to_str().unwrap();
        let answer = prepare(&["--force", "--guest-path", text]);
        assert_eq!(answer.ok().document()["guest_path"], text);
        assert_eq!(all(&path), [54_321], "{text}");
        let git = ["-u54321", "git", "-C", text, "-c", "core.pager=", "status", "--porcelain"];
        assert_eq!(as_user(&git), " M a\n");
        // An update is the user's too.
        fs::write(Path::new(&repository).join("a"), text).unwrap();
        prepare(&["--guest-path", text]).ok();
        assert_eq!(all(&path), [54_321], "{text}");
        fs::write(Path::new(&repository).join("a"), "a\ne\n").unwrap();
    }
    let path = world.path().join("for-root");
    prepare(&["--force", "--user", "root", "--guest-path", path.to_str().unwrap()]).ok();
    assert_eq!(all(&path), [0]);
    // Where the user's own link leads, its own rights count.
    let roots = world.path().join("only-roots");
    fs::create_dir(&roots).unwrap();
    symlink(&roots, home.join("evil")).unwrap();
    let evil = home.join("evil/repo");
    let answer = prepare(&["--force", "--guest-path", evil.to_str().unwrap()]);
    answer.fails(1, "denied").fails(1, "'--user root'");
    assert_eq!(fs::read_dir(&roots).unwrap().count(), 0);
    prepare(&["--user", "nobody-here"]).fails(1, "no user 'nobody-here'");
}

#[test]
fn a_repository_has_no_program_that_is_run() {
    let sandbox = Sandbox::new();
    let repository = repository(&sandbox);
    let ran = sandbox.dir().join("ran");
    let script = "mkdir -p node_modules/.bin; for at in node_modules/.bin/git git; do \
                  printf '#!/bin/sh\\ntouch %s\\nexec /usr/bin/git \"$@\"\\n' \"$0\" >$at; chmod +x $at; done";
    let status = Command::new("sh")
        .args(["-ec", script])
        .arg(&ran)
        .current_dir(&repository)
        .status()
        .unwrap();
    assert!(status.success());
    for path in [
        "./node_modules/.bin:/usr/bin:/bin",
        "node_modules/.bin:/usr/bin:/bin",
        ":/usr/bin:/bin",
        ".",
    ] {
        for dir in [Path::new(&repository), Path::new("/")] {
            let words = ["web", &repository, "--dry-run"];
            let answer = sandbox.with(PROGRAM, &words, |command| {
                command.env("PATH", path).current_dir(dir);
            });
            answer.ok();
            assert!(!ran.exists(), "{path} in {}", dir.display());
        }
    }
}

/// Runs a command as somebody else, who trusts nobody's repository but its own.
fn as_user(words: &[&str]) -> String {
    let (user, words) = words.split_first().unwrap();
    let id = user.trim_start_matches("-u");
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={id}")).arg(format!("--regid={id}")).arg("--clear-groups");
    let output = command.args(words).env_clear().env("PATH", "/usr/bin:/bin").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn commands_start_in_the_directory_that_was_named() {
    let sandbox = Sandbox::new();
    let repository = repository(&sandbox);
    let _guest = guest(&sandbox, "");
    let script = "mkdir -p pkg/web pkg/web-old empty; echo w >pkg/web/file; echo o >pkg/web-old/file; \
                  git add pkg; echo i >>.gitignore; echo out >>.gitignore; mkdir out; echo x >out/x";
    let status =
        Command::new("sh").args(["-ec", script]).current_dir(&repository).status().unwrap();
    assert!(status.success());
    let to = sandbox.dir().join("guest/repo");
    let to = to.to_str().unwrap();
    let start = |below: &str| {
        let path = format!("{repository}/{below}");
        let answer = sandbox.run(PROGRAM, &["web", &path, "--guest-path", to]);
        let document = answer.ok().document();
        (document["start_path"].as_str().map(ToOwned::to_owned), answer.stderr.clone())
    };
    assert_eq!(start("pkg/web").0, Some(format!("{to}/pkg/web")));
    assert_eq!(start("pkg").0, Some(format!("{to}/pkg")));
    assert_eq!(start("").0, None);
    let (none, said) = start("out");
    assert_eq!(none, None);
    assert!(said.contains("nothing in 'out' goes along, so commands start in"), "{said}");
}

#[test]
fn a_git_directory_that_was_trusted_once_is_trusted_for_that_repository_alone() {
    let sandbox = Sandbox::new();
    let repository = repository(&sandbox);
    let _guest = guest(&sandbox, "");
    let script = "mv .git ../own.git; ln -s ../own.git .git; cd ..; mkdir other; ln -s ../own.git other/.git";
    let status =
        Command::new("sh").args(["-ec", script]).current_dir(&repository).status().unwrap();
    assert!(status.success());
    let to = sandbox.dir().join("guest/repo");
    let prepare = |path: &str, more: &[&str]| {
        let words = ["web", path, "--guest-path", to.to_str().unwrap()];
        sandbox.run(PROGRAM, &[&words, more].concat())
    };
    let own = sandbox.dir().join("own.git");
    let other = sandbox.dir().join("other");
    prepare(&repository, &[]).fails(2, "leads out of the repository");
    prepare(&repository, &["--trust-git-dir", own.to_str().unwrap()]).ok();
    prepare(&repository, &[]).ok();
    prepare(&repository, &["--dry-run"]).ok();
    assert_eq!(prepare(&repository, &[]).ok().document()["trusted_git_dirs"], json!([own]));
    prepare(other.to_str().unwrap(), &["--force"]).fails(2, "leads out of the repository");
}

#[test]
fn what_the_configuration_trusts_is_taken_back_there() {
    let sandbox = Sandbox::new();
    let repository = repository(&sandbox);
    let _guest = guest(&sandbox, "");
    let script = "mv .git ../own.git; ln -s ../own.git .git";
    let status =
        Command::new("sh").args(["-ec", script]).current_dir(&repository).status().unwrap();
    assert!(status.success());
    let to = sandbox.dir().join("guest/repo");
    let prepare =
        || sandbox.run(PROGRAM, &["web", &repository, "--guest-path", to.to_str().unwrap()]);
    let own = sandbox.dir().join("own.git");
    sandbox.config(&format!("trusted_git_dirs = ['{}']\n", own.display()));
    assert_eq!(prepare().ok().document()["trusted_git_dirs"], json!(null));
    prepare().ok();
    sandbox.config("");
    prepare().fails(2, "leads out of the repository");
}

#[test]
fn what_is_included_is_said_by_the_command_line_and_the_configuration() {
    let sandbox = Sandbox::new();
    let repository = repository(&sandbox);
    let _guest = guest(&sandbox, "");
    let to = sandbox.dir().join("guest/repo");
    let prepare = |more: &[&str]| {
        let words = ["web", &repository, "--guest-path", to.to_str().unwrap()];
        sandbox.run(PROGRAM, &[&words, more].concat())
    };
    let files = |answer: &Answer| answer.documents[0]["files"].clone();
    let answer = prepare(&["--dry-run", "--include=*.o", "--include", "none"]);
    assert_eq!(files(answer.ok()), json!([".gitignore", "a", "x.o"]));
    assert_eq!(answer.documents[0]["untracked_left_paths"], json!(["u"]));
    let said = "note: 1 untracked file would stay behind (u); '--include-untracked' or '--include PATTERN' takes it";
    assert!(answer.stderr.contains(said), "{}", answer.stderr);
    assert!(
        answer.stderr.contains("no untracked or ignored file matches 'none'"),
        "{}",
        answer.stderr
    );
    let quiet = prepare(&["--dry-run", "--quiet"]);
    assert_eq!((files(quiet.ok()), quiet.stderr.as_str()), (json!([".gitignore", "a"]), ""));

    let done = prepare(&["--include=*.o"]).ok().document().clone();
    assert_eq!((&done["include"], &done["include_untracked"]), (&json!(["*.o"]), &json!(false)));
    assert!(to.join("x.o").is_file() && !to.join("u").exists());
    // It holds from then on, beside what the configuration says, until somebody says otherwise.
    sandbox.config("workspace_include = ['/u']\n");
    assert_eq!(files(prepare(&["--dry-run"]).ok()), json!([".gitignore", "a", "u", "x.o"]));
    assert_eq!(prepare(&[]).ok().document()["include"], json!(["*.o"]));
    assert_eq!(
        files(prepare(&["--dry-run", "--no-include"]).ok()),
        json!([".gitignore", "a", "u"])
    );
    sandbox.config("");
    let done = prepare(&["--no-include"]).ok().document().clone();
    assert_eq!(done["include"], json!(null));
    assert!(!to.join("x.o").exists() && !to.join("u").exists());
    sandbox.config("workspace_include = ['']\n");
    prepare(&[]).fails(2, "workspace_include has ''");
}

#[test]
fn where_it_would_go_is_said_if_that_can_be_told() {
    let sandbox = Sandbox::new();
    let repository = repository(&sandbox);
    let plan = |vm: &str, more: &[&str]| {
        let words = [&[vm, &repository, "--dry-run"], more].concat();
        sandbox.run(PROGRAM, &words).ok().document()["guest_path"].clone()
    };
    assert_eq!(plan("new", &[]), json!(null));
    assert_eq!(plan("new", &["--guest-path", "/srv/x"]), "/srv/x");
    let mut image = sandbox.plant_image("alpine");
    sandbox.plant_vm("plain", "alpine", "generic-6.12");
    assert_eq!(plan("plain", &[]), "/root/repo");
    assert_eq!(plan("plain", &["--user", "dev"]), json!(null));
    image["config"]["user"] = "dev".into();
    let document = sandbox.state().join("images/alpine/image.json");
    fs::write(document, image.to_string()).unwrap();
    assert_eq!(plan("plain", &[]), json!(null));
    assert_eq!(plan("plain", &["--user", "0:0"]), "/root/repo");
    let _guest = guest(&sandbox, "54321");
    assert_eq!(plan("web", &[]), "/workspace/repo");
}

#[test]
fn several_workspaces_of_a_vm_are_told_apart() {
    let sandbox = Sandbox::new();
    let repository = repository(&sandbox);
    let _guest = guest(&sandbox, "");
    let other = sandbox.dir().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("file"), "one\n").unwrap();
    let at = |name: &str| sandbox.dir().join("guest").join(name).to_str().unwrap().to_owned();
    let (first, second) = (at("repo"), at("other"));
    let prepare = |path: &str, to: &str| sandbox.run(PROGRAM, &["web", path, "--guest-path", to]);
    let run = |name: &str, words: &[&str]| sandbox.run(program(name), words);
    let status = |words: &[&str]| run("banger-workspace-status", &[&["web"], words].concat());
    let export = |words: &[&str]| {
        sandbox.raw(program("banger-workspace-export"), &[&["web"], words].concat())
    };
    status(&[]).fails(3, "VM 'web' has no workspace");
    export(&[]).fails(125, "VM 'web' has no workspace");
    assert_eq!(prepare(&repository, &first).ok().document()["guest_path"], first);
    prepare(other.to_str().unwrap(), &second).ok();
    // One in another is refused, and leaves no trace.
    for bad in [format!("{first}/inner"), at("").trim_end_matches('/').to_owned()] {
        prepare(other.to_str().unwrap(), &bad).fails(4, "would lie one in the other");
    }
    assert_eq!(fs::read_dir(sandbox.vm("web").join("workspaces")).unwrap().count(), 2);
    // Without a place it is where it is already: a dry run says so.
    let plan = sandbox.run(PROGRAM, &["web", other.to_str().unwrap(), "--dry-run"]);
    assert_eq!(plan.ok().document()["guest_path"], second);
    sandbox.run(PROGRAM, &["web", other.to_str().unwrap()]).ok();

    let all = status(&[]);
    let places: Vec<&str> =
        all.ok().documents.iter().map(|one| one["guest_path"].as_str().unwrap()).collect();
    assert_eq!(places, [&first, &second], "the one that was made first is the first");
    let one = status(&["--guest-path", &second]);
    assert_eq!(one.ok().document()["guest_path"], second);
    status(&["--guest-path", "/nowhere"]).fails(3, "no workspace in '/nowhere'");
    let asked = sandbox.raw(program("banger-workspace-status"), &["--places", "web"]);
    assert_eq!(asked.ok().text(), format!("{first}\n{second}\n"));
    let asked = sandbox.raw(program("banger-workspace-status"), &["--places", "nobody"]);
    assert_eq!(asked.ok().text(), "");

    // Work in both: each comes out of its own, and neither is deleted.
    status(&["--check"]).ok();
    fs::write(Path::new(&first).join("a"), "work\n").unwrap();
    fs::write(Path::new(&second).join("file"), "other work\n").unwrap();
    let shown = sandbox.terminal(
        &format!("{} web", program("banger-workspace-status").display()),
        200,
        |_| {},
    );
    let text = shown.text();
    assert!(text.contains(&first) && text.contains("  not exported: 1 changed file (a)"), "{text}");
    // A note says of which workspace it is.
    let said = status(&[]).stderr;
    assert!(said.contains(&format!("note: '{first}': 'a' went in with a local edit")), "{said}");
    let both = format!("in '{first}' 1 changed file (a); in '{second}' 1 changed file (file)");
    for refused in [status(&["--check"]), run("banger-vm-delete", &["--force", "web"])] {
        refused.fails(4, "holds work that was not exported").fails(4, &both);
        refused.fails(4, "--guest-path DIR");
    }
    status(&["--check", "--guest-path", &second]).fails(4, "1 changed file (file)");
    export(&["--mark"]).fails(2, "VM 'web' has 2 workspaces").fails(2, "--guest-path DIR");
    let patch = export(&["--mark", "--guest-path", &second]);
    assert!(patch.ok().text().contains("+other work"), "{}", patch.all());
    let left = status(&["--check"]);
    left.fails(4, &format!("in '{first}' 1 changed file (a)"));
    assert!(!left.all().contains(&second), "{}", left.all());
    status(&["--check", "--guest-path", &second]).ok();
    let patch = export(&["--mark", "--guest-path", &first]);
    assert!(patch.ok().text().contains("+work"), "{}", patch.all());
    status(&["--check"]).ok();
    // What cannot be looked at keeps nothing else from being said, and is no safe loss.
    let document = fs::read_dir(sandbox.vm("web").join("workspaces"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| fs::read_to_string(path.join("workspace.json")).unwrap().contains(&second))
        .unwrap();
    for entry in fs::read_dir(&document).unwrap().flatten() {
        if entry.path().extension().is_some_and(|end| end == "jsonl") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let some = status(&[]);
    assert_eq!(some.fails(1, "tree-").documents[0]["guest_path"], first);
    status(&["--check"]).fails(4, &format!("of '{second}' that is not known"));
}

#[test]
fn a_prepare_that_is_refused_leaves_no_workspace() {
    let sandbox = Sandbox::new();
    let repository = repository(&sandbox);
    let _guest = guest(&sandbox, "");
    let to = sandbox.dir().join("guest/repo");
    fs::create_dir_all(&to).unwrap();
    fs::write(to.join("own"), "somebody's").unwrap();
    let to = to.to_str().unwrap();
    let words = ["web", &repository, "--guest-path", to];
    sandbox.run(PROGRAM, &words).fails(4, "files that banger did not put there");
    assert_eq!(fs::read_dir(sandbox.vm("web").join("workspaces")).unwrap().count(), 0);
    sandbox.run(PROGRAM, &[&words[..], &["--force"]].concat()).ok();
}
