//! A world of network namespaces: one plays the host, one the internet, joined by a cable. Nothing in
//! it reaches the machine's own network.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub, missing_docs)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Child, ChildStdin, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Addresses of the internet's one server, and the name it answers to.
pub const SERVER4: &str = "198.51.100.7";
pub const SERVER6: &str = "2001:db8:1::7";
pub const NAME: &str = "server.test";
/// The host's own addresses on the cable, and its gateway.
pub const HOST4: &str = "203.0.113.2";
pub const GATEWAY4: &str = "203.0.113.1";
/// Addresses of the host on another interface, as of a bridge of containers.
pub const BRIDGE4: &str = "172.17.0.1";
pub const BRIDGE6: &str = "2001:db8:17::1";
/// Where clouds give credentials away.
pub const METADATA4: &str = "169.254.169.254";
pub const METADATA6: &str = "fd00:ec2::254";
/// Ports of the host: one on its loopback, one on all its addresses.
pub const LOOPBACK_PORT: u16 = 9001;
pub const OPEN_PORT: u16 = 9002;

/// Says which part of this binary a process plays.
const ROLE: &str = "BANGER_NET_ROLE";

/// Where the programs of the build lie in a world: an ordinary user may not enter the folder they are in.
pub const PROGRAMS: &str = "/mnt/programs";

/// Makes the cable and its two ends. `$1` is this binary, `$2` the host's name server, `$3` what the
/// internet serves on port 8080, if anything. Ends when its stdin closes.
const SCRIPT: &str = r#"
set -e
build=$(dirname "$(dirname "$1")")
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/programs
mount --bind "$build" /mnt/programs
set -- "/mnt/programs/deps/$(basename "$1")" "$2" "$3"
mknod -m 666 /mnt/tun c 10 200
mount --bind /mnt/tun /dev/net/tun
echo "nameserver $2" > /mnt/resolv.conf
mount --bind /mnt/resolv.conf /etc/resolv.conf
{ cat /etc/passwd; echo "somebody:x:12345:12345::/:/bin/sh"; } > /mnt/passwd
mount --bind /mnt/passwd /etc/passwd
echo "0 2147483647" > /proc/sys/net/ipv4/ping_group_range
ip link set lo up
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
BANGER_NET_ROLE=internet unshare --net "$1" --exact play --nocapture < /dev/zero > /mnt/internet 2>&1 &
internet=$!
for i in $(seq 3000); do grep -q ready /mnt/internet && break; sleep 0.01; done
ip link add cable type veth peer name cable netns $internet
inside="nsenter --net --target $internet"
ip addr add 203.0.113.2/24 dev cable
ip addr add 2001:db8::2/64 dev cable nodad
ip link set cable up
ip link add docker0 type veth peer name docker1
ip addr add 172.17.0.1/16 dev docker0
ip addr add 2001:db8:17::1/64 dev docker0 nodad
ip link set docker0 up
ip link set docker1 up
$inside ip addr add 203.0.113.1/24 dev cable
$inside ip addr add 2001:db8::1/64 dev cable nodad
$inside ip link set cable up
test -z "$3" || $inside busybox httpd -p 8080 -h "$3"
ip route add default via 203.0.113.1
ip route add default via 2001:db8::1
BANGER_NET_ROLE=host "$1" --exact play --nocapture > /mnt/host 2>&1 < /dev/zero &
host=$!
for i in $(seq 3000); do grep -q ready /mnt/host && break; sleep 0.01; done
# The first neighbours of IPv6 take a second to find each other.
for i in $(seq 50); do timeout 1 bash -c "< /dev/tcp/2001:db8:1::7/80" && break; done
echo world $$
read line || true
kill $internet $host
"#;

/// A world, gone when dropped.
pub struct World {
    process: Child,
    _stdin: ChildStdin,
    pid: u32,
}

impl World {
    /// Makes a world whose host asks `resolver` for names; `None`, said aloud, where this machine cannot.
    pub fn new(resolver: &str) -> Option<Self> {
        Self::serving(resolver, None)
    }

    /// Makes one whose internet serves a folder by HTTP, on port 8080.
    pub fn serving(resolver: &str, files: Option<&Path>) -> Option<Self> {
        let lacks = |what: &str| {
            assert!(std::env::var_os("CI").is_none(), "the test needs {what}");
            println!("skipped: the test needs {what}");
            None
        };
        if !nix::unistd::geteuid().is_root() {
            return lacks("root, to make a world of its own");
        }
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        for program in ["pasta", "nft", "ip", "unshare", "nsenter", "setpriv"] {
            if !std::env::split_paths(path).any(|dir| dir.join(program).is_file()) {
                return lacks(program);
            }
        }
        let mut process = Command::new("unshare")
            .args(["--net", "--mount", "--kill-child", "--fork", "--pid"])
            .args(["--mount-proc", "--propagation", "private", "bash", "-c", SCRIPT, "world"])
            .arg(std::env::current_exe().unwrap())
            .arg(resolver)
            .arg(files.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = process.stdin.take().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("world "), "the world is not there: {line}");
        // The script is the one child of `unshare`.
        let children = format!("/proc/{0}/task/{0}/children", process.id());
        let pid = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
        Some(Self { process, _stdin: stdin, pid })
    }

    /// Changes something of the host, as its root.
    pub fn change(&self, words: &[&str]) {
        let pid = self.pid.to_string();
        run("nsenter", &[&["--net", "--mount", "--target", &pid], words].concat());
    }

    /// Runs this binary on the host, playing `role` as `user`, with `words`.
    pub fn play(&self, role: &str, user: u32, words: &str) -> Output {
        self.start(role, user, words).wait_with_output().unwrap()
    }

    /// Starts what [`World::play`] runs.
    pub fn start(&self, role: &str, user: u32, words: &str) -> Child {
        let begin = self.words(user);
        let exe = std::env::current_exe().unwrap();
        let exe = format!("{PROGRAMS}/deps/{}", exe.file_name().unwrap().to_str().unwrap());
        Command::new(&begin[0])
            .args(&begin[1..])
            .args(["timeout", "120", &exe, "--exact", "play", "--nocapture"])
            .env(ROLE, role)
            .env("BANGER_NET_WORDS", words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Returns the words that begin a command on the host, as `user`: without sudo, without
    /// capabilities.
    pub fn words(&self, user: u32) -> Vec<String> {
        let mut words = vec!["nsenter".to_owned()];
        words.extend(["--net", "--mount", "--pid", "--target"].map(str::to_owned));
        words.push(self.pid.to_string());
        if user != 0 {
            let id = user.to_string();
            words.extend(["setpriv", "--reuid", &id, "--regid", &id].map(str::to_owned));
            words.extend(["--clear-groups", "--bounding-set", "-all"].map(str::to_owned));
            words.push("--no-new-privs".to_owned());
            // `nsenter` may be killed, and what it started is to end with it.
            words.extend(["--pdeathsig", "KILL"].map(str::to_owned));
        }
        words
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the role this process has to play, and its words.
pub fn role() -> Option<(String, String)> {
    Some((std::env::var(ROLE).ok()?, std::env::var("BANGER_NET_WORDS").unwrap_or_default()))
}

/// Plays the internet: a server of HTTP and one of names, on two addresses.
pub fn play_internet() {
    let metadata = [format!("{METADATA4}/32"), format!("{METADATA6}/128")];
    for address in [format!("{SERVER4}/32"), format!("{SERVER6}/128")].into_iter().chain(metadata) {
        run("ip", &["addr", "add", &address, "dev", "lo"]);
    }
    run("ip", &["link", "set", "lo", "up"]);
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    serve_http(TcpListener::bind(("::", 80)).unwrap());
    serve_names(UdpSocket::bind("0.0.0.0:53").unwrap());
    println!("ready");
    wait_for_end();
}

/// Plays the host's own services: one that only its loopback is meant to reach, one on all addresses.
pub fn play_host() {
    serve_http(TcpListener::bind(("127.0.0.1", LOOPBACK_PORT)).unwrap());
    serve_http(TcpListener::bind(("::1", LOOPBACK_PORT)).unwrap());
    serve_http(TcpListener::bind(("::", OPEN_PORT)).unwrap());
    serve_names(UdpSocket::bind("127.0.0.53:53").unwrap());
    println!("ready");
    wait_for_end();
}

fn wait_for_end() {
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

/// Runs a program that has to succeed.
pub fn run(program: &str, words: &[&str]) {
    let status = Command::new(program).args(words).status().unwrap();
    assert!(status.success(), "{program} {words:?}: {status}");
}

/// Answers each connection with the address it comes from, then with what follows: `GET /N` asks for
/// N MiB.
fn serve_http(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut request = Vec::new();
                let mut piece = [0; 1024];
                // To its end: a connection that is closed with bytes unread is reset.
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut piece) {
                        Ok(count @ 1..) => request.extend_from_slice(&piece[..count]),
                        _ => break,
                    }
                }
                let words = String::from_utf8_lossy(&request).into_owned();
                let mebibytes: usize = words
                    .strip_prefix("GET /")
                    .and_then(|rest| rest.split(' ').next()?.parse().ok())
                    .unwrap_or(0);
                let peer = stream.peer_addr().unwrap().ip().to_canonical();
                let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\nhello {peer}\n");
                let block = vec![b'x'; 1 << 20];
                for _ in 0..mebibytes {
                    if stream.write_all(&block).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// Answers every question of type A for [`NAME`] with [`SERVER4`], of type AAAA with [`SERVER6`], all
/// others with nothing.
fn serve_names(socket: UdpSocket) {
    thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut packet) {
            let question = &packet[..length];
            let mut answer = question.to_vec();
            let kind = question[length - 3];
            let record: Vec<u8> = match kind {
                1 => SERVER4.parse::<std::net::Ipv4Addr>().unwrap().octets().to_vec(),
                28 => SERVER6.parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec(),
                _ => Vec::new(),
            };
            answer[2] |= 0x80;
            if !record.is_empty() {
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 9, 0, record.len() as u8]);
                answer.extend(record);
            }
            let _ = socket.send_to(&answer, peer);
        }
    });
}

/// Asks a name server for [`NAME`].
pub fn ask_name(server: IpAddr, v6: bool) -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in NAME.split('.') {
        question.push(label.len() as u8);
        question.extend(label.bytes());
    }
    question.extend([0, 0, if v6 { 28 } else { 1 }, 0, 1]);
    socket.send_to(&question, (server, 53)).ok()?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).ok()?;
    let data = &answer[question.len() + 12..length];
    match data.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
        _ => None,
    }
}

/// Fetches `path` from a server; the body, or why not.
pub fn fetch(server: &str, port: u16, path: &str) -> Result<Vec<u8>, String> {
    let address = SocketAddr::new(server.parse().unwrap(), port);
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))
        .map_err(|error| error.kind().to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let request = format!("GET /{path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(|error| error.to_string())?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or("no answer")?;
    Ok(answer.split_off(end + 4))
}

/// Waits until `done`, at most `limit`.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !done() {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}
