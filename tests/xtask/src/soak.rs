//! `soak NAME`: tests that otherwise try a selection try everything, or for long.

use crate::{
    Result, build,
    run::{self, cargo, say},
    setup,
};
use std::time::Duration;

/// Tests that are soaked: the package, its program of tests, names of tests.
type Tests = (&'static str, &'static str, &'static [&'static str]);

/// The flows whose names begin so.
const fn flows(tests: &'static [&'static str]) -> Tests {
    ("banger-tests", "flows", tests)
}

/// What can be soaked: its name, its tests, how long each program of tests may take.
const SOAKS: &[(&str, &[Tests], Duration)] = &[
    (
        "first-command",
        &[flows(&["network::the_first_command_of_a_fresh_debian_installs_a_package"])],
        Duration::from_hours(1),
    ),
    ("kill", &[flows(&["survive::kill::"])], Duration::from_hours(2)),
    ("fault", &[flows(&["survive::fault::"])], Duration::from_hours(2)),
    ("load", &[flows(&["survive::load::"])], Duration::from_mins(20)),
    ("images", &[flows(&["images::"])], Duration::from_mins(40)),
    ("ways", &[flows(&["ways::"])], Duration::from_hours(1)),
    ("nested", &[flows(&["nested::"])], Duration::from_hours(1)),
    ("nested-flows", &[flows(&["nested::"])], Duration::from_hours(2)),
    (
        "model",
        &[
            flows(&["survive::model::"]),
            ("banger-workspace", "model", &[]),
            flows(&["workspace::every_sort_of_repository"]),
        ],
        Duration::from_hours(1),
    ),
];

pub(crate) fn run(name: &str) -> Result {
    let Some((_, all, limit)) = SOAKS.iter().find(|(known, ..)| *known == name) else {
        let names: Vec<&str> = SOAKS.iter().map(|(known, ..)| *known).collect();
        return Err(format!("no soak '{name}': there are {}", names.join(", ")));
    };
    setup::run()?;
    build::run()?;
    for (package, program, tests) in *all {
        // One after the other and with what they say: figures are what a soak is run for.
        let mut command = cargo();
        command.args(["test", "--package", package, "--test", program, "--"]);
        command.args(*tests).args(["--nocapture", "--test-threads", "1"]);
        command.env("BANGER_SOAK", name).env("CI", "true");
        say(&format!("soak {name}: {package}, at most {} minutes", limit.as_secs() / 60));
        run::run(&format!("soak {name}"), &mut command, *limit)?;
    }
    Ok(())
}
