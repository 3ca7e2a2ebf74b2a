//! A VM that runs as far as anybody can tell, for the contracts of programs that talk to one.

use crate::{Sandbox, program};
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::Child,
    thread,
};

/// A planted VM whose lock is held; ends with the value.
#[derive(Debug)]
pub struct Running {
    folder: PathBuf,
    _lock: Flock<File>,
    agent: Option<Child>,
}

impl Sandbox {
    /// Plants a VM that runs as far as anybody can tell. Its `running.json` says what has to be said, and
    /// `more`.
    pub fn plant_running(&self, name: &str, more: &Value) -> Running {
        self.plant_vm(name, "alpine", "generic-6.12");
        let folder = self.vm(name);
        fs::create_dir(folder.join("run")).expect("the folder of a run");
        let mut document = json!({
            "schema": "banger.running/1", "phase": "ready",
            "supervisor": { "pid": 1, "start_ticks": 1 },
            "vmm": "qemu", "accelerator": "tcg", "started_unix_ms": 1,
            "agent_ms": 1, "booted_ms": 2, "booted": "yes",
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            document[field] = value.clone();
        }
        fs::write(folder.join("running.json"), document.to_string()).expect("a document");
        let lock = File::create(folder.join("lock")).expect("a lock");
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|(_, error)| error).expect("a lock that nobody holds");
        Running { folder, _lock: lock, agent: None }
    }
}

impl Running {
    /// Starts the real agent, with this machine in place of a guest; `config` is what its image says of how
    /// to run it. `bridge` serves the first socket over the second, as a supervisor does: this
    /// crate links nothing of banger's.
    pub fn start_agent(
        &mut self,
        sandbox: &Sandbox,
        config: &Value,
        bridge: impl FnOnce(UnixListener, UnixStream) + Send + 'static,
    ) {
        let guest = self.folder.join("guest.json");
        let document = json!({
            "schema": "banger.guest/1", "hostname": "web", "machine_id": "0", "clock_unix_ms": 0,
            "disks": { "base": "a", "overlay": "b", "work": "c" }, "channel": "virtio-serial",
            "config": config,
        });
        fs::write(&guest, document.to_string()).expect("the guest's document");
        let device = self.folder.join("run/port.sock");
        let port = UnixListener::bind(&device).expect("a socket");
        let mut agent = sandbox.command(program("banger-guest-agent"));
        agent.arg("--guest").arg(guest).arg("--device").arg(device);
        self.agent = Some(agent.spawn().expect("the agent"));
        let (device, _) = port.accept().expect("a connection of the agent's");
        let listener = listen(&self.folder);
        thread::spawn(move || bridge(listener, device));
    }

    /// Returns the agent's process.
    pub fn agent(&mut self) -> &mut Child {
        self.agent.as_mut().expect("an agent that was started")
    }

    /// Has `answer` speak on each connection to the guest, once it is open.
    pub fn answer(&self, answer: impl Fn(&mut BufReader<UnixStream>) + Send + Sync + 'static) {
        let listener = listen(&self.folder);
        thread::spawn(move || {
            thread::scope(|scope| {
                for stream in listener.incoming().map_while(Result::ok) {
                    scope.spawn(|| {
                        let mut stream = BufReader::new(stream);
                        let _ = stream.read_line(&mut String::new());
                        let _ = stream.get_mut().write_all(b"OK 1\n");
                        answer(&mut stream);
                    });
                }
            });
        });
    }

    /// Answers the first line on each connection to the guest with these bytes, and hangs up.
    pub fn pretend(&self, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.answer(move |stream| {
            let _ = stream.read_line(&mut String::new());
            let _ = stream.get_mut().write_all(&bytes);
        });
    }
}

fn listen(folder: &Path) -> UnixListener {
    UnixListener::bind(folder.join("run/channel.sock")).expect("the channel's socket")
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}
