//! A disk that is full or broken: each thing a program writes, makes or renames is refused once. One
//! clear error, a valid state, and the same command works when the disk does.

use super::{
    case::{Case, Disturbance},
    create, hold_guests, soak, start_and_stop,
    trace::Stage,
};
use crate::{fixture, registry::Registry, tape};
use banger_tests::{Answer, Sandbox, program};
use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

const REFUSED: &[Disturbance] = &[Disturbance::NoSpace, Disturbance::Broken];

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.set_limit(Duration::from_mins(2));
    sandbox
}

fn survives(sandbox: &Sandbox, programs: &[&str], run: &dyn Fn(&Stage) -> Answer, again: &[i32]) {
    let stage = Stage::new(sandbox);
    let ignore = &|path: &str| path == "vms/web/console.log.1";
    Case { sandbox, stage, programs, disturbances: REFUSED, run, again, ignore }.survives();
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
        disturbances: REFUSED,
        run: &cycle,
        again: &[0],
        ignore: &|path| path == "vms/web/console.log.1",
    }
    .survives();
}

/// `create` and `import` with 0 to 60 blocks left in `$BANGER_STATE`: they work or say that there is
/// no room.
const FILL: &str = r#"
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
  kept=$(($(stat -f -c '%f - %a' "$BANGER_STATE")))
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
# Root's sees control groups of other states' VMs too.
! grep -v '"control group"' gc > left || { echo "left: $(cat left)"; exit 9; }
ls -A "$BANGER_STATE/vms"
echo "user $(id -u), $kept blocks kept for root: $fails failed for want of room, $works worked"
[ "$fails" -gt 2 ] && [ "$works" -gt 2 ]
"#;

/// The ordinary user: one that every host knows.
const USER: u32 = 65_534;

/// Plants what [`FILL`] needs, and runs it after `prepare`; mounts of that are seen by it alone, and
/// end with it.
fn fill(sandbox: &Sandbox, unshare: &[&str], prepare: &str, bin: &Path, root: &Path) -> Answer {
    sandbox.plant_image("alpine");
    sandbox.plant_kernel("generic-6.12");
    let template = sandbox.dir().join("template");
    super::copy(sandbox.state(), &template);
    let tar = sandbox.dir().join("root.tar");
    let content = vec![7; 100_000];
    fs::write(&tar, tape::archive(&[tape::Entry::file("much", 0o644, content)])).expect("a tar");
    let words = [unshare, &["--mount", "sh", "-euc", prepare]].concat();
    let answer = sandbox.raw_with("unshare", &words, |command| {
        command.env("TEMPLATE", &template).env("TAR", &tar).env("BIN", bin).env("FILL", FILL);
        command.env("TOP", root).env("USER", USER.to_string());
        command.env("STEP", if soak() { "1" } else { "4" });
    });
    super::say(&answer.text());
    assert!(answer.ok().text().contains("last\n"), "{}", answer.all());
    answer
}

#[test]
fn a_real_disk_that_is_full_is_said_and_nothing_is_lost() {
    let bin = program("banger");
    let bin = bin.parent().expect("a folder");
    let prepare = r#"mount -t tmpfs -o size=8m,mode=0700 tmpfs "$BANGER_STATE"; eval "$FILL""#;
    // Who is not root is it in a namespace of their own, where mounting is allowed.
    let root = nix::unistd::geteuid().is_root();
    let words: &[&str] = if root { &[] } else { &["--map-root-user"] };
    fill(&sandbox(), words, prepare, bin, Path::new("/")).ok();
}

/// An ordinary user's disk is full while there is room that the file system keeps for root.
#[test]
fn a_user_s_disk_is_full_while_root_has_room() {
    if !nix::unistd::geteuid().is_root() {
        super::say("SKIPPED: only root mounts an ext4 file system");
        return;
    }
    let sandbox = sandbox();
    let top = sandbox.state().parent().expect("the sandbox").to_owned();
    fs::set_permissions(&top, fs::Permissions::from_mode(0o711)).expect("a mode");
    fs::create_dir(top.join("bin")).expect("a folder");
    let disk = sandbox.dir().join("disk.img");
    fs::File::create(&disk).and_then(|file| file.set_len(24 << 20)).expect("a disk");
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-m", "25", "-E", &format!("root_owner={USER}:{USER}")]);
    fixture::tool(mke2fs.arg(&disk), Duration::from_secs(20));
    let prepare = r#"
mount -o loop "$PWD/disk.img" "$BANGER_STATE"; chmod 0700 "$BANGER_STATE"
rmdir "$BANGER_STATE/lost+found"
mount --bind "$BIN" "$TOP/bin"
chown -R "$USER:$USER" "$PWD" "$HOME" "$TMPDIR"
BIN="$TOP/bin" exec setpriv --reuid "$USER" --regid "$USER" --clear-groups -- sh -euc "$FILL"
"#;
    let bin = program("banger");
    let answer = fill(&sandbox, &[], prepare, bin.parent().expect("a folder"), &top);
    let text = answer.text();
    let kept = text.split_once("user 65534, ").and_then(|(_, rest)| rest.split(' ').next());
    let kept: u64 = kept.and_then(|kept| kept.parse().ok()).expect("the blocks kept");
    assert!(kept > 1000, "{text}");
}
