//! A VM that has a workspace, for the contracts of programs that bring work in and out.

use crate::{Answer, Running, Sandbox, program};
use serde_json::json;
use std::os::unix::net::{UnixListener, UnixStream};

/// A VM `web` with the repository `repo` of two commits in it, whose guest is the directory `guest` of the
/// sandbox.
#[derive(Debug)]
pub struct Web {
    /// Where all of it lies.
    pub sandbox: Sandbox,
    _running: Running,
}

impl Web {
    /// Makes it; `bridge` is what [`Running::start_agent`] takes.
    pub fn new(bridge: impl FnOnce(UnixListener, UnixStream) + Send + 'static) -> Self {
        let sandbox = Sandbox::new();
        let mut running = sandbox.plant_running("web", &json!({}));
        running.start_agent(&sandbox, &json!({}), bridge);
        let web = Self { sandbox, _running: running };
        web.sh(
            "printf '[user]\\nname = A\\nemail = a@b\\n[init]\\ndefaultBranch = main\\n' >$HOME/.gitconfig
             git init -q repo; cd repo; echo a >a; git add a; git commit -qm one; echo b >>a; git commit -qam two",
        );
        let words = ["web", &web.at("repo"), "--guest-path", &web.at("guest/repo")];
        web.sandbox.run(program("banger-workspace-prepare"), &words).ok();
        web
    }

    /// Returns a path in the sandbox, as text.
    pub fn at(&self, path: &str) -> String {
        self.sandbox.dir().join(path).to_str().expect("a path of text").to_owned()
    }

    /// Runs a script in the sandbox's directory, which is its home; programs of banger's are in `PATH`.
    pub fn try_sh(&self, script: &str) -> Answer {
        let (dir, programs) = (self.sandbox.dir(), self.sandbox.programs());
        let (dir, programs) = (dir.display(), programs.display());
        let script = format!("export PATH={programs}:$PATH HOME={dir}; cd {dir}; {script}");
        self.sandbox.raw("/bin/bash", &["-euo", "pipefail", "-c", &script])
    }

    /// Runs a script that has to succeed and returns what it printed.
    pub fn sh(&self, script: &str) -> String {
        self.try_sh(script).ok().text()
    }

    /// Returns how many sorts of work would be lost with the VM.
    pub fn unexported(&self) -> usize {
        let answer = self.sandbox.run(program("banger-workspace-status"), &["web"]);
        answer.ok().document()["unexported"].as_array().expect("what a test needs").len()
    }
}
