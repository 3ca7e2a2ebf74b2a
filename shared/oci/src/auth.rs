//! Who we are to a registry: the credentials that `docker login` and `podman login` stored.

use crate::{
    digest::shown,
    fields::{self, Fields},
};
use banger_doc::{Context, Error, Result, shell_word};
use banger_state::read_limited;
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{
    collections::HashMap,
    env,
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// How long a credential helper may think.
const HELPER_LIMIT: Duration = Duration::from_secs(20);
/// The largest file or answer with credentials that is read.
const MAX_BYTES: u64 = 1 << 20;

/// What helps where a credential helper does not.
const HELPER: &str = "log in again; else take the helper out of the file with the logins";

/// What proves who we are.
#[derive(Clone, Eq, PartialEq)]
pub(crate) enum Credentials {
    Password {
        user: String,
        secret: String,
    },
    /// A token that is traded for access tokens (OAuth 2.0, RFC 6749, section 6).
    Identity(String),
}

impl Credentials {
    /// Returns the value of a basic `Authorization` header (RFC 7617); none for a token.
    pub(crate) fn basic(&self) -> Option<String> {
        match self {
            Self::Password { user, secret } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{secret}"))))
            }
            Self::Identity(_) => None,
        }
    }

    /// Returns the user to name in an error.
    pub(crate) fn user(&self) -> &str {
        match self {
            Self::Password { user, .. } => user,
            Self::Identity(_) => "<token>",
        }
    }
}

/// What a file with credentials says; what it says besides is other programs' affair.
#[derive(Default)]
struct File {
    /// An entry that cannot be read matters only to the registry it is for.
    auths: Vec<(String, Result<Entry, String>)>,
    store: String,
    helpers: Vec<(String, String)>,
}

#[derive(Default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identity: String,
}

impl File {
    fn read(text: &str) -> Result<Self> {
        let file = Fields::read(text, &["auths", "credsStore", "credHelpers"])?;
        let entry = |raw: &str| -> Result<Entry> {
            const NAMES: &[&str] = &["auth", "username", "password", "identitytoken"];
            let entry = Fields::read(raw, NAMES)?;
            Ok(Entry {
                auth: entry.text("auth")?,
                username: entry.text("username")?,
                password: entry.text("password")?,
                identity: entry.text("identitytoken")?,
            })
        };
        let auths = file.entries("auths")?.into_iter().map(|(host, raw)| {
            let entry = if raw == "null" { Ok(Entry::default()) } else { entry(raw) };
            (host, entry.map_err(|error| error.chain()))
        });
        Ok(Self {
            auths: auths.collect(),
            store: file.text("credsStore")?,
            helpers: file.labels("credHelpers"),
        })
    }
}

/// Finds the credentials for a repository of a registry: docker's file first, then podman's.
pub(crate) fn find(registry: &str, repository: &str) -> Result<Option<Credentials>> {
    for path in files() {
        let mend = |error: Error| {
            let path = path.display();
            error.or_hint(format!("mend '{path}', or move it away and log in again"))
        };
        let bytes = match path.metadata() {
            Ok(_) => read_limited(&path, MAX_BYTES).map_err(mend)?,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot look at '{}'", path.display()))
                    .map_err(mend);
            }
        };
        let file = File::read(&fields::text(&bytes))
            .with_context(|| format!("cannot read the credentials in '{}'", path.display()))
            .map_err(mend)?;
        if let Some(found) = lookup(&file, registry, repository, &path)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn files() -> Vec<PathBuf> {
    let dir = |name: &str| env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = dir("HOME");
    let docker = dir("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
    let mut files = Vec::new();
    files.extend(docker.map(|dir| dir.join("config.json")));
    files.extend(dir("REGISTRY_AUTH_FILE"));
    files.extend(dir("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")));
    files.extend(home.map(|home| home.join(".config/containers/auth.json")));
    files
}

fn lookup(
    file: &File,
    registry: &str,
    repository: &str,
    path: &Path,
) -> Result<Option<Credentials>> {
    // Docker's own registry is stored under the address it had first.
    let server = if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry };
    let of = |host: &str| file.helpers.iter().find(|(key, _)| key == host).map(|(_, name)| name);
    let helper = of(server).or_else(|| of(registry)).unwrap_or(&file.store);
    if !helper.is_empty()
        && let Some(found) = ask_helper(helper, server)?
    {
        return Ok(Some(found));
    }
    let host = |key: &str| {
        let key =
            key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
        let key = key.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
        if key == "index.docker.io" { "docker.io".to_owned() } else { key.to_ascii_lowercase() }
    };
    // podman stores credentials for parts of a registry, too: the longest path counts.
    let full = format!("{registry}/{repository}/");
    let entry = file
        .auths
        .iter()
        .map(|(key, entry)| (host(key), entry))
        .filter(|(key, _)| full.starts_with(&format!("{key}/")))
        .max_by_key(|(key, _)| key.len());
    entry.map_or(Ok(None), |(key, entry)| {
        entry
            .as_ref()
            .map_err(Error::failed)
            .and_then(read_entry)
            .with_context(|| {
                format!("cannot read the credentials for '{}' in '{}'", shown(&key), path.display())
            })
            .map_err(|error| {
                error.or_hint(format!("'docker login {}' writes them anew", shell_word(key)))
            })
    })
}

fn read_entry(entry: &Entry) -> Result<Option<Credentials>> {
    let filled = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    if let Some(token) = filled(&entry.identity) {
        return Ok(Some(Credentials::Identity(token)));
    }
    if let (Some(user), Some(secret)) = (filled(&entry.username), filled(&entry.password)) {
        return Ok(Some(Credentials::Password { user, secret }));
    }
    let Some(auth) = filled(&entry.auth) else { return Ok(None) };
    let bytes = STANDARD
        .decode(auth.trim())
        .map_err(|_| Error::failed("the field 'auth' is not base64"))?;
    let text =
        String::from_utf8(bytes).map_err(|_| Error::failed("the field 'auth' is not text"))?;
    let (user, secret) = text
        .split_once(':')
        .ok_or_else(|| Error::failed("the field 'auth' holds no 'user:password'"))?;
    let secret = secret.trim_end_matches('\0');
    Ok(Some(Credentials::Password { user: user.into(), secret: secret.into() }))
}

/// Asks a credential helper (docker-credential-helpers' protocol). One that is not installed, or
/// knows nothing, is no answer.
fn ask_helper(helper: &str, server: &str) -> Result<Option<Credentials>> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if !helper.bytes().all(plain) {
        return Err(Error::failed(format!(
            "'{}' is not the name of a credential helper",
            shown(helper)
        ))
        .hint("'credsStore' or 'credHelpers' in the file with the logins names it"));
    }
    let program = format!("docker-credential-{helper}");
    let Ok(path) = which::which(&program) else { return Ok(None) };
    let mut child = Command::new(path)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run '{program}'"))
        .map_err(|error| error.hint(HELPER))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that ends before it reads shows in its status.
        let _ = stdin.write_all(server.as_bytes());
    }
    let stdout = child.stdout.take().expect("because it was asked for");
    let (sender, answer) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = sender.send(stdout.take(MAX_BYTES).read_to_end(&mut bytes).map(|_| bytes));
    });
    let end = Instant::now() + HELPER_LIMIT;
    let status = loop {
        if let Some(status) =
            child.try_wait().with_context(|| format!("cannot wait for '{program}'"))?
        {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::failed(format!(
                "'{program}' gave no answer in {} s",
                HELPER_LIMIT.as_secs()
            ))
            .hint("unlock its key store, or log in again"));
        }
        thread::sleep(Duration::from_millis(5));
    };
    if !status.success() {
        return Ok(None);
    }
    // Something it left running may hold its stdout open.
    let bytes = answer
        .recv_timeout(end.saturating_duration_since(Instant::now()))
        .map_err(|_| {
            Error::failed(format!("'{program}' ended but its answer did not")).hint(HELPER)
        })?
        .with_context(|| format!("cannot read what '{program}' said"))?;
    let text = fields::text(&bytes);
    let read = || -> Result<(String, String)> {
        let answer = Fields::read(&text, &["Username", "Secret"])?;
        Ok((answer.text("Username")?, answer.text("Secret")?))
    };
    let (user, secret) = read()
        .with_context(|| format!("cannot read what '{program}' said"))
        .map_err(|error| error.hint(HELPER))?;
    Ok(Some(if user == "<token>" {
        Credentials::Identity(secret)
    } else {
        Credentials::Password { user, secret }
    }))
}

/// What a registry wants to see (RFC 7235, section 4.1; distribution's `token.md`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// Reads the values of `WWW-Authenticate`; the better of several schemes counts.
pub(crate) fn challenge<'a>(values: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut best = None;
    for value in values {
        let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            best.get_or_insert(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer") {
            let parameters = parameters(rest);
            if let Some(realm) = parameters.get("realm") {
                best = Some(Challenge::Bearer {
                    realm: realm.clone(),
                    service: parameters.get("service").cloned(),
                });
            }
        }
    }
    best
}

/// Reads `key="value", key=value`.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut chars = text.chars().peekable();
    loop {
        let key: String = std::iter::from_fn(|| chars.next_if(|c| *c != '='))
            .filter(|c| !matches!(c, ',' | ' ' | '\t'))
            .collect();
        if chars.next().is_none() || found.len() > 32 {
            return found;
        }
        let mut value = String::new();
        if chars.next_if_eq(&'"').is_some() {
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' => value.extend(chars.next()),
                    c => value.push(c),
                }
            }
        } else {
            value.extend(std::iter::from_fn(|| chars.next_if(|c| !matches!(c, ',' | ' '))));
        }
        found.entry(key.to_ascii_lowercase()).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.map(Into::into) })
        };
        let read = |values: &[&str]| challenge(values.iter().copied());
        assert_eq!(
            read(&[r#"Bearer realm="https://a/t?x=1,2",service="s \"x\"",scope="r:a:pull""#]),
            bearer("https://a/t?x=1,2", Some("s \"x\""))
        );
        assert_eq!(read(&["Basic realm=x", "bearer realm=https://b"]), bearer("https://b", None));
        assert_eq!(read(&["Basic"]), Some(Challenge::Basic));
        assert_eq!(read(&["Bearer service=x", "Negotiate", ""]), None);
    }

    fn credentials(json: &str, registry: &str, repository: &str) -> Option<String> {
        let file = File::read(json).unwrap();
        lookup(&file, registry, repository, Path::new("x")).unwrap()?.basic()
    }

    #[test]
    fn the_longest_matching_entry_counts() {
        // "u:1", "u:2", "u:3"
        let json = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "dTox"},
            "a.example:5000": {"auth": "dToy"},
            "a.example:5000/team": {"auth": "dToz"},
            "empty.example": {}
        }}"#;
        let basic = |secret| Some(format!("Basic {}", STANDARD.encode(format!("u:{secret}"))));
        assert_eq!(credentials(json, "docker.io", "library/x"), basic("1"));
        assert_eq!(credentials(json, "a.example:5000", "other/x"), basic("2"));
        assert_eq!(credentials(json, "a.example:5000", "team/x"), basic("3"));
        assert_eq!(credentials(json, "a.example:5000", "teams/x"), basic("2"));
        assert_eq!(credentials(json, "a.example", "x"), None);
        assert_eq!(credentials(json, "empty.example", "x"), None);
    }

    #[test]
    fn what_is_not_used_of_the_file_never_decides() {
        let basic = Some(format!("Basic {}", STANDARD.encode("u:1")));
        for more in [
            r#""credHelpers": null, "credsStore": null"#,
            r#""credHelpers": [], "credsStore": """#,
            r#""HttpHeaders": {"a": 5}, "psFormat": null, "plugins": [], "proxies": "x""#,
        ] {
            let json = format!(
                r#"{{"auths": {{"h": null, "h.example": {{"auth": "dTox", "email": 5}}}}, {more}}}"#
            );
            assert_eq!(credentials(&json, "h.example", "x"), basic, "{more}");
        }
        assert_eq!(credentials(r#"{"auths": null}"#, "h.example", "x"), None);
        // An entry that is broken matters only to its own registry.
        for odd in [r#"{"auth": 5}"#, r#"{"auth": "%%"}"#, "7", "[]", r#""x""#] {
            let json = format!(
                r#"{{"auths": {{"odd.example": {odd}, "h.example": {{"auth": "dTox"}}}}}}"#
            );
            assert_eq!(credentials(&json, "h.example", "x"), basic, "{odd}");
            assert_eq!(credentials(&json, "other.example", "x"), None, "{odd}");
            let file = File::read(&json).unwrap();
            let error = lookup(&file, "odd.example", "x", Path::new("c.json")).err().unwrap();
            let words = "cannot read the credentials for 'odd.example' in 'c.json': ";
            assert!(error.chain().starts_with(words), "{}", error.chain());
            assert_eq!(error.hint_text(), Some("'docker login odd.example' writes them anew"));
        }
    }

    #[test]
    fn broken_entries_are_named() {
        let file = File::read(r#"{"auths":{"h.example":{"auth":"%%"}}}"#).unwrap();
        let error = lookup(&file, "h.example", "x", Path::new("c.json")).err().unwrap();
        assert_eq!(
            error.chain(),
            "cannot read the credentials for 'h.example' in 'c.json': the field 'auth' is not base64"
        );
        let file = File::read(r#"{"credsStore":"../x"}"#).unwrap();
        let error = lookup(&file, "h.example", "x", Path::new("c.json")).err().unwrap();
        assert!(error.hint_text().unwrap().starts_with("'credsStore' or "), "{error}");
    }

    proptest! {
        #[test]
        fn no_header_makes_the_reader_panic(text in "\\PC{0,120}") {
            let _ = challenge(std::iter::once(text.as_str()));
        }
    }
}
