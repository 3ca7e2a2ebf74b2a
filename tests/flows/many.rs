//! A state with much in it.

use banger_tests::{Sandbox, program};
use std::time::{Duration, Instant};

/// How long a TAB may take.
const TAB: Duration = Duration::from_millis(30);

/// The quickest of many runs, the last of which is quick enough: the machine has other things to do as
/// well.
fn quickest(enough: Duration, mut run: impl FnMut()) -> Duration {
    let end = Instant::now() + Duration::from_secs(20);
    let mut best = Duration::MAX;
    while best >= enough && Instant::now() < end {
        let began = Instant::now();
        run();
        best = best.min(began.elapsed());
    }
    best
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
    let enough = Duration::from_millis(50);
    let took = quickest(enough, || {
        sandbox.raw(program("banger-vm-list"), &[]).ok();
    });
    assert!(took < enough, "vm list takes {took:?}");
    // What a TAB asks: the front's list, a program's options, and the names, which need no program.
    let took = quickest(TAB, || {
        sandbox.raw(program("banger"), &["--completion-words"]).ok();
        sandbox.raw(program("banger-vm-start"), &["--completion-words"]).ok();
    });
    assert!(took < TAB, "a TAB takes {took:?}");
    tabs_in_shells(&sandbox);
}

/// The whole of a TAB as the shells do it, with the script of `completions/`: it asks the front and
/// a program, and looks for names among the thousand.
fn tabs_in_shells(sandbox: &Sandbox) {
    let completions = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../completions");
    let bash = "source \"$0/banger.bash\"; COMP_WORDS=(banger vm start vm-001); COMP_CWORD=3; \
                for i in {1..100}; do s=$EPOCHREALTIME; _banger banger vm-001 start; \
                e=$EPOCHREALTIME; t=$(( ${e/./} - ${s/./} )); echo $t ${#COMPREPLY[@]}; \
                (( t < $1 )) && break; done; true";
    // fish has no clock of its own: what the clock's program takes counts too.
    let fish = "source $argv[1]/banger.fish; for i in (seq 100); set s (date +%s%N); \
                set n (complete -C 'banger vm start vm-001' | count); set e (date +%s%N); \
                set t (math -s0 \\( $e - $s \\) / 1000); echo $t $n; \
                test $t -lt $argv[2]; and break; end; true";
    let beside = program("banger");
    let beside = beside.parent().expect("a folder").display();
    for (shell, words) in
        [("/bin/bash", ["--norc", "-c", bash].as_slice()), ("/usr/bin/fish", &["-N", "-c", fish])]
    {
        if !banger_tests::have(shell.rsplit('/').next().expect("a name")) {
            continue;
        }
        let enough = TAB.as_micros().to_string();
        let words = [words, &[completions.to_str().expect("text"), enough.as_str()]].concat();
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
        assert!(best < TAB, "a TAB in {shell} takes {best:?}");
    }
}
