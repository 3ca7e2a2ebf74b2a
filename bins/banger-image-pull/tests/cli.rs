//! The contract of `banger-image-pull`, against a real registry and real files.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

mod registry;
mod trouble;

use banger_tests::{Answer, Sandbox, have, write_program};
use registry::{OURS, Registry, layout, shell, three_layers};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-image-pull");

fn pull(sandbox: &Sandbox, args: &[&str]) -> Answer {
    sandbox.run(PROGRAM, args)
}

fn debugfs(sandbox: &Sandbox, image: &str, request: &str) -> String {
    let disk = sandbox.state().join("images").join(image).join("rootfs.ext4");
    let output =
        Command::new("/usr/sbin/debugfs").args(["-R", request]).arg(disk).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_clean(sandbox: &Sandbox, image: &str) {
    let disk = sandbox.state().join("images").join(image).join("rootfs.ext4");
    let output = Command::new("/usr/sbin/e2fsck").arg("-fn").arg(disk).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Fails if anything half made is left.
fn no_litter(sandbox: &Sandbox) {
    let images = fs::read_dir(sandbox.state().join("images")).unwrap().flatten();
    let litter: Vec<_> = images
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.') && name != ".lock")
        .collect();
    assert!(litter.is_empty(), "{litter:?}");
}

fn disk(sandbox: &Sandbox, image: &str) -> Vec<u8> {
    fs::read(sandbox.state().join("images").join(image).join("rootfs.ext4")).unwrap()
}

#[test]
fn an_image_of_a_registry_becomes_a_disk() {
    let sandbox = Sandbox::new();
    let Some(registry) = Registry::start(&sandbox) else { return };
    registry.push(&sandbox, &three_layers(&sandbox, "image"), "team/app:1.0");
    let reference = format!("{}/team/app:1.0", registry.host);

    let answer = pull(&sandbox, &[&reference, "--kernel-ref", "generic-6.12"]);
    let image = answer.document().clone();
    assert_eq!(image["schema"], "banger.image/1");
    assert_eq!(image["name"], "app-1-0");
    assert_eq!(image["source"], reference);
    assert_eq!(image["kernel"], "generic-6.12");
    assert_eq!(image["architecture"], OURS);
    assert_eq!(image["config"]["env"][0], "PATH=/opt/bin:/bin");
    assert_eq!(image["config"]["working_dir"], "/srv");
    assert_eq!(image["config"]["user"], "app");
    is_clean(&sandbox, "app-1-0");
    assert_eq!(debugfs(&sandbox, "app-1-0", "cat /etc/motd"), "two\n");
    assert!(debugfs(&sandbox, "app-1-0", "stat /bin/hello").contains("Mode:  04755"));
    assert!(!debugfs(&sandbox, "app-1-0", "ls /etc").contains("gone"));
    assert!(debugfs(&sandbox, "app-1-0", "stat /root").contains("Mode:  0700"));
    no_litter(&sandbox);

    // Again: nothing is downloaded, the answer is the same and quick.
    let blobs = registry.count_to(4, &["GET", "/blobs/"]);
    assert_eq!(blobs, 4);
    let quick = Duration::from_millis(50);
    let mut quickest = Duration::MAX;
    // What else runs on this machine holds many of them up.
    for _ in 0..100 {
        let again = pull(&sandbox, &[&reference]);
        assert_eq!(*again.document(), image);
        quickest = quickest.min(again.took);
        if quickest < quick {
            break;
        }
    }
    assert_eq!(registry.count(&["GET", "/blobs/"]), blobs);
    assert!(quickest < quick, "{quickest:?}");

    // Another name: from the cache, byte for byte the same disk.
    pull(&sandbox, &[&reference, "--name", "twin"]).ok();
    assert_eq!(registry.count(&["GET", "/blobs/"]), blobs);
    assert!(disk(&sandbox, "twin") == disk(&sandbox, "app-1-0"), "the disks differ");

    // By digest, which needs no registry once all is there.
    let digest = format!("{}/team/app@{}", registry.host, image["digest"].as_str().unwrap());
    assert_eq!(pull(&sandbox, &[&digest]).document()["digest"], image["digest"]);
    drop(registry);
    pull(&sandbox, &[&digest]).ok();
    pull(&sandbox, &[&reference]).fails(1, "connection refused");
}

#[test]
fn the_cache_is_a_layout_that_skopeo_reads() {
    let sandbox = Sandbox::new();
    let Some(registry) = Registry::start(&sandbox) else { return };
    registry.push(&sandbox, &three_layers(&sandbox, "image"), "app");
    let reference = format!("{}/app:latest", registry.host);
    pull(&sandbox, &[&reference]).ok();
    let cache = sandbox.state().join("cache/oci");
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(cache.join(name)).unwrap()).unwrap()
    };
    assert_eq!(read("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }));
    let index = read("index.json");
    let entry = &index["manifests"][0];
    let digest = entry["digest"].as_str().unwrap();
    let manifest = format!("blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap());
    let size = fs::metadata(cache.join(&manifest)).unwrap().len();
    assert_eq!(
        index,
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": read(&manifest)["mediaType"],
                "digest": digest,
                "size": size,
                "annotations": { "org.opencontainers.image.ref.name": reference },
            }],
        })
    );
    shell(
        &sandbox,
        &format!(
            "skopeo --insecure-policy copy --quiet oci:{}:{reference} oci:copy:latest",
            cache.display()
        ),
    );
    let copied = pull(&sandbox, &["oci:copy", "--name", "copied"]);
    assert_eq!(copied.document()["config"]["user"], "app");
    assert!(disk(&sandbox, "copied") == disk(&sandbox, "app"), "the disks differ");
}

#[test]
fn a_tag_that_moved_replaces_the_image_unless_vms_use_it() {
    let sandbox = Sandbox::new();
    let Some(registry) = Registry::start(&sandbox) else { return };
    registry.push(&sandbox, &three_layers(&sandbox, "first"), "app:1");
    let reference = format!("{}/app:1", registry.host);
    let first = pull(&sandbox, &[&reference]).document()["digest"].clone();
    let script = format!("mkdir -p a/etc; echo new > a/etc/motd; layer gzip a; image {OURS}");
    registry.push(&sandbox, &layout(&sandbox, "second", &script), "app:1");

    sandbox.plant_vm("web", "app-1", "generic-6.12");
    let answer = pull(&sandbox, &[&reference]);
    answer.fails(4, "image 'app-1' is used by 'web'");
    assert!(answer.stderr.contains("--name"));
    assert_eq!(debugfs(&sandbox, "app-1", "cat /etc/motd"), "two\n");

    fs::remove_dir_all(sandbox.vm("web")).unwrap();
    let second = pull(&sandbox, &[&reference]).document()["digest"].clone();
    assert_ne!(first, second);
    assert_eq!(debugfs(&sandbox, "app-1", "cat /etc/motd"), "new\n");
    no_litter(&sandbox);

    // The same name from elsewhere.
    let answer = pull(&sandbox, &["oci:first", "--name", "app-1"]);
    answer.fails(4, "image 'app-1' exists and comes from");
}

#[test]
fn the_image_for_the_platform_is_taken() {
    let sandbox = Sandbox::new();
    let Some(registry) = Registry::start(&sandbox) else { return };
    let script = format!(
        "mkdir -p a/etc b/etc; echo ours > a/etc/motd; echo other > b/etc/motd
         layer gzip b; image s390x; layer gzip a; image {OURS}; index"
    );
    registry.push(&sandbox, &layout(&sandbox, "multi", &script), "multi:1");
    let reference = format!("{}/multi:1", registry.host);
    assert_eq!(pull(&sandbox, &[&reference]).document()["architecture"], OURS);
    assert_eq!(debugfs(&sandbox, "multi-1", "cat /etc/motd"), "ours\n");
    let other = pull(&sandbox, &[&reference, "--platform", "linux/s390x", "--name", "other"]);
    assert_eq!(other.document()["architecture"], "s390x");
    assert_eq!(debugfs(&sandbox, "other", "cat /etc/motd"), "other\n");
    pull(&sandbox, &[&reference, "--platform", "linux/riscv64", "--name", "none"])
        .fails(1, "the image is not made for linux/riscv64, only for: linux/");
    pull(&sandbox, &[&reference, "--platform", "windows/amd64"]).fails(2, "is not a platform");
}

#[test]
fn layouts_and_archives_are_sources_too() {
    let sandbox = Sandbox::new();
    three_layers(&sandbox, "image");
    let of_layout = pull(&sandbox, &["oci:image:latest"]);
    assert_eq!(of_layout.document()["name"], "image");
    assert_eq!(debugfs(&sandbox, "image", "cat /etc/motd"), "two\n");
    is_clean(&sandbox, "image");
    pull(&sandbox, &["oci:image:other"]).fails(3, "has no image 'other'");
    pull(&sandbox, &["oci:nowhere"]).fails(1, "is not an OCI image layout");
    if !have("skopeo") {
        return;
    }
    // Docker's own format knows no zstd.
    let script = format!(
        "mkdir -p a/etc b/etc; echo lower > a/etc/motd; echo upper > b/etc/motd
         layer gzip a; layer gzip b; image {OURS}"
    );
    layout(&sandbox, "gzip", &script);
    shell(
        &sandbox,
        "skopeo --insecure-policy copy --quiet oci:gzip:latest docker-archive:saved.tar:team/app:2",
    );
    let saved = pull(&sandbox, &["docker-archive:saved.tar"]);
    assert_eq!(saved.document()["name"], "saved");
    assert_eq!(saved.document()["config"]["working_dir"], "/srv");
    assert_eq!(debugfs(&sandbox, "saved", "cat /etc/motd"), "upper\n");
    is_clean(&sandbox, "saved");
    let named = pull(&sandbox, &["docker-archive:saved.tar:docker.io/team/app:2"]);
    named.ok();
    assert_eq!(named.document()["name"], "app-2");
    shell(&sandbox, "gzip -c saved.tar >gz.tar.gz; zstd -qc saved.tar >zst.tar.zst");
    for name in ["gz.tar.gz", "zst.tar.zst"] {
        let packed = pull(&sandbox, &[&format!("docker-archive:{name}")]);
        assert_eq!(packed.document()["digest"], saved.document()["digest"]);
        let name = name.split('.').next().unwrap();
        assert_eq!(packed.document()["name"], name);
        assert_eq!(disk(&sandbox, name), disk(&sandbox, "saved"));
    }
    shell(&sandbox, "head -c 700 gz.tar.gz >cut.tar.gz; xz -kc saved.tar >packed.tar.xz");
    let answer = pull(&sandbox, &["docker-archive:cut.tar.gz"]);
    answer.fails(1, "cut off");
    assert!(!answer.stderr.contains("pull it again"), "{}", answer.stderr);
    pull(&sandbox, &["docker-archive:packed.tar.xz"]).ok();
    assert_eq!(disk(&sandbox, "packed"), disk(&sandbox, "saved"));
    fs::write(sandbox.dir().join("x.tar.bz2"), b"BZh91AY").unwrap();
    pull(&sandbox, &["docker-archive:x.tar.bz2"]).fails(1, "is compressed by bzip2");
    // From stdin, which a regular file can be as well.
    let bytes = fs::read(sandbox.dir().join("gz.tar.gz")).unwrap();
    let piped = sandbox.feed(PROGRAM, &["docker-archive:-", "--name", "piped"], &bytes);
    assert!(piped.ok().text().contains(r#""source":"docker-archive:-""#), "{}", piped.text());
    assert_eq!(disk(&sandbox, "piped"), disk(&sandbox, "saved"));
    sandbox.feed(PROGRAM, &["docker-archive:-"], &bytes).fails(2, "gives no name for the image");
    for kind in ["docker-archive", "oci-archive"] {
        let source = format!("{kind}:-");
        let try_it = |bytes: &[u8]| sandbox.feed(PROGRAM, &[&source, "--name", "none"], bytes);
        let answer = try_it(b"");
        answer.fails(1, "stdin is empty: no archive came");
        assert!(answer.stderr.contains(&format!("banger image pull {source} ")), "{answer:?}");
        let answer = try_it(b"BZh91AY");
        let hint = format!("'bzip2 -dc FILE | banger image pull {source} --name NAME'");
        assert!(answer.stderr.contains(&hint), "{answer:?}");
    }
    let answer = sandbox.feed(PROGRAM, &["oci-archive:-", "--name", "none"], &bytes);
    answer.fails(1, "is not an OCI image layout");
    let hint = "'banger image pull docker-archive:- --name NAME'";
    assert!(answer.stderr.contains(hint), "{answer:?}");
    let script = format!("{PROGRAM} docker-archive:- --name file <saved.tar");
    sandbox.run("/bin/sh", &["-c", &script]).ok();
    // The same in an archive of its own.
    shell(&sandbox, "tar -C gzip -cf o.tar . && tar -C image -czf many.tgz .");
    let layout = pull(&sandbox, &["oci-archive:o.tar"]);
    assert_eq!(layout.document()["name"], "o");
    pull(&sandbox, &["oci:gzip:latest"]).ok();
    assert_eq!(disk(&sandbox, "o"), disk(&sandbox, "gzip"));
    pull(&sandbox, &["oci-archive:many.tgz:latest"]).ok();
    assert_eq!(disk(&sandbox, "many"), disk(&sandbox, "image"));
    pull(&sandbox, &["oci-archive:many.tgz:other"]).fails(3, "has no image 'other'");
    pull(&sandbox, &["oci-archive:saved.tar", "--name", "no"])
        .fails(1, "is not an OCI image layout");
    no_litter(&sandbox);
    pull(&sandbox, &["docker-archive:none.tar"]).fails(1, "cannot read the archive");
    // What is for another word says so.
    shell(&sandbox, "mkdir -p r/bin r/etc; tar -C r -cf r.tar .");
    for (source, status, hint) in [
        ("docker-archive:o.tar", 1, "'banger image pull oci-archive:"),
        ("oci-archive:saved.tar", 1, "'banger image pull docker-archive:"),
        ("docker-archive:r.tar", 1, "'banger image import "),
        ("oci:o.tar", 2, "'oci-archive:"),
        ("oci-archive:gzip", 2, "'oci:"),
        ("./saved.tar", 2, "'docker-archive:./saved.tar' is what 'docker save' wrote"),
        ("saved.tar", 2, "'docker-archive:saved.tar' is what 'docker save' wrote"),
        ("./gzip", 2, "'oci:./gzip'"),
        ("oci:r", 1, "it has to hold 'oci-layout', 'index.json' and 'blobs'"),
    ] {
        let answer = pull(&sandbox, &[source, "--name", "wrong"]);
        answer.fails(status, "");
        assert!(answer.stderr.contains(hint), "{source}: {}", answer.stderr);
        assert!(!answer.stderr.contains("pull it again"), "{source}: {}", answer.stderr);
    }
    no_litter(&sandbox);
}

#[test]
fn what_cannot_be_pulled_is_said_in_one_sentence() {
    let sandbox = Sandbox::new();
    let Some(registry) = Registry::start(&sandbox) else { return };
    pull(&sandbox, &["Not a reference"]).fails(2, "is not an image reference");
    pull(&sandbox, &["app:1", "--name", "../x"]).fails(2, "is not a name");
    pull(&sandbox, &[&format!("{}/no/such:1", registry.host)]).fails(3, "no image");
    let wrong = format!("{}/app@sha256:{}", registry.host, "0".repeat(64));
    pull(&sandbox, &[&wrong]).fails(3, "no image");
    let answer = pull(&sandbox, &["registry.invalid/app"]);
    answer.fails(1, "cannot reach 'registry.invalid'");
    pull(&sandbox, &["127.0.0.1:1/app"]).fails(1, "connection refused");
    no_litter(&sandbox);
}

#[test]
fn a_layer_that_is_damaged_publishes_nothing() {
    let sandbox = Sandbox::new();
    let Some(registry) = Registry::start(&sandbox) else { return };
    registry.push(&sandbox, &three_layers(&sandbox, "image"), "app:1");
    // The registry's own file changes under its name.
    shell(
        &sandbox,
        "f=$(ls -S registry/docker/registry/v2/blobs/sha256/*/*/data | head -1); printf X | dd of=$f bs=1 seek=600 conv=notrunc status=none",
    );
    let answer = pull(&sandbox, &[&format!("{}/app:1", registry.host)]);
    answer.fails(1, "has the digest");
    assert!(!sandbox.state().join("images/app-1").exists());
    no_litter(&sandbox);

    // In a layout, too: content that does not fit its name, and a diff ID that is another's.
    let blobs = sandbox.dir().join("image/blobs/sha256");
    let largest = fs::read_dir(&blobs)
        .unwrap()
        .flatten()
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .unwrap();
    let mut bytes = fs::read(largest.path()).unwrap();
    bytes[600] ^= 1;
    fs::write(largest.path(), bytes).unwrap();
    pull(&sandbox, &["oci:image"]).fails(1, "is damaged");
    let script = format!(
        "mkdir a b; echo x > a/x; echo y > b/y; layer gzip a; diffs=${{diffs/sha256:?????/sha256:00000}}; image {OURS}"
    );
    layout(&sandbox, "liar", &script);
    pull(&sandbox, &["oci:liar"]).fails(1, "the image says");
    assert!(!sandbox.state().join("images/image").exists());
    no_litter(&sandbox);
}

#[test]
fn a_password_opens_and_a_wrong_one_is_said_to_be_wrong() {
    let sandbox = Sandbox::new();
    let Some(registry) = Registry::start_with_password(&sandbox) else { return };
    registry.push(&sandbox, &three_layers(&sandbox, "image"), "app:1");
    let reference = format!("{}/app:1", registry.host);
    let docker = sandbox.home().join(".docker");
    fs::create_dir_all(&docker).unwrap();
    let log_in = |pair: &str| {
        let text = format!(r#"{{"auths":{{"{}":{{"auth":"{pair}"}}}}}}"#, registry.host);
        fs::write(docker.join("config.json"), text).unwrap();
    };
    let answer = pull(&sandbox, &[&reference]);
    answer.fails(1, "or wants a login");
    assert!(answer.stderr.contains(&format!("'docker login {}'", registry.host)));
    log_in("dXNlcjp3cm9uZw==");
    pull(&sandbox, &[&reference]).fails(1, "does not let user 'user' read 'app'");
    log_in("nonsense%");
    pull(&sandbox, &[&reference]).fails(1, "is not base64");
    // What is wrong elsewhere in the file is said as that, and only if it has to do with this pull.
    fs::write(docker.join("config.json"), "{").unwrap();
    let answer = pull(&sandbox, &[&reference]);
    answer.fails(1, "cannot read the credentials in");
    assert!(answer.stderr.contains("or move it away and log in again"), "{}", answer.stderr);
    let text = format!(
        r#"{{"auths":{{"odd.example":{{"auth":5}},"{}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#,
        registry.host
    );
    fs::write(docker.join("config.json"), text).unwrap();
    pull(&sandbox, &[&reference]).ok();

    // A credential helper serves as well.
    let bin = sandbox.dir().join("bin");
    fs::create_dir(&bin).unwrap();
    let helper = bin.join("docker-credential-test");
    let script = "#!/bin/sh\nread server; [ \"$1\" = get ] && [ -n \"$server\" ] && \
                  echo '{\"ServerURL\":\"x\",\"Username\":\"user\",\"Secret\":\"secret\"}'\n";
    write_program(&helper, script);
    let text = format!(r#"{{"credHelpers":{{"{}":"test"}}}}"#, registry.host);
    fs::write(docker.join("config.json"), text).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    sandbox
        .with(PROGRAM, &[&reference, "--name", "helped"], |command| {
            command.env("PATH", path);
        })
        .ok();
}

#[test]
fn a_private_authority_is_trusted_when_it_is_named() {
    let sandbox = Sandbox::new();
    let Some(registry) = Registry::start_with_tls(&sandbox) else { return };
    registry.push(&sandbox, &three_layers(&sandbox, "image"), "app:1");
    let reference = format!("{}/app:1", registry.host);
    let answer = pull(&sandbox, &[&reference]);
    answer.fails(1, "cannot trust");
    assert!(answer.stderr.contains("SSL_CERT_FILE"));
    let authority = sandbox.dir().join("ca.crt");
    sandbox
        .with(PROGRAM, &[&reference], |command| {
            command.env("SSL_CERT_FILE", authority);
        })
        .ok();
    is_clean(&sandbox, "app-1");
}

/// A proxy that leads every CONNECT to one address; returns its own address and what it was asked.
fn proxy(target: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let (target, seen) = (target.clone(), Arc::clone(&seen));
            thread::spawn(move || {
                let mut reader = BufReader::new(client.try_clone().unwrap());
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                seen.lock().unwrap().push(line);
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                        break;
                    }
                }
                let Ok(server) = TcpStream::connect(&target) else { return };
                let mut client = client;
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let (mut back, mut forth) =
                    (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut back, &mut forth));
                let _ = std::io::copy(&mut reader, &mut { server });
            });
        }
    });
    (address, asked)
}

#[test]
fn a_proxy_is_gone_through_and_an_insecure_registry_must_be_named() {
    let sandbox = Sandbox::new();
    let Some(registry) = Registry::start(&sandbox) else { return };
    registry.push(&sandbox, &three_layers(&sandbox, "image"), "app:1");
    // A host that only the proxy can find, and that speaks no TLS.
    let (address, asked) = proxy(registry.host.clone());
    let through = |name: &str| {
        sandbox.with(PROGRAM, &["registry.invalid:5000/app:1", "--name", name], |command| {
            command.env("ALL_PROXY", &address);
        })
    };
    let answer = through("refused");
    answer.fails(1, "does not speak TLS");
    assert!(answer.stderr.contains("insecure_registries"));
    sandbox.config("insecure_registries = [\"registry.invalid:5000\"]\n");
    through("app").ok();
    let asked = asked.lock().unwrap();
    assert!(
        asked.iter().all(|line| line.starts_with("CONNECT registry.invalid:5000 ")),
        "{asked:?}"
    );

    // Loopback is reached directly, whatever the proxy.
    let reference = format!("{}/app:1", registry.host);
    sandbox
        .with(PROGRAM, &[&reference, "--name", "near"], |command| {
            command.env("ALL_PROXY", "http://127.0.0.1:1");
        })
        .ok();
}

#[test]
fn mirrors_of_the_configuration_are_asked_first() {
    let (sandbox, other) = (Sandbox::new(), Sandbox::new());
    let Some(registry) = Registry::start(&sandbox) else { return };
    let Some(mirror) = Registry::start(&other) else { return };
    let image = three_layers(&sandbox, "image");
    mirror.push(&sandbox, &image, "hub/team/app:1");
    let reference = format!("{}/team/app:1", registry.host);
    sandbox.config(&format!(
        "[[mirrors]]\nregistry = \"{}\"\nmirror = \"{}/hub\"\n",
        registry.host, mirror.host
    ));
    let pushed = mirror.count(&["GET", "/v2/hub/team"]);
    let answer = pull(&sandbox, &[&reference]);
    assert_eq!(answer.document()["source"], reference);
    assert_eq!(answer.stderr, "");
    assert_eq!(registry.count(&["/v2/team"]), 0);
    assert_eq!(mirror.count_to(pushed + 5, &["GET", "/v2/hub/team"]) - pushed, 5);

    // The mirror is gone, and nothing of it is needed.
    let host = mirror.host.clone();
    drop(mirror);
    registry.push(&sandbox, &image, "team/app:1");
    fs::remove_dir_all(sandbox.state().join("cache")).unwrap();
    let answer = pull(&sandbox, &[&reference, "--name", "again"]);
    let words = format!("mirror '{host}' is of no use: cannot reach '{host}': connection refused");
    assert!(answer.ok().stderr.contains(&words), "{}", answer.stderr);
    assert!(disk(&sandbox, "again") == disk(&sandbox, "app-1"), "the disks differ");
    sandbox.config("[[mirrors]]\nregistry = \"docker.io\"\nmirror = \"https://m.lan\"\n");
    let answer = pull(&sandbox, &[&reference]);
    answer.fails(2, "without a scheme");
    assert!(answer.stderr.contains("hint: write it as mirror = "), "{}", answer.stderr);
}

#[test]
fn limits_of_the_configuration_are_hit_with_layer_and_entry() {
    let sandbox = Sandbox::new();
    let script = format!(
        "mkdir -p a/deep/er b; echo x > a/deep/er/file; head -c 100000 /dev/zero | tr '\\0' x > b/large
         truncate -s 1M b/sparse; long=$(printf 'n%.0s' $(seq 200)); touch b/$long
         layer gzip a; layer zstd b; image {OURS}"
    );
    layout(&sandbox, "image", &script);
    let digest = |number: usize| {
        let index: Value =
            serde_json::from_slice(&fs::read(sandbox.dir().join("image/index.json")).unwrap())
                .unwrap();
        let blob = |digest: &str| sandbox.dir().join("image/blobs").join(digest.replace(':', "/"));
        let manifest = fs::read(blob(index["manifests"][0]["digest"].as_str().unwrap())).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        manifest["layers"][number]["digest"].as_str().unwrap().to_owned()
    };
    // The key, what is said, the layer that is named, the entry.
    for (limit, words, layer, entry) in [
        ("layers = 1", "the image has 2 layers, more than the limit of 1", None, ""),
        ("entries = 2", "more than 2 entries", None, "'./"),
        ("path_bytes = 8", "bytes, more than the limit of 8", None, "'./"),
        ("depth = 1", "directories deep, more than the limit of 1", Some(0), "'./deep/er/'"),
        ("name_bytes = 50", "more than 50 bytes of names and attributes", None, "'./"),
        ("bytes = \"100K\"", "more than 102400 bytes when it is inflated", None, ""),
        ("file_bytes = \"64K\"", "bytes, more than the limit of 65536", Some(1), "'./large'"),
        ("header_bytes = 100", "more than the limit of 100", Some(1), "'./large'"),
        ("window = \"1K\"", "over the limit of 1024", Some(1), ""),
    ] {
        sandbox.config(&format!("[image_limits]\n{limit}\n"));
        let answer = pull(&sandbox, &["oci:image"]);
        answer.fails(1, words);
        assert!(answer.stderr.contains("raise 'image_limits' in config.toml"), "{}", answer.stderr);
        assert!(answer.stderr.contains(entry), "{limit}: {}", answer.stderr);
        if let Some(layer) = layer {
            assert!(answer.stderr.contains(&digest(layer)), "{limit}: {}", answer.stderr);
        }
        no_litter(&sandbox);
    }
    sandbox.config("[image_limits]\nlayers = 2\nentries = 9\ndepth = 3\n");
    pull(&sandbox, &["oci:image"]).ok();
}

#[test]
fn of_several_pulls_of_one_name_one_works_and_the_others_share() {
    let sandbox = Sandbox::new();
    let Some(registry) = Registry::start(&sandbox) else { return };
    registry.push(&sandbox, &three_layers(&sandbox, "image"), "app:1");
    let reference = format!("{}/app:1", registry.host);
    let answers: Vec<Value> = thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| pull(&sandbox, &[&reference]).document().clone()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(registry.count_to(4, &["GET", "/blobs/"]), 4);
    no_litter(&sandbox);
}

#[test]
fn people_see_words_and_progress_pipes_only_documents() {
    let sandbox = Sandbox::new();
    three_layers(&sandbox, "image");
    let answer = pull(&sandbox, &["oci:image"]);
    assert_eq!(answer.ok().stderr, "");
    fs::remove_dir_all(sandbox.state().join("images/image")).unwrap();
    let both = sandbox.terminal(&format!("{PROGRAM} oci:image 2>&1"), 80, |_| {});
    let text = both.ok().text();
    assert!(text.contains("image: ") && text.contains("ready in"), "{text}");
    fs::remove_dir_all(sandbox.state().join("images/image")).unwrap();
    let quiet = sandbox.terminal(&format!("{PROGRAM} --quiet oci:image 2>&1"), 80, |_| {});
    assert_eq!(quiet.ok().text().lines().count(), 1, "{}", quiet.text());
}

#[test]
fn a_catalog_of_the_users_own_is_tried_in_order() {
    let sandbox = Sandbox::new();
    let image = three_layers(&sandbox, "image");
    let catalog = sandbox.dir().join("catalog.json");
    let sources = format!(
        r#"[{{"oci":"127.0.0.1:1/app:1"}},{{"oci":"oci:{0}-gone"}},{{"oci":"oci:{0}"}}]"#,
        image.display()
    );
    let entry = |sources: &str| {
        format!(
            r#"{{"version":1,"images":[{{"name":"mine","kernel":"my-kernel","sources":{sources}}}]}}"#
        )
    };
    fs::write(&catalog, entry(&sources)).unwrap();
    sandbox.config(&format!("catalogs = [\"{}\"]\n", catalog.display()));
    let answer = pull(&sandbox, &["mine"]);
    let document = answer.document();
    assert_eq!((&document["name"], &document["kernel"]), (&"mine".into(), &"my-kernel".into()));
    assert!(answer.stderr.contains("connection refused"), "{}", answer.stderr);
    assert!(answer.stderr.contains("trying the next source"), "{}", answer.stderr);

    fs::write(&catalog, entry(r#"[{"oci":"127.0.0.1:1/a"},{"oci":"oci:/no/where"}]"#)).unwrap();
    let answer = pull(&sandbox, &["mine", "--name", "other"]);
    answer.fails(1, "no source of 'other' works");
    assert!(answer.stderr.contains("connection refused"), "{}", answer.stderr);
    fs::write(&catalog, "{").unwrap();
    pull(&sandbox, &["mine"]).fails(1, "cannot use the catalog");
}

/// A stand-in for mmdebstrap, found before the real one.
fn recipe(sandbox: &Sandbox, script: &str, args: &[&str]) -> Answer {
    let bin = sandbox.dir().join("bin");
    fs::create_dir_all(&bin).unwrap();
    write_program(&bin.join("mmdebstrap"), &format!("#!/bin/sh\n{script}\n"));
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
    sandbox.with(PROGRAM, args, |command| {
        command.env("PATH", path);
    })
}

#[test]
fn a_recipe_becomes_a_disk_or_says_why_not() {
    let sandbox = Sandbox::new();
    shell(&sandbox, "mkdir -p r/etc; echo made > r/etc/motd; tar -C r -cf r.tar .");
    let tar = sandbox.dir().join("r.tar");
    // A registry nobody reaches stands for the second source of the embedded catalog.
    let told = "I: working >&2; echo 'E: no mirror can be reached' >&2; exit 7";
    let answer = recipe(&sandbox, told, &["debian-bookworm"]);
    answer.fails(1, "no source of 'debian-bookworm' works");
    assert!(
        answer.stderr.contains("mmdebstrap failed: E: no mirror can be reached"),
        "{}",
        answer.stderr
    );
    no_litter(&sandbox);

    let half = format!("head -c 3000 {}; echo 'E: broke off' >&2; exit 1", tar.display());
    recipe(&sandbox, &half, &["debian-bookworm"]).fails(1, "E: broke off");
    // All of the tar, and yet it failed.
    let late = format!("cat {}; echo 'E: too late' >&2; exit 1", tar.display());
    recipe(&sandbox, &late, &["debian-bookworm"]).fails(1, "E: too late");
    no_litter(&sandbox);

    let good = format!("echo \"$@\" > {}/args; cat {}", sandbox.dir().display(), tar.display());
    let answer = recipe(&sandbox, &good, &["debian-bookworm"]);
    let document = answer.document();
    assert_eq!(document["source"], "recipe:debian-bookworm");
    assert_eq!(document["kernel"], "generic-6.12");
    assert_eq!(debugfs(&sandbox, "debian-bookworm", "cat /etc/motd"), "made\n");
    let args = fs::read_to_string(sandbox.dir().join("args")).unwrap();
    assert!(args.contains("openssh-server") && args.contains(" bookworm - deb http"), "{args}");
    // Again: it is there.
    recipe(&sandbox, "exit 9", &["debian-bookworm"]).ok();

    let mut not_there = sandbox.command(PROGRAM);
    not_there.arg("debian-bookworm").args(["--name", "x"]).env("PATH", "/nowhere");
    let output = not_there.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("mmdebstrap is not installed"), "{words}");
    let mut rest = String::new();
    let _ = output.stdout.as_slice().read_to_string(&mut rest);
    assert!(rest.contains("banger.error/1"), "{rest}");
}
