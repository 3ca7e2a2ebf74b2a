//! Two at once: exactly one wins.

use crate::guest::Guest;
use banger_tests::{Sandbox, program};

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
    let names: Vec<_> = std::fs::read_dir(sandbox.state().join("vms"))
        .expect("the VMs")
        .map(|entry| entry.expect("a VM").file_name().to_string_lossy().into_owned())
        .filter(|name| name != ".lock")
        .collect();
    assert_eq!(names.len(), 3, "something is left beside the VMs: {names:?}");
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
    let machines = std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter(|entry| {
            let read = |name| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let environment = String::from_utf8_lossy(&read("environ")).into_owned() + "\0";
            read("comm").starts_with(b"qemu-system") && environment.contains(&mark)
        })
        .count();
    assert_eq!(machines, 1, "one VM, one machine");
    assert_eq!(guest.status(), "running");
    assert_eq!(guest.says("echo alive"), "alive\n");
    guest.run("vm-delete", &["--force", "web"]).ok();
    guest.nothing_remains(&[]);
}
