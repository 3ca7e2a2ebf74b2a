//! A repository on the command line.

use banger_cli::{Out, Program, find};
use banger_doc::{
    Context, Error, Name, Result, ToolRefusal, Workspace, WorkspacePlan, shell_word, visible,
};
use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
};

/// What has it say what would go, where nothing went before.
const DRY_RUN: [&str; 2] = ["--dry-run", "--no-include"];

/// How long installing tools may take, in the words of timeout(1).
const TOOLS_LIMIT: &str = "1h";

/// What the command line says of a repository.
#[derive(clap::Args)]
pub(crate) struct Words {
    /// Repository or directory to bring into the VM
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// Where it goes in the guest [default: 'repo' below the user's home]
    #[arg(long, value_name = "DIR", requires = "path")]
    guest_path: Option<String>,
    /// Make a branch of this name in the guest, and only there
    #[arg(long, value_name = "NAME", requires = "path")]
    branch: Option<String>,
    /// What that branch begins at, instead of HEAD with the local edits
    #[arg(long, value_name = "REF", requires = "branch")]
    from: Option<String>,
    /// How much of a repository goes: shallow or full_copy
    #[arg(long, value_name = "MODE", requires = "path")]
    mode: Option<String>,
    /// Take untracked files along that no rule ignores
    #[arg(long, requires = "path")]
    include_untracked: bool,
    /// Take these along too, whether untracked or ignored: a pattern as in '.gitignore'; may be repeated
    #[arg(long, value_name = "PATTERN", requires = "path", allow_hyphen_values = true)]
    include: Vec<String>,
    /// Print what would go, and make nothing
    #[arg(long, requires = "path")]
    pub(crate) dry_run: bool,
    /// Install the tools that the repository names, though 'banger allow' was not asked to let it
    #[arg(long, requires = "path", conflicts_with = "no_bootstrap")]
    bootstrap: bool,
    /// Do not install the tools that the repository names
    #[arg(long, requires = "path")]
    no_bootstrap: bool,
    /// A directory of git's outside the repository that it may lead to; may be repeated
    #[arg(long, value_name = "DIR", requires = "path", value_hint = clap::ValueHint::DirPath)]
    trust_git_dir: Vec<PathBuf>,
}

impl Words {
    /// Says whether a repository or a directory is to go in.
    pub(crate) fn is_given(&self) -> bool {
        self.path.is_some()
    }

    /// Returns the words for `banger-workspace-prepare`.
    fn words(&self, vm: &str) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![vm.into()];
        for (option, value) in [
            ("--guest-path", &self.guest_path),
            ("--branch", &self.branch),
            ("--from", &self.from),
            ("--mode", &self.mode),
        ] {
            words.extend(value.as_ref().map(|value| format!("{option}={value}").into()));
        }
        for dir in &self.trust_git_dir {
            let mut word = OsString::from("--trust-git-dir=");
            word.push(dir);
            words.push(word);
        }
        words.extend(self.include.iter().map(|pattern| format!("--include={pattern}").into()));
        if self.include_untracked {
            words.push("--include-untracked".into());
        }
        if let Some(path) = &self.path {
            words.push("--".into());
            words.push(path.into());
        }
        words
    }

    /// Becomes the program that lists what would go; returns only if that fails. What cannot go is
    /// found before, so that this program says it.
    pub(crate) fn become_dry_run(&self, name: Option<&Name>) -> Error {
        if let Err(error) = self.plan(name) {
            return error;
        }
        let program = match find("banger-workspace-prepare") {
            Ok(program) => program,
            Err(error) => return error,
        };
        let vm = name.map_or("new", Name::as_str);
        let error = Command::new(program).args(DRY_RUN).args(self.words(vm)).exec();
        Error::failed("cannot run 'banger-workspace-prepare'").because(error)
    }

    /// Finds out what would go.
    fn plan(&self, name: Option<&Name>) -> Result<Option<WorkspacePlan>> {
        let plan: Vec<WorkspacePlan> = Program::new("banger-workspace-prepare")?
            .args(DRY_RUN)
            .arg("--quiet")
            .args(self.words(name.map_or("new", Name::as_str)))
            .documents()?;
        Ok(plan.into_iter().next())
    }

    /// Refuses before anything is made what cannot go in, and says whether tools are to be
    /// installed.
    pub(crate) fn check(
        &self,
        name: Option<&Name>,
        is_for_a_person: bool,
        has_no_network: bool,
        out: &Out,
    ) -> Result<bool> {
        if self.path.is_none() {
            return Ok(false);
        }
        let plan = self.plan(name).map_err(|error| self.or_image(error))?;
        let Some(plan) = plan else { return Ok(false) };
        let is_wanted = self.bootstrap || is_for_a_person && !self.no_bootstrap;
        let Some(file) = plan.tools.first().filter(|_| is_wanted) else { return Ok(false) };
        let shown = visible(file, 4096);
        if !self.bootstrap && !plan.tools_allowed {
            out.note(&self.refusal(plan.tools_refused.as_ref(), file, &plan.host_path));
            return Ok(false);
        }
        if has_no_network {
            return Err(Error::usage(format!(
                "'{shown}' names tools to install, and there is no network"
            ))
            .hint("'--no-bootstrap' goes on without them; '--net user' lets them be fetched"));
        }
        out.note(&format!("note: '{shown}' names tools; mise installs them if the image has it"));
        Ok(true)
    }

    /// Says whether the tools may be installed that what went in names. Files may have changed since it was
    /// found out what would go.
    pub(crate) fn may_install(&self, workspace: &Workspace, out: &Out) -> bool {
        let may = self.bootstrap || workspace.tools_allowed;
        if let Some(refused) = workspace.tools_refused.as_ref().filter(|_| !may) {
            out.note(&self.refusal(Some(refused), &refused.path, &workspace.host_path));
        }
        may
    }

    /// Says why tools are not installed, and what has them installed.
    fn refusal(&self, refused: Option<&ToolRefusal>, file: &str, host_path: &str) -> String {
        let shown = visible(refused.map_or(file, |refused| &refused.path), 4096);
        let why = match refused.map(|refused| refused.why.as_str()) {
            Some("link") => "it is a link, and what it leads to may change",
            Some("changed") => "it is not what you said yes to",
            _ => "whoever wrote it chose what runs",
        };
        let why = format!("note: '{shown}' names tools, which are not installed: {why}");
        let is_link = refused.is_some_and(|refused| refused.why == "link");
        // With '--from', what lies on the host is not what goes in.
        if is_link || self.from.is_some() {
            return format!("{why}; '--bootstrap' lets it this once");
        }
        let path = shell_word(host_path);
        format!("{why}; 'banger allow {path}' lets it, '--bootstrap' this once")
    }

    /// Says how an image is named, where the path may be meant to be one.
    fn or_image(&self, error: Error) -> Error {
        let Some(path) = self.path.as_ref().filter(|path| !path.exists()) else { return error };
        let words = path.to_string_lossy();
        if words.starts_with(['.', '/', '~']) {
            return error;
        }
        error.hint(format!(
            "PATH is a repository; an image is given with '--image {}'",
            shell_word(path)
        ))
    }

    /// Brings the repository into the VM and returns what went.
    pub(crate) fn prepare(&self, vm: &Name, out: &Out) -> Result<Option<Workspace>> {
        if self.path.is_none() {
            return Ok(None);
        }
        let workspace: Vec<Workspace> = Program::new("banger-workspace-prepare")?
            .args(out.is_quiet().then_some("--quiet"))
            .args(self.words(vm.as_str()))
            .documents()
            .with_context(|| format!("VM '{vm}' runs, but has no workspace"))?;
        Ok(workspace.into_iter().next())
    }
}

/// Has the guest's mise, if it has one, install what the repository names: to the end if `waits`,
/// else beside the shell. The log is in the guest.
pub(crate) fn install_tools(vm: &Name, dir: &str, env: &[String], waits: bool) -> Result<()> {
    let install = "log=${XDG_CACHE_HOME:-$HOME/.cache}/banger; mkdir -p \"$log\" && \
                   mise trust --all >/dev/null 2>&1; \
                   mise install >\"$log/mise.log\" 2>&1 </dev/null";
    let script = if waits {
        format!("command -v mise >/dev/null || exit 0; {install}")
    } else {
        format!(
            "command -v mise >/dev/null || exit 0; (trap '' HUP; {install}) >/dev/null 2>&1 </dev/null &"
        )
    };
    // What is downloaded is large, and a server that sends nothing is no reason to wait for ever.
    let status = Command::new("timeout")
        .args(["--foreground", "--kill-after=10", TOOLS_LIMIT])
        .arg(find("banger-vm-exec")?)
        .args(env.iter().map(|entry| format!("--env={entry}")))
        .args(["--no-tty", &format!("--workdir={dir}"), vm.as_str(), "--", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("cannot run 'banger-vm-exec'")?;
    if waits && status.code() == Some(124) {
        return Err(Error::failed(format!(
            "mise did not install the tools in VM '{vm}' within an hour"
        ))
        .hint("'--no-bootstrap' goes on without them"));
    }
    if waits && !status.success() && status.code() != Some(127) {
        return Err(Error::failed(format!("mise could not install the tools in VM '{vm}'"))
            .hint(format!(
                "'banger vm exec {vm} -- sh -c 'cat ${{XDG_CACHE_HOME:-~/.cache}}/banger/mise.log'' says why"
            )));
    }
    Ok(())
}
