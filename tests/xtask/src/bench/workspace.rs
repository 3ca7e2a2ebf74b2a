//! A large repository on its way into a VM: by banger, and as one does it by hand.

use super::{Bench, LIMIT, median, shell, text, time};
use crate::{Result, run};
use nix::sys::resource::{UsageWho, getrusage};
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

const NAME: &str = "bench-workspace";
const IMAGE: &str = "workspace";
const FILES: u64 = 10_000;
/// Old commits, each with one version of a file that does not compress.
const COMMITS: u64 = 300;
const VERSION_BYTES: usize = 1 << 20;
/// Commits since, small ones.
const RECENT: u64 = 20;
const ROUNDS: usize = 3;
/// Files of the repository that is watched, and edits of it.
const WATCHED: u64 = 100_000;
const EDITS: u64 = 100;
/// A clone and ten thousand files through an emulated guest's ssh server.
const TRANSFER: Duration = Duration::from_mins(30);

pub(super) fn measure(bench: &mut Bench) -> Result {
    let repository = bench.dir.join("repository");
    bench.once("repository-made", || make_repository(&repository))?;
    image(bench)?;
    if !bench.state().join("kernels/generic-6.12").exists() {
        time(&mut bench.program("banger-kernel-pull", &["generic-6.12"]))?;
    }
    time(
        bench.program("banger-vm-delete", &["--force", "--lose-work", NAME]).stderr(Stdio::null()),
    )
    .ok();
    let create = ["--no-start", "--image", IMAGE, "--name", NAME, "--vcpu", "2", "--memory", "2G"];
    time(&mut bench.program("banger-vm-create", &create))?;
    time(&mut bench.program("banger-vm-start", &[NAME]))?;
    let measured = in_guest(bench, &repository).and_then(|()| watched(bench));
    let deleted = time(&mut bench.program("banger-vm-delete", &["--force", "--lose-work", NAME]));
    measured.and(deleted.map(drop))
}

fn in_guest(bench: &mut Bench, repository: &Path) -> Result {
    let config = bench.dir.join("ssh_config");
    ssh(bench, &config)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        theirs.push(by_hand(bench, repository, &config)?);
        guest(bench, "rm -rf /root/theirs /root/repo; sync")?;
        let _ = fs::remove_dir_all(bench.state().join("vms").join(NAME).join("workspaces"));
        ours.push(prepare(bench, repository)?.0);
        run::say(&format!(
            "round {round}: clone and rsync {:.0} ms, prepare {:.0} ms",
            theirs[round - 1],
            ours[round - 1]
        ));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    bench.figure("git clone --depth 10, then rsync over ssh", theirs, "ms", None);
    bench.figure("banger workspace prepare", ours, "ms", None);
    bench.figure("prepare / clone and rsync", ours / theirs, "", Some(0.5));

    // What was written less than two seconds before it was read is read once more.
    std::thread::sleep(Duration::from_secs(3));
    prepare(bench, repository)?;
    let mut again = Vec::new();
    for _ in 0..5 {
        again.push(prepare(bench, repository)?);
    }
    let wall = median(again.iter().map(|(wall, _)| *wall).collect());
    let work = median(again.iter().map(|(_, work)| *work).collect());
    bench.figure("unchanged second prepare, with the guest's part", wall, "ms", None);
    bench.figure("unchanged second prepare, host work", work, "ms", Some(300.0));

    guest(
        bench,
        "cd /root/repo && for i in $(seq 0 100 9900); do echo edit >>dir-$((i % 100))/file-$i; done",
    )?;
    let status = time(&mut bench.program("banger-workspace-status", &[NAME]))?;
    bench.figure("status, 100 files edited in the guest", status, "ms", None);
    let patch = bench.dir.join("patch");
    let export = ["--output", text(&patch), NAME];
    let export = time(&mut bench.program("banger-workspace-export", &export))?;
    bench.figure("export of them", export, "ms", None);
    shell(repository, &format!("git apply --check {}", text(&patch)))?;
    pull(bench, repository, &config)
}

/// A hundred commits come out: by banger, and by git over ssh from the same guest.
fn pull(bench: &mut Bench, repository: &Path, config: &Path) -> Result {
    guest(
        bench,
        "cd /root/repo && git config user.name A && git config user.email a@example.org && git add -A && \
         for i in $(seq 100); do echo $i >>dir-0/file-$((i * 100 - 100)); git commit -qam $i; done",
    )?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let clone = bench.dir.join("pulled");
        let fresh = |bench: &Bench| {
            let script =
                format!("rm -rf {0}; git clone -q {1} {0}", text(&clone), text(repository));
            let mut shell = Command::new("sh");
            bounded(shell.args(["-euc", &script]).env("BANGER_STATE", bench.state()), TRANSFER)
        };
        fresh(bench)?;
        let script = format!(
            "cd {} && GIT_SSH_COMMAND='ssh -F {}' git fetch -q {NAME}.vm:/root/repo main",
            text(&clone),
            text(config)
        );
        let mut shell = Command::new("sh");
        shell.args(["-euc", &script]).env("BANGER_STATE", bench.state());
        theirs.push(bounded(&mut shell, TRANSFER)?);
        fresh(bench)?;
        let words = ["--quiet", NAME, text(&clone)];
        ours.push(bounded(&mut bench.program("banger-workspace-pull", &words), TRANSFER)?);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    bench.figure("git fetch of 100 commits over ssh", theirs, "ms", None);
    bench.figure("banger workspace pull of them", ours, "ms", None);
    bench.figure("pull / fetch over ssh", ours / theirs, "", Some(1.0));
    stopped(bench)
}

/// The same of the VM that does not run, whose disks are read.
fn stopped(bench: &mut Bench) -> Result {
    time(&mut bench.program("banger-vm-stop", &["--quiet", NAME]))?;
    let mut took = Vec::new();
    for _ in 0..5 {
        took.push(time(&mut bench.program("banger-workspace-status", &["--quiet", NAME]))?);
    }
    bench.figure("status of the stopped VM", median(took), "ms", Some(1000.0));
    Ok(())
}

/// An edit of one of very many files, into a guest that is this machine: the guest's own time is not banger's.
fn watched(bench: &mut Bench) -> Result {
    bench.examples("banger-workspace")?;
    let dir = bench.dir.join("watched");
    fs::create_dir_all(&dir)
        .map_err(|error| format!("cannot make '{}': {error}", dir.display()))?;
    let mut example = Command::new(bench.bin.join("examples/watched"));
    example.args([text(&dir), &WATCHED.to_string(), &EDITS.to_string()]);
    let said = dir.join("said");
    let file = File::create(&said)
        .map_err(|error| format!("cannot write '{}': {error}", said.display()))?;
    let status = run::status(example.stdin(Stdio::null()).stdout(file), TRANSFER)?;
    let said = fs::read_to_string(&said).unwrap_or_default();
    let figures: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [median, late] = figures[..] else {
        return Err(format!("{example:?} ended with {status} and said '{said}'"));
    };
    bench.figure("watch: an edit among 100,000 files, median", median, "ms", None);
    bench.figure("watch: the same, 95th percentile", late, "ms", Some(150.0));
    Ok(())
}

/// Prepares, and returns how long it took and how much of that the host's processors worked, in
/// milliseconds.
fn prepare(bench: &Bench, repository: &Path) -> Result<(f64, f64)> {
    let work = || -> Result<f64> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)
            .map_err(|error| format!("cannot ask what programs took: {error}"))?;
        let ms = |time: nix::sys::time::TimeVal| {
            time.tv_sec() as f64 * 1000.0 + time.tv_usec() as f64 / 1000.0
        };
        Ok(ms(usage.user_time()) + ms(usage.system_time()))
    };
    let before = work()?;
    let wall = bounded(
        &mut bench.program("banger-workspace-prepare", &["--quiet", NAME, text(repository)]),
        TRANSFER,
    )?;
    Ok((wall, work()? - before))
}

/// What one types without banger.
fn by_hand(bench: &Bench, repository: &Path, config: &Path) -> Result<f64> {
    let clone = bench.dir.join("clone");
    let _ = fs::remove_dir_all(&clone);
    let script = format!(
        "git clone --quiet --depth 10 file://{} {clone} && \
         rsync -a -e 'ssh -F {}' {clone}/ {NAME}.vm:/root/theirs/",
        text(repository),
        text(config),
        clone = text(&clone)
    );
    let mut shell = Command::new("sh");
    shell.args(["-euc", &script]).env("BANGER_STATE", bench.state());
    bounded(&mut shell, TRANSFER)
}

fn bounded(command: &mut Command, limit: Duration) -> Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let began = std::time::Instant::now();
    let status = run::status(command, limit)?;
    let took = began.elapsed().as_secs_f64() * 1000.0;
    if status.success() { Ok(took) } else { Err(format!("{command:?} ended with {status}")) }
}

/// Runs a script in the guest.
fn guest(bench: &Bench, script: &str) -> Result {
    time(&mut bench.program("banger-vm-exec", &[NAME, "--", "sh", "-euc", script])).map(drop)
}

/// Starts the guest's ssh server and tells the host's ssh the way to it.
fn ssh(bench: &Bench, config: &Path) -> Result {
    guest(bench, "mkdir -p /run/sshd; test -e /run/sshd.pid || /usr/sbin/sshd")?;
    let file = File::create(config)
        .map_err(|error| format!("cannot write '{}': {error}", config.display()))?;
    let mut print = bench.program("banger-ssh-config", &[]);
    let status = run::status(print.stdin(Stdio::null()).stdout(file), LIMIT)?;
    if !status.success() {
        return Err(format!("banger-ssh-config ended with {status}"));
    }
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(config).arg(format!("{NAME}.vm")).arg("true");
    time(ssh.env("BANGER_STATE", bench.state())).map(drop)
}

/// A small Debian with an ssh server, rsync and git.
fn image(bench: &Bench) -> Result {
    bench.once("workspace-image", || {
        let tar = bench.dir.join("workspace.tar");
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap
            .args(["--quiet", "--variant=minbase", "--include=openssh-server,rsync,git"])
            .args(["--aptopt=Acquire::Retries \"3\"", "bookworm"])
            .arg(&tar);
        time(&mut bootstrap)?;
        time(&mut bench.program("banger-image-import", &[text(&tar), "--name", IMAGE]))?;
        fs::remove_file(&tar).map_err(|error| format!("cannot remove '{}': {error}", tar.display()))
    })
}

/// Makes a repository of many files with a long history (git-fast-import(1)).
fn make_repository(dir: &Path) -> Result {
    let stream = dir.with_extension("stream");
    write_history(&stream)
        .map_err(|error| format!("cannot write '{}': {error}", stream.display()))?;
    let script = format!(
        "rm -rf {dir}; git init -q -b main {dir}; cd {dir}; git fast-import --quiet <{stream}; \
         git reset -q --hard main; rm {stream}; \
         test $(du -sm .git | cut -f1) -ge 300; test $(git ls-files | wc -l) -ge {FILES}",
        dir = text(dir),
        stream = text(&stream)
    );
    let mut shell = Command::new("sh");
    bounded(shell.args(["-euc", &script]), LIMIT).map(drop)
}

fn write_history(path: &Path) -> std::io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut noise = move |size: usize| -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend(state.to_le_bytes());
        }
        bytes.truncate(size);
        bytes
    };
    let begin = |out: &mut BufWriter<File>, number: u64| {
        let time = 1_600_000_000 + number * 3600;
        write!(out, "commit refs/heads/main\ncommitter A <a@example.org> {time} +0000\n")?;
        let words = format!("commit {number}");
        writeln!(out, "data {}\n{words}", words.len())
    };
    let file = |out: &mut BufWriter<File>, path: &str, bytes: &[u8]| {
        write!(out, "M 100644 inline {path}\ndata {}\n", bytes.len())?;
        out.write_all(bytes)?;
        writeln!(out)
    };
    let place = |number: u64| format!("dir-{}/file-{number}", number % 100);
    begin(&mut out, 0)?;
    for number in 0..FILES {
        // Of 1 to 8 KiB, like text.
        let lines = 16 + number * 7 % 112;
        let mut content = Vec::new();
        for line in 0..lines {
            let tail = number * line;
            writeln!(
                content,
                "{number:08} line {line:06} of a file of the benchmark, {tail:016x}"
            )?;
        }
        file(&mut out, &place(number), &content)?;
    }
    for number in 1..=COMMITS {
        begin(&mut out, number)?;
        file(&mut out, "large.bin", &noise(VERSION_BYTES))?;
    }
    for number in COMMITS + 1..=COMMITS + RECENT {
        begin(&mut out, number)?;
        for step in 0..10 {
            let content = format!("changed in commit {number}\n");
            file(&mut out, &place((number * 10 + step) % FILES), content.as_bytes())?;
        }
    }
    out.flush()
}
