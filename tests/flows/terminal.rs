//! What a person sees: programs typed into a real terminal (tmux), narrow and wide.

use crate::{fixture, registry::Registry};
use banger_tests::{Sandbox, have};
use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// A terminal with a shell in which the programs are found.
pub(crate) struct Terminal<'a> {
    sandbox: &'a Sandbox,
    socket: PathBuf,
    columns: usize,
    prompt: &'static str,
}

impl<'a> Terminal<'a> {
    fn open(sandbox: &'a Sandbox, columns: usize) -> Self {
        Self::sized(sandbox, (columns, 50), ">", &sandbox.dir())
    }

    /// Opens one of so many columns and lines, with a shell in a folder.
    pub(crate) fn sized(
        sandbox: &'a Sandbox,
        (columns, lines): (usize, usize),
        prompt: &'static str,
        dir: &Path,
    ) -> Self {
        let socket = sandbox.dir().join(format!("tmux-{columns}"));
        let terminal = Self { sandbox, socket, columns, prompt };
        let (width, height) = (columns.to_string(), lines.to_string());
        let shell = format!("env PS1='{prompt} ' bash --norc --noprofile");
        let dir = dir.to_str().expect("text");
        let words = ["new-session", "-d", "-x", &width, "-y", &height, "-c", dir, &shell];
        terminal.tmux(&words);
        terminal.wait("a prompt", |screen| screen.trim() == prompt);
        terminal
    }

    pub(crate) fn tmux(&self, words: &[&str]) -> String {
        let mut all = vec!["-S", self.socket.to_str().expect("text"), "-f", "/dev/null"];
        all.extend(words);
        let beside = self.sandbox.programs().display().to_string();
        let answer = self.sandbox.raw_with("/usr/bin/tmux", &all, |command| {
            command.env("PATH", format!("{beside}:{}", banger_tests::SYSTEM_PATH));
            command.env("SHELL", "/bin/sh").env("TERM", "xterm");
        });
        answer.ok().text()
    }

    /// Returns what is on the screen, without the blanks at ends.
    pub(crate) fn screen(&self) -> String {
        let text = self.tmux(&["capture-pane", "-p", "-t", "0"]);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let screen = lines.join("\n").trim_end().to_owned();
        assert!(lines.iter().all(|line| line.chars().count() <= self.columns), "{screen}");
        screen
    }

    pub(crate) fn wait(&self, what: &str, done: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + Duration::from_mins(3);
        loop {
            let screen = self.screen();
            if done(&screen) {
                return screen;
            }
            assert!(Instant::now() < end, "{what}: the screen shows\n{screen}");
            thread::sleep(Duration::from_millis(30));
        }
    }

    /// Types a line into an empty screen.
    pub(crate) fn begin(&self, line: &str) {
        self.tmux(&["send-keys", "-R"]);
        self.tmux(&["send-keys", "Enter"]);
        self.wait("an empty screen", |screen| screen.trim() == self.prompt);
        self.tmux(&["send-keys", "-l", line]);
        self.tmux(&["send-keys", "Enter"]);
    }

    /// Types a line and returns what it left on the screen, below the line, line by line.
    fn typed(&self, line: &str) -> Vec<String> {
        self.begin(line);
        self.rest()
    }

    /// Waits for the prompt and returns what is above it.
    fn rest(&self) -> Vec<String> {
        let screen = self.wait("the end", |screen| {
            screen.lines().any(|line| line.starts_with("> ")) && screen.ends_with("\n>")
        });
        let mut lines: Vec<String> = screen.lines().map(str::to_owned).collect();
        lines.pop();
        let typed = lines.iter().position(|line| line.starts_with("> ")).expect("the line");
        // A long line goes on in the next.
        let wraps = lines[typed].chars().count() / self.columns;
        lines.split_off(typed + 1 + wraps)
    }
}

/// Says whether the line of a VM that boots is there, and has counted a second at least.
fn boots(screen: &str, name: &str) -> bool {
    let line = format!("{name}: booting, ");
    screen.split(&line).skip(1).any(|rest| rest.starts_with(|c: char| ('1'..='9').contains(&c)))
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

#[test]
fn a_table_fits_a_narrow_terminal_and_a_wide_one() {
    if !have("tmux") {
        return;
    }
    let sandbox = Sandbox::new();
    let image = "registry-example-team-app-with-a-long-name-1-2-3";
    for number in 0..28 {
        sandbox.plant_vm(&format!("worker-{number:02}"), image, "generic-6.12");
    }
    sandbox.plant_vm("payments-integration-with-the-new-ledger", image, "generic-6.12");
    sandbox.plant_vm(&"x".repeat(63), image, "generic-6.12");

    let wide = Terminal::open(&sandbox, 200).typed("banger ps");
    assert_eq!(wide.len(), 31, "{wide:#?}");
    assert!(wide[0].starts_with("NAME") && wide[0].ends_with("CREATED"), "{wide:#?}");
    assert!(wide.iter().any(|line| line.starts_with(&"x".repeat(63))), "{wide:#?}");
    assert!(wide[1].contains(image), "{wide:#?}");

    let narrow = Terminal::open(&sandbox, 80);
    let shown = narrow.typed("banger ps");
    // One line each: none is broken.
    assert_eq!(shown.len(), 31, "{shown:#?}");
    assert!(shown[0].contains("STATUS") && shown[0].contains("IMAGE"), "{shown:#?}");
    assert!(shown.iter().all(|line| line.contains("created") || line.contains("NAME")));
    assert!(shown.iter().any(|line| line.contains('…')), "{shown:#?}");
    let only: Vec<String> = narrow.typed("banger ps | head -n 1 | cut -c1-10");
    assert_eq!(only, ["{\"schema\":"], "documents in a pipe");
    let cut = narrow.typed("banger ps --format table | grep -c …");
    assert_eq!(cut, ["0"], "nothing is cut in a pipe, though stderr is a terminal");
    // The list of commands, too.
    let help = narrow.typed("banger help all | tail -n 44");
    let lines = help.iter().filter(|line| !line.starts_with("  "));
    assert!(
        lines.filter(|line| !line.is_empty() && *line != "for programs:").count() == 0,
        "{help:#?}"
    );
}

#[test]
fn prune_asks_a_person_first() {
    if !have("tmux") {
        return;
    }
    let sandbox = Sandbox::new();
    for name in ["old", "older"] {
        sandbox.plant_vm(name, "alpine", "generic-6.12");
    }
    let terminal = Terminal::open(&sandbox, 80);
    for (key, left) in [("n", true), ("y", false)] {
        terminal.begin("banger vm prune");
        let asked = terminal.wait("a question", |screen| screen.contains('?'));
        assert!(asked.contains("old") && asked.contains("older"), "{asked}");
        terminal.tmux(&["send-keys", key, "Enter"]);
        terminal.rest();
        for name in ["old", "older"] {
            assert_eq!(sandbox.vm(name).exists(), left, "{}", terminal.screen());
        }
    }
}

#[test]
fn colour_is_for_those_who_want_it() {
    if !have("tmux") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    sandbox.plant_exit("web", "vmm-ended");
    let terminal = Terminal::open(&sandbox, 80);
    let coloured =
        || terminal.tmux(&["capture-pane", "-p", "-e", "-t", "0"]).contains("\x1b[31merror");
    terminal.typed("banger ps");
    assert!(coloured(), "{}", terminal.screen());
    terminal.typed("NO_COLOR=1 banger ps");
    assert!(!coloured(), "{}", terminal.screen());
    terminal.typed("TERM=dumb banger ps");
    assert!(!coloured(), "{}", terminal.screen());
}

#[test]
fn pulling_and_starting_show_how_far_they_are_and_leave_no_litter() {
    if !have("tmux") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.set_limit(Duration::from_mins(5));
    fixture::kernel(&sandbox);
    let registry = Registry::start();
    for columns in [80, 200] {
        let terminal = Terminal::open(&sandbox, columns);
        let reference = format!("{}/busybox:1", registry.address);
        let name = format!("pulled-{columns}");
        let shown = terminal.typed(&format!("banger image pull {reference} --name {name}"));
        let [ready] = &shown[..] else { panic!("one line is left: {shown:#?}") };
        assert!(ready.starts_with(&format!("{name}: ")) && ready.contains(", ready in "));

        terminal.begin(&format!(
            "banger vm create --image {name} --name {name} --memory 256M --net none"
        ));
        // A line that tells the stage, and how long it has been going on.
        terminal.wait("the stage", |screen| boots(screen, &name));
        let shown = terminal.rest();
        let last = shown.last().expect("a line");
        assert!(last.starts_with(&format!("{name}: ready in ")), "{shown:#?}");
        assert!(!shown.iter().any(|line| line.contains("booting")), "{shown:#?}");

        // Who leaves a shell is told what goes on, and what to type next.
        terminal.begin(&format!("banger vm exec {name}"));
        terminal.wait("the guest's prompt", |screen| screen.ends_with('#'));
        terminal.tmux(&["send-keys", "-l", "exit"]);
        terminal.tmux(&["send-keys", "Enter"]);
        let shown = terminal.rest().concat();
        assert!(shown.contains(&format!("VM '{name}' runs on")), "{shown}");
        assert!(shown.contains(&format!("'banger vm exec {name}' goes back")), "{shown}");

        // A restart shows both halves.
        let restarts = columns == 200;
        let word = if restarts { "restart" } else { "stop" };
        terminal.begin(&format!("banger vm {word} {name}"));
        terminal.wait("what it waits for", |screen| {
            screen.contains(&format!("{name}: shutting down, "))
                || screen.contains(&format!("{name}: checking its disks, "))
        });
        if restarts {
            terminal
                .wait("the first half", |screen| screen.contains(&format!("{name}: stopped in ")));
        } else {
            let shown = terminal.rest();
            let last = shown.last().expect("a line");
            assert!(last.starts_with(&format!("{name}: stopped in ")), "{shown:#?}");
            assert!(!shown.iter().any(|line| line.contains("shutting")), "{shown:#?}");
            terminal.begin(&format!("banger vm start {name}"));
        }
        terminal.wait("the stage", |screen| boots(screen, &name));
        // Ctrl-C at work: what becomes of the VM is said.
        terminal.tmux(&["send-keys", "C-c"]);
        let shown = terminal.rest();
        assert!(shown.iter().any(|line| line.contains(" all the same")), "{shown:#?}");
        terminal.typed(&format!("banger vm delete --force {name}"));
    }
}
