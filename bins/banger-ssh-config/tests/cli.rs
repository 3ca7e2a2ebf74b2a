//! The contract of `banger-ssh-config`.
#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_tests::{Sandbox, have};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-ssh-config");

fn sandbox() -> Option<Sandbox> {
    have("ssh-keygen").then(Sandbox::new)
}

fn config(sandbox: &Sandbox) -> PathBuf {
    fs::create_dir_all(sandbox.home().join(".ssh")).unwrap();
    sandbox.home().join(".ssh/config")
}

#[test]
fn the_lines_are_what_ssh_understands() {
    let Some(sandbox) = sandbox() else { return };
    let answer = sandbox.raw(PROGRAM, &[]);
    answer.ok();
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(text.contains("\nHost *.vm !*\\'*\n"), "{text}");
    let file = sandbox.dir().join("lines");
    fs::write(&file, &answer.stdout).unwrap();
    let shown = sandbox.raw("/usr/bin/ssh", &["-G", "-F", file.to_str().unwrap(), "web.vm"]);
    shown.ok();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("\nstricthostkeychecking true\n"), "{shown}");
    assert!(shown.contains("\nuser root\n"), "{shown}");
    assert!(
        shown.contains("banger-ssh-proxy' '%h'\n")
            || shown.contains("banger-ssh-proxy' 'web.vm'\n")
    );
}

#[test]
fn a_terminal_that_guests_may_not_know_goes_by_another_name() {
    let Some(sandbox) = sandbox() else { return };
    let file = sandbox.dir().join("lines");
    fs::write(&file, &sandbox.raw(PROGRAM, &[]).ok().stdout).unwrap();
    let told = |term: &str, host: &str| {
        let words = ["-G", "-F", file.to_str().unwrap(), host];
        let shown = sandbox.raw_with("/usr/bin/ssh", &words, |command| {
            command.env("TERM", term).env("SHELL", "/bin/bash");
        });
        String::from_utf8_lossy(&shown.ok().stdout).contains("setenv TERM=xterm-256color\n")
    };
    for (term, host, is_told) in [
        ("xterm-kitty", "web.vm", true),
        ("alacritty", "root@web.vm", true),
        ("xterm-kitty", "elsewhere", false),
        ("xterm-256color", "web.vm", false),
        ("vt220", "web.vm", false),
        ("", "web.vm", false),
    ] {
        assert_eq!(told(term, host), is_told, "{term} {host}");
    }
}

#[test]
fn each_vm_has_its_own_user_and_all_others_have_root() {
    let Some(sandbox) = sandbox() else { return };
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    sandbox.plant_vm("db", "alpine", "generic-6.12");
    let folder = sandbox.vm("web").join("ssh");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("login"), "Host web.vm\n    User dev\n").unwrap();
    let file = sandbox.dir().join("lines");
    fs::write(&file, &sandbox.raw(PROGRAM, &[]).ok().stdout).unwrap();
    for (host, user) in
        [("web.vm", "dev"), ("root@web.vm", "root"), ("db.vm", "root"), ("me@db.vm", "me")]
    {
        let shown = sandbox.raw("/usr/bin/ssh", &["-G", "-F", file.to_str().unwrap(), host]);
        let shown = String::from_utf8_lossy(&shown.ok().stdout).into_owned();
        assert!(shown.contains(&format!("\nuser {user}\n")), "{host}: {shown}");
    }
    let shown = sandbox.raw("/usr/bin/ssh", &["-G", "-F", file.to_str().unwrap(), "elsewhere"]);
    assert!(!String::from_utf8_lossy(&shown.stdout).contains("\nuser dev\n"));
}

/// What people and their employers write for all hosts.
const FOR_ALL: &str = "Host *\n    User me\n    Port 2222\n    HostName %h.corp.example.com\n    HostKeyAlias corp\n    \
    ProxyJump bastion\n    ProxyCommand nc %h %p\n    ProxyUseFdpass yes\n    ConnectTimeout 1\n    \
    CanonicalizeHostname always\n    CanonicalDomains corp.example.com\n    CanonicalizeFallbackLocal no\n    \
    IdentitiesOnly no\n    IdentityFile ~/.ssh/id_rsa\n    PubkeyAuthentication no\n    \
    PubkeyAcceptedAlgorithms rsa-sha2-512\n    HostKeyAlgorithms rsa-sha2-512\n    \
    PreferredAuthentications password\n    PKCS11Provider /usr/lib/opensc-pkcs11.so\n    AddKeysToAgent yes\n    \
    StrictHostKeyChecking no\n    KnownHostsCommand /bin/false\n    UserKnownHostsFile /dev/null\n    \
    GlobalKnownHostsFile /etc/known\n    CheckHostIP yes\n    UpdateHostKeys yes\n    VerifyHostKeyDNS yes\n    \
    ControlMaster auto\n    ControlPath ~/.ssh/one-for-all\n    ControlPersist 10m\n    RemoteCommand tmux\n    \
    RequestTTY force\n    ExitOnForwardFailure yes\n    SendEnv *\n    ForwardAgent yes\n    \
    ForwardX11 yes\n    ForwardX11Trusted yes\n    GSSAPIDelegateCredentials yes\n    \
    PermitLocalCommand yes\n    LocalCommand touch /tmp/%h\n    Tunnel yes\n    LogLevel ERROR\n";

#[test]
fn what_is_said_of_all_hosts_is_not_said_of_vms() {
    let Some(sandbox) = sandbox() else { return };
    let config = config(&sandbox);
    let shown = |host: &str| {
        let shown = sandbox.raw("/usr/bin/ssh", &["-G", "-F", config.to_str().unwrap(), host]);
        String::from_utf8_lossy(&shown.ok().stdout).into_owned()
    };
    fs::write(&config, "").unwrap();
    sandbox.raw(PROGRAM, &["--install"]).ok();
    let alone = shown("web.vm");
    let fence = fs::read_to_string(&config).unwrap();
    // Whatever cannot change where a connection goes, who it is, and what is done with it.
    let harmless = |line: &&str| {
        let names = ["identityfile", "sendenv", "localcommand", "loglevel", "controlpersist"];
        let more = ["canonicaldomains", "canonicalizefallbacklocal", "hostkeyalias"];
        let name = line.split(' ').next().unwrap_or_default();
        !names.contains(&name) && !more.contains(&name)
    };
    let of = |text: &str| -> Vec<String> {
        text.lines().filter(harmless).map(ToOwned::to_owned).collect()
    };
    for before in [format!("{fence}{FOR_ALL}"), format!("{FOR_ALL}{fence}"), FOR_ALL.to_owned()] {
        fs::write(&config, before).unwrap();
        sandbox.raw(PROGRAM, &["--install"]).ok();
        let now = shown("web.vm");
        assert_eq!(of(&now), of(&alone));
        let first = now.lines().find(|line| line.starts_with("identityfile ")).unwrap();
        assert!(
            first.ends_with("/ssh/id_ed25519\"") || first.ends_with("/ssh/id_ed25519"),
            "{first}"
        );
    }
    assert!(shown("elsewhere").contains("\nport 2222\n"), "other hosts keep what is said of them");
}

#[test]
fn what_ssh_adds_up_is_said_and_one_host_can_have_what_others_have_not() {
    let Some(sandbox) = sandbox() else { return };
    let config = config(&sandbox);
    let installed = |text: &str| {
        fs::write(&config, text).unwrap();
        sandbox.raw(PROGRAM, &["--install"]).ok().stderr.clone()
    };
    let shown = |host: &str| {
        let file = config.to_str().unwrap();
        sandbox.raw("/usr/bin/ssh", &["-G", "-F", file, host]).ok().text()
    };
    let all =
        "    SendEnv AWS_* LANG LC_*\n    RemoteForward 5432 localhost:5432\n    SetEnv A=secret\n";
    let said = installed(&format!("Host *\n{all}"));
    assert!(said.contains("'sendenv AWS_*'") && said.contains("'remoteforward 5432 "), "{said}");
    assert!(
        said.contains("'Host * !*.vm' in place of 'Host *'") && !said.contains("LC_"),
        "{said}"
    );
    assert!(!shown("web.vm").contains("secret") && shown("elsewhere").contains("setenv A=secret"));
    // As it says.
    let said = installed(&format!("Host * !*.vm\n{all}"));
    assert!(!said.contains("note: "), "{said}");
    assert!(!shown("web.vm").contains("AWS_"));
    assert!(shown("elsewhere").contains("sendenv AWS_*"));
    // What was said for one host above banger's lines counts for that one.
    let fence = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("Host web.vm\n    ForwardAgent yes\n    SendEnv TOKEN\n{fence}"))
        .unwrap();
    assert!(shown("web.vm").contains("\nforwardagent yes\n"), "{}", shown("web.vm"));
    assert!(shown("web.vm").contains("sendenv TOKEN"));
    assert!(shown("db.vm").contains("\nforwardagent no\n"));
    // No name with a quote is a VM's.
    let odd = sandbox.raw("/usr/bin/ssh", &["-G", "-F", config.to_str().unwrap(), "x';id;'.vm"]);
    assert!(!odd.text().contains("banger-ssh-proxy"), "{}", odd.all());
}

#[test]
fn installing_twice_and_taking_out_leaves_every_other_byte() {
    let Some(sandbox) = sandbox() else { return };
    let config = config(&sandbox);
    let odd = b"\xff\xfeHost *\r\n\tUser me # no end of line";
    fs::write(&config, odd).unwrap();
    fs::set_permissions(&config, Permissions::from_mode(0o644)).unwrap();
    sandbox.raw(PROGRAM, &["--install"]).ok();
    let once = fs::read(&config).unwrap();
    assert!(once.ends_with(odd) && once.starts_with(b"# >>> banger >>>\nInclude \""));
    let answer = sandbox.raw(PROGRAM, &["--install"]);
    assert!(answer.ok().stderr.contains("is as it was"));
    assert_eq!(fs::read(&config).unwrap(), once);
    assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o644);
    sandbox.raw(PROGRAM, &["--uninstall"]).ok();
    assert_eq!(fs::read(&config).unwrap(), odd);
    assert!(sandbox.raw(PROGRAM, &["--uninstall"]).ok().stderr.contains("is as it was"));
    let left: Vec<_> = fs::read_dir(config.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_missing_file_is_made_for_its_owner_alone() {
    let Some(sandbox) = sandbox() else { return };
    sandbox.raw(PROGRAM, &["--uninstall"]).ok();
    assert!(!sandbox.home().join(".ssh").exists());
    sandbox.raw(PROGRAM, &["--install"]).ok();
    let mode =
        |name: &str| fs::metadata(sandbox.home().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(".ssh"), mode(".ssh/config")), (0o700, 0o600));
}

#[test]
fn a_link_stays_a_link() {
    let Some(sandbox) = sandbox() else { return };
    let config = config(&sandbox);
    let real = sandbox.home().join("dotfiles");
    fs::write(&real, "Host a\n").unwrap();
    symlink("../dotfiles", &config).unwrap();
    sandbox.raw(PROGRAM, &["--install"]).ok();
    assert!(fs::symlink_metadata(&config).unwrap().is_symlink());
    assert!(fs::read_to_string(&real).unwrap().ends_with("<<<\nHost a\n"));
    sandbox.raw(PROGRAM, &["--uninstall"]).ok();
    assert_eq!(fs::read_to_string(&real).unwrap(), "Host a\n");
}

#[test]
fn what_may_not_be_written_is_left_alone() {
    let Some(sandbox) = sandbox() else { return };
    let config = config(&sandbox);
    fs::write(&config, "Host a\n").unwrap();
    fs::set_permissions(&config, Permissions::from_mode(0o444)).unwrap();
    let answer = sandbox.raw(PROGRAM, &["--install"]);
    assert_eq!(answer.status, 125);
    assert!(answer.stderr.contains("is read-only"), "{}", answer.stderr);
    assert!(answer.stderr.contains("Include \""), "{}", answer.stderr);
    assert_eq!(fs::read_to_string(&config).unwrap(), "Host a\n");
    fs::set_permissions(&config, Permissions::from_mode(0o644)).unwrap();
    fs::write(&config, "# >>> banger >>>\nHost a\n").unwrap();
    let answer = sandbox.raw(PROGRAM, &["--install"]);
    assert_eq!(answer.status, 125);
    assert!(answer.stderr.contains("fence"), "{}", answer.stderr);
    assert_eq!(fs::read_to_string(&config).unwrap(), "# >>> banger >>>\nHost a\n");
}

#[test]
fn both_at_once_are_refused() {
    assert_eq!(Sandbox::new().raw(PROGRAM, &["--install", "--uninstall"]).status, 2);
}
