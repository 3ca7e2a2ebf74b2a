//! What fuzzing starts from: right inputs, with everything they can have.

use flate2::{Compression, write::GzEncoder};
use std::io::Write;

/// Returns the inputs of each target.
pub fn all() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    vec![
        ("layer", archives()),
        ("packed", packed()),
        ("take", taken()),
        ("relay", taken()),
        ("offline", crate::disks::seeds()),
        ("repository", repositories()),
        ("staged", indexes()),
        ("refs", texts(&REFS)),
        ("manifest", texts(&[MANIFEST, DOCKER, ODD_MANIFEST])),
        ("index", texts(&[INDEX, ODD_INDEX])),
        ("config", texts(&[CONFIG, ODD_CONFIG])),
        ("reference", references()),
        ("token", texts(&TOKENS)),
    ]
}

/// Packed references, and what is typed for a push.
const REFS: [&str; 2] = [
    "# pack-refs with: peeled fully-peeled sorted \n1111111111111111111111111111111111111111 refs/heads/a\n\
     2222222222222222222222222222222222222222 refs/tags/b\n^3333333333333333333333333333333333333333\n",
    "HEAD:topic\n+main\n:gone\nv1:refs/tags/v1\n",
];

/// Repositories of which each part is each thing once, and some that go together.
fn repositories() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for part in 0..crate::PARTS.len() as u8 {
        for kind in 0..8 {
            all.push([&[part, kind][..], b"../../outside/.git/HEAD"].concat());
        }
    }
    let config = "[core]\n\trepositoryformatversion = 1\n\tworktree = ../../outside\n[extensions]\n\tworktreeConfig\n\
                  \tpartialClone = x\n[include]\n\tpath = ../../outside/.git/config\n[remote \"x\"]\n\turl = ext::sh\n";
    for text in [config, "[core]\n\tbare = true\n", "[a \"b\\\\\"]\n\tc = d\n"] {
        all.push([&[2, 7][..], text.as_bytes(), b"\0\0", &[18, 7], b"[core]\n\tbare\n"].concat());
    }
    all.push([&[0, 6][..], b"gitdir: .git/worktrees/x\n"].concat());
    all.push([&[10, 6][..], b"# x\n../info\n\"quoted\"\n/gone\n"].concat());
    all.push([&[7, 6][..], b"# pack-refs with: peeled\n", crate::HERE.as_bytes(), b" refs/heads/x\n"].concat());
    all
}

/// Indexes of each version, with extensions.
fn indexes() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for version in 2..=4u8 {
        let mut bytes = [b"DIRC\0\0\0", &[version][..], b"\0\0\0\x02"].concat();
        for name in ["a", "a/b"] {
            let start = bytes.len();
            bytes.extend([1; 24]);
            bytes.extend([0, 0, 0x81, 0xa4]);
            bytes.extend([1; 32]);
            bytes.extend([0, name.len() as u8]);
            if version == 4 {
                bytes.push(0);
                bytes.extend(if name == "a" { "a" } else { "/b" }.as_bytes());
                bytes.push(0);
            } else {
                bytes.extend(name.as_bytes());
                let size = bytes.len() - start + 1;
                bytes.resize(start + size.next_multiple_of(8), 0);
            }
        }
        for extension in [&b"TREE\0\0\0\x04tree"[..], b"link\0\0\0\x14", b"sdir\0\0\0\0"] {
            bytes.extend(extension);
        }
        bytes.extend([3; 40]);
        all.push(bytes);
    }
    all
}

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":7023,"annotations":{"a":"b"}},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":32654,"urls":["https://x"]},{"mediaType":"application/vnd.oci.image.layer.v1.tar+zstd","digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":1}],"subject":null,"annotations":{"org.opencontainers.image.created":"2020"}}"#;
const DOCKER: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":1,"digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":2,"digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}]}"#;
const INDEX: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":1,"platform":{"architecture":"amd64","os":"linux","os.version":"1","os.features":["x"],"variant":"v2"}},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2,"platform":{"architecture":"arm64","os":"linux","variant":"v8"},"annotations":{"org.opencontainers.image.ref.name":"latest"}},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2,"platform":{"architecture":"unknown","os":"unknown"}}]}"#;
const CONFIG: &str = r#"{"created":"2015-10-31T22:22:56.015925234Z","author":"x","architecture":"amd64","variant":"v2","os":"linux","config":{"User":"alice:1","ExposedPorts":{"8080/tcp":{}},"Env":["PATH=/bin","A"],"Entrypoint":["/bin/x"],"Cmd":["--a","b"],"Volumes":{"/v":{}},"WorkingDir":"/home","Labels":{"a":"b"},"StopSignal":"SIGTERM"},"rootfs":{"diff_ids":["sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"],"type":"layers"},"history":[{"created":"2015-10-31T22:22:54.690851953Z","created_by":"/bin/sh","empty_layer":true}]}"#;
// As builders write them: nulls, fields of other types, entries of no use.
const ODD_MANIFEST: &str = r#"{"schemaVersion":null,"mediaType":"","config":{"mediaType":null,"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2,"urls":5},"layers":null,"annotations":{"a":null},"subject":{"digest":7},"x":[[1e999,"\ud800"]]}"#;
const ODD_INDEX: &str = r#"{"manifests":[null,{},"x",{"platform":{}},{"digest":"sha512:00","size":-1,"platform":{"os":5}},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":1,"artifactType":"a/b","annotations":{"vnd.docker.reference.type":"attestation-manifest"}},{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2,"platform":{"os":"","architecture":"X86_64"}}]}"#;
const ODD_CONFIG: &str = r#"{"architecture":"","os":null,"config":{"Env":[null,"","=C:=x","A"],"Cmd":"sh","Entrypoint":null,"Volumes":{"/v":null},"ExposedPorts":[80],"Labels":{"a":null,"b":5},"User":null},"rootfs":{"diff_ids":null},"history":"none"}"#;
const TOKENS: [&str; 4] = [
    r#"{"token":"eyJhbGciOi.J9.x-_~+/=","expires_in":300,"issued_at":"2020-01-01T00:00:00Z"}"#,
    r#"{"access_token":"abc","token":""}"#,
    r#"Bearer realm="https://auth.example/token?x=1,2",service="a \"b\"",scope="repository:a/b:pull""#,
    "Basic realm=x",
];

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn head(kind: u8, name: &str, size: usize, link: &str) -> Vec<u8> {
    let mut head = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000755\x000000000\x000000000\0");
    put(124, format!("{size:011o}\x0007346545000\0").as_bytes());
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, b"0000001\x000000003\0");
    head
}

fn entry(tar: &mut Vec<u8>, kind: u8, name: &str, content: &[u8], link: &str) {
    let mut head = head(kind, name, content.len(), link);
    head[148..156].fill(b' ');
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend(head);
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

/// Archives with everything that an archive can have.
pub(crate) fn archives() -> Vec<Vec<u8>> {
    let mut usual = Vec::new();
    for name in ["etc/", "usr/", "usr/bin/"] {
        entry(&mut usual, b'5', name, b"", "");
    }
    entry(&mut usual, b'0', "usr/bin/sh", &[7; 5000], "");
    entry(&mut usual, b'2', "bin", b"", "usr/bin");
    entry(&mut usual, b'2', "loop", b"", "loop/../loop");
    entry(&mut usual, b'1', "usr/bin/bash", b"", "bin/sh");
    entry(&mut usual, b'0', "bin/x", b"x", "");
    entry(&mut usual, b'3', "null", b"", "");
    entry(&mut usual, b'4', "disk", b"", "");
    entry(&mut usual, b'6', "pipe", b"", "");
    usual.extend([0; 1024]);

    let mut markers = Vec::new();
    for name in
        ["etc/.wh.x", "bin/.wh.sh", ".wh.usr", "usr/.wh..wh..opq", ".wh..wh..opq", "etc/new"]
    {
        entry(&mut markers, b'0', name, b"", "");
    }

    let mut extended = Vec::new();
    entry(
        &mut extended,
        b'x',
        "pax",
        b"14 path=a/b/c\n20 mtime=1.123456789\n15 uid=4000000\n9 size=3\n",
        "",
    );
    entry(&mut extended, b'0', "short", b"abc", "");
    entry(
        &mut extended,
        b'x',
        "pax",
        b"28 SCHILY.xattr.user.name=x\n32 LIBARCHIVE.xattr.user.y=AQI=\n",
        "",
    );
    entry(&mut extended, b'5', "d", b"", "");
    entry(&mut extended, b'g', "all", b"13 comment=x\n", "");
    entry(&mut extended, b'L', "././@LongLink", &[b"n".repeat(200), vec![0]].concat(), "");
    entry(&mut extended, b'K', "././@LongLink", &[b"t".repeat(200), vec![0]].concat(), "");
    entry(&mut extended, b'2', "short", b"", "short");

    let mut sparse = Vec::new();
    entry(
        &mut sparse,
        b'x',
        "pax",
        b"34 GNU.sparse.map=5,512,100000,10\n26 GNU.sparse.size=200000\n",
        "",
    );
    let stored = [&[b'x'; 512][..], b"abcdefghij"].concat();
    entry(&mut sparse, b'0', "s", &stored, "");
    entry(
        &mut sparse,
        b'x',
        "pax",
        b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n30 GNU.sparse.realsize=200000\n",
        "",
    );
    let mut map = b"2\n5\n512\n100000\n10\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(&stored);
    entry(&mut sparse, b'0', "s1", &map, "");
    let mut old = head(b'S', "old", stored.len(), "");
    old[345..512].fill(0);
    old[257..265].copy_from_slice(b"ustar  \0");
    old[386..434].copy_from_slice(b"00000000005\x0000000001000\x0000000100000\x0000000000012\0");
    old[483..495].copy_from_slice(b"00000200000\0");
    sparse.extend(old);
    sparse.extend_from_slice(&stored);
    sparse.resize(sparse.len().next_multiple_of(512), 0);

    let mut many = Vec::new();
    for number in 0..200 {
        entry(&mut many, b'0', &format!("many/a-rather-long-name-{number}"), b"x", "");
    }
    vec![usual, markers, extended, sparse, many]
}

/// Archives as a guest sends them, those that lie included.
pub(crate) fn taken() -> Vec<Vec<u8>> {
    let mut honest = Vec::new();
    entry(&mut honest, b'5', "./", b"", "");
    entry(&mut honest, b'5', "./etc/", b"", "");
    entry(&mut honest, b'0', "./etc/x", b"x", "");
    entry(&mut honest, b'1', "./etc/y", b"", "./etc/x");
    entry(&mut honest, b'2', "./etc/z", b"", "../old");
    let mut asked = Vec::new();
    entry(&mut asked, b'5', "usr", b"", "");
    entry(&mut asked, b'0', "usr/x", b"x", "");
    entry(&mut asked, b'1', "usr/y", b"", "usr/x");
    let mut hostile = Vec::new();
    for name in ["../outside/new", "/dev/shm/new", "way/new", "x", "old", "etc/../../outside/file"] {
        let mut one = Vec::new();
        entry(&mut one, b'0', name, b"new", "");
        hostile.push(one);
    }
    for (kind, link) in [(b'2', "../../.."), (b'2', "/etc"), (b'1', "way/file"), (b'1', "old")] {
        let mut one = Vec::new();
        entry(&mut one, kind, "link", b"", link);
        entry(&mut one, b'0', "link/new", b"new", "");
        hostile.push(one);
    }
    let mut changing = Vec::new();
    entry(&mut changing, b'5', "a", b"", "");
    entry(&mut changing, b'2', "a", b"", "etc");
    entry(&mut changing, b'0', "a/x", b"x", "");
    entry(&mut changing, b'0', "a", b"x", "");
    [archives(), vec![honest, asked, changing], hostile].concat()
}

pub(crate) fn packed() -> Vec<Vec<u8>> {
    archives()
        .iter()
        .flat_map(|archive| {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(archive).expect("memory takes everything");
            let gzip = gzip.finish().expect("memory takes everything");
            let zstd = zstd::encode_all(&archive[..], 1).expect("memory takes everything");
            [[gzip.clone(), gzip].concat(), zstd]
        })
        .chain([XZ.to_vec(), [XZ, XZ].concat()])
        .collect()
}

/// An archive of one file, by `xz -0`.
const XZ: &[u8] = b"\
    \xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x0c\x00\x00\x00\x8f\x98\
    \x41\x9c\xe0\x27\xff\x00\x56\x5d\x00\x30\x80\x33\x50\x18\x68\x89\x82\xed\xa7\x80\x69\xfa\
    \xda\x6e\x49\x40\x06\xdd\x94\x43\x88\xf5\x93\xb6\xc2\x4b\xe2\xa3\x7b\x1c\x91\xd0\x76\x76\
    \x02\xa6\xa1\x3f\x44\x01\x8a\x10\x7d\xf6\x31\x66\x1c\x18\x0d\xa6\x28\xf2\xd8\x57\x3c\x7a\
    \x91\xde\x34\x65\x21\x99\xe0\x42\x97\xe8\x20\x03\x5c\x3b\x2f\x75\x35\xee\x25\x3b\xca\xad\
    \xe4\xa3\x4c\x3a\xed\xcc\x00\x00\x00\x00\x05\xb0\xef\x91\xd9\x2a\x72\x8b\x00\x01\x72\x80\
    \x50\x00\x00\x00\x27\xc7\x54\xff\xb1\xc4\x67\xfb\x02\x00\x00\x00\x00\x04\x59\x5a";

fn references() -> Vec<Vec<u8>> {
    let digest = format!("alpine@sha256:{}", "0123456789abcdef".repeat(4));
    [
        "alpine",
        "alpine:3.20",
        "docker.io/library/debian:bookworm",
        "localhost:5000/a/b:tag",
        "[::1]:5000/x",
        &digest,
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}
