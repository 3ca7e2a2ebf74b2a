//! A namespace in a world of namespaces: what a guest behind it reaches, and what it must not.
//!
//! The guest is played by a namespace of its own, with an interface whose frames are carried to and
//! from the tap as a VMM would.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod world;

use banger_net::{Network, Options, RunAs, Tools};
use nix::{
    libc,
    sched::{CloneFlags, unshare},
};
use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpListener,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd},
        unix::process::CommandExt,
    },
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};
use world::{
    BRIDGE4, BRIDGE6, GATEWAY4, HOST4, LOOPBACK_PORT, METADATA4, METADATA6, OPEN_PORT, SERVER4,
    SERVER6, World,
};

const USER: u32 = 12_345;
const GATEWAY: &str = "172.30.255.1";
const DNS: &str = "172.30.255.3";
const GATEWAY6: &str = "fd62:616e:6765:7200::1";
/// Services that the host itself reaches, by the ports that they listen on.
const REACHED_FROM_THE_HOST: [(&str, u16); 4] =
    [(SERVER4, 80), (HOST4, OPEN_PORT), (BRIDGE4, OPEN_PORT), (SERVER6, 80)];

/// Not a test of its own: what this binary does when a world starts it.
#[test]
fn play() {
    match world::role() {
        Some((role, _)) if role == "internet" => world::play_internet(),
        Some((role, _)) if role == "host" => world::play_host(),
        Some((role, words)) if role == "vm" => play_vm(&words),
        Some((role, words)) if role == "guest" => play_guest(&words),
        _ => {}
    }
}

/// Plays the supervisor and the VMM: makes the network, starts the way out, runs the guest.
fn play_vm(words: &str) {
    let has = |word: &str| words.split(' ').any(|w| w == word);
    let run_as = words
        .split(' ')
        .find_map(|word| word.strip_prefix("run_as="))
        .map(|name| RunAs::named(name).unwrap());
    let options = Options { run_as, allow_host: has("allow_host"), by_name: false };
    let tools = Tools::find(run_as, None).unwrap();
    let begin = Instant::now();
    let until = begin + Duration::from_secs(20);
    let mut network = Network::make(tools, banger_net::Plan::new(), options, until).unwrap();
    println!("made_us={}", begin.elapsed().as_micros());
    network.lead_out(std::io::stderr().as_fd()).unwrap();
    let tap = network.tap().unwrap();
    // What a VMM does, seen from the namespace's side: it is in there with the tap.
    let mut inside = Command::new("ip");
    inside.args(["-o", "addr"]);
    network.enter(&mut inside);
    assert!(
        has("offline")
            || world::wait_until(Duration::from_secs(20), || {
                let shown = inside.output().unwrap();
                String::from_utf8_lossy(&shown.stdout).contains("pasta0    inet ")
            })
    );
    println!("way_out_us={}", begin.elapsed().as_micros());
    // What broke out of a VMM is in there too.
    if has("broken_out") {
        for (server, port) in REACHED_FROM_THE_HOST {
            let connect = |limit: &str| {
                let mut command = Command::new("timeout");
                command.args([limit, "bash", "-c", &format!("< /dev/tcp/{server}/{port}")]);
                command
            };
            let mut inside = connect("0.5");
            network.enter(&mut inside);
            println!("from_inside_{server}={}", inside.output().unwrap().status.success());
            // Somebody is there to be reached.
            let outside = connect("20").output().unwrap();
            println!("from_outside_{server}={}", outside.status.success());
        }
    }
    let mut guest = Command::new(std::env::current_exe().unwrap());
    guest.args(["--exact", "play", "--nocapture"]).env("BANGER_NET_ROLE", "guest");
    guest.env("BANGER_NET_WORDS", words).env("TAP", "9");
    // SAFETY: only system calls.
    unsafe {
        guest.pre_exec(move || {
            let uid = nix::unistd::geteuid();
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
            if libc::dup2(tap, 9) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let status = guest.status().unwrap();
    let named = |name: &str| {
        let status = Command::new("pgrep").args(["-f", name]).output().unwrap();
        String::from_utf8_lossy(&status.stdout).lines().count()
    };
    let ways_out = named("pasta -f -t");
    println!("ways_out={ways_out}");
    drop(network);
    assert!(world::wait_until(Duration::from_secs(20), || {
        named("pasta -f -t") < ways_out.max(1)
    }));
    assert!(status.success());
}

/// Plays the guest: its interface, then one line for each thing it tries.
fn play_guest(words: &str) {
    let host = std::env::var("TAP").unwrap().parse().unwrap();
    // SAFETY: the parent left it there for this.
    let host = unsafe { File::from_raw_fd(host) };
    let interface = own_tap();
    for (mut from, mut to) in [
        (host.try_clone().unwrap(), interface.try_clone().unwrap()),
        (interface.try_clone().unwrap(), host.try_clone().unwrap()),
    ] {
        thread::spawn(move || {
            let mut frame = vec![0; 70_000];
            loop {
                match from.read(&mut frame) {
                    Ok(length) => drop(to.write(&frame[..length])),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => wait(&from),
                    Err(_) => break,
                }
            }
        });
    }
    let plan = banger_net::Plan::new();
    let told = plan.interface("02:00:00:00:00:01");
    world::run("ip", &["link", "set", "lo", "up"]);
    world::run("ip", &["link", "set", "eth0", "up", "mtu", &told.mtu.unwrap().to_string()]);
    world::run("ip", &["addr", "add", "172.30.255.2/24", "dev", "eth0"]);
    world::run("ip", &["addr", "add", "fd62:616e:6765:7200::2/64", "dev", "eth0", "nodad"]);
    world::run("ip", &["route", "add", "default", "via", GATEWAY]);
    world::run("ip", &["route", "add", "default", "via", GATEWAY6]);
    for word in words.split(' ') {
        let answer = match word.split_once('@') {
            Some((server, rest)) => {
                let (port, path) = rest.split_once('/').unwrap_or((rest, ""));
                let begin = Instant::now();
                match world::fetch(server, port.parse().unwrap(), path) {
                    Ok(body) if path.is_empty() => String::from_utf8_lossy(&body).trim().to_owned(),
                    Ok(body) => format!(
                        "{} MiB at {:.0} MiB/s",
                        body.len() >> 20,
                        (body.len() >> 20) as f64 / begin.elapsed().as_secs_f64()
                    ),
                    Err(error) => error,
                }
            }
            None if word == "name4" => {
                format!("{:?}", world::ask_name(DNS.parse().unwrap(), false))
            }
            None if word == "name6" => {
                format!("{:?}", world::ask_name(DNS.parse().unwrap(), true))
            }
            None if word == "ping" => {
                let status = |to: &str| {
                    let done = Command::new("busybox").args(["ping", "-c1", "-W10", to]).output();
                    done.is_ok_and(|output| output.status.success())
                };
                format!("{} {}", status(GATEWAY), status(SERVER4))
            }
            None if word == "listen" => {
                let listener = TcpListener::bind("[::]:5555").unwrap();
                thread::spawn(move || listener.incoming().count());
                "listening".to_owned()
            }
            None if word == "stay" => {
                println!("stay=begun");
                let _ = std::io::stdin().read(&mut [0]);
                "over".to_owned()
            }
            // It takes the keeper a moment to hear of an address that is new.
            None if word.starts_with("shut:") => {
                let server = &word["shut:".len()..];
                world::wait_until(Duration::from_secs(20), || {
                    world::fetch(server, OPEN_PORT, "").is_err()
                })
                .to_string()
            }
            // Sooner than the keeper tries again by itself.
            None if word == "await" => world::wait_until(Duration::from_secs(20), || {
                world::fetch(SERVER4, 80, "").is_ok_and(|body| body.starts_with(b"hello"))
            })
            .to_string(),
            None => continue,
        };
        println!("{word}={answer}");
    }
}

fn wait(file: &File) {
    let mut ready = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one descriptor, which is open.
    unsafe { libc::poll(&raw mut ready, 1, -1) };
}

nix::ioctl_write_ptr_bad!(
    /// Makes a tap (tun(4)).
    set_tap, nix::request_code_write!(b'T', 202, 4), libc::ifreq);

fn own_tap() -> File {
    let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: plain numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"eth0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    // SAFETY: the request lives through the call.
    unsafe { set_tap(file.as_raw_fd(), &raw const request) }.unwrap();
    file
}

/// What a VM in a world said, as `key=value` lines.
struct Said(String);

impl Said {
    fn of(world: &World, user: u32, words: &str) -> Self {
        let output = world.play("vm", user, words);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{complaints}");
        Self(said)
    }

    fn get(&self, key: &str) -> &str {
        self.0
            .lines()
            .find_map(|line| line.split_once(&format!("{key}="))?.1.into())
            .unwrap_or_else(|| panic!("no '{key}' in:\n{}", self.0))
    }
}

/// What every guest is to reach, and what none is.
fn words() -> String {
    format!(
        "ping {SERVER4}@80 {SERVER6}@80 name4 name6 {GATEWAY}@{LOOPBACK_PORT} \
         {GATEWAY4}@{LOOPBACK_PORT} {HOST4}@{LOOPBACK_PORT} {HOST4}@{OPEN_PORT} \
         {GATEWAY}@{OPEN_PORT} {GATEWAY6}@{LOOPBACK_PORT} 2001:db8::2@{OPEN_PORT} \
         127.0.0.1@{LOOPBACK_PORT}"
    )
}

fn check(said: &Said) {
    assert_eq!(said.get("ping"), "true true");
    assert_eq!(said.get(&format!("{SERVER4}@80")), "hello 203.0.113.2");
    assert_eq!(said.get(&format!("{SERVER6}@80")), "hello 2001:db8::2");
    assert_eq!(said.get("name4"), format!("Some({SERVER4})"));
    assert_eq!(said.get("name6"), format!("Some({SERVER6})"));
    for shut in [GATEWAY, GATEWAY4, HOST4, GATEWAY6, "127.0.0.1"] {
        let answer = said.get(&format!("{shut}@{LOOPBACK_PORT}"));
        assert!(!answer.contains("hello"), "{shut} leads to the host's loopback: {answer}");
    }
    for shut in [HOST4, GATEWAY, "2001:db8::2"] {
        let answer = said.get(&format!("{shut}@{OPEN_PORT}"));
        assert!(!answer.contains("hello"), "{shut} leads to the host: {answer}");
    }
    assert_eq!(said.get("ways_out"), "1");
}

#[test]
fn an_ordinary_user_reaches_the_world_and_not_the_host() {
    let Some(world) = World::new(GATEWAY4) else { return };
    let said = Said::of(&world, USER, &words());
    println!("{}", said.0);
    check(&said);
}

/// The host's other addresses, those that come later, and where clouds give credentials away.
#[test]
fn no_address_of_the_host_nor_of_a_clouds_metadata_is_reached() {
    let Some(world) = World::new(GATEWAY4) else { return };
    let tried = format!(
        "{BRIDGE4}@{OPEN_PORT} {BRIDGE6}@{OPEN_PORT} 172.17.255.255@{OPEN_PORT} {METADATA4}@80 \
         {METADATA6}@80 ::ffff:127.0.0.1@{LOOPBACK_PORT} ::ffff:172.17.0.1@{OPEN_PORT}"
    );
    for (user, more) in [(USER, ""), (0, "run_as=65534"), (USER, "allow_host")] {
        let words = format!("{more} {tried} {SERVER4}@80 {SERVER6}@80 name4");
        let said = Said::of(&world, user, &words);
        for shut in tried.split_whitespace() {
            let answer = said.get(shut);
            assert!(!answer.contains("hello"), "{more}: {shut}: {answer}");
        }
        assert!(said.get(&format!("{SERVER4}@80")).contains("hello"));
        assert!(said.get(&format!("{SERVER6}@80")).contains("hello"));
        assert_eq!(said.get("name4"), format!("Some({SERVER4})"));
    }
}

#[test]
fn what_broke_out_of_a_vmm_sends_nothing_but_as_the_guest() {
    let Some(world) = World::new(GATEWAY4) else { return };
    let said = Said::of(&world, USER, "broken_out ping");
    for (server, _) in REACHED_FROM_THE_HOST {
        assert_eq!(said.get(&format!("from_outside_{server}")), "true", "{server}");
        assert_eq!(said.get(&format!("from_inside_{server}")), "false", "{server}");
    }
    assert_eq!(said.get("ping"), "true true");
}

#[test]
fn an_address_that_the_host_gets_later_is_shut_too() {
    let Some(world) = World::new(GATEWAY4) else { return };
    let mut vm = world.start("vm", USER, "stay shut:10.99.0.1 shut:2001:db8:99::1");
    read_until(&mut vm, "stay=begun");
    world.change(&["ip", "addr", "add", "10.99.0.1/32", "dev", "docker0"]);
    world.change(&["ip", "addr", "add", "2001:db8:99::1/128", "dev", "docker0", "nodad"]);
    // On the host itself it answers.
    world.change(&["bash", "-c", &format!("< /dev/tcp/10.99.0.1/{OPEN_PORT}")]);
    drop(vm.stdin.take());
    read_until(&mut vm, "shut:2001:db8:99::1=true");
    assert!(vm.wait().unwrap().success());
}

#[test]
fn root_has_it_done_by_another_user() {
    let Some(world) = World::new(GATEWAY4) else { return };
    check(&Said::of(&world, 0, &format!("run_as=65534 {}", words())));
}

#[test]
fn names_are_found_through_a_resolver_on_the_hosts_loopback() {
    let Some(world) = World::new("127.0.0.53") else { return };
    let said = Said::of(&world, USER, "name4 name6");
    assert_eq!(said.get("name4"), format!("Some({SERVER4})"));
    assert_eq!(said.get("name6"), format!("Some({SERVER6})"));
}

#[test]
fn allow_host_opens_the_hosts_loopback_and_keeps_names() {
    let Some(world) = World::new(GATEWAY4) else { return };
    let shut = [GATEWAY4, "2001:db8::1", HOST4, BRIDGE4].map(|a| format!("{a}@{LOOPBACK_PORT}"));
    let words =
        format!("allow_host {GATEWAY}@{LOOPBACK_PORT} name4 {SERVER4}@80 {}", shut.join(" "));
    let said = Said::of(&world, USER, &words);
    assert!(said.get(&format!("{GATEWAY}@{LOOPBACK_PORT}")).contains("hello"));
    // Nothing else, as the host's router, which stands for its loopback behind `pasta`.
    for shut in shut {
        assert!(!said.get(&shut).contains("hello"), "{shut}");
    }
    assert_eq!(said.get("name4"), format!("Some({SERVER4})"));
    assert!(said.get(&format!("{SERVER4}@80")).contains("hello"));
}

#[test]
fn a_guest_carries_bulk() {
    let Some(world) = World::new(GATEWAY4) else { return };
    let said = Said::of(&world, USER, &format!("{SERVER4}@80/64"));
    println!("{}", said.0);
    assert!(said.get(&format!("{SERVER4}@80/64")).starts_with("64 MiB"));
}

#[test]
fn two_guests_do_not_see_each_other() {
    let Some(world) = World::new(GATEWAY4) else { return };
    let mut first = world.start("vm", USER, "listen stay");
    read_until(&mut first, "stay=begun");
    let said = Said::of(&world, USER, &format!("172.30.255.2@5555 {GATEWAY}@5555 {HOST4}@5555"));
    for place in ["172.30.255.2", GATEWAY, HOST4] {
        assert_eq!(said.get(&format!("{place}@5555")), "connection refused", "{place}");
    }
    drop(first.stdin.take());
    assert!(first.wait().unwrap().success());
}

#[test]
fn a_host_that_comes_online_later_takes_its_guest_with_it() {
    let Some(world) = World::new(GATEWAY4) else { return };
    world.change(&["ip", "route", "del", "default"]);
    world.change(&["ip", "-6", "route", "del", "default"]);
    let mut vm = world.start("vm", USER, "offline stay await");
    read_until(&mut vm, "stay=begun");
    thread::sleep(Duration::from_millis(300));
    world.change(&["ip", "route", "add", "default", "via", GATEWAY4]);
    drop(vm.stdin.take());
    read_until(&mut vm, "await=true");
    assert!(vm.wait().unwrap().success());
}

/// Reads what a process says until it says `words`.
fn read_until(process: &mut Child, words: &str) {
    let out = process.stdout.as_mut().unwrap();
    let mut seen = String::new();
    while !seen.contains(words) {
        let mut bytes = [0; 256];
        let length = out.read(&mut bytes).unwrap();
        assert!(length > 0, "it ended before '{words}': {seen}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
}
