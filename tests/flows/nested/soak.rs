//! What only `cargo xtask soak nested` asks: all that a VM on Firecracker can be asked, many of them at
//! once, and other flows of this binary, run on a host with KVM.

use super::{
    core::{SMALL, rests_in_order},
    host::{Host, Who},
};
use serde_json::Value;

/// Flows that mean something else where there is KVM, and how many seconds each may take: guests of an
/// image's own init.
pub(crate) const GUESTS: &[(&str, u32)] = &[
    ("network::an_ordinary_users_debian_reaches_the_world_and_is_reached_by_its_ports", 900),
    ("set::", 400),
];

/// The same: what is asked of both VMMs.
pub(crate) const MACHINE: &[(&str, u32)] = &[("machine::", 1600)];

/// Those that take longer, and show there what they show elsewhere.
pub(crate) const NETWORK: &[(&str, u32)] = &[("network::", 3000)];
pub(crate) const OTHERS: &[(&str, u32)] = &[
    ("busybox::", 900),
    ("debian::", 900),
    ("crash::", 600),
    ("stuck::", 600),
    ("parallel::of_two_starts_of_one_vm_one_starts_it", 300),
];

/// Says something to [`ECHO`] a thousand times, fifty at once; each hangs up one way before it reads the
/// answer to its end.
const CLIENTS: &str = r#"
import socket, threading
def ask():
    s = socket.create_connection(("127.0.0.1", 18080), 120); s.settimeout(120)
    s.sendall(b"said\n"); s.shutdown(socket.SHUT_WR); got = b""
    while True:
        piece = s.recv(4096)
        if not piece: break
        got += piece
    s.close(); return got == b"said\n"
good = []
def work():
    for _ in range(20): good.append(ask())
all = [threading.Thread(target=work) for _ in range(50)]
[one.start() for one in all]; [one.join() for one in all]
print(sum(good), "of", len(good))
"#;

/// A server that answers each client with what it said, once it has said all: busybox's reset some
/// of those that hang up first.
pub(crate) const ECHO: &str = r"
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
int main(void) {
    struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(8080) };
    int server = socket(AF_INET, SOCK_STREAM, 0);
    signal(SIGCHLD, SIG_IGN);
    if (bind(server, (struct sockaddr *)&any, sizeof any) || listen(server, 1024)) return 1;
    for (;;) {
        int client = accept(server, 0, 0);
        if (client >= 0 && fork() == 0) {
            char bytes[4096];
            ssize_t all = 0, now;
            while ((now = read(client, bytes + all, sizeof bytes - all)) > 0) all += now;
            return write(client, bytes, all) != all;
        }
        close(client);
    }
}
";

pub(crate) fn everything(host: &Host) {
    for who in [Who::Root, Who::Dev] {
        host.says(
            who,
            &format!("banger vm create --name web {SMALL} --vcpu 2 --publish 18080:8080"),
        );
        a_running_vm(host, who);
        larger_and_after_a_kill(host, who);
        a_guest_ends_itself(host, who);
        host.says(who, "banger vm delete --force --lose-work web");
    }
    host.step("root: twenty at once", || twenty(host));
}

/// Runs those of the other flows.
pub(crate) fn flows(host: &Host, flows: &[(&str, u32)]) {
    for (flow, seconds) in flows {
        host.step(flow, || host.flow(flow, *seconds));
    }
}

fn a_running_vm(host: &Host, who: Who) {
    let step = |name: &str| format!("{}: {name}", who.name());
    let says = |script: &str| host.says(who, script);
    let guest = |script: &str| says(&format!("banger vm exec web -- sh -c '{script}'"));
    host.step(&step("a terminal"), || {
        let said = says(
            "script -qec 'stty rows 40 cols 100; banger vm exec -t web -- stty size' /dev/null < /dev/null",
        );
        assert!(said.contains("40 100"), "{said}");
    });
    host.step(&step("a thousand files"), || {
        says("rm -rf tree back; mkdir tree; for i in $(seq 1000); do echo $i > tree/$i; done");
        says("banger vm cp -q tree web:/root/; banger vm cp -q web:/root/tree back; diff -r tree back");
    });
    host.step(&step("a thousand connections, each half-closed"), || {
        says("banger vm cp -q /srv/echo web:/root/echo");
        guest("/root/echo < /dev/null > /dev/null 2>&1 &");
        let said = says(&format!("python3 -c '{CLIENTS}'"));
        assert_eq!(said, "1000 of 1000\n");
    });
    host.step(&step("random numbers"), || {
        assert_eq!(guest("cat /sys/class/misc/hw_random/rng_current"), "virtio_rng.0\n");
        assert_eq!(guest("head -c 64 /dev/hwrng | wc -c").trim(), "64");
    });
    host.step(&step("a guest that floods its console"), || {
        guest("dd if=/dev/zero bs=64k count=1 2>/dev/null | tr \"\\\\0\" x | fold > /dev/console");
        let size = says("stat -c %s $BANGER_STATE/vms/web/console.log");
        let size: u64 = size.trim().parse().expect("a size");
        assert!((50_000..=5 << 20).contains(&size), "the log has {size} bytes");
        assert_eq!(guest("echo alive"), "alive\n");
    });
    host.step(&step("what it measures"), || {
        let stats: Value = serde_json::from_str(&says("banger vm stats web")).expect("a document");
        let text = says("cat $BANGER_STATE/vms/web/metrics.json");
        let metrics: Value = serde_json::from_str(&text).expect("Firecracker's metrics");
        assert!(metrics["vsock"]["tx_bytes_count"].is_u64(), "{text}");
        let memory = stats["guest"]["memory_total_bytes"].as_u64().unwrap_or_default();
        assert!((200 << 20..=256 << 20).contains(&memory), "{stats}");
    });
    host.step(&step("a pause of a minute"), || {
        says("banger vm pause web; sleep 60; banger vm resume web; banger vm exec web -- true; sleep 2");
        let apart = says("a=$(date +%s); b=$(banger vm exec web -- date +%s); echo $((b - a))");
        let apart: i64 = apart.trim().parse().expect("seconds");
        assert!((-1..=3).contains(&apart), "the clocks are {apart} s apart");
    });
}

fn larger_and_after_a_kill(host: &Host, who: Who) {
    let step = |name: &str| format!("{}: {name}", who.name());
    let says = |script: &str| host.says(who, script);
    let guest = |script: &str| says(&format!("banger vm exec web -- sh -c '{script}'"));
    host.step(&step("set larger"), || {
        says("banger vm stop web");
        rests_in_order(host, who);
        says("banger vm set web --memory 512M --vcpu 1 --disk-size 30G; banger vm start web");
        assert_eq!(guest("nproc"), "1\n");
        let memory = guest("grep MemTotal /proc/meminfo | tr -dc 0-9");
        assert!(memory.trim().parse::<u64>().is_ok_and(|kib| kib > 400 << 10), "{memory}");
        let size = guest("df -m /root | tail -n 1 | tr -s \" \" | cut -d\" \" -f2");
        assert!(size.trim().parse::<u64>().is_ok_and(|mib| mib > 25 << 10), "{size}");
    });
    host.step(&step("what was synced outlives the VMM"), || {
        guest("echo safe > /root/safe; echo safe > /safe; sync");
        let vmm = host.view(who, "web")["running"]["vmm_process"]["pid"].clone();
        gone(host, who, &format!("kill -9 {vmm}"));
        assert_eq!(host.view(who, "web")["last_exit"]["reason"], "vmm-ended");
        says("banger vm start web");
        assert_eq!(guest("cat /root/safe /safe"), "safe\nsafe\n");
    });
    host.step(&step("the stub is killed"), || {
        let stub = host.view(who, "web")["running"]["stub"]["pid"].clone();
        gone(host, who, &format!("kill -9 {stub}"));
    });
}

/// All ways in which a guest ends by itself, each told for what it is.
fn a_guest_ends_itself(host: &Host, who: Who) {
    for (how, reason) in [
        ("reboot -f", "guest-shutdown"),
        ("poweroff -f", "guest-shutdown"),
        ("halt -f", "guest-shutdown"),
        ("echo b > /proc/sysrq-trigger", "guest-shutdown"),
        ("echo c > /proc/sysrq-trigger", "vmm-ended"),
    ] {
        host.step(&format!("{}: {how}", who.name()), || {
            host.says(who, "banger vm start web");
            gone(host, who, &format!("banger vm exec web -- sh -c '{how}' || true"));
            let view = host.view(who, "web");
            assert_eq!(view["last_exit"]["reason"], reason, "{view}");
        });
    }
}

/// Does something after which nothing of a VM is left on the host.
fn gone(host: &Host, who: Who, script: &str) {
    host.says(who, script);
    let left = host.says(
        who,
        "for i in $(seq 300); do pgrep 'firecracker|banger-vm-super|pasta|passt' > /dev/null || break; \
         sleep 0.1; done; pgrep -a 'firecracker|banger-vm-super|pasta|passt' || echo nothing",
    );
    assert_eq!(left, "nothing\n");
}

fn twenty(host: &Host) {
    let says = |script: &str| host.says(Who::Root, script);
    says(&format!(
        "for i in $(seq 20); do banger vm create --timeout 600 --name m$i {SMALL} --vcpu 1 > m$i.out 2>&1 & \
         done; for job in $(jobs -p); do wait $job || {{ tail -n 5 m*.out; exit 1; }}; done"
    ));
    let said = says("for i in $(seq 20); do banger vm exec m$i -- hostname; done");
    let names: Vec<String> = (1..=20).map(|number| format!("m{number}")).collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), names);
    says(
        "banger vm kill $(seq -f m%g 20) > /dev/null; banger vm delete $(seq -f m%g 20) > /dev/null",
    );
}
