//! VMs in a world of network namespaces: one plays the host, where banger runs, one the internet. What
//! a guest reaches, what it must not, ports of the host, names, and what is left of it all.

use crate::{
    fixture,
    guest::Guest,
    registry::Registry,
    world::{
        self, GATEWAY4, HOST4, LOOPBACK_PORT, NAME, OPEN_PORT, PROGRAMS, SERVER4, SERVER6, World,
    },
};
use banger_tests::{Answer, Sandbox, program};
use serde_json::Value;
use std::{
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// An ordinary user.
const USER: u32 = 12_345;
const GATEWAY: &str = "172.30.255.1";
const GATEWAY6: &str = "fd62:616e:6765:7200::1";
/// The name `pasta` runs under: it becomes a variant of `passt` made for the processor.
const PASTA: &str = "^pas(ta|st)";
/// Two emulated guests that install packages leave a third command little.
const LIMIT: Duration = Duration::from_mins(2);
/// Answers every connection with a line, one after the other.
const SERVICE: &str = "use IO::Socket::INET; $s = IO::Socket::INET->new(LocalAddr => '0.0.0.0', \
     LocalPort => 8000, Listen => 1024, ReuseAddr => 1) or die; \
     while ($c = $s->accept) { print $c \"hello\\n\"; close $c }";

/// Takes a guest's interface down (netdevice(7), `SIOCSIFFLAGS`).
const TAKE_DOWN: &str = "perl -e 'socket($s, 2, 2, 0) or die; \
     $r = pack(\"Z16sx14\", \"eth0\", 0); ioctl($s, 0x8914, $r) or die \"$!\"'";

/// What this binary plays in a world.
pub(crate) fn play() {
    match world::role() {
        Some((role, _)) if role == "internet" => world::play_internet(),
        Some((role, _)) if role == "host" => world::play_host(),
        Some((role, words)) if role == "clients" => play_clients(&words),
        Some((role, words)) if role == "asker" => play_asker(&words),
        _ => {}
    }
}

/// Connects to an address so many times, so many at once, and counts who was answered.
fn play_clients(words: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    let [address, count, together] = words[..] else { panic!("three words: {words:?}") };
    let address: SocketAddr = address.parse().expect("an address");
    let left = AtomicUsize::new(count.parse().expect("a number"));
    let served = AtomicUsize::new(0);
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    thread::scope(|scope| {
        for _ in 0..together.parse().expect("a number") {
            scope.spawn(|| {
                while take().is_ok() {
                    let mut answer = String::new();
                    let stream = TcpStream::connect_timeout(&address, LIMIT);
                    let heard = stream.and_then(|mut stream| {
                        stream.set_read_timeout(Some(LIMIT))?;
                        stream.read_to_string(&mut answer)
                    });
                    if heard.is_ok() && answer == "hello\n" {
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    #[expect(clippy::print_stdout, reason = "who started this reads it")]
    {
        println!("served={}", served.into_inner());
    }
}

/// Asks banger-dns for the address of a name (RFC 1035, section 4).
#[expect(clippy::print_stdout, reason = "who started this reads it")]
fn play_asker(name: &str) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a limit");
    let mut question = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend(label.bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let mut answer = [0; 512];
    for _ in 0..20 {
        let _ = socket.send_to(&question, "127.0.0.1:42069");
        if let Ok(size) = socket.recv(&mut answer) {
            let address = <[u8; 4]>::try_from(&answer[size - 4..size]).expect("four bytes");
            println!("address={}", Ipv4Addr::from(address));
            return;
        }
    }
}

/// A sandbox in a world, with guests.
struct Inside {
    world: World,
    /// The guest `web`, once it is booted.
    guest: Guest,
    user: u32,
    image: String,
}

impl Inside {
    /// Pulls an image outside, and gives all there is to `user`.
    fn new(user: u32, image: &str) -> Option<Self> {
        let world = World::serving(GATEWAY4, Some(&fixture::repository()))?;
        let mut sandbox = Sandbox::new();
        sandbox.set_limit(Duration::from_mins(10));
        fixture::kernel(&sandbox);
        let registry = Registry::start();
        let reference = format!("{}/{image}", registry.address);
        let pulled = sandbox.run(program("banger-image-pull"), &[&reference]);
        let image = pulled.document()["name"].as_str().expect("a name").to_owned();
        let dir = sandbox.home();
        let all = dir.parent().expect("the sandbox's folder");
        // Kernels are links to files that others use: those are only to be read.
        let give = "chmod -R a+rX \"$1\"; find \"$1\" -links 1 -exec chown -h \"$2\" {} +; \
                    find \"$1\" -type d -exec chown \"$2\" {} +; chmod -R go-rwx \"$1/state\"/vms";
        let mut shell = Command::new("sh");
        shell.args(["-c", give, "sh"]).arg(all).arg(user.to_string());
        fixture::tool(&mut shell, Duration::from_mins(1));
        sandbox.go_elsewhere(world.words(user), Path::new(PROGRAMS));
        Some(Self { world, guest: Guest::to_be(sandbox, &["sh", "-c"]), user, image })
    }

    /// Runs a program of banger's that prints documents.
    fn run(&self, name: &str, args: &[&str]) -> Answer {
        self.guest.run(name, args)
    }

    /// Runs a script in a guest; what it printed, whatever became of it.
    fn script(&self, vm: &str, script: &str) -> Answer {
        self.guest.sandbox.raw(program("banger-vm-exec"), &[vm, "--", "sh", "-c", script])
    }

    fn says(&self, vm: &str, script: &str) -> String {
        let answer = self.script(vm, script);
        answer.ok();
        answer.text().trim().to_owned()
    }

    /// Runs a script on the host, as its root.
    fn host(&self, script: &str) -> String {
        let words = self.world.words(0);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["sh", "-c", script]);
        fixture::tool(&mut command, LIMIT).trim().to_owned()
    }

    fn boot(&self, name: &str, options: &[&str]) -> Value {
        self.boot_to("booted", name, options)
    }

    /// Boots a VM as far as a mark.
    fn boot_to(&self, mark: &str, name: &str, options: &[&str]) -> Value {
        let args = ["--no-start", "--memory", "384M", "--image", &self.image, "--name", name];
        self.run("vm-create", &[&args[..], options].concat()).ok();
        self.run("vm-start", &["--wait", mark, name]).document().clone()
    }

    /// Connects to an address of the host from there, so many times, so many at once.
    fn clients(&self, address: &str, count: usize, together: usize) {
        let words = format!("{address} {count} {together}");
        let output = self.world.play("clients", self.user, &words);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(&format!("served={count}")), "{address}: {said}");
    }

    /// Returns the ports of the host that lead to a port of the guest.
    fn forwards(&self, vm: &str, port: u16) -> Vec<Value> {
        let answer = self.run("vm-ports", &[vm]);
        answer.ok();
        let found = answer.documents.iter().filter(|document| document["port"] == port);
        found
            .flat_map(|document| document["forwards"].as_array().cloned().unwrap_or_default())
            .collect()
    }

    /// Waits until the guest's [`service`] answers.
    fn serves(&self, vm: &str) {
        Self::until("the service", || {
            self.script(vm, &fetch("127.0.0.1", 8000, "")).text().contains("hello").then_some(())
        });
    }

    /// Has the guest `web` begin to install its ssh server, which takes a while.
    fn asks_for_ssh(&self) {
        let words = ["web", "--timeout", "1", "--", "true"];
        self.guest.sandbox.raw(program("banger-vm-ssh"), &words).fails(125, "did not come up");
    }

    fn first_command_installs_make(&self) {
        let script = "apt-get update && apt-get install -y make && make --version";
        let words = ["--rm", "--image", &self.image, "--memory", "384M", "--", "sh", "-c", script];
        let answer = self.guest.sandbox.raw(program("banger-vm-run"), &words);
        assert!(answer.ok().text().contains("GNU Make"), "{}", answer.all());
        assert!(!answer.all().contains("W: "), "apt complains: {}", answer.all());
    }

    fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < end, "in vain: {what}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Names of the programs that run on the host, those of the world itself left out.
    fn processes(&self) -> Vec<String> {
        let own =
            ["unshare", "bash", "busybox", "sh", "ps", "flows-", "nsenter", "timeout", "sleep"];
        let all = self.host("ps -eo comm=,stat=");
        let names = all.lines().filter_map(|line| line.trim().rsplit_once(' '));
        let living = names.filter(|(_, stat)| !stat.starts_with('Z')).map(|(name, _)| name.trim());
        let others = living.filter(|name| !own.iter().any(|own| name.starts_with(own)));
        others.map(str::to_owned).collect()
    }

    /// Whether a `pasta` runs.
    fn leads_out(&self) -> bool {
        !self.host(&format!("pgrep '{PASTA}' || true")).is_empty()
    }

    /// Nothing of any VM is left: no program, no interface, no namespace, no listener.
    fn nothing_remains(&self, before: &str) {
        let end = Instant::now() + LIMIT;
        loop {
            // What has ended closes its sockets a moment later.
            let (left, traces) = (self.processes(), self.traces());
            if left.is_empty() && traces == before {
                return;
            }
            assert!(Instant::now() < end, "still running: {left:?}; {traces} and not {before}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// What a VM could leave on the host.
    fn traces(&self) -> String {
        self.host(
            "ip -o link | cut -d: -f2; ss -Hlnut | awk '{print $1, $5}' | sort; \
             readlink /proc/[0-9]*/ns/net | sort -u | wc -l",
        )
    }
}

/// Starts [`SERVICE`] and leaves it running.
fn service() -> String {
    format!("setsid perl -e '{}' >/dev/null 2>&1 </dev/null &", SERVICE.replace('\'', "'\\''"))
}

/// Fetches from a server with what every Debian has. One that answers unasked and closes before it is
/// asked is heard too: by then it takes no request, whose writer a signal would end.
fn fetch(server: &str, port: u16, path: &str) -> String {
    format!(
        "timeout 20 bash -c 'trap \"\" PIPE; exec 3<>/dev/tcp/{server}/{port} || exit; \
         printf \"GET /{path} HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3'"
    )
}

#[test]
fn an_ordinary_users_debian_reaches_the_world_and_is_reached_by_its_ports() {
    let Some(inside) = Inside::new(USER, "debian:served") else { return };
    let before = inside.traces();
    let view = inside.boot("web", &["--ports", "auto", "--publish", "8080:8000"]);
    assert!(view["running"]["notes"].to_string().find("network").is_none(), "{view}");
    inside.asks_for_ssh();

    // Out: by both families and by name, with the right packets.
    for server in [SERVER4, SERVER6, NAME] {
        let said = inside.says("web", &fetch(server, 80, ""));
        assert!(said.contains("hello 203.0.113.2") || said.contains("hello 2001:db8::2"), "{said}");
    }
    let names = inside.says("web", &format!("getent ahosts {NAME} | cut -d' ' -f1 | sort -u"));
    assert_eq!(names.lines().collect::<Vec<_>>(), [SERVER4, SERVER6]);
    assert_eq!(inside.says("web", "cat /sys/class/net/eth0/mtu"), "65520");
    let bytes = inside.says("web", &format!("{} | wc -c", fetch(SERVER4, 80, "16")));
    assert!(bytes.parse::<usize>().is_ok_and(|bytes| bytes > 16 << 20), "{bytes} bytes came");
    // Not in: the host's loopback and its own services.
    for (place, port) in [
        (GATEWAY, LOOPBACK_PORT),
        (GATEWAY4, LOOPBACK_PORT),
        (HOST4, LOOPBACK_PORT),
        (GATEWAY6, LOOPBACK_PORT),
        (HOST4, OPEN_PORT),
        ("2001:db8::2", OPEN_PORT),
    ] {
        let said = inside.script("web", &fetch(place, port, "")).text();
        assert!(!said.contains("hello"), "{place}:{port} leads to the host: {said}");
    }

    // Ports: what listens, where on the host, and a thousand connections through each.
    inside.says("web", &service());
    let forwards = Inside::until("the automatic port", || {
        let forwards = inside.forwards("web", 8000);
        forwards.iter().any(|forward| forward["published"] == false).then_some(forwards)
    });
    let listens = inside.run("vm-ports", &["web"]);
    let service = listens.documents.iter().find(|port| port["port"] == 8000).expect("the service");
    assert_eq!((&service["process"], &service["address"]), (&"perl".into(), &"0.0.0.0".into()));
    let automatic = forwards.iter().find(|forward| forward["published"] == false).expect("it");
    assert_eq!((&automatic["host_port"], &automatic["note"]), (&8000.into(), &Value::Null));
    let loopback = automatic["address"].as_str().expect("an address").to_owned();
    assert_eq!(forwards.len(), 3, "{forwards:?}");
    inside.clients("127.0.0.1:8080", 700, 50);
    inside.clients("[::1]:8080", 300, 50);
    inside.clients(&format!("{loopback}:8000"), 1000, 50);
    let supervisor = view["running"]["supervisor"]["pid"].as_u64().expect("a pid");
    // Every connection is gone again.
    let open = format!("ls -l /proc/{supervisor}/fd | grep -c socket: || true");
    Inside::until("all connections are gone", || {
        inside.host(&open).parse::<usize>().ok().filter(|sockets| *sockets < 40)
    });
    // The name leads to the address, also after who answers it was killed.
    for _ in 0..2 {
        let output = inside.world.play("asker", inside.user, "web.vm");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(&format!("address={loopback}\n")), "{said}");
        inside.host("pkill -9 -x banger-dns");
    }

    // Changed while it runs: closed, opened elsewhere, a taken one refused.
    inside.run("vm-set", &["web", "--unpublish", "8080", "--publish", "0.0.0.0:8081:8000"]).ok();
    inside.clients(&format!("{HOST4}:8081"), 10, 2);
    assert!(!inside.host("ss -Hltn").contains(":8080 "), "8080 is still open");
    let taken = format!("{LOOPBACK_PORT}:8000");
    inside.run("vm-set", &["web", "--publish", &taken]).fails(4, "is taken");
    inside.clients(&format!("{HOST4}:8081"), 10, 2);
    // A listener that goes takes its port with it.
    inside.says("web", "pkill perl || kill $(pidof perl)");
    Inside::until("the port is gone", || inside.forwards("web", 8000).len().eq(&1).then_some(()));

    // All that goes through the channel, as the same user.
    crate::ssh::all_ways_lead_in(&inside.guest);
    crate::copy::files_go_both_ways(&inside.guest);
    crate::clock::a_clock_is_put_right(&inside.guest);

    // pasta killed: it comes again. The supervisor killed: nothing is left.
    inside.host(&format!("pkill -9 '{PASTA}'"));
    Inside::until("the way out is back", || {
        inside.script("web", &fetch(SERVER4, 80, "")).text().contains("hello").then_some(())
    });
    assert!(inside.leads_out());
    // ssh needs no network in the guest: it goes through the channel.
    inside.says("web", TAKE_DOWN);
    let words = ["web", "--", "cat", "/sys/class/net/eth0/operstate"];
    let answer = inside.guest.sandbox.raw(program("banger-vm-ssh"), &words);
    assert_eq!(answer.ok().text(), "down\n", "{}", answer.all());
    inside.says("web", "sync");
    inside.host(&format!("kill -9 {supervisor}"));
    inside.nothing_remains(&before);
    assert_eq!(inside.run("vm-show", &["web"]).document()["status"], "error");
    // Nor does it where there never is one.
    inside.run("vm-set", &["web", "--net", "none"]).ok();
    inside.run("vm-start", &["web"]).ok();
    assert!(!inside.leads_out());
    let words = ["web", "--", "ls", "/sys/class/net"];
    let answer = inside.guest.sandbox.raw(program("banger-vm-ssh"), &words);
    assert_eq!(answer.ok().text(), "lo\n", "{}", answer.all());
    inside.run("vm-kill", &["web"]).ok();
}

#[test]
fn roots_guests_run_under_another_user_and_see_neither_host_nor_each_other() {
    let Some(inside) = Inside::new(0, "debian:served") else { return };
    let before = inside.traces();
    inside.boot("web", &["--publish", "8080:8000", "--ports", "auto"]);
    inside.asks_for_ssh();
    for server in [SERVER4, SERVER6, NAME] {
        let said = inside.says("web", &fetch(server, 80, ""));
        assert!(said.contains("hello 203.0.113.2") || said.contains("hello 2001:db8::2"), "{said}");
    }
    let users = format!("ps -eo uid=,comm= | awk '$2 ~ /{PASTA}/ {{print $1}}' | sort -u");
    let user: u32 = inside.host(&users).parse().expect("one user");
    assert!((0x7040_0000..0x7080_0000).contains(&user), "{user:#x}");
    for (place, port) in [(GATEWAY, LOOPBACK_PORT), (HOST4, LOOPBACK_PORT), (HOST4, OPEN_PORT)] {
        let said = inside.script("web", &fetch(place, port, "")).text();
        assert!(!said.contains("hello"), "{place}:{port} leads to the host: {said}");
    }
    // The ways in are as for anybody else.
    inside.says("web", &service());
    inside.serves("web");
    inside.clients("127.0.0.1:8080", 1000, 50);
    let automatic = Inside::until("the automatic port", || {
        inside.forwards("web", 8000).into_iter().find(|forward| forward["published"] == false)
    });
    let address = automatic["address"].as_str().expect("an address");
    assert_eq!((&automatic["host_port"], &automatic["note"]), (&8000.into(), &Value::Null));
    inside.clients(&format!("{address}:8000"), 1000, 50);
    crate::ssh::all_ways_lead_in(&inside.guest);
    crate::copy::files_go_both_ways(&inside.guest);
    crate::clock::a_clock_is_put_right(&inside.guest);
    inside.says("web", "pkill perl || kill $(pidof perl)");

    // Another one listens on every address, and the first finds it at none. What the very first command
    // leaves running is left alone by all that the image's boot does.
    inside.boot_to("agent", "db", &["--allow-host"]);
    let early = inside
        .says("db", &format!("ls /run/banger; {} until pidof perl; do sleep 0.1; done", service()));
    assert!(!early.contains("booted"), "the first command was not early: {early}");
    let booted = inside.run("vm-wait", &["db"]).document()["running"]["booted"].clone();
    assert!(booted == "yes" || booted == "degraded", "{booted}");
    assert_eq!(early.lines().last(), inside.says("db", "pidof perl").lines().last());
    inside.serves("db");
    for place in ["172.30.255.2", GATEWAY, HOST4] {
        let said = inside.script("web", &fetch(place, 8000, "")).text();
        assert!(!said.contains("hello"), "another guest answers at {place}: {said}");
    }
    // The one that may reaches the host's loopback.
    assert!(inside.says("db", &fetch(GATEWAY, LOOPBACK_PORT, "")).contains("hello"));

    // The VMM killed: its supervisor lets go of all else.
    let vmm = inside.run("vm-show", &["db"]).document()["running"]["vmm_process"]["pid"].clone();
    inside.host(&format!("kill -9 {vmm}"));
    Inside::until("the end of it", || {
        (inside.run("vm-show", &["db"]).document()["status"] == "error").then_some(())
    });
    inside.run("vm-kill", &["web"]).ok();
    inside.nothing_remains(&before);
}

/// What README begins with. Nothing of the image's boot, and nothing of banger's, may be in its way.
#[test]
fn the_first_command_of_a_fresh_debian_installs_a_package() {
    let Some(inside) = Inside::new(USER, "debian:served") else { return };
    let soaks = std::env::var_os("BANGER_SOAK").is_some();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Where it is tried again and again, the processors have other things to do.
        let spinners = thread::available_parallelism().map_or(2, |count| count.get() * 2);
        for _ in 0..if soaks { spinners } else { 0 } {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::black_box((0..1_000_000_u64).fold(0, |sum: u64, n| sum ^ n));
                }
            });
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..if soaks { 10 } else { 1 } {
                inside.first_command_installs_make();
            }
        }));
        over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let left = inside.run("vm-list", &[]);
    assert!(left.documents.is_empty(), "{}", left.all());
}

#[test]
fn without_a_network_nothing_leaves_and_ports_serve_all_the_same() {
    let Some(inside) = Inside::new(USER, "busybox:1") else { return };
    let before = inside.traces();
    let view = inside.boot("web", &["--net", "none", "--publish", "8080:80", "--ports", "auto"]);
    assert_eq!(inside.says("web", "ls /sys/class/net"), "lo");
    assert!(!inside.leads_out());
    inside.says(
        "web",
        "mkdir -p /srv && echo hello > /srv/index.html && httpd -p '[::1]:80' -h /srv",
    );
    let get = |place: &str| inside.host(&format!("curl -s -m 20 http://{place}/index.html"));
    assert_eq!(get("127.0.0.1:8080"), "hello");
    assert_eq!(get("[::1]:8080"), "hello");
    // Below 1024 an ordinary user gets another number, with the reason.
    let forward = Inside::until("the automatic port", || {
        inside.forwards("web", 80).into_iter().find(|forward| forward["published"] == false)
    });
    assert!(forward["note"].to_string().contains("for root alone"), "{forward}");
    let address = forward["address"].as_str().expect("an address");
    assert_eq!(get(&format!("{address}:{}", forward["host_port"])), "hello");
    // A port that another program has ends a start, and says so.
    let taken = format!("{LOOPBACK_PORT}:80");
    let args = ["--no-start", "--image", &inside.image, "--name", "late", "--publish", &taken];
    inside.run("vm-create", &args).ok();
    inside.run("vm-start", &["late"]).fails(4, "is taken");
    // The supervisor stays small; `cargo xtask bench start` holds a build for speed to 5 MiB.
    let pid = view["running"]["supervisor"]["pid"].as_u64().expect("a pid");
    let kib = inside.host(&format!("awk '/^VmRSS/ {{print $2}}' /proc/{pid}/status"));
    assert!(kib.parse::<u64>().is_ok_and(|kib| kib < 6 << 10), "the supervisor takes {kib} KiB");
    inside.run("vm-stop", &["web"]).ok();
    inside.nothing_remains(&before);
}

#[test]
fn whoever_of_it_is_killed_nothing_of_a_network_is_left() {
    let Some(inside) = Inside::new(USER, "busybox:1") else { return };
    let before = inside.traces();
    inside.boot("web", &["--ports", "auto", "--publish", "8080:80"]);
    crate::ssh::no_server_is_said(&inside.guest);
    for role in ["vmm_process", "stub", "supervisor"] {
        let running = inside.run("vm-show", &["web"]).document()["running"].clone();
        let pid = running[role]["pid"].as_u64().unwrap_or_else(|| panic!("no {role}: {running}"));
        assert!(inside.leads_out());
        // The guest does not wait for who answers its name.
        Inside::until("the port and the name", || {
            let during = inside.traces();
            (during.contains(":8080") && during.contains(":42069")).then_some(())
        });
        inside.host(&format!("pkill -9 '{PASTA}'; kill -9 {pid}"));
        Inside::until("the end of it", || {
            (inside.run("vm-show", &["web"]).document()["status"] == "error").then_some(())
        });
        inside.nothing_remains(&before);
        if role != "supervisor" {
            inside.run("vm-start", &["web"]).ok();
        }
    }
}
