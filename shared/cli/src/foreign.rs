//! Options and words of other tools that mean nothing here, and what to type in their place.

use banger_doc::shell_word;
use clap::{
    Command,
    error::{ContextKind, ContextValue, ErrorKind},
};

const NOT_MOUNTED: &str = "nothing of the host is mounted: a PATH of 'banger vm run' takes a repository in, 'banger vm cp' files, 'banger workspace export' brings work out";
const OWN_KERNEL: &str = "a VM has a kernel of its own, in which root may do everything";

/// Options of whatever makes a VM, as they are typed, and what to type instead.
const OF_A_NEW_VM: &[(&[&str], &str)] = &[
    (&["-v", "--volume", "--mount", "--tmpfs", "--volumes-from"], NOT_MOUNTED),
    (
        &["--entrypoint"],
        "the image's Entrypoint starts with the VM; what comes behind '--' runs beside it",
    ),
    (
        &["--label", "-l", "--annotation"],
        "VMs have no labels; '--name' names one, and 'banger ps' lists them",
    ),
    (
        &["--hostname", "-h", "--domainname"],
        "the guest's host name is the VM's name: '--name NAME'",
    ),
    (&["--env-file"], "'env $(cat FILE) COMMAND' behind '--', or '--env NAME' for each of them"),
    (
        &["--pull"],
        "an image is pulled once; 'banger image pull REFERENCE' asks whether there is a newer one",
    ),
    (
        &[
            "--privileged",
            "--cap-add",
            "--cap-drop",
            "--security-opt",
            "--userns",
            "--pid",
            "--ipc",
        ],
        OWN_KERNEL,
    ),
    (&["--gpus", "--device"], "devices of the host are not passed into VMs"),
    (
        &["--restart"],
        "a VM runs until it is stopped; 'banger vm start VM' starts it after the host did",
    ),
    (
        &["--add-host", "--dns", "--dns-search"],
        "names are looked up by the host; '/etc/hosts' in the guest takes others",
    ),
    (
        &["--link", "--network-alias", "--ip"],
        "VMs do not see each other; '--publish' opens a port on the host, '--allow-host' lets a guest reach the host's",
    ),
    (&["--stop-timeout"], "'banger vm stop --timeout SECONDS VM' says how long a guest may take"),
    (&["--ulimit", "--shm-size", "--sysctl"], OWN_KERNEL),
    (&["--read-only"], "what a VM changes is on disks of its own; '--rm' removes them afterwards"),
    (
        &["--cloud-init"],
        "'banger vm run -- COMMAND' sets a guest up; file_sync in config.toml copies files",
    ),
    (&["--arch"], "'banger image pull --platform PLATFORM' takes another processor's image"),
];

/// Options of any program.
const OPTIONS: &[(&[&str], &str)] = &[
    (
        &["--filter"],
        "'jq' picks what is wanted: --format json | jq 'select(.status == \"running\")'",
    ),
    (
        &["-o", "--output"],
        "'--format json' prints JSON, one document a line, '--format table' a table",
    ),
    (&["--no-trunc"], "a table is cut where the terminal ends; '--format json' has all"),
];

/// Says what to type instead of an option that no program knows, or of a word too many.
pub(crate) fn answer(error: &clap::Error, command: &Command) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidArg) else { return None };
    let named = command.get_arguments().any(|arg| arg.get_long() == Some("name"));
    if !typed.starts_with('-') {
        let has_words = command.get_positionals().any(|arg| !arg.is_last_set());
        return (named && !has_words)
            .then(|| format!("a name is given with '--name {}'", shell_word(typed)));
    }
    let option = typed.split('=').next().unwrap_or(typed);
    OPTIONS
        .iter()
        .chain(OF_A_NEW_VM.iter().filter(|_| named))
        .find(|(options, _)| options.contains(&option))
        .map(|(_, answer)| (*answer).to_owned())
}
