//! Makes a VM's repository a remote of git's (gitremote-helpers(7)): git runs this for addresses that begin
//! with `banger::`.
//!
//! Reads the guest's files through the VM's channel; writes `refs/banger/` of the repository that git works
//! on, the guest's objects and references on a push, and into `vms/NAME/workspaces/` and `kept/` what then
//! counts as brought out. Its stdin and stdout are git's.

use banger_channel::files::Files;
use banger_cli::Out;
use banger_config::Config;
use banger_doc::{Context, Error, Kind, Name, Result};
use banger_state::{State, VmFolder};
use banger_workspace::{Keeper, Offer, Push, budget, files_of, folder};
use std::{
    collections::BTreeSet, env, fmt::Write as _, fs, io::Write as _, path::PathBuf,
    process::ExitCode, time::Duration,
};

/// The longest line that git says.
const MAX_LINE: usize = 64 << 10;
/// The most references that git may ask for at once.
const MAX_BATCH: usize = 100_000;
/// How long the guest may take.
const TIME: Duration = Duration::from_hours(1);

/// Make a VM's repository a remote of git's
///
/// Git runs it: 'git remote add web banger::web', then 'git fetch web' and 'git push web HEAD:topic'.
#[derive(Debug, clap::Parser)]
#[command(name = "git-remote-banger", version)]
struct Args {
    /// What git calls the remote
    #[arg(value_name = "REMOTE")]
    remote: String,
    /// The VM, and after a colon where its workspace lies
    #[arg(value_name = "VM[:PATH]")]
    address: String,
}

fn main() -> ExitCode {
    banger_cli::main_raw(run)
}

/// What git asked for so far.
struct Talk<'a> {
    vm: &'a VmFolder,
    dir: PathBuf,
    keeper: Keeper,
    trusted: Vec<PathBuf>,
    is_quiet: bool,
    is_dry: bool,
    says_format: bool,
    /// What the guest has, once it was asked.
    offer: Option<Offer>,
    /// Lines of one sort, of which an empty one is the end.
    batch: Vec<(String, String)>,
    /// Files that go once references name what was fetched.
    keeps: Vec<PathBuf>,
    /// Whether the repository that git works on is to keep what it has in the end.
    is_fetch: bool,
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let (name, path) = args.address.split_once(':').unwrap_or((&args.address, ""));
    let name: Name = name.parse().map_err(|error: Error| {
        error.or_hint(
            "'banger::VM' is the address of a VM, 'banger::VM:/guest/path' of one workspace",
        )
    })?;
    let state = State::open()?;
    let vm = state.vm(&name)?;
    let dir =
        folder(&vm, Some(path).filter(|path| !path.is_empty())).map_err(|error| {
            match error.kind() {
                Kind::Usage => error.hint(format!(
                    "'git remote set-url {} banger::{}:/GUEST/PATH' says which workspace",
                    vm.name(),
                    vm.name()
                )),
                _ => error,
            }
        })?;
    let mut talk = Talk {
        keeper: Keeper::of(&state, &vm)?,
        vm: &vm,
        dir,
        trusted: Config::load()?.git_dirs(),
        is_quiet: false,
        is_dry: false,
        says_format: false,
        offer: None,
        batch: Vec::new(),
        keeps: Vec::new(),
        is_fetch: false,
    };
    while let Some(line) = line()? {
        if !talk.answer(&line, out)? {
            break;
        }
    }
    talk.keep(out);
    Ok(())
}

impl Talk<'_> {
    /// Does what one line asks for; says whether another may follow.
    fn answer(&mut self, line: &str, out: &mut Out) -> Result<bool> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "" => match std::mem::take(&mut self.batch) {
                batch if batch.is_empty() => return Ok(false),
                batch if batch[0].0 == "fetch" => self.fetch(&batch, out)?,
                batch => self.push(&batch, out)?,
            },
            "capabilities" => say("fetch\noption\npush\nobject-format\n\n")?,
            "option" => say(self.option(rest))?,
            "list" => self.list(rest == "for-push", out)?,
            "fetch" | "push" if self.batch.len() < MAX_BATCH => {
                self.batch.push((verb.to_owned(), rest.to_owned()));
            }
            "fetch" | "push" => {
                return Err(Error::usage(format!(
                    "git asked for more than {MAX_BATCH} references"
                )));
            }
            _ => {
                let line = line.escape_debug();
                return Err(Error::usage(format!("git asked for '{line}', which is not known"))
                    .hint("git runs this program: 'git fetch banger::VM'"));
            }
        }
        Ok(true)
    }

    fn option(&mut self, option: &str) -> &'static str {
        match option.split_once(' ') {
            Some(("verbosity", level)) => self.is_quiet = level == "0",
            Some(("progress", _)) => {}
            Some(("dry-run", value)) => self.is_dry = value == "true",
            Some(("object-format", "true")) => self.says_format = true,
            _ => return "unsupported\n",
        }
        "ok\n"
    }

    fn files(&self) -> Result<Files<'_>> {
        Ok(files_of(self.vm, budget(self.vm, TIME)?))
    }

    /// Asks the guest, once.
    fn offer(&mut self, out: &Out) -> Result<&mut Offer> {
        if self.offer.is_none() {
            let offer = Offer::make(&self.dir, &self.files()?)?;
            if !self.is_quiet {
                offer.notes.iter().for_each(|text| out.note(&format!("note: {text}")));
            }
            self.offer = Some(offer);
        }
        Ok(self.offer.as_mut().expect("because it was made above"))
    }

    fn list(&mut self, for_push: bool, out: &Out) -> Result<()> {
        self.is_fetch |= !for_push;
        let says_format = self.says_format;
        let offer = self.offer(out)?;
        let mut answer = String::new();
        if says_format {
            let _ = writeln!(answer, ":object-format {}", offer.object_format());
        }
        match offer.head() {
            Some(branch) if branch.starts_with("refs/") => {
                let _ = writeln!(answer, "@{branch} HEAD");
            }
            Some(oid) => {
                let _ = writeln!(answer, "{oid} HEAD");
            }
            None => {}
        }
        for (name, oid) in offer.refs() {
            let _ = writeln!(answer, "{oid} {name}");
        }
        say(&(answer + "\n"))
    }

    /// Gives the repository that git works on what it asks for.
    fn fetch(&mut self, batch: &[(String, String)], out: &Out) -> Result<()> {
        let wanted = batch.iter().map(|(_, rest)| rest.split(' ').next().unwrap_or_default());
        let wanted: BTreeSet<String> = wanted.map(ToOwned::to_owned).collect();
        let trusted = self.trusted.clone();
        let keeps = self.offer(out)?.fetch(&work_tree(), &trusted, &wanted)?;
        // Git removes it when its references name what came.
        let lock = keeps.iter().map(|path| format!("lock {}\n", path.display()));
        say(&(lock.collect::<String>() + "\n"))?;
        self.keeps.extend(keeps);
        Ok(())
    }

    /// Has the repository that git works on keep what it has of the guest's, which then counts as brought out.
    fn keep(&mut self, out: &Out) {
        let Some(offer) = self.offer.as_mut().filter(|_| self.is_fetch) else { return };
        if env::var_os("GIT_DIR").is_none() {
            return;
        }
        if let Err(error) = offer.keep(&work_tree(), &self.trusted, &self.keeper) {
            // What was fetched is there all the same.
            out.note(&format!(
                "note: what was fetched does not count as brought out of VM '{}': {}",
                self.vm.name(),
                error.chain()
            ));
        }
        for path in &self.keeps {
            let _ = fs::remove_file(path);
        }
    }

    fn push(&mut self, batch: &[(String, String)], out: &Out) -> Result<()> {
        self.vm.must_run()?;
        let asked: Vec<Push> =
            batch.iter().map(|(_, text)| Push::parse(text)).collect::<Result<_>>()?;
        let files = files_of(self.vm, budget(self.vm, TIME)?);
        let (trusted, is_dry) = (self.trusted.clone(), self.is_dry);
        let offer = self.offer(out)?;
        let files = offer.writing(files);
        let done = offer.push(&files, &work_tree(), &trusted, &asked, is_dry)?;
        let mut answer = String::new();
        for (push, done) in asked.iter().zip(done) {
            let _ = match done {
                Ok(_) => writeln!(answer, "ok {}", push.to),
                Err(why) => writeln!(answer, "error {} {why}", push.to),
            };
        }
        say(&(answer + "\n"))
    }
}

/// Returns a directory of the work tree that git works on; git runs helpers in it, but for a clone, which is
/// made elsewhere.
fn work_tree() -> PathBuf {
    let git_dir = env::var_os("GIT_DIR").map(PathBuf::from).unwrap_or_default();
    match git_dir.parent().filter(|_| git_dir.file_name().is_some_and(|name| name == ".git")) {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => ".".into(),
    }
}

fn say(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("cannot write to git")
}

/// Reads a line and nothing after it: that may be somebody else's to read.
fn line() -> Result<Option<String>> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        // A descriptor of its own has no buffer.
        let count =
            nix::unistd::read(std::io::stdin(), &mut byte).context("cannot read from git")?;
        match byte[0] {
            _ if count == 0 && line.is_empty() => return Ok(None),
            _ if count == 0 => break,
            b'\n' => break,
            other => line.push(other),
        }
        if line.len() > MAX_LINE {
            return Err(Error::usage("git said a line that is too long"));
        }
    }
    String::from_utf8(line).map(Some).context("git said a line that is no UTF-8")
}
