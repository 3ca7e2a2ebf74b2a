//! The host's own ssh, scp, sftp and rsync with a real server in a real guest.

use crate::guest::Guest;
use banger_tests::{Answer, SYSTEM_PATH, program};
use std::{
    fs,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

/// Ports of a host that plays for one test alone.
const LOCAL: u16 = 4001;
const SOCKS: u16 = 4002;

/// A line that the image's own root lets in.
pub(crate) const IMAGE_KEY: &str = "ssh-ed25519 \
    AAAAC3NzaC1lZDI1NTE5AAAAIGPT7eGJ5mHqKkMhpXNdo4KQFkQzYbi1lNqgD2qV9wTc of-the-image\n";

/// Everything that speaks ssh reaches the guest by its name.
pub(crate) fn all_ways_lead_in(guest: &Guest) {
    let ssh = |args: &[&str]| guest.sandbox.raw(program("banger-vm-ssh"), args);
    // The image has no server: asked for one, it installs it, from what the internet serves.
    let first = ssh(&["web", "--timeout", "500", "--", "echo", "in"]);
    assert_eq!(first.ok().text(), "in\n", "{}", first.all());
    let said = guest.sandbox.raw(program("banger-vm-logs"), &["web"]).ok().text();
    assert!(said.contains("installing an ssh server with 'apt-get'"), "{said}");
    guest.says("apt-get -q -o DPkg::Lock::Timeout=200 install -y rsync 2>&1");

    let answer = ssh(&["web", "--", "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!((answer.status, &*answer.text()), (42, "out\n"), "{}", answer.all());
    assert_eq!(answer.stderr, "err\n");
    assert_eq!(ssh(&["web", "--", "echo $FROM_IMAGE | tr a-z A-Z"]).ok().text(), "YES\n");

    // As an editor does: a script over a plain `ssh -T`, no terminal.
    guest.run("ssh-config", &["--install"]).ok();
    let home = guest.sandbox.home();
    let config = home.join(".ssh/config");
    let shell = Shell { guest, config: config.display().to_string() };
    shell.says("echo 'uname -s; id -un; pwd' | ssh -T $VM bash -s", "Linux\nroot\n/root\n");

    // The key that banger gave is the only one.
    let keys = guest.says("ls /etc/ssh/ssh_host_*_key");
    assert_eq!(keys, "/etc/ssh/ssh_host_ed25519_key\n");
    // Each line was read by nobody before.
    let keys = guest.says("cat /root/.ssh/authorized_keys");
    assert!(keys.contains(IMAGE_KEY.trim()), "the image's own key is gone: {keys}");
    assert!(keys.contains(" banger"), "banger's key is missing: {keys}");
    let user = "-o IdentityFile=none -o PreferredAuthentications=password,keyboard-interactive";
    let refused = shell.run(&format!("ssh {user} -o BatchMode=yes $VM true"));
    assert!(refused.status == 255, "a login without a key: {}", refused.all());
    assert!(refused.stderr.contains("Permission denied (publickey)"), "{}", refused.all());

    another_user_is_let_in(guest, &shell);
    a_server_that_lets_nobody_in_is_said(guest);
    files_are_carried(&shell);
    ports_are_carried(&shell);
    another_host_key_is_refused(&shell);
    shell.run("banger ssh-config --uninstall").ok();
    assert_eq!(fs::read(&config).unwrap_or_default(), b"");
}

struct Shell<'a> {
    guest: &'a Guest,
    config: String,
}

impl Shell<'_> {
    /// `ssh` and its like as the user has them, but for a configuration that is the sandbox's.
    fn script(&self, script: &str) -> String {
        format!(
            "ssh() {{ command ssh -F '{0}' \"$@\"; }}; scp() {{ command scp -q -F '{0}' \"$@\"; }}; \
             sftp() {{ command sftp -q -F '{0}' \"$@\"; }}; export RSYNC_RSH=\"ssh -F '{0}'\"; \
             VM=web.vm; {script}",
            self.config
        )
    }

    fn run(&self, script: &str) -> Answer {
        let beside = self.guest.sandbox.programs().display().to_string();
        let script = self.script(script);
        let words = ["-euo", "pipefail", "-c", &script];
        self.guest.sandbox.raw_with("/bin/bash", &words, |command| {
            command.env("PATH", format!("{beside}:{SYSTEM_PATH}"));
        })
    }

    fn says(&self, script: &str, words: &str) {
        let answer = self.run(script);
        assert_eq!(answer.ok().text(), words, "{}", answer.all());
    }

    /// Starts something that stays.
    fn start(&self, script: &str) -> Stays {
        let mut command = self.guest.sandbox.command("/bin/bash");
        command.args(["-c", &self.script(&format!("exec {script}"))]);
        Stays(command.stdout(Stdio::null()).spawn().expect("a shell"))
    }
}

struct Stays(Child);

impl Drop for Stays {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A user with a home that its group may write to, from which a server takes no keys: banger's own list
/// counts, and ssh takes the user that the VM's folder names.
fn another_user_is_let_in(guest: &Guest, shell: &Shell<'_>) {
    let login = guest.folder().join("ssh/login");
    let own = fs::read_to_string(&login).expect("a login");
    assert_eq!(own, "Host web.vm\n    User root\n");
    guest.says(
        "useradd -m -s /bin/bash dev && chmod 775 /home/dev && grep -q '^dev:!' /etc/shadow && \
         cp /run/banger/ssh/root /run/banger/ssh/dev",
    );
    shell.says("ssh dev@$VM 'id -un; pwd; echo $IS_SANDBOX'", "dev\n/home/dev\n1\n");
    fs::write(&login, "Host web.vm\n    User dev\n").expect("a login");
    shell.says("ssh $VM id -un; ssh root@$VM id -un", "dev\nroot\n");
    fs::write(&login, own).expect("a login");
    let words = ["web", "-l", "dev", "--", "id", "-un"];
    assert_eq!(guest.sandbox.raw(program("banger-vm-ssh"), &words).ok().text(), "dev\n");
}

/// What greets has to let banger's key in before anybody is sent there.
fn a_server_that_lets_nobody_in_is_said(guest: &Guest) {
    guest.says("systemctl stop ssh.service ssh.socket 2>&1; mv /root/.ssh /root/away; mv /run/banger/ssh /run/banger/away");
    let failed = || {
        let said = guest.says("awk '/^Tcp:/ { count = $8 } END { print count }' /proc/net/snmp");
        said.trim().parse::<u64>().expect("a number")
    };
    let before = failed();
    std::thread::scope(|scope| {
        let ssh = scope
            .spawn(|| guest.sandbox.raw(program("banger-vm-ssh"), &["web", "--", "echo", "in"]));
        // It says that it waits after some tries; each is a connection of the guest's that fails.
        let end = Instant::now() + Duration::from_mins(1);
        while failed() < before + 10 {
            assert!(Instant::now() < end, "it does not try again");
        }
        guest.says("systemctl start ssh.service");
        let refused = ssh.join().expect("a thread");
        assert!(refused.stderr.contains("web: waiting for its ssh server"), "{}", refused.all());
        refused.fails(125, "the ssh server of 'web.vm' lets no 'root' in");
    });
    guest.says("mv /root/away /root/.ssh; mv /run/banger/away /run/banger/ssh");
}

/// An image without a server, and nothing that serves the packages of one: that is said.
pub(crate) fn packages_that_are_not_to_be_had_are_said(guest: &Guest) {
    // Nothing is installed that nobody asked for.
    let said = guest.sandbox.raw(program("banger-vm-logs"), &["web"]).ok().text();
    assert!(!said.contains("ssh server"), "{said}");
    let asked =
        guest.sandbox.raw(program("banger-vm-ssh"), &["web", "--timeout", "3", "--", "true"]);
    asked.fails(125, "ssh did not come up within 3s");
    let words = "cannot install an ssh server: 'apt-get";
    let said = is_logged(guest, words, Duration::from_mins(8));
    assert!(said.contains("'banger vm exec' works without"), "{said}");
}

/// Waits until the guest has said something; returns all that it said.
fn is_logged(guest: &Guest, words: &str, limit: Duration) -> String {
    let end = Instant::now() + limit;
    loop {
        let said = guest.sandbox.raw(program("banger-vm-logs"), &["web"]).ok().text();
        if said.contains(words) {
            return said;
        }
        assert!(Instant::now() < end, "nothing is said of the ssh server: {said}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// An image without a server and without a package manager: that is said, and all else works.
pub(crate) fn no_server_is_said(guest: &Guest) {
    let vm = ["web", "--timeout", "3", "--", "true"];
    let answer = guest.sandbox.raw(program("banger-vm-ssh"), &vm);
    answer.fails(125, "ssh did not come up within 3s").fails(125, "the VM is kept");
    is_logged(guest, "no package manager that banger knows", Duration::from_mins(1));
    assert_eq!(guest.status(), "running");
}

fn files_are_carried(shell: &Shell<'_>) {
    let began = Instant::now();
    shell
        .run(
            "head -c 104857600 /dev/urandom >large; scp large $VM:/root/large; rm -rf back; \
             scp $VM:/root/large back; cmp large back; \
             test $(ssh $VM sha256sum /root/large | cut -c-64) = $(sha256sum large | cut -c-64); \
             ssh $VM rm /root/large; rm large back",
        )
        .ok();
    say(&format!("scp of 100 MiB there and back: {:?}", began.elapsed()));
    shell
        .run(
            "mkdir small; cd small; mkdir -p tree/sub; seq 1000 >tree/sub/numbers; ln -s sub/numbers tree/link; chmod 750 tree/sub; \
             printf 'put -r tree\\nchmod 600 tree/sub/numbers\\nget tree/sub/numbers fetched\\nbye\\n' >batch; \
             sftp -b batch $VM >said; cmp tree/sub/numbers fetched; ssh $VM rm -r tree; \
             rsync -a tree/ $VM:synced; rsync -a $VM:synced/ again; diff -r tree again; \
             test -L again/link; test $(stat -c %a again/sub) = 750; \
             echo more >>tree/sub/numbers; rsync -ai tree/ $VM:synced | grep numbers; \
             test $(ssh $VM wc -l synced/sub/numbers | cut -d' ' -f1) = 1001",
        )
        .ok();
}

/// `ssh -L`, and `ssh -D` with a client of SOCKS: each leads to the guest's own greeting.
fn ports_are_carried(shell: &Shell<'_>) {
    let _tunnel = shell.start(&format!(
        "ssh -F '{}' -N -o ExitOnForwardFailure=yes -L {LOCAL}:localhost:22 -D {SOCKS} web.vm",
        shell.config
    ));
    let local = format!("127.0.0.1:{LOCAL}");
    let through = [
        format!("--retry 60 --retry-delay 1 --retry-connrefused http://{local}/"),
        format!("--socks5-hostname 127.0.0.1:{SOCKS} http://localhost:22/"),
    ];
    for words in through {
        // Not HTTP, which curl passes on when told to.
        let script = format!("curl -s -m 100 --http0.9 {words} | grep -ao SSH-2.0- || true");
        shell.says(&script, "SSH-2.0-\n");
    }
}

fn another_host_key_is_refused(shell: &Shell<'_>) {
    let known = shell.guest.folder().join("ssh/known_host");
    let right = fs::read(&known).expect("a known host");
    shell.run("ssh-keygen -q -t ed25519 -N '' -f other").ok();
    let other = fs::read_to_string(shell.guest.sandbox.dir().join("other.pub")).expect("a key");
    fs::write(&known, format!("web.vm {other}")).expect("a known host");
    let refused = shell.run("ssh $VM true");
    assert!(refused.status == 255, "another host key was taken: {}", refused.all());
    assert!(refused.stderr.contains("Host key verification failed"), "{}", refused.all());
    fs::write(&known, right).expect("a known host");
    shell.run("ssh $VM true").ok();
}

#[expect(clippy::print_stderr, reason = "figures for whoever watches a test")]
fn say(text: &str) {
    eprintln!("{text}");
}
