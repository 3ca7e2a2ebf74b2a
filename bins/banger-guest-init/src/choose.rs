//! Which program is to be the guest's first: the image's init, or banger's own, which starts what the image
//! says.

use crate::mark;
use banger_doc::{Guest, Init};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Where programs are looked for if the image's configuration has no `PATH`.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where an image has its init, in this order, and whether it is there only to be one. The others come with
/// packages that something else depends on.
const INITS: &[(&str, bool)] = &[
    ("/sbin/init", true),
    ("/usr/sbin/init", true),
    ("/lib/systemd/systemd", false),
    ("/usr/lib/systemd/systemd", false),
    ("/etc/init", true),
    ("/sbin/openrc-init", false),
];

/// Programs that have to be process 1, or act as if they were: s6-overlay's and others' `/init`, phusion's,
/// runit, s6. They end all processes they see, so they must not see the machine's.
const FIRST: &[&str] = &[
    "init",
    "my_init",
    "runit",
    "runit-init",
    "runsvdir",
    "runsvdir-start",
    "s6-svscan",
    "s6-linux-init",
];
/// Programs that start one other and bury what that leaves; not being process 1 they want to be its like.
const REAPERS: &[&str] = &["tini", "tini-static", "dumb-init", "catatonit", "docker-init"];
/// Alone, one of these is what a person is to get, and no application.
const SHELLS: &[&str] = &["sh", "bash", "ash", "dash", "zsh", "ksh", "fish"];

/// What sort of init it is; decides how the guest is asked to shut down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Systemd,
    OpenRc,
    Busybox,
    Other,
    /// What the image's configuration says to run.
    Own,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::OpenRc => "openrc",
            Self::Busybox => "busybox",
            Self::Other => "other",
            Self::Own => "own",
        }
    }
}

/// A program that can be the first one, and its words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct First {
    pub(crate) path: String,
    pub(crate) words: Vec<String>,
    pub(crate) kind: Kind,
}

/// What was chosen.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Choice {
    /// To be tried in this order; banger's own after them.
    pub(crate) inits: Vec<First>,
    /// What whoever started the VM may not expect.
    pub(crate) note: Option<String>,
}

/// Returns the words of the program that the image says to run; none if it is not to run.
pub(crate) fn program(guest: &Guest) -> Vec<String> {
    if !guest.run_entrypoint {
        return Vec::new();
    }
    guest.config.entrypoint.iter().chain(&guest.config.cmd).cloned().collect()
}

/// Chooses what is to be the first program of the image at `root`.
pub(crate) fn choose(root: &Path, guest: &Guest) -> Choice {
    let mut choice = Choice::default();
    if guest.init == Init::Minimal {
        return choice;
    }
    let words = program(guest);
    // By which file it is: one that cannot be run is not tried again by another name.
    let file = |path: &str| Some(id(&fs::metadata(below(root, path)).ok()?));
    let mut files = Vec::new();
    if let Some(first) = named(root, guest, &words) {
        files.push(file(&first.path));
        choice.inits.push(first);
    }
    let spared = guest.init == Init::Auto && is_application(&words) && choice.inits.is_empty();
    for (path, is_only) in INITS {
        let Some(kind) = usable(root, path) else { continue };
        if spared && !is_only {
            choice.note = Some(format!(
                "init: '{}' runs, as the image says, and not '{path}', since the image has no init of \
                 its own; 'banger vm set --init image {}' has that run",
                words[0], guest.hostname
            ));
            continue;
        }
        let path = (*path).to_owned();
        let own = file(&path);
        if !files.contains(&own) {
            files.push(own);
            choice.inits.push(First { words: vec![path.clone()], path, kind });
        }
    }
    if !choice.inits.is_empty() {
        choice.note = None;
    } else if guest.init == Init::Image {
        choice.note = Some("init: the image has none, so banger's own runs".to_owned());
    }
    choice
}

/// Returns the image's own program if that is the init of a machine. What else has the name of one gets a
/// namespace of its own: there its end is not the machine's.
fn named(root: &Path, guest: &Guest, words: &[String]) -> Option<First> {
    let path = find(root, words.first()?, &search_path(guest), "/")?;
    let path = path.to_str()?.to_owned();
    let known = INITS.iter().any(|(init, _)| *init == path);
    let kind = match usable(root, &path)? {
        kind @ (Kind::Systemd | Kind::OpenRc) => kind,
        kind @ Kind::Busybox if known => kind,
        Kind::Other if known && is_root(guest.config.user.as_deref()) => Kind::Own,
        _ => return None,
    };
    Some(First { path, words: words.to_vec(), kind })
}

fn is_root(user: Option<&str>) -> bool {
    let user = user.unwrap_or_default();
    matches!(user.split(':').next(), Some("" | "0" | "root"))
}

/// Says whether these words start something that is more than a shell for a person.
fn is_application(words: &[String]) -> bool {
    let Some((first, rest)) = words.split_first() else { return false };
    let is_shell = SHELLS.contains(&base_name(first));
    !(is_shell && rest.iter().all(|word| word.starts_with('-') && word != "-c"))
}

/// Says whether the image's program is to be the first one of a PID namespace. An image that has an
/// `/init` may end up there, whatever it begins with.
pub(crate) fn wants_to_be_first(root: &Path, words: &[String]) -> bool {
    words.first().is_some_and(|word| FIRST.contains(&base_name(word)))
        || is_program(&below(root, "/init"))
}

/// Says whether the image's program buries the processes of others.
pub(crate) fn is_reaper(words: &[String]) -> bool {
    words.first().is_some_and(|word| REAPERS.contains(&base_name(word)))
}

fn base_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Returns the last `PATH` of the image's configuration.
pub(crate) fn search_path(guest: &Guest) -> String {
    let set = |entry: &String| Some(entry.strip_prefix("PATH=")?.to_owned());
    guest.config.env.iter().rev().find_map(set).unwrap_or_else(|| PATH.to_owned())
}

/// Finds a program as execvp(3) does; returns its path inside the root.
pub(crate) fn find(root: &Path, word: &str, path: &str, dir: &str) -> Option<PathBuf> {
    if word.contains('/') {
        return Some(Path::new(dir).join(word));
    }
    path.split(':')
        .map(|place| Path::new(dir).join(place).join(word))
        .find(|path| is_program(&root.join(path.strip_prefix("/").unwrap_or(path))))
}

/// Says which sort of init lies at a path below `root`, or that it cannot run the guest.
fn usable(root: &Path, path: &str) -> Option<Kind> {
    let own = below(root, path);
    if !is_program(&own) {
        return None;
    }
    let real = fs::canonicalize(&own).ok()?;
    let file = real.file_name()?.to_str()?;
    let same = |other: &str| {
        let (one, other) = (fs::metadata(&own), fs::metadata(below(root, other)));
        matches!((one, other), (Ok(a), Ok(b)) if id(&a) == id(&b))
    };
    // NixOS has a script that prepares the system and becomes systemd.
    let is_nixos = real
        .components()
        .any(|part| part.as_os_str().to_str().is_some_and(|part| part.contains("-nixos-system-")));
    if file == "systemd" || is_nixos {
        return Some(Kind::Systemd);
    }
    if file.starts_with("openrc") {
        return Some(Kind::OpenRc);
    }
    if file == "busybox" || same("/bin/busybox") {
        // busybox is in many images that have nothing for its init to start.
        let table = mark::own_table(&below(root, "/etc/inittab"));
        let openrc = is_program(&below(root, "/sbin/openrc"));
        return match table {
            Ok(Some(table)) => by_table(&String::from_utf8_lossy(&table), openrc),
            Ok(None) => is_program(&below(root, "/etc/init.d/rcS")).then_some(Kind::Busybox),
            // It would wait at a pipe as everybody does.
            Err(_) => None,
        };
    }
    Some(Kind::Other)
}

/// Returns what tells a file from all others.
fn id(meta: &fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// Says what busybox's init is by its table, if that has something for it to start.
fn by_table(table: &str, has_openrc: bool) -> Option<Kind> {
    if table.contains("/sbin/openrc") {
        return has_openrc.then_some(Kind::OpenRc);
    }
    let starts = |line: &str| !line.trim_start().starts_with('#') && line.contains(":sysinit:");
    table.lines().any(starts).then_some(Kind::Busybox)
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_doc::{Document, ImageConfig};

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let dir =
                std::env::temp_dir().join(format!("banger-init-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            for below in ["sbin", "bin", "etc", "usr/lib/systemd"] {
                fs::create_dir_all(dir.join(below)).unwrap();
            }
            Self(dir)
        }

        fn program(&self, path: &str) {
            let path = self.0.join(path);
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn link(&self, path: &str, to: &str) {
            std::os::unix::fs::symlink(to, self.0.join(path)).unwrap();
        }

        /// What is tried, by kind and words, for an image that says to run this.
        fn tries(&self, init: Init, entrypoint: &[&str]) -> Vec<(Kind, String)> {
            let choice = choose(&self.0, &guest(init, entrypoint, None));
            choice.inits.into_iter().map(|first| (first.kind, first.words.join(" "))).collect()
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn guest(init: Init, entrypoint: &[&str], user: Option<&str>) -> Guest {
        let text = br#"{"schema":"banger.guest/1","hostname":"x","machine_id":"0","clock_unix_ms":0,
            "disks":{"base":"a","overlay":"b","work":"c"},"channel":"virtio-serial","run_entrypoint":true}"#;
        let config = ImageConfig {
            entrypoint: entrypoint.iter().map(ToString::to_string).collect(),
            user: user.map(str::to_owned),
            ..ImageConfig::default()
        };
        Guest { init, config, ..Guest::from_slice(text).unwrap() }
    }

    #[test]
    fn busybox_is_an_init_only_with_something_to_start() {
        let root = Root::new("busybox");
        root.program("bin/busybox");
        root.link("sbin/init", "../bin/busybox");
        root.link("bin/sh", "busybox");
        assert_eq!(usable(&root.0, "/sbin/init"), None);
        fs::write(root.0.join("etc/inittab"), "::sysinit:/sbin/openrc sysinit\n").unwrap();
        assert_eq!(usable(&root.0, "/sbin/init"), None);
        root.program("sbin/openrc");
        assert_eq!(usable(&root.0, "/sbin/init"), Some(Kind::OpenRc));
        let table = root.0.join("etc/inittab");
        fs::remove_file(&table).unwrap();
        nix::unistd::mkfifo(&table, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(usable(&root.0, "/sbin/init"), None);
        fs::remove_file(&table).unwrap();
        fs::write(&table, b"# Stra\xdfe\n::sysinit:/etc/start\n").unwrap();
        assert_eq!(usable(&root.0, "/sbin/init"), Some(Kind::Busybox));
        // Its shell is no init, whatever file it is.
        let init = (Kind::Busybox, "/sbin/init".to_owned());
        assert_eq!(root.tries(Init::Auto, &["/bin/sh", "-c", "app"]), [init]);
    }

    #[test]
    fn what_cannot_be_run_is_no_init() {
        let root = Root::new("other");
        assert_eq!(usable(&root.0, "/sbin/init"), None);
        fs::write(root.0.join("sbin/init"), "text").unwrap();
        assert_eq!(usable(&root.0, "/sbin/init"), None);
        root.program("sbin/init");
        assert_eq!(usable(&root.0, "/sbin/init"), Some(Kind::Other));
        root.program("bin/systemd");
        fs::remove_file(root.0.join("sbin/init")).unwrap();
        root.link("sbin/init", "../bin/systemd");
        assert_eq!(usable(&root.0, "/sbin/init"), Some(Kind::Systemd));
    }

    #[test]
    fn systemd_that_came_as_a_dependency_leaves_the_machine_to_the_application() {
        let root = Root::new("spare");
        root.program("usr/lib/systemd/systemd");
        let systemd = || vec![(Kind::Systemd, "/usr/lib/systemd/systemd".to_owned())];
        for application in [&["/app"][..], &["sh", "-c", "app"], &["bash", "/app.sh"]] {
            assert_eq!(root.tries(Init::Auto, application), [], "{application:?}");
            assert_eq!(root.tries(Init::Image, application), systemd(), "{application:?}");
            let note = choose(&root.0, &guest(Init::Auto, application, None)).note.unwrap();
            let typed = "no init of its own; 'banger vm set --init image x' has that run";
            assert!(note.contains(application[0]) && note.contains(typed), "{note}");
        }
        for none in [&[][..], &["/bin/bash"], &["bash", "-l"]] {
            assert_eq!(root.tries(Init::Auto, none), systemd(), "{none:?}");
            assert_eq!(root.tries(Init::Minimal, none), [], "{none:?}");
        }
        // One that is there to be the init stays it, and is tried once, whatever it is called.
        root.link("sbin/init", "../usr/lib/systemd/systemd");
        root.link("usr/sbin", "../sbin");
        root.link("lib", "usr/lib");
        assert_eq!(root.tries(Init::Auto, &[]), [(Kind::Systemd, "/sbin/init".to_owned())]);
        assert_eq!(root.tries(Init::Auto, &["/app"])[0].1, "/sbin/init");
        assert_eq!(choose(&root.0, &guest(Init::Auto, &["/app"], None)).note, None);
    }

    #[test]
    fn an_entrypoint_that_is_the_machines_init_becomes_it_with_its_words() {
        let root = Root::new("entry");
        root.program("sbin/init");
        let own = |words: &str| (Kind::Own, words.to_owned());
        assert_eq!(root.tries(Init::Auto, &["/sbin/init", "--", "x"]), [own("/sbin/init -- x")]);
        assert_eq!(root.tries(Init::Auto, &["init"]), [own("init")]);
        assert_eq!(root.tries(Init::Minimal, &["init"]), []);
        // Another user's program is not for the whole machine.
        let others = choose(&root.0, &guest(Init::Auto, &["/sbin/init", "x"], Some("app")));
        assert_eq!(others.inits[0].kind, Kind::Other);
        fs::create_dir_all(root.0.join("opt")).unwrap();
        root.program("usr/lib/systemd/systemd");
        root.link("opt/start", "../usr/lib/systemd/systemd");
        let tries = root.tries(Init::Auto, &["/opt/start", "--unit=x"]);
        assert_eq!(tries[0], (Kind::Systemd, "/opt/start --unit=x".to_owned()));
    }

    #[test]
    fn what_has_to_be_the_first_process_gets_a_namespace() {
        let root = Root::new("first");
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        for first in [&["/init"][..], &["/sbin/my_init", "--"], &["s6-svscan", "/etc/s6"]] {
            assert!(wants_to_be_first(&root.0, &words(first)), "{first:?}");
        }
        for other in [&[][..], &["/app"], &["tini", "--", "/init"], &["/initialise"]] {
            assert!(!wants_to_be_first(&root.0, &words(other)), "{other:?}");
        }
        root.program("init");
        assert!(wants_to_be_first(&root.0, &words(&["/entrypoint.sh"])));
        assert_eq!(root.tries(Init::Auto, &["/init"]), []);
        assert!(is_reaper(&words(&["/usr/bin/tini", "--", "x"])) && !is_reaper(&words(&["x"])));
    }

    #[test]
    fn a_program_is_looked_for_in_path() {
        let root = Path::new("/");
        assert_eq!(find(root, "sh", "/nowhere:/bin", "/").unwrap(), Path::new("/bin/sh"));
        assert_eq!(find(root, "./x", "/bin", "/srv").unwrap(), Path::new("/srv/./x"));
        assert!(find(root, "no-such-program", "/bin", "/").is_none());
    }
}
