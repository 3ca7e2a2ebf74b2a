//! Landlock (landlock(7)): a second fence round a VMM, kept by the kernel whatever its mounts are.

use crate::jail::Seen;
use banger_doc::{Context, Result};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, Scope,
};

/// The newest rules this is written for; an older kernel gets those it knows, one without Landlock
/// none.
const RULES: ABI = ABI::V6;

/// Allows the calling process what it sees, as it sees it, and no connection over TCP, no signal to
/// others, no abstract socket of others.
pub(crate) fn restrict(files: &[Seen]) -> Result<()> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RULES))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(RULES)))
        .and_then(|rules| rules.scope(Scope::from_all(RULES)))
        .and_then(Ruleset::create)
        .context("no rules can be made")?;
    for file in files {
        let path = PathFd::new(format!("/{}", file.inside)).context("a file is not there")?;
        let mut access = AccessFs::from_read(RULES);
        if file.writable {
            access = AccessFs::from_all(RULES) & !AccessFs::Execute;
        }
        rules = rules.add_rule(PathBeneath::new(path, access)).context("a rule is refused")?;
    }
    rules.restrict_self().map(drop).context("the rules are refused")
}
