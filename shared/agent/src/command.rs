//! Starting one command as the image and the request say.

use crate::{
    account,
    group::{self, Group},
    term,
};
use banger_channel::exec::{Failure, Request, Why, Window};
use banger_doc::ImageConfig;
use banger_guest::{
    place, process,
    user::{self, SHELL, User},
};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    libc,
    pty::{grantpt, posix_openpt, unlockpt},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{Gid, Uid, chdir, fchown, geteuid, setgid, setgroups, setsid, setuid},
};
use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    ptr,
    sync::OnceLock,
};

/// `PATH` where the image has none.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Added to an error number: it was the directory.
const AT_DIRECTORY: i32 = 1 << 12;
/// Added to an error number: it was the user, the session or the terminal.
const AT_USER: i32 = 1 << 13;

mod terminal {
    #![allow(missing_docs, reason = "the macros' functions")]
    use nix::libc;
    nix::ioctl_write_ptr_bad!(set_size, libc::TIOCSWINSZ, libc::winsize);
}

/// A command that runs.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) child: Child,
    /// Ready to read when the command has ended.
    pub(crate) pidfd: OwnedFd,
    pub(crate) pipes: Pipes,
    /// Goes with it, when nothing of the command runs any more.
    _group: Option<Group>,
}

/// Our ends of what the command reads and writes. With a terminal the first two are the same one.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdin: Option<File>,
    pub(crate) stdout: Option<File>,
    pub(crate) stderr: Option<File>,
    /// To set its size and to learn who is in its foreground.
    pub(crate) terminal: Option<File>,
}

/// Starts the command, in its group if it has one.
pub(crate) fn start(
    request: &Request,
    config: &ImageConfig,
    group: Option<Group>,
) -> Result<Started, Failure> {
    let who = request.user.as_deref().or(config.user.as_deref()).unwrap_or("");
    let user = user::find(Path::new("/"), who).map_err(|error| refused(error.chain()))?;
    let cwd = request.cwd.as_deref().or(config.working_dir.as_deref());
    let place = account::place_of(&user, config.user.as_deref().unwrap_or_default());
    let said = cwd.filter(|cwd| !cwd.is_empty());
    let cwd = said.unwrap_or_else(|| usual_dir(request, &user, &place));
    if !cwd.starts_with('/') {
        return Err(refused(format!("the directory '{cwd}' is not absolute")));
    }
    let env = environment(request, config, &user, &place);
    let shell = user.usable_shell(Path::new("/")).unwrap_or(SHELL);
    let argv = match request.argv.as_slice() {
        [] => &[shell.to_owned()],
        argv => argv,
    };
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let mut image = Image::new(argv, &env, path)?;
    let cwd_bytes = c_string(cwd)?;

    let (stdio, pipes) = match request.tty {
        Some(window) => terminal(window, &user),
        None => apart(&user),
    }
    .map_err(|error| Failure {
        kind: Why::Failed,
        message: format!("cannot make the command's pipes or terminal: {error}"),
    })?;
    let has_terminal = request.tty.is_some();
    let is_usual = said.is_none();
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let root = geteuid().is_root();
    let [stdin, stdout, stderr] = stdio;
    // The program's name here is never used: the hook below executes the image itself.
    let mut command = Command::new(SHELL);
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    let entry = group.as_ref().map(Group::entry);
    let hook = move || -> io::Result<()> {
        if let Some(entry) = entry {
            group::join(entry);
        }
        let user = |errno: Errno| io::Error::from_raw_os_error(errno as i32 | AT_USER);
        setsid().map_err(user)?;
        if has_terminal {
            // SAFETY: the request takes an integer; descriptor 0 is the terminal.
            Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }).map_err(user)?;
        }
        forgive();
        if root {
            setgroups(&groups).map_err(user)?;
            setgid(gid).map_err(user)?;
            setuid(uid).map_err(user)?;
        }
        chdir(cwd_bytes.as_c_str())
            .or_else(|errno| if is_usual { chdir(c"/") } else { Err(errno) })
            .map_err(|errno| io::Error::from_raw_os_error(errno as i32 | AT_DIRECTORY))?;
        // SAFETY: umask cannot fail and touches nothing else.
        unsafe { libc::umask(0o022) };
        process::keep_three();
        Err(image.execute().into())
    };
    // SAFETY: between fork and exec the hook makes system calls on memory made before, no more.
    unsafe { command.pre_exec(hook) };
    let child = command.spawn().map_err(|error| explain(&error, argv, cwd, who))?;
    let pidfd = pidfd(child.id()).map_err(|error| Failure {
        kind: Why::Failed,
        message: format!("cannot watch the command: {error}"),
    })?;
    Ok(Started { child, pidfd, pipes, _group: group })
}

/// Makes the command's stdin, stdout and stderr three pipes of its user's: opened by its name, as
/// `/dev/stdout` is, a pipe asks whose it is (proc_pid_fd(5)).
fn apart(user: &User) -> io::Result<([Stdio; 3], Pipes)> {
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC);
    let ((in_r, in_w), (out_r, out_w), (err_r, err_w)) = (pipe()?, pipe()?, pipe()?);
    if user.uid != 0 && geteuid().is_root() {
        for theirs in [&in_r, &out_w, &err_w] {
            fchown(theirs, Some(Uid::from_raw(user.uid)), None)?;
        }
    }
    let ours = Pipes {
        stdin: Some(in_w.into()),
        stdout: Some(out_r.into()),
        stderr: Some(err_r.into()),
        terminal: None,
    };
    Ok(([in_r.into(), out_w.into(), err_w.into()], ours))
}

/// Makes them one terminal.
fn terminal(window: Window, user: &User) -> io::Result<([Stdio; 3], Pipes)> {
    let ours = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the request takes open flags and returns a new descriptor; no path is involved, so it
    // works whatever the image has at /dev/pts.
    let theirs = unsafe {
        let fd = Errno::result(libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTPEER, flags))?;
        OwnedFd::from_raw_fd(fd)
    };
    // Programs that change to another user reopen it by its name.
    let _ = fchown(&theirs, Some(Uid::from_raw(user.uid)), None);
    let ours = File::from(OwnedFd::from(ours));
    resize(&ours, window)?;
    let stdio = [theirs.try_clone()?.into(), theirs.try_clone()?.into(), theirs.into()];
    let ours = Pipes {
        stdin: Some(ours.try_clone()?),
        stdout: Some(ours.try_clone()?),
        stderr: None,
        terminal: Some(ours),
    };
    Ok((stdio, ours))
}

/// Changes the size of a terminal.
pub(crate) fn resize(terminal: &File, window: Window) -> io::Result<()> {
    let size =
        libc::winsize { ws_row: window.rows, ws_col: window.cols, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one `winsize`, which lives until the call returns.
    unsafe { terminal::set_size(terminal.as_raw_fd(), &raw const size) }?;
    Ok(())
}

/// The limit of open files the agent began with, soft and hard: a command has it again.
static OPEN_FILES: OnceLock<(u64, u64)> = OnceLock::new();

/// Remembers the limit of open files, before the agent raises its own.
pub(crate) fn remember_open_files() {
    if let Ok(limit) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = OPEN_FILES.set(limit);
    }
}

/// Gives up what the agent has more of than a command should: open files, protection from a guest
/// short of memory.
fn forgive() {
    if let Some((soft, hard)) = OPEN_FILES.get() {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, *soft, *hard);
    }
    // SAFETY: plain system calls on constant strings; the descriptor is closed again.
    unsafe {
        let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, c"0".as_ptr().cast(), 1);
            libc::close(fd);
        }
    }
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and returns a new descriptor; the child is not reaped yet.
    unsafe {
        let fd = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Returns where a command starts when nobody says: a shell at home, or where the user's work lies.
fn usual_dir<'a>(request: &Request, user: &'a User, place: &'a str) -> &'a str {
    let is_shell = request.argv.is_empty();
    let dirs = [user.home.as_str(), place];
    dirs.into_iter().find(|dir| is_shell && Path::new(dir).is_dir()).unwrap_or("/")
}

/// Where tools keep things of a user whose home is no place for them (XDG Base Directory Specification).
const KEPT: &[(&str, &str)] = &[
    ("XDG_CACHE_HOME", ".cache"),
    ("XDG_CONFIG_HOME", ".config"),
    ("XDG_DATA_HOME", ".local/share"),
    ("XDG_STATE_HOME", ".local/state"),
];

/// Puts the environment together, the weakest first; a later value replaces an earlier one. `place` is
/// where the user's work lies.
fn environment(request: &Request, config: &ImageConfig, user: &User, place: &str) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut set = |entry: String| {
        let Some((name, _)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return;
        };
        let same = |old: &String| old.split_once('=').is_some_and(|(old, _)| old == name);
        match env.iter().position(same) {
            Some(at) => env[at] = entry,
            None => env.push(entry),
        }
    };
    set(format!("PATH={USUAL_PATH}"));
    set(format!("HOME={}", user.home));
    if let Some(name) = &user.name {
        set(format!("USER={name}"));
        set(format!("LOGNAME={name}"));
    }
    set(format!("SHELL={}", user.usable_shell(Path::new("/")).unwrap_or(SHELL)));
    // What asks before it does things of consequence need not here (docs/commands/banger-vm-exec.md).
    set("IS_SANDBOX=1".to_owned());
    if place == user::WORKSPACE && place != user.home && user.may_fill(Path::new(place)) {
        for (name, dir) in KEPT {
            set(format!("{name}={place}/{dir}"));
        }
    }
    if request.tty.is_some() {
        set("TERM=xterm".to_owned());
    }
    config.env.iter().cloned().for_each(&mut set);
    if let (Some(_), Some(name)) = (request.tty, &request.term) {
        // What the image says of places counts; what it says of a terminal that is not the user's does not.
        let home = format!("HOME={}", user.home);
        let around: Vec<String> = [home].into_iter().chain(config.env.iter().cloned()).collect();
        set(format!("TERM={}", term::known(Path::new("/"), &around, name)));
    }
    request.env.iter().cloned().for_each(set);
    for entry in &mut env {
        if entry.starts_with("PATH=") && !entry.split(['=', ':']).any(|dir| dir == place::BIN) {
            if !entry.ends_with([':', '=']) {
                entry.push(':');
            }
            entry.push_str(place::BIN);
        }
    }
    env
}

/// All that execve(2) needs, made before the fork: afterwards no memory may be asked for.
struct Image {
    /// Files to try, in order.
    files: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    /// The same as an argument list of the shell, with a free place for the file.
    script: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    _held: Vec<CString>,
}

// SAFETY: the pointers are to strings that `_held` and constants own, and nobody changes those.
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

impl Image {
    fn new(argv: &[String], env: &[String], path: &str) -> Result<Self, Failure> {
        let held =
            argv.iter().chain(env).map(|word| c_string(word)).collect::<Result<Vec<_>, _>>()?;
        let end = std::iter::once(ptr::null());
        let words = held.iter().map(|word| word.as_ptr());
        let args = words.clone().take(argv.len());
        let script = [c"sh".as_ptr(), ptr::null()].into_iter().chain(args.clone().skip(1));
        let name = argv[0].as_str();
        let files = if name.contains('/') {
            vec![c_string(name)?]
        } else {
            path.split(':')
                .filter(|_| !name.is_empty())
                .map(|dir| if dir.is_empty() { "." } else { dir })
                .map(|dir| c_string(&format!("{dir}/{name}")))
                .collect::<Result<_, _>>()?
        };
        Ok(Self {
            files,
            argv: args.clone().chain(end.clone()).collect(),
            script: script.chain(end.clone()).collect(),
            env: words.skip(argv.len()).chain(end).collect(),
            _held: held,
        })
    }

    /// Executes the first file that can be, as execvp(3) does; returns why none could.
    fn execute(&mut self) -> Errno {
        let mut answer = Errno::ENOENT;
        for file in &self.files {
            // SAFETY: all three arrays end with a null pointer, and what they point to is alive.
            unsafe { libc::execve(file.as_ptr(), self.argv.as_ptr(), self.env.as_ptr()) };
            match Errno::last() {
                Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP => {}
                Errno::EACCES => answer = Errno::EACCES,
                Errno::ENOEXEC => {
                    // A script without a first line that says whose.
                    self.script[1] = file.as_ptr();
                    // SAFETY: as above.
                    unsafe {
                        let shell = c"/bin/sh".as_ptr();
                        libc::execve(shell, self.script.as_ptr(), self.env.as_ptr())
                    };
                    return Errno::ENOEXEC;
                }
                other => return other,
            }
        }
        answer
    }
}

/// Says why a command did not start.
fn explain(error: &io::Error, argv: &[String], cwd: &str, who: &str) -> Failure {
    let code = error.raw_os_error().unwrap_or(0);
    let errno = Errno::from_raw(code & (AT_DIRECTORY - 1));
    let words = errno.desc().to_lowercase();
    if code & AT_DIRECTORY != 0 {
        return refused(format!("cannot start in the directory '{cwd}': {words}"));
    }
    if code & AT_USER != 0 {
        return refused(format!("cannot run as user '{who}': {words}"));
    }
    let name = &argv[0];
    match errno {
        Errno::ENOENT => Failure {
            kind: Why::NotFound,
            message: format!("cannot find the command '{name}' in the guest"),
        },
        Errno::EACCES | Errno::ENOEXEC | Errno::EISDIR | Errno::EPERM | Errno::ETXTBSY => Failure {
            kind: Why::NotExecutable,
            message: format!("cannot execute '{name}' in the guest: {words}"),
        },
        _ => Failure { kind: Why::Failed, message: format!("cannot start '{name}': {words}") },
    }
}

fn refused(message: String) -> Failure {
    Failure { kind: Why::Refused, message }
}

fn c_string(word: &str) -> Result<CString, Failure> {
    CString::new(word).map_err(|_| refused("a word of the request holds a zero byte".to_owned()))
}

impl Pipes {
    /// Makes our ends return rather than wait.
    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        use nix::fcntl::{FcntlArg, fcntl};
        for file in [&self.stdin, &self.stdout, &self.stderr].into_iter().flatten() {
            fcntl(file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> User {
        User {
            uid: 0,
            gid: 0,
            groups: vec![0],
            name: Some("root".into()),
            home: "/root".into(),
            shell: None,
        }
    }

    #[test]
    fn the_request_beats_the_image_and_the_image_beats_the_usual() {
        let config = ImageConfig {
            env: vec!["PATH=/opt/bin".into(), "A=1".into(), "HOME=/x".into()],
            ..ImageConfig::default()
        };
        let request = Request {
            env: vec!["A=2".into(), "=bad".into(), "bad".into()],
            tty: Some(Window { rows: 1, cols: 1 }),
            ..Request::default()
        };
        let env = environment(&request, &config, &root(), "/root");
        let all = [
            "PATH=/opt/bin:/run/banger/bin",
            "A=2",
            "HOME=/x",
            "USER=root",
            "TERM=xterm",
            "IS_SANDBOX=1",
        ];
        for wanted in all {
            assert!(env.iter().any(|entry| entry == wanted), "{wanted} in {env:?}");
        }
        assert_eq!(env.iter().filter(|entry| entry.starts_with("A=")).count(), 1);
        assert!(!env.iter().any(|entry| entry.contains("bad")));
    }

    #[test]
    fn a_shell_starts_at_home_and_all_else_at_the_root() {
        let user = |home: &str| User { home: home.into(), ..root() };
        let dir = |argv: &[&str], home: &str, place: &str| {
            let argv = argv.iter().map(|word| (*word).to_owned()).collect();
            usual_dir(&Request { argv, ..Request::default() }, &user(home), place).to_owned()
        };
        assert_eq!(dir(&[], "/usr", "/etc"), "/usr");
        assert_eq!(dir(&[], "/no/such/home", "/etc"), "/etc");
        assert_eq!(dir(&[], "/no/such/home", "/no/such/place"), "/");
        assert_eq!(dir(&["pwd"], "/usr", "/etc"), "/");
    }

    #[test]
    fn a_path_that_ends_with_banger_s_own_is_left_alone() {
        let config =
            ImageConfig { env: vec!["PATH=/bin:/run/banger/bin".into()], ..ImageConfig::default() };
        let env = environment(&Request::default(), &config, &root(), "/root");
        assert!(env.contains(&"PATH=/bin:/run/banger/bin".to_owned()), "{env:?}");
    }
}
