//! Landlock (landlock(7)): a second fence, kept by the kernel whatever the mounts are.

use banger_doc::{Context, Result};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, Scope,
};

/// The newest rules this is written for; an older kernel gets those it knows, one without Landlock
/// none.
const RULES: ABI = ABI::V6;

/// Allows the calling process what it sees, as it sees it, and no signal to others, no abstract
/// socket of others, no connection over TCP unless it `connects`. What it sees is a path below `/` and
/// whether it may be written.
pub(crate) fn restrict<'a>(
    seen: impl IntoIterator<Item = (&'a str, bool)>,
    connects: bool,
) -> Result<()> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RULES))
        .and_then(|rules| {
            if connects { Ok(rules) } else { rules.handle_access(AccessNet::from_all(RULES)) }
        })
        .and_then(|rules| rules.scope(Scope::from_all(RULES)))
        .and_then(Ruleset::create)
        .context("no rules can be made")?;
    for (inside, writable) in seen {
        let path = PathFd::new(format!("/{inside}")).context("a file is not there")?;
        let mut access = AccessFs::from_read(RULES);
        if writable {
            access = AccessFs::from_all(RULES) & !AccessFs::Execute;
        }
        rules = rules.add_rule(PathBeneath::new(path, access)).context("a rule is refused")?;
    }
    rules.restrict_self().map(drop).context("the rules are refused")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write, net::TcpStream, process::Command};

    /// Asks the kernel for the version of its rules (landlock(7)).
    fn version() -> i64 {
        // SAFETY: with this flag the call only answers.
        unsafe { nix::libc::syscall(nix::libc::SYS_landlock_create_ruleset, 0, 0, 1) }
    }

    /// Run by itself in a guest whose kernel has Landlock: a process cannot take it off again, so
    /// what is restricted is a copy of this test.
    #[test]
    fn only_what_is_seen_can_be_reached() {
        if version() < 1 {
            let _ = writeln!(std::io::stderr(), "SKIPPED: this kernel has no Landlock");
            return;
        }
        if std::env::var_os("BANGER_RESTRICTED").is_some() {
            return restricted();
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["read", "written", "hidden"] {
            fs::write(dir.path().join(name), "words").unwrap();
        }
        let this = std::env::current_exe().unwrap();
        let mut copy = Command::new(this);
        copy.args(["--exact", "confine::tests::only_what_is_seen_can_be_reached", "--nocapture"]);
        copy.env("BANGER_RESTRICTED", "1").current_dir(dir.path());
        let output = copy.output().unwrap();
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{words}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(words.contains("1 passed"), "{words}");
        let _ = writeln!(std::io::stdout(), "Landlock version {} was tried", version());
    }

    fn restricted() {
        let dir = std::env::current_dir().unwrap();
        let inside = |name: &str| dir.join(name).to_str().unwrap()[1..].to_owned();
        let (read, written) = (inside("read"), inside("written"));
        restrict([(read.as_str(), false), (written.as_str(), true)], false).unwrap();
        assert_eq!(fs::read_to_string("read").unwrap(), "words");
        assert!(fs::write("read", "changed").is_err());
        fs::write("written", "changed").unwrap();
        assert!(fs::read("hidden").is_err());
        assert!(fs::read_dir("/etc").is_err());
        assert!(fs::write("new", "").is_err());
        assert!(Command::new("/bin/true").status().is_err());
        // Nobody listens there: refused by the rules, where the kernel has this one, or by nobody.
        let error = TcpStream::connect("127.0.0.1:9").unwrap_err();
        let by_rules = error.kind() == std::io::ErrorKind::PermissionDenied;
        assert_eq!(by_rules, version() >= 4, "{error}");
    }
}
