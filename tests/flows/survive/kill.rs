//! The kill matrix: a program is killed before each thing it changes. Afterwards the state is valid,
//! the same command succeeds, and `gc` leaves what an undisturbed run leaves.

use super::{
    case::{Case, Disturbance},
    create, folder, hold_guests, must_be_valid, restart_and_stop, start_and_stop,
    trace::Stage,
};
use crate::{fixture, registry::Registry, tape};
use banger_tests::{Answer, Sandbox, program};
use std::{fs, process::Stdio, time::Duration};

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.set_limit(Duration::from_mins(2));
    sandbox
}

fn nothing(_: &str) -> bool {
    false
}

#[test]
fn a_pull_survives_a_kill_anywhere() {
    let sandbox = sandbox();
    let registry = Registry::start();
    let reference = format!("{}/busybox:1", registry.address);
    fs::create_dir(sandbox.state()).expect("an empty state");
    fs::set_permissions(sandbox.state(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("its mode");
    Case {
        sandbox: &sandbox,
        stage: Stage::new(&sandbox),
        programs: &["banger-image-pull"],
        disturbances: &[Disturbance::Kill],
        run: &|stage| sandbox.run(stage.program("banger-image-pull"), &[&reference]),
        again: &[0],
        ignore: &nothing,
    }
    .survives();
}

#[test]
fn an_import_and_a_register_survive_a_kill_anywhere() {
    let sandbox = sandbox();
    let tar = sandbox.dir().join("root.tar");
    fs::write(&tar, tape::archive(&[tape::Entry::file("hello", 0o644, "hello\n")])).expect("a tar");
    let tar = tar.to_str().expect("text").to_owned();
    sandbox.plant_image("other");
    sandbox.plant_kernel("generic-6.12");
    Case {
        sandbox: &sandbox,
        stage: Stage::new(&sandbox),
        programs: &["banger-image-import"],
        disturbances: &[Disturbance::Kill],
        run: &|stage| sandbox.run(stage.program("banger-image-import"), &[&tar, "--name", "mine"]),
        again: &[0, 4],
        ignore: &nothing,
    }
    .survives();

    let disk = folder(&sandbox, "mine").join("disk.ext4");
    fs::rename(sandbox.state().join("images/other/rootfs.ext4"), &disk).expect("a disk");
    fs::remove_dir_all(sandbox.state()).expect("the state");
    sandbox.plant_kernel("generic-6.12");
    let disk = disk.to_str().expect("text").to_owned();
    Case {
        sandbox: &sandbox,
        stage: Stage::new(&sandbox),
        programs: &["banger-image-register"],
        disturbances: &[Disturbance::Kill],
        run: &|stage| {
            let words = ["--name", "mine", "--rootfs", &disk, "--kernel-ref", "generic-6.12"];
            sandbox.run(stage.program("banger-image-register"), &words)
        },
        again: &[0, 4],
        ignore: &nothing,
    }
    .survives();
}

#[test]
fn create_set_delete_and_prune_survive_a_kill_anywhere() {
    let sandbox = sandbox();
    sandbox.plant_image("alpine");
    sandbox.plant_kernel("generic-6.12");
    let case = |programs: &'static [&'static str], run: &dyn Fn(&Stage) -> Answer, again| {
        Case {
            sandbox: &sandbox,
            stage: Stage::new(&sandbox),
            programs,
            disturbances: &[Disturbance::Kill],
            run,
            again,
            ignore: &nothing,
        }
        .survives();
    };
    let words = ["--no-start", "--image", "alpine", "--kernel", "generic-6.12", "--name", "web"];
    let words: Vec<&str> = words.iter().copied().chain(["--ports", "auto"]).collect();
    case(
        &["banger-vm-create"],
        &|stage| sandbox.run(stage.program("banger-vm-create"), &words),
        &[0, 4],
    );
    case(
        &["banger-vm-set"],
        &|stage| {
            let words = ["web", "--vcpu", "2", "--disk-size", "99G", "--overlay-size", "99G"];
            sandbox.run(stage.program("banger-vm-set"), &words)
        },
        &[0],
    );
    create(&sandbox, "db", "alpine").ok();
    case(
        &["banger-vm-prune", "banger-vm-delete"],
        &|stage| sandbox.run(stage.program("banger-vm-prune"), &["--force"]),
        &[0],
    );
    create(&sandbox, "web", "alpine").ok();
    create(&sandbox, "db", "alpine").ok();
    case(
        &["banger-vm-delete"],
        &|stage| sandbox.run(stage.program("banger-vm-delete"), &["web", "db"]),
        &[0, 3],
    );
}

/// A VM whose guest is held before its first instruction is started and stopped, and its supervisor
/// killed anywhere between.
#[test]
fn start_and_stop_survive_a_kill_anywhere() {
    let sandbox = sandbox();
    fixture::kernel(&sandbox);
    sandbox.plant_image("empty");
    hold_guests(&sandbox);
    create(&sandbox, "web", "empty").ok();
    let survives = |programs: &[&str], run: &dyn Fn(&Stage) -> Answer| {
        Case {
            sandbox: &sandbox,
            stage: Stage::new(&sandbox),
            programs,
            disturbances: &[Disturbance::Kill],
            run,
            again: &[0],
            // A second run keeps the console of the first.
            ignore: &|path| path == "vms/web/console.log.1",
        }
        .survives();
    };
    survives(&["banger-vm-start", "banger-vm-stop", "banger-vm-supervise"], &|stage| {
        start_and_stop(&sandbox, stage)
    });
    survives(&["banger-vm-restart"], &|stage| restart_and_stop(&sandbox, stage));
}

/// A guest that runs is stopped and its supervisor killed on the way: while the guest shuts down,
/// before the end is written down, before the run is tidied up.
#[test]
fn a_stop_of_a_running_guest_survives_three_kills() {
    let guest = crate::guest::Guest::create("busybox:1", &["sh", "-c"]);
    let sandbox = &guest.sandbox;
    let stage = Stage::new(sandbox);
    let points = [
        None,
        // The record of the end is the only thing that it waits for the disk with.
        Some("-e inject=fdatasync:signal=KILL:when=1"),
        Some("-P running.json -e inject=unlink:signal=KILL"),
    ];
    for (number, point) in points.iter().enumerate() {
        if let Some(words) = point {
            stage.trace("banger-vm-supervise", words);
        }
        sandbox.run(stage.program("banger-vm-start"), &["web"]).ok();
        // What was written and synced before a kill is there after it.
        for earlier in 0..number {
            assert_eq!(guest.says(&format!("cat /root/{earlier}")), format!("{earlier}\n"));
        }
        guest.says(&format!("echo {number} > /root/{number}; sync"));
        let pid = guest.pids()[0];
        let mut stop = sandbox.command(program("banger-vm-stop"));
        let mut stop = stop.arg("web").stdout(Stdio::null()).spawn().expect("a stop");
        if point.is_none() {
            guest.wait_for("stopping", Duration::from_secs(20));
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
        }
        assert!(stop.wait().expect("its status").success(), "the stop at point {number}");
        stage.plain("banger-vm-supervise");
        guest.wait_for("error", Duration::from_secs(5));
        guest.nothing_remains(&[pid]);
        must_be_valid(sandbox, "a kill during a stop");
    }
    guest.run("gc", &[]).ok();
    guest.run("vm-start", &["web"]).ok();
    assert_eq!(guest.says("cat /root/0 /root/1 /root/2"), "0\n1\n2\n");
    guest.run("vm-stop", &["web"]).ok();
    assert_eq!(guest.view()["last_exit"]["disks_clean"], true, "{}", guest.view());
}

/// Work of a VM that does not run is exported, and the program killed anywhere: its copy is there whole or not at
/// all, and nothing counts as out before the file is there.
#[test]
fn an_export_survives_a_kill_anywhere() {
    let guest = crate::guest::Guest::boot("busybox:1", &["sh", "-c"]);
    let sandbox = &guest.sandbox;
    sandbox.set_limit(Duration::from_mins(2));
    let make = "git init -q repo; cd repo; seq 9 >a; git add a; git -c user.name=A -c user.email=a@b commit -qm one; echo mine >>a";
    sandbox.raw("/bin/sh", &["-ec", make]).ok();
    guest.run("workspace-prepare", &["web", "repo"]).ok();
    guest.says("echo guest >>a; echo n >n");
    guest.run("vm-stop", &["web"]).ok();
    let file = sandbox.dir().join("work.patch");
    let file = file.to_str().expect("text");
    let copies = sandbox.state().join("exports");
    Case {
        sandbox,
        stage: Stage::new(sandbox),
        programs: &["banger-workspace-export"],
        disturbances: &[Disturbance::Kill],
        run: &|stage| {
            let _ = fs::remove_file(file);
            let answer =
                sandbox.run(stage.program("banger-workspace-export"), &["web", "--output", file]);
            // Whatever became of it, what is there is all of it, and what counts is there.
            let folders = fs::read_dir(sandbox.vm("web").join("workspaces")).expect("a folder");
            let records = folders.flatten().map(|one| one.path().join("workspace.json"));
            let record: String =
                records.map(|path| fs::read_to_string(path).expect("a record")).collect();
            let counts = record.contains("\"exported\"");
            let is_whole = |path: &std::path::Path| {
                fs::read_to_string(path).is_ok_and(|text| text.ends_with("@@ -0,0 +1 @@\n+n\n"))
            };
            assert!(!counts || is_whole(file.as_ref()), "it counts as out, and is not there");
            for copy in fs::read_dir(&copies).expect("the copies").flatten() {
                let is_work = copy.file_name().to_string_lossy().starts_with('.');
                assert!(is_work || is_whole(&copy.path().join("patch")), "{copy:?}");
            }
            answer
        },
        again: &[0],
        // A copy that came before the kill stays, and the second run makes another.
        ignore: &|path| path.starts_with("exports/web-"),
    }
    .survives();
    let kept = sandbox.run(program("banger-workspace-exports"), &["web"]);
    assert!(!kept.ok().documents.is_empty());
}
