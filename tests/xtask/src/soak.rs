//! `soak NAME`: tests that otherwise try a selection try everything, or for long.

use crate::{
    Result, build,
    run::{self, cargo, say},
    setup,
};
use std::time::Duration;

/// What can be soaked: its name, the tests' names, how long it may take.
const SOAKS: &[(&str, &[&str], Duration)] = &[
    (
        "first-command",
        &["network::the_first_command_of_a_fresh_debian_installs_a_package"],
        Duration::from_hours(1),
    ),
    ("kill", &["survive::kill::"], Duration::from_hours(2)),
    ("fault", &["survive::fault::"], Duration::from_hours(2)),
    ("load", &["survive::load::"], Duration::from_mins(20)),
    ("images", &["images::"], Duration::from_mins(40)),
    ("nested", &["nested::"], Duration::from_hours(1)),
    ("model", &["survive::model::"], Duration::from_hours(1)),
];

pub(crate) fn run(name: &str) -> Result {
    let Some((_, tests, limit)) = SOAKS.iter().find(|(known, ..)| *known == name) else {
        let names: Vec<&str> = SOAKS.iter().map(|(known, ..)| *known).collect();
        return Err(format!("no soak '{name}': there are {}", names.join(", ")));
    };
    setup::run()?;
    build::run()?;
    // One after the other and with what they say: figures are what a soak is run for.
    let mut command = cargo();
    command.args(["test", "--package", "banger-tests", "--test", "flows", "--"]);
    command.args(*tests).args(["--nocapture", "--test-threads", "1"]);
    command.env("BANGER_SOAK", "true").env("CI", "true");
    say(&format!("soak {name}: at most {} minutes", limit.as_secs() / 60));
    run::run(&format!("soak {name}"), &mut command, *limit)
}
