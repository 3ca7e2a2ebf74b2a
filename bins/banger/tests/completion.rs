//! The completion scripts, in the real shells.

mod installed;

use banger_tests::{Sandbox, have};
use installed::{banger, installed, script};
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// A front among programs that answer as real ones do, and a state with a few things in it.
fn sandbox() -> Sandbox {
    let sandbox = installed(&[
        "banger-vm-stop",
        "banger-vm-create",
        "banger-kernel-list",
        "banger-kernel-pull",
        "banger-workspace-export",
        "banger-workspace-prepare",
    ]);
    let bin = sandbox.dir().join("bin");
    let says = |name: &str, lines: &[&str]| {
        let words: Vec<String> = lines.iter().map(|line| format!("'{line}'")).collect();
        // Asked with anything else than the one word, the program would run.
        let body = format!(
            "[ \"$*\" = --completion-words ] || {{ touch {}/ran; exit 1; }}\nprintf '%s\\n' {}",
            sandbox.dir().display(),
            words.join(" ")
        );
        script(&bin, name, &body);
    };
    says("banger-vm-start", &["--timeout\tHow long", "@VM", "--json\tPrint JSON", "--help\tHelp"]);
    says("banger-vm-list", &["--all\tAll: of them", "--json\tPrint JSON"]);
    says(
        "banger-vm-run",
        &[
            "--image\tThe image",
            "--vmm\tThe machine",
            "=auto --vmm",
            "=firecracker --vmm",
            "=qemu --vmm",
            "--rm\tRemove",
            "@IMAGE --image",
            "@PATH",
        ],
    );
    script(&bin, "banger-image-pull", "[ \"$*\" = --catalog-names ] && echo ubuntu-dev; exit 0");
    script(
        &bin,
        "banger-workspace-status",
        "case \"$*\" in --completion-words) printf '%s\\n' '--guest-path\tWhich' '@WORKSPACE --guest-path' @VM ;; \
         '--places web') printf '%s\\n' /root/repo /root/api ;; *) exit 1 ;; esac",
    );
    says("banger-kernel-show", &["@KERNEL"]);
    says("banger-doctor", &["--json\tPrint JSON"]);
    sandbox.plant_image("alpine");
    sandbox.plant_image("debian-bookworm");
    sandbox.plant_kernel("generic-6.12");
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    sandbox.plant_vm("worker", "alpine", "generic-6.12");
    sandbox.plant_vm("db", "alpine", "generic-6.12");
    fs::create_dir(sandbox.vm("web").join("workspaces")).expect("a folder");
    sandbox
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../completions")
}

/// Lines as typed up to TAB, and what is offered, sorted.
const LINES: &[(&str, &[&str])] = &[
    ("banger v", &["vm"]),
    ("banger vm st", &["start", "stop"]),
    ("banger vm ", &["create", "list", "run", "start", "stop"]),
    ("banger help vm st", &["start", "stop"]),
    ("banger vm start w", &["web", "worker"]),
    ("banger vm start web ", &["db", "web", "worker"]),
    ("banger vm start --t", &["--timeout"]),
    ("banger vm start --", &["--help", "--json", "--timeout"]),
    ("banger vm run --image ", &["alpine", "debian-bookworm", "ubuntu-dev"]),
    ("banger vm run --image d", &["debian-bookworm"]),
    ("banger vm run --image u", &["ubuntu-dev"]),
    ("banger vm run --vmm ", &["auto", "firecracker", "qemu"]),
    ("banger vm run --vmm q", &["qemu"]),
    ("banger run --vmm f", &["firecracker"]),
    ("banger start w", &["web", "worker"]),
    ("banger vm ls --a", &["--all"]),
    ("banger help sta", &[]),
    ("banger kernel show ", &["generic-6.12"]),
    ("banger ps --a", &["--all"]),
    ("banger workspace status web --guest-path /root/", &["/root/api", "/root/repo"]),
    ("banger workspace status web --guest-path /root/a", &["/root/api"]),
    ("banger workspace status db --guest-path ", &[]),
    ("banger workspace status d", &["db"]),
    ("banger vm start -- ", &[]),
    ("banger doctor w", &[]),
    ("banger nothing ", &[]),
];

#[test]
fn bash_completes() {
    let sandbox = sandbox();
    // What readline does: the words of the line, then the function with the command, the word and
    // the one before it.
    let ask = "source \"$1\"; shift; line=$1; read -ra COMP_WORDS <<<\"$line\"; \
               [[ $line == *' ' ]] && COMP_WORDS+=(''); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); \
               _banger banger \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; \
               printf '%s\\n' \"${COMPREPLY[@]}\"";
    let script = scripts().join("banger.bash");
    for (line, wanted) in LINES {
        let words = ["--norc", "-c", ask, "bash", script.to_str().expect("text"), line];
        let answer = sandbox.raw_with("/bin/bash", &words, |command| {
            command.env("PATH", path(&sandbox));
        });
        answer.ok();
        assert_eq!(offered(&answer.text(), line), *wanted, "{line}: {}", answer.all());
    }
    nothing_ran(&sandbox);
}

#[test]
fn fish_completes() {
    if !have("fish") {
        return;
    }
    let sandbox = sandbox();
    let script = scripts().join("banger.fish");
    for (line, wanted) in LINES {
        let ask = format!("source {}; complete -C '{line}'", script.display());
        let answer = sandbox.raw_with("/usr/bin/fish", &["-N", "-c", &ask], |command| {
            command.env("PATH", path(&sandbox));
        });
        answer.ok();
        assert_eq!(offered(&answer.text(), line), *wanted, "{line}: {}", answer.all());
    }
    nothing_ran(&sandbox);
}

/// A person at a terminal: typed into zsh in tmux, with TAB.
#[test]
fn zsh_completes() {
    if !have("zsh") || !have("tmux") {
        return;
    }
    let sandbox = sandbox();
    let socket = sandbox.dir().join("tmux");
    let tmux = |words: &[&str]| {
        let mut all = vec!["-S", socket.to_str().expect("text"), "-f", "/dev/null"];
        all.extend(words);
        sandbox.raw_with("/usr/bin/tmux", &all, |command| {
            command.env("PATH", path(&sandbox)).env("SHELL", "/bin/sh").env("TERM", "xterm");
        })
    };
    let setup = format!(
        "fpath=({} $fpath); autoload -Uz compinit; compinit -u -D; PS1='> '; LISTMAX=1000; \
         setopt no_beep no_always_last_prompt list_rows_first; clear",
        scripts().display()
    );
    tmux(&["new-session", "-d", "-x", "160", "-y", "40", "zsh -f"]).ok();
    tmux(&["send-keys", "-l", &setup]).ok();
    tmux(&["send-keys", "Enter"]).ok();
    let screen = || tmux(&["capture-pane", "-p", "-t", "0"]).text();
    let wait = |what: &str, done: &dyn Fn(&str) -> bool| {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let now = screen();
            if done(&now) {
                return now;
            }
            assert!(Instant::now() < end, "{what}: the screen shows\n{now}");
            thread::sleep(Duration::from_millis(30));
        }
    };
    wait("a prompt", &|screen| screen.trim() == ">");
    for (line, wanted) in LINES {
        tmux(&["send-keys", "-l", line]).ok();
        tmux(&["send-keys", "Tab"]).ok();
        match wanted {
            // Nothing to see: what follows must still come right after the line.
            [] => {}
            [one] => {
                let start = line.rsplit_once(' ').map_or("", |(start, _)| start);
                wait(line, &|screen| screen.contains(&format!("> {start} {one}")));
            }
            several => {
                wait(line, &|screen| {
                    let below: Vec<&str> =
                        screen.lines().skip(1).flat_map(str::split_whitespace).collect();
                    several.iter().all(|word| below.contains(word))
                });
            }
        }
        tmux(&["send-keys", "C-u"]).ok();
        tmux(&["send-keys", "-l", "clear"]).ok();
        tmux(&["send-keys", "Enter"]).ok();
        wait("a clear screen", &|screen| screen.trim() == ">");
    }
    tmux(&["kill-server"]).ok();
    nothing_ran(&sandbox);
}

/// A TAB that asks the front and a program takes less than 30 ms; what else runs on the machine holds
/// many of them up.
#[test]
fn a_tab_is_quick() {
    let sandbox = sandbox();
    let quick = Duration::from_millis(15);
    let mut best = Duration::MAX;
    for _ in 0..200 {
        let began = Instant::now();
        banger(&sandbox, &["--completion-words"]).ok();
        best = best.min(began.elapsed());
        if best < quick {
            break;
        }
    }
    assert!(best < quick, "the front takes {best:?} to list its commands");
}

fn path(sandbox: &Sandbox) -> String {
    format!("{}:{}", sandbox.dir().join("bin").display(), banger_tests::SYSTEM_PATH)
}

/// Takes the words out of what a shell offers, without descriptions, and those that begin as typed.
fn offered(text: &str, line: &str) -> Vec<String> {
    let typed = line.rsplit(' ').next().unwrap_or("");
    let mut words: Vec<String> = text
        .lines()
        .filter_map(|line| line.split('\t').next())
        .filter(|word| !word.is_empty() && word.starts_with(typed))
        .map(str::to_owned)
        .collect();
    words.sort();
    words
}

fn nothing_ran(sandbox: &Sandbox) {
    assert!(!sandbox.dir().join("ran").exists(), "a TAB ran a program");
}
