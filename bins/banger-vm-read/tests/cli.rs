//! The contract of `banger-vm-read` with whoever starts it; what it reads is tested in `shared/offline`.

use banger_tests::Sandbox;
use nix::{
    sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
    },
    unistd::pipe,
};
use std::{
    fs::File,
    io::{IoSlice, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    process::{Child, Command, Stdio},
    time::Duration,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-vm-read");

/// A reader, and the socket to it.
struct Reader {
    child: Child,
    control: Option<OwnedFd>,
}

impl Reader {
    fn start() -> Self {
        let kind = SockType::SeqPacket;
        let (control, end) =
            socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).expect("sockets");
        let mut command = Command::new("timeout");
        command.args(["30", PROGRAM]).stdin(end).stderr(Stdio::piped());
        Self { child: command.spawn().expect("a process"), control: Some(control) }
    }

    fn send(&self, word: &str, fds: &[RawFd]) {
        let control = self.control.as_ref().expect("it is open").as_raw_fd();
        let rights = [ControlMessage::ScmRights(fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights };
        let parts = [IoSlice::new(word.as_bytes())];
        sendmsg::<()>(control, &parts, rights, MsgFlags::MSG_NOSIGNAL, None).expect("it is sent");
    }

    /// Asks something on a stream of its own.
    fn ask(&self, words: &[u8]) -> String {
        let (mut here, there) = UnixStream::pair().expect("sockets");
        self.send("stream", &[there.as_raw_fd()]);
        drop(there);
        here.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        here.write_all(words).expect("it is asked");
        here.shutdown(std::net::Shutdown::Write).expect("an end");
        let mut answer = Vec::new();
        here.read_to_end(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer).replace('\0', ";")
    }

    /// Hangs up; returns the status and what it said.
    fn end(mut self) -> (i32, String) {
        self.control = None;
        let mut words = String::new();
        let mut stderr = self.child.stderr.take().expect("it is piped");
        stderr.read_to_string(&mut words).expect("text");
        (self.child.wait().expect("it ends").code().expect("a status"), words)
    }
}

#[test]
fn it_is_not_for_people() {
    let sandbox = Sandbox::new();
    sandbox.run(PROGRAM, &[]).fails(2, "stdin is no socket that disks come from");
    sandbox.run(PROGRAM, &["web"]).fails(2, "unexpected argument 'web'");
    sandbox.run(PROGRAM, &["--disks"]).fails(2, "unexpected argument '--disks'");
    sandbox.raw(PROGRAM, &["--help"]).ok();
}

#[test]
fn who_asks_nothing_ends_it() {
    assert_eq!(Reader::start().end(), (0, String::new()));
}

#[test]
fn what_comes_in_another_order_is_refused() {
    let (read, _write) = pipe().expect("a pipe");
    for (word, fds) in [
        ("stream", &[read.as_raw_fd()][..]),
        ("disks", &[]),
        ("disks", &[read.as_raw_fd(); 2]),
        ("nonsense", &[read.as_raw_fd(); 5]),
    ] {
        let reader = Reader::start();
        reader.send(word, fds);
        let (status, words) = reader.end();
        assert!(status == 2 && words.contains("the disks have to come first"), "{word}: {words}");
    }
}

#[test]
fn disks_that_are_none_are_told_to_whoever_asks() {
    let sandbox = Sandbox::new();
    let path = sandbox.dir().join("file");
    std::fs::write(&path, vec![7; 100_000]).expect("a file");
    let file = File::open(&path).expect("a file");
    let reader = Reader::start();
    reader.send("disks", &[file.as_raw_fd(); 5]);
    let scan = b"{\"op\":\"scan\",\"root\":\"/\"}\n";
    for _ in 0..2 {
        let answer = reader.ask(scan);
        let expected = "error failed cannot read the image's disk: it holds no ext4 file system;";
        assert_eq!(answer, expected);
    }
    reader.send("nonsense", &[]);
    let (status, words) = reader.end();
    assert!(status == 2 && words.contains("a stream has to come"), "{words}");
    // One that is no file at all.
    let (read, _write) = pipe().expect("a pipe");
    let reader = Reader::start();
    reader.send("disks", &[read.as_raw_fd(); 5]);
    assert!(reader.ask(scan).starts_with("error failed cannot read the image's disk"));
    assert_eq!(reader.end().0, 0);
}
