//! Short questions and orders to the agent.

use crate::{
    connect,
    connect::connect_saying,
    line::{read_line, write_line},
    port,
};
use banger_doc::{Booted, Context, Error, Result, shows};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Longest request, line end included.
pub const REQUEST_BYTES: usize = 64 << 10;
/// Longest answer, line end included.
pub const ANSWER_BYTES: usize = 1 << 20;
/// Most notes, and things waited for, in an answer.
const MOST_WORDS: usize = 20;
/// Longest of them, in characters.
const WORD_CHARS: usize = 300;
/// Most ports in an answer.
pub const MOST_PORTS: usize = 4096;

/// What is said of an agent that does not answer in time.
const SILENT: &str = "the guest's agent does not answer";
/// How long one attempt to reach an agent that is on its way may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// A request, one a line.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// Who are you?
    Hello,
    /// What listens?
    Ports,
    /// What listens now, and each time that changes? Answered again and again, by [`Ports`].
    WatchPorts,
    /// How loaded are you?
    Stats,
    /// Who is this user, and where does its work lie?
    Account {
        /// A user as [`crate::exec::Request`] has it; the guest's own if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
    /// Is the image's init past what it does before logins? Answered when it is, at most after a time.
    Boot {
        /// How long to wait for that, in milliseconds.
        #[serde(default)]
        wait_ms: u64,
    },
    /// Bring all data to the disks.
    Sync,
    /// Set the clock.
    SetTime {
        /// Milliseconds since 1970.
        unix_ms: u64,
    },
    /// End the machine in order.
    Shutdown {
        /// How long the init may take, in milliseconds.
        grace_ms: u64,
    },
}

/// The agent's answer to [`Request::Hello`].
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Hello {
    /// Version of the protocol.
    pub protocol: u32,
    /// Version of the agent.
    pub agent_version: String,
    /// Random name of this boot of the guest.
    pub boot_id: String,
    /// What runs as PID 1: `systemd`, `openrc`, `busybox`, `banger`, `other`.
    pub init: String,
    /// Time since the guest's kernel started, in milliseconds.
    pub uptime_ms: u64,
}

/// The agent's answer to [`Request::Account`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Account {
    /// Name, if the guest knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Number of the user.
    pub uid: u32,
    /// Number of the first group.
    pub gid: u32,
    /// What `HOME` is.
    pub home: String,
    /// The directory below which a workspace lies: the home, or what stands in for it.
    pub place: String,
    /// Whether an ssh server could let this user in.
    #[serde(default)]
    pub can_log_in: bool,
}

/// Something that listens in the guest.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Port {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Address it listens on.
    pub address: String,
    /// Port number.
    pub port: u16,
    /// A process that has it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// That process's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
}

/// The agent's answer to [`Request::Ports`].
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Ports {
    /// At most [`MOST_PORTS`].
    pub ports: Vec<Port>,
}

/// The agent's answer to [`Request::Stats`].
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Stats {
    /// Memory of the guest, in bytes.
    pub memory_total_bytes: u64,
    /// Memory that can still be had, in bytes.
    pub memory_available_bytes: u64,
    /// Processes that were runnable on average over the last minute.
    pub load1: f64,
    /// Number of processes.
    pub processes: u64,
    /// Time processors worked since boot, summed, in milliseconds.
    pub cpu_busy_ms: u64,
    /// Time processors idled since boot, summed, in milliseconds.
    pub cpu_idle_ms: u64,
    /// Filesystems of interest.
    pub disks: Vec<Disk>,
    /// Bytes that came in over all interfaces but the loopback.
    #[serde(default)]
    pub received_bytes: u64,
    /// Bytes that went out over them.
    #[serde(default)]
    pub sent_bytes: u64,
}

/// A filesystem in the guest.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Disk {
    /// Where it is mounted.
    pub path: String,
    /// Its size, in bytes.
    pub total_bytes: u64,
    /// What root can still write, in bytes.
    pub free_bytes: u64,
}

/// The agent's answer to [`Request::Boot`].
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Boot {
    /// Whether it is.
    pub booted: Booted,
    /// What went wrong so far, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Units, services or programs that it waits for, while it is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
}

/// Asks who is there, waiting at most `limit`. Under QEMU this waits for an agent that is still
/// on its way.
pub fn hello(channel: &Path, limit: Duration) -> Result<Hello> {
    ask(channel, &Request::Hello, limit)
}

/// Asks again and again, until the agent answers or `gone` says that waiting is in vain.
pub fn wait_ready(channel: &Path, mut gone: impl FnMut() -> bool) -> Result<Hello> {
    loop {
        match hello(channel, ATTEMPT) {
            Err(error) if gone() => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(20)),
            answered => return answered,
        }
    }
}

/// Asks who a user is; the guest's own if `user` is nothing. What comes back is a path that can be
/// said, and a name that can be typed.
pub fn account(channel: &Path, user: Option<&str>, limit: Duration) -> Result<Account> {
    let request = Request::Account { user: user.map(ToOwned::to_owned) };
    checked(ask(channel, &request, limit)?)
}

/// Takes of an answer what can be typed and shown.
fn checked(mut account: Account) -> Result<Account> {
    if !is_sayable(&account.place) {
        return Err(Error::failed("the guest's agent names a home that is no absolute path")
            .hint("the guest may be broken or hostile; a whole path needs no home"));
    }
    // A list of users may hold anything.
    if !is_sayable(account.home.trim_end_matches('/')) {
        "/".clone_into(&mut account.home);
    }
    account.name = account.name.filter(|name| is_name(name));
    account.can_log_in &= account.name.is_some();
    Ok(account)
}

/// Says whether a path of a guest is absolute, has no `..`, and can be shown.
fn is_sayable(path: &str) -> bool {
    let below = path.strip_prefix('/').map(str::as_bytes);
    below.is_some_and(crate::files::is_inside) && !path.chars().any(char::is_control)
}

/// Says whether a name is one that a command line and a configuration of ssh can hold.
fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    !name.is_empty() && name.len() <= 64 && !name.starts_with('-') && name.chars().all(is_plain)
}

/// Asks what listens in the guest.
pub fn ports(channel: &Path, limit: Duration) -> Result<Vec<Port>> {
    let mut answer: Ports = ask(channel, &Request::Ports, limit)?;
    answer.ports.truncate(MOST_PORTS);
    Ok(answer.ports)
}

/// Asks what listens in the guest, and tells `hear` at once and each time that changes, until it
/// says that it has heard enough or the agent ends the connection.
///
/// A guest that changes its mind all the time is heard four times a second.
pub fn watch_ports(
    channel: &Path,
    limit: Duration,
    mut hear: impl FnMut(Vec<Port>) -> bool,
) -> Result<()> {
    let forever = Duration::from_hours(24 * 365);
    let end = Instant::now() + limit;
    let mut stream = connect(channel, port::CONTROL, limit)?;
    write_line(&mut stream, &Request::WatchPorts, end).context("cannot ask the guest's agent")?;
    while let Some(line) = read_line(&mut stream, ANSWER_BYTES, Instant::now() + forever)
        .context("the guest's agent broke off")?
    {
        let mut answer: Ports = parse(&line)?;
        answer.ports.truncate(MOST_PORTS);
        if !hear(answer.ports) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(250));
    }
    Ok(())
}

/// Asks whether the image's init is past what it does before logins, and waits so long for it; the
/// agent has `limit` beyond that to answer.
pub fn boot(channel: &Path, wait: Duration, limit: Duration) -> Result<Boot> {
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let mut answer: Boot = ask(channel, &Request::Boot { wait_ms }, wait + limit)?;
    for words in [&mut answer.notes, &mut answer.waits_for] {
        words.truncate(MOST_WORDS);
        for word in words {
            *word = word.chars().filter(|c| shows(*c)).take(WORD_CHARS).collect();
        }
    }
    Ok(answer)
}

/// Asks how loaded the guest is.
pub fn stats(channel: &Path, limit: Duration) -> Result<Stats> {
    ask(channel, &Request::Stats, limit)
}

/// Has the guest bring all data to its disks.
pub fn sync(channel: &Path, limit: Duration) -> Result<()> {
    ask::<Done>(channel, &Request::Sync, limit).map(drop)
}

/// Sets the guest's clock, in milliseconds since 1970.
pub fn set_time(channel: &Path, unix_ms: u64, limit: Duration) -> Result<()> {
    ask::<Done>(channel, &Request::SetTime { unix_ms }, limit).map(drop)
}

/// Has the guest shut down. Returns as soon as it has understood, at most after `limit`; its init
/// then has `grace`.
pub fn shutdown(channel: &Path, grace: Duration, limit: Duration) -> Result<()> {
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    ask::<Done>(channel, &Request::Shutdown { grace_ms }, limit).map(drop)
}

/// The answer to an order.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Done {}

#[derive(Deserialize)]
struct Failure {
    error: String,
}

/// Sends one request on a connection of its own and reads its answer, both within `limit`.
pub fn ask<A: DeserializeOwned>(channel: &Path, request: &Request, limit: Duration) -> Result<A> {
    let end = Instant::now() + limit;
    let mut stream = connect_saying(channel, port::CONTROL, &line(request)?, limit)?;
    answer(&mut stream, end)
}

/// Returns a request as it is sent.
fn line(request: &Request) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(request).context("cannot write a request")?;
    line.push(b'\n');
    Ok(line)
}

/// Reads the next answer, until `end`.
fn answer<A: DeserializeOwned>(stream: &mut UnixStream, end: Instant) -> Result<A> {
    let line = read_line(stream, ANSWER_BYTES, end)
        .context(SILENT)?
        .ok_or_else(|| Error::failed("the guest's agent closed the connection"))?;
    parse(&line)
}

/// Reads an answer: a failure, or what was asked for.
fn parse<A: DeserializeOwned>(line: &[u8]) -> Result<A> {
    if let Ok(Failure { mut error }) = serde_json::from_slice(line) {
        error.retain(shows);
        error.truncate(error.floor_char_boundary(500));
        return Err(Error::failed(format!("the guest's agent says: {error}")));
    }
    serde_json::from_slice(line).context("the guest's agent gave an answer that cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_of_a_user_can_be_typed_and_shown() {
        let account = |name: &str, home: &str, place: &str| {
            checked(Account {
                name: Some(name.to_owned()),
                uid: 1000,
                gid: 1000,
                home: home.to_owned(),
                place: place.to_owned(),
                can_log_in: true,
            })
        };
        let good = account("dev", "/home/dev/", "/home/dev").unwrap();
        assert!(good.can_log_in && good.home == "/home/dev/" && good.name.is_some());
        for name in ["", "-oProxyCommand=x", "a b", "a\nb", "a/b", "\u{1b}[0m", &"x".repeat(65)] {
            let account = account(name, "/", "/workspace").unwrap();
            assert!(account.name.is_none() && !account.can_log_in, "{name:?}");
        }
        for place in ["", "/", "home", "/a/../b", "/a\nb", "//a", "/a/"] {
            assert!(account("dev", "/", place).is_err(), "{place:?}");
        }
        for home in ["x", "/a/../b", "/\u{1b}"] {
            assert_eq!(account("dev", home, "/x").unwrap().home, "/");
        }
    }
}
