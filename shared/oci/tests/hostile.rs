//! Registries that lie, stall, redirect and change their mind: the right bytes or one clear error,
//! and never a wrong byte in the cache.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

mod scripted;

use banger_doc::{Error, Result};
use banger_layer::Limits;
use banger_oci::{Cache, Client, Digest, Found, Layer, Puller, Say, Settings, Source};
use banger_state::State;
use scripted::{Asked, Reply, Server};
use serde_json::{Value, json};
use std::{
    fs,
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// An image of one layer.
struct Image {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

impl Image {
    fn new(size: usize) -> Self {
        let mut seed = 7_u32;
        let mut noise = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        Self::of((0..size).map(|_| noise()).collect())
    }

    fn of(layer: Vec<u8>) -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config =
            json!({"architecture": architecture, "os": "linux", "config": {"Env": ["A=1"]},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]}})
            .to_string()
            .into_bytes();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)]})
        .to_string()
        .into_bytes();
        Self { layer, config, manifest }
    }

    /// Answers as an honest registry does.
    fn serve(&self, asked: &Asked) -> Reply {
        let blob = |bytes: &[u8]| format!("blobs/{}", Digest::of(bytes));
        if asked.path.contains("/manifests/") {
            Reply::of(&self.manifest).with("Content-Type", MANIFEST)
        } else if asked.path.ends_with(&blob(&self.config)) {
            Reply::of(&self.config)
        } else if asked.path.ends_with(&blob(&self.layer)) {
            match asked.range() {
                Some(from) => Reply::of(&self.layer[from..]).status(206).with(
                    "Content-Range",
                    &format!("bytes {from}-{}/{}", self.layer.len() - 1, self.layer.len()),
                ),
                None => Reply::of(&self.layer),
            }
        } else {
            Reply::of(b"").status(404)
        }
    }
}

struct Home {
    dir: TempDir,
    settings: Settings,
}

impl Home {
    /// Waits longer for a server than any is kept from its processor.
    fn new() -> Self {
        let settings = Settings {
            connect: Duration::from_mins(1),
            idle: Duration::from_mins(1),
            attempts: 3,
            crawl: Duration::from_mins(1),
            insecure: Vec::new(),
            mirrors: Vec::new(),
            ..Settings::default()
        };
        Self { dir: tempfile::tempdir().unwrap(), settings }
    }

    /// Bears no silence.
    fn hasty() -> Self {
        let mut home = Self::new();
        home.settings.idle = Duration::from_secs(2);
        home
    }

    /// Bears silence, but nobody who crawls.
    fn driving() -> Self {
        let mut home = Self::new();
        home.settings.crawl = Duration::from_millis(1500);
        home
    }

    fn find(&self, reference: &str) -> Result<Found> {
        let state = State::at(self.dir.path().join("state"))?;
        let client = Client::new(self.settings.clone());
        let source: Source = reference.parse()?;
        Puller::new(client, Cache::open(&state)?, "amd64".parse()?, Limits::default()).find(&source)
    }

    fn blobs(&self) -> usize {
        fs::read_dir(self.dir.path().join("state/cache/oci/blobs/sha256")).unwrap().count()
    }

    fn partials(&self) -> usize {
        fs::read_dir(self.dir.path().join("state/cache/partial")).unwrap().count()
    }
}

fn read(layer: &Layer) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match layer.open()?.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(layer.failure().unwrap_or_else(|| Error::failed(error.to_string()))),
    }
}

/// Pulls from a server; returns the first layer or the first error.
fn pull(home: &Home, server: &Server) -> Result<Vec<u8>> {
    let found = home.find(&format!("{}/app:1", server.host))?;
    read(&found.layers[0])
}

fn refused(server: &Server, part: &str) -> Home {
    refused_by(Home::new(), server, part)
}

fn refused_by(home: Home, server: &Server, part: &str) -> Home {
    let start = Instant::now();
    let error = pull(&home, server).expect_err("it should be refused");
    assert!(error.chain().contains(part), "{}", error.chain());
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    home
}

#[test]
fn an_honest_server_is_believed() {
    let image = Image::new(300_000);
    let layer = image.layer.clone();
    let server = Server::start(move |asked| image.serve(asked));
    let home = Home::new();
    assert_eq!(pull(&home, &server).unwrap(), layer);
    assert_eq!((home.blobs(), home.partials()), (3, 0));
}

#[test]
fn other_bytes_than_the_digest_says_are_refused() {
    let image = Image::new(100_000);
    let server = Server::start(move |asked| {
        let mut reply = image.serve(asked);
        if asked.path.contains(&Digest::of(&image.layer).to_string()) {
            reply.body[77] ^= 1;
        }
        reply
    });
    let home = refused(&server, "has the digest");
    assert_eq!((home.blobs(), home.partials()), (2, 0));

    let image = Image::new(10);
    let server = Server::start(move |asked| {
        let mut reply = image.serve(asked);
        if asked.path.contains(&Digest::of(&image.config).to_string()) {
            reply.body[3] ^= 1;
        }
        reply
    });
    refused(&server, "is not what its digest and size say");

    let image = Image::new(10);
    let server = Server::start(move |asked| {
        image.serve(asked).with("Docker-Content-Digest", &Digest::of(b"another").to_string())
    });
    refused(&server, "has the digest");
}

#[test]
fn longer_and_shorter_layers_are_refused() {
    for (change, part) in [(1_i64, "bytes instead of"), (-1, "bytes instead of")] {
        let image = Image::new(50_000);
        let server = Server::start(move |asked| {
            let mut reply = image.serve(asked);
            if asked.path.contains(&Digest::of(&image.layer).to_string()) {
                reply.body.resize((50_000 + change) as usize, 0);
            }
            reply
        });
        refused(&server, part);
    }
    // Without a length it shows only at the end.
    let image = Image::new(50_000);
    let server = Server::start(move |asked| {
        let mut reply = image.serve(asked);
        if asked.path.contains(&Digest::of(&image.layer).to_string()) {
            reply.body.push(0);
            reply = reply.without_length();
        }
        reply
    });
    let home = refused(&server, "is longer than");
    assert_eq!(home.partials(), 0);
}

#[test]
fn a_broken_connection_is_resumed_where_it_broke() {
    let image = Image::new(2_000_000);
    let layer = image.layer.clone();
    let server = Server::start(move |asked| {
        let reply = image.serve(asked);
        let large = reply.body.len() > 700_000;
        if large { reply.cut_after(600_000) } else { reply }
    });
    let home = Home::new();
    assert_eq!(pull(&home, &server).unwrap(), layer);
    let ranges: Vec<Option<usize>> = server.asked("/blobs/").iter().map(Asked::range).collect();
    assert_eq!(ranges.len(), 5, "{ranges:?}");
    assert!(ranges[2].is_some() && ranges[2] < ranges[3] && ranges[3] < ranges[4], "{ranges:?}");
}

#[test]
fn a_server_that_ignores_ranges_is_read_again_from_the_beginning() {
    let image = Image::new(1_000_000);
    let layer = image.layer.clone();
    let count = AtomicUsize::new(0);
    let server = Server::start(move |asked| {
        let mut asked = asked.clone();
        asked.headers.retain(|(key, _)| key != "range");
        let reply = image.serve(&asked);
        let first = reply.body.len() > 900_000 && count.fetch_add(1, Ordering::Relaxed) == 0;
        if first { reply.cut_after(400_000) } else { reply }
    });
    assert_eq!(pull(&Home::new(), &server).unwrap(), layer);
}

#[test]
fn a_server_that_sends_another_part_is_refused() {
    let image = Image::new(1_000_000);
    let server = Server::start(move |asked| {
        let reply = image.serve(asked);
        match asked.range() {
            Some(from) => reply.replace("Content-Range", &format!("bytes {}-9/10", from + 1)),
            None if reply.body.len() > 900_000 => reply.cut_after(400_000),
            None => reply,
        }
    });
    refused(&server, "sent another part");
}

#[test]
fn a_pull_that_was_cut_off_goes_on_next_time() {
    let image = Arc::new(Image::new(2_000_000));
    let layer = image.layer.clone();
    let broken = Arc::new(AtomicUsize::new(1));
    let (served, switch) = (Arc::clone(&image), Arc::clone(&broken));
    let server = Server::start(move |asked| {
        let reply = served.serve(asked);
        if switch.load(Ordering::Relaxed) == 1 && reply.body.len() > 900_000 {
            reply.cut_after(700_000)
        } else if switch.load(Ordering::Relaxed) == 1 && asked.range().is_some() {
            Reply::of(b"").status(500)
        } else {
            reply
        }
    });
    let home = Home::new();
    assert!(pull(&home, &server).is_err());
    assert_eq!(home.partials(), 1);
    broken.store(0, Ordering::Relaxed);
    assert_eq!(pull(&home, &server).unwrap(), layer);
    let last = server.asked("/blobs/").last().and_then(Asked::range);
    assert!(last.is_some_and(|from| from >= 600_000), "{last:?}");
    assert_eq!((home.blobs(), home.partials()), (3, 0));
}

#[test]
fn a_stalled_and_a_crawling_server_are_given_up() {
    let image = Image::new(500_000);
    let server = Server::start(move |asked| {
        let reply = image.serve(asked);
        if reply.body.len() > 100_000 { reply.stall_after(100) } else { reply }
    });
    refused_by(Home::hasty(), &server, "stopped sending");

    let image = Image::new(500_000);
    let server = Server::start(move |asked| {
        let reply = image.serve(asked);
        if reply.body.len() > 100_000 { reply.drip() } else { reply }
    });
    refused_by(Home::driving(), &server, "less than 64 KiB came");

    let server = Server::start(|_| Reply::of(b"").stall_before());
    refused_by(Home::hasty(), &server, "stopped answering");
}

#[test]
fn an_encoded_blob_is_refused() {
    let image = Image::new(1000);
    let server = Server::start(move |asked| {
        let reply = image.serve(asked);
        if asked.path.contains(&Digest::of(&image.layer).to_string()) {
            reply.with("Content-Encoding", "gzip")
        } else {
            reply
        }
    });
    refused(&server, "encoded the blob once more");
}

#[test]
fn too_large_documents_are_not_read() {
    let server = Server::start(|_| {
        Reply::of(&vec![b' '; 5 << 20]).with("Content-Type", MANIFEST).without_length()
    });
    refused(&server, "is larger than");
}

#[test]
fn a_passing_trouble_is_waited_out_and_a_lasting_one_told() {
    let image = Image::new(1000);
    let layer = image.layer.clone();
    let count = AtomicUsize::new(0);
    let server = Server::start(move |asked| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::of(b"").status(503).with("Retry-After", "0"),
        1 => Reply::of(b"").status(429).with("Retry-After", "0"),
        _ => image.serve(asked),
    });
    assert_eq!(pull(&Home::new(), &server).unwrap(), layer);

    let server = Server::start(|_| {
        Reply::of(br#"{"errors":[{"code":"DENIED","message":"no\u001b[2J way"}]}"#).status(403)
    });
    let home = refused(&server, "forbids reading");
    assert_eq!(home.blobs(), 0);
    let server = Server::start(|_| Reply::of(b"").status(418));
    refused(&server, "status 418");
}

#[test]
fn a_wait_that_a_registry_asks_for_is_said_and_a_long_one_fails_at_once() {
    let image = Arc::new(Image::new(1000));
    let said = Arc::new(std::sync::Mutex::new(Vec::new()));
    let hear = Arc::clone(&said);
    let mut home = Home::new();
    home.settings.say = Say::by(move |words| hear.lock().unwrap().push(words.to_owned()));
    let (count, served) = (AtomicUsize::new(0), Arc::clone(&image));
    let server = Server::start(move |asked| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::of(b"").status(429).with("Retry-After", "1"),
        _ => served.serve(asked),
    });
    let start = Instant::now();
    assert_eq!(pull(&home, &server).unwrap(), image.layer);
    assert!(start.elapsed() >= Duration::from_secs(1));
    let words = format!("registry '{}' asks to wait 1 s (status 429); waiting", server.host);
    assert_eq!(*said.lock().unwrap(), [words]);

    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (status, after, time) in [
        (429, "86400", "24 h"),
        (429, "Mon, 07 Nov 1994 08:49:37 GMT", "24 h"),
        (503, "Sunday, 06-Nov-94 08:59:37 GMT", "10 min"),
        (429, "99999999999999999999", "more than a year"),
    ] {
        let server = Server::start(move |_| {
            Reply::of(b"").status(status).with("Retry-After", after).with("Date", date)
        });
        let error = pull(&Home::new(), &server).unwrap_err();
        let words = format!("it asks to be left alone for {time}");
        assert!(error.chain().ends_with(&words), "{}", error.chain());
        assert!(error.hint_text().unwrap().contains(&format!("try again in {time}")));
        assert_eq!(server.asked("/manifests/").len(), 1, "{after}");
    }
    // The token server's as well.
    let start = Instant::now();
    let asked = Server::start(|asked| {
        if asked.path.starts_with("/token") {
            return Reply::of(b"").status(429).with("Retry-After", "7200");
        }
        let realm = format!("Bearer realm=\"http://{}/token\"", asked.host());
        Reply::of(b"").status(401).with("WWW-Authenticate", &realm)
    });
    let error = pull(&Home::new(), &asked).unwrap_err();
    assert!(error.chain().ends_with("it asks to be left alone for 2 h"), "{}", error.chain());
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn what_is_wrong_with_a_login_is_not_said_to_be_wrong_with_the_image() {
    for (realm, token, words, hint) in [
        ("nonsense", "", "which is no address", "the registry you mean"),
        ("http://registry.invalid/token", "", "which is not encrypted", "the registry you mean"),
        ("http://HOST/token", "[]", "the answer is no token", "the registry you mean"),
        ("http://HOST/token", "{}", "the answer holds no usable token", "the registry you mean"),
        ("http://HOST/odd", "", "redirects to nowhere", "the registry you mean"),
    ] {
        let server = Server::start(move |asked| {
            if asked.path.starts_with("/token") {
                return Reply::of(token.as_bytes());
            }
            if asked.path.starts_with("/odd") {
                return Reply::of(b"").status(302);
            }
            let realm = format!("Bearer realm=\"{}\"", realm.replace("HOST", asked.host()));
            Reply::of(b"").status(401).with("WWW-Authenticate", &realm)
        });
        let error = pull(&Home::new(), &server).unwrap_err();
        assert!(error.chain().contains(words), "{}", error.chain());
        assert!(error.hint_text().unwrap_or_default().contains(hint), "{:?}", error.hint_text());
    }
}

/// Serves documents by their digests, the first of them as the manifest of every tag.
fn documents(all: Vec<(&'static str, Vec<u8>)>) -> Server {
    Server::start(move |asked| {
        let tag = asked.path.ends_with("/manifests/1");
        let named = |bytes: &[u8]| asked.path.ends_with(&Digest::of(bytes).to_string());
        let found = all.iter().find(|(_, bytes)| tag || named(bytes));
        found.map_or_else(
            || Reply::of(b"").status(404),
            |(kind, bytes)| Reply::of(bytes).with("Content-Type", kind),
        )
    })
}

#[test]
fn images_as_builders_write_them_are_found() {
    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    let layer = Image::new(100).layer;
    let of = |value: &Value| value.to_string().into_bytes();
    // A configuration that does not say what it is for: the index or the host does.
    let config = of(&json!({"architecture": "", "os": "", "config": {"Labels": {"a": null},
        "Volumes": {"/data": null}}, "rootfs": {"diff_ids": null}, "history": null}));
    let manifest = of(&json!({"schemaVersion": 2, "config": descriptor(CONFIG, &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar.gzip", &layer)],
        "annotations": {"a": null}}));
    let provenance = of(&json!({"schemaVersion": 2, "config": descriptor(CONFIG, b"{}"),
        "layers": [descriptor("application/vnd.in-toto+json", b"[]")]}));
    let windows = of(&json!({"os": "windows", "architecture": "amd64"}));
    let other = of(&json!({"schemaVersion": 2, "config": descriptor(CONFIG, &windows)}));
    let odd = json!({"mediaType": INDEX, "digest": "sha512:00", "size": -1, "platform": {}});
    let entry = |bytes: &[u8], more: Value| {
        let mut entry = descriptor(MANIFEST, bytes);
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    };
    let amd64 = json!({"platform": {"os": "linux", "architecture": "amd64"}});
    // By its platform; by being the only one that runs, without any; deep in another index.
    let named = of(&json!({"schemaVersion": 2, "manifests":
        [odd, entry(&provenance, json!({"platform": {}})), entry(&manifest, amd64)]}));
    let nameless = of(&json!({"schemaVersion": 2, "manifests":
        [odd, entry(&provenance, json!({})), entry(&other, json!({})), entry(&manifest, json!({}))]}));
    let nested = of(&json!({"manifests": [odd, descriptor(INDEX, &nameless)]}));
    for index in [named, nameless.clone(), nested] {
        let server = documents(vec![
            (INDEX, index),
            (INDEX, nameless.clone()),
            (MANIFEST, manifest.clone()),
            (MANIFEST, provenance.clone()),
            (MANIFEST, other.clone()),
            ("", config.clone()),
            ("", windows.clone()),
            ("", layer.clone()),
        ]);
        let home = Home::new();
        let found = home.find(&format!("{}/app:1", server.host)).unwrap();
        assert_eq!(found.digest, Digest::of(&manifest));
        assert_eq!(found.platform.to_string(), "linux/amd64");
        assert_eq!(found.layers[0].diff_id(), None);
        assert_eq!(read(&found.layers[0]).unwrap(), layer);
    }
    // None of them runs here: why not of the first.
    let none = of(&json!({"manifests": [entry(&other, json!({}))]}));
    let server = documents(vec![(INDEX, none), (MANIFEST, other), ("", windows)]);
    let error = Home::new().find(&format!("{}/app:1", server.host)).unwrap_err();
    assert!(error.chain().ends_with("is made for 'windows', not for linux"), "{}", error.chain());
}

#[test]
fn a_candidate_that_is_too_large_or_missing_is_not_the_last_one() {
    let of = |value: &Value| value.to_string().into_bytes();
    let image = Image::new(100);
    let entry = |kind: &str, seed: &str, size: u64| json!({"mediaType": kind, "size": size, "digest": Digest::of(seed.as_bytes()).to_string()});
    let large = entry(MANIFEST, "large", 5 << 20);
    let missing = entry(MANIFEST, "missing", 100);
    // Its configuration is not there, or too large.
    let config = "application/vnd.oci.image.config.v1+json";
    let hollow = of(&json!({"config": entry(config, "no", 9), "layers": []}));
    let heavy = of(&json!({"config": entry(config, "no", 9 << 20), "layers": []}));
    let odd = [large, missing, descriptor(MANIFEST, &hollow), descriptor(MANIFEST, &heavy)];
    let index = |entries: &[Value]| of(&json!({"schemaVersion": 2, "manifests": entries}));
    let serve = |index: Vec<u8>| {
        documents(vec![
            (INDEX, index),
            (MANIFEST, image.manifest.clone()),
            (MANIFEST, hollow.clone()),
            (MANIFEST, heavy.clone()),
            ("", image.config.clone()),
        ])
    };
    for one in &odd {
        let server = serve(index(&[one.clone(), descriptor(MANIFEST, &image.manifest)]));
        let found = Home::new().find(&format!("{}/app:1", server.host)).unwrap();
        assert_eq!(found.digest, Digest::of(&image.manifest), "{one}");
    }
    // If there is none, each is named with its reason.
    let server = serve(index(&odd));
    let error = Home::new().find(&format!("{}/app:1", server.host)).unwrap_err();
    let words = error.chain();
    for one in &odd {
        let digest = &one["digest"].as_str().unwrap()["sha256:".len()..][..12];
        assert!(words.contains(&format!("'{digest}': ")), "{words}");
    }
    assert_eq!(error.hint_text(), Some("choose another tag, or tell who made the image"));
    // A registry that is in trouble is not one without the image.
    let server = serve(index(&[odd[1].clone(), descriptor(MANIFEST, &image.manifest)]));
    let host = server.host.clone();
    let trouble = Server::start(move |asked| {
        if asked.path.ends_with(&Digest::of(b"missing").to_string()) {
            return Reply::of(b"").status(500);
        }
        Reply::of(b"").status(307).with("Location", &format!("http://{host}{}", asked.path))
    });
    let error = Home::new().find(&format!("{}/app:1", trouble.host)).unwrap_err();
    assert!(error.chain().contains("status 500"), "{}", error.chain());
}

#[test]
fn names_of_a_layout_are_said_once_each() {
    let home = Home::new();
    let dir = home.dir.path().join("layout");
    fs::create_dir(&dir).unwrap();
    let entry = |name: &str, seed: &str| {
        json!({"mediaType": MANIFEST, "size": 1, "digest": Digest::of(seed.as_bytes()).to_string(),
               "annotations": {"org.opencontainers.image.ref.name": name}})
    };
    let all = [entry("b", "1"), entry("a", "2"), entry("b", "3"), entry("a", "4")];
    fs::write(dir.join("index.json"), json!({"manifests": all}).to_string()).unwrap();
    let source = format!("oci:{}", dir.display());
    let error = home.find(&source).unwrap_err();
    assert_eq!(error.hint_text().unwrap(), format!("name one: {source}:a or b"));
}

#[test]
fn no_byte_of_an_image_is_said_as_it_is() {
    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    let loud = "\u{1b}]0;OWNED\u{7}\u{1b}[2J\nbanger: all is well\u{202e}\u{200b}".repeat(1000);
    let of = |value: &Value| value.to_string().into_bytes();
    let config = of(&json!({"architecture": loud, "os": "linux"}));
    let image = json!({"schemaVersion": 2, "config": descriptor(CONFIG, &config), "layers": []});
    let with = |path: &str, value: Value| {
        let mut image = image.clone();
        *image.pointer_mut(path).unwrap() = value;
        image
    };
    let layer = |more: Value| {
        let mut layer = descriptor("application/vnd.oci.image.layer.v1.tar", b"");
        layer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with("/layers", json!([layer]))
    };
    for manifest in [
        image.clone(),
        with("/config/mediaType", json!(loud)),
        with("/config/digest", json!(loud)),
        with("/config/digest", json!(format!("{loud}:00"))),
        with("/config/size", json!(loud)),
        with("/schemaVersion", json!({"a": loud})),
        layer(json!({"mediaType": format!("application/vnd.{loud}")})),
        layer(json!({"digest": format!("sha256:{loud}")})),
        layer(json!({"size": loud})),
        json!({"schemaVersion": 2, "blobs": [], "artifactType": loud}),
        json!({"schemaVersion": 2, "mediaType": loud, "manifests": []}),
        json!({"schemaVersion": 2, "manifests": [
            {"mediaType": MANIFEST, "digest": loud,
             "platform": {"os": "linux", "architecture": "amd64"}}]}),
        json!({"schemaVersion": 2, "manifests": [
            {"mediaType": MANIFEST, "platform": {"os": loud, "architecture": loud, "variant": loud}}]}),
    ] {
        let server = documents(vec![("", of(&manifest)), ("", config.clone())]);
        let error = Home::new().find(&format!("{}/app:1", server.host)).unwrap_err().report();
        for words in [&error.message, error.hint.as_ref().unwrap_or(&error.message)] {
            assert!(words.chars().count() <= 1000, "{} columns", words.chars().count());
            let plain = words.chars().all(|c| c.is_ascii_graphic() || c == ' ' || c == '…');
            assert!(plain, "{words:?}");
        }
    }
}

#[test]
fn a_redirect_to_another_host_takes_no_authorization_along() {
    let image = Arc::new(Image::new(100_000));
    let layer = image.layer.clone();
    let (first, second) = (Arc::clone(&image), Arc::clone(&image));
    let store = Server::start(move |asked| second.serve(asked));
    let target = store.host.clone();
    let server = Server::start(move |asked| {
        if asked.path.starts_with("/token") {
            return Reply::of(br#"{"token":"sesame"}"#);
        }
        if asked.header("authorization") != Some("Bearer sesame") {
            let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", asked.host());
            return Reply::of(b"").status(401).with("WWW-Authenticate", &realm);
        }
        if asked.path.contains("/blobs/") {
            let to = format!("http://{target}{}", asked.path);
            return Reply::of(b"").status(307).with("Location", &to);
        }
        first.serve(asked)
    });
    assert_eq!(pull(&Home::new(), &server).unwrap(), layer);
    let carried =
        store.asked("/").iter().filter(|asked| asked.header("authorization").is_some()).count();
    assert_eq!(carried, 0);
    assert_eq!(store.asked("/blobs/").len(), 2);
    let token = &server.asked("/token")[0];
    assert!(token.path.contains("scope=repository%3Aapp%3Apull"), "{}", token.path);
    assert!(token.path.contains("service=s"), "{}", token.path);
}

#[test]
fn redirects_in_a_circle_and_to_odd_places_are_refused() {
    for (to, part) in [
        ("/v2/app/manifests/1", "redirects more than 10 times"),
        ("file:///etc/passwd", "no address"),
        ("http://169.254.169.254/latest", "not encrypted"),
        ("http://user:pw@127.0.0.1/x", "no address"),
    ] {
        let server = Server::start(move |_| Reply::of(b"").status(302).with("Location", to));
        refused(&server, part);
    }
    let server = Server::start(|_| Reply::of(b"").status(302));
    refused(&server, "redirects to nowhere");
}

#[test]
fn a_login_is_not_sent_where_it_could_be_read() {
    for (realm, part) in [
        ("http://login.example/token", "not encrypted"),
        ("ftp://x", "not encrypted"),
        ("nonsense", "no address"),
        ("http://user@127.0.0.1/", "no address"),
    ] {
        let server = Server::start(move |_| {
            let challenge = format!("Bearer realm=\"{realm}\"");
            Reply::of(b"").status(401).with("WWW-Authenticate", &challenge)
        });
        refused(&server, part);
    }
    let server = Server::start(|_| Reply::of(b"").status(401).with("WWW-Authenticate", "Bearer"));
    refused(&server, "wants a login");
    let server = Server::start(|_| Reply::of(b"").status(401).with("WWW-Authenticate", "Basic"));
    refused(&server, "wants a login");
}

#[test]
fn odd_tokens_are_refused_and_expired_ones_renewed() {
    for (reply, part) in [
        (&b"{\"token\":\"a\\nb\"}"[..], "no usable token"),
        (b"{}", "no usable token"),
        (b"nonsense", "is no token"),
    ] {
        let server = Server::start(move |asked| {
            if asked.path.starts_with("/token") {
                return Reply::of(reply);
            }
            let realm = format!("Bearer realm=\"http://{}/token\"", asked.host());
            Reply::of(b"").status(401).with("WWW-Authenticate", &realm)
        });
        refused(&server, part);
    }

    // Each token serves for two requests.
    let image = Image::new(100_000);
    let layer = image.layer.clone();
    let (issued, used) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let server = Server::start(move |asked| {
        if asked.path.starts_with("/token") {
            used.store(0, Ordering::Relaxed);
            let number = issued.fetch_add(1, Ordering::Relaxed) + 1;
            return Reply::of(format!("{{\"access_token\":\"t{number}\"}}").as_bytes());
        }
        let current = format!("Bearer t{}", issued.load(Ordering::Relaxed));
        if asked.header("authorization") == Some(&current)
            && used.fetch_add(1, Ordering::Relaxed) < 2
        {
            return image.serve(asked);
        }
        let realm = format!("Bearer realm=\"http://{}/token\"", asked.host());
        Reply::of(b"").status(401).with("WWW-Authenticate", &realm)
    });
    assert_eq!(pull(&Home::new(), &server).unwrap(), layer);
    assert_eq!(server.asked("/token").len(), 2);
}

#[test]
fn a_document_that_crawls_is_given_up() {
    for part in ["/manifests/", "/blobs/"] {
        let image = Image::new(1000);
        let config = Digest::of(&image.config).to_string();
        let server = Server::start(move |asked| {
            let reply = image.serve(asked);
            let slow =
                asked.path.contains(part) && (part != "/blobs/" || asked.path.ends_with(&config));
            if slow { reply.drip() } else { reply }
        });
        refused_by(Home::driving(), &server, "less than 64 KiB came in 1.5 s");
    }
}

/// A registry with two mirrors before it.
fn mirrored(home: &mut Home, registry: &Server, mirrors: &[&Server]) {
    home.settings.mirrors = mirrors
        .iter()
        .map(|mirror| (registry.host.clone(), format!("{}/hub", mirror.host)))
        .collect();
}

#[test]
fn a_mirror_is_asked_in_place_of_its_registry() {
    let image = Arc::new(Image::new(100_000));
    let layer = image.layer.clone();
    let (first, second) = (Arc::clone(&image), Arc::clone(&image));
    let registry = Server::start(move |asked| first.serve(asked));
    let mirror = Server::start(move |asked| second.serve(asked));
    let mut home = Home::new();
    mirrored(&mut home, &registry, &[&mirror]);
    assert_eq!(pull(&home, &registry).unwrap(), layer);
    assert_eq!(registry.asked("/").len(), 0);
    assert!(mirror.asked("/").iter().all(|asked| asked.path.starts_with("/v2/hub/app/")));
    // The same again asks the mirror whether the tag moved: this one answers only the second time.
    let asked = mirror.asked("/").len();
    assert_eq!(pull(&home, &registry).unwrap(), layer);
    assert_eq!((registry.asked("/").len(), mirror.asked("/").len()), (0, asked + 2));
}

#[test]
fn mirrors_that_fail_are_passed_over_one_after_the_other() {
    let image = Arc::new(Image::new(100_000));
    let layer = image.layer.clone();
    let (first, second) = (Arc::clone(&image), Arc::clone(&image));
    let registry = Server::start(move |asked| first.serve(asked));
    let empty = Server::start(|_| Reply::of(b"").status(404));
    // One that has the manifest and nothing else.
    let half = Server::start(move |asked| {
        if asked.path.contains("/blobs/") {
            Reply::of(b"").status(403)
        } else {
            second.serve(asked)
        }
    });
    let mut home = Home::new();
    mirrored(&mut home, &registry, &[&empty, &half]);
    assert_eq!(pull(&home, &registry).unwrap(), layer);
    assert_eq!(empty.asked("/").len(), 1, "who failed is not asked again");
    assert_eq!(half.asked("/blobs/").len(), 1);
    assert_eq!(registry.asked("/manifests/").len(), 0);
    assert_eq!(registry.asked("/blobs/").len(), 2);
    home.settings.mirrors[0].1 = "not/an address".into();
    let error = pull(&home, &registry).unwrap_err();
    assert!(error.chain().contains("is no address of a mirror"), "{}", error.chain());
}

#[test]
fn a_mirror_that_breaks_off_is_followed_by_the_registry_from_there() {
    let image = Arc::new(Image::new(2_000_000));
    let layer = image.layer.clone();
    let (first, second) = (Arc::clone(&image), Arc::clone(&image));
    let registry = Server::start(move |asked| first.serve(asked));
    let mirror = Server::start(move |asked| {
        let reply = second.serve(asked);
        if reply.body.len() > 900_000 { reply.cut_after(700_000) } else { reply }
    });
    let mut home = Home::new();
    home.settings.attempts = 1;
    mirrored(&mut home, &registry, &[&mirror]);
    assert_eq!(pull(&home, &registry).unwrap(), layer);
    let asked = registry.asked("/");
    assert_eq!(asked.len(), 1);
    assert!(asked[0].range().is_some_and(|from| from >= 600_000), "{:?}", asked[0].range());
}

#[test]
fn a_mirror_sees_no_ticket_of_its_registry_and_is_named_when_it_lies() {
    let image = Arc::new(Image::new(100_000));
    let (first, second) = (Arc::clone(&image), Arc::clone(&image));
    let registry = Server::start(move |asked| {
        if asked.path.starts_with("/token") {
            return Reply::of(br#"{"token":"sesame"}"#);
        }
        if asked.header("authorization") != Some("Bearer sesame") {
            let realm = format!("Bearer realm=\"http://{}/token\"", asked.host());
            return Reply::of(b"").status(401).with("WWW-Authenticate", &realm);
        }
        first.serve(asked)
    });
    // It tells the truth about all but the layer.
    let large = Digest::of(&image.layer).to_string();
    let mirror = Server::start(move |asked| {
        let mut reply = second.serve(asked);
        if asked.path.contains(&large) {
            reply.body[5] ^= 1;
        }
        reply
    });
    let mut home = Home::new();
    let found = home.find(&format!("{}/app:1", registry.host)).unwrap();
    assert!(found.layers.len() == 1 && !registry.asked("/token").is_empty());
    drop(found);
    mirrored(&mut home, &registry, &[&mirror]);
    let error = pull(&home, &registry).unwrap_err().chain();
    assert!(
        error.contains("has the digest") && error.contains("from mirror '127.0.0.1"),
        "{error}"
    );
    assert!(mirror.asked("/").iter().all(|asked| asked.header("authorization").is_none()));
    assert_eq!(home.partials(), 0);
}

#[test]
fn indexes_are_followed_only_so_deep() {
    let image = Image::new(1000);
    let layer = image.layer.clone();
    let mut chain = vec![image.manifest.clone()];
    for _ in 0..4 {
        let kind = if chain.len() == 1 { MANIFEST } else { INDEX };
        let mut entry = descriptor(kind, chain.last().unwrap());
        entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
        chain.push(index.to_string().into_bytes());
    }
    for (depth, good) in [(1, true), (2, true), (3, false), (4, false)] {
        let (top, all) = (chain[depth].clone(), chain.clone());
        let served = Image {
            layer: image.layer.clone(),
            config: image.config.clone(),
            manifest: image.manifest.clone(),
        };
        let server = Server::start(move |asked| {
            let by_digest =
                all.iter().find(|bytes| asked.path.ends_with(&Digest::of(bytes).to_string()));
            match by_digest {
                Some(bytes) if *bytes == all[0] => Reply::of(bytes).with("Content-Type", MANIFEST),
                Some(bytes) => Reply::of(bytes).with("Content-Type", INDEX),
                None if asked.path.contains("/manifests/") => {
                    Reply::of(&top).with("Content-Type", INDEX)
                }
                None => served.serve(asked),
            }
        });
        if good {
            assert_eq!(pull(&Home::new(), &server).unwrap(), layer, "{depth}");
        } else {
            refused(&server, "nested more than 2 deep");
        }
    }
}

#[test]
fn two_pulls_at_once_share_one_download() {
    let image = Image::new(3_000_000);
    let layer = image.layer.clone();
    let server = Server::start(move |asked| {
        let reply = image.serve(asked);
        if reply.body.len() > 1_000_000 { reply.slowly() } else { reply }
    });
    let home = Home::new();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(pull(&home, &server).unwrap(), layer));
        }
    });
    let name = Digest::of(&layer).to_string();
    assert_eq!(server.asked(&name).len(), 1);
    assert_eq!((home.blobs(), home.partials()), (3, 0));
}

#[test]
fn a_damaged_blob_of_the_cache_is_fetched_again() {
    let image = Image::new(100_000);
    let layer = image.layer.clone();
    let server = Server::start(move |asked| image.serve(asked));
    let home = Home::new();
    pull(&home, &server).unwrap();
    let path = home.dir.path().join("state/cache/oci/blobs/sha256").join(Digest::of(&layer).hex());
    for damage in [vec![0; 100_000], layer[..5].to_vec(), Vec::new()] {
        fs::write(&path, damage).unwrap();
        assert_eq!(pull(&home, &server).unwrap(), layer);
    }
    assert_eq!(server.asked(&Digest::of(&layer).to_string()).len(), 4);
}

#[test]
fn a_layer_that_is_not_read_to_its_end_is_finished_by_confirm() {
    let image = Image::new(300_000);
    let bad = Image::of(image.layer.clone());
    let server = Server::start(move |asked| image.serve(asked));
    let home = Home::new();
    let found = home.find(&format!("{}/app:1", server.host)).unwrap();
    found.layers[0].open().unwrap().read_exact(&mut [0; 10]).unwrap();
    assert!(!found.layers[0].progress().is_whole());
    found.layers[0].confirm().unwrap();
    assert!(found.layers[0].progress().is_whole());
    drop(found);

    let server = Server::start(move |asked| {
        let mut reply = bad.serve(asked);
        if reply.body.len() > 200_000 {
            *reply.body.last_mut().unwrap() ^= 1;
        }
        reply
    });
    let home = Home::new();
    let found = home.find(&format!("{}/app:1", server.host)).unwrap();
    found.layers[0].open().unwrap().read_exact(&mut [0; 10]).unwrap();
    assert!(found.layers[0].confirm().is_err());
}

#[test]
fn pruning_waits_for_a_pull_and_then_leaves_an_empty_layout() {
    let image = Image::new(100_000);
    let server = Server::start(move |asked| image.serve(asked));
    let home = Home::new();
    pull(&home, &server).unwrap();
    let state = State::at(home.dir.path().join("state")).unwrap();
    let would = Cache::prune(&state, true).unwrap();
    assert!(would.files == 3 && would.bytes >= 100_000, "{would:?}");
    assert_eq!(home.blobs(), 3);
    let found = home.find(&format!("{}/app:1", server.host)).unwrap();
    assert!(Cache::prune(&state, false).is_err());
    drop(found);
    assert_eq!(Cache::prune(&state, false).unwrap().files, 3);
    assert_eq!(Cache::prune(&state, true).unwrap().files, 0);
    pull(&home, &server).unwrap();
    assert_eq!(home.blobs(), 3);
}

#[test]
fn when_one_layer_fails_the_others_are_not_waited_for() {
    let (first, second) = (Image::new(1_000_000), Image::new(2_000_000));
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers",
        "diff_ids": [Digest::of(&first.layer).to_string(), Digest::of(&second.layer).to_string()]}})
    .to_string()
    .into_bytes();
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let manifest = json!({"schemaVersion": 2,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor(kind, &first.layer), descriptor(kind, &second.layer)]})
    .to_string()
    .into_bytes();
    let both = Image { layer: first.layer.clone(), config, manifest };
    let stalling = Digest::of(&second.layer).to_string();
    let server = Server::start(move |asked| {
        if asked.path.contains(&Digest::of(&second.layer).to_string()) {
            return second.serve(asked).stall_after(100);
        }
        both.serve(asked)
    });
    let mut home = Home::hasty();
    home.settings.attempts = 50;
    let found = home.find(&format!("{}/app:1", server.host)).unwrap();
    let start = Instant::now();
    thread::scope(|scope| {
        let stalled = scope.spawn(|| read(&found.layers[1]));
        // It is in the middle of it when the other fails.
        while server.asked(&stalling).is_empty() {
            assert!(start.elapsed() < Duration::from_secs(20), "nobody reads the second layer");
            thread::sleep(Duration::from_millis(5));
        }
        // What a writer does that finds no tar in it.
        found.layers[0].open().unwrap().read_exact(&mut [0; 100]).unwrap();
        // Why is for that one to say.
        assert_eq!(stalled.join().unwrap().unwrap_err().chain(), "another layer failed");
    });
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
}
