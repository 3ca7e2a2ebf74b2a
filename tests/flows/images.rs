//! Images in the shape of those that people bring, by what their published Dockerfiles say: each boots, runs its
//! program as it wants to be run, takes a repository, and is the same after a stop and a start.
//!
//! Some of them are tried always, all of them by `cargo xtask soak images`. All have one static binary in the
//! place of what the real ones are for.

use crate::{
    fixture::{self, tool},
    guest::Guest,
    oci::{Pack, layout_for},
    survive::{say, soak},
    tape::{Entry, SYMLINK, archive},
};
use banger_tests::{Sandbox, program};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// A sort of image.
struct Shape {
    name: &'static str,
    /// Whether it is tried always.
    always: bool,
    entries: fn() -> Vec<Entry>,
    config: fn() -> Value,
    /// Processor and system in its configuration.
    platform: (&'static str, &'static str),
    /// What calls a shell in it.
    shell: &'static [&'static str],
    /// Number of the user that its commands run as.
    uid: &'static str,
    /// What its program says on the console.
    says: &'static str,
    /// Scripts in the guest, and what they print.
    asks: &'static [(&'static str, &'static str)],
}

const PATH: &str = "PATH=/usr/local/bin:/usr/bin:/bin:/sbin";
const SH: &[&str] = &["sh", "-c"];
const HERE: (&str, &str) = ("amd64", "linux");

/// What is so in every image, whoever asks.
const ALWAYS: &[(&str, &str)] = &[
    ("ls /proc/$$/fd; true", "0\n1\n2\n"),
    ("echo by name > /dev/stdout; echo by name > /dev/stderr", "by name\n"),
    ("ulimit -Sn; ulimit -Hn; ulimit -u", "1024\n524288\nunlimited\n"),
    ("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "0\n"),
    ("cat /proc/sys/net/ipv4/ping_group_range", "0\t2147483647\n"),
    (
        "stat -c '%a %F' /dev/net/tun /dev/fuse",
        "666 character special file\n666 character special file\n",
    ),
    ("stat -c %a /run/lock /dev/shm", "1777\n1777\n"),
];

const SHAPES: &[Shape] = &[
    Shape {
        name: "postgres",
        always: true,
        entries: || {
            let mut entries = base(&["postgres:x:999:999::/var/lib/postgresql:/bin/sh"]);
            entries.extend([
                Entry::dir("run", 0o755),
                Entry::dir("run/postgresql", 0o3777).owner(999, 999),
                Entry::file("run/app.conf", 0o644, "from the image\n"),
                Entry::link(SYMLINK, "var/run", "/run"),
                Entry::dir("var/lib", 0o755),
                Entry::dir("var/lib/postgresql", 0o1777).owner(999, 999),
                script(
                    "usr/local/bin/docker-entrypoint.sh",
                    "echo $$ > /var/run/postgresql/.s.PGSQL.5432.lock && echo ready as $(id -u): $* > /dev/stdout\n\
                     exec sleep 100000",
                ),
            ]);
            entries
        },
        config: || {
            json!({ "Env": [PATH, "PGDATA=/var/lib/postgresql/data"], "User": "postgres",
                "Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["postgres"], "StopSignal": "SIGINT",
                "ExposedPorts": { "5432/tcp": {} }, "Volumes": { "/var/lib/postgresql/data": {} } })
        },
        platform: HERE,
        shell: SH,
        uid: "999",
        says: "| ready as 999: postgres",
        asks: &[
            (
                "stat -c '%a %u %g' /run/postgresql; cat /var/run/app.conf",
                "3777 999 999\nfrom the image\n",
            ),
            ("[ -d /proc/$(cat /run/postgresql/.s.PGSQL.5432.lock) ] && echo lives", "lives\n"),
            (
                "httpd -p 80 -h /run && wget -q -O - http://127.0.0.1/app.conf; killall httpd",
                "from the image\n",
            ),
            ("{ echo forged > /dev/console; } 2>&1 | grep -c denied", "1\n"),
        ],
    },
    Shape {
        name: "mysql",
        always: false,
        entries: || {
            let mut entries = base(&["mysql:x:998:998::/home/mysql:/sbin/nologin"]);
            entries.extend([
                Entry::dir("var/run", 0o755),
                Entry::dir("var/run/mysqld", 0o1777).owner(998, 998),
                Entry::link(SYMLINK, "run", "var/run"),
                script(
                    "usr/local/bin/docker-entrypoint.sh",
                    "touch /run/mysqld/mysqld.pid && echo ready: $*\nexec sleep 100000",
                ),
            ]);
            entries
        },
        config: || {
            json!({ "Env": [PATH], "Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["mysqld"],
                "Volumes": { "/var/lib/mysql": {} } })
        },
        platform: HERE,
        shell: SH,
        uid: "0",
        says: "| ready: mysqld",
        asks: &[
            ("stat -c '%a %u' /run/mysqld /var/run/mysqld", "1777 998\n1777 998\n"),
            ("ls /var/run/mysqld", "mysqld.pid\n"),
        ],
    },
    Shape {
        name: "nginx-unprivileged",
        always: false,
        entries: || {
            let mut entries = base(&["nginx:x:101:101:nginx:/nonexistent:/bin/false"]);
            entries.extend([
                Entry::dir("var/log", 0o755),
                Entry::dir("var/log/nginx", 0o755).owner(101, 101),
                Entry::link(SYMLINK, "var/log/nginx/access.log", "/dev/stdout"),
                Entry::link(SYMLINK, "var/log/nginx/error.log", "/dev/stderr"),
                Entry::dir("www", 0o755),
                Entry::file("www/index.html", 0o644, "served on a low port\n"),
                script(
                    "docker-entrypoint.sh",
                    "echo access as $(id -u) >> /var/log/nginx/access.log\n\
                     echo error >> /var/log/nginx/error.log && echo both logs\n\
                     exec httpd -f -p 80 -h /www",
                ),
            ]);
            entries
        },
        config: || {
            json!({ "Env": [PATH], "User": "101", "Entrypoint": ["/docker-entrypoint.sh"],
                "Cmd": ["nginx", "-g", "daemon off;"], "StopSignal": "SIGQUIT" })
        },
        platform: HERE,
        shell: SH,
        uid: "101",
        says: "| both logs",
        asks: &[("wget -q -O - http://127.0.0.1/", "served on a low port\n")],
    },
    Shape {
        name: "node",
        always: false,
        entries: || {
            let mut entries = base(&["node:x:1000:1000::/home/node:/bin/sh"]);
            entries.extend([
                Entry::dir("home/node", 0o755).owner(1000, 1000),
                Entry::file("home/node/from-the-image", 0o600, "home\n").owner(1000, 1000),
                script(
                    "usr/local/bin/node",
                    "echo node $1 in $PWD as $(id -un); exec sleep 100000",
                ),
            ]);
            entries
        },
        config: || {
            json!({ "Env": [PATH], "User": "node", "WorkingDir": "/home/node/app",
                "Cmd": ["node", "server.js"] })
        },
        platform: HERE,
        shell: SH,
        uid: "1000",
        says: "| node server.js in /home/node/app as node",
        asks: &[("cat ~/from-the-image", "home\n")],
    },
    Shape {
        name: "devcontainer",
        always: false,
        entries: || {
            let mut entries = base(&["vscode:x:1000:1000::/home/vscode:/bin/sh"]);
            entries.extend([
                Entry::dir("home/vscode", 0o755).owner(1000, 1000),
                script("usr/local/bin/begin", "echo begun; exec sleep 100000"),
            ]);
            entries
        },
        config: || {
            json!({ "Env": [PATH], "User": "vscode", "Cmd": ["begin"],
                "Labels": { "devcontainer.metadata": "[{\"remoteUser\":\"vscode\"}]" } })
        },
        platform: HERE,
        shell: SH,
        uid: "1000",
        says: "| begun",
        asks: &[("touch ~/x && stat -c %U ~/x", "vscode\n")],
    },
    Shape {
        name: "linuxserver",
        always: true,
        entries: || {
            let mut entries =
                base(&["abc:x:911:911::/config:/bin/false", "ann:x:1001:1001::/home/ann:/bin/sh"]);
            entries.extend([
                Entry::dir("home/ann", 0o755).owner(1001, 1001),
                Entry::dir("config", 0o755).owner(911, 911),
                script(
                    "init",
                    "[ $$ -eq 1 ] || { echo \"s6-overlay-suexec: fatal: can only run as pid 1\"; exit 100; }\n\
                     [ \"$(tr '\\0' ' ' < /proc/1/cmdline)\" = '/bin/sh /init ' ] && echo services begin\n\
                     mount -t tmpfs none /mnt && echo seen > /mnt/file\n\
                     trap 'exit 0' TERM; sleep 100000 & wait",
                ),
                Entry::dir("mnt", 0o755),
            ]);
            entries
        },
        config: || json!({ "Env": [PATH, "S6_KEEP_ENV=1"], "Entrypoint": ["/init"] }),
        platform: HERE,
        shell: SH,
        uid: "0",
        says: "| services begin",
        asks: &[
            // The machine is whole: its own first process, and what is mounted there is seen.
            ("cat /run/banger/init /proc/1/comm; echo; cat /mnt/file", "minimalinit\n\nseen\n"),
            // Overlays stack in all the places where engines of containers keep their layers.
            (
                "mkdir -p /a && for d in /var/lib/containers /var/lib/rancher /var/lib/docker \
                 /home/ann/.local/share/containers; do mkdir -p $d/u $d/w && \
                 mount -t overlay overlay -o lowerdir=/a,upperdir=$d/u,workdir=$d/w /a && \
                 umount /a && echo $d; done; stat -c %u /home/ann/.local/share",
                "/var/lib/containers\n/var/lib/rancher\n/var/lib/docker\n/home/ann/.local/share/containers\n1001\n",
            ),
        ],
    },
    Shape {
        name: "jib",
        always: false,
        entries: || {
            let mut entries = base(&[]);
            entries.push(script("usr/bin/java", "echo java $1 in $PWD; exec sleep 100000"));
            entries
        },
        config: || {
            json!({ "Env": [PATH], "WorkingDir": "/srv/app/work", "User": "65532:65532",
                "Entrypoint": ["java", "-cp", "@/app/jib-classpath-file", "app.Main"] })
        },
        platform: HERE,
        shell: SH,
        uid: "65532",
        says: "| java -cp in /srv/app/work",
        asks: &[("stat -c '%a %u' /srv/app/work", "755 0\n")],
    },
    Shape {
        name: "nix",
        always: true,
        entries: || {
            let store = "nix/store/0c1v2-busybox/bin";
            vec![
                Entry::dir("nix", 0o755),
                Entry::dir("nix/store", 0o755),
                Entry::dir("nix/store/0c1v2-busybox", 0o555),
                Entry::dir(store, 0o555),
                Entry::file(&format!("{store}/busybox"), 0o555, busybox()),
                Entry::link(SYMLINK, &format!("{store}/sh"), "busybox"),
            ]
        },
        config: || {
            json!({ "Env": ["PATH=/nix/store/0c1v2-busybox/bin"], "WorkingDir": "/data",
                "Cmd": ["sh", "-c", "busybox echo built in $PWD; exec busybox sleep 100000"] })
        },
        platform: HERE,
        shell: &["/nix/store/0c1v2-busybox/bin/busybox", "sh", "-c"],
        uid: "0",
        says: "| built in /data",
        asks: &[("stat -c %a /data /tmp", "755\n1777\n")],
    },
    Shape {
        name: "ko",
        always: false,
        entries: || {
            vec![Entry::dir("ko-app", 0o755), Entry::file("ko-app/busybox", 0o555, busybox())]
        },
        config: || {
            json!({ "Env": ["PATH=/usr/local/bin:/ko-app", "KO_DATA_PATH=/var/run/ko"],
                "User": "65532:65532", "WorkingDir": "/home/nonroot",
                "Entrypoint": ["/ko-app/busybox", "sh", "-c", "busybox echo serving; exec busybox sleep 100000"] })
        },
        platform: HERE,
        shell: &["/ko-app/busybox", "sh", "-c"],
        uid: "65532",
        says: "| serving",
        asks: &[("stat -c '%a %u' /home/nonroot", "755 0\n")],
    },
    Shape {
        name: "bootc",
        always: true,
        entries: || {
            let mut entries: Vec<Entry> =
                ["usr", "usr/bin", "usr/lib", "usr/etc", "var", "sysroot", "etc"]
                    .iter()
                    .map(|path| Entry::dir(path, 0o755))
                    .collect();
            for (link, target) in [
                ("root", "var/roothome"),
                ("home", "var/home"),
                ("mnt", "var/mnt"),
                ("opt", "var/opt"),
                ("tmp", "sysroot/tmp"),
                ("bin", "usr/bin"),
                ("sbin", "usr/bin"),
                ("lib", "usr/lib"),
            ] {
                entries.push(Entry::link(SYMLINK, link, target));
            }
            entries.push(Entry::file("usr/bin/busybox", 0o755, busybox()));
            entries.extend(names("usr/bin"));
            entries.push(Entry::link(SYMLINK, "usr/bin/init", "busybox"));
            entries.extend([
                Entry::file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n"),
                Entry::file("etc/group", 0o644, "root:x:0:\n"),
                Entry::file("etc/inittab", 0o644, "::sysinit:/bin/echo machine begins\n"),
            ]);
            entries
        },
        config: || {
            json!({ "Env": [PATH], "Cmd": ["/sbin/init"],
                "Labels": { "containers.bootc": "1", "ostree.bootable": "1" } })
        },
        platform: HERE,
        shell: SH,
        uid: "0",
        // Said by the machine's init, not by a program of its own.
        says: "machine begins",
        asks: &[
            (
                "cat /run/banger/init; readlink /root; readlink /proc/1/exe",
                "busyboxvar/roothome\n/usr/bin/busybox\n",
            ),
            ("stat -c %a /var/roothome /sysroot/tmp", "700\n1777\n"),
            (
                "grep -c ' /var/roothome ' /proc/mounts; grep -v ^stages: /run/banger/boot.log",
                "1\n",
            ),
        ],
    },
    Shape {
        name: "s6",
        always: false,
        entries: || {
            let mut entries = base(&[]);
            entries.extend([
                script(
                    "usr/bin/s6-svscan",
                    "echo supervising $1 as process $$\ntrap 'exit 0' TERM; sleep 100000 & wait",
                ),
                script("entrypoint.sh", "exec s6-svscan /etc/s6"),
                // An image with one may end up there, whatever it begins with.
                script("init", "exit 1"),
            ]);
            entries
        },
        config: || json!({ "Env": [PATH], "Entrypoint": ["/entrypoint.sh"] }),
        platform: HERE,
        shell: SH,
        uid: "0",
        says: "| supervising /etc/s6 as process 1",
        asks: &[],
    },
    Shape {
        name: "systemd-as-a-dependency",
        always: true,
        entries: || {
            let mut entries = base(&[]);
            entries.extend([
                Entry::dir("usr/lib", 0o755),
                Entry::dir("usr/lib/systemd", 0o755),
                script("usr/lib/systemd/systemd", "exec sleep 100000"),
                script("app.sh", "echo the application runs; exec sleep 100000"),
            ]);
            entries
        },
        config: || json!({ "Env": [PATH], "Cmd": ["/app.sh"] }),
        platform: HERE,
        shell: SH,
        uid: "0",
        says: "| the application runs",
        asks: &[("grep -c -- '--init image web' /run/banger/boot.log", "1\n")],
    },
    Shape {
        name: "alloy",
        always: false,
        entries: || {
            let mut entries = base(&["alloy:x:473:473::/home/alloy:/sbin/nologin"]);
            entries.push(script("bin/alloy", "echo alloy $1; exec sleep 100000"));
            entries
        },
        config: || {
            json!({ "Env": [PATH], "User": "alloy", "Entrypoint": ["/bin/alloy"],
                "Cmd": ["run", "/etc/alloy/config.alloy"], "Volumes": { "/var/lib/alloy": null },
                "Labels": { "org.opencontainers.image.source": null } })
        },
        platform: ("", ""),
        shell: SH,
        uid: "473",
        says: "| alloy run",
        asks: &[],
    },
];

fn busybox() -> Vec<u8> {
    fs::read("/bin/busybox").expect("busybox-static")
}

/// Links by each name that the binary has but those of an init.
fn names(dir: &str) -> Vec<Entry> {
    let names = tool(Command::new("busybox").arg("--list"), Duration::from_secs(10));
    let used = names.lines().filter(|name| !matches!(*name, "busybox" | "init" | "linuxrc"));
    used.map(|name| Entry::link(SYMLINK, &format!("{dir}/{name}"), "busybox")).collect()
}

fn script(path: &str, text: &str) -> Entry {
    Entry::file(path, 0o755, format!("#!/bin/sh\n{text}\n"))
}

/// A distribution's tree without an init, and these users beside root.
fn base(users: &[&str]) -> Vec<Entry> {
    let mut entries: Vec<Entry> =
        ["bin", "etc", "home", "usr", "usr/bin", "usr/local", "usr/local/bin", "var"]
            .iter()
            .map(|path| Entry::dir(path, 0o755))
            .collect();
    entries.push(Entry::dir("tmp", 0o1777));
    entries.push(Entry::file("bin/busybox", 0o755, busybox()));
    entries.extend(names("bin"));
    let mut passwd = vec!["root:x:0:0:root:/root:/bin/sh".to_owned()];
    let mut group = vec!["root:x:0:".to_owned()];
    for user in users {
        let fields: Vec<&str> = user.split(':').collect();
        group.push(format!("{}:x:{}:", fields[0], fields[3]));
        passwd.push((*user).to_owned());
    }
    let (passwd, group) = (passwd.join("\n") + "\n", group.join("\n") + "\n");
    entries.push(Entry::file("etc/passwd", 0o644, passwd));
    entries.push(Entry::file("etc/group", 0o644, group));
    entries
}

/// Writes an image beside the sandbox's state; returns what pulls it.
fn image(dir: &Path, entries: &[Entry], config: &Value, platform: (&str, &str)) -> String {
    let tar = dir.join("image.tar");
    fs::write(&tar, archive(entries)).expect("a layer");
    let to = dir.join("image");
    layout_for(&to, &[(tar, Pack::Gzip)], config, platform);
    format!("oci:{}", to.display())
}

#[test]
fn images_in_the_shape_of_popular_ones_are_machines() {
    let tried: Vec<&'static Shape> = SHAPES.iter().filter(|shape| shape.always || soak()).collect();
    std::thread::scope(|scope| {
        // Two at a time: an emulated machine takes a processor.
        let halves = tried.chunks(tried.len().div_ceil(2));
        let threads: Vec<_> = halves.map(|half| scope.spawn(move || try_each(half))).collect();
        let failed: Vec<&str> =
            threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect();
        assert!(failed.is_empty(), "these do not live, see above: {}", failed.join(", "));
    });
}

/// Returns the names of those that fail.
fn try_each(shapes: &[&'static Shape]) -> Vec<&'static str> {
    let mut failed = Vec::new();
    for shape in shapes {
        let begun = Instant::now();
        if std::panic::catch_unwind(|| lives(shape)).is_err() {
            failed.push(shape.name);
        }
        say(&format!("{}: {:.1} s", shape.name, begun.elapsed().as_secs_f32()));
    }
    failed
}

fn lives(shape: &Shape) {
    let sandbox = Sandbox::new();
    sandbox.set_limit(Duration::from_mins(5));
    fixture::kernel(&sandbox);
    let reference = image(&sandbox.dir(), &(shape.entries)(), &(shape.config)(), shape.platform);
    let repo = sandbox.dir().join("repo");
    fs::create_dir(&repo).expect("a directory");
    fs::write(repo.join("hello"), "from the host\n").expect("a file");
    let guest = Guest::to_be(sandbox, shape.shell);
    let words = ["--name", "image", &reference];
    guest.run("image-pull", &words).ok();
    let mut words = vec!["--name", "web", "--image", "image", "--net", "none", "--memory", "128M"];
    words.extend(["--disk-size", "64M", "--overlay-size", "64M", "--vmm", "qemu"]);
    let repo = repo.to_str().expect("text").to_owned();
    words.extend([repo.as_str(), "--"]);
    words.extend(shape.shell);
    // busybox is there by one of its names, whatever else is missing.
    words.push("read line < hello; echo $line; echo made > made && read line < made && echo $line");
    let ran = guest.sandbox.raw(program("banger-vm-run"), &words);
    assert_eq!(ran.ok().text(), "from the host\nmade\n", "{}: {}", shape.name, ran.all());
    looks_right(&guest, shape);
    guest.run("vm-stop", &["web"]).ok();
    guest.run("vm-start", &["web"]).ok();
    // Made before the stop, in the workspace, where a command begins.
    let mut words = vec!["web", "--"];
    words.extend(shape.shell);
    words.push("read line < made && echo $line");
    let kept = guest.sandbox.raw(program("banger-vm-exec"), &words);
    assert_eq!(kept.text(), "made\n", "{}: {}", shape.name, kept.all());
    looks_right(&guest, shape);
    guest.run("vm-kill", &["web"]).ok();
}

fn looks_right(guest: &Guest, shape: &Shape) {
    let name = shape.name;
    says_on_the_console(guest, shape.says);
    let ask = |script: &str| {
        // The busybox of an image without a tree of links is found by its one name.
        let whole = format!(
            "for n in cat echo grep head id ls mkdir mount readlink stat tr umount wget; do \
             command -v $n > /dev/null || eval \"$n() {{ {} $n \\\"\\$@\\\"; }}\"; done; {script}",
            shape.shell[0]
        );
        let script = if shape.shell == SH { script } else { &whole };
        guest.script(script)
    };
    assert_eq!(ask("id -u").text().trim(), shape.uid, "{name}");
    for (script, wanted) in ALWAYS.iter().chain(shape.asks) {
        let answer = ask(script);
        assert_eq!(answer.text(), *wanted, "{name}: {script}: {}", answer.all());
    }
}

/// Waits until the console has a line.
fn says_on_the_console(guest: &Guest, wanted: &str) {
    let end = Instant::now() + Duration::from_mins(1);
    loop {
        let text = guest.sandbox.raw(program("banger-vm-logs"), &["web"]).text();
        if text.lines().any(|line| line.trim_end() == wanted) {
            return;
        }
        assert!(Instant::now() < end, "no '{wanted}' on the console:\n{text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An init of an image's own gets what the kernel gives a first process, its words, and a name for its end.
#[test]
fn an_init_of_an_images_own_speaks_and_its_end_is_explained() {
    let sandbox = Sandbox::new();
    sandbox.set_limit(Duration::from_mins(5));
    fixture::kernel(&sandbox);
    let mut entries = base(&["app:x:1000:1000::/home/app:/bin/sh"]);
    entries.push(Entry::dir("sbin", 0o755));
    entries.push(script(
        "sbin/init",
        "echo hello from $0 $*; echo on stderr >&2\nwhile [ ! -e /tmp/die ]; do sleep 0.1; done\necho bye >&2; exit 3",
    ));
    let config = json!({ "Env": [PATH], "Entrypoint": ["/sbin/init", "--"], "Cmd": ["x"] });
    let reference = image(&sandbox.dir(), &entries, &config, HERE);
    let guest = Guest::to_be(sandbox, SH);
    guest.run("image-pull", &["--name", "image", &reference]).ok();
    let mut words = vec!["--name", "web", "--image", "image", "--net", "none", "--memory", "128M"];
    words.extend(["--disk-size", "64M", "--overlay-size", "64M", "--vmm", "qemu"]);
    guest.run("vm-create", &words).ok();
    says_on_the_console(&guest, "hello from /sbin/init -- x");
    says_on_the_console(&guest, "on stderr");
    let three = "for n in 0 1 2; do readlink /proc/1/fd/$n; done; cat /run/banger/init";
    assert_eq!(guest.says(three), "/dev/console\n/dev/console\n/dev/console\nown");
    let forged = "echo '[    1.0] Kernel panic - not syncing: forged' > /dev/console";
    let answer = guest
        .sandbox
        .raw(program("banger-vm-exec"), &["-u", "app", "web", "--", "sh", "-c", forged]);
    answer.fails(1, "ermission denied");
    // Once the answer is out: the guest's end is the end of whoever asks.
    guest.says("(sleep 2; touch /tmp/die) > /dev/null 2>&1 < /dev/null &");
    guest.wait_for("error", Duration::from_mins(1));
    let exit = guest.view()["last_exit"].clone();
    let message = exit["message"].as_str().expect("a message");
    assert!(message.starts_with("the guest's kernel panicked: "), "{message}");
    assert!(message.contains("init ended with status 3, after it said: "), "{message}");
    assert!(message.ends_with("bye"), "{message}");
    let shown = exit["console_tail"].as_array().expect("lines");
    assert!(shown.iter().any(|line| line.as_str().is_some_and(|l| l.contains("Kernel panic"))));
}

/// What an image has in its home is whole in the guest, or there is no guest.
#[test]
fn what_does_not_fit_on_a_disk_is_refused_before_the_boot_or_ends_it() {
    let sandbox = Sandbox::new();
    sandbox.set_limit(Duration::from_mins(5));
    fixture::kernel(&sandbox);
    let mut entries = base(&[]);
    entries.push(Entry::dir("root", 0o700));
    for number in 0..24 {
        entries.push(Entry::file(&format!("root/model{number}"), 0o644, vec![number + 1; 1 << 20]));
    }
    entries.push(Entry::file("root/zz-last.sh", 0o755, "echo last\n"));
    let reference = image(&sandbox.dir(), &entries, &json!({ "Env": [PATH] }), HERE);
    let guest = Guest::to_be(sandbox, SH);
    guest.run("image-pull", &["--name", "image", &reference]).ok();
    let create = |size: &str| {
        let mut words = vec!["--name", "web", "--image", "image", "--net", "none", "--no-start"];
        words.extend([
            "--memory",
            "128M",
            "--overlay-size",
            "64M",
            "--vmm",
            "qemu",
            "--disk-size",
            size,
        ]);
        guest.run("vm-create", &words)
    };
    let refused = create("16M");
    refused.fails(2, "24.0 MiB in '/root', which do not fit on the work disk");
    let hint = refused.all();
    let size = hint.split("'--disk-size ").nth(1).and_then(|rest| rest.split('\'').next());
    create(size.expect("a size in the hint")).ok();
    assert!(!guest.folder().join("last-exit.json").exists());
    // A disk that nobody measured.
    let disk = guest.folder().join("work.ext4");
    let mut small = Command::new("/sbin/mkfs.ext4");
    small.args(["-q", "-F", "-m", "0"]).arg(&disk).arg("16M");
    let kept = guest.folder().join("kept");
    fs::rename(&disk, &kept).expect("the disk aside");
    tool(&mut small, Duration::from_mins(1));
    let failed = guest.run("vm-start", &["web"]);
    failed.fails(1, "what the image has in '/root' takes 25 MiB, more than the ");
    failed.fails(1, "'banger vm set --disk-size SIZE web' makes it larger");
    // The right one: nothing is cut, nothing is missing.
    fs::rename(&kept, &disk).expect("the disk in its place");
    guest.run("vm-start", &["web"]).ok();
    assert_eq!(guest.says("ls /root | wc -l; cat /root/model* | wc -c"), "25\n25165824\n");
    assert_eq!(guest.says("sh /root/zz-last.sh"), "last\n");
    guest.run("vm-kill", &["web"]).ok();
}
