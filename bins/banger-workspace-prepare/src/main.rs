//! Puts a repository or a directory into a running VM.
//!
//! Reads the host's repository without changing a byte of it; writes the guest's files through the
//! VM's channel and the record in `vms/NAME/workspaces/ID/`.

use banger_cli::Out;
use banger_config::Config;
use banger_doc::{Error, Kind, Name, Result, Workspace, WorkspaceMode, WorkspacePlan};
use banger_state::{State, VmFolder};
use banger_workspace::{
    GUEST_PATH, Place, Wish, allowed_files, bring_to_its_place, budget, choose, dry_run, files_of,
    folder_at, is_gone, or_more_time, place_of, prepare, refused, root_of, trusted_before, user_of,
};
use std::{path::PathBuf, process::ExitCode, time::Duration};

/// Where the work of a guest's root lies.
const ROOT_HOME: &str = "/root";

/// Put a repository or a directory into a running VM
///
/// Tracked files go as they lie on the host, local edits and the state of the index included;
/// ignored files never go. A second prepare sends only what changed, and refuses to overwrite work
/// of the guest that was not exported.
#[derive(Debug, clap::Parser)]
#[command(name = "banger-workspace-prepare", version)]
struct Args {
    /// The VM
    #[arg(value_name = "VM")]
    vm: Name,
    /// The repository or directory, or a path inside a repository
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
    /// Where it goes in the guest [default: where it is already, else 'repo' below the user's home, else its own
    /// name there]
    #[arg(long, value_name = "DIR")]
    guest_path: Option<String>,
    /// Whose it is in the guest: user, uid, user:group or uid:gid [default: the guest's own user]
    #[arg(short, long, value_name = "USER", value_parser = banger_doc::parse_user)]
    user: Option<String>,
    /// How much of a repository goes: `shallow`, the last commits; `full_copy`, all of it with
    /// submodules
    #[arg(long, value_name = "MODE", default_value_t)]
    mode: WorkspaceMode,
    /// Make a branch of this name in the guest, and only there
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// What that branch begins at, instead of HEAD with the local edits
    #[arg(long, value_name = "REF", requires = "branch")]
    from: Option<String>,
    /// Take untracked files along that no rule ignores
    #[arg(long)]
    include_untracked: bool,
    /// Take these along too, whether untracked or ignored: a pattern as in '.gitignore'; may be repeated
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    include: Vec<String>,
    /// Leave behind what '--include' and '--include-untracked' took along before
    #[arg(long)]
    no_include: bool,
    /// Print what would go, and touch nothing; the VM need not run
    #[arg(long)]
    dry_run: bool,
    /// Overwrite work of the guest; move files aside that banger did not put there
    #[arg(short, long)]
    force: bool,
    /// A directory of git's outside the repository that it may lead to: a separate git directory, the target
    /// of a link, an alternate; may be repeated
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    trust_git_dir: Vec<PathBuf>,
    /// How long the guest may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: u64,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    if args.dry_run {
        let place = place(&args)?;
        let is_known = place.is_some();
        let wish = wish(&args, place.unwrap_or_else(|| usual(&args)))?;
        let vm = State::open_read_only().and_then(|state| state.vm(&args.vm)).ok();
        let folder = vm.map(|vm| folder_at(&vm, &wish.guest_path));
        let mut plan = dry_run(&wish, folder.as_deref())?;
        plan.guest_path = plan.guest_path.filter(|_| is_known);
        // Files of another commit are not those that lie here.
        if !plan.tools.is_empty() && args.from.is_none() {
            plan.tools_refused = refused(&root_of(&args.path)?, &plan.tools, &wish.allowed)?;
            plan.tools_allowed = plan.tools_refused.is_none();
        }
        plan.notes.iter().for_each(|note| out.note(&format!("note: {note}")));
        return out.put(&plan, listed);
    }
    let vm = State::open()?.vm(&args.vm)?;
    vm.must_run()?;
    let budget = budget(&vm, Duration::from_secs(args.timeout))?;
    let files_by =
        |user: Option<&str>| files_of(&vm, budget.clone()).by(user.unwrap_or_default(), false);
    let bring = |at: &Place| {
        let files = files_by(at.user.as_deref());
        let wish = wish(&args, at.clone())?;
        prepare(&folder_at(&vm, &at.guest_path), &files, &wish)
    };
    let done = if let Some(path) = &args.guest_path {
        bring(&named(&args, &vm, path))
    } else {
        let user = args.user.as_deref();
        let is_gone = |path: &str| is_gone(&files_by(user), path);
        bring_to_its_place(&vm, &args.path, user, || place_of(&vm, user), is_gone, bring)
    };
    let workspace = done.map_err(|error| {
        let error = or_more_time(error, &budget);
        let hint = "'--user root' writes what is root's, '--guest-path' names another place";
        if error.kind() == Kind::Failed { error.or_hint(hint) } else { error }
    })?;
    workspace.notes.iter().for_each(|note| out.note(&format!("note: {note}")));
    out.put(&workspace, |workspace| said(&args.vm, workspace))
}

/// Returns the place that was named; whose it is stays as it was unless somebody says otherwise.
fn named(args: &Args, vm: &VmFolder, path: &str) -> Place {
    let user = args.user.clone().or_else(|| user_of(vm, path));
    Place { guest_path: path.to_owned(), user }
}

/// Returns what is wished of a workspace at this place.
fn wish(args: &Args, at: Place) -> Result<Wish> {
    let state = State::open_read_only();
    let vm = state.as_ref().ok().and_then(|state| state.vm(&args.vm).ok());
    let before = vm.map(|vm| trusted_before(&vm, &args.path));
    let config = Config::load()?;
    let root = root_of(&args.path);
    let allowed = state.ok().zip(root.ok()).map(|(state, root)| allowed_files(&state, &root));
    Ok(Wish {
        vm: args.vm.to_string(),
        path: args.path.clone(),
        guest_path: at.guest_path,
        is_named: args.guest_path.is_some(),
        user: at.user,
        mode: args.mode,
        branch: args.branch.clone(),
        from: args.from.clone(),
        include_untracked: args.include_untracked,
        include: args.include.clone(),
        configured_include: config.workspace_include.clone(),
        no_include: args.no_include,
        force: args.force,
        trusted: args.trust_git_dir.iter().cloned().chain(before.unwrap_or_default()).collect(),
        configured: config.git_dirs(),
        allowed: allowed.unwrap_or_default(),
    })
}

/// Returns a place that stands for one that is not known.
fn usual(args: &Args) -> Place {
    Place { guest_path: GUEST_PATH.to_owned(), user: args.user.clone() }
}

/// Returns where it would go, if that can be told.
fn place(args: &Args) -> Result<Option<Place>> {
    let state = State::open_read_only().ok();
    let vm = state.as_ref().and_then(|state| state.vm(&args.vm).ok());
    if let Some(path) = &args.guest_path {
        let of_nobody = Place { guest_path: path.clone(), user: args.user.clone() };
        return Ok(Some(vm.map_or(of_nobody, |vm| named(args, &vm, path))));
    }
    let Some((state, vm)) = state.zip(vm) else { return Ok(None) };
    let home = || {
        home(args, &state, &vm).ok_or_else(|| Error::unavailable("only the guest knows its homes"))
    };
    let user = args.user.as_deref();
    let is_gone = |path: &str| {
        let budget = vm.must_run().and_then(|()| budget(&vm, Duration::from_secs(args.timeout)));
        let files = |budget| files_of(&vm, budget).by(user.unwrap_or_default(), false);
        budget.is_ok_and(|budget| is_gone(&files(budget), path))
    };
    match choose(&vm, &args.path, user, home, is_gone) {
        Err(error) if error.kind() == Kind::Unavailable => Ok(None),
        chosen => chosen.map(Some),
    }
}

/// Returns where a user's work lies, if that can be told: a guest that runs says it, root's home is known.
fn home(args: &Args, state: &State, vm: &VmFolder) -> Option<String> {
    if vm.must_run().is_ok() {
        return place_of(vm, args.user.as_deref()).ok();
    }
    let image =
        || Some(state.images().get(&vm.vm().ok()?.image).ok()?.config.user.unwrap_or_default());
    let user = args.user.clone().or_else(|| vm.spec().ok()?.user).or_else(image)?;
    matches!(user.split(':').next(), Some("" | "0" | "root")).then(|| ROOT_HOME.to_owned())
}

fn listed(plan: &WorkspacePlan) -> String {
    let mut lines: Vec<String> =
        plan.files.iter().map(|path| path.escape_debug().to_string()).collect();
    let to = plan
        .guest_path
        .as_ref()
        .map_or_else(|| "the home of the guest's user".to_owned(), |path| format!("'{path}'"));
    lines.push(format!(
        "{} files, {}, would go to {to} ({})",
        plan.files.len(),
        banger_cli::human_bytes(plan.size_bytes),
        plan.mode
    ));
    lines.join("\n")
}

fn said(vm: &Name, workspace: &Workspace) -> String {
    let (count, at) = (workspace.files, &workspace.guest_path);
    match count {
        1 => format!("{vm}: 1 file is in '{at}'"),
        _ => format!("{vm}: {count} files are in '{at}'"),
    }
}
