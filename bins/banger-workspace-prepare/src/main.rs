//! Puts a repository or a directory into a running VM.
//!
//! Reads the host's repository without changing a byte of it; writes the guest's files through the
//! VM's channel and the record in `vms/NAME/workspace/`.

use banger_cli::Out;
use banger_config::Config;
use banger_doc::{Kind, Name, Result, Workspace, WorkspaceMode, WorkspacePlan};
use banger_state::{State, place};
use banger_workspace::{
    GUEST_PATH, Wish, allowed_files, budget, dry_run, files_of, or_more_time, place_of, prepare,
    refused, root_of, trusted_before, usual_path,
};
use std::{path::PathBuf, process::ExitCode, time::Duration};

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
    /// Where it goes in the guest [default: 'repo' below the user's home]
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
        let usual = if args.guest_path.is_some() { None } else { usual(&args) };
        let is_known = args.guest_path.is_some() || usual.is_some();
        let wish = wish(&args, usual.unwrap_or_else(|| GUEST_PATH.to_owned()))?;
        let vm = State::open_read_only().and_then(|state| state.vm(&args.vm)).ok();
        let record = vm.map(|vm| vm.join(place::VM_WORKSPACE));
        let mut plan = dry_run(&wish, record.as_deref())?;
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
    let user = args.user.as_deref();
    let usual = match args.guest_path {
        Some(_) => String::new(),
        None => usual_path(&place_of(&vm, user)?),
    };
    let time = Duration::from_secs(args.timeout);
    let budget = budget(&vm, time)?;
    let files = files_of(&vm, budget.clone()).by(user.unwrap_or_default(), false);
    let done = prepare(&vm.join(place::VM_WORKSPACE), &files, &wish(&args, usual)?);
    let workspace = done.map_err(|error| {
        let error = or_more_time(error, &budget);
        let hint = "'--user root' writes what is root's, '--guest-path' names another place";
        if error.kind() == Kind::Failed { error.or_hint(hint) } else { error }
    })?;
    workspace.notes.iter().for_each(|note| out.note(&format!("note: {note}")));
    out.put(&workspace, |workspace| said(&args.vm, workspace))
}

/// Returns what is wished; `usual` is where it goes if nobody says.
fn wish(args: &Args, usual: String) -> Result<Wish> {
    let state = State::open_read_only();
    let vm = state.as_ref().ok().and_then(|state| state.vm(&args.vm).ok());
    let before = vm.map(|vm| trusted_before(&vm.join(place::VM_WORKSPACE), &args.path));
    let config = Config::load()?;
    let root = root_of(&args.path);
    let allowed = state.ok().zip(root.ok()).map(|(state, root)| allowed_files(&state, &root));
    Ok(Wish {
        vm: args.vm.to_string(),
        path: args.path.clone(),
        guest_path: args.guest_path.clone().unwrap_or(usual),
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

/// Returns where it would go, if that can be told: a guest that runs says it, root's home is known.
fn usual(args: &Args) -> Option<String> {
    let state = State::open_read_only().ok()?;
    let vm = state.vm(&args.vm).ok()?;
    if vm.must_run().is_ok() {
        return place_of(&vm, args.user.as_deref()).ok().map(|place| usual_path(&place));
    }
    let image =
        || Some(state.images().get(&vm.vm().ok()?.image).ok()?.config.user.unwrap_or_default());
    let user = args.user.clone().or_else(|| vm.spec().ok()?.user).or_else(image)?;
    matches!(user.split(':').next(), Some("" | "0" | "root")).then(|| GUEST_PATH.to_owned())
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
    format!("{vm}: {} files are in '{}'", workspace.files, workspace.guest_path)
}
