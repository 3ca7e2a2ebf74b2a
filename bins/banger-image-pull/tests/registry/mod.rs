//! A real registry on loopback, and images pushed to it by skopeo.

use banger_tests::{Sandbox, have};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// `user` and `secret`, as htpasswd(1) writes them with bcrypt.
const HTPASSWD: &str = "user:$2y$05$bangertestsaltbangerteDX9qWGaAZNIJuP.8wOGQBobqIJ9gj6e\n";

/// A running `docker-registry`; it ends with the test.
pub(crate) struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub host: String,
    dir: PathBuf,
    skopeo: Vec<String>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    pub(crate) fn start(sandbox: &Sandbox) -> Option<Self> {
        Self::with(sandbox, "", "http: {addr: '127.0.0.1:0'}", &["--dest-tls-verify=false"])
    }

    pub(crate) fn start_with_password(sandbox: &Sandbox) -> Option<Self> {
        let path = sandbox.dir().join("htpasswd");
        fs::write(&path, HTPASSWD).unwrap();
        let auth = format!("auth: {{htpasswd: {{realm: x, path: '{}'}}}}", path.display());
        let skopeo = ["--dest-tls-verify=false", "--dest-creds", "user:secret"];
        Self::with(sandbox, &auth, "http: {addr: '127.0.0.1:0'}", &skopeo)
    }

    /// Believes tokens that are signed with the key of `token.crt`, and says where they are had.
    pub(crate) fn start_with_tokens(sandbox: &Sandbox, realm: &str) -> Option<Self> {
        let auth = format!(
            "auth: {{token: {{realm: '{realm}', service: test, issuer: test, rootcertbundle: '{}'}}}}",
            sandbox.dir().join("token.crt").display()
        );
        Self::with(sandbox, &auth, "http: {addr: '127.0.0.1:0'}", &["--dest-tls-verify=false"])
    }

    /// Serves TLS under a certificate of an authority made for the test, `ca.crt`.
    pub(crate) fn start_with_tls(sandbox: &Sandbox) -> Option<Self> {
        if !have("openssl") {
            return None;
        }
        let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
             -keyout ca.key -out ca.crt -days 2 -subj /CN=test-authority \
             -addext basicConstraints=critical,CA:TRUE 2>/dev/null && \
             openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout tls.key \
             -out tls.csr -subj /CN=127.0.0.1 2>/dev/null && \
             printf 'subjectAltName=IP:127.0.0.1\\n' > ext && \
             openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
             -extfile ext -out tls.crt 2>/dev/null";
        shell(sandbox, script);
        let dir = sandbox.dir();
        let http = format!(
            "http: {{addr: '127.0.0.1:0', tls: {{certificate: '{0}/tls.crt', key: '{0}/tls.key'}}}}",
            dir.display()
        );
        let certs = dir.join("certs");
        fs::create_dir(&certs).unwrap();
        fs::copy(dir.join("ca.crt"), certs.join("ca.crt")).unwrap();
        Self::with(sandbox, "", &http, &["--dest-cert-dir", certs.to_str().unwrap()])
    }

    fn with(sandbox: &Sandbox, auth: &str, http: &str, skopeo: &[&str]) -> Option<Self> {
        if !have("docker-registry") || !have("skopeo") {
            return None;
        }
        let dir = sandbox.dir();
        let config = dir.join("registry.yml");
        let store = dir.join("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: '{}'}}}}\n{auth}\n{http}\n",
            store.display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(dir.join("registry.log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut registry = Self {
            child,
            host: String::new(),
            dir,
            skopeo: skopeo.iter().map(ToString::to_string).collect(),
        };
        let end = Instant::now() + Duration::from_secs(20);
        while registry.host.is_empty() {
            let log = registry.log();
            if let Some((_, rest)) = log.split_once("listening on ") {
                let host: String =
                    rest.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
                host.trim_end_matches(['.', ',']).clone_into(&mut registry.host);
            }
            assert!(Instant::now() < end, "the registry does not start: {log}");
            thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("registry.log")).unwrap_or_default()
    }

    /// Counts the requests it has answered that have all of `parts` in their line.
    pub(crate) fn count(&self, parts: &[&str]) -> usize {
        self.log()
            .lines()
            .filter(|line| line.contains("response completed"))
            .filter(|line| parts.iter().all(|part| line.contains(part)))
            .count()
    }

    /// Counts them once there are so many: one is noted after the last byte of its answer is sent.
    pub(crate) fn count_to(&self, least: usize, parts: &[&str]) -> usize {
        let end = Instant::now() + Duration::from_secs(20);
        while self.count(parts) < least && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
        self.count(parts)
    }

    /// Copies an image of a layout to the registry, as it is.
    pub(crate) fn push(&self, sandbox: &Sandbox, layout: &Path, name: &str) {
        let output = sandbox
            .command("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--all"])
            .args(&self.skopeo)
            .arg(format!("oci:{}:latest", layout.display()))
            .arg(format!("docker://{}/{name}", self.host))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Runs a script in the scratch directory.
pub(crate) fn shell(sandbox: &Sandbox, script: &str) -> String {
    let output = sandbox.command("/bin/bash").args(["-euc", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes an OCI layout in the scratch directory by a shell script that uses these words:
/// `layer gzip|zstd|none DIRECTORY` adds a layer, `image ARCH` ends a manifest, `index` the layout.
pub(crate) fn layout(sandbox: &Sandbox, name: &str, script: &str) -> PathBuf {
    let words = r#"
        digest() { sha256sum "$1" | cut -d' ' -f1; }
        blob() { local hex; hex=$(digest "$1"); cp "$1" "$out/blobs/sha256/$hex"; echo "$hex"; }
        descriptor() { echo "{\"mediaType\":\"$1\",\"digest\":\"sha256:$(blob "$2")\",\"size\":$(stat -c %s "$2")}"; }
        begin() { layers=; diffs=; }
        layer() {
            tar -C "$2" --numeric-owner --owner="${owner:-0}" --group="${owner:-0}" --xattrs --xattrs-include='*' --mtime=@1700000000 --sort=name -cf l.tar .
            diffs="$diffs,\"sha256:$(digest l.tar)\""
            case $1 in
                gzip) gzip -1 -n -f l.tar; layers="$layers,$(descriptor application/vnd.oci.image.layer.v1.tar+gzip l.tar.gz)";;
                zstd) zstd -q -f --rm l.tar; layers="$layers,$(descriptor application/vnd.oci.image.layer.v1.tar+zstd l.tar.zst)";;
                none) layers="$layers,$(descriptor application/vnd.oci.image.layer.v1.tar l.tar)";;
            esac
        }
        image() {
            echo "{\"architecture\":\"$1\",\"os\":\"linux\",\"config\":{\"Env\":[\"PATH=/opt/bin:/bin\"],\"WorkingDir\":\"/srv\",\"User\":\"app\",\"Cmd\":[\"/bin/hello\"]},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[${diffs#,}]}}" > c.json
            echo "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":$(descriptor application/vnd.oci.image.config.v1+json c.json),\"layers\":[${layers#,}]}" > m.json
            manifest=$(descriptor application/vnd.oci.image.manifest.v1+json m.json)
            manifests="${manifests:+$manifests,}${manifest%\}},\"platform\":{\"os\":\"linux\",\"architecture\":\"$1\"}}"
            begin
        }
        finish() { echo "{\"schemaVersion\":2,\"manifests\":[${1%\}},\"annotations\":{\"org.opencontainers.image.ref.name\":\"latest\"}}]}" > "$out/index.json"; }
        index() {
            echo "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"manifests\":[$manifests]}" > i.json
            finish "$(descriptor application/vnd.oci.image.index.v1+json i.json)"
        }
        mkdir -p "$out/blobs/sha256"; echo '{"imageLayoutVersion":"1.0.0"}' > "$out/oci-layout"; begin; manifests=
    "#;
    let out = sandbox.dir().join(name);
    shell(
        sandbox,
        &format!(
            "out='{}'; mkdir -p work-{name}; cd work-{name}; {words}\n{script}\n\
             [ -e \"$out/index.json\" ] || finish \"$manifest\"",
            out.display()
        ),
    );
    out
}

/// The architecture of this host, as images name it.
pub(crate) const OURS: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// An image of three layers, each compressed otherwise, with a whiteout and a setuid file.
pub(crate) fn three_layers(sandbox: &Sandbox, name: &str) -> PathBuf {
    let script = format!(
        "mkdir -p a/bin a/etc b/bin b/etc c/root
         echo one > a/etc/motd; echo gone > a/etc/gone; echo '#!/bin/sh' > a/bin/hello; chmod 4755 a/bin/hello
         echo two > b/etc/motd; touch b/etc/.wh.gone; ln -s hello b/bin/hi
         echo mine > c/root/.profile; chmod 700 c/root
         layer gzip a; layer zstd b; layer none c; image {OURS}"
    );
    layout(sandbox, name, &script)
}
