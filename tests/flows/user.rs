//! Guests whose image names a user: workspace, copies, keys, tools and disks are that user's.

use crate::{
    fixture,
    oci::{Pack, layout},
    tape::{Entry, archive},
};
use banger_tests::{Answer, Sandbox, have, program};
use serde_json::json;
use std::{fs, path::Path, process::Command, time::Duration};

/// A user as a container for development has one, with git.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ndev:x:1000:1000:Dev:/home/dev:/bin/sh\n";
const SHADOW: &str = "root:*::0:::::\ndev:!::0:99999:7:::\n";

struct World {
    sandbox: Sandbox,
}

impl World {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        sandbox.set_limit(Duration::from_mins(5));
        fixture::kernel(&sandbox);
        let world = Self { sandbox };
        let base = fixture::busybox_layer(&world.sandbox.dir());
        let mut dev = vec![
            Entry::file("etc/passwd", 0o644, PASSWD),
            Entry::file("etc/group", 0o644, "root:x:0:\ndev:x:1000:\ndocker:x:998:dev\n"),
            Entry::file("etc/shadow", 0o640, SHADOW).owner(0, 42),
            Entry::dir("home", 0o755),
            Entry::dir("home/dev", 0o775).owner(1000, 1000),
            Entry::file("home/dev/from-the-image", 0o600, "image home\n").owner(1000, 1000),
        ];
        dev.extend(with_libraries("/usr/bin/git"));
        world.image("dev", &base, &dev, "dev");
        let mise = "#!/bin/sh\necho mise $* in $PWD, data in $XDG_DATA_HOME\n";
        let tools = [Entry::file("bin/mise", 0o755, mise)];
        world.image("nameless", &base, &tools, "10001");
        world
    }

    /// Makes an image of two layers with a user.
    fn image(&self, name: &str, base: &Path, entries: &[Entry], user: &str) {
        let layer = self.sandbox.dir().join(format!("{name}.tar"));
        fs::write(&layer, archive(entries)).expect("a layer");
        let to = self.sandbox.dir().join(name);
        let layers = [(base.to_path_buf(), Pack::None), (layer, Pack::None)];
        layout(&to, &layers, &json!({ "Env": ["PATH=/bin:/sbin:/usr/bin"], "User": user }));
        self.typed(&format!("banger image pull oci:{} --name {name}", to.display())).ok();
    }

    /// Runs a line of a shell on the host.
    fn typed(&self, line: &str) -> Answer {
        let beside = program("banger");
        let beside = beside.parent().expect("a folder").display().to_string();
        self.sandbox.raw_with("/bin/bash", &["-euo", "pipefail", "-c", line], |command| {
            command.env("PATH", format!("{beside}:{}", banger_tests::SYSTEM_PATH));
        })
    }

    fn says(&self, line: &str) -> String {
        self.typed(line).ok().text()
    }

    /// Runs a script in a guest, as its user.
    fn inside(&self, vm: &str, script: &str) -> String {
        self.says(&format!("banger vm exec {vm} -- sh -c '{script}'"))
    }
}

/// Returns a program of this machine with the libraries it needs.
pub(crate) fn with_libraries(program: &str) -> Vec<Entry> {
    let listed = fixture::tool(Command::new("ldd").arg(program), Duration::from_secs(20));
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    let files = libraries.chain([program]).map(|path| {
        let bytes = fs::read(path).expect("a library");
        Entry::file(path.trim_start_matches('/'), 0o755, bytes)
    });
    files.collect()
}

#[test]
fn a_guest_is_its_users() {
    if !have("git") {
        return;
    }
    let world = World::new();
    world.sandbox.config("[[file_sync]]\nhost = '~/rc'\nguest = '~/.config/rc'\nmode = '0640'\n");
    fs::write(world.sandbox.home().join("rc"), "from the host\n").expect("a file");
    world
        .typed(
            "git config --global user.name A; git config --global user.email a@b; \
             git init -q -b main repo; cd repo; mkdir pkg; echo a >pkg/a; echo 'node 22' >.tool-versions; \
             git add .; git commit -qm one",
        )
        .ok();
    somebody_with_a_home(&world);
    somebody_without_a_name(&world);
}

fn somebody_with_a_home(world: &World) {
    let script = "echo new >x; id -u; pwd; echo $HOME $MINE $IS_SANDBOX; git status --porcelain; \
                  git config user.name";
    let ran = world.typed(&format!(
        "banger vm run --name web --image dev --memory 256M -e MINE=yes ./repo/pkg -- sh -c '{script}'"
    ));
    let words = "1000\n/home/dev/repo/pkg\n/home/dev yes 1\n?? pkg/x\nA\n";
    assert_eq!(ran.ok().text(), words, "{}", ran.all());
    // The work comes out, and news go in; all of it is the user's.
    world.says(
        "banger workspace export web | git -C repo apply; grep -qx new repo/pkg/x; rm repo/pkg/x",
    );
    world.inside("web", "rm x");
    world.says("echo news >>repo/pkg/a; banger workspace prepare web ./repo/pkg");
    assert_eq!(world.inside("web", "cat a; git status --porcelain"), "a\nnews\n M pkg/a\n");
    assert_eq!(world.inside("web", "find /home/dev ! -user dev"), "");
    // The work disk is there, with what the image had.
    let home = "cat ~/from-the-image; stat -c %a,%u ~ ~/.ssh ~/.ssh/authorized_keys ~/.config/rc; \
                grep -c \" /home/dev ext4\" /proc/mounts; id -G";
    assert_eq!(
        world.inside("web", home),
        "image home\n775,1000\n700,1000\n600,1000\n640,1000\n1\n1000 998\n"
    );
    let paths = world.says("banger vm stats web | jq -c '[.guest.disks[].path]'");
    assert_eq!(paths, "[\"/\",\"/home/dev\"]\n");
    let root = "stat -c %a,%u,%g /etc/shadow; grep dev: /etc/shadow; cat /run/banger/ssh/dev | wc -l; \
                grep -c \" /root \" /proc/mounts; cat /root/from-the-image";
    assert_eq!(
        world.typed(&format!("banger vm exec -u root -w / web -- sh -c '{root}'")).text(),
        "640,0,42\ndev:*::0:99999:7:::\n1\n0\nimage root\n"
    );
    let login = fs::read_to_string(world.sandbox.vm("web").join("ssh/login")).expect("a login");
    assert_eq!(login, "Host web.vm\n    User dev\n");
    // Copies are the user's, and root's where only root may write.
    world.says(
        "echo hi >f; banger vm cp f web:; banger vm cp f web:/etc/f; banger vm cp web:f back",
    );
    assert_eq!(world.inside("web", "stat -c %u ~/f /etc/f"), "1000\n0\n");
    world.inside("web", "ln -s /etc ~/evil");
    world.typed("banger vm cp f web:evil/passwd").fails(1, "denied");
    // Nothing of it moves with a stop, whatever happens to the home meanwhile.
    world.says("banger vm stop web; banger workspace status web --check || test $? = 4; banger vm start web");
    assert_eq!(
        world.inside("web", "pwd; id -un; cat a ~/f ~/from-the-image"),
        "/home/dev/repo/pkg\ndev\na\nnews\nhi\nimage home\n"
    );
    world.says("banger vm delete --force --lose-work web");
}

fn somebody_without_a_name(world: &World) {
    world
        .typed("banger vm run -d --bootstrap --name app --image nameless --memory 256M ./repo")
        .ok();
    let script = "touch y; id -u; pwd; echo $HOME $XDG_CACHE_HOME; stat -c %a,%u /workspace y; \
                  cat /workspace/.cache/banger/mise.log; cat /workspace/.config/rc; \
                  find /workspace ! -user 10001";
    assert_eq!(
        world.inside("app", script),
        "10001\n/workspace/repo\n/ /workspace/.cache\n755,10001\n644,10001\n\
         mise install in /workspace/repo, data in /workspace/.local/share\nfrom the host\n"
    );
    world.says("banger workspace export app | grep -q 'new file'");
    world.says("echo hi >f; banger vm cp f app:; test $(banger vm exec app -- stat -c %u /workspace/f) = 10001");
    // A home that is no place for work stays what `HOME` is, and a shell's.
    assert_eq!(world.says("echo pwd | banger vm exec -T -w / app"), "/\n");
    // Nobody without a name can log in: root can, and that is said.
    let ssh = world.typed("banger vm ssh app --timeout 1 -- true");
    ssh.fails(125, "user 10001 of the guest has no name in /etc/passwd: this is root");
    let login = fs::read_to_string(world.sandbox.vm("app").join("ssh/login")).expect("a login");
    assert_eq!(login, "Host app.vm\n    User root\n");
    world.says("banger vm delete --force --lose-work app");
}
