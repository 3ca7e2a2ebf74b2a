//! The first page: what people do with banger, on one screen of 24 lines and 80 columns. All of it is
//! data; a line whose program is not there is left out.

/// What people do, the commands for it as they are typed, and what they are for.
pub(crate) const PAGE: &[(&str, &[(&str, &str)])] = &[
    (
        "start",
        &[
            ("vm run [PATH]", "Make a VM, put a repository in it, open a shell"),
            ("vm exec VM", "Run a command or a shell in a VM"),
            ("vm ssh VM", "Open a shell in a VM over ssh"),
            ("vm cp FROM TO", "Copy files into a VM (VM:PATH) or out of it"),
        ],
    ),
    (
        "look",
        &[
            ("vm list", "List VMs; 'banger ps' does the same"),
            ("vm show VM", "Show all about a VM"),
            ("vm logs VM", "Print a VM's console"),
            ("vm ports", "Show what listens in VMs, and where on this host"),
        ],
    ),
    (
        "work",
        &[
            ("workspace prepare", "Put a repository into a VM that runs"),
            ("workspace status", "Show what changed in the VM and here since"),
            ("workspace export", "Bring the changes back as a patch"),
        ],
    ),
    (
        "end",
        &[
            ("vm stop VM", "Shut a VM down; 'vm start' starts it again"),
            ("vm delete VM", "Delete a VM and its disks"),
        ],
    ),
    (
        "images",
        &[
            ("image pull NAME", "Pull an image and make it a bootable disk"),
            ("image list", "List images"),
        ],
    ),
    ("host", &[("doctor", "Check this host, and say how to mend it")]),
];

/// Commands that programs call, and people hardly ever.
pub(crate) const PLUMBING: &[&str] = &["dns", "schema", "ssh-proxy", "vm read", "vm supervise"];

/// Returns the command of a line: the words before the first that stands for something.
pub(crate) fn command(typed: &str) -> String {
    let plain = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
    typed.split(' ').take_while(plain).collect::<Vec<_>>().join(" ")
}
