//! A root file system made here of a distribution's signed packages, by its own tool.

use crate::Wish;
use banger_cli::Out;
use banger_doc::{Context, Error, Result, shows};
use banger_image::{interrupt, progress};
use banger_layer::{Layer, Progress, Summary};
use banger_state::{Staged, State};
use serde::Deserialize;
use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

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
    let maker = Arc::new(Mutex::new(Maker { child, said, ended: None }));
    let stream = Stream { stdout, maker: Arc::clone(&maker) };
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
    let ended = maker.lock().unwrap_or_else(PoisonError::into_inner).end(result.is_err());
    ended.and(result)
}

/// The running tool.
struct Maker {
    child: Child,
    said: Said,
    ended: Option<std::process::ExitStatus>,
}

impl Maker {
    /// Waits for the tool and says why it failed. One that is still at work when nobody reads it
    /// any more is told to end.
    fn end(&mut self, stop: bool) -> Result<()> {
        let status = if let Some(status) = self.ended {
            status
        } else {
            if stop {
                // Its stream is closed, so it cannot go on; it cleans up by itself.
                let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            }
            let status = self.child.wait().context("cannot wait for mmdebstrap")?;
            // Its number may be another program's from now on.
            interrupt::end(None);
            status
        };
        self.ended = Some(status);
        if status.success() || stop && status.code().is_none() {
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

/// The tool's tar, whose end counts only if the tool ended well.
struct Stream {
    stdout: ChildStdout,
    maker: Arc<Mutex<Maker>>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.stdout.read(buffer)?;
        if n == 0 && !buffer.is_empty() {
            let mut maker = self.maker.lock().unwrap_or_else(PoisonError::into_inner);
            maker.end(false).map_err(|error| io::Error::other(error.chain()))?;
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
            let _ = thread.join();
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
