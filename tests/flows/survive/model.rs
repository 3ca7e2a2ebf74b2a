//! Commands in any order, beside a model of a few lines: statuses, what is shown, what is listed.

use super::{create, soak};
use banger_tests::{Sandbox, Then, program, pvh_kernel};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proptest::prelude::*;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

const NAMES: [&str; 2] = ["db", "web"];

/// What somebody does.
#[derive(Clone, Copy, Debug)]
enum Step {
    Create(usize),
    Start(usize),
    Stop(usize),
    Restart(usize),
    Pause(usize),
    Resume(usize),
    Kill(usize),
    Set(usize, u64),
    /// Whether what listens in the guest appears on the host; also while it runs.
    SetPorts(usize, bool),
    Delete(usize),
    DeleteByForce(usize),
    /// The supervisor dies.
    Crash(usize),
    Prune,
    Gc,
}

/// All that the model knows of a VM that is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Model {
    status: &'static str,
    vcpu: u64,
    ports: bool,
}

impl Model {
    fn lives(self) -> bool {
        ["starting", "paused"].contains(&self.status)
    }
}

fn step() -> impl Strategy<Value = Step> {
    let vm = 0..NAMES.len();
    prop_oneof![
        3 => vm.clone().prop_map(Step::Create),
        4 => vm.clone().prop_map(Step::Start),
        2 => vm.clone().prop_map(Step::Stop),
        1 => vm.clone().prop_map(Step::Restart),
        3 => vm.clone().prop_map(Step::Pause),
        2 => vm.clone().prop_map(Step::Resume),
        1 => vm.clone().prop_map(Step::Kill),
        2 => (vm.clone(), 1..4_u64).prop_map(|(vm, count)| Step::Set(vm, count)),
        1 => (vm.clone(), any::<bool>()).prop_map(|(vm, ports)| Step::SetPorts(vm, ports)),
        1 => vm.clone().prop_map(Step::Delete),
        1 => vm.clone().prop_map(Step::DeleteByForce),
        2 => vm.prop_map(Step::Crash),
        1 => Just(Step::Prune),
        1 => Just(Step::Gc),
    ]
}

#[test]
fn commands_in_any_order_do_what_a_model_says() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("empty");
    sandbox.plant_kernel("generic-6.12");
    sandbox.plant_tiny("generic-6.12", &pvh_kernel(Then::Halts));
    let cases = if soak() { 300 } else { 20 };
    let config = ProptestConfig {
        cases,
        max_shrink_iters: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in prop::collection::vec(step(), 6..20))| {
        follow(&sandbox, &steps);
    });
}

/// Does one step after the other, and compares after each.
fn follow(sandbox: &Sandbox, steps: &[Step]) {
    let mut model: BTreeMap<&str, Model> = BTreeMap::new();
    for name in NAMES {
        let _ = run(sandbox, "banger-vm-delete", &["--force", name]);
    }
    for (number, step) in steps.iter().enumerate() {
        let wanted = expected(&mut model, *step);
        let status = act(sandbox, *step);
        assert_eq!(status, wanted, "step {number}, {step:?}, of {steps:?}");
        let list = sandbox.run(program("banger-vm-list"), &[]);
        let shown: BTreeMap<&str, (&str, u64, bool)> = list
            .documents
            .iter()
            .map(|view| {
                let text = |field: &str| view[field].as_str().unwrap_or_default();
                let spec = &view["spec"];
                let ports = spec["ports"]["auto"].as_bool().unwrap_or_default();
                (text("name"), (text("status"), spec["vcpu"].as_u64().unwrap_or(0), ports))
            })
            .collect();
        let modelled: BTreeMap<&str, (&str, u64, bool)> =
            model.iter().map(|(name, vm)| (*name, (vm.status, vm.vcpu, vm.ports))).collect();
        assert_eq!(shown, modelled, "after step {number}, {step:?}, of {steps:?}");
    }
}

/// The model: what a step answers, and what is there afterwards.
fn expected(model: &mut BTreeMap<&'static str, Model>, step: Step) -> i32 {
    let (Step::Create(vm)
    | Step::Start(vm)
    | Step::Stop(vm)
    | Step::Restart(vm)
    | Step::Pause(vm)
    | Step::Resume(vm)
    | Step::Kill(vm)
    | Step::Set(vm, _)
    | Step::SetPorts(vm, _)
    | Step::Delete(vm)
    | Step::DeleteByForce(vm)
    | Step::Crash(vm)) = step
    else {
        if matches!(step, Step::Prune) {
            model.retain(|_, vm| vm.lives());
        }
        return 0;
    };
    let name = NAMES[vm];
    let Some(there) = model.get_mut(name) else {
        return match step {
            Step::Create(_) => {
                model.insert(name, Model { status: "created", vcpu: 1, ports: true });
                0
            }
            Step::Crash(_) => 0,
            _ => 3,
        };
    };
    match step {
        Step::Create(_) => return 4,
        Step::Start(_) | Step::Set(..) | Step::Delete(_) if there.lives() => return 4,
        Step::Pause(_) if !there.lives() => return 4,
        Step::Resume(_) if there.status != "paused" => return 4,
        Step::Start(_) | Step::Restart(_) | Step::Resume(_) => there.status = "starting",
        Step::Pause(_) => there.status = "paused",
        Step::Stop(_) | Step::Kill(_) if there.lives() => there.status = "stopped",
        Step::Set(_, vcpu) => there.vcpu = vcpu,
        Step::SetPorts(_, ports) => there.ports = ports,
        Step::Delete(_) | Step::DeleteByForce(_) => {
            model.remove(name);
        }
        Step::Crash(_) if there.lives() => there.status = "error",
        _ => {}
    }
    0
}

fn run(sandbox: &Sandbox, name: &str, words: &[&str]) -> i32 {
    sandbox.run(program(name), words).status
}

/// Does a step; returns its exit status.
fn act(sandbox: &Sandbox, step: Step) -> i32 {
    match step {
        Step::Create(vm) => create(sandbox, NAMES[vm], "empty").status,
        Step::Start(vm) => start(sandbox, "banger-vm-start", &[], NAMES[vm]),
        Step::Restart(vm) => start(sandbox, "banger-vm-restart", &["--timeout", "1"], NAMES[vm]),
        Step::Pause(vm) => run(sandbox, "banger-vm-pause", &[NAMES[vm]]),
        Step::Resume(vm) => run(sandbox, "banger-vm-resume", &[NAMES[vm]]),
        Step::Stop(vm) => run(sandbox, "banger-vm-stop", &[NAMES[vm], "--timeout", "1"]),
        Step::Kill(vm) => run(sandbox, "banger-vm-kill", &[NAMES[vm]]),
        Step::Set(vm, vcpu) => {
            run(sandbox, "banger-vm-set", &[NAMES[vm], "--vcpu", &vcpu.to_string()])
        }
        Step::SetPorts(vm, ports) => {
            let ports = if ports { "auto" } else { "none" };
            run(sandbox, "banger-vm-set", &[NAMES[vm], "--ports", ports])
        }
        Step::Delete(vm) => run(sandbox, "banger-vm-delete", &[NAMES[vm]]),
        Step::DeleteByForce(vm) => run(sandbox, "banger-vm-delete", &["--force", NAMES[vm]]),
        Step::Crash(vm) => {
            crash(sandbox, NAMES[vm]);
            0
        }
        Step::Prune => run(sandbox, "banger-vm-prune", &["--force"]),
        Step::Gc => run(sandbox, "banger-gc", &[]),
    }
}

fn running(sandbox: &Sandbox, name: &str) -> Value {
    let text = fs::read(sandbox.vm(name).join("running.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Starts a VM whose guest stands still: it has started when its VMM is there, for it never comes
/// up.
fn start(sandbox: &Sandbox, by: &str, words: &[&str], name: &str) -> i32 {
    let before = running(sandbox, name)["supervisor"].clone();
    let mut command = sandbox.command(program(by));
    command.args(words).arg(name).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("a start");
    let end = Instant::now() + Duration::from_mins(1);
    loop {
        if let Some(status) = child.try_wait().expect("its status") {
            return status.code().unwrap_or(-1);
        }
        let now = running(sandbox, name);
        if now["vmm_process"].is_object() && now["supervisor"] != before {
            let _ = child.kill();
            let _ = child.wait();
            return 0;
        }
        assert!(Instant::now() < end, "a start neither ends nor gets on");
        sleep(Duration::from_millis(2));
    }
}

/// Kills the supervisor of a VM that lives, and waits until nobody holds its lock.
fn crash(sandbox: &Sandbox, name: &str) {
    let words = [name, "--for", "stopped", "--timeout", "30"];
    let alive = |sandbox: &Sandbox| {
        let answer = sandbox.run(program("banger-vm-show"), &[name]);
        let lives = |view: &Value| view["status"] == "starting" || view["status"] == "paused";
        answer.documents.first().is_some_and(lives)
    };
    if alive(sandbox)
        && let Some(pid) = running(sandbox, name)["supervisor"]["pid"].as_i64()
    {
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        let _ = run(sandbox, "banger-vm-wait", &words);
    }
}
