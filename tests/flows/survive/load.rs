//! Many programs at once on many VMs: nothing waits for ever, no VM has two machines, no address two
//! VMs, nothing is lost and nothing stays.

use super::{create, hold_guests, must_be_valid, say, soak, trace::tree};
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
        Load { programs: 8, vms: 16, time: Duration::from_secs(45) }
    };
    let sandbox = Sandbox::new();
    sandbox.set_limit(PATIENCE);
    fixture::kernel(&sandbox);
    sandbox.plant_image("empty");
    hold_guests(&sandbox);
    sandbox.run(program("banger-gc"), &[]).ok();
    let before = tree(sandbox.state());

    let times: Mutex<BTreeMap<&str, Vec<Duration>>> = Mutex::default();
    let most = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let end = Instant::now() + load.time;
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(one_machine_each(&sandbox), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(100));
            }
        });
        let workers: Vec<_> = (0..load.programs)
            .map(|number| {
                let (sandbox, load, times) = (&sandbox, &load, &times);
                scope.spawn(move || work(sandbox, load, number, end, times))
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
    // What each program made for itself is there, as it left it.
    for number in 0..load.programs {
        let view = sandbox.run(program("banger-vm-show"), &[&own(number)]).document().clone();
        assert_eq!(view["spec"]["vcpu"], number as u64 % 8 + 1, "{view}");
    }
    let list = sandbox.run(program("banger-vm-list"), &[]);
    let names: Vec<&str> = list.documents.iter().filter_map(|vm| vm["name"].as_str()).collect();
    let mut all = vec!["--force"];
    all.extend(&names);
    sandbox.run(program("banger-vm-delete"), &all).ok();
    let left = sandbox.run(program("banger-gc"), &[]);
    assert!(left.ok().documents.is_empty(), "something was left behind: {}", left.all());
    assert_eq!(machines(&sandbox).len(), 0, "machines run on");
    let after: BTreeSet<String> = tree(sandbox.state());
    let more: Vec<_> = after.difference(&before).filter(|path| !is_banger_s_own(path)).collect();
    assert!(more.is_empty(), "left: {more:?}");

    let times = times.into_inner().expect("all workers have ended");
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
    ["ssh/", "leases.db", "dns."].iter().any(|own| path.starts_with(own))
}

fn own(number: usize) -> String {
    format!("own-{number}")
}

/// Runs one program after the other until the time is over.
fn work(
    sandbox: &Sandbox,
    load: &Load,
    number: usize,
    end: Instant,
    times: &Mutex<BTreeMap<&str, Vec<Duration>>>,
) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1));
    let own = own(number);
    create(sandbox, &own, "empty").ok();
    let vcpu = (number % 8 + 1).to_string();
    sandbox.run(program("banger-vm-set"), &[&own, "--vcpu", &vcpu]).ok();
    while Instant::now() < end {
        let name = format!("vm-{}", dice.below(load.vms));
        let (what, answer, allowed): (_, _, &[i32]) = match dice.below(12) {
            0..=3 => ("create", create(sandbox, &name, "empty"), &[0, 4]),
            // A guest that is held does not come up; that it is kept is a start all the same.
            4..=6 => {
                let words = [name.as_str(), "--timeout", "1"];
                ("start", sandbox.run(program("banger-vm-start"), &words), &[1, 3, 4])
            }
            7 => {
                let words = [name.as_str(), "--timeout", "1"];
                ("stop", sandbox.run(program("banger-vm-stop"), &words), &[0, 3])
            }
            8 => ("delete", sandbox.run(program("banger-vm-delete"), &[&name]), &[0, 3, 4]),
            9 => {
                let words = ["--force", name.as_str()];
                ("delete", sandbox.run(program("banger-vm-delete"), &words), &[0, 3, 4])
            }
            10 => ("gc", sandbox.run(program("banger-gc"), &[]), &[0]),
            _ => ("list", sandbox.run(program("banger-vm-list"), &[]), &[0]),
        };
        assert!(allowed.contains(&answer.status), "{what} of {name}: {}", answer.all());
        if what == "start" && answer.status == 1 {
            let fair = ["it is kept", "did not come up", "ended unexpectedly"];
            assert!(fair.iter().any(|part| answer.stderr.contains(part)), "{}", answer.all());
        }
        if what == "list" {
            listed(&answer.documents);
        }
        times.lock().expect("a worker failed").entry(what).or_default().push(answer.took);
    }
}

/// A list names each VM once, in order, and no address or port of the host twice.
fn listed(views: &[Value]) {
    let names: Vec<&str> = views.iter().filter_map(|view| view["name"].as_str()).collect();
    assert!(names.is_sorted(), "{names:?}");
    let unique: BTreeSet<&&str> = names.iter().collect();
    assert_eq!(unique.len(), names.len(), "{names:?}");
    let addresses: Vec<&str> =
        views.iter().filter_map(|view| view["spec"]["ports"]["loopback"].as_str()).collect();
    let unique: BTreeSet<&&str> = addresses.iter().collect();
    assert_eq!(unique.len(), addresses.len(), "two VMs have one address: {addresses:?}");
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
