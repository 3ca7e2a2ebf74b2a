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
    tabs_in_shells(&sandbox);
}

/// The whole of a TAB as the shells do it, with the script of `completions/`: it asks the front and
/// a program, and looks for names among the thousand.
fn tabs_in_shells(sandbox: &Sandbox) {
    let completions = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../completions");
    let bash = "source \"$0/banger.bash\"; COMP_WORDS=(banger vm start vm-001); COMP_CWORD=3; \
                for i in {1..20}; do s=$EPOCHREALTIME; _banger banger vm-001 start; \
                e=$EPOCHREALTIME; echo $(( ${e/./} - ${s/./} )) ${#COMPREPLY[@]}; done";
    // fish has no clock of its own: what the clock's program takes counts too.
    let fish = "source $argv[1]/banger.fish; for i in (seq 20); set s (date +%s%N); \
                set n (complete -C 'banger vm start vm-001' | count); set e (date +%s%N); \
                echo (math -s0 \\( $e - $s \\) / 1000) $n; end";
    let beside = program("banger");
    let beside = beside.parent().expect("a folder").display();
    for (shell, words) in
        [("/bin/bash", ["--norc", "-c", bash].as_slice()), ("/usr/bin/fish", &["-N", "-c", fish])]
    {
        if !banger_tests::have(shell.rsplit('/').next().expect("a name")) {
            continue;
        }
        let words = [words, &[completions.to_str().expect("text")]].concat();
        let answer = sandbox.raw_with(shell, &words, |command| {
            command.env("PATH", format!("{beside}:{}", banger_tests::SYSTEM_PATH));
        });
        let text = answer.ok().text();
        let best = text.lines().map(|line| {
            let (took, count) = line.split_once(' ').expect("two numbers");
            assert_eq!(count, "10", "{}", answer.all());
            took.parse::<u64>().expect("a number")
        });
        let best = Duration::from_micros(best.min().expect("a TAB"));
        assert!(best < Duration::from_millis(30), "a TAB in {shell} takes {best:?}");
    }
}
