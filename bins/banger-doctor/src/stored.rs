//! The state: readable and valid, with room left.

use crate::{fail, pass, warn};
use banger_cli::human_bytes;
use banger_config::Config;
use banger_doc::{Check, Document, Kind, Name, Result};
use banger_state::{Shelf, State, place};
use nix::sys::statvfs::statvfs;
use std::{collections::BTreeMap, path::Path};

/// Less room than this fails; an image and its disks do not fit.
const LITTLE: u64 = 1 << 30;
/// Less room than this warns.
const SCARCE: u64 = 10 << 30;

/// VMs that one line names.
const NAMED: usize = 5;

pub(crate) fn checks() -> Vec<Check> {
    let mut checks = vec![room()];
    match State::open_read_only() {
        Err(error) if error.kind() == Kind::NotFound => {
            checks.push(pass("state", "none yet; the first pull or run makes it"));
        }
        Err(error) => {
            let remedy = error.hint_text().unwrap_or("look at its owner and rights").to_owned();
            checks.push(fail("state", error.chain(), remedy));
        }
        Ok(state) => checks.extend(contents(&state)),
    }
    checks
}

/// Looks at the file system the state lies on, or will lie on.
fn room() -> Check {
    let Ok(root) = State::location() else {
        return fail("space", "there is no place for the state", "set BANGER_STATE");
    };
    let there = root.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    match statvfs(there) {
        Err(error) => warn(
            "space",
            format!("cannot look at '{}': {error}", there.display()),
            "check its rights",
        ),
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size();
            let message = format!("{} free at '{}'", human_bytes(free), root.display());
            let remedy = "'banger df' shows what takes room; 'banger vm prune' and 'banger image prune' free some";
            match free {
                0..LITTLE => fail("space", message, remedy),
                LITTLE..SCARCE => warn("space", message, remedy),
                _ => pass("space", message),
            }
        }
    }
}

fn contents(state: &State) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut bad = Vec::new();
    // VMs first: what they need was there before them, and stays as long as they do.
    let vms = read_all(&state.vms(), "VM", &mut bad);
    let images = read_all(&state.images(), "image", &mut bad);
    let kernels = read_all(&state.kernels(), "kernel", &mut bad);
    for image in &images {
        if !state.base_disk(image).is_file() && state.images().has(&image.name) {
            bad.push(format!("image '{}' has lost its disk", image.name));
        }
    }
    for kernel in &kernels {
        let file = state.kernels().folder(&kernel.name).join(place::KERNEL_FILE);
        if !file.is_file() && state.kernels().has(&kernel.name) {
            bad.push(format!("kernel '{}' has lost its file", kernel.name));
        }
    }
    let mut lost: BTreeMap<(&str, &Name), Vec<&Name>> = BTreeMap::new();
    for vm in &vms {
        // One that another program deleted meanwhile needs nothing.
        if !state.vms().has(&vm.name) {
            continue;
        }
        if !images.iter().any(|image| image.name == vm.image) {
            lost.entry(("image", &vm.image)).or_default().push(&vm.name);
        }
        if !kernels.iter().any(|kernel| kernel.name == vm.kernel) {
            lost.entry(("kernel", &vm.kernel)).or_default().push(&vm.name);
        }
        match state.vm(&vm.name).and_then(|folder| folder.view()) {
            Err(error) if error.kind() != Kind::NotFound => bad.push(error.chain()),
            _ => {}
        }
    }
    if bad.is_empty() && lost.is_empty() {
        checks.push(pass(
            "state",
            format!(
                "{}, {} and {} at '{}', all valid",
                count(images.len(), "image"),
                count(kernels.len(), "kernel"),
                count(vms.len(), "VM"),
                state.root().display()
            ),
        ));
    }
    checks.extend(bad.into_iter().map(|what| {
        fail("state", what, "delete its folder and make it anew, or bring back what it lacks")
    }));
    for ((what, name), users) in lost {
        let mut words: Vec<String> = users.iter().take(NAMED).map(|vm| format!("'{vm}'")).collect();
        if users.len() > NAMED {
            words.push(format!("{} more", users.len() - NAMED));
        }
        checks.push(fail(
            "state",
            format!("{what} '{name}' is not here, but needed by {}", words.join(", ")),
            format!("'banger {what} pull' or 'banger {what} import' brings it back by this name"),
        ));
    }
    let litter: Vec<_> = [state.images().litter(), state.kernels().litter(), state.vms().litter()]
        .into_iter()
        .filter_map(Result::ok)
        .flatten()
        .collect();
    if !litter.is_empty() {
        checks.push(warn(
            "litter",
            format!("{} folders were left half made by programs that were killed", litter.len()),
            "banger gc",
        ));
    }
    checks.extend(ready(state));
    checks
}

fn read_all<D: Document>(shelf: &Shelf<D>, what: &str, bad: &mut Vec<String>) -> Vec<D> {
    let names: Vec<Name> = match shelf.names() {
        Ok(names) => names,
        Err(error) => {
            bad.push(error.chain());
            return Vec::new();
        }
    };
    let mut documents = Vec::new();
    for name in names {
        match shelf.get(&name) {
            Ok(document) => documents.push(document),
            // Deleted at this moment.
            Err(_) if !shelf.folder(&name).exists() => {}
            Err(error) => bad.push(format!("{what} '{name}' is not valid: {}", error.chain())),
        }
    }
    documents
}

/// Says whether the default image and kernel are here; the first run brings them otherwise.
fn ready(state: &State) -> Vec<Check> {
    let config = Config::load().unwrap_or_default();
    let kernel: Option<Name> =
        config.default_kernel.clone().or_else(|| banger_config::DEFAULT_KERNEL.parse().ok());
    let image = Name::from_lossy(config.image());
    let say = |name: &str, there: bool| {
        pass(name, if there { "is here" } else { "is pulled by the first run" })
    };
    vec![
        say("image-ready", image.is_some_and(|name| state.images().has(&name))),
        say("kernel-ready", kernel.is_some_and(|name| state.kernels().has(&name))),
    ]
}

fn count(number: usize, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {what}{s}")
}
