//! Two at once: exactly one wins.

use crate::guest::Guest;
use banger_tests::{Sandbox, program};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{self, File},
    thread::sleep,
    time::{Duration, Instant},
};

#[test]
fn of_sixteen_creates_of_one_name_one_wins() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    sandbox.plant_kernel("generic-6.12");
    for round in 0..3 {
        let name = format!("web-{round}");
        let words =
            ["--no-start", "--image", "alpine", "--kernel", "generic-6.12", "--name", &name];
        let statuses: Vec<i32> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|_| scope.spawn(|| sandbox.run(program("banger-vm-create"), &words).status))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
        });
        assert_eq!(statuses.iter().filter(|status| **status == 0).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 4).count(), 15, "{statuses:?}");
    }
    let names: Vec<_> = fs::read_dir(sandbox.state().join("vms"))
        .expect("the VMs")
        .map(|entry| entry.expect("a VM").file_name().to_string_lossy().into_owned())
        .filter(|name| name != ".lock")
        .collect();
    assert_eq!(names.len(), 3, "something is left beside the VMs: {names:?}");
}

/// Whoever deletes what a VM is made of and whoever makes that VM do not wait for each other, and
/// no VM is left without.
#[test]
fn a_kernel_or_an_image_is_deleted_or_gets_its_vm() {
    let sandbox = Sandbox::new();
    sandbox.plant_state();
    let create = ["--no-start", "--image", "alpine", "--kernel", "mine", "--name", "web"];
    for round in 0..8 {
        for shelf in ["images/alpine", "kernels/mine", "vms/web"] {
            let _ = fs::remove_dir_all(sandbox.state().join(shelf));
        }
        sandbox.plant_image("alpine");
        sandbox.plant_kernel("mine");
        let delete = [("banger-kernel-delete", "mine"), ("banger-image-delete", "alpine")];
        let (delete, what) = delete[round % 2];
        let [made, deleted] = std::thread::scope(|scope| {
            let made = scope.spawn(|| sandbox.run(program("banger-vm-create"), &create));
            // Both come to a lock that somebody has for a moment.
            let folder = sandbox.state().join("vms");
            let begun = || {
                let names = fs::read_dir(&folder).into_iter().flatten().flatten();
                let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
                names.any(|name| name.starts_with(".new-web-") || name == "web")
            };
            let end = Instant::now() + Duration::from_secs(20);
            while !begun() {
                assert!(Instant::now() < end, "no VM is begun");
                sleep(Duration::from_micros(200));
            }
            let lock = File::create(folder.join(".lock")).expect("the lock");
            let lock = Flock::lock(lock, FlockArg::LockExclusive).expect("the lock");
            let deleted = scope.spawn(|| sandbox.run(program(delete), &[what]));
            sleep(Duration::from_millis(300));
            drop(lock);
            [made, deleted].map(|thread| thread.join().expect("a thread"))
        });
        for answer in [&made, &deleted] {
            assert!(answer.took < Duration::from_secs(15), "{:?}: {}", answer.took, answer.all());
        }
        // One of both works, and the other says why it does not.
        let (made, deleted) = (made.status, deleted.status);
        assert!(matches!((made, deleted), (0, 4) | (3 | 5, 0)), "{made} and {deleted}");
        assert_eq!(sandbox.vm("web").exists(), made == 0);
    }
}

#[test]
fn of_two_starts_of_one_vm_one_starts_it() {
    let guest = Guest::create("busybox:1", &["sh", "-c"]);
    let answers = std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(|| guest.run("vm-start", &["web"])));
        threads.map(|thread| thread.join().expect("a thread"))
    });
    // The other one finds it running or on its way: a success or a conflict, never a second VM.
    assert!(answers.iter().any(|answer| answer.status == 0), "{}", answers[0].all());
    assert!(answers.iter().all(|answer| [0, 4].contains(&answer.status)), "{}", answers[1].all());
    let mark = format!(" {}\0", guest.sandbox.state().display());
    let machines = fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter(|entry| {
            let read = |name| fs::read(entry.path().join(name)).unwrap_or_default();
            let environment = String::from_utf8_lossy(&read("environ")).into_owned() + "\0";
            read("comm").starts_with(b"qemu-system") && environment.contains(&mark)
        })
        .count();
    assert_eq!(machines, 1, "one VM, one machine");
    assert_eq!(guest.status(), "running");
    assert_eq!(guest.says("echo alive"), "alive\n");
    guest.run("vm-delete", &["--force", "--lose-work", "web"]).ok();
    guest.nothing_remains(&[]);
}
