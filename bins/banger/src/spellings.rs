//! Words of other tools for what banger's programs do. All of it is data: a program of the name that
//! was typed, anybody's, comes first.

/// What is typed for a command, and the command. With more words behind it the last row of a word
/// counts; alone, or with options only, the first.
pub(crate) const SPELLINGS: &[(&str, &str)] = &[
    ("vm workspace", "workspace"),
    ("run", "vm run"),
    ("create", "vm create"),
    ("exec", "vm exec"),
    ("ssh", "vm ssh"),
    ("shell", "vm ssh"),
    ("ls", "vm list"),
    ("list", "vm list"),
    ("ps", "vm list"),
    ("rm", "vm delete"),
    ("delete", "vm delete"),
    ("start", "vm start"),
    ("stop", "vm stop"),
    ("restart", "vm restart"),
    ("kill", "vm kill"),
    ("pause", "vm pause"),
    ("unpause", "vm resume"),
    ("resume", "vm resume"),
    ("wait", "vm wait"),
    ("logs", "vm logs"),
    ("cp", "vm cp"),
    ("copy", "vm cp"),
    ("port", "vm ports"),
    ("ports", "vm ports"),
    ("stats", "vm stats"),
    ("top", "vm stats"),
    ("set", "vm set"),
    ("show", "vm show"),
    ("inspect", "vm show"),
    ("info", "doctor"),
    ("info", "vm show"),
    ("pull", "image pull"),
    ("import", "image import"),
    ("images", "image list"),
    ("rmi", "image delete"),
    ("prune", "vm prune"),
];

/// The same for the second word of a group: `vm ls`, `image rm`, `kernel inspect`.
pub(crate) const IN_GROUP: &[(&str, &str)] = &[
    ("ls", "list"),
    ("ps", "list"),
    ("rm", "delete"),
    ("remove", "delete"),
    ("inspect", "show"),
    ("info", "show"),
    ("shell", "ssh"),
    ("copy", "cp"),
    ("top", "stats"),
    ("port", "ports"),
    ("unpause", "resume"),
];

/// What has no one meaning here, and what to type instead.
pub(crate) const ANSWERS: &[(&str, &str)] = &[
    (
        "launch",
        "'banger vm run -d --name NAME' starts a new VM, 'banger vm run' goes into it as well",
    ),
    (
        "up",
        "'banger vm run PATH' starts a new VM with a repository in it, 'banger vm start VM' one that is there",
    ),
    ("down", "'banger vm stop VM' shuts one down, 'banger vm delete VM' removes it"),
    ("halt", "'banger vm stop VM' shuts a VM down"),
    ("destroy", "'banger vm delete VM' removes a VM"),
    (
        "status",
        "'banger vm show VM' tells how a VM stands, 'banger ps' lists all, 'banger workspace status VM' tells of work",
    ),
    (
        "attach",
        "'banger vm ssh VM' or 'banger vm exec VM' opens a shell, 'banger vm logs -f VM' follows the console",
    ),
    (
        "console",
        "'banger vm logs -f VM' follows the console, 'banger vm start --console VM' makes the kernel talk",
    ),
    ("login", "'docker login REGISTRY' or 'podman login REGISTRY' stores a login that banger uses"),
    ("logout", "'docker logout REGISTRY' or 'podman logout REGISTRY' removes a login"),
    (
        "build",
        "build with docker, podman or buildah, then 'docker save IMAGE | banger image pull docker-archive:- --name NAME'",
    ),
    ("push", "banger pushes no images; 'docker push' or 'skopeo copy' does"),
    ("tag", "'banger image pull --name NAME REFERENCE' gives an image a name of its own"),
    ("load", "'banger image pull docker-archive:PATH' takes what 'docker save' wrote"),
    ("save", "an image comes from a registry or a file, and can be pulled from there again"),
    ("export", "'banger workspace export VM' brings work out, 'banger vm cp VM:PATH .' files"),
    ("commit", "a VM does not become an image; 'banger workspace export VM' brings its work out"),
    ("snapshot", "there are no snapshots; 'banger vm stop VM' keeps all that is on its disks"),
    (
        "clone",
        "a VM is not copied; 'banger vm create --image IMAGE' makes another of the same image",
    ),
    ("rename", "a VM keeps its name; 'banger vm create --name NAME' makes one of another"),
    (
        "mount",
        "nothing of the host is mounted: 'banger vm run PATH' takes a repository in, 'banger vm cp' files",
    ),
    ("umount", "nothing of the host is mounted"),
    (
        "volume",
        "nothing of the host is mounted: 'banger vm run PATH' takes a repository in, 'banger vm cp' files",
    ),
    (
        "network",
        "each VM has a network of its own; 'banger vm run --net none' has none, '--publish' opens ports",
    ),
    ("compose", "a VM is a whole machine: docker and its compose run inside, 'banger vm run'"),
    ("history", "'banger image show IMAGE' tells what is known of an image"),
    (
        "search",
        "look for images in the registry's own pages; 'banger image pull REFERENCE' takes any",
    ),
    (
        "install",
        "'cargo xtask install' installs banger; in a VM: 'banger vm exec VM -- apt-get install PACKAGE'",
    ),
    ("upgrade", "install a newer banger over this one; VMs that run go on"),
    ("update", "install a newer banger over this one; VMs that run go on"),
    (
        "completion",
        "'cargo xtask install' puts the completion of bash, zsh and fish where the shells look for it",
    ),
    (
        "config",
        "the settings are in ~/.config/banger/config.toml; 'banger doctor' shows them, 'banger ssh-config' writes those of ssh",
    ),
    ("system", "'banger df' shows what takes room, 'banger doctor' what the host lacks"),
    ("container", "VMs are 'banger vm': 'banger ps' lists them"),
    ("instance", "VMs are 'banger vm': 'banger ps' lists them"),
];
