//! A VM's network: what making it takes, what passes through it, and what a command in a guest costs.
//!
//! All of it happens in a world of its own: one namespace plays the host, one the internet. An emulated
//! guest carries as much as its emulation does, so what is banger's own is measured without a guest
//! too: a process in a VM's namespace, and the agent on this machine.

use super::{Bench, LIMIT, median, shell, text, time};
use crate::{Result, run};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

const NAME: &str = "bench-net";
const ROUNDS: usize = 31;
/// Rounds of what takes seconds.
const FEW: usize = 5;
const SECONDS: &str = "1";
/// From the one who connects, and to it, with the word for `iperf3`.
const WAYS: [(&str, &[&str]); 2] = [("there", &[]), ("back", &["--reverse"])];
/// What a sender may have under way where it is a process of this machine. With more of it the `pasta` of
/// Debian 12 stalls, raw as well: where a server is as near as here it takes more than its socket
/// has room for, and what is lost is sent again after a wait.
const UNDER_WAY: [&str; 2] = ["--window", "128K"];
/// How many times slower than raw `pasta` a VM's namespace may be, which has rules besides.
const SLOWER: f64 = 1.5;
/// The internet's one server, and the host's own address.
const SERVER: &str = "203.0.113.1";
const LOOPBACK: &str = "127.0.0.1";
/// Where `iperf3` serves: on the internet and in the guest, on the host's loopback.
const PORT: &str = "5201";
const HOST_PORT: &str = "5202";
/// Ports of the host that lead to a server: through raw `pasta`, into the guest, through an agent on the
/// host.
const PASTA_PORT: &str = "5301";
const GUEST_PORT: &str = "5302";
const AGENT_PORT: &str = "5303";

/// Makes the cable and its two ends; `$1` is the folder of the programs. Ends with its stdin.
const WORLD: &str = r#"
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/bin
mount --bind "$1" /mnt/bin
mknod -m 666 /mnt/tun c 10 200
mount --bind /mnt/tun /dev/net/tun
echo "nameserver 203.0.113.1" >/mnt/resolv.conf
mount --bind /mnt/resolv.conf /etc/resolv.conf
ip link set lo up
mkfifo /mnt/made
unshare --net sh -c 'echo >/mnt/made; exec sleep infinity' &
internet=$!
read nothing </mnt/made
ip link add cable type veth peer name cable netns $internet
inside="nsenter --net --target $internet"
$inside ip addr add 203.0.113.1/24 dev cable
$inside ip link set cable up
ip addr add 203.0.113.2/24 dev cable
ip link set cable up
ip route add default via 203.0.113.1
$inside iperf3 --server --daemon --port 5201
iperf3 --server --daemon --port 5202 --bind 127.0.0.1
for turn in $(seq 100); do
    $inside ss -Hltn | grep -q :5201 && ss -Hltn | grep -q :5202 && break
    sleep 0.05
done
echo made
read nothing || true
"#;

pub(super) fn measure(bench: &mut Bench) -> Result {
    bench.examples("banger-net")?;
    bench.examples("banger-channel")?;
    if !bench.state().join("kernels/generic-6.12").exists() {
        time(&mut bench.program("banger-kernel-pull", &["generic-6.12"]))?;
    }
    image(bench)?;
    let world = World::new(&bench.bin)?;
    set_up(bench, &world)?;
    let loopback = through_the_way_out(bench, &world)?;
    through_an_agent(bench, &world, loopback)?;
    let measured = with_a_guest(bench, &world, loopback);
    let _ = output(&mut world.program(bench, "banger-vm-delete", &["--force", NAME]));
    measured
}

/// What a VM's network takes apart from `pasta`, and raw `pasta` beside it.
fn set_up(bench: &mut Bench, world: &World) -> Result {
    let (mut ours, mut pasta) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let said = output(&mut world.nobody(&["/mnt/bin/examples/namespace", "1"]))?;
        let took: f64 = said.trim().parse().map_err(|_| format!("no number: '{said}'"))?;
        ours.push(took / 1000.0);
        // The time of `nsenter` and `setpriv` is not `pasta`'s.
        let nothing = quiet_time(&mut world.nobody(&["true"]))?;
        pasta.push(quiet_time(&mut world.nobody(&raw_pasta(&[], &["true"])))? - nothing);
    }
    run::say(&format!("== set-up of a VM's network, medians of {ROUNDS}"));
    bench.figure("namespace, tap, rules, addresses", median(ours), "ms", Some(15.0));
    bench.figure("raw pasta, started beside the VMM", median(pasta), "ms", None);
    Ok(())
}

/// Between the host and the internet: a process in the namespace that raw `pasta` makes, one in a VM's.
/// Returns what the host's loopback carries.
fn through_the_way_out(bench: &mut Bench, world: &World) -> Result<f64> {
    run::say(&format!(
        "== between a process and the world, without a guest, at most {} under way, medians of {FEW}",
        UNDER_WAY[1]
    ));
    let mut loopback = Vec::new();
    for (way, options) in WAYS {
        let (mut raw, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..FEW {
            loopback.push(rate(&mut world.nobody(&client(LOOPBACK, HOST_PORT, options)))?);
            let words = [&client(SERVER, PORT, options)[..], &UNDER_WAY].concat();
            raw.push(rate(&mut world.nobody(&raw_pasta(&[], &words)))?);
            let before = ["/mnt/bin/examples/namespace", "--"];
            ours.push(rate(&mut world.nobody(&[&before[..], &words].concat()))?);
        }
        let (raw, ours) = (median(raw), median(ours));
        bench.figure(&format!("raw pasta, {way}"), raw, "MiB/s", None);
        bench.figure(&format!("a VM's namespace, {way}"), ours, "MiB/s", None);
        bench.figure(&format!("raw / a VM's, {way}"), raw / ours, "", Some(SLOWER));
    }
    let loopback = median(loopback);
    bench.figure("the host's loopback", loopback, "MiB/s", None);
    Ok(loopback)
}

/// A published port, with the agent on this machine: relay, streams over one line, agent.
fn through_an_agent(bench: &mut Bench, world: &World, loopback: f64) -> Result {
    let agent = "/mnt/bin/banger-guest-agent";
    let published = ["/mnt/bin/examples/published", agent, AGENT_PORT, HOST_PORT];
    let _published = serve(world, &published, AGENT_PORT)?;
    let server = ["iperf3", "--server", "--port", PASTA_PORT];
    let behind = raw_pasta(&["-t", PASTA_PORT], &server);
    let _pasta = serve(world, &behind, PASTA_PORT)?;
    run::say(&format!("== through a port of the host, without a guest, medians of {FEW}"));
    for (way, options) in WAYS {
        let (mut raw, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..FEW {
            raw.push(rate(&mut world.nobody(&client(LOOPBACK, PASTA_PORT, options)))?);
            ours.push(rate(&mut world.nobody(&client(LOOPBACK, AGENT_PORT, options)))?);
        }
        let (raw, ours) = (median(raw), median(ours));
        bench.figure(&format!("raw pasta, {way}"), raw, "MiB/s", None);
        bench.figure(&format!("published, {way}"), ours, "MiB/s", None);
        bench.figure(&format!("loopback / published, {way}"), loopback / ours, "", None);
    }
    Ok(())
}

/// The same with a guest, and a command in it.
fn with_a_guest(bench: &mut Bench, world: &World, loopback: f64) -> Result {
    let _ = output(&mut world.program(bench, "banger-vm-delete", &["--force", NAME]));
    let create = ["--no-start", "--image", "iperf", "--name", NAME, "--vcpu", "2"];
    let more = ["--memory", "512M", "--net", "user", "--publish", &format!("{GUEST_PORT}:{PORT}")];
    time(&mut world.program(bench, "banger-vm-create", &[&create[..], &more].concat()))?;
    time(&mut world.program(bench, "banger-vm-start", &[NAME]))?;
    let view = output(&mut world.program(bench, "banger-vm-show", &[NAME]))?;
    let view: serde_json::Value = serde_json::from_str(&view).map_err(|error| error.to_string())?;
    let emulated = view["running"]["accelerator"] == "tcg";
    run::say(if emulated {
        "== with a guest, which is emulated: what it carries is what the emulation does"
    } else {
        "== with a guest"
    });
    exec(bench)?;
    time(&mut world.program(
        bench,
        "banger-vm-exec",
        &[NAME, "--", "iperf3", "--server", "--daemon", "--port", PORT],
    ))?;
    for (way, options) in WAYS {
        let (mut world_rates, mut published) = (Vec::new(), Vec::new());
        for _ in 0..FEW {
            let words = [&[NAME, "--"][..], &client(SERVER, PORT, options)].concat();
            world_rates.push(rate(&mut world.program(bench, "banger-vm-exec", &words))?);
            published.push(rate(&mut world.nobody(&client(LOOPBACK, GUEST_PORT, options)))?);
        }
        for (what, rates) in [("guest to world", world_rates), ("published", published)] {
            let rate = median(rates);
            bench.figure(&format!("{what}, {way}"), rate, "MiB/s", None);
            bench.figure(&format!("loopback / {what}, {way}"), loopback / rate, "", None);
        }
    }
    Ok(())
}

/// `vm exec true`, and the same said on the channel by hand.
fn exec(bench: &mut Bench) -> Result {
    let dir = bench.state().join("vms").join(NAME).join("run");
    let (mut hello, mut channel, mut program) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        hello.push(ask(&dir, 1024, b"{\"op\":\"hello\"}\n", |answer| answer.contains(&b'\n'))?);
        channel.push(ask(&dir, 1025, b"{\"argv\":[\"true\"]}\n", has_exit)?);
        program.push(time(&mut bench.program("banger-vm-exec", &[NAME, "--", "true"]))?);
    }
    let over: Vec<f64> = program.iter().zip(&channel).map(|(all, own)| all - own).collect();
    let (hello, channel, program) = (median(hello), median(channel), median(program));
    bench.figure("the channel's round trip: hello", hello, "ms", None);
    bench.figure("'true', said on the channel by hand", channel, "ms", None);
    bench.figure("'vm exec true'", program, "ms", None);
    bench.figure("the program's own part of it", median(over), "ms", None);
    bench.figure("'vm exec true' over the round trip", program - hello, "ms", Some(10.0));
    Ok(())
}

/// Says something to a port of the guest until the answer is whole (`docs/agent-protocol.md`).
fn ask(dir: &Path, port: u16, request: &[u8], whole: fn(&[u8]) -> bool) -> Result<f64> {
    let failed = |error: std::io::Error| format!("the channel: {error}");
    // However long the way to the socket is.
    let dir = File::open(dir).map_err(failed)?;
    let path = format!("/proc/self/fd/{}/channel.sock", dir.as_raw_fd());
    let begun = Instant::now();
    let stream = UnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(failed)?;
    writeln!(&stream, "CONNECT {port}").map_err(failed)?;
    let mut stream = BufReader::new(stream);
    stream.read_line(&mut String::new()).map_err(failed)?;
    stream.get_mut().write_all(request).map_err(failed)?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    while !whole(&answer) {
        match stream.read(&mut piece).map_err(failed)? {
            0 => return Err("the channel ended early".into()),
            count => answer.extend_from_slice(&piece[..count]),
        }
    }
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

/// Says whether frames have come to the last one, that of the exit.
fn has_exit(mut frames: &[u8]) -> bool {
    while let [kind, a, b, c, d, rest @ ..] = frames {
        if *kind == 19 {
            return true;
        }
        let size = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let Some(next) = rest.get(size..) else { return false };
        frames = next;
    }
    false
}

fn client<'a>(address: &'a str, port: &'a str, options: &[&'a str]) -> Vec<&'a str> {
    let words = ["iperf3", "--json", "--time", SECONDS, "--omit", "1", "--client", address];
    [&words[..], &["--port", port], options].concat()
}

/// `pasta` as one types it, but for the ways into the host, which it opens by itself.
fn raw_pasta<'a>(ports: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    let ports = if ports.is_empty() { &["-t", "none"][..] } else { ports };
    let more = ["-u", "none", "-T", "none", "-U", "none", "--no-map-gw", "--config-net"];
    [&["pasta"][..], ports, &more, &["--quiet", "--"], command].concat()
}

/// Runs a client of `iperf3`; returns what arrived, in MiB/s.
fn rate(command: &mut Command) -> Result<f64> {
    let said = output(command)?;
    let said: serde_json::Value = serde_json::from_str(&said).map_err(|error| error.to_string())?;
    let bits = said["end"]["sum_received"]["bits_per_second"].as_f64();
    let bits = bits.ok_or_else(|| format!("iperf3: {}", said["error"]))?;
    Ok(bits / 8.0 / f64::from(1 << 20))
}

/// Runs a command of a world's, each of which has a limit; returns what it printed. What `pasta` finds
/// missing in a world (a log of the system's, IPv6) is shown only where something fails.
fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} ended with {}: {said}{complaint}", output.status))
}

/// Returns how long a command of a world's takes, in milliseconds.
fn quiet_time(command: &mut Command) -> Result<f64> {
    let begun = Instant::now();
    output(command)?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

/// An image with busybox, `iperf3` and its libraries.
fn image(bench: &Bench) -> Result {
    bench.once("iperf-image", || {
        let script = "rm -rf iperf; mkdir -p iperf/bin iperf/sbin iperf/root iperf/tmp iperf/etc; \
             cp /bin/busybox iperf/bin; for name in $(busybox --list | grep -vx busybox); do \
             ln -sf busybox iperf/bin/$name; done; ln -sf ../bin/busybox iperf/sbin/init; \
             echo ::sysinit:/bin/true >iperf/etc/inittab; chmod 1777 iperf/tmp; \
             for file in $(ldd /usr/bin/iperf3 | grep -o '/[^ ]*'); do \
             mkdir -p iperf$(dirname $file); cp -L $file iperf$file; done; \
             cp /usr/bin/iperf3 iperf/bin; \
             tar -C iperf --owner=0 --group=0 -cf iperf.tar .";
        shell(&bench.dir, script)?;
        let tar = bench.dir.join("iperf.tar");
        time(&mut bench.program("banger-image-import", &[text(&tar), "--name", "iperf"])).map(drop)
    })
}

/// A host and an internet, gone when dropped.
struct World {
    process: Child,
    _stdin: ChildStdin,
    pid: String,
}

impl World {
    fn new(programs: &Path) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Err("making a world of namespaces needs root".into());
        }
        let mut process = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "sh", "-euc", WORLD, "sh", text(programs)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run 'unshare': {error}"))?;
        let stdin = process.stdin.take().expect("because it is a pipe");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("because it is a pipe");
        let heard = BufReader::new(stdout).read_line(&mut line);
        if heard.is_err() || line != "made\n" {
            let _ = process.kill();
            let _ = process.wait();
            return Err("the world of namespaces cannot be made".into());
        }
        let children = format!("/proc/{0}/task/{0}/children", process.id());
        let pid = fs::read_to_string(&children)
            .map_err(|error| format!("cannot read '{children}': {error}"))?;
        Ok(Self { process, _stdin: stdin, pid: pid.trim().to_owned() })
    }

    fn enter(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--pid", "--wd=/", "--target", &self.pid]);
        command.args(["timeout", "300"]).args(words);
        command
    }

    /// Prepares a command on the host, of an ordinary user.
    fn nobody(&self, words: &[&str]) -> Command {
        let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
        self.enter(&[&user[..], words].concat())
    }

    /// Prepares one of banger's programs on the host, of root's.
    fn program(&self, bench: &Bench, name: &str, words: &[&str]) -> Command {
        let mut command = self.enter(&[&format!("/mnt/bin/{name}")]);
        command.args(words).env("BANGER_STATE", bench.state());
        command
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a server of the world's, which ends with it at the latest, and waits until it answers.
fn serve(world: &World, words: &[&str], port: &str) -> Result<ChildStdin> {
    let mut command = world.nobody(words);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().map_err(|error| format!("cannot run {words:?}: {error}"))?;
    let end = Instant::now() + Duration::from_secs(20);
    let little = ["iperf3", "--bytes", "1K", "--client", LOOPBACK, "--port", port];
    while let Err(error) = output(&mut world.nobody(&little)) {
        if Instant::now() > end {
            return Err(format!("{words:?} does not serve: {error}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.stdin.ok_or_else(|| "because it is a pipe".into())
}
