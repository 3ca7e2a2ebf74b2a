//! What people get wrong, and what hosts lack: for each one clear error with what failed, why and
//! what to type; the status that goes with it; and nothing left behind. `stuck` has the guests that
//! never come up.

use crate::{
    oci::{Pack, layout},
    registry::Registry,
    tape::{Entry, archive},
};
use banger_tests::{Answer, Sandbox, have, program};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// A sandbox with an image, a kernel and a VM that never ran; none of them real.
fn planted() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    sandbox.plant_kernel("generic-6.12");
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    sandbox
}

/// Everything in the state directory that somebody made there.
fn contents(sandbox: &Sandbox) -> Vec<PathBuf> {
    fn add(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                add(&entry.path(), found);
            }
            // Locks stay; nobody waits for a free one.
            if entry.file_name() != ".lock" && !entry.path().starts_with("cache") {
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    for shelf in ["images", "kernels", "vms"] {
        add(&sandbox.state().join(shelf), &mut found);
    }
    found.sort();
    found
}

/// Runs a program that has to refuse: with this status, these words, and a hint; nothing may have
/// changed in the state.
fn refuses(sandbox: &Sandbox, name: &str, words: &[&str], status: i32, part: &str) -> String {
    let before = contents(sandbox);
    let raw = ["banger-vm-exec", "banger-vm-logs", "banger-vm-run", "banger-vm-ssh"];
    let answer = if raw.contains(&name) {
        sandbox.raw(program(name), words)
    } else {
        sandbox.run(program(name), words)
    };
    answer.fails(status, part);
    assert!(answer.stderr.contains("\nhint: "), "nothing to type next\n{}", answer.all());
    assert_eq!(answer.stderr.lines().count(), 2, "an error and a hint\n{}", answer.all());
    assert_eq!(contents(sandbox), before, "it left something\n{}", answer.all());
    // A program whose stdout is bytes prints none.
    assert!(answer.documents.len() == 1 || answer.stdout.is_empty(), "{}", answer.all());
    answer.stderr
}

#[test]
fn names_that_are_no_dns_labels() {
    let sandbox = planted();
    let long = "a".repeat(64);
    for name in ["Web", "a_b", "a b", "-a", "a-", "ä", "", ".", "a..b", "a/b", "a\nb", &long] {
        let name = format!("--name={name}");
        let words = ["--no-start", "--image", "alpine", &name];
        refuses(&sandbox, "banger-vm-create", &words, 2, "is not a name");
    }
    let words = ["--no-start", "--image", "alpine", "--name", "web.local"];
    refuses(&sandbox, "banger-vm-create", &words, 2, "it has a '.'");
}

#[test]
fn paths_are_no_names() {
    let sandbox = planted();
    fs::create_dir(sandbox.state().join("vms/x")).expect("a folder that is no VM");
    for (name, words) in [
        ("banger-vm-show", &["../x"][..]),
        ("banger-vm-start", &["../x"]),
        ("banger-vm-stop", &["../../etc"]),
        ("banger-vm-kill", &["/etc"]),
        ("banger-vm-restart", &["../x"]),
        ("banger-vm-wait", &["../x"]),
        ("banger-vm-delete", &["--force", "../x"]),
        ("banger-vm-logs", &["../x"]),
        ("banger-vm-exec", &["../x", "--", "true"]),
        ("banger-vm-create", &["--no-start", "--image", "alpine", "--kernel", "../x"]),
        ("banger-vm-run", &["--name", "../x", "--", "true"]),
        ("banger-image-show", &["../x"]),
        ("banger-image-delete", &["../alpine"]),
        ("banger-image-promote", &["../x"]),
        ("banger-image-pull", &["oci:x", "--name", "../x"]),
        ("banger-kernel-show", &["../x"]),
        ("banger-kernel-delete", &["../x"]),
        ("banger-kernel-import", &["../x"]),
    ] {
        refuses(&sandbox, name, words, 2, "is not a name");
    }
    // A folder that lies there is not a VM for it.
    refuses(&sandbox, "banger-vm-delete", &["--force", "x"], 3, "no VM 'x'");
}

#[test]
fn sizes_of_nothing_below_nothing_and_beyond_all() {
    let sandbox = planted();
    for (option, size, part) in [
        ("--memory", "0", "cannot do without memory"),
        ("--memory", "-1G", "not a size"),
        ("--memory", "1M", "cannot have 1 MiB"),
        ("--memory", "900T", "MiB of memory"),
        ("--memory", "99999999999999999999G", "not a size"),
        ("--memory", "1.5G", "not a size"),
        ("--disk-size", "0G", "it is zero"),
        ("--disk-size", "-5", "not a size"),
        ("--disk-size", "1K", "cannot have"),
        ("--disk-size", "1000T", "cannot have"),
        ("--disk-size", "9000T", "larger than 1024T"),
        ("--overlay-size", "big", "not a size"),
        ("--vcpu", "0", "0 processors"),
        ("--vcpu", "4096", "4096 processors"),
        ("--vcpu", "-1", "-1"),
        ("--timeout", "0", "0"),
    ] {
        let words = ["--no-start", "--image", "alpine", option, size];
        refuses(&sandbox, "banger-vm-create", &words, 2, part);
    }
}

#[test]
fn images_hosts_and_digests_that_are_not_there() {
    let sandbox = planted();
    let registry = Registry::start();
    let at = |rest: &str| format!("{}/{rest}", registry.address);
    let wrong = at(&format!("busybox@sha256:{}", "0".repeat(64)));
    for (reference, status, part) in [
        (at("nothing:1"), 3, "no image"),
        (at("busybox:9"), 3, "no image"),
        (wrong, 3, "no image"),
        ("registry.invalid/app:1".to_owned(), 1, "cannot reach 'registry.invalid'"),
        ("127.0.0.1:1/app:1".to_owned(), 1, "connection refused"),
        ("No Image".to_owned(), 2, "is not an image reference"),
    ] {
        refuses(&sandbox, "banger-image-pull", &[&reference], status, part);
        // The same through a program that pulls what it lacks.
        let words = ["--no-start", "--image", &reference];
        refuses(&sandbox, "banger-vm-create", &words, status, part);
    }
    refuses(&sandbox, "banger-image-show", &["alpnie"], 3, "no image 'alpnie'");
    let said = refuses(&sandbox, "banger-vm-start", &["wbe"], 3, "no VM 'wbe'");
    assert!(said.contains("did you mean 'web'?"), "{said}");
    let words = ["--no-start", "--image", "alpine", "--kernel", "plan9"];
    refuses(&sandbox, "banger-vm-create", &words, 3, "no kernel 'plan9'");
}

/// An image layout of one layer; returns the path of the layer's blob too.
fn image(sandbox: &Sandbox) -> (String, PathBuf) {
    let dir = sandbox.dir().join("layout");
    let tar = sandbox.dir().join("layer.tar");
    let entries = [Entry::dir("bin", 0o755), Entry::file("bin/sh", 0o755, vec![7; 50_000])];
    fs::write(&tar, archive(&entries)).expect("a layer");
    layout(&dir, &[(tar, Pack::Gzip)], &json!({}));
    let index = read(&dir.join("index.json"));
    let manifest = read(&blob(&dir, &index["manifests"][0]["digest"]));
    let layer = blob(&dir, &manifest["layers"][0]["digest"]);
    (format!("oci:{}", dir.display()), layer)
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a blob")).expect("JSON")
}

fn blob(layout: &Path, digest: &Value) -> PathBuf {
    layout.join("blobs").join(digest.as_str().expect("a digest").replace(':', "/"))
}

#[test]
fn a_layer_that_is_cut_off_or_another_one() {
    let sandbox = planted();
    let (reference, layer) = image(&sandbox);
    let whole = fs::read(&layer).expect("the layer");
    let mut other = whole.clone();
    other[whole.len() / 2] ^= 1;
    for bytes in [&whole[..whole.len() / 2], &whole[..20], b"", &other] {
        fs::write(&layer, bytes).expect("the layer");
        refuses(&sandbox, "banger-image-pull", &[&reference], 1, "layer");
    }
    fs::write(&layer, &whole).expect("the layer");
    sandbox.run(program("banger-image-pull"), &[&reference]).ok();
}

#[test]
fn an_image_for_another_processor() {
    let sandbox = planted();
    let (reference, _) = image(&sandbox);
    let words = [reference.as_str(), "--platform", "linux/s390x"];
    refuses(&sandbox, "banger-image-pull", &words, 1, "not for linux/s390x");
    // One that is here, with a kernel that cannot run it.
    let path = sandbox.state().join("images/alpine/image.json");
    let mut document = read(&path);
    document["architecture"] = "s390x".into();
    fs::write(&path, document.to_string()).expect("the record");
    let words = ["--no-start", "--image", "alpine", "--kernel", "generic-6.12"];
    refuses(&sandbox, "banger-vm-create", &words, 1, "is for s390x");
}

#[test]
fn a_kernel_that_lacks_a_module_or_is_none() {
    let sandbox = planted();
    let dir = sandbox.dir().join("kernel");
    let modules = dir.join("lib/modules/6.12.9-test");
    fs::create_dir_all(modules.join("kernel")).expect("a folder");
    // As much of an ELF image as tells what it is (elf(5)).
    let machine = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let mut kernel = b"\x7fELF\x02\x01\x01".to_vec();
    kernel.resize(18, 0);
    kernel.extend([machine, 0]);
    kernel.extend(b"Linux version 6.12.9-test (test) #1");
    kernel.resize(4096, 0);
    fs::write(dir.join("vmlinux"), kernel).expect("a kernel");
    let builtin = "kernel/virtio_pci.ko\nkernel/ext4.ko\nkernel/virtio_console.ko\n";
    fs::write(modules.join("kernel/virtio_blk.ko"), b"\x7fELF a module").expect("a module");
    for (file, text) in [
        ("modules.dep", "kernel/virtio_blk.ko:\n"),
        ("modules.dep.bin", "made"),
        ("modules.builtin", builtin),
    ] {
        fs::write(modules.join(file), text).expect("a list");
    }
    let from = dir.to_str().expect("text");
    refuses(&sandbox, "banger-kernel-import", &["own", "--from", from], 1, "lack 'overlay'");
    fs::write(dir.join("vmlinux"), "no kernel").expect("a file");
    refuses(&sandbox, "banger-kernel-import", &["own", "--from", from], 1, "is no kernel");
    refuses(&sandbox, "banger-kernel-import", &["own", "--from", "/no/where"], 3, "no kernel in");
}

/// Runs a shell line in a mount namespace of its own, `$STATE` being the state directory.
fn apart(sandbox: &Sandbox, setup: &str, line: &str) -> Answer {
    let script = format!("set -e; {setup}; exec {line}");
    sandbox.with("/usr/bin/unshare", &["-rm", "/bin/sh", "-c", &script], |command| {
        command.env("STATE", sandbox.state()).env("PATH", path());
    })
}

fn path() -> String {
    let beside = program("banger");
    format!("{}:{}", beside.parent().expect("a folder").display(), banger_tests::SYSTEM_PATH)
}

#[test]
fn a_disk_that_is_full() {
    if !have("unshare") {
        return;
    }
    let sandbox = planted();
    let (reference, _) = image(&sandbox);
    let tar = sandbox.dir().join("large.tar");
    let noise: Vec<u8> =
        (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(&tar, archive(&[Entry::file("noise", 0o644, noise)])).expect("an archive");
    // A file system of 400 KiB with the state as it is.
    let small = "cp -a \"$STATE\" copy; mount -t tmpfs -o size=400k,mode=0700 none \"$STATE\"; \
                 mkdir \"$STATE/vms\" \"$STATE/images\" && chmod 700 \"$STATE\"/*";
    let full = format!("{small}; head -c 1m /dev/zero > \"$STATE/fill\" 2>/dev/null || true");
    for (setup, line) in [
        (small, format!("banger image import {} --name large", tar.display())),
        (&full, format!("banger image pull {reference}")),
        (&full, "banger kernel import own --vmlinuz /bin/true".to_owned()),
    ] {
        let after = format!("sh -c '{line}; s=$?; ls -A \"$STATE/images\" >&2; exit $s'");
        let answer = apart(&sandbox, setup, &after);
        answer.fails(1, "no space left on device");
        assert!(answer.stderr.contains("hint: 'banger df' shows"), "{}", answer.all());
        let left = answer.stderr.lines().rev().take_while(|line| !line.starts_with("hint"));
        assert!(left.clone().all(|line| line == ".lock"), "{}", answer.all());
        sandbox.raw("/bin/rm", &["-rf", "copy"]).ok();
    }
}

#[test]
fn a_state_that_cannot_be_written() {
    if !have("unshare") {
        return;
    }
    let sandbox = planted();
    let (reference, _) = image(&sandbox);
    let before = contents(&sandbox);
    let fixed = "mount --bind \"$STATE\" \"$STATE\"; mount -o remount,ro,bind \"$STATE\"";
    for line in [
        format!("banger image pull {reference}"),
        "banger vm create --no-start --image alpine --name other".to_owned(),
        "banger vm start web".to_owned(),
        "banger vm delete web".to_owned(),
    ] {
        let answer = apart(&sandbox, fixed, &line);
        answer.fails(1, "read-only file system");
        assert!(answer.stderr.contains("\nhint: "), "{}", answer.all());
    }
    // Reading needs no writing.
    for line in ["banger vm list", "banger vm show web", "banger image list", "banger df"] {
        apart(&sandbox, fixed, line).ok();
    }
    assert_eq!(contents(&sandbox), before);
    // A place where nothing can be made.
    let answer = sandbox.with(program("banger-image-pull"), &[&reference], |command| {
        command.env("BANGER_STATE", "/proc/state");
    });
    answer.fails(1, "cannot make the state directory");
    assert!(answer.stderr.contains("hint: set BANGER_STATE"), "{}", answer.all());
}

#[test]
fn a_state_of_a_newer_banger() {
    let sandbox = planted();
    fs::write(sandbox.state().join("layout"), "2\n").expect("the layout");
    for (name, words) in [
        ("banger-vm-list", &[][..]),
        ("banger-vm-show", &["web"]),
        ("banger-vm-create", &["--no-start", "--image", "alpine"]),
        ("banger-vm-delete", &["web"]),
        ("banger-vm-start", &["web"]),
        ("banger-image-pull", &["oci:layout"]),
        ("banger-image-list", &[]),
        ("banger-kernel-list", &[]),
        ("banger-kernel-delete", &["generic-6.12"]),
        ("banger-gc", &[]),
    ] {
        refuses(&sandbox, name, words, 5, "has layout 2; this banger knows 1");
    }
}

#[test]
fn commands_for_a_vm_that_does_not_run() {
    let sandbox = planted();
    for (exit, status) in
        [(None, "created"), (Some("stopped"), "stopped"), (Some("vmm-ended"), "error")]
    {
        if let Some(reason) = exit {
            sandbox.plant_exit("web", reason);
        }
        let wanted = format!("VM 'web' is {status}");
        let said = refuses(&sandbox, "banger-vm-exec", &["web", "--", "true"], 125, &wanted);
        assert!(said.contains("'banger vm start web'"), "{said}");
    }
    refuses(&sandbox, "banger-vm-wait", &["web"], 4, "so it will not come up");
    refuses(&sandbox, "banger-vm-exec", &["nobody", "--", "true"], 125, "no VM 'nobody'");
}

#[test]
fn options_after_the_dashes_are_the_command_s() {
    let sandbox = planted();
    // Had they been read as its own, each would end with 0 or 2.
    for words in
        [&["web", "--", "--help"][..], &["web", "--", "ls", "--version"], &["web", "--", "--json"]]
    {
        refuses(&sandbox, "banger-vm-exec", words, 125, "VM 'web' is created");
    }
    refuses(&sandbox, "banger-vm-run", &["--nothing", "--", "--help"], 2, "--nothing");
}

/// A program under way that Ctrl-C ends, as a terminal sends it: to all that it started, too.
struct Run {
    child: Child,
}

impl Run {
    fn start(sandbox: &Sandbox, name: &str, words: &[&str]) -> Self {
        let mut command = sandbox.command(program(name));
        command.args(words).stdout(Stdio::null()).stderr(Stdio::piped());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Self { child: command.spawn().expect("a program") }
    }

    /// Presses Ctrl-C and returns how it ended, and what it said.
    fn interrupt(mut self) -> (String, String) {
        let group = Pid::from_raw(-(self.child.id() as i32));
        kill(group, Signal::SIGINT).expect("a process to interrupt");
        let end = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait().expect("its status").is_none() {
            assert!(Instant::now() < end, "Ctrl-C does not end it");
            sleep(Duration::from_millis(10));
        }
        let output = self.child.wait_with_output().expect("its words");
        (output.status.to_string(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < end, "{what}: not within 30 s");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_interrupt_leaves_nothing_half_made() {
    let sandbox = planted();
    let before = contents(&sandbox);
    let begun = |shelf: &str| {
        let entries = fs::read_dir(sandbox.state().join(shelf)).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name())
            .any(|name| name.to_string_lossy().starts_with(".new-"))
    };
    // Sources that never end, so that each is caught at its work.
    let pipe = sandbox.dir().join("endless");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let source = pipe.to_str().expect("text");
    let _writer =
        fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("an end of the pipe");
    for (name, words, shelf) in [
        ("banger-image-import", vec![source, "--name", "endless"], "images"),
        ("banger-kernel-import", vec!["endless", "--vmlinuz", source], "kernels"),
    ] {
        let run = Run::start(&sandbox, name, &words);
        until(name, || begun(shelf));
        let (status, said) = run.interrupt();
        assert!(status.contains("SIGINT"), "{name}: {status}: {said}");
        assert_eq!(contents(&sandbox), before, "{name} left something");
    }
    // Waiting leaves the VM as it is, and can be given up.
    let lock = fs::File::create(sandbox.vm("web").join("lock")).expect("the lock");
    let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).expect("it");
    for (name, words) in [("banger-vm-wait", &["web"][..]), ("banger-vm-logs", &["-f", "web"])] {
        let run = Run::start(&sandbox, name, words);
        sleep(Duration::from_millis(200));
        let (status, said) = run.interrupt();
        assert!(status.contains("SIGINT"), "{name}: {status}: {said}");
    }
    drop(lock);
}

/// Ctrl-C while a guest comes up ends the waiting; the VM is what it was going to be.
#[test]
fn an_interrupted_start_says_what_becomes_of_the_vm() {
    let sandbox = Sandbox::new();
    sandbox.set_limit(Duration::from_mins(5));
    crate::fixture::kernel(&sandbox);
    sandbox.plant_image("alpine");
    let create = ["--image", "alpine", "--name", "web", "--memory", "128M", "--net", "none"];
    let phase = || {
        let text = fs::read(sandbox.vm("web").join("running.json")).unwrap_or_default();
        let running: Value = serde_json::from_slice(&text).unwrap_or_default();
        running["phase"].as_str().unwrap_or_default().to_owned()
    };
    for (name, words) in [("banger-vm-create", &create[..]), ("banger-vm-start", &["web"])] {
        let run = Run::start(&sandbox, name, words);
        until("a VM that boots", || phase() == "booting");
        let (status, said) = run.interrupt();
        assert!(status.contains("SIGINT"), "{name}: {status}: {said}");
        let words: Vec<&str> = said.lines().filter(|line| line.contains("all the same")).collect();
        assert_eq!(words.len(), 1, "{name}: {said}");
        assert!(words[0].contains("'banger vm wait web'"), "{name}: {said}");
        // It goes on, and can be ended.
        sandbox.raw(program("banger-vm-exec"), &["web", "--", "true"]).fails(125, "VM 'web' is ");
        sandbox.run(program("banger-vm-kill"), &["web"]).ok();
    }
    sandbox.run(program("banger-vm-delete"), &["web"]).ok();
    assert!(!sandbox.vm("web").exists());
}
