//! What every run asks: the main job and a VM's life.

use super::host::{Host, Who};
use serde_json::Value;

/// How a VM of this is made: small, since several are made.
pub(crate) const SMALL: &str = "--image busybox --memory 256M";

pub(crate) fn a_vms_life(host: &Host, who: Who) {
    let step = |name: &str| format!("{}: {name}", who.name());
    let says = |script: &str| host.says(who, script);
    host.step(&step("main job"), || {
        let said = says(&format!("banger vm run --rm {SMALL} -- uname -a"));
        assert!(said.starts_with("Linux "), "{said}");
        assert_eq!(says("banger vm list"), "");
    });
    host.step(&step("a repository goes in, a patch comes out"), || the_work_comes_back(host, who));
    host.step(&step("exec"), || statuses_and_signals(host, who));
    host.step(&step("64 MiB both ways"), || {
        let through = "head -c 64M /dev/zero | banger vm exec -i web -- cat | sha256sum; echo ${PIPESTATUS[@]}";
        let here = "head -c 64M /dev/zero | sha256sum; echo 0 0 0";
        assert_eq!(says(through), says(here));
    });
    host.step(&step("a published port"), || {
        says("banger vm exec web -- sh -c 'mkdir /www; echo from the guest > /www/index.html; httpd -p 8080 -h /www'");
        assert_eq!(says("busybox wget -qO- http://127.0.0.1:18080/"), "from the guest\n");
    });
    host.step(&step("pause and resume"), || {
        says("banger vm pause web");
        assert_eq!(host.view(who, "web")["status"], "paused");
        says("sleep 5; banger vm resume web; banger vm exec web -- true");
        let apart = says("a=$(date +%s); b=$(banger vm exec web -- date +%s); echo $((b - a))");
        let apart: i64 = apart.trim().parse().expect("seconds");
        assert!((-1..=5).contains(&apart), "the clocks are {apart} s apart");
    });
    host.step(&step("stop"), || {
        says("banger vm exec web -- sh -c 'echo kept > /root/kept; echo kept > /kept'; banger vm stop web");
        rests_in_order(host, who);
    });
    host.step(&step("start"), || {
        says("banger vm start web");
        assert_eq!(says("banger vm exec web -- cat /root/kept /kept"), "kept\nkept\n");
    });
    host.step(&step("the supervisor is killed"), || {
        let view = host.view(who, "web");
        let supervisor = view["running"]["supervisor"]["pid"].as_u64().expect("a pid");
        let left = "pgrep -a 'firecracker|banger-vm-super|pasta|passt' || echo nothing";
        says(&format!("kill -9 {supervisor}; for i in $(seq 100); do pgrep firecracker >/dev/null || break; sleep 0.1; done"));
        assert_eq!(says(left), "nothing\n");
        assert_eq!(host.view(who, "web")["status"], "error");
        says("banger vm delete --force --lose-work web");
        assert_eq!(says("banger vm list"), "");
    });
}

fn the_work_comes_back(host: &Host, who: Who) {
    let says = |script: &str| host.says(who, script);
    says("git init -q repo; cd repo; echo one > file; git add .; git commit -qm one");
    let run = format!(
        "banger vm run --name web {SMALL} --vcpu 2 --publish 18080:8080 ./repo -- \
         sh -c 'nproc; echo two >> file; echo new > new'"
    );
    assert_eq!(says(&run), "2\n");
    let view = host.view(who, "web");
    assert_eq!(view["running"]["vmm"], "firecracker", "{view}");
    assert_eq!(view["running"]["accelerator"], "kvm", "{view}");
    // Firecracker types what it reads there into the guest's console.
    let stdin = host.says(Who::Root, "head -c 1 /proc/$(pgrep -x firecracker)/fd/0 | wc -c");
    assert_eq!(stdin, "0\n");
    says("banger workspace export web --output work.patch; git -C repo apply ../work.patch");
    assert_eq!(says("cat repo/file repo/new"), "one\ntwo\nnew\n");
}

fn statuses_and_signals(host: &Host, who: Who) {
    let exec = |script: &str| host.script(who, &format!("banger vm exec web -- {script}"));
    assert_eq!(exec("sh -c 'exit 42'").status, 42);
    assert_eq!(exec("sh -c 'kill -9 $$'").status, 137);
    assert_eq!(exec("/no/such/program").status, 127);
    let answer = exec("sh -c 'printf \"a\\0b\"; echo c >&2'");
    assert_eq!((&answer.stdout[..], answer.stderr.as_str()), (&b"a\0b"[..], "c\n"));
    let told = host.script(
        who,
        "banger vm exec web -- sh -c 'trap \"exit 9\" TERM; echo ready; sleep 100 & wait' > said & \
         for i in $(seq 200); do grep -q ready said && break; sleep 0.1; done; kill -TERM $!; wait $!",
    );
    assert_eq!(told.status, 9, "{}", told.all());
}

/// The VM was shut down in order, and both of its disks are clean.
pub(crate) fn rests_in_order(host: &Host, who: Who) {
    let view = host.view(who, "web");
    let end = &view["last_exit"];
    assert_eq!((&view["status"], &end["reason"]), (&"stopped".into(), &"stopped".into()), "{view}");
    assert_eq!(end["disks_clean"], Value::Bool(true), "{view}");
    host.says(
        who,
        "cd $BANGER_STATE/vms/web; /sbin/e2fsck -fn overlay.ext4 && /sbin/e2fsck -fn work.ext4",
    );
    let left = host.says(who, "pgrep -a 'firecracker|banger-vm-super|pasta|passt' || echo nothing");
    assert_eq!(left, "nothing\n");
}

/// The same machine under QEMU.
pub(crate) fn qemu_with_kvm(host: &Host) {
    host.step("root: QEMU with KVM", || {
        let run = format!("banger vm run --vmm qemu --rm --net none {SMALL} -- uname -a");
        let said = host.says(Who::Root, &run);
        assert!(said.starts_with("Linux "), "{said}");
    });
}
