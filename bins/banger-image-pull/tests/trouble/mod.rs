//! What goes wrong while an image is pulled: kills, full disks, tokens that expire, layers that want
//! out. The next pull is right, and nothing is left behind.

use crate::{
    PROGRAM, disk, is_clean, no_litter, pull,
    registry::{OURS, Registry, layout, shell},
};
use banger_tests::{Sandbox, have, program};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

/// A reference to an image of 48 MiB that does not compress.
fn large(sandbox: &Sandbox, registry: &Registry) -> String {
    let script = format!(
        "mkdir a b; head -c 16777216 /dev/urandom > a/x; head -c 33554432 /dev/urandom > b/y; layer gzip a; layer none b; image {OURS}"
    );
    registry.push(sandbox, &layout(sandbox, "large", &script), "large:1");
    format!("{}/large:1", registry.host)
}

/// Returns the files below a folder with their sizes, but for locks.
fn files(dir: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            if path.is_dir() {
                waiting.push(path);
            } else if !name.ends_with("lock") {
                found.insert(name, entry.metadata().unwrap().len());
            }
        }
    }
    found
}

#[test]
fn killed_at_any_moment_a_pull_is_right_the_next_time() {
    let sandbox = Sandbox::new();
    let Some(registry) = Registry::start(&sandbox) else { return };
    let reference = large(&sandbox, &registry);
    let whole = pull(&sandbox, &[&reference]);
    let took = whole.ok().took.as_millis() as u64;
    let expected = disk(&sandbox, "large-1");
    is_clean(&sandbox, "large-1");
    let clean = files(sandbox.state());

    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut random = clock.subsec_nanos() as u64 | 1;
    for round in 0..20 {
        fs::remove_dir_all(sandbox.state().join("images/large-1")).unwrap();
        if round % 3 != 2 {
            fs::remove_dir_all(sandbox.state().join("cache")).unwrap();
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // All of a pull, and a little beyond.
        let moment = random % (took * 11 / 10 + 1);
        let after = format!("{}.{:03}", moment / 1000, moment % 1000);
        // In the foreground it does not kill itself as well, so it waits: one that syncs dies late.
        let words = ["--foreground", "-s", "KILL", &after, PROGRAM, &reference];
        let _ = sandbox.raw("timeout", &words);
        let said = format!("killed after {after} s of {took} ms");
        // Either nothing of it is seen, or all.
        if sandbox.state().join("images/large-1").exists() {
            assert!(disk(&sandbox, "large-1") == expected, "{said}: half an image");
        }
        pull(&sandbox, &[&reference]).ok();
        assert!(disk(&sandbox, "large-1") == expected, "{said}: the disks differ");
        sandbox.run(program("banger-gc"), &[]).ok();
        assert_eq!(files(sandbox.state()), clean, "{said}: something is left");
    }
}

#[test]
fn an_interrupt_leaves_only_the_cache() {
    let sandbox = Sandbox::new();
    let Some(registry) = Registry::start(&sandbox) else { return };
    let reference = large(&sandbox, &registry);
    let whole = pull(&sandbox, &[&reference, "--name", "whole"]);
    let took = whole.ok().took.as_millis() as u64;
    let image = sandbox.state().join("images/large-1");
    for round in 0..24 {
        let signal = ["INT", "TERM", "HUP"][round as usize % 3];
        // Most of them around the moment in which the image appears.
        let moment = if round < 8 { took * round / 8 } else { took * (60 + round * 2) / 100 };
        let after = format!("{}.{:03}", moment / 1000, moment % 1000);
        let _ = sandbox.raw("timeout", &["-s", signal, &after, PROGRAM, &reference]);
        no_litter(&sandbox);
        if image.exists() {
            assert!(disk(&sandbox, "large-1") == disk(&sandbox, "whole"), "the disks differ");
            fs::remove_dir_all(&image).unwrap();
        }
    }
    pull(&sandbox, &[&reference]).ok();
    is_clean(&sandbox, "large-1");
}

#[test]
fn a_full_disk_is_said_so_and_leaves_nothing() {
    if !have("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    let script = format!(
        "mkdir a; for n in $(seq 200); do head -c 20000 /dev/urandom > a/$n; done
         head -c 900000 /dev/urandom > a/large; layer gzip a; image {OURS}"
    );
    layout(&sandbox, "image", &script);
    for (call, from) in [
        ("pwrite64", 1),
        ("pwrite64", 2),
        ("pwrite64", 4),
        ("pwrite64", 6),
        ("pwritev", 1),
        ("ftruncate", 2),
        ("fsync", 1),
    ] {
        let inject = format!("inject={call}:error=ENOSPC:when={from}+");
        let words = ["-f", "-qq", "-o", "/dev/null", "-e", &inject, PROGRAM, "oci:image"];
        let answer = sandbox.raw("strace", &words);
        answer.fails(1, "no space left on device");
        assert!(
            answer.stderr.contains("'banger image prune' frees the cache"),
            "{}",
            answer.stderr
        );
        assert!(!sandbox.state().join("images/image").exists(), "{inject}");
        no_litter(&sandbox);
    }
    // Where no holes can be punched there are zeros instead, and the disk is the same.
    let inject = "inject=fallocate:error=EOPNOTSUPP";
    let words =
        ["-f", "-qq", "-o", "/dev/null", "-e", inject, PROGRAM, "oci:image", "--name", "holes"];
    assert_eq!(sandbox.raw("strace", &words).status, 0);
    pull(&sandbox, &["oci:image"]).ok();
    assert!(disk(&sandbox, "image") == disk(&sandbox, "holes"), "the disks differ");
    is_clean(&sandbox, "image");
}

#[test]
fn no_path_of_a_layer_becomes_one_of_the_host() {
    if !have("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    // The layers that are refused come in images of their own.
    let script = |names: &[&str]| {
        let layers: Vec<String> = names
            .iter()
            .map(|name| {
                format!(
                    "tar -P --transform 's,victim,{name},' -cf l.tar victim
                     diffs=\"$diffs,\\\"sha256:$(digest l.tar)\\\"\"
                     layers=\"$layers,$(descriptor application/vnd.oci.image.layer.v1.tar l.tar)\"\n"
                )
            })
            .collect();
        format!(
            "echo evil > victim; mkdir a; ln -s /tmp a/l; ln -s ../../../.. a/up; layer gzip a
             {}\nimage {OURS}",
            layers.concat()
        )
    };
    let inside = [
        "/victim-of-a-layer",
        "l/victim-of-a-layer",
        "up/victim-of-a-layer",
        "up/l/.wh.victim-of-a-layer",
    ];
    for (image, names, status) in
        [("inside", &inside[..], 0), ("outside", &["../../../../../tmp/victim-of-a-layer"], 1)]
    {
        layout(&sandbox, image, &script(names));
        let log = sandbox.dir().join("log");
        let source = format!("oci:{image}");
        let words = [
            "-f",
            "-qq",
            "-y",
            "-o",
            log.to_str().unwrap(),
            "-e",
            "trace=%file,%network",
            PROGRAM,
            &source,
        ];
        assert_eq!(sandbox.raw("strace", &words).status, status);
        let log = fs::read_to_string(log).unwrap();
        let named: Vec<&str> = log.lines().filter(|line| line.contains("victim")).collect();
        assert!(named.is_empty(), "{named:#?}");
        // Whatever is made, changed or removed lies in the state.
        let state = sandbox.state().display().to_string();
        let changes = [
            "O_WRONLY", "O_RDWR", "O_CREAT", "mkdir", "rename", "unlink", "link(", "symlink",
            "chmod", "chown", "mknod", "setxattr", "utime", "truncate", "connect(",
        ];
        let outside: Vec<&str> = log
            .lines()
            .filter(|line| !line.contains("resumed>"))
            .filter(|line| changes.iter().any(|word| line.contains(word)))
            .filter(|line| {
                !line.contains(&state) && !line.contains("/dev/tty") && !line.contains("/dev/null")
            })
            .collect();
        assert!(outside.is_empty(), "{outside:#?}");
    }
    assert!(
        !Path::new("/tmp/victim-of-a-layer").exists() && !Path::new("/victim-of-a-layer").exists()
    );
    no_litter(&sandbox);
}

#[test]
fn nobody_in_particular_gets_the_same_disk_on_another_file_system() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can become somebody else");
        return;
    }
    let sandbox = Sandbox::new();
    let script = format!(
        "mkdir -p a/etc; echo x > a/etc/x; chmod 4711 a/etc/x; mknod a/null c 1 3; truncate -s 5M a/sparse
         owner=4000000; layer gzip a; image {OURS}"
    );
    layout(&sandbox, "image", &script);
    pull(&sandbox, &["oci:image"]).ok();
    // As user 65534, who may not read the sandbox, in memory, with the strictest umask.
    let script = format!(
        "dir=$(mktemp -d -p /dev/shm); trap 'rm -rf $dir' EXIT
         cp -r image {PROGRAM} $dir/; chmod -R a+rX $dir; chown 65534 $dir
         umask 077; cd $dir
         BANGER_STATE=$dir/state setpriv --reuid 65534 --regid 65534 --clear-groups \
             ./banger-image-pull oci:image >/dev/null
         cmp $dir/state/images/image/rootfs.ext4 {}/images/image/rootfs.ext4",
        sandbox.state().display()
    );
    shell(&sandbox, &script);
}

/// Makes a key and a certificate, `token.key` and `token.crt`, and a script that makes tokens that
/// end so many seconds from now.
fn token_maker(sandbox: &Sandbox) -> String {
    shell(
        sandbox,
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout token.key -out token.crt -days 2 \
             -subj /CN=test-tokens 2>/dev/null
         openssl x509 -in token.crt -outform der | openssl base64 -A > token.x5c",
    );
    r#"
        url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
        now=$(date +%s); end=$((now + SECONDS_LEFT))
        head=$(printf '{"typ":"JWT","alg":"RS256","x5c":["%s"]}' "$(cat token.x5c)" | url)
        claims=$(printf '{"iss":"test","sub":"","aud":"test","exp":%s,"nbf":%s,"iat":%s,"jti":"%s","access":[{"type":"repository","name":"large","actions":["pull","push"]}]}'             $end $((now - 100)) $((now - 100)) $RANDOM | url)
        sign=$(printf '%s.%s' "$head" "$claims" | openssl dgst -sha256 -sign token.key -binary | url)
        printf '%s.%s.%s' "$head" "$claims" "$sign"
    "#
    .to_owned()
}

/// A server that answers every request with a token.
struct Tokens {
    realm: String,
    /// How many seconds a token lives.
    life: Arc<AtomicUsize>,
    /// What it was asked, bodies included.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tokens {
    fn serve(sandbox: &Arc<Sandbox>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tokens = Self {
            realm: format!("http://{}/token", listener.local_addr().unwrap()),
            life: Arc::new(AtomicUsize::new(600)),
            asked: Arc::default(),
        };
        let (life, asked) = (Arc::clone(&tokens.life), Arc::clone(&tokens.asked));
        let (sandbox, script) = (Arc::clone(sandbox), token_maker(sandbox));
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                asked.lock().unwrap().push(request(&stream));
                // The registry takes a token for a minute longer than it says.
                let left = life.load(Ordering::SeqCst) as i64 - 60;
                let token = shell(&sandbox, &script.replace("SECONDS_LEFT", &format!("({left})")));
                let body = format!("{{\"token\":\"{token}\"}}");
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\
                     Content-Length: {}\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        tokens
    }

    /// Returns what it was asked since the last time.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// Reads a request with its body.
fn request(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut text = String::new();
    while reader.read_line(&mut text).unwrap_or(0) > 0 && !text.ends_with("\r\n\r\n") {}
    let lower = text.to_ascii_lowercase();
    let length = lower.split_once("content-length: ").map_or(0, |(_, rest)| {
        rest.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
    });
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    text + &String::from_utf8_lossy(&body)
}

/// Passes connections on; the first two that bring more than 8 MB stall for a while and break off.
fn shaky_line(target: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let breaks = Arc::new(AtomicUsize::new(2));
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(&target) else { return };
            let (mut up, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut up, &mut to));
            let breaks = Arc::clone(&breaks);
            thread::spawn(move || {
                let (mut from, mut client) = (server, client);
                let (mut bytes, mut passed) = (vec![0; 64 << 10], 0);
                while let Ok(n) = from.read(&mut bytes) {
                    passed += n;
                    let breaks_off = passed > 8 << 20
                        && breaks
                            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                            .is_ok();
                    if breaks_off {
                        thread::sleep(Duration::from_secs(5));
                    }
                    if n == 0 || breaks_off || client.write_all(&bytes[..n]).is_err() {
                        break;
                    }
                }
                let _ = client.shutdown(std::net::Shutdown::Both);
                let _ = from.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    address
}

#[test]
fn a_token_that_expires_during_a_layer_is_renewed() {
    if !have("openssl") {
        return;
    }
    let sandbox = Arc::new(Sandbox::new());
    let tokens = Tokens::serve(&sandbox);
    let Some(registry) = Registry::start_with_tokens(&sandbox, &tokens.realm) else { return };
    let direct = large(&sandbox, &registry);
    let whole = pull(&sandbox, &[&direct, "--name", "whole"]);
    whole.ok();
    fs::remove_dir_all(sandbox.state().join("cache")).unwrap();

    tokens.life.store(4, Ordering::SeqCst);
    tokens.take();
    let line = shaky_line(registry.host.clone());
    pull(&sandbox, &[&format!("{line}/large:1")]).ok();
    let issued = tokens.take().len();
    // The registry's own words for a token that is over.
    let refused = registry.log().contains("token not to be used after");
    assert!(issued >= 2 && refused, "{issued} tokens, one refused: {refused}");
    assert!(disk(&sandbox, "large-1") == disk(&sandbox, "whole"), "the disks differ");

    // One that is over before it is used is an error, not a circle.
    tokens.life.store(0, Ordering::SeqCst);
    let answer = pull(&sandbox, &[&direct, "--name", "never"]);
    answer.fails(1, "wants a login for it");
    let asked = tokens.take();
    assert!(asked.len() <= 2, "{asked:?}");

    // A stored identity is traded for tokens, by a form.
    tokens.life.store(600, Ordering::SeqCst);
    let docker = sandbox.home().join(".docker");
    fs::create_dir_all(&docker).unwrap();
    let login = format!(r#"{{"auths":{{"{}":{{"identitytoken":"open sesame"}}}}}}"#, registry.host);
    fs::write(docker.join("config.json"), login).unwrap();
    pull(&sandbox, &[&direct, "--name", "traded"]).ok();
    let asked = tokens.take();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let form = "grant_type=refresh_token&refresh_token=open+sesame";
    assert!(asked[0].starts_with("POST /token"), "{asked:?}");
    assert!(asked[0].contains(form) || asked[0].contains(&form.replace('+', "%20")), "{asked:?}");
    assert!(asked[0].contains("scope=repository%3Alarge%3Apull"), "{asked:?}");
}

#[test]
fn a_layer_of_the_same_digest_is_fetched_once() {
    let sandbox = Sandbox::new();
    let Some(registry) = Registry::start(&sandbox) else { return };
    let script = format!(
        "mkdir a; echo x > a/x; layer gzip a; one=$layers; diff=$diffs
         for n in $(seq 39); do layers=$layers$one; diffs=$diffs$diff; done; image {OURS}"
    );
    registry.push(&sandbox, &layout(&sandbox, "image", &script), "app:1");
    let pushed = registry.count(&["GET", "/blobs/"]);
    pull(&sandbox, &[&format!("{}/app:1", registry.host)]).ok();
    // The layer and the configuration.
    assert_eq!(registry.count_to(pushed + 2, &["GET", "/blobs/"]) - pushed, 2);
}
