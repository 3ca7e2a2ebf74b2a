//! `install`: a release build into PREFIX/bin and PREFIX/libexec/banger.

use crate::{
    Result, build,
    run::{self, cargo, root, say, target},
};
use std::{fs, path::Path, time::Duration};

pub(crate) fn run(prefix: &str) -> Result {
    let prefix = Path::new(prefix);
    run::run(
        "building for release",
        cargo().args(["build", "--release", "--workspace", "--quiet"]),
        Duration::from_hours(1),
    )?;
    build::guest("release", &prefix.join("libexec/banger"))?;
    let bin = prefix.join("bin");
    make(&bin)?;
    let mut count = 0;
    for program in folders(&root().join("bins"))? {
        if !program.starts_with("banger-guest-") {
            build::replace(&target().join("release").join(&program), &bin.join(&program))?;
            count += 1;
        }
    }
    for (from, to) in [
        ("banger.bash", "share/bash-completion/completions/banger"),
        ("_banger", "share/zsh/site-functions/_banger"),
        ("banger.fish", "share/fish/vendor_completions.d/banger.fish"),
    ] {
        let to = prefix.join(to);
        make(to.parent().expect("because it has folders"))?;
        build::replace(&root().join("completions").join(from), &to)?;
    }
    say(&format!("{count} programs are in '{}'", bin.display()));
    Ok(())
}

fn make(dir: &Path) -> Result {
    fs::create_dir_all(dir).map_err(|error| format!("cannot make '{}': {error}", dir.display()))
}

fn folders(dir: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(dir).map_err(|error| format!("cannot list '{}': {error}", dir.display()))?;
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}
