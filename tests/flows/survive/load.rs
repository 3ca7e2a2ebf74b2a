//! Many programs at once on many VMs: nothing waits for ever, no VM has two machines, no address and
//! no port two VMs, the state is valid at every moment, nothing is lost and nothing stays.

use super::{create, hold_guests, must_be_valid, say, soak, swept, trace::tree};
use crate::fixture;
use banger_tests::{Sandbox, program};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// No program may take longer, whatever else goes on.
const PATIENCE: Duration = Duration::from_mins(2);

struct Load {
    programs: usize,
    vms: u64,
    time: Duration,
}

/// Ports of the host that are asked for; there are far more VMs that want them.
const PORTS: u64 = 4;

/// What all workers see.
struct Shared<'a> {
    sandbox: &'a Sandbox,
    load: &'a Load,
    end: Instant,
    times: Mutex<BTreeMap<&'static str, Vec<Duration>>>,
    /// VMs that stay, and the processors each was given.
    own: Mutex<BTreeMap<String, u64>>,
}

/// A small generator of numbers (xorshift64): which program comes next need not be secret.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[test]
fn many_at_once_lose_nothing() {
    let load = if soak() {
        Load { programs: 32, vms: 100, time: Duration::from_mins(5) }
    } else {
        Load { programs: 8, vms: 16, time: Duration::from_mins(1) }
    };
    let sandbox = Sandbox::new();
    sandbox.set_limit(PATIENCE);
    fixture::kernel(&sandbox);
    sandbox.plant_image("empty");
    hold_guests(&sandbox);
    sandbox.run(program("banger-gc"), &[]).ok();
    let before = tree(sandbox.state());

    let shared = Shared {
        sandbox: &sandbox,
        load: &load,
        end: Instant::now() + load.time,
        times: Mutex::default(),
        own: Mutex::default(),
    };
    let most = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(one_machine_each(&sandbox), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(100));
            }
        });
        let workers: Vec<_> = (0..load.programs)
            .map(|number| {
                let shared = &shared;
                scope.spawn(move || work(shared, number))
            })
            .collect();
        let ended: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        watcher.join().expect("one machine each, one VM each address");
        for worker in ended {
            worker.expect("a program did what it may not");
        }
    });

    must_be_valid(&sandbox, "the load");
    // What each worker made for itself is there, as it left it.
    let own = shared.own.into_inner().expect("all workers have ended");
    assert_eq!(own.len(), load.programs);
    for (name, vcpu) in own {
        let view = sandbox.run(program("banger-vm-show"), &[&name]).document().clone();
        assert_eq!(view["spec"]["vcpu"], vcpu, "{view}");
    }
    let list = sandbox.run(program("banger-vm-list"), &[]);
    let names: Vec<&str> = list.documents.iter().filter_map(|vm| vm["name"].as_str()).collect();
    let mut all = vec!["--force"];
    all.extend(&names);
    sandbox.run(program("banger-vm-delete"), &all).ok();
    let left = swept(&sandbox);
    assert!(left.is_empty(), "something was left behind: {left:?}");
    assert_eq!(machines(&sandbox).len(), 0, "machines run on");
    let after: BTreeSet<String> = tree(sandbox.state());
    let more: Vec<_> = after.difference(&before).filter(|path| !is_banger_s_own(path)).collect();
    assert!(more.is_empty(), "left: {more:?}");

    let times = shared.times.into_inner().expect("all workers have ended");
    say(&format!(
        "{} programs at once on {} VMs for {:?}; at most {} machines ran",
        load.programs,
        load.vms,
        load.time,
        most.load(Ordering::Relaxed)
    ));
    for (what, mut times) in times {
        times.sort();
        say(&format!(
            "{what:<8} {:>6} times, median {:>6} ms, slowest of a hundred {:>6} ms, of all {:>6} ms",
            times.len(),
            times[times.len() / 2].as_millis(),
            times[times.len() * 99 / 100].as_millis(),
            times[times.len() - 1].as_millis()
        ));
    }
    assert!(most.load(Ordering::Relaxed) > 1, "no two machines ran at once");
}

/// Banger's key, the database of leases and the locks of its resolver come with a first VM and stay.
fn is_banger_s_own(path: &str) -> bool {
    ["ssh/", "leases.db", "dns.", "told"].iter().any(|own| path.starts_with(own))
}

/// Runs one program after the other until the time is over.
fn work(shared: &Shared<'_>, number: usize) {
    let sandbox = shared.sandbox;
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1));
    let own = format!("own-{number}");
    create(sandbox, &own, "empty").ok();
    let vcpu = number as u64 % 8 + 1;
    sandbox.run(program("banger-vm-set"), &[&own, "--vcpu", &vcpu.to_string()]).ok();
    shared.own.lock().expect("a worker failed").insert(own, vcpu);
    while Instant::now() < shared.end {
        let name = format!("vm-{}", dice.below(shared.load.vms));
        let run = |program_name: &str, words: &[&str]| sandbox.run(program(program_name), words);
        let (what, answer, allowed): (_, _, &[i32]) = match dice.below(14) {
            0..=3 => ("create", create(sandbox, &name, "empty"), &[0, 4]),
            // A guest that is held does not come up; that it is kept is a start all the same.
            4..=6 => ("start", run("banger-vm-start", &[&name, "--timeout", "1"]), &[1, 3, 4]),
            7 => ("stop", run("banger-vm-stop", &[&name, "--timeout", "1"]), &[0, 3]),
            8 => ("delete", run("banger-vm-delete", &[&name]), &[0, 3, 4]),
            9 => ("delete", run("banger-vm-delete", &["--force", &name]), &[0, 3, 4]),
            10 => ("gc", run("banger-gc", &[]), &[0]),
            11 => {
                let port = format!("{}:{}:80", address(), 8000 + dice.below(PORTS));
                ("publish", run("banger-vm-set", &[&name, "--publish", &port]), &[0, 3, 4])
            }
            12 => {
                must_be_valid(sandbox, "a moment of the load");
                continue;
            }
            _ => {
                // What was there before is to be in the list.
                let own = shared.own.lock().expect("a worker failed").clone();
                let list = run("banger-vm-list", &[]);
                listed(sandbox, &own, &list.documents);
                ("list", list, &[0])
            }
        };
        assert!(allowed.contains(&answer.status), "{what} of {name}: {}", answer.all());
        if what == "start" && answer.status == 1 {
            let fair = ["it is kept", "did not come up", "ended unexpectedly"];
            assert!(fair.iter().any(|part| answer.stderr.contains(part)), "{}", answer.all());
        }
        // Whoever has the lease of a port can open it.
        assert!(!answer.stderr.contains("cannot publish"), "{}", answer.all());
        shared.times.lock().expect("a worker failed").entry(what).or_default().push(answer.took);
    }
}

/// A loopback address of this test's own.
fn address() -> String {
    let [_, _, b, c] = std::process::id().to_be_bytes();
    format!("127.40.{b}.{}", c.max(1))
}

/// A list names each VM once, in order, and each that stays, as it is; no address or port of the
/// host has two VMs.
fn listed(sandbox: &Sandbox, own: &BTreeMap<String, u64>, views: &[Value]) {
    let names: Vec<&str> = views.iter().filter_map(|view| view["name"].as_str()).collect();
    assert!(names.is_sorted(), "{names:?}");
    let unique: BTreeSet<&&str> = names.iter().collect();
    assert_eq!(unique.len(), names.len(), "{names:?}");
    for (name, vcpu) in own {
        let view = views.iter().find(|view| view["name"] == **name);
        assert!(
            view.is_some_and(|view| view["spec"]["vcpu"] == *vcpu),
            "{name} is lost: {names:?}"
        );
    }
    let mut holders: BTreeMap<String, &Value> = BTreeMap::new();
    for view in views {
        for lease in leases(view) {
            if let Some(other) = holders.insert(lease.clone(), view) {
                one_of_both_is_gone(sandbox, &lease, other, view);
            }
        }
    }
}

/// Returns the addresses and ports of the host that a VM has.
fn leases(view: &Value) -> Vec<String> {
    let ports = &view["spec"]["ports"];
    let published = ports["publish"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| Some(format!("{}:{}", one["address"].as_str()?, one["host_port"])));
    published.chain(ports["loopback"].as_str().map(str::to_owned)).collect()
}

/// Checks two VMs of a list that have the same: the first was deleted before the second was looked
/// at. If it still is there after the second was seen once more, both have it at one moment.
fn one_of_both_is_gone(sandbox: &Sandbox, lease: &str, first: &Value, second: &Value) {
    let has = |view: &Value| {
        let name = view["name"].as_str().expect("a name");
        let now = sandbox.run(program("banger-vm-show"), &[name]);
        let now = now.documents.first().cloned().unwrap_or_default();
        now["id"] == view["id"] && leases(&now).iter().any(|one| one == lease)
    };
    assert!(!(has(first) && has(second) && has(first)), "{lease} is of {first} and of {second}");
}

/// Checks that no VM has two machines; returns how many there are.
fn one_machine_each(sandbox: &Sandbox) -> usize {
    let mut seen = BTreeSet::new();
    let machines = machines(sandbox);
    for id in &machines {
        assert!(seen.insert(id), "VM {id} has two machines");
    }
    machines.len()
}

/// Returns the ids of the VMs whose machines run, by the mark in the machines' environment.
fn machines(sandbox: &Sandbox) -> Vec<String> {
    let state = sandbox.state().display().to_string();
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let found = entries.filter_map(|entry| {
        let environment = fs::read(entry.path().join("environ")).ok()?;
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let mark = environment.split('\0').find_map(|v| v.strip_prefix("BANGER_RUN="))?;
        let (id, place) = mark.split_once(' ')?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        (place == state && name.starts_with("qemu")).then(|| id.to_owned())
    });
    found.collect()
}
