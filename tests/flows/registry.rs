//! A real registry on loopback.

use crate::fixture;
use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// A running `docker-registry` that serves the images of the fixture; ends with the value.
#[derive(Debug)]
pub(crate) struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
    _dir: tempfile::TempDir,
}

impl Registry {
    /// Starts one on a free port; makes the images first if no run before this one has.
    pub(crate) fn start() -> Self {
        let storage = fixture::dir().join("registry");
        fixture::once(&storage.join("filled"), || {
            fs::create_dir_all(&storage).expect("the folder of the registry");
            let registry = Self::serving(&storage);
            fixture::push_images(&registry.address);
        });
        Self::serving(&storage)
    }

    /// Starts one that keeps what it has in a folder.
    pub(crate) fn serving(storage: &std::path::Path) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:0\n",
            storage.display()
        );
        fs::write(&config, text).expect("the registry's config");
        // It ends with this process, however that ends.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let (found, address) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let end = rest.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit());
                    let _ = found.send(rest[..end.unwrap_or(rest.len())].to_owned());
                }
            }
        });
        let address = address
            .recv_timeout(Duration::from_secs(20))
            .expect("docker-registry says where it listens");
        Self { child, address, _dir: dir }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
