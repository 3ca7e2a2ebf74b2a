//! Coming out of a VM that runs on.

use crate::call::CALLED;
use banger_doc::Name;
use std::process::Command;

/// Returns what a person is told who comes out of a VM: that it runs on, and what to type next.
/// `back` is the command that goes into it again.
pub fn runs_on(vm: &Name, back: &str) -> String {
    format!(
        "VM '{vm}' runs on; 'banger vm {back} {vm}' goes back into it, 'banger vm stop {vm}' stops it, \
         'banger vm delete {vm}' then deletes it"
    )
}

/// Tells a program that its caller talks to the person, and says what becomes of the VM.
pub fn speak_for(command: &mut Command) -> &mut Command {
    command.env(CALLED, "1")
}

/// Says whether a command is a shell that somebody works in, by what people type.
pub fn is_shell(words: &[impl AsRef<str>]) -> bool {
    const SHELLS: [&str; 8] = ["sh", "bash", "dash", "ash", "zsh", "fish", "ksh", "su"];
    let Some((program, rest)) = words.split_first() else { return true };
    let name = program.as_ref().rsplit('/').next().unwrap_or_default();
    // With a script, or a line of one, it ends by itself.
    let is_option = |word: &str| word.starts_with('-') && word != "-c";
    SHELLS.contains(&name) && rest.iter().all(|word| is_option(word.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_what_somebody_works_in() {
        for words in [&[][..], &["sh"], &["/bin/bash", "-l"], &["su", "-"]] {
            assert!(is_shell(words), "{words:?}");
        }
        for words in [&["sh", "-c", "make"][..], &["bash", "x.sh"], &["make"], &["zshy"]] {
            assert!(!is_shell(words), "{words:?}");
        }
    }
}
