//! A disk that is full or broken: each thing a program writes, makes or renames is refused once. One
//! clear error, a valid state, and the same command works when the disk does.

use super::{
    case::{Case, Disturbance, MOST},
    create, hold_guests, soak, start_and_stop,
    trace::Stage,
};
use crate::{fixture, registry::Registry, tape};
use banger_tests::{Answer, Sandbox, program};
use std::{fs, time::Duration};

const REFUSED: &[Disturbance] = &[Disturbance::NoSpace, Disturbance::Broken];

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.set_limit(Duration::from_mins(2));
    sandbox
}

fn survives(sandbox: &Sandbox, programs: &[&str], run: &dyn Fn(&Stage) -> Answer, again: &[i32]) {
    let stage = Stage::new(sandbox);
    let most = if soak() { usize::MAX } else { MOST };
    let ignore = &|path: &str| path == "vms/web/console.log.1";
    Case { sandbox, stage, programs, most, disturbances: REFUSED, run, again, ignore }.survives();
}

#[test]
fn images_survive_a_full_or_broken_disk() {
    let sandbox = sandbox();
    sandbox.plant_state();
    let registry = Registry::start();
    let reference = format!("{}/busybox:1", registry.address);
    survives(
        &sandbox,
        &["banger-image-pull"],
        &|stage| sandbox.run(stage.program("banger-image-pull"), &[&reference]),
        &[0],
    );
    let tar = sandbox.dir().join("root.tar");
    fs::write(&tar, tape::archive(&[tape::Entry::file("hello", 0o644, "hello\n")])).expect("a tar");
    let tar = tar.to_str().expect("text");
    survives(
        &sandbox,
        &["banger-image-import"],
        &|stage| sandbox.run(stage.program("banger-image-import"), &[tar, "--name", "mine"]),
        &[0, 4],
    );
}

#[test]
fn vms_survive_a_full_or_broken_disk() {
    let sandbox = sandbox();
    sandbox.plant_image("alpine");
    sandbox.plant_kernel("generic-6.12");
    let words = ["--no-start", "--image", "alpine", "--kernel", "generic-6.12", "--name", "web"];
    survives(
        &sandbox,
        &["banger-vm-create"],
        &|stage| sandbox.run(stage.program("banger-vm-create"), &words),
        &[0, 4],
    );
    survives(
        &sandbox,
        &["banger-vm-set"],
        &|stage| {
            let words = ["web", "--vcpu", "2", "--disk-size", "99G", "--overlay-size", "99G"];
            sandbox.run(stage.program("banger-vm-set"), &words)
        },
        &[0],
    );
    survives(
        &sandbox,
        &["banger-vm-delete"],
        &|stage| sandbox.run(stage.program("banger-vm-delete"), &["web"]),
        &[0, 3],
    );
}

/// Whatever the supervisor cannot write: the VM ends when it is stopped, and nothing of it is left.
#[test]
fn a_stop_ends_the_vm_whatever_is_refused() {
    let sandbox = sandbox();
    fixture::kernel(&sandbox);
    sandbox.plant_image("empty");
    hold_guests(&sandbox);
    create(&sandbox, "web", "empty").ok();
    let most = if soak() { usize::MAX } else { 12 };
    let cycle = |stage: &Stage| {
        let answer = start_and_stop(&sandbox, stage);
        let view = sandbox.run(program("banger-vm-show"), &["web"]).document().clone();
        let status = view["status"].as_str().unwrap_or_default().to_owned();
        assert!(["created", "stopped", "error"].contains(&status.as_str()), "{view}");
        answer
    };
    Case {
        sandbox: &sandbox,
        stage: Stage::new(&sandbox),
        programs: &["banger-vm-start", "banger-vm-stop", "banger-vm-supervise"],
        most,
        disturbances: REFUSED,
        run: &cycle,
        again: &[0],
        ignore: &|path| path == "vms/web/console.log.1",
    }
    .survives();
}

/// A real file system with less and less room: `create` and `import` work or say that there is none.
#[test]
fn a_real_disk_that_is_full_is_said_and_nothing_is_lost() {
    let sandbox = sandbox();
    sandbox.plant_image("alpine");
    sandbox.plant_kernel("generic-6.12");
    let template = sandbox.dir().join("template");
    super::copy(sandbox.state(), &template);
    let tar = sandbox.dir().join("root.tar");
    let content = vec![7; 100_000];
    fs::write(&tar, tape::archive(&[tape::Entry::file("much", 0o644, content)])).expect("a tar");
    let bin = program("banger");
    let bin = bin.parent().expect("a folder");
    // Mounts are seen by this script alone, and end with it.
    let script = r#"
set -eu
mount -t tmpfs -o size=8m,mode=0700 tmpfs "$BANGER_STATE"
cp -a --sparse=always "$TEMPLATE/." "$BANGER_STATE/"
fails=0 works=0
valid() {
  env PATH=/nonexistent "$BIN/banger-doctor" | jq -e -s 'any(.name == "state" and .outcome == "pass")' > valid ||
    { echo "the state is not valid with $1 blocks left of $2: $("$BIN/banger-doctor")"; exit 9; }
}
attempt() {
  left=$1; shift
  rm -f "$BANGER_STATE/filler"
  dd if=/dev/zero of="$BANGER_STATE/filler" bs=4096 2> dd || true
  truncate -s -$((left * 4096)) "$BANGER_STATE/filler"
  if "$@" > out 2> err; then
    works=$((works + 1))
  else
    status=$?
    fails=$((fails + 1))
    grep -q -i 'no space left on device' err || { echo "$* with $left blocks: $(cat err)"; exit 9; }
    [ "$status" = 1 ] || { echo "status $status of $*"; exit 9; }
    [ "$(grep -c banger.error/1 out)" = 1 ] || { echo "not one error: $(cat out)"; exit 9; }
  fi
  valid "$left" "$*"
  rm "$BANGER_STATE/filler"
}
for left in $(seq 0 $STEP 60); do
  attempt "$left" "$BIN/banger-vm-create" --no-start --image alpine --kernel generic-6.12 --name "web-$left"
  attempt "$left" "$BIN/banger-image-import" "$TAR" --name "mine-$left"
  "$BIN/banger-vm-prune" --force > out
  "$BIN/banger-image-delete" "mine-$left" > out 2>&1 || true
  "$BIN/banger-gc" > gc
done
"$BIN/banger-vm-create" --no-start --image alpine --kernel generic-6.12 --name last > out
"$BIN/banger-gc" > gc
[ ! -s gc ] || { echo "left: $(cat gc)"; exit 9; }
ls -A "$BANGER_STATE/vms"
echo "$fails failed for want of room, $works worked"
[ "$fails" -gt 2 ] && [ "$works" -gt 2 ]
"#;
    // Who is not root is it in a namespace of their own, where mounting is allowed.
    let root = nix::unistd::geteuid().is_root();
    let mut words = vec!["--mount"];
    words.extend((!root).then_some("--map-root-user"));
    words.extend(["sh", "-c", script]);
    let answer = sandbox.raw_with("unshare", &words, |command| {
        command.env("TEMPLATE", &template).env("TAR", &tar).env("BIN", bin);
        command.env("STEP", if soak() { "1" } else { "4" });
    });
    super::say(&answer.text());
    assert!(answer.ok().text().contains("last\n"), "{}", answer.all());
}
