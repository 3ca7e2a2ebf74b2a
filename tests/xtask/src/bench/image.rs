//! An image of a registry becomes a disk: banger, the usual tools one after the other, and the
//! inflating and hashing that nobody can leave out.

use super::{Bench, median, shell, text, time};
use crate::{
    Result,
    run::{self, cargo, say, target},
};
use nix::{
    sys::resource::{UsageWho, getrusage},
    unistd::{SysconfVar, sysconf},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const ROUNDS: usize = 5;
/// The usual tools take half a minute.
const USUAL_ROUNDS: usize = 2;
const REPULLS: usize = 20;
/// What writing a disk may need, in MiB.
const MEMORY: f64 = 256.0;

/// A Debian of about 800 MB in six layers: a base, compilers and interpreters, what is removed of
/// their pages, an application of many small files and all that layers can hold, changes of
/// metadata and of types, whiteouts.
const IMAGE: &str = r#"
    rm -rf work gzip; mkdir work; cd work
    mmdebstrap --quiet --variant=minbase bookworm base.tar
    mmdebstrap --quiet --variant=minbase bookworm full.tar \
        --include=python3,git,gcc,g++,make,curl,openssh-client,vim,gdb,cmake,strace,busybox
    umoci init --layout ../gzip; umoci new --image ../gzip:latest
    umoci raw add-layer --image ../gzip:latest base.tar
    umoci unpack --image ../gzip:latest bundle 2>/dev/null
    root=bundle/rootfs
    layer() { umoci repack --refresh-bundle --image ../gzip:latest bundle 2>/dev/null; }
    find $root -mindepth 1 -delete; tar -C $root -xpf full.tar; layer
    rm -rf $root/usr/share/doc/* $root/usr/share/man/* $root/usr/share/locale/*; layer
    app=$root/opt/app; mkdir -p $app/flat
    for dir in $(seq 120); do
        mkdir -p $app/modules/$dir/lib
        for file in $(seq 100); do
            echo "module.exports = { id: $dir, part: $file, text: 'some words of a small file' };" \
                >$app/modules/$dir/lib/$file.js
        done
    done
    (cd $app/flat; seq 6000 | xargs touch)
    head -c 25165824 /dev/urandom >$app/random; truncate -s 48M $app/sparse
    for n in $(seq 200); do ln $app/random $app/hard-$n; done
    for n in $(seq 500); do ln -s modules/$n $app/soft-$n; done
    mknod $app/null c 1 3; mkfifo $app/fifo; cp /bin/busybox $app/ping; setcap cap_net_raw+ep $app/ping
    touch "$app/a name with a
newline and \"quotes\""; chown -R 70000:4000000 $app/modules/1; touch -d 1960-01-01 $app/old
    layer
    find $app/modules/2 -type f -exec chmod 600 {} +; rm -rf $app/modules/3; echo now a file >$app/modules/3
    rm $app/soft-1; mkdir $app/soft-1; layer
    rm -rf $app/modules/4 $app/hard-7 $app/flat; mkdir $app/flat; touch $app/flat/new; layer
    cd ..; rm -rf work
"#;

pub(super) fn measure(bench: &mut Bench) -> Result {
    let gzip = bench.dir.join("gzip");
    let zstd = bench.dir.join("zstd");
    bench.once("six-layers-gzip", || {
        say("making the image, once");
        shell(&bench.dir, IMAGE)
    })?;
    bench.once("six-layers-zstd", || repack(&gzip, &zstd))?;
    let limit = limit_program()?;
    let registry = Registry::start(&bench.dir)?;
    for name in ["gzip", "zstd"] {
        let copy = format!(
            "skopeo --insecure-policy copy -q --dest-tls-verify=false oci:{name}:latest \
             docker://{}/{name}:latest",
            registry.host
        );
        shell(&bench.dir, &copy)?;
    }

    let mut gzip = Kind::new("gzip", &gzip, &registry)?;
    let mut zstd = Kind::new("zstd", &zstd, &registry)?;
    say(&format!(
        "an image of {} layers, {:.0} MB as gzip, {:.0} MB as zstd",
        gzip.layers.len(),
        gzip.bytes as f64 / 1e6,
        zstd.bytes as f64 / 1e6
    ));
    let mut usual = Vec::new();
    for round in 0..ROUNDS {
        for kind in [&mut gzip, &mut zstd] {
            kind.round(bench, &limit, &registry)?;
        }
        if round < USUAL_ROUNDS {
            usual.push(usual_tools(bench, &gzip.reference)?);
        }
    }
    let script = script_alone(bench)?;
    for kind in [&mut gzip, &mut zstd] {
        kind.pulls.iter_mut().for_each(|took| took.wall -= script);
    }
    let again = repulls(bench, &gzip.reference)?;
    let peak = peak(bench, &gzip.reference)?;
    same_bytes(bench, &gzip.reference)?;
    shell(&bench.dir, "rm -rf cold other copy bundle disk.ext4")?;

    let usual = median(usual);
    bench.figure("skopeo copy, umoci unpack, mkfs.ext4 -d", usual, "ms", None);
    for kind in [&gzip, &zstd] {
        kind.say(bench, usual);
    }
    bench.figure("the same pull again", again, "ms", Some(50.0));
    bench.figure("most memory of a pull", peak, "MiB", Some(MEMORY));
    say("two pulls gave the same bytes");
    Ok(())
}

/// One way of packing the image, and what was measured of it, in milliseconds.
struct Kind {
    name: &'static str,
    reference: String,
    layers: Vec<PathBuf>,
    bytes: u64,
    alone: Vec<Took>,
    pulls: Vec<Took>,
    syncs: Vec<f64>,
    /// What each pull took of this machine's time for the registry, which is elsewhere for a user.
    served: Vec<f64>,
}

/// Time on the clock and that of the processors.
#[derive(Clone, Copy)]
struct Took {
    wall: f64,
    cpu: f64,
}

impl Kind {
    fn new(name: &'static str, layout: &Path, registry: &Registry) -> Result<Self> {
        let layers = layers(layout)?;
        let size = |path: &PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
        Ok(Self {
            name,
            reference: format!("{}/{name}:latest", registry.host),
            bytes: layers.iter().map(size).sum(),
            layers,
            alone: Vec::new(),
            pulls: Vec::new(),
            syncs: Vec::new(),
            served: Vec::new(),
        })
    }

    fn round(&mut self, bench: &Bench, limit: &Path, registry: &Registry) -> Result {
        self.alone.push(took(Command::new(limit).args(&self.layers))?);
        shell(&bench.dir, "rm -rf cold")?;
        let before = registry.cpu()?;
        let (took, sync) = cold(bench, &self.reference)?;
        self.served.push((registry.cpu()? - before) / processors());
        self.pulls.push(took);
        self.syncs.push(sync);
        Ok(())
    }

    fn say(&self, bench: &mut Bench, usual: f64) {
        let wall = |all: &[Took]| median(all.iter().map(|took| took.wall).collect());
        let cpu = |all: &[Took]| median(all.iter().map(|took| took.cpu).collect());
        let (pull, sync) = (wall(&self.pulls), median(self.syncs.clone()));
        let served = median(self.served.clone());
        let own = pull - sync - served;
        let name = self.name;
        bench.figure(&format!("{name}: inflate and sha256 alone"), wall(&self.alone), "ms", None);
        bench.figure(&format!("{name}: image pull"), own, "ms", None);
        bench.figure(&format!("{name}: its last fsync, not counted"), sync, "ms", None);
        bench.figure(&format!("{name}: the registry's share, not counted"), served, "ms", None);
        bench.figure(&format!("{name}: processor time alone"), cpu(&self.alone), "ms", None);
        bench.figure(&format!("{name}: processor time of the pull"), cpu(&self.pulls), "ms", None);
        let ratio = own / wall(&self.alone);
        bench.figure(&format!("{name}: pull to alone"), ratio, "", Some(1.3));
        let ratio = (pull - sync) / wall(&self.alone);
        bench.figure(&format!("{name}: with the registry's share"), ratio, "", None);
        let ratio = cpu(&self.pulls) / cpu(&self.alone);
        bench.figure(&format!("{name}: the same in processor time"), ratio, "", None);
        if name == "gzip" {
            bench.figure("share of the usual time", (pull - sync) / usual, "", Some(0.1));
            bench.figure("share of it with the fsync", pull / usual, "", None);
        }
    }
}

/// Pulls into an empty state; returns how long that took and how much of it was the last fsync.
fn cold(bench: &Bench, reference: &str) -> Result<(Took, f64)> {
    let pull = bench.bin.join("banger-image-pull");
    let words = bench.dir.join("words");
    // On a terminal it says how long the fsync took.
    let line = format!("'{}' '{reference}' --name bench", text(&pull));
    let mut command = Command::new("script");
    command.args(["-qec", &line]).arg(&words).env("BANGER_STATE", bench.dir.join("cold"));
    let took = took(&mut command)?;
    let said = fs::read(&words).map_err(|error| format!("cannot read what it said: {error}"))?;
    let said = String::from_utf8_lossy(&said);
    let sync = said
        .split_once("synced it in ")
        .and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<f64>().ok())
        .ok_or_else(|| format!("the pull does not tell of its fsync: {said}"))?;
    Ok((took, sync * 1000.0))
}

/// Returns what the terminal that a pull is shown costs: script(1) waits a moment at its end.
fn script_alone(bench: &Bench) -> Result<f64> {
    let run = || {
        let mut command = Command::new("script");
        time(command.args(["-qec", "true"]).arg(bench.dir.join("words")))
    };
    (0..ROUNDS).map(|_| run()).collect::<Result<_>>().map(median)
}

fn usual_tools(bench: &Bench, reference: &str) -> Result<f64> {
    shell(&bench.dir, "rm -rf copy bundle disk.ext4")?;
    let rootless = if nix::unistd::geteuid().is_root() { "" } else { "--rootless" };
    let script = format!(
        "skopeo --insecure-policy copy -q --src-tls-verify=false docker://{reference} oci:copy:latest; \
         umoci unpack {rootless} --image copy:latest bundle 2>/dev/null; \
         mkfs.ext4 -q -d bundle/rootfs disk.ext4 4G"
    );
    time(Command::new("sh").args(["-euc", &script]).current_dir(&bench.dir))
}

/// Pulls what is there already, in the state that [`cold`] left.
fn repulls(bench: &Bench, reference: &str) -> Result<f64> {
    shell(&bench.dir, "rm -rf cold")?;
    let pull = || {
        let mut pull = bench.program("banger-image-pull", &[reference, "--name", "bench"]);
        pull.env("BANGER_STATE", bench.dir.join("cold"));
        pull
    };
    time(&mut pull())?;
    (0..REPULLS).map(|_| time(&mut pull())).collect::<Result<_>>().map(median)
}

/// Returns the most memory a cold pull needs, in MiB (`VmHWM` of proc_pid_status(5)).
fn peak(bench: &Bench, reference: &str) -> Result<f64> {
    let mut pull = bench.program("banger-image-pull", &[reference, "--name", "bench"]);
    let other = bench.dir.join("other");
    let _ = fs::remove_dir_all(&other);
    pull.env("BANGER_STATE", &other).stdout(Stdio::null());
    let mut child = pull.spawn().map_err(|error| format!("cannot run {pull:?}: {error}"))?;
    let path = format!("/proc/{}/status", child.id());
    let (end, mut peak) = (Instant::now() + super::LIMIT, 0.0_f64);
    loop {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        peak = peak.max(kib.unwrap_or(0.0) / 1024.0);
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(peak),
            Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(5)),
            other => {
                let _ = child.kill();
                return Err(format!("the pull did not end well: {other:?}"));
            }
        }
    }
}

/// Compares the disks of the last two pulls, in two states.
fn same_bytes(bench: &Bench, reference: &str) -> Result {
    let disks =
        ["cold", "other"].map(|state| bench.dir.join(state).join("images/bench/rootfs.ext4"));
    time(Command::new("cmp").args(&disks))
        .map(drop)
        .map_err(|error| format!("two pulls of '{reference}' differ: {error}"))
}

fn took(command: &mut Command) -> Result<Took> {
    let before = children()?;
    let wall = time(command)?;
    Ok(Took { wall, cpu: children()? - before })
}

/// Returns the processor time of all children that have ended, in milliseconds.
fn children() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_err(|error| format!("cannot ask for the time of processes: {error}"))?;
    let sum = usage.user_time() + usage.system_time();
    Ok(sum.tv_sec() as f64 * 1e3 + sum.tv_usec() as f64 / 1e3)
}

/// Builds what inflates and hashes layers and does nothing else.
fn limit_program() -> Result<PathBuf> {
    let mut build = cargo();
    build.args([
        "build",
        "--quiet",
        "--profile",
        "bench",
        "-p",
        "banger-layer",
        "--example",
        "limit",
    ]);
    run::run("building the limit", &mut build, Duration::from_mins(30))?;
    Ok(target().join("release/examples/limit"))
}

fn read_json(path: &Path) -> Result<Value> {
    let bytes =
        fs::read(path).map_err(|error| format!("cannot read '{}': {error}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("'{}': {error}", path.display()))
}

fn blob(layout: &Path, descriptor: &Value) -> PathBuf {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
}

fn manifest(layout: &Path) -> Result<Value> {
    let index = read_json(&layout.join("index.json"))?;
    read_json(&blob(layout, &index["manifests"][0]))
}

/// Returns the files of a layout's layers, lowest first.
fn layers(layout: &Path) -> Result<Vec<PathBuf>> {
    let manifest = manifest(layout)?;
    let layers = manifest["layers"].as_array().ok_or("the layout has no layers")?;
    Ok(layers.iter().map(|layer| blob(layout, layer)).collect())
}

/// Writes the image of a layout once more, its layers packed by zstd.
fn repack(from: &Path, to: &Path) -> Result {
    let failed = |error: std::io::Error| format!("cannot write '{}': {error}", to.display());
    fs::create_dir_all(to.join("blobs/sha256")).map_err(failed)?;
    let adopt = |path: &Path, kind: &str| -> Result<Value> {
        let sum = Command::new("sha256sum").arg(path).output().map_err(failed)?;
        let hex = String::from_utf8_lossy(&sum.stdout).chars().take(64).collect::<String>();
        let size = fs::metadata(path).map_err(failed)?.len();
        fs::rename(path, to.join("blobs/sha256").join(&hex)).map_err(failed)?;
        Ok(json!({"mediaType": kind, "digest": format!("sha256:{hex}"), "size": size}))
    };
    let write = |value: &Value, kind: &str| -> Result<Value> {
        let path = to.join("document");
        fs::write(&path, value.to_string()).map_err(failed)?;
        adopt(&path, kind)
    };
    let old = manifest(from)?;
    let mut packed = Vec::new();
    for layer in layers(from)? {
        shell(to, &format!("gunzip -c <'{}' | zstd -q -3 -c >packed", text(&layer)))?;
        packed.push(adopt(&to.join("packed"), "application/vnd.oci.image.layer.v1.tar+zstd")?);
    }
    let config = read_json(&blob(from, &old["config"]))?;
    let config = write(&config, "application/vnd.oci.image.config.v1+json")?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let new = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": packed});
    let mut entry = write(&new, kind)?;
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(to.join("index.json"), index.to_string()).map_err(failed)?;
    fs::write(to.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).map_err(failed)
}

/// A real registry on loopback; it ends with the value.
struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    fn start(dir: &Path) -> Result<Self> {
        let config = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
            text(&dir.join("registry"))
        );
        fs::write(&config, text).map_err(|error| format!("cannot write its config: {error}"))?;
        // It ends with this process, however that ends.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run docker-registry: {error}"))?;
        let stderr = BufReader::new(child.stderr.take().expect("because it was asked for"));
        let (found, host) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(std::io::Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let end = rest.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit());
                    let _ = found.send(rest[..end.unwrap_or(rest.len())].to_owned());
                }
            }
        });
        let host = host.recv_timeout(Duration::from_secs(20));
        let registry = Self { child, host: host.as_ref().cloned().unwrap_or_default() };
        host.map_err(|_| "docker-registry does not say where it listens".to_owned())?;
        Ok(registry)
    }
}

impl Registry {
    /// Returns the processor time it has taken so far, in milliseconds (fields 14 and 15 of
    /// proc_pid_stat(5)).
    fn cpu(&self) -> Result<f64> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = fs::read_to_string(&path).map_err(|error| format!("'{path}': {error}"))?;
        let after = stat.rsplit_once(") ").ok_or("the registry's state has no name")?.1;
        let ticks: f64 =
            after.split(' ').skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
        let a_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
        Ok(ticks * 1000.0 / a_second)
    }
}

fn processors() -> f64 {
    thread::available_parallelism().map_or(1.0, |count| count.get() as f64)
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
