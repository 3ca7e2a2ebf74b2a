//! The contract of `banger-vm-delete`.
#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_doc::HostPorts;
use banger_lease::Leases;
use banger_state::State;
use banger_tests::Sandbox;
use std::fs;

const DELETE: &str = env!("CARGO_BIN_EXE_banger-vm-delete");

fn two() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    sandbox.plant_vm("db", "alpine", "generic-6.12");
    sandbox
}

#[test]
fn a_vm_goes_whole() {
    let sandbox = two();
    let answer = sandbox.run(DELETE, &["web"]);
    assert_eq!(answer.document()["schema"], "banger.removed/1");
    assert_eq!(answer.document()["name"], "web");
    assert!(!sandbox.vm("web").exists() && sandbox.vm("db").exists());
    let left = fs::read_dir(sandbox.state().join("vms")).unwrap();
    assert_eq!(left.count(), 2, "the other VM and the lock of the shelf");
    sandbox.run(DELETE, &["web"]).fails(3, "no VM 'web'");
}

#[test]
fn a_bad_name_does_not_block_good_ones() {
    let sandbox = two();
    let answer = sandbox.run(DELETE, &["db", "nobody", "web", "db"]);
    answer.fails(3, "no VM 'nobody'");
    assert_eq!(answer.documents.len(), 3);
    assert_eq!(answer.documents[0]["name"], "db");
    assert_eq!(answer.documents[1]["name"], "web");
}

#[test]
fn a_vm_that_runs_is_refused() {
    let sandbox = two();
    let lock = sandbox.vm("web").join("lock");
    let command = format!("exec flock {} {DELETE} web db", lock.display());
    let answer = sandbox.run("/bin/sh", &["-c", &command]);
    answer.fails(4, "VM 'web' is running");
    assert!(sandbox.vm("web").join("vm.json").exists());
    assert!(!sandbox.vm("db").exists());
}

#[test]
fn one_of_many_deletes_wins() {
    let sandbox = two();
    let statuses: Vec<i32> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| sandbox.run(DELETE, &["web"]).status)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 0).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [0, 3, 4].contains(status)), "{statuses:?}");
    assert!(!sandbox.vm("web").exists());
}

#[test]
fn force_ends_a_vm_and_gives_no_work_away() {
    let sandbox = two();
    fs::create_dir_all(sandbox.vm("web").join("workspaces/0123456789abcdef")).unwrap();
    fs::write(sandbox.vm("web").join("workspaces/0123456789abcdef/workspace.json"), "{}").unwrap();
    let check = r#"echo '{"schema":"banger.error/1","kind":"conflict","message":"VM web holds work"}'; exit 4"#;
    let delete = sandbox.beside(DELETE, &[("banger-workspace-status", check)]);
    for words in [&["web"][..], &["-f", "web"], &["--force", "web", "db"]] {
        let answer = sandbox.run(&delete, words);
        answer.fails(4, "VM web holds work");
        assert!(!answer.stderr.contains("lose"), "a hint proposes no loss: {}", answer.all());
        assert!(sandbox.vm("web").exists());
    }
    assert!(!sandbox.vm("db").exists());
    sandbox.run(&delete, &["--keep-work", "web"]).fails(2, "--keep-work");
    sandbox.run(&delete, &["--force", "--lose-work", "web"]).ok();
    assert!(!sandbox.vm("web").exists());
}

/// Gives a VM a port of the host, and returns what is given to VMs now.
fn leases(sandbox: &Sandbox, give: Option<&str>) -> usize {
    let state = State::at(sandbox.state().to_owned()).unwrap();
    let mut leases = Leases::open(&state).unwrap();
    if let Some(name) = give {
        let vm = state.vm(&name.parse().unwrap()).unwrap().vm().unwrap();
        let ports = HostPorts { auto: true, ..HostPorts::default() };
        leases.take(&vm.name, &vm.id, &ports).unwrap();
    }
    leases.list().unwrap().len()
}

#[test]
fn a_tree_that_a_guest_nested_goes_with_its_vm() {
    let sandbox = two();
    let deep = format!(
        "cd {} && for i in $(seq 1500); do mkdir d && cd -P d || exit 1; done; : >file",
        sandbox.vm("web").display()
    );
    sandbox.raw("/bin/sh", &["-c", &deep]).ok();
    sandbox.run("/bin/sh", &["-c", &format!("ulimit -n 200; exec {DELETE} web")]).ok();
    let left = fs::read_dir(sandbox.state().join("vms")).unwrap();
    assert_eq!(left.count(), 2, "the other VM and the lock of the shelf");
}

/// A file system that is mounted in a VM's folder keeps a part of it from going.
#[test]
fn what_is_given_to_a_vm_is_free_once_its_name_is() {
    let sandbox = two();
    assert!(leases(&sandbox, Some("web")) > 0);
    let script = format!(
        "mkdir {0}/held && mount -t tmpfs none {0}/held && exec {DELETE} web",
        sandbox.vm("web").display()
    );
    let answer =
        sandbox.run("unshare", &["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    answer.fails(1, "cannot remove");
    assert!(!sandbox.vm("web").exists(), "its name is free");
    assert_eq!(leases(&sandbox, None), 0);
}

#[test]
fn what_a_killed_apply_laid_ready_on_the_host_goes_with_its_vm() {
    let sandbox = two();
    let checkout = sandbox.dir().join("repo");
    fs::create_dir(&checkout).unwrap();
    for file in [".banger-7-9-0", ".banger-8-9-0"] {
        fs::write(checkout.join(file), "x").unwrap();
    }
    let workspace = sandbox.vm("web").join("workspaces/0000000000000001");
    fs::create_dir_all(&workspace).unwrap();
    fs::write(workspace.join("workspace.json"), "x").unwrap();
    let about =
        serde_json::json!({"root": checkout, "mark": ".banger-7-9-", "dirs": [b""], "goes": []});
    fs::write(workspace.join("applying.json"), about.to_string()).unwrap();
    sandbox.run(DELETE, &["--lose-work", "web"]).ok();
    assert!(!checkout.join(".banger-7-9-0").exists() && checkout.join(".banger-8-9-0").exists());
}
