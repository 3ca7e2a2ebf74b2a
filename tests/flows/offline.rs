//! A VM that does not run gives what it gave while it ran, whatever ended it.

use crate::workspace::World;
use banger_tests::{have, program, run_bounded};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

/// What the image has and the guest changes.
const TREES: [&str; 5] = ["/etc", "/bin", "/srv", "/base-moved", "/tools"];

/// Two thousand files and one of each sort that work is made of.
const REPOSITORY: &str = "git init -q; printf '*.o\\n' >.gitignore
for i in $(seq 2000); do mkdir -p d$((i % 40)); seq $i $((i + i % 90)) >d$((i % 40))/f$i; done
mkdir -p moved/deep gone anew; for i in 1 2 3; do echo $i >moved/deep/m$i; echo $i >gone/g$i; echo $i >anew/a$i; done
ln -s d1 link; head -c 100000 /dev/urandom >binary; echo x >'a b'; printf 'crlf\\r\\n' >crlf
git add -A; git commit -qm one; echo local >>d3/f3; echo staged >staged; git add staged";

/// A day's work.
const WORK: &str = "cd /root/repo; export HOME=/root; git config user.name G; git config user.email g@example.org
git mv moved renamed; git rm -rq gone; git commit -qm 'move and remove'
git checkout -qb side; echo s >side; git add side; git commit -qm side; git checkout -q main; git merge -q side
for i in 1 41 81; do echo edit >>d1/f$i; done; chmod +x d2/f2; ln d4/f4 hard; ln -sf d2 link
rm -r anew; mkdir anew; echo new >anew/only; printf '\\0\\1' >>binary; echo u >'un tracked'; mkfifo pipe
echo o >ignored.o; echo more >d5/f5; git add d5/f5; rm d6/f6; git stash -q -- d2/f42 || true; mkdir empty
git init -q inner; sync";

/// The same sorts of things done to the image's own files: a directory moved, one made anew, a file in whose
/// place there is a directory.
const SYSTEM: &str = "mkdir -p /srv/a/b; echo x >/srv/a/b/x; ln /srv/a/b/x /srv/y; ln -s /srv/a /srv/l
mkfifo /srv/p; mknod /srv/dev c 1 3; chmod 4711 /srv/y; dd if=/dev/zero of=/srv/holes bs=1 count=1 seek=9000000 2>/dev/null
mv /base /base-moved; echo more >>/base-moved/inside; rm -r /tools; mkdir /tools; echo new >/tools/new
mv /etc/group /etc/group-moved; mkdir /etc/group; echo '# more' >>/etc/passwd; touch -d @1500000000 /bin/busybox; sync";

/// What the VM gives: of the workspace, and of the rest of its files.
#[derive(Debug, PartialEq)]
struct Given {
    status: Value,
    patch: String,
    stat: String,
    trees: BTreeMap<&'static str, String>,
}

fn given(world: &World, top: &Path, name: &str) -> Given {
    let mut status = world.guest.run("workspace-status", &["web"]).document().clone();
    assert_eq!(status["is_known"], true, "{name}: {status}");
    let is_live = world.guest.status() == "running";
    let status_of = status.as_object_mut().expect("an object");
    assert_eq!(status_of.remove("is_live"), Some(is_live.into()), "{name}");
    let export = |words: &[&str]| {
        let answer = world.guest.sandbox.raw(program("banger-workspace-export"), words);
        answer.ok().text()
    };
    let (patch, stat) = (export(&["web"]), export(&["--stat", "web"]));
    let mut trees = BTreeMap::new();
    for tree in TREES {
        let from = format!("web:{tree}");
        let words = [from.as_str(), "-"];
        let tar = world.guest.sandbox.raw(program("banger-vm-cp"), &words).ok().stdout.clone();
        let dir = format!("{name}-{}", &tree[1..]);
        world.unpack(top, &dir, &tar);
        let list = "find . -mindepth 1 \\( -type d -printf '%P %y %m %T@\\n' \\) -o -printf '%P %y %m %s %T@ %l %n\\n' | sort; \
            find . -type f -print0 | sort -z | xargs -0r sha256sum; \
            find . -type f -links +1 -printf '%i %P\\n' | sort -k2 | awk '{ if (!($1 in n)) n[$1] = NR; print n[$1], $2 }'";
        trees.insert(tree, world.shell(top, &dir, list));
    }
    Given { status, patch, stat, trees }
}

fn same(one: &Given, other: &Given, what: &str) {
    assert_eq!(one.status, other.status, "{what}");
    assert!(one.patch == other.patch, "{what}: the patches differ");
    assert_eq!(one.stat, other.stat, "{what}");
    for tree in TREES {
        assert_eq!(one.trees[tree], other.trees[tree], "{what}: {tree}");
    }
}

#[test]
fn a_vm_that_does_not_run_gives_what_it_gave_while_it_ran() {
    if !have("git") {
        return;
    }
    let world = World::boot();
    world.bring_git();
    let top = world.repository("offline", REPOSITORY);
    world.prepare(&top, &[]).ok();
    world.anywhere(WORK).ok();
    world.anywhere(SYSTEM).ok();
    let running = given(&world, &top, "running");
    assert!(running.patch.contains("rename to renamed/deep/m1"), "{}", running.stat);
    let work = running.status["unexported"].to_string();
    assert!(work.contains("inner") && work.contains("commits"), "{work}");

    world.guest.run("vm-stop", &["web"]).ok();
    let begin = Instant::now();
    world.guest.run("workspace-status", &["web"]).ok();
    let took = begin.elapsed();
    same(&running, &given(&world, &top, "stopped"), "stopped");
    println!("status of a stopped VM, 2000 files: {took:?}");
    // A path without a slash is below the user's home, which is another disk.
    world.guest.run("vm-cp", &["web:repo/side", top.to_str().expect("text")]).ok();
    assert_eq!(fs::read_to_string(top.join("side")).expect("a file"), "s\n");
    let answer = world.guest.run("vm-cp", &["web:/srv/none", "."]);
    answer.fails(3, "no '/srv/none' in VM 'web'");
    assert!(answer.stderr.contains("once 'banger vm start web' has"), "{}", answer.all());
    let answer = world.guest.run("vm-cp", &["web:/none/none", "."]);
    answer.fails(3, "no directory '/none' in VM 'web'");
    assert!(answer.stderr.contains("once 'banger vm start web' has"), "{}", answer.all());
    world.guest.run("vm-cp", &["/etc/hostname", "web:"]).fails(4, "VM 'web' is stopped");
    let host = top.join("host");
    let words = ["web", host.to_str().expect("text")];
    world.guest.run("workspace-prepare", &words).fails(4, "VM 'web' is stopped");
    world.guest.run("vm-delete", &["web"]).fails(4, "holds work that was not exported");
    nobody_starts_what_is_read(&world);

    for how in ["kill", "crash"] {
        world.guest.run("vm-start", &["web"]).ok();
        let words = format!("echo {how} >>/root/repo/d7/f7; echo {how} >/srv/{how}; sync");
        world.anywhere(&words).ok();
        let running = given(&world, &top, &format!("before-{how}"));
        if how == "kill" {
            world.guest.run("vm-kill", &["web"]).ok();
        } else {
            // Supervisor, VMM and all: nobody brings the disks to rest.
            let supervisor = world.guest.view()["running"]["supervisor"]["pid"].clone();
            let kill = format!("kill -9 {supervisor}");
            world.shell(&top, "host", &kill);
            world.guest.wait_for("error", Duration::from_secs(30));
        }
        same(&running, &given(&world, &top, &format!("after-{how}")), how);
        // A disk that was repaired is a good one.
        let check =
            "for disk in overlay work; do /usr/sbin/e2fsck -fn $1/$disk.ext4 >/dev/null; done";
        let folder = world.guest.folder();
        let words = ["-euc", check, "bash", folder.to_str().expect("text")];
        world.guest.sandbox.raw("/bin/bash", &words).ok();
    }
    // What was exported from the disks is not lost.
    let patch = top.join("patch");
    let words = ["web", "--output", patch.to_str().expect("text")];
    world.guest.run("workspace-export", &words).ok();
    let left = world.guest.run("workspace-status", &["web", "--check"]);
    left.fails(4, "inner");
    assert!(!left.stderr.contains("d7/f7"), "{}", left.all());
    damaged(&world);
    world.guest.run("vm-delete", &["--lose-work", "web"]).ok();
}

/// While a copy goes on, the VM is not started, nor deleted; its end is all that is waited for.
fn nobody_starts_what_is_read(world: &World) {
    let mut copy = world.guest.sandbox.command(program("banger-vm-cp").to_str().expect("text"));
    // Nobody reads what it prints, so it does not end.
    let mut copy = copy.args(["web:/bin", "-"]).stdout(Stdio::piped()).spawn().expect("a copy");
    std::thread::sleep(Duration::from_secs(2));
    assert!(copy.try_wait().expect("its state").is_none(), "the image is too small for this test");
    world.guest.run("vm-start", &["web"]).fails(4, "VM 'web' is being read");
    world.guest.run("vm-delete", &["--lose-work", "web"]).fails(4, "VM 'web' is being read");
    assert_eq!(world.guest.status(), "stopped");
    // Others read meanwhile.
    world.guest.run("workspace-status", &["web"]).ok();
    copy.kill().and_then(|()| copy.wait()).expect("its end");
}

/// Disks that a guest could have written to break who reads them.
fn damaged(world: &World) {
    let work = world.guest.folder().join("work.ext4");
    let debugfs = |request: &str| {
        let words = ["-w", "-R", request, work.to_str().expect("text")];
        let mut command = world.guest.sandbox.command("/usr/sbin/debugfs");
        run_bounded(command.args(words), None, Duration::from_mins(1));
    };
    // A directory that holds itself, and a file that is longer than any disk.
    debugfs("link repo repo/inside");
    debugfs("set_inode_field repo/d1/f41 size 0x7fffffffffff");
    let begin = Instant::now();
    let answer = world.guest.run("workspace-status", &["web", "--timeout", "20"]);
    assert!(begin.elapsed() < Duration::from_secs(40), "{}", answer.all());
    world.guest.run("vm-delete", &["web"]).fails(4, "VM 'web'");
    debugfs("set_inode_field repo mode 0100644");
    let answer = world.guest.run("workspace-status", &["web"]);
    assert_eq!(answer.document()["is_known"], false, "{}", answer.all());
    world.guest.run("vm-delete", &["web"]).fails(4, "it is not known whether");
}
