//! What all of it comes to: whether VMs run here, and how.

use banger_doc::{Check, Outcome};

/// Without these no VM starts, whatever else is right.
const NEEDED: [&str; 5] = ["processor", "qemu", "e2fsck", "config", "space"];

/// Returns the worst outcome, and a sentence.
pub(crate) fn of(checks: &[Check]) -> (Outcome, String) {
    let named = |outcome: Outcome, what: &str| {
        let mut names: Vec<&str> = Vec::new();
        let mut count = 0;
        for check in checks.iter().filter(|check| check.outcome == outcome) {
            count += 1;
            if !names.contains(&check.name.as_str()) {
                names.push(&check.name);
            }
        }
        let s = if count == 1 { "" } else { "s" };
        (count > 0).then(|| format!("; {count} {what}{s}: {}", names.join(", ")))
    };
    let outcome_of = |name: &str| checks.iter().find(|check| check.name == name);
    let is_lacking =
        |name: &&str| outcome_of(name).is_some_and(|check| check.outcome == Outcome::Fail);
    let failures = named(Outcome::Fail, "failure");
    let warnings = named(Outcome::Warn, "warning");
    let has_kvm = outcome_of("kvm").is_some_and(|check| check.outcome == Outcome::Pass);
    let begin = if NEEDED.iter().any(is_lacking) {
        "VMs do not run here yet"
    } else if has_kvm {
        "VMs run here, with KVM"
    } else {
        "VMs run here, emulated in software: much slower than with KVM"
    };
    let worst = match (&failures, &warnings) {
        (Some(_), _) => Outcome::Fail,
        (None, Some(_)) => Outcome::Warn,
        (None, None) => Outcome::Pass,
    };
    let rest = match worst {
        Outcome::Pass => "; nothing is missing".to_owned(),
        _ => failures.into_iter().chain(warnings).collect(),
    };
    (worst, format!("{begin}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fail, info, pass, warn};

    #[test]
    fn the_verdict_says_whether_vms_run_and_what_is_wrong() {
        let qemu = pass("qemu", "x");
        let kvm = pass("kvm", "x");
        let says = |checks: &[Check]| of(checks);
        let good = says(&[qemu.clone(), kvm.clone(), info("firecracker", "x")]);
        assert_eq!(good, (Outcome::Pass, "VMs run here, with KVM; nothing is missing".to_owned()));
        let (worst, words) = says(&[qemu, warn("kvm", "x", "y"), warn("tun", "x", "y")]);
        assert_eq!(worst, Outcome::Warn);
        assert!(words.starts_with("VMs run here, emulated in software: much slower"));
        assert!(words.ends_with("; 2 warnings: kvm, tun"), "{words}");
        let lost = fail("state", "x", "y");
        let (worst, words) = says(&[kvm.clone(), lost.clone(), lost]);
        assert_eq!(worst, Outcome::Fail);
        assert_eq!(words, "VMs run here, with KVM; 2 failures: state");
        let (_, words) = says(&[kvm, fail("qemu", "x", "y"), warn("tun", "x", "y")]);
        assert_eq!(words, "VMs do not run here yet; 1 failure: qemu; 1 warning: tun");
    }
}
