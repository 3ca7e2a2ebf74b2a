//! A VM of a test's own, and what every guest must do whatever its image is.

use crate::{fixture, registry::Registry};
use banger_tests::{Answer, Sandbox, program};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

/// A sandbox with a kernel, a registry beside it, and one VM named `web`.
pub(crate) struct Guest {
    pub(crate) sandbox: Sandbox,
    /// What calls a shell in the guest: `sh -c`, or with the binary's path before it.
    shell: Vec<&'static str>,
}

impl Guest {
    /// Pulls an image, creates and starts a VM of it.
    pub(crate) fn boot(image: &str, shell: &[&'static str]) -> Self {
        let guest = Self::create(image, shell);
        guest.run("vm-start", &["web"]).ok();
        guest
    }

    /// Pulls an image and creates a VM of it.
    pub(crate) fn create(image: &str, shell: &[&'static str]) -> Self {
        let registry = Registry::start();
        Self::create_of(&format!("{}/{image}", registry.address), shell)
    }

    /// Pulls an image from wherever it is and creates a VM of it.
    pub(crate) fn create_of(reference: &str, shell: &[&'static str]) -> Self {
        let sandbox = Sandbox::new();
        // Emulated guests take their time; a stop has to be waited for as well.
        sandbox.set_limit(Duration::from_mins(5));
        fixture::kernel(&sandbox);
        let guest = Self::to_be(sandbox, shell);
        let pulled = guest.run("image-pull", &[reference]);
        let name = pulled.document()["name"].as_str().expect("a name").to_owned();
        guest.run("vm-create", &["--no-start", "--image", &name, "--name", "web"]).ok();
        guest
    }

    /// Returns one for a VM that is yet to be made in a sandbox.
    pub(crate) fn to_be(sandbox: Sandbox, shell: &[&'static str]) -> Self {
        Self { sandbox, shell: shell.to_vec() }
    }

    /// Runs a program of banger's that prints documents.
    pub(crate) fn run(&self, name: &str, args: &[&str]) -> Answer {
        self.sandbox.run(program(&format!("banger-{name}")), args)
    }

    /// Runs a command in the guest.
    pub(crate) fn exec(&self, words: &[&str]) -> Answer {
        let mut args = vec!["web", "--"];
        args.extend(words);
        self.sandbox.raw(program("banger-vm-exec"), &args)
    }

    /// Runs a script in the guest.
    pub(crate) fn script(&self, script: &str) -> Answer {
        let mut words = self.shell.clone();
        words.push(script);
        self.exec(&words)
    }

    /// Runs a script that has to end well; returns what it printed.
    pub(crate) fn says(&self, script: &str) -> String {
        let answer = self.script(script);
        answer.ok();
        answer.text()
    }

    /// Returns how the VM stands.
    pub(crate) fn view(&self) -> Value {
        self.run("vm-show", &["web"]).document().clone()
    }

    pub(crate) fn status(&self) -> String {
        self.view()["status"].as_str().expect("a status").to_owned()
    }

    /// Waits until the VM stands as wanted, and fails if that takes longer than `limit`.
    pub(crate) fn wait_for(&self, status: &str, limit: Duration) {
        let end = Instant::now() + limit;
        while self.status() != status {
            assert!(Instant::now() < end, "not {status} within {limit:?}: {}", self.view());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.sandbox.vm("web")
    }

    /// stdout, stderr and status come back exactly.
    pub(crate) fn exec_is_exact(&self) {
        let answer = self.script("printf 'a\\0b'; printf 'c\\n\\n' >&2");
        assert_eq!(answer.ok().stdout, b"a\0b", "{}", answer.all());
        assert_eq!(answer.stderr, "c\n\n");
        assert_eq!(self.script("exit 42").status, 42);
        assert_eq!(self.script("kill -9 $$").status, 137);
        assert_eq!(self.script("kill -TERM $$").status, 143);
        let answer = self.exec(&["/no/such/program"]);
        assert_eq!(answer.status, 127, "{}", answer.all());
        assert!(answer.stdout.is_empty(), "{}", answer.all());
        // Words reach the command as they are.
        let mut words = self.shell.clone();
        words.extend(["printf '[%s]' \"$@\"", "sh", "a b", "", "*", "$HOME", "--", "ä\n"]);
        assert_eq!(self.exec(&words).ok().text(), "[a b][][*][$HOME][--][ä\n]");
        // The end of stdin reaches it too.
        let mut words = vec!["-i", "web", "--"];
        words.extend(&self.shell);
        words.push("read line; echo \"got $line\"; cat");
        let fed = self.sandbox.feed(program("banger-vm-exec"), &words, b"first\nrest");
        assert_eq!(fed.ok().text(), "got first\nrest");
        // Many at once, each with its own answer.
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|n| scope.spawn(move || (n, self.says(&format!("sleep 0.2; echo {n}")))))
                .collect();
            for thread in threads {
                let (n, said) = thread.join().expect("a thread");
                assert_eq!(said, format!("{n}\n"));
            }
        });
    }

    /// 64 MiB go in and come out unchanged.
    pub(crate) fn much_passes_through(&self) {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let bytes: Vec<u8> = (0..(64 << 20) / 8)
            .flat_map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()
            })
            .collect();
        let mut words = vec!["-i", "web", "--"];
        words.extend(&self.shell);
        words.push("cat");
        let answer = self.sandbox.feed(program("banger-vm-exec"), &words, &bytes);
        answer.ok();
        assert_eq!(answer.stdout.len(), bytes.len());
        assert!(answer.stdout == bytes, "64 MiB came back changed");
    }

    /// What stands round a VMM, tried on the guest's kernel, since the host's may lack it: Landlock, and
    /// control groups of version 2 with the real jailer.
    pub(crate) fn fences_hold(&self) {
        for name in ["jail", "machine"] {
            let tests = program("banger").with_file_name("guest-tests").join(name);
            self.put(&format!("/tmp/{name}"), &tests);
        }
        let said = self.says("/tmp/jail confine:: --nocapture 2>&1");
        assert!(said.contains("Landlock version") && said.contains("1 passed"), "{said}");
        if let Some(vmm) = banger_tests::firecracker() {
            self.says("mkdir -p /tmp/vmm");
            for name in ["firecracker", "jailer"] {
                self.put(&format!("/tmp/vmm/{name}"), &vmm.join(name));
            }
            for (test, word) in [
                ("cgroup::tests::the_real_jailer_limits_a_vm_in_version_2", "version 2"),
                (
                    "firecracker::tests::the_real_firecracker_takes_a_machine_behind_landlock",
                    "Firecracker",
                ),
            ] {
                let words =
                    format!("BANGER_VMM=/tmp/vmm /tmp/machine --exact {test} --nocapture 2>&1");
                let said = self.says(&words);
                assert!(said.contains(&format!("{word} was tried")), "{said}");
                assert!(said.contains("1 passed"), "{said}");
            }
        }
        self.says("rm -r /tmp/jail /tmp/machine /tmp/vmm");
    }

    /// Puts a program into the guest.
    fn put(&self, to: &str, from: &Path) {
        let bytes = fs::read(from).expect("a program for the guest: run 'cargo xtask build' first");
        let mut words = vec!["-i", "web", "--"];
        words.extend(&self.shell);
        let script = format!("cat > {to} && chmod +x {to}");
        words.push(&script);
        self.sandbox.feed(program("banger-vm-exec"), &words, &bytes).ok();
    }

    /// Held still, it does nothing; let go, it goes on where it was, with the right time.
    pub(crate) fn pause_and_resume(&self) {
        let ticks = "while sleep 0.1; do echo >> /root/ticks; done";
        self.says(&format!("setsid sh -c '{ticks}' < /dev/null > /dev/null 2>&1 & sleep 1"));
        let paused = self.run("vm-pause", &["web"]);
        assert_eq!(paused.document()["status"], "paused", "{}", paused.all());
        self.exec(&["true"]).fails(125, "is paused");
        assert_eq!(self.run("vm-pause", &["web"]).document()["status"], "paused");
        std::thread::sleep(Duration::from_secs(4));
        let resumed = self.run("vm-resume", &["web"]);
        assert_eq!(resumed.document()["status"], "running", "{}", resumed.all());
        let begin: u32 = self.says("wc -l < /root/ticks").trim().parse().expect("a number");
        let more = format!("[ $(wc -l < /root/ticks) -gt {begin} ]");
        self.says(&format!("for i in $(seq 60); do {more} && exit; sleep 0.5; done; exit 1"));
        crate::clock::comes_right(self, "after a pause of 4 s");
        assert_eq!(self.run("vm-resume", &["web"]).document()["status"], "running");
        self.says("pkill -f 'sleep 0.1'; sleep 1; rm -f /root/ticks");
    }

    /// Both marks are there after a start, and nothing went wrong on the way.
    pub(crate) fn has_booted(&self) {
        let running = self.view()["running"].clone();
        assert_eq!(running["booted"], "yes", "{running}");
        let (agent, booted) = (running["agent_ms"].as_u64(), running["booted_ms"].as_u64());
        assert!(agent.is_some() && agent <= booted, "{running}");
        assert!(!running["notes"].to_string().contains("in the guest"), "{running}");
    }

    /// A command that starts processes without end takes no room from the next one, nor from who is to
    /// end it; its group goes with the last of them. `group` is where the guest has control groups.
    pub(crate) fn a_fork_storm_leaves_room(&self, group: &str) {
        let own = self.says("cat /proc/self/cgroup");
        assert!(own.contains("/banger/exec-"), "{own}");
        let mut words = vec!["web", "--"];
        words.extend(&self.shell);
        words.push("f() { f | f & }; f; while :; do :; done");
        let mut command = self.sandbox.command(program("banger-vm-exec"));
        let mut storm = command.args(&words).stderr(Stdio::null()).spawn().expect("a program");
        let count = format!("cat {group}/banger/exec-*/pids.current | sort -n | tail -n 1");
        let most = self.says(&format!("cat {group}/banger/pids.max")).trim().parse::<u64>();
        let most = most.expect("a number");
        let end = Instant::now() + Duration::from_mins(2);
        loop {
            let begun = Instant::now();
            let now = self.says(&count).trim().parse::<u64>().expect("a number");
            let took = begun.elapsed();
            assert!(
                took < Duration::from_mins(1),
                "an answer took {took:?} beside {now} processes"
            );
            assert!(now <= most, "{now} of {most} processes");
            if now > most / 2 {
                break;
            }
            assert!(Instant::now() < end, "only {now} of {most} processes");
        }
        let client = nix::unistd::Pid::from_raw(storm.id() as i32);
        nix::sys::signal::kill(client, nix::sys::signal::Signal::SIGTERM).expect("a signal");
        let begun = Instant::now();
        while storm.try_wait().expect("its status").is_none() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the client does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.says(&format!(
            "for g in {group}/banger/exec-*; do grep -qx $$ $g/cgroup.procs || echo 1 > $g/cgroup.kill; done"
        ));
        let left = format!("ls -d {group}/banger/exec-* | wc -l");
        let end = Instant::now() + Duration::from_mins(1);
        while self.says(&left) != "1\n" {
            assert!(Instant::now() < end, "groups are left: {}", self.says(&left));
        }
    }

    /// The image's environment, its `/root`, its directories: there, and changeable.
    pub(crate) fn the_image_counts(&self) {
        assert_eq!(self.says("echo $FROM_IMAGE"), "yes\n");
        assert_eq!(self.exec(&["only-here"]).ok().text(), "found by the PATH of the image\n");
        assert_eq!(self.says("cat /root/from-the-image"), "image root\n");
        assert_eq!(self.says("hostname"), "web\n");
    }

    /// A directory of the base can be renamed, and a module loaded.
    pub(crate) fn base_directories_and_modules(&self, directory: &str) {
        let script = format!("mv {directory} /moved && cat /moved/inside && ls -d {directory}");
        let answer = self.script(&script);
        assert_eq!(answer.text(), "inside\n", "{}", answer.all());
        assert_ne!(answer.status, 0, "it is still there: {}", answer.all());
        self.says("modprobe bridge");
        assert!(self.says("cat /proc/modules").contains("bridge "), "bridge is not loaded");
    }

    /// What was written right before a stop is there after a start, and both disks are clean.
    pub(crate) fn stop_and_start_lose_nothing(&self) {
        self.stop_and_start_by(|| {
            self.run("vm-start", &["web"]).ok();
        });
    }

    /// The same, with a start of the caller's.
    pub(crate) fn stop_and_start_by(&self, start: impl FnOnce()) {
        self.says("echo work > /root/late; echo overlay > /late");
        self.run("vm-stop", &["web"]).ok();
        assert_eq!(self.status(), "stopped");
        let exit = self.view()["last_exit"].clone();
        assert_eq!(exit["reason"], "stopped", "{exit}");
        assert_eq!(exit["disks_clean"], true, "{exit}");
        self.disks_are_clean();
        start();
        assert_eq!(self.says("cat /root/late /late"), "work\noverlay\n");
        self.run("vm-stop", &["web"]).ok();
        self.disks_are_clean();
    }

    /// What the guest used and freed is the host's again: memory while it runs, disk after a stop.
    pub(crate) fn what_it_frees_is_the_host_s(&self) {
        let used = || {
            let stats = self.run("vm-stats", &["web"]);
            let host = &stats.document()["host"];
            assert!(host["given_memory_bytes"].as_u64().expect("bytes") >= 256 << 20, "{host}");
            host["vmm_memory_bytes"].as_u64().expect("bytes") >> 20
        };
        let before = used();
        self.says("dd if=/dev/zero of=/dev/shm/filled bs=1M count=300 2>&1");
        let full = used();
        assert!(full > before + 250, "{before} MiB, then {full}");
        self.says("rm /dev/shm/filled");
        let end = Instant::now() + Duration::from_mins(1);
        while used() > before + 60 {
            assert!(Instant::now() < end, "{before} MiB, {full} filled, {} after", used());
        }
        let disk = |name: &str| {
            let meta = fs::metadata(self.folder().join(name)).expect("a disk");
            (std::os::unix::fs::MetadataExt::blocks(&meta) * 512) >> 20
        };
        let disks = || disk("overlay.ext4") + disk("work.ext4");
        let script = "for dir in / /root; do
            dd if=/dev/zero of=$dir/filled bs=1M count=150 2>&1 && sync && rm $dir/filled || exit 1
        done; sync";
        self.says(script);
        let full = disks();
        assert!(full > 250, "{full} MiB");
        self.run("vm-stop", &["web"]).ok();
        assert!(disks() < 50, "{full} MiB, then {}", disks());
        self.run("vm-start", &["web"]).ok();
    }

    fn disks_are_clean(&self) {
        for disk in ["overlay.ext4", "work.ext4"] {
            let disk = self.folder().join(disk);
            let path = disk.to_str().expect("text");
            let check = self.sandbox.raw("/usr/sbin/e2fsck", &["-f", "-n", path]);
            assert_eq!(check.status, 0, "{}", check.all());
            let features = self.sandbox.raw("/usr/sbin/dumpe2fs", &["-h", path]);
            assert!(!features.text().contains("needs_recovery"), "{}", features.all());
        }
    }

    /// Nothing of the VM is left: no process, no socket, no namespace.
    pub(crate) fn nothing_remains(&self, pids: &[i64]) {
        let end = Instant::now() + Duration::from_secs(30);
        let state = self.sandbox.state().display().to_string();
        loop {
            let mut left: Vec<String> = pids
                .iter()
                .filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
                .map(|pid| format!("process {pid}"))
                .collect();
            left.extend(processes_of(&state));
            for file in ["/proc/net/unix", "/proc/self/mountinfo"] {
                let text = fs::read_to_string(file).expect("a file of the kernel's");
                left.extend(text.lines().filter(|l| l.contains(&state)).map(str::to_owned));
            }
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left behind:\n{}", left.join("\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns the processes that `running.json` names.
    pub(crate) fn pids(&self) -> Vec<i64> {
        let running = self.view()["running"].clone();
        ["supervisor", "stub", "vmm_process"]
            .iter()
            .filter_map(|role| running[role]["pid"].as_i64())
            .collect()
    }
}

/// Returns the processes whose command line, folder or open files lie below a path. One that lives
/// in a namespace of the VM's is one of them: its supervisor and VMM are.
fn processes_of(path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) || name == std::process::id().to_string()
        {
            continue;
        }
        let proc = entry.path();
        let words = fs::read(proc.join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let folder = fs::read_link(proc.join("cwd")).unwrap_or_default();
        let files = fs::read_dir(proc.join("fd")).into_iter().flatten().flatten();
        let open = files
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|file| file.starts_with(path));
        if words.contains(path) || folder.starts_with(path) || open {
            found.push(format!("process {name}: {words}"));
        }
    }
    found
}
