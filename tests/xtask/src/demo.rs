//! `demo`: from a fresh machine to a command in a real VM.

use crate::{
    Result, build,
    run::{self, say, target},
    setup,
};
use std::{fs, process::Command, time::Duration};

/// What the demonstration runs in the guest.
const IN_THE_GUEST: &str = "uname -a; cat /etc/os-release";

pub(crate) fn run() -> Result {
    setup::run()?;
    build::run()?;
    let state = target().join("demo");
    fs::create_dir_all(&state)
        .map_err(|error| format!("cannot make '{}': {error}", state.display()))?;
    say(&format!(
        "\nThe default image is built from the distribution's signed packages, once; the state of\n\
         this demonstration lies in {}. Then:\n\n\
         $ banger vm run --rm -- sh -c '{IN_THE_GUEST}'\n",
        state.display()
    ));
    run::run(
        "demonstration",
        Command::new(target().join("debug/banger"))
            .args(["vm", "run", "--rm", "--", "sh", "-c", IN_THE_GUEST])
            .env("BANGER_STATE", &state),
        Duration::from_mins(30),
    )
}
