//! Who the guest is, in the image's own files. Links in the image lead nowhere but into the image: its
//! tree is `/` by now.

use crate::{home::Home, reach, say};
use banger_channel::files::Owner;
use banger_doc::{Context, Error, Guest, Result};
use banger_guest::{place, user};
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime, clock_settime},
};
use std::{
    fmt::Write as _,
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Component, Path},
};

/// Files of the image that are read are at most this large; a larger one is left as it is.
const MAX_FILE: u64 = 4 << 20;
/// Ends lines of ours in files that have others' too.
const MARK: &str = "# banger";

/// Sets clock, host name, machine-id, `/etc/hosts`, name servers and keys.
pub(crate) fn identity(guest: &Guest, home: &Home) {
    say::or_warn(clock(guest.clock_unix_ms));
    say::or_warn(nix::unistd::sethostname(&guest.hostname).context("cannot set the host name"));
    let etc = Path::new("/etc");
    say::or_warn(reach::directory(Path::new("/"), "/etc", 0o755));
    let line = |text: &str| format!("{text}\n");
    say::or_warn(replace(&etc.join("hostname"), &line(&guest.hostname), 0o644));
    say::or_warn(replace(&etc.join("machine-id"), &line(&guest.machine_id), 0o444));
    say::or_warn(hosts(etc, &guest.hostname));
    if !guest.dns.is_empty() {
        say::or_warn(resolver(etc, &guest.dns));
    }
    say::or_warn(fstab(etc));
    if !guest.authorized_keys.is_empty() {
        keys(etc, home, &guest.authorized_keys);
    }
}

/// Writes the files of the document: what begins with `~/` where the user's work lies, by the user, so
/// that no link of the user's own leads elsewhere; all else by root.
pub(crate) fn files(guest: &Guest, contents: &[Vec<u8>], home: &Home) {
    let root = Owner { uid: 0, gid: 0, groups: Vec::new() };
    for (file, content) in guest.files.iter().zip(contents) {
        let (owner, path) = match file.path.strip_prefix("~/") {
            Some(below) => (home.owner(), format!("{}/{below}", home.place)),
            None => (root.clone(), file.path.clone()),
        };
        let written = owner.act().and_then(|_acting| write_file(&path, file.mode, content, &owner));
        say::or_warn(written.with_context(|| format!("cannot write '{path}'")));
    }
}

fn write_file(path: &str, mode: u32, content: &[u8], owner: &Owner) -> Result<()> {
    let path = Path::new(path);
    let plain =
        path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain {
        return Err(Error::failed("its path is not an absolute one without '..'"));
    }
    if is_so(path, mode, content, owner) {
        return Ok(());
    }
    // Where links lead is where it lies: a folder of the image may be one, to where there is nothing yet.
    let parent = path.parent().unwrap_or(path).to_string_lossy();
    let parent = reach::directory(Path::new("/"), &parent, 0o755)?;
    put(&parent.join(path.file_name().unwrap_or_default()), content, mode)
}

/// Says whether a file is the owner's, with this mode and content: a boot like the last one then writes
/// nothing.
fn is_so(path: &Path, mode: u32, content: &[u8], owner: &Owner) -> bool {
    let so = |meta: fs::Metadata| {
        meta.is_file()
            && meta.len() == content.len() as u64
            && meta.mode() & 0o7777 == mode & 0o7777
            && (meta.uid(), meta.gid()) == (owner.uid, owner.gid)
    };
    // A regular file, so reading waits for nobody.
    fs::symlink_metadata(path).is_ok_and(so) && fs::read(path).is_ok_and(|found| found == content)
}

/// Sets the clock forward to the host's time; a clock that is ahead is left alone.
fn clock(unix_ms: u64) -> Result<()> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).context("cannot read the clock")?;
    let wanted = (unix_ms / 1000) as i64;
    if now.tv_sec() < wanted {
        let time = TimeSpec::new(wanted, (unix_ms % 1000) as i64 * 1_000_000);
        clock_settime(ClockId::CLOCK_REALTIME, time).context("cannot set the clock")?;
    }
    Ok(())
}

/// Reads a file of the image as text; nothing if it is absent. What cannot be read is an error and no empty file:
/// whoever writes one anew would lose what it says.
pub(crate) fn text_of(path: &Path) -> Result<Option<String>> {
    let failed = || format!("cannot read '{}', so it stays as it is", path.display());
    match banger_guest::read_file(path, MAX_FILE) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).with_context(failed),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(failed),
    }
}

/// Writes a file unless it is so already. What is no regular file gives way, a link too: what it leads
/// to may be somebody else's.
fn replace(path: &Path, text: &str, mode: u32) -> Result<()> {
    let is_file = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
    let is_so = || text_of(path).is_ok_and(|found| found.as_deref() == Some(text));
    if is_file && is_so() {
        return Ok(());
    }
    put(path, text.as_bytes(), mode).with_context(|| format!("cannot write '{}'", path.display()))
}

/// Writes a new file beside and puts it in place.
fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.banger"));
    let write = || -> std::io::Result<()> {
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
            return Err(std::io::Error::other("a folder is in its place"));
        }
        fs::rename(&new, path)
    };
    write().context("cannot write it")
}

/// Gives the guest's own name an address, and keeps all other lines.
fn hosts(etc: &Path, hostname: &str) -> Result<()> {
    let path = etc.join("hosts");
    let before = text_of(&path)?.unwrap_or_default();
    replace(&path, &hosts_text(&before, hostname), 0o644)
}

fn hosts_text(before: &str, hostname: &str) -> String {
    let mut text = String::new();
    for line in before.lines().filter(|line| !line.ends_with(MARK)) {
        let _ = writeln!(text, "{line}");
    }
    let has = |text: &str, name: &str| {
        text.lines()
            .filter_map(|line| line.split('#').next())
            .any(|line| line.split_whitespace().skip(1).any(|word| word == name))
    };
    if !has(&text, "localhost") {
        let _ = writeln!(text, "127.0.0.1 localhost {MARK}");
        let _ = writeln!(text, "::1 localhost ip6-localhost ip6-loopback {MARK}");
    }
    if !has(&text, hostname) {
        let _ = writeln!(text, "127.0.1.1 {hostname} {MARK}");
    }
    text
}

/// Names the name servers. Where the image leaves `resolv.conf` to a service, by a link into `/run`, the
/// link stays, the service is told, and the file is there until it starts.
fn resolver(etc: &Path, servers: &[String]) -> Result<()> {
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    let drop_in = Path::new("/run/systemd/resolved.conf.d");
    fs::create_dir_all(drop_in).context("cannot make a folder in '/run'")?;
    let told = format!("[Resolve]\nDNS={}\n", servers.join(" "));
    replace(&drop_in.join("banger.conf"), &told, 0o644)?;
    let path = etc.join("resolv.conf");
    if let Ok(target) = fs::read_link(&path) {
        let target = etc.join(target);
        let target = plain(&target);
        if target.starts_with("/run/") && !target.starts_with("/run/banger") {
            let target = Path::new(&target);
            let parent = target.parent().unwrap_or(target).to_string_lossy();
            let parent = reach::directory(Path::new("/"), &parent, 0o755)?;
            return replace(&parent.join(target.file_name().unwrap_or_default()), &text, 0o644);
        }
    }
    replace(&path, &text, 0o644)
}

/// Works out `..` in a path without looking at files.
fn plain(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    format!("/{}", parts.join("/"))
}

/// Hides what the image's `fstab` says of disks this machine does not have: an init would wait for them,
/// then give up. The file itself stays as it is; a filtered one lies over it until the guest ends.
fn fstab(etc: &Path) -> Result<()> {
    let path = etc.join("fstab");
    if !fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file()) {
        return Ok(());
    }
    let Some(before) = text_of(&path)? else { return Ok(()) };
    let after = fstab_text(&before, |device| Path::new(device).exists());
    if after == before {
        return Ok(());
    }
    cover(&path, &Path::new(place::RUN).join("fstab"), &after)
}

/// Lets a file of the image say something else until the guest ends; the other text is in a file of ours.
pub(crate) fn cover(path: &Path, ours: &Path, text: &str) -> Result<()> {
    replace(ours, text, 0o644)?;
    let none: Option<&str> = None;
    nix::mount::mount(Some(ours), path, none, nix::mount::MsFlags::MS_BIND, none)
        .with_context(|| format!("cannot hide '{}'", path.display()))
}

fn fstab_text(before: &str, exists: impl Fn(&str) -> bool) -> String {
    let keeps = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [device, place, kind, ..] = fields[..] else { return true };
        if device.starts_with('#')
            || fields.get(3).is_some_and(|o| o.split(',').any(|o| o == "noauto"))
        {
            return true;
        }
        let tagged = ["UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "ID="];
        let absent = tagged.iter().any(|tag| device.starts_with(tag))
            || (device.starts_with("/dev/") && !exists(device));
        place != "/" && !(absent && kind != "tmpfs")
    };
    before.lines().filter(keeps).fold(String::new(), |all, line| all + line + "\n")
}

/// Lets the host's keys in, as root and as the guest's user: by lines in their homes, and by lists of
/// banger's own, which the server is told of: a home may be anywhere, and belong to anybody.
fn keys(etc: &Path, home: &Home, wanted: &[String]) {
    let mut text = wanted.join("\n");
    text.push('\n');
    let lists = Path::new(place::KEYS);
    say::or_warn(
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(lists)
            .with_context(|| format!("cannot make '{}'", place::KEYS)),
    );
    let list = |name: &str| {
        // A name that leads elsewhere is nobody's that a server could ask for.
        if !name.starts_with('.') && !name.contains('/') {
            say::or_warn(replace(&lists.join(name), &text, 0o644));
        }
    };
    let root = user::find(Path::new("/"), "0");
    let dir = root.as_ref().map_or("/root", |root| root.home.as_str());
    let name = root.as_ref().ok().and_then(|root| root.name.clone());
    let mut names = vec![name.unwrap_or_else(|| "root".to_owned())];
    say::or_warn(keys_at(Path::new(dir), wanted));
    if home.user.uid != 0 {
        names.extend(home.user.name.clone());
        if home.place == home.user.home.trim_end_matches('/') {
            let owner = home.owner();
            let added = owner.act().and_then(|_acting| keys_at(Path::new(&home.place), wanted));
            say::or_warn(added);
        }
    }
    for name in &names {
        list(name);
    }
    say::or_warn(unlock(&etc.join("shadow"), &names));
}

/// Adds keys to those of a home.
fn keys_at(home: &Path, wanted: &[String]) -> Result<()> {
    let dir = reach::directory(Path::new("/"), &home.join(".ssh").to_string_lossy(), 0o700)?;
    let path = dir.join("authorized_keys");
    let before = text_of(&path)?.unwrap_or_default();
    let after = keys_text(&before, wanted);
    if after != before {
        replace(&path, &after, 0o600)?;
    }
    Ok(())
}

/// Says of accounts that were made without a password that they have none, instead of that they are
/// locked: a server without PAM lets nobody into those, whatever the key (sshd(8)). Neither can be
/// entered by a password.
fn unlock(path: &Path, names: &[String]) -> Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    let Some(before) = text_of(path)?.filter(|_| meta.is_file()) else { return Ok(()) };
    let after = shadow_text(&before, names);
    if after == before {
        return Ok(());
    }
    let new = path.with_extension("banger");
    let write = || -> std::io::Result<()> {
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(after.as_bytes())?;
        fchown(&file, Some(meta.uid()), Some(meta.gid()))?;
        file.set_permissions(Permissions::from_mode(meta.mode() & 0o7777))?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("cannot write '{}'", path.display()))
}

fn shadow_text(before: &str, names: &[String]) -> String {
    let mut text = String::with_capacity(before.len());
    for line in before.split_inclusive('\n') {
        let mut fields = line.splitn(3, ':');
        match (fields.next(), fields.next(), fields.next()) {
            (Some(name), Some("!" | "!!" | "!*" | "*!"), Some(rest))
                if names.iter().any(|known| known == name) =>
            {
                let _ = write!(text, "{name}:*:{rest}");
            }
            _ => text.push_str(line),
        }
    }
    text
}

fn keys_text(before: &str, wanted: &[String]) -> String {
    let mut text = before.to_owned();
    for key in wanted.iter().map(|key| key.trim()) {
        if !text.lines().any(|line| line.trim() == key) {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(key);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_keep_other_lines_and_get_ours_once() {
        let first = hosts_text("127.0.0.1 localhost\n10.0.0.1 db # mine\n", "web");
        assert_eq!(first, "127.0.0.1 localhost\n10.0.0.1 db # mine\n127.0.1.1 web # banger\n");
        assert_eq!(hosts_text(&first, "web"), first);
        assert!(hosts_text("", "web").starts_with("127.0.0.1 localhost # banger\n::1 "));
        assert_eq!(hosts_text("127.0.0.1 localhost web\n", "web"), "127.0.0.1 localhost web\n");
    }

    #[test]
    fn keys_are_added_once_and_none_is_lost() {
        let wanted = ["ssh-ed25519 A me".to_owned()];
        let first = keys_text("ssh-rsa B other", &wanted);
        assert_eq!(first, "ssh-rsa B other\nssh-ed25519 A me\n");
        assert_eq!(keys_text(&first, &wanted), first);
    }

    #[test]
    fn what_cannot_be_read_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let wanted = ["ssh-ed25519 A me".to_owned()];
        fs::create_dir(at(".ssh")).unwrap();
        let latin = b"10.0.0.1 db # Stra\xdfe\n".to_vec();
        let large = vec![b'#'; MAX_FILE as usize + 1];
        for bytes in [latin, large] {
            for name in ["hosts", ".ssh/authorized_keys", "shadow", "fstab"] {
                fs::write(at(name), &bytes).unwrap();
            }
            let errors = [
                hosts(dir.path(), "web").unwrap_err(),
                keys_at(dir.path(), &wanted).unwrap_err(),
                unlock(&at("shadow"), &["root".to_owned()]).unwrap_err(),
                fstab(dir.path()).unwrap_err(),
            ];
            for error in errors {
                assert!(error.chain().contains("so it stays as it is: "), "{}", error.chain());
            }
            for name in ["hosts", ".ssh/authorized_keys", "shadow", "fstab"] {
                assert!(fs::read(at(name)).unwrap() == bytes, "{name}");
            }
        }
        // One that is absent is made.
        fs::remove_file(at("hosts")).unwrap();
        hosts(dir.path(), "web").unwrap();
        assert!(fs::read_to_string(at("hosts")).unwrap().contains("web"));
    }

    #[test]
    fn only_accounts_without_a_password_are_unlocked() {
        let names = ["root".to_owned(), "dev".to_owned()];
        let before = "root:!::0:::::\ndev:!!:1:0:::::\nother:!:1:::\nbad\ndev:!$6$x:1:\ndev:x";
        let after = "root:*::0:::::\ndev:*:1:0:::::\nother:!:1:::\nbad\ndev:!$6$x:1:\ndev:x";
        assert_eq!(shadow_text(before, &names), after);
        assert_eq!(shadow_text(after, &names), after);
    }

    #[test]
    fn keys_and_files_are_written_with_the_owner_s_rights() {
        let owner = Owner { uid: 54_321, gid: 54_321, groups: vec![54_321] };
        if owner.is_self() {
            return;
        }
        let dir = std::env::temp_dir().join(format!("banger-apply-{}", std::process::id()));
        let (home, roots) = (dir.join("home"), dir.join("roots"));
        for path in [&home, &roots] {
            fs::create_dir_all(path).unwrap();
        }
        std::os::unix::fs::chown(&home, Some(owner.uid), Some(owner.gid)).unwrap();
        let by_owner = |act: &dyn Fn() -> Result<()>| owner.act().and_then(|_acting| act());
        let wanted = ["ssh-ed25519 A me".to_owned()];
        by_owner(&|| keys_at(&home, &wanted)).unwrap();
        let meta = fs::metadata(home.join(".ssh/authorized_keys")).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o7777), (owner.uid, 0o600));
        let meta = fs::metadata(home.join(".ssh")).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o7777), (owner.uid, 0o700));
        let rc = home.join(".config/rc");
        by_owner(&|| write_file(rc.to_str().unwrap(), 0o640, b"x", &owner)).unwrap();
        assert!(is_so(&rc, 0o640, b"x", &owner));
        // What the owner has made of its home leads root nowhere.
        fs::remove_dir_all(home.join(".ssh")).unwrap();
        std::os::unix::fs::symlink(&roots, home.join(".ssh")).unwrap();
        assert!(by_owner(&|| keys_at(&home, &wanted)).is_err());
        let evil = home.join(".ssh/rc");
        assert!(by_owner(&|| write_file(evil.to_str().unwrap(), 0o640, b"x", &owner)).is_err());
        assert_eq!(fs::read_dir(&roots).unwrap().count(), 0);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn fstab_keeps_what_this_machine_has() {
        let before = "# comment\nUUID=1 / ext4 defaults 0 1\nUUID=2 /home ext4 defaults 0 2\n\
            tmpfs /tmp tmpfs defaults 0 0\n/dev/vdz none swap sw 0 0\n/dev/cdrom /media iso9660 noauto,ro 0 0\n";
        let after = fstab_text(before, |_| false);
        assert_eq!(
            after,
            "# comment\ntmpfs /tmp tmpfs defaults 0 0\n/dev/cdrom /media iso9660 noauto,ro 0 0\n"
        );
    }

    #[test]
    fn relative_links_are_worked_out() {
        assert_eq!(
            plain(Path::new("/etc/../run/systemd/resolve/stub.conf")),
            "/run/systemd/resolve/stub.conf"
        );
        assert_eq!(plain(Path::new("/etc/../../../x")), "/x");
    }
}
