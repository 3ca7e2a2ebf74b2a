//! The first day of somebody who has never typed `banger`: an ordinary user at a terminal of 80x24, on a machine
//! without KVM, `uidmap` and the internet. What is on the screen is kept beside this file; `BLESS=1` writes it.

use crate::{
    fixture,
    oci::{Pack, layout},
    tape::archive,
    terminal::Terminal,
    user::with_libraries,
};
use banger_tests::{Sandbox, have, program, run_bounded};
use nix::unistd::geteuid;
use serde_json::json;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The user, whom nobody else on a host is.
const USER: &str = "61234";

/// Makes a machine of its own and becomes the user there. `$1` is where its parts lie, `$2` the programs.
const HOST: &str = r#"
to=$1 bin=$2 user=$3; shift 3
ip link set lo up
mount --bind "$bin" "$to/bin"
mount -t tmpfs -o mode=755 banger "$to/dev"
for one in null zero full random urandom tty; do
  : >"$to/dev/$one"; mount --bind "/dev/$one" "$to/dev/$one"
done
mkdir "$to/dev/pts" "$to/dev/shm" "$to/dev/net"
mount --bind /dev/pts "$to/dev/pts"; chmod 1777 "$to/dev/shm"
mknod -m 666 "$to/dev/net/tun" c 10 200; mknod -m 666 "$to/dev/ptmx" c 5 2
for one in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${one%:*}" "$to/dev/${one#*:}"; done
ln -s /proc/self/fd "$to/dev/fd"
mount --rbind "$to/dev" /dev
for file in passwd group subuid subgid; do
  if [ -e "/etc/$file" ]; then mount --bind "$to/etc/$file" "/etc/$file"; fi
done
sed '/^flags/s/ \(vmx\|svm\)\>//' /proc/cpuinfo >"$to/cpuinfo.$$"; mount --bind "$to/cpuinfo.$$" /proc/cpuinfo
for one in newuidmap newgidmap; do
  if [ -e "/usr/bin/$one" ]; then mount --bind "$to/etc/passwd" "/usr/bin/$one"; fi
done
exec setpriv --reuid "$user" --regid "$user" --clear-groups -- "$@"
"#;

/// What changes from day to day, and what stands for it: expressions for `sed -E`, in order.
const SAME: &[&str] = &[
    // How long a thing took.
    r"s/[0-9]+(\.[0-9]+)? ?(ms|s|min)\b/N s/g",
    r"s/( N s in all:).*/\1 .../",
    r"s/  [^ ]+( [^ ]+)? ago$/  N s ago/",
    // How large this host is, and its programs.
    r"s/[0-9.]+ [KMG]iB (free|used|in)\b/N \1/",
    r"s/in [0-9]+ files/in N files/",
    r"s/^(web +running +debian-bookworm +)[0-9]+ +[0-9.]+ [MG]iB/\1N     N     /",
    r"s/^(vcpu|memory)( +)[0-9].*/\1\2N/",
    r"s/^( +(vcpu|memory) +)[0-9].*\(/\1N (/",
    r"s/BusyBox v.*\)/BusyBox/",
    // Numbers that are drawn.
    r"s/^(id +)[0-9a-f]{32}/\1ID/",
    r"s/\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b/MAC/",
    r"s/\bpid [0-9]+/pid N/",
];

struct Day {
    sandbox: Sandbox,
}

impl Day {
    fn new() -> Self {
        let mut sandbox = Sandbox::new();
        sandbox.set_limit(Duration::from_mins(5));
        fixture::kernel(&sandbox);
        let top = sandbox.state().parent().expect("the sandbox").to_owned();
        for dir in ["bin", "dev", "etc"] {
            fs::create_dir(top.join(dir)).expect("a folder");
        }
        let line = |name: &str, more: String| {
            let text = fs::read_to_string(format!("/etc/{name}")).unwrap_or_default();
            fs::write(top.join("etc").join(name), text + &more).expect("a file of the machine");
        };
        let home = sandbox.home().display().to_string();
        line("passwd", format!("ada:x:{USER}:{USER}:Ada:{home}:/bin/bash\n"));
        line("group", format!("ada:x:{USER}:\n"));
        for name in ["subuid", "subgid"] {
            line(name, "ada:2000000000:65536\n".to_owned());
        }
        image(&sandbox);
        let bin = program("banger").parent().expect("a folder").to_owned();
        let words = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-euc"];
        let mut words: Vec<String> = words.map(str::to_owned).to_vec();
        let at = |path: &Path| path.display().to_string();
        words.extend([HOST.to_owned(), "sh".into(), at(&top), at(&bin), USER.to_owned()]);
        repository(&sandbox.home().join("repo"));
        let mut own = Command::new("chown");
        own.arg("-R").arg(format!("{USER}:{USER}")).args([sandbox.home(), sandbox.dir()]);
        own.arg(sandbox.state()).arg(top.join("tmp"));
        let owned = run_bounded(&mut own, None, Duration::from_mins(1));
        assert_eq!(owned.status, 0, "{}", String::from_utf8_lossy(&owned.stderr));
        let shut = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        fs::set_permissions(&top, shut).expect("the mode of the sandbox");
        sandbox.go_elsewhere(words, &top.join("bin"));
        Self { sandbox }
    }
}

/// Makes an image with git, as `box` beside the repository.
fn image(sandbox: &Sandbox) {
    let base = fixture::busybox_layer(&sandbox.dir());
    let layer = sandbox.dir().join("layer.tar");
    fs::write(&layer, archive(&with_libraries("/usr/bin/git"))).expect("a layer");
    let config = json!({ "Env": ["PATH=/bin:/sbin:/usr/bin"] });
    let layers = [(base, Pack::None), (layer, Pack::None)];
    layout(&sandbox.home().join("box"), &layers, &config);
}

/// Makes a repository with one commit.
fn repository(dir: &Path) {
    let script = "git init -q -b main \"$1\"; cd \"$1\"; git config user.name Ada; \
                  git config user.email ada@example.org; echo 'Read me.' >README; git add .; git commit -qm first";
    let mut shell = Command::new("sh");
    shell.args(["-euc", script, "sh"]).arg(dir).env("HOME", dir.parent().expect("a home"));
    let made = run_bounded(&mut shell, None, Duration::from_mins(1));
    assert_eq!(made.status, 0, "{}", String::from_utf8_lossy(&made.stderr));
}

/// What is on the screen, one after the other.
struct Album<'a> {
    terminal: Terminal<'a>,
    sandbox: &'a Sandbox,
    number: usize,
    complaints: Vec<String>,
}

impl Album<'_> {
    /// Types a line into an empty screen, waits for the end, and keeps what the person sees then.
    fn typed(&mut self, name: &str, line: &str) {
        self.terminal.begin(line);
        self.keep(name, |screen| screen.ends_with("\n$"));
    }

    /// Waits, and keeps what the person sees then.
    fn keep(&mut self, name: &str, done: impl Fn(&str) -> bool) {
        let screen = self.terminal.wait(name, done);
        let shown = self.same(&screen);
        self.number += 1;
        let path = screens().join(format!("{:02}-{name}.txt", self.number));
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, shown).expect("a screen");
            return;
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        if kept != shown {
            let path = path.display();
            self.complaints.push(format!("--- {path}\n{kept}+++ the screen\n{shown}"));
        }
    }

    /// Types a line into the guest's shell.
    fn inside(&self, line: &str) {
        self.terminal.tmux(&["send-keys", "-l", line]);
        self.terminal.tmux(&["send-keys", "Enter"]);
    }

    /// Takes out what is another on each day.
    fn same(&self, screen: &str) -> String {
        let home = self.sandbox.home().display().to_string();
        let state = self.sandbox.state().display().to_string();
        let mut sed = Command::new("sed");
        sed.arg("-E").args(SAME.iter().flat_map(|same| ["-e", same]));
        let text = screen.replace(&home, "~").replace(&state, "STATE") + "\n";
        let made = run_bounded(&mut sed, Some(text.as_bytes()), Duration::from_secs(20));
        String::from_utf8(made.stdout).expect("text")
    }
}

fn screens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("flows/first_day")
}

#[test]
fn the_first_day_works_or_is_answered() {
    if !["tmux", "git", "unshare", "setpriv", "ip"].into_iter().all(have) {
        return;
    }
    if !geteuid().is_root() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: a machine of a test's own needs root");
        return;
    }
    let day = Day::new();
    let terminal = Terminal::sized(&day.sandbox, (80, 24), "$", &day.sandbox.home());
    let mut album = Album { terminal, sandbox: &day.sandbox, number: 0, complaints: Vec::new() };
    if std::env::var_os("BLESS").is_some() {
        let _ = fs::remove_dir_all(screens());
        fs::create_dir_all(screens()).expect("the folder of the screens");
    }
    guesses(&mut album);
    work(&mut album);
    let Album { complaints, .. } = album;
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// What people type who know other tools.
fn guesses(album: &mut Album<'_>) {
    for (name, line) in [
        ("banger", "banger"),
        ("doctor", "banger doctor"),
        ("images", "banger images"),
        ("run-an-image", "banger run -it debian"),
        ("run-without-uidmap", "banger vm run"),
        ("ps", "banger ps"),
        ("top", "banger top"),
        ("vm-top", "banger vm top"),
        ("logs", "banger logs"),
        ("transposed", "banger vm strat web"),
        ("volume", "banger run -v $PWD:/src debian"),
        ("launch", "banger launch debian"),
    ] {
        album.typed(name, line);
    }
}

/// A repository goes in, is worked on, and the work comes out.
fn work(album: &mut Album<'_>) {
    album.typed("pull", "banger pull oci:box --name debian-bookworm");
    album.terminal.begin("banger vm run --name web ./repo");
    let in_guest = |screen: &str| screen.ends_with(" #");
    album.keep("in-the-guest", in_guest);
    album.inside("echo more >>README; git status --short");
    album.keep("an-edit", |screen| screen.contains("M README") && in_guest(screen));
    album.inside("exit");
    album.keep("left", |screen| screen.ends_with("\n$"));
    for (name, line) in [
        ("ps-of-one", "banger ps"),
        ("show", "banger show web"),
        ("rm-while-it-runs", "banger rm web"),
        ("status", "banger workspace status web"),
        ("stop", "banger stop web"),
        ("rm-with-work", "banger rm web"),
        ("start", "banger start web"),
        ("look-at-the-patch", "banger workspace export web"),
        ("export", "banger workspace export web -o web.patch"),
        ("apply", "git -C repo apply ../web.patch && git -C repo status --short"),
        ("rm-after-export", "banger rm -f web"),
        ("ps-of-none", "banger ps"),
    ] {
        album.typed(name, line);
    }
}
