//! A state with much in it.

use banger_tests::{Sandbox, program};
use std::time::{Duration, Instant};

/// The quickest of several runs: the machine has other things to do as well.
fn quickest(mut run: impl FnMut()) -> Duration {
    (0..15)
        .map(|_| {
            let began = Instant::now();
            run();
            began.elapsed()
        })
        .min()
        .expect("runs")
}

#[test]
fn a_thousand_vms_are_listed_at_once() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    sandbox.plant_kernel("generic-6.12");
    for number in 0..1000 {
        sandbox.plant_vm(&format!("vm-{number:04}"), "alpine", "generic-6.12");
    }
    assert_eq!(sandbox.run(program("banger-vm-list"), &[]).ok().documents.len(), 1000);
    let took = quickest(|| {
        sandbox.raw(program("banger-vm-list"), &[]).ok();
    });
    assert!(took < Duration::from_millis(50), "vm list takes {took:?}");
    // What a TAB asks: the front's list, a program's options, and the names, which need no program.
    let took = quickest(|| {
        sandbox.raw(program("banger"), &["--completion-words"]).ok();
        sandbox.raw(program("banger-vm-start"), &["--completion-words"]).ok();
    });
    assert!(took < Duration::from_millis(30), "a TAB takes {took:?}");
}
