//! A root file system made here of a distribution's signed packages, by its own tool.

use crate::Wish;
use banger_cli::Out;
use banger_doc::{Context, Error, Result, shows};
use banger_image::{interrupt, progress};
use banger_layer::{Layer, Progress, Summary};
use banger_state::{Staged, State};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use serde::Deserialize;
use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read},
    os::fd::AsFd,
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long the tool may take: it fetches a few hundred MiB, and may run in an emulated machine.
pub(crate) const LIMIT: Duration = Duration::from_hours(3);
/// How long it may take to clean up once it is told to end.
const END_LIMIT: Duration = Duration::from_secs(30);
/// How long its words may take to come once it has ended: what it began may have them still.
const WORDS_LIMIT: Duration = Duration::from_secs(2);
/// How often it is asked whether it has ended.
const PAUSE: Duration = Duration::from_millis(10);

/// How many lines of the tool's words are kept for an error.
const KEPT_LINES: usize = 12;

/// What mmdebstrap(1) is to make.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    suite: String,
    #[serde(default = "main_only")]
    components: Vec<String>,
    /// Where the packages come from if the host has no mirror of the suite; else mmdebstrap's own
    /// choice, which brings updates and security updates too.
    #[serde(default)]
    mirror: Option<String>,
    #[serde(default)]
    security_mirror: Option<String>,
    pub(crate) packages: Vec<String>,
}

fn main_only() -> Vec<String> {
    vec!["main".into()]
}

impl Recipe {
    /// Refuses words that could mean something else to the tool than a name.
    pub(crate) fn check(&self) -> Result<()> {
        let word = |text: &String| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b))
        };
        let url = |text: &String| {
            ["http://", "https://", "file:///"].iter().any(|start| text.starts_with(start))
                && text.bytes().all(|b| b.is_ascii_graphic())
        };
        let words = self.components.iter().chain(&self.packages).chain([&self.suite]);
        for text in words {
            if !word(text) {
                return Err(Error::failed(format!(
                    "'{}' is not a package name",
                    text.escape_debug()
                )));
            }
        }
        for text in self.mirror.iter().chain(&self.security_mirror) {
            if !url(text) {
                return Err(Error::failed(format!("'{}' is not a mirror", text.escape_debug())));
            }
        }
        Ok(())
    }

    /// Returns the lines of `sources.list`: the host's own mirror if it has this suite. Without
    /// lines mmdebstrap takes its own.
    fn sources(&self) -> Vec<String> {
        let components = self.components.join(" ");
        let suite = &self.suite;
        let Some(mirror) = host_mirror(suite).or_else(|| self.mirror.clone()) else {
            return Vec::new();
        };
        let mut lines = vec![
            format!("deb {mirror} {suite} {components}"),
            format!("deb {mirror} {suite}-updates {components}"),
        ];
        let security = format!("{suite}-security");
        lines.extend(
            host_mirror(&security)
                .or_else(|| self.security_mirror.clone())
                .map(|mirror| format!("deb {mirror} {security} {components}")),
        );
        lines
    }

    fn command(&self, program: &Path, architecture: &str) -> Command {
        let mut command = Command::new(program);
        command
            .args(["--variant=minbase", "--format=tar"])
            .arg(format!("--architectures={architecture}"))
            .arg(format!("--components={}", self.components.join(",")))
            .arg(format!("--include={}", self.packages.join(",")))
            .args(
                ["/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*"]
                    .map(|path| format!("--dpkgopt=path-exclude={path}")),
            )
            .arg("--dpkgopt=path-include=/usr/share/doc/*/copyright")
            // Each VM has a key and an identity of its own. The one key is banger's, or made where
            // banger gave none; others are shown to nobody.
            .arg("--customize-hook=rm -f \"$1\"/etc/ssh/ssh_host_*")
            .arg("--customize-hook=: > \"$1/etc/machine-id\"")
            .arg("--customize-hook=rm -f \"$1/etc/hostname\" \"$1/etc/resolv.conf\"")
            .arg(
                "--customize-hook=mkdir -p \"$1/etc/systemd/system/ssh.service.d\" && printf \
                 '[Service]\\nExecStartPre=\\nExecStartPre=-/usr/bin/ssh-keygen -q -t ed25519 \
                 -N \"\" -f /etc/ssh/ssh_host_ed25519_key\\n\
                 ExecStartPre=/usr/sbin/sshd -t\\n' > \
                 \"$1/etc/systemd/system/ssh.service.d/keys.conf\"",
            )
            .args([&self.suite, "-"])
            .args(self.sources())
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// Makes the root file system and writes it to the disk of a begun image, in one stream.
pub(crate) fn write(
    state: &State,
    recipe: &Recipe,
    wish: &Wish,
    out: &Out,
) -> Result<(Staged, Summary)> {
    let program = which::which("mmdebstrap").map_err(|_| {
        Error::unavailable("mmdebstrap is not installed")
            .hint("on Debian and Ubuntu: apt install mmdebstrap debian-archive-keyring")
    })?;
    let mut child = recipe
        .command(&program, &wish.platform.architecture)
        .spawn()
        .with_context(|| format!("cannot run '{}'", program.display()))?;
    interrupt::end(Some(child.id()));
    let said = Said::listen(child.stderr.take().expect("because it was asked for"));
    let at = Arc::clone(&said.step);
    let stdout = child.stdout.take().expect("because it was asked for");
    let maker = Arc::new(Mutex::new(Maker { child, said, ended: None, is_late: false }));
    let stream = Stream { stdout, maker: Arc::clone(&maker), until: Instant::now() + LIMIT };
    let layer = Layer {
        name: "mmdebstrap".into(),
        diff_id: None,
        size: None,
        open: Box::new(move || Ok(Box::new(stream))),
    };
    let done = Progress::default();
    if out.is_live() {
        out.note("making the image of Debian's packages, once");
    }
    let result = progress::stream(
        out,
        &done,
        || spelled(at.load(Ordering::Relaxed)),
        || banger_image::write(state, &wish.name, vec![layer], &wish.limits, &done),
    );
    // The tool's own words say more than that its stream broke off.
    let mut maker = maker.lock().unwrap_or_else(PoisonError::into_inner);
    let ended = if result.is_err() { maker.stop(END_LIMIT) } else { maker.judge() };
    ended.and(result)
}

/// The running tool.
struct Maker {
    child: Child,
    said: Said,
    ended: Option<ExitStatus>,
    /// Whether it had all its time.
    is_late: bool,
}

impl Maker {
    /// Returns how the tool ended, if it has.
    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().context("cannot wait for mmdebstrap")?;
            if self.ended.is_some() {
                // Its number may be another program's from now on.
                interrupt::end(None);
            }
        }
        Ok(self.ended)
    }

    /// Tells a tool to end that is still at work when nobody reads it any more, and kills it if it has
    /// not cleaned up in time. Says why it failed, unless it was ended so.
    fn stop(&mut self, limit: Duration) -> Result<()> {
        if self.ended()?.is_none() {
            // Its stream is closed, so it cannot go on; it cleans up by itself.
            let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        let end = Instant::now() + limit;
        let mut is_killed = false;
        while self.ended()?.is_none() {
            if !is_killed && Instant::now() >= end {
                let _ = self.child.kill();
                is_killed = true;
            }
            thread::sleep(PAUSE);
        }
        if self.is_late {
            return Err(Error::failed(late())
                .hint("whether the mirror can be reached, and is fast enough, decides how long it takes; try again later, or pull an image of a registry"));
        }
        if self.ended.is_some_and(|status| status.code().is_none()) { Ok(()) } else { self.judge() }
    }

    /// Says why the tool failed, if it ended so.
    fn judge(&mut self) -> Result<()> {
        if self.ended.is_none_or(|status| status.success()) {
            return Ok(());
        }
        let words = self.said.finish();
        let hint = if words.contains("GPG") || words.contains("NO_PUBKEY") {
            "install the distribution's keys: apt install debian-archive-keyring"
        } else if words.contains("newuidmap")
            || words.contains("chroot mode")
            || words.contains("unshare")
            || words.contains("subuid")
        {
            "an ordinary user needs namespaces, numbers in /etc/subuid and 'newuidmap' ('sudo apt install uidmap') for it: 'banger doctor' says what is missing"
        } else {
            "look at what mmdebstrap said, and whether the mirror can be reached"
        };
        Err(Error::failed(format!("mmdebstrap failed: {words}")).hint(hint))
    }
}

/// Says that the tool had all its time.
fn late() -> String {
    format!("mmdebstrap did not end within {} hours", LIMIT.as_secs() / 3600)
}

/// The tool's tar, whose end counts only if the tool ended well.
struct Stream {
    stdout: ChildStdout,
    maker: Arc<Mutex<Maker>>,
    /// When it has to have come.
    until: Instant,
}

impl Stream {
    /// Waits until there is something to read.
    fn wait(&self) -> io::Result<()> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.give_up());
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits until the tool has ended, which it may do some time after it closed its stdout.
    fn wait_for_the_end(&self) -> io::Result<()> {
        loop {
            let mut maker = self.maker();
            let ended = maker.ended().map_err(|error| io::Error::other(error.chain()))?;
            if ended.is_some() {
                return maker.judge().map_err(|error| io::Error::other(error.chain()));
            }
            drop(maker);
            if Instant::now() >= self.until {
                return Err(self.give_up());
            }
            thread::sleep(PAUSE);
        }
    }

    fn give_up(&self) -> io::Error {
        self.maker().is_late = true;
        io::Error::new(io::ErrorKind::TimedOut, late())
    }

    fn maker(&self) -> MutexGuard<'_, Maker> {
        self.maker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait()?;
        let n = self.stdout.read(buffer)?;
        if n == 0 && !buffer.is_empty() {
            self.wait_for_the_end()?;
        }
        Ok(n)
    }
}

/// The last of what the tool said.
struct Said {
    lines: Arc<Mutex<VecDeque<String>>>,
    /// The furthest of its steps, whatever it said since.
    step: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Said {
    fn listen(stderr: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&lines);
        let step = Arc::new(AtomicUsize::new(0));
        let furthest = Arc::clone(&step);
        let thread = thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(io::Result::ok) {
                let text = String::from_utf8_lossy(&line);
                let text: String = text.chars().filter(|c| shows(*c)).take(200).collect();
                if let Some(step) = step_of(&text) {
                    furthest.fetch_max(step, Ordering::Relaxed);
                }
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == KEPT_LINES {
                    kept.pop_front();
                }
                kept.push_back(text);
            }
        });
        Self { lines, step, thread: Some(thread) }
    }

    /// Returns the lines that tell of a failure, else the last ones.
    fn finish(&mut self) -> String {
        if let Some(thread) = self.thread.take() {
            let end = Instant::now() + WORDS_LIMIT;
            while !thread.is_finished() && Instant::now() < end {
                thread::sleep(PAUSE);
            }
        }
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let told: Vec<&str> = lines
            .iter()
            .map(String::as_str)
            .filter(|line| line.starts_with("E: ") || line.starts_with("Err:"))
            .collect();
        let told = if told.is_empty() { lines.iter().map(String::as_str).collect() } else { told };
        let shown: Vec<&str> = told.iter().rev().take(4).rev().copied().collect();
        shown.join(" / ")
    }
}

/// What the tool says at the beginning of each of its steps, and what that is.
const STEPS: [(&str, &str); 6] = [
    ("running apt-get update", "reading the lists of packages"),
    ("downloading packages", "downloading packages"),
    ("extracting archives", "unpacking the essential packages"),
    ("installing essential", "installing the essential packages"),
    ("installing remaining", "installing the other packages"),
    ("creating tarball", "writing the disk"),
];

/// Returns the step at whose beginning the tool says this.
fn step_of(line: &str) -> Option<usize> {
    STEPS.iter().position(|(said, _)| line.trim_start_matches("I: ").starts_with(said))
}

/// Says which step the tool is at.
fn spelled(step: usize) -> String {
    format!("step {} of {}: {}", step + 1, STEPS.len(), STEPS[step].1)
}

/// Returns the mirror from which the host itself gets a suite (sources.list(5)).
fn host_mirror(suite: &str) -> Option<String> {
    let mut files = vec![std::path::PathBuf::from("/etc/apt/sources.list")];
    let parts = std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    files.extend(parts.map(|part| part.path()));
    files.sort();
    files
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .find_map(|text| mirror_in(&text, suite))
}

/// Finds a mirror of a suite's `main` in either format of sources.list(5).
fn mirror_in(text: &str, suite: &str) -> Option<String> {
    let usable = |uri: &str| uri.starts_with("http://") || uri.starts_with("https://");
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("deb ") else { continue };
        let rest = match rest.trim_start().strip_prefix('[') {
            Some(options) => options.split_once(']').map_or("", |(_, rest)| rest),
            None => rest,
        };
        let words: Vec<&str> = rest.split_whitespace().collect();
        if let [uri, found, components @ ..] = words.as_slice()
            && usable(uri)
            && *found == suite
            && components.contains(&"main")
        {
            return Some((*uri).to_owned());
        }
    }
    for stanza in text.split("\n\n") {
        let field = |name: &str| -> Vec<&str> {
            stanza
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.trim().eq_ignore_ascii_case(name))
                .map(|(_, value)| value.split_whitespace().collect())
                .unwrap_or_default()
        };
        if field("Types").contains(&"deb")
            && field("Suites").contains(&suite)
            && field("Components").contains(&"main")
            && !field("Enabled").contains(&"no")
            && let Some(uri) = field("URIs").iter().find(|uri| usable(uri))
        {
            return Some((*uri).to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn the_furthest_step_of_the_tool_is_said() {
        let said = |lines: &str| {
            let mut said = Said::listen(io::Cursor::new(lines.to_owned()));
            said.finish();
            spelled(said.step.load(Ordering::Relaxed))
        };
        assert_eq!(said(""), "step 1 of 6: reading the lists of packages");
        assert_eq!(
            said("I: installing essential packages...\nSetting up x\nI: done\n"),
            "step 4 of 6: installing the essential packages"
        );
        let last = "step 6 of 6: writing the disk";
        assert_eq!(said("I: creating tarball...\nI: done\n"), last);
        // It says much meanwhile, and some of its words again.
        let long = format!("I: creating tarball...\n{}", "Setting up x\n".repeat(KEPT_LINES + 1));
        assert_eq!(said(&long), last);
        assert_eq!(said("I: creating tarball...\nI: downloading packages with apt...\n"), last);
    }

    /// A tool that does what a script says, and its stream.
    fn tool(script: &str, limit: Duration) -> (Arc<Mutex<Maker>>, Stream) {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Said::listen(child.stderr.take().unwrap());
        let stdout = child.stdout.take().unwrap();
        let maker = Arc::new(Mutex::new(Maker { child, said, ended: None, is_late: false }));
        let stream = Stream { stdout, maker: Arc::clone(&maker), until: Instant::now() + limit };
        (maker, stream)
    }

    #[test]
    fn a_tool_that_does_not_end_is_ended() {
        let wait = Duration::from_millis(300);
        let begin = Instant::now();
        // One that goes on writing, one that closed its stdout, one that no signal ends but SIGKILL.
        for (script, is_deaf) in [
            ("while :; do echo x; sleep 0.05; done", false),
            ("exec >&-; exec sleep 60", false),
            ("trap 'echo E: done >&2; exit 1' TERM; exec >&-; while :; do :; done", false),
            ("trap '' TERM; while :; do echo x; sleep 0.05; done", true),
        ] {
            let (maker, mut stream) = tool(script, wait);
            let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{script}");
            let told = Instant::now();
            let error = maker.lock().unwrap().stop(wait).unwrap_err();
            assert_eq!(error.chain(), "mmdebstrap did not end within 3 hours", "{script}");
            assert!(error.hint_text().is_some());
            assert_eq!(is_deaf, told.elapsed() >= wait, "{script}: {:?}", told.elapsed());
            let signal = maker.lock().unwrap().ended.unwrap().signal();
            assert_eq!(signal == Some(9), is_deaf, "{script}: {signal:?}");
        }
        assert!(begin.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn the_end_of_the_stream_counts_if_the_tool_ended_well() {
        let minute = Duration::from_mins(1);
        let (maker, mut stream) = tool("echo x; exec >&-; sleep 0.1", minute);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"x\n");
        maker.lock().unwrap().judge().unwrap();
        // What it began may keep its stderr; nobody waits for that.
        let begin = Instant::now();
        let (maker, mut stream) = tool("sleep 60 >&- & echo E: no room >&2; exit 3", minute);
        let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "mmdebstrap failed: E: no room");
        let error = maker.lock().unwrap().stop(minute).unwrap_err();
        assert_eq!(error.chain(), "mmdebstrap failed: E: no room");
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn the_hosts_own_mirror_is_found_in_both_formats() {
        let list =
            "# x\ndeb [arch=amd64 signed-by=/k] http://m.example/debian bookworm main contrib\n";
        assert_eq!(mirror_in(list, "bookworm").unwrap(), "http://m.example/debian");
        assert_eq!(mirror_in(list, "bookworm-security"), None);
        let sources = "Types: deb\n# y\nURIs: http://d.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n\
                       Types: deb\nURIs: http://s.example\nSuites: bookworm-security\nComponents: main\n";
        assert_eq!(mirror_in(sources, "bookworm").unwrap(), "http://d.example/debian");
        assert_eq!(mirror_in(sources, "bookworm-security").unwrap(), "http://s.example");
        assert_eq!(mirror_in("deb cdrom:x bookworm main", "bookworm"), None);
    }
}
