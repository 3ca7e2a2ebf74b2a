//! The contract of `banger-gc`.

use banger_tests::{Sandbox, program};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

const GC: &str = env!("CARGO_BIN_EXE_banger-gc");

#[test]
fn an_empty_state_has_nothing_to_remove() {
    let sandbox = Sandbox::new();
    let answer = sandbox.run(GC, &[]);
    assert!(answer.ok().documents.is_empty());
}

#[test]
fn half_made_folders_go_and_objects_stay() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    let litter = sandbox.state().join("images/.new-web-999999");
    fs::create_dir_all(&litter).unwrap();
    fs::write(litter.join("rootfs.ext4"), vec![1; 8192]).unwrap();
    let old = sandbox.state().join("images/.old-web-999999");
    fs::create_dir_all(&old).unwrap();
    let temporary = sandbox.state().join("images/alpine/.image.json.4194999.0");
    fs::write(&temporary, "half").unwrap();

    let would = sandbox.run(GC, &["--dry-run"]);
    assert_eq!(would.ok().documents.len(), 3, "{would:?}");
    assert!(litter.exists() && old.exists() && temporary.exists());

    let did = sandbox.run(GC, &[]);
    assert_eq!(did.ok().documents.len(), 3, "{did:?}");
    let freed: Vec<_> = did.documents.iter().map(|d| d["freed_bytes"].as_u64().unwrap()).collect();
    assert!(freed.iter().any(|bytes| *bytes >= 8192), "{freed:?}");
    assert!(!litter.exists() && !old.exists() && !temporary.exists());
    assert!(sandbox.state().join("images/alpine/image.json").exists());
    assert!(sandbox.run(GC, &[]).ok().documents.is_empty());
}

#[test]
fn what_was_allowed_to_a_repository_that_is_gone_is_forgotten() {
    let sandbox = Sandbox::new();
    let dir = sandbox.state().join("allowed");
    fs::create_dir_all(&dir).unwrap();
    let here = sandbox.dir().to_str().unwrap().to_owned();
    for (name, path) in [("here", here.as_str()), ("gone", "/nowhere/at/all")] {
        let text = format!(
            r#"{{"schema":"banger.allowed/1","path":"{path}","files":[],"allowed_unix_ms":1}}"#
        );
        fs::write(dir.join(format!("{name}.json")), text).unwrap();
    }
    fs::write(dir.join("odd.json"), "{}").unwrap();
    let removed = sandbox.run(GC, &[]);
    assert_eq!(removed.ok().documents.len(), 1, "{removed:?}");
    assert_eq!(removed.documents[0]["what"], "allowed");
    assert!(dir.join("here.json").exists() && !dir.join("gone.json").exists());
}

#[test]
fn what_a_repository_keeps_of_a_vm_goes_once_it_is_long_gone() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    sandbox.plant_kernel("generic-6.12");
    let id = sandbox.plant_vm("web", "alpine", "generic-6.12")["id"].as_str().unwrap().to_owned();
    let repository = sandbox.dir().join("repo/.git").to_str().unwrap().to_owned();
    let sh = |script: &str| {
        let script = format!("cd {}; {script}", sandbox.dir().display());
        sandbox.raw("/bin/sh", &["-ec", &script]).ok().text()
    };
    let oid = sh(
        "git init -q repo; cd repo; git -c user.name=A -c user.email=a@b commit -q --allow-empty -m x; \
         git update-ref refs/banger/web/$(git rev-parse HEAD) HEAD; git update-ref refs/banger/web/mine HEAD; \
         git pack-refs --all; git rev-parse HEAD",
    );
    let oid = oid.trim();
    let kept = sandbox.state().join("kept");
    fs::create_dir_all(&kept).unwrap();
    let write = |name: &str, vm_id: &str, repository: &str| {
        let text = format!(
            r#"{{"schema":"banger.kept/1","vm":"web","vm_id":"{vm_id}","repository":"{repository}",
                "object_format":"sha1","references":["refs/banger/web/{oid}"],"kept_unix_ms":1}}"#
        );
        fs::write(kept.join(format!("{name}.json")), text.replace('\n', "")).unwrap();
    };
    let refs = || sh("git -C repo for-each-ref refs/banger | wc -l").trim().to_owned();
    write("web", &id, &repository);
    write("lost", &id, "/nowhere/at/all");
    sandbox.config("pulled_keep_days = 0\n");
    let dry = sandbox.run(GC, &["--dry-run"]);
    assert_eq!(dry.ok().documents.len(), 1, "{dry:?}");
    let removed = sandbox.run(GC, &[]);
    assert_eq!((removed.ok().documents.len(), refs().as_str()), (1, "2"), "the VM is there");
    // A VM of that name that is gone kept the same commit: it stays the other's.
    write("gone", "of-another", &repository);
    assert_eq!(sandbox.run(GC, &[]).ok().documents.len(), 1);
    assert_eq!((refs().as_str(), kept.join("web.json").exists()), ("2", true));
    write("web", "of-another", &repository);
    sandbox.config("pulled_keep_days = 1\n");
    assert!(sandbox.run(GC, &[]).ok().documents.is_empty());
    assert!(fs::read_to_string(kept.join("web.json")).unwrap().contains("gone_unix_ms"));
    sandbox.config("pulled_keep_days = 0\n");
    assert_eq!(sandbox.run(GC, &["--dry-run"]).ok().documents.len(), 1);
    assert_eq!(refs(), "2");
    let removed = sandbox.run(GC, &[]);
    assert_eq!(removed.ok().documents[0]["what"], "kept");
    assert_eq!(refs(), "1", "what somebody else made stays");
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 0);
    write("file", "of-another", &format!("{repository}/HEAD"));
    sandbox.run(GC, &[]).fails(1, "file.json");
    fs::remove_file(kept.join("file.json")).unwrap();
    fs::write(kept.join("odd.json"), "{}").unwrap();
    assert_eq!(sandbox.run(GC, &[]).status, 1);
}

#[test]
fn what_a_living_program_holds_stays() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    let held = sandbox.state().join("images/.new-held-1");
    fs::create_dir_all(&held).unwrap();
    // flock(1) holds the lock on the folder as a program at work would.
    let mut holder = Command::new("flock")
        .arg("--no-fork")
        .arg(&held)
        .args(["sh", "-c", "echo held; exec sleep 20"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut reader = std::io::BufReader::new(holder.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    let answer = sandbox.run(GC, &[]);
    let _ = holder.kill();
    let _ = holder.wait();
    assert!(answer.ok().documents.is_empty(), "{answer:?}");
    assert!(held.exists());
}

#[test]
fn a_prepare_at_work_keeps_what_it_makes_and_a_killed_one_does_not_though_the_vm_runs() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let lock = File::create(sandbox.vm("web").join("lock")).unwrap();
    let hold = |file| {
        nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock)
            .map_err(|(_, error)| error)
            .unwrap()
    };
    let _runs = hold(lock);
    let [held, killed] = ["0123456789abcdef", "fedcba9876543210"]
        .map(|name| sandbox.vm("web").join("workspaces").join(name));
    for folder in [&held, &killed] {
        fs::create_dir_all(folder.join(".tmp-1")).unwrap();
    }
    let _at_work = hold(File::open(&held).unwrap());
    let answer = sandbox.run(GC, &[]);
    let name = killed.strip_prefix(sandbox.state()).unwrap().to_str().unwrap();
    assert_eq!(answer.ok().document()["name"], name, "{}", answer.all());
    assert!(held.join(".tmp-1").exists() && !killed.exists());
}

#[test]
fn whatever_a_killed_program_leaves_goes_and_is_reported() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let litter = [
        "cache/.old-4194999-0/blobs",
        "cache/partial/0123.4194999",
        "cache/partial/0123.4194999-7",
        "cache/oci/.index.json.4194999.0",
        "ssh/.new-key/key",
        ".layout.4194999.0",
        "vms/web/ssh/.known_host.4194999.3",
        "vms/web/run/channel.sock",
        "vms/web/workspaces/0123456789abcdef/.tmp-4194999/x",
        "vms/web/workspaces/fedcba9876543210/repo.git",
        "vms/.new-db-4194999/spec.json",
    ];
    let kept = [
        "cache/partial/0123",
        "cache/oci/index.json",
        "vms/web/workspaces/0123456789abcdef/workspace.json",
        "vms/web/workspaces/00000000ffffffff/applying.json",
    ];
    for path in litter.iter().chain(&kept) {
        let path = sandbox.state().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    let would = sandbox.run(GC, &["--dry-run"]);
    assert_eq!(would.ok().documents.len(), litter.len(), "{}", would.all());
    let did = sandbox.run(GC, &[]);
    assert_eq!(did.ok().documents.len(), litter.len(), "{}", did.all());
    for path in litter {
        assert!(!sandbox.state().join(path).exists(), "{path} is left");
    }
    for path in kept.iter().chain(&["vms/web/vm.json", "vms/web/work.ext4"]) {
        assert!(sandbox.state().join(path).exists(), "{path} is gone");
    }
    assert!(sandbox.run(GC, &[]).ok().documents.is_empty());
}

#[test]
fn what_a_killed_apply_laid_ready_on_the_host_goes_and_nothing_else_there() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let all = sandbox.vm("web").join("workspaces");
    let checkout = |name: &str| {
        let checkout = sandbox.dir().join(name);
        fs::create_dir_all(checkout.join("d")).unwrap();
        for file in ["a", ".banger-7-1", ".banger-7-9-0", "d/.banger-7-9-1", "d/.banger-8-9-1"] {
            fs::write(checkout.join(file), "x").unwrap();
        }
        checkout
    };
    let plant = |id: &str, root: &Path, mark: &str| {
        fs::create_dir_all(all.join(id)).unwrap();
        let dirs: [&[u8]; 3] = [b"", b"d", b"gone"];
        let about = json!({"root": root, "mark": mark, "dirs": dirs, "goes": [b"b"]});
        fs::write(all.join(id).join("applying.json"), about.to_string()).unwrap();
        all.join(id)
    };
    let (one, other, held) = (checkout("one"), checkout("other"), checkout("held"));
    let there = plant("0000000000000001", &one, ".banger-7-9-");
    fs::write(there.join("workspace.json"), "x").unwrap();
    let forgotten = plant("0000000000000002", &other, ".banger-7-9-");
    let away = plant("0000000000000003", &sandbox.dir().join("away"), ".banger-7-9-");
    plant("0000000000000004", &one, "a");
    let at_work = plant("0000000000000005", &held, ".banger-7-9-");
    let exclusive = nix::fcntl::FlockArg::LockExclusiveNonblock;
    let _at_work = nix::fcntl::Flock::lock(File::open(&at_work).unwrap(), exclusive).unwrap();

    let names = |words: &[&str]| {
        let answer = sandbox.run(GC, words);
        let name = |removed: &Value| removed["name"].as_str().unwrap().to_owned();
        answer.ok().documents.iter().map(name).collect::<Vec<_>>()
    };
    let would = names(&["--dry-run"]);
    assert!(one.join("d/.banger-7-9-1").exists(), "{would:?}");
    assert_eq!(names(&[]), would);
    let shown = |path: PathBuf| path.display().to_string();
    assert_eq!(
        would,
        [
            shown(one.join(".banger-7-9-0")),
            shown(one.join("d/.banger-7-9-1")),
            shown(other.join(".banger-7-9-0")),
            shown(other.join("d/.banger-7-9-1")),
            "vms/web/workspaces/0000000000000002".into(),
            "vms/web/workspaces/0000000000000004".into(),
        ]
    );
    for dir in [&one, &other] {
        for kept in ["a", ".banger-7-1", "d/.banger-8-9-1"] {
            assert!(dir.join(kept).exists(), "{kept} is gone");
        }
        assert!(!dir.join(".banger-7-9-0").exists() && !dir.join("d/.banger-7-9-1").exists());
    }
    // The next apply asks what was to go; and the checkout may lie on a disk that comes back.
    assert!(there.join("applying.json").exists() && away.join("applying.json").exists());
    assert!(!forgotten.exists() && held.join(".banger-7-9-0").exists());
    assert_eq!(names(&[]), [""; 0]);
}

/// Starts a process that bears the mark of a VM, as what a supervisor starts does.
fn marked(state: &Path, id: &str) -> Child {
    let mark = format!("{id} {}", state.display());
    Command::new("sleep").arg("60").env("BANGER_RUN", mark).spawn().expect("a process")
}

#[test]
fn processes_of_runs_that_ended_go_and_no_others() {
    let sandbox = Sandbox::new();
    let id =
        |name| sandbox.plant_vm(name, "alpine", "generic-6.12")["id"].as_str().unwrap().to_owned();
    let (dead, live) = (id("dead"), id("live"));
    let lock = File::create(sandbox.vm("live").join("lock")).unwrap();
    let exclusive = nix::fcntl::FlockArg::LockExclusiveNonblock;
    let _lock = nix::fcntl::Flock::lock(lock, exclusive).map_err(|(_, error)| error).unwrap();
    let elsewhere = Sandbox::new();
    elsewhere.plant_state();

    let mut orphan = marked(sandbox.state(), &dead);
    let mut of_no_vm = marked(sandbox.state(), &"0".repeat(32));
    let mut of_a_living_vm = marked(sandbox.state(), &live);
    let mut of_another_state = marked(elsewhere.state(), &dead);
    let mut without_mark = Command::new("sleep").arg("60").current_dir(sandbox.vm("dead")).spawn();

    let would = sandbox.run(GC, &["--dry-run"]);
    let did = sandbox.run(GC, &[]);
    let alive = |child: &mut Child| child.try_wait().unwrap().is_none();
    let left = [&mut orphan, &mut of_no_vm, &mut of_a_living_vm, &mut of_another_state].map(alive);
    let untouched = alive(without_mark.as_mut().unwrap());
    for child in [
        &mut orphan,
        &mut of_no_vm,
        &mut of_a_living_vm,
        &mut of_another_state,
        without_mark.as_mut().unwrap(),
    ] {
        let _ = child.kill();
        let _ = child.wait();
    }
    assert_eq!(left, [false, false, true, true]);
    assert!(untouched, "a process without the mark was ended");
    assert_eq!(would.ok().documents.len(), 2, "{}", would.all());
    assert_eq!(did.ok().documents.len(), 2, "{}", did.all());
    assert!(did.documents.iter().all(|one| one["what"] == "process"), "{}", did.all());
}

#[test]
fn a_wrong_option_is_a_usage_error() {
    Sandbox::new().run(GC, &["--all"]).fails(2, "--all");
}

#[test]
fn leases_of_vms_that_are_gone_are_taken_back() {
    let sandbox = Sandbox::new();
    for vm in ["web", "gone"] {
        sandbox.plant_vm(vm, "alpine", "generic-6.12");
    }
    for (vm, ports) in [("web", "8080:80"), ("gone", "127.0.0.1:8081:80")] {
        sandbox.run(program("banger-vm-set"), &[vm, "--publish", ports]).ok();
    }
    assert!(sandbox.run(GC, &[]).ok().documents.is_empty());
    // As a program that is killed after it removed the folder leaves it.
    fs::remove_dir_all(sandbox.vm("gone")).unwrap();
    for args in [&["--dry-run"][..], &[]] {
        let answer = sandbox.run(GC, args);
        let removed = answer.document();
        assert_eq!(
            (&removed["what"], &removed["name"]),
            (&"lease".into(), &"127.0.0.1:8081".into())
        );
    }
    assert!(sandbox.run(GC, &[]).ok().documents.is_empty());
}
