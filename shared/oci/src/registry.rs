//! The conversation with a registry (OCI distribution-spec; distribution's `token.md`).

use crate::{
    auth::{self, Challenge, Credentials},
    digest::{Digest, shown},
    fields::{self, Fields},
    http::{Failure, Http, ITS_FAULT, Request, Settings, read_body},
    manifest::{ACCEPT, Blob, MAX_MANIFEST},
    pace::Pace,
    reference::Reference,
    retry,
};
use banger_doc::{Context, Error, Kind, Result, shell_word};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};
use ureq::{Body, http::Response};

/// The largest answer of a token server.
const MAX_TOKEN: u64 = 1 << 20;

/// What helps where what came is not what was announced.
pub(crate) const AGAIN: &str =
    "pull it again; if that changes nothing, it is broken where it comes from";

/// A client of registries; one serves all threads of a pull.
#[derive(Debug)]
pub struct Client {
    http: Http,
    schemes: Mutex<HashMap<String, &'static str>>,
    tickets: Mutex<HashMap<String, String>>,
    passed: Mutex<Passed>,
}

/// Mirrors that were of no use.
#[derive(Debug, Default)]
struct Passed {
    registries: Vec<String>,
    /// Why, for whoever asks.
    words: Vec<String>,
}

/// A manifest or an index as a registry sent it.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub blob: Blob,
    pub bytes: Vec<u8>,
    pub media_type: Option<String>,
}

impl Client {
    /// Makes a client.
    pub fn new(settings: Settings) -> Self {
        Self {
            http: Http::new(settings),
            schemes: Mutex::default(),
            tickets: Mutex::default(),
            passed: Mutex::default(),
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        self.http.settings()
    }

    /// Asks what a tag leads to without fetching it; registries do not count that as a pull. `None`
    /// if the registry does not say.
    pub(crate) fn head(&self, reference: &Reference) -> Result<Option<Digest>> {
        let path = format!("manifests/{}", reference.identifier());
        let request = Request { head: true, accept: ACCEPT.to_vec(), ..Request::default() };
        let (response, _) = self.first_of(reference, |place| {
            let response = self.ask(place, &path, request.clone())?;
            if place != reference && response.status() != 200 {
                return Err(refused(place, &path, response, self.http.pace()));
            }
            Ok(response)
        })?;
        if response.status() != 200 {
            return Ok(None);
        }
        Ok(header(&response, "docker-content-digest").and_then(|text| text.parse().ok()))
    }

    /// Asks the mirrors of a registry, one after the other, and then the registry itself. Returns
    /// the first answer and whose it is. A mirror that has failed is not asked again.
    fn first_of<T>(
        &self,
        reference: &Reference,
        ask: impl Fn(&Reference) -> Result<T>,
    ) -> Result<(T, Reference)> {
        let mirrors = self.settings().mirrors.iter();
        for (_, mirror) in mirrors.filter(|(registry, _)| registry == reference.registry()) {
            let place = reference.at(mirror).ok_or_else(|| {
                Error::usage(format!("'{}' is no address of a mirror", shown(mirror)))
                    .hint("write it as 'host', 'host:port' or 'host/path' in config.toml")
            })?;
            let passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
            if passed.registries.iter().any(|one| one == place.registry()) {
                continue;
            }
            drop(passed);
            match ask(&place) {
                Ok(answer) => return Ok((answer, place)),
                Err(error) => self.pass_over(&place, &error),
            }
        }
        Ok((ask(reference)?, reference.clone()))
    }

    /// Notes that a mirror was of no use, so that it is not asked again.
    pub(crate) fn pass_over(&self, place: &Reference, why: &Error) {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        if passed.registries.iter().any(|one| one == place.registry()) {
            return;
        }
        passed.registries.push(place.registry().to_owned());
        passed.words.push(format!(
            "mirror '{}' is of no use: {}; asking the next",
            place.registry(),
            why.chain()
        ));
    }

    /// Takes what there is to say of mirrors that were of no use.
    pub(crate) fn passed_over(&self) -> Vec<String> {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut passed.words)
    }

    /// Fetches the manifest or index a tag or a digest leads to.
    pub(crate) fn manifest(&self, reference: &Reference, identifier: &str) -> Result<Fetched> {
        let path = format!("manifests/{identifier}");
        let request = Request { accept: ACCEPT.to_vec(), ..Request::default() };
        let (response, _) =
            self.first_of(reference, |place| self.expect(place, &path, request.clone(), &[200]))?;
        let media_type = header(&response, "content-type").map(str::to_owned);
        let told = header(&response, "docker-content-digest").map(str::to_owned);
        let bytes = read_body(response.into_body(), MAX_MANIFEST, self.http.pace())
            .with_context(|| format!("cannot read the manifest of '{reference}'"))
            .map_err(|error| error.hint(AGAIN))?
            .ok_or_else(|| {
                Error::failed(format!(
                    "the manifest of '{reference}' is larger than {MAX_MANIFEST} bytes"
                ))
            })?;
        let blob = Blob::of(&bytes);
        let wanted = if identifier.contains(':') { Some(identifier.to_owned()) } else { told };
        if wanted.as_ref().is_some_and(|wanted| *wanted != blob.digest.to_string()) {
            return Err(Error::failed(format!(
                "the manifest of '{reference}' has the digest '{}', not '{}'",
                blob.digest,
                shown(&wanted.unwrap_or_default())
            ))
            .hint("the registry, or something on the way to it, changed the manifest"));
        }
        Ok(Fetched { blob, bytes, media_type })
    }

    /// Fetches a small blob whole and checks it.
    pub(crate) fn small_blob(&self, reference: &Reference, blob: &Blob) -> Result<Vec<u8>> {
        let path = format!("blobs/{}", blob.digest);
        let (response, _) = self
            .first_of(reference, |place| self.expect(place, &path, Request::default(), &[200]))?;
        let bytes = read_body(response.into_body(), blob.size, self.http.pace())
            .with_context(|| format!("cannot read blob '{}' of '{reference}'", blob.digest))
            .map_err(|error| error.hint(AGAIN))?;
        match bytes {
            Some(bytes) if Blob::of(&bytes) == *blob => Ok(bytes),
            _ => Err(Error::failed(format!(
                "blob '{}' of '{reference}' is not what its digest and size say",
                blob.digest
            ))
            .hint(AGAIN)),
        }
    }

    /// Opens a blob from a byte on; says who answers. The answer is 206, or 200 with the blob from
    /// its beginning.
    pub(crate) fn open_blob(
        &self,
        reference: &Reference,
        blob: &Blob,
        from: u64,
    ) -> Result<(Response<Body>, Reference)> {
        let path = format!("blobs/{}", blob.digest);
        let request = Request { range_from: (from > 0).then_some(from), ..Request::default() };
        self.first_of(reference, |place| self.expect(place, &path, request.clone(), &[200, 206]))
    }

    /// Asks until the answer is one of `wanted`, or certainly another.
    fn expect(
        &self,
        reference: &Reference,
        path: &str,
        request: Request,
        wanted: &[u16],
    ) -> Result<Response<Body>> {
        let mut attempt = 0;
        let mut waited = Duration::ZERO;
        loop {
            let response = self.ask(reference, path, request.clone())?;
            let status = response.status().as_u16();
            if wanted.contains(&status) {
                return Ok(response);
            }
            attempt += 1;
            let passing = matches!(status, 408 | 429 | 500 | 502 | 503 | 504);
            let asked = retry::after(&response).unwrap_or_default();
            let sum = retry::wait(asked, waited)
                .filter(|_| passing && attempt < self.settings().attempts);
            let Some(sum) = sum else {
                return Err(refused(reference, path, response, self.http.pace()));
            };
            waited = sum;
            if asked >= Duration::from_secs(1) {
                self.settings().say.tell(&format!(
                    "registry '{}' asks to wait {} (status {status}); waiting",
                    reference.registry(),
                    retry::spelled(asked)
                ));
            }
            pause(attempt, asked);
        }
    }

    /// Sends one request with whatever authorization the registry wants to see.
    fn ask(&self, reference: &Reference, path: &str, request: Request) -> Result<Response<Body>> {
        let mut shown_ticket = self.ticket(reference);
        let mut fresh = false;
        loop {
            let mut request = request.clone();
            request.authorization.clone_from(&shown_ticket);
            let response = self.reach(reference, path, request)?;
            if response.status() != 401 {
                return Ok(response);
            }
            let challenge = auth::challenge(
                response
                    .headers()
                    .get_all("www-authenticate")
                    .iter()
                    .filter_map(|v| v.to_str().ok()),
            );
            let Some(challenge) = challenge.filter(|_| !fresh) else {
                return Err(denied(reference));
            };
            fresh = true;
            shown_ticket = Some(self.authorize(reference, &challenge, shown_ticket.as_deref())?);
        }
    }

    fn ticket(&self, reference: &Reference) -> Option<String> {
        let tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.get(&place(reference)).cloned()
    }

    /// Returns an authorization other than the one that was refused. One thread gets it, the others
    /// wait for it.
    fn authorize(
        &self,
        reference: &Reference,
        challenge: &Challenge,
        refused: Option<&str>,
    ) -> Result<String> {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = tickets.get(&place(reference))
            && refused != Some(other)
        {
            return Ok(other.clone());
        }
        let credentials = auth::find(reference.registry(), reference.repository())?;
        let ticket = match challenge {
            Challenge::Basic => credentials
                .and_then(|credentials| credentials.basic())
                .ok_or_else(|| denied(reference))?,
            Challenge::Bearer { realm, service } => {
                self.token(reference, realm, service.as_deref(), credentials.as_ref())?
            }
        };
        tickets.insert(place(reference), ticket.clone());
        Ok(ticket)
    }

    fn token(
        &self,
        reference: &Reference,
        realm: &str,
        service: Option<&str>,
        credentials: Option<&Credentials>,
    ) -> Result<String> {
        let registry = reference.registry();
        let bad = |why: &str| {
            Error::failed(format!(
                "registry '{registry}' sends logins to '{}', {why}",
                shown(realm)
            ))
            .hint(ITS_FAULT)
        };
        let (scheme, rest) = realm.split_once("://").ok_or_else(|| bad("which is no address"))?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if authority.contains('@') || authority.is_empty() {
            return Err(bad("which is no address"));
        }
        match scheme {
            "https" => {}
            "http" if self.http.may_be_plain(authority) => {}
            _ => return Err(bad("which is not encrypted")),
        }
        // What is asked for is ours to say: reading this repository, whatever the registry names.
        let scope = format!("repository:{}:pull", reference.repository());
        let mut fields = vec![("scope", scope)];
        fields.extend(service.map(|service| ("service", service.to_owned())));
        let mut request = Request { url: realm.to_owned(), ..Request::default() };
        if let Some(Credentials::Identity(token)) = credentials {
            fields.push(("grant_type", "refresh_token".into()));
            fields.push(("refresh_token", token.clone()));
            fields.push(("client_id", "banger".into()));
            request.form = Some(fields);
        } else {
            request.query = fields;
            request.authorization = credentials.and_then(Credentials::basic);
        }
        let response = self.http.send(&request).map_err(plain)?;
        let status = response.status().as_u16();
        if matches!(status, 400 | 401 | 403) && credentials.is_some() {
            return Err(denied(reference));
        }
        if status != 200 {
            let (words, later) = match retry::after(&response).map(retry::spelled) {
                Some(time) => {
                    (format!("; it asks to be left alone for {time}"), format!("in {time}"))
                }
                None => (String::new(), "later".to_owned()),
            };
            return Err(Error::failed(format!(
                "cannot log in to '{registry}': '{}' answers with status {status}{words}",
                shown(authority)
            ))
            .hint(format!("try again {later}")));
        }
        let reply = read_body(response.into_body(), MAX_TOKEN, self.http.pace())
            .with_context(|| format!("cannot log in to '{registry}'"))
            .map_err(|error| error.hint("try again later"))?
            .ok_or_else(|| {
                Error::failed(format!("cannot log in to '{registry}': the token is too long"))
                    .hint(ITS_FAULT)
            })?;
        read_token(&reply)
            .map(|token| format!("Bearer {token}"))
            .with_context(|| format!("cannot log in to '{registry}'"))
            .map_err(|error| error.hint(ITS_FAULT))
    }

    /// Sends a request to where the registry is, by TLS, or without where that may be.
    fn reach(
        &self,
        reference: &Reference,
        path: &str,
        mut request: Request,
    ) -> Result<Response<Body>> {
        let registry = reference.registry();
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let known = self.schemes.lock().unwrap_or_else(PoisonError::into_inner).get(host).copied();
        let mut scheme = known.unwrap_or("https");
        let mut attempt = 0;
        loop {
            request.url = format!("{scheme}://{host}/v2/{}/{path}", reference.repository());
            let error = match self.http.send(&request) {
                Ok(response) => {
                    if known.is_none() {
                        let mut schemes =
                            self.schemes.lock().unwrap_or_else(PoisonError::into_inner);
                        schemes.insert(host.to_owned(), scheme);
                    }
                    return Ok(response);
                }
                Err(Failure::NoTls) if scheme == "https" && self.http.may_be_plain(host) => {
                    scheme = "http";
                    continue;
                }
                Err(Failure::NoTls) => {
                    return Err(Error::failed(format!("registry '{registry}' does not speak TLS"))
                        .hint(format!(
                            "if that is meant to be, add '{registry}' to insecure_registries in \
                             config.toml"
                        )));
                }
                Err(Failure::Lasting(error) | Failure::Distrust(error)) => return Err(error),
                Err(Failure::Passing(error)) => error,
            };
            attempt += 1;
            // Who never answered is not asked again: the next source is tried sooner.
            if known.is_none() || attempt >= self.settings().attempts {
                return Err(error);
            }
            pause(attempt, Duration::ZERO);
        }
    }
}

/// Reads what a token server answers.
pub(crate) fn read_token(reply: &[u8]) -> Result<String> {
    let text = fields::text(reply);
    let reply =
        Fields::read(&text, &["token", "access_token"]).context("the answer is no token")?;
    let named = |name: &str| reply.text(name).context("the answer is no token");
    let token = Some(named("token")?).filter(|token| !token.is_empty());
    token
        .map_or_else(|| named("access_token"), Ok)
        .map(Some)?
        // It becomes a line of a request.
        .filter(|token| token.bytes().all(|b| b.is_ascii_graphic()) && token.len() < 60_000)
        .filter(|token| !token.is_empty())
        .ok_or_else(|| Error::failed("the answer holds no usable token"))
}

/// Says that a registry wants somebody else to ask.
fn denied(reference: &Reference) -> Error {
    let registry = reference.registry();
    let credentials = auth::find(registry, reference.repository());
    let error = match credentials {
        Ok(Some(credentials)) => Error::failed(format!(
            "registry '{registry}' does not let user '{}' read '{}'",
            shown(credentials.user()),
            reference.repository()
        )),
        _ => Error::failed(format!(
            "registry '{registry}' has no '{}', or wants a login for it",
            reference.repository()
        )),
    };
    error.hint(login(registry))
}

/// Returns what an authorization is valid for.
fn place(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

fn plain(failure: Failure) -> Error {
    match failure {
        Failure::NoTls => Error::failed("the token server does not speak TLS").hint(ITS_FAULT),
        Failure::Passing(error) | Failure::Lasting(error) | Failure::Distrust(error) => error,
    }
}

/// Waits before another attempt: 0.2 s, 0.4 s ... or as long as was asked for and [`retry::wait`]
/// allows.
pub(crate) fn pause(attempt: u32, asked: Duration) {
    let usual = Duration::from_millis(100 << attempt.min(6));
    thread::sleep(if asked.is_zero() { usual } else { asked });
}

/// Turns an unwanted answer into an error, with the registry's own words.
fn refused(reference: &Reference, path: &str, response: Response<Body>, pace: Pace) -> Error {
    let status = response.status().as_u16();
    let registry = reference.registry();
    let again = retry::after(&response).filter(|time| !time.is_zero()).map(retry::spelled);
    let bytes = read_body(response.into_body(), 64 << 10, pace).ok().flatten().unwrap_or_default();
    let mut words = reason(&bytes);
    if let Some(time) = &again {
        words = format!("{words}; it asks to be left alone for {time}");
    }
    let later = again.map_or("later".to_owned(), |time| format!("in {time}"));
    match status {
        404 if path.starts_with("manifests/") => {
            Error::not_found(format!("no image '{reference}' at '{registry}'{words}"))
                .hint("check the name and the tag")
        }
        403 => Error::failed(format!("registry '{registry}' forbids reading '{reference}'{words}"))
            .hint(login(registry)),
        429 => Error::failed(format!("registry '{registry}' limits how often it is asked{words}"))
            .hint(format!(
                "try again {later}; who logs in may ask more often: {}",
                login(registry)
            )),
        _ => Error::new(
            if status == 404 { Kind::NotFound } else { Kind::Failed },
            format!("registry '{registry}' answers with status {status} for '{path}'{words}"),
        )
        .hint(if status >= 500 || status == 408 {
            format!("it is the registry's fault; try again {later}")
        } else {
            "check the name and the tag, and that a registry is at this address".to_owned()
        }),
    }
}

/// Returns what a registry says of a refusal, as ` (CODE: message)`; nothing if it says nothing.
fn reason(body: &[u8]) -> String {
    let text = fields::text(body);
    let first = || -> Result<String> {
        let refusal = Fields::read(&text, &["errors"])?;
        let errors = refusal.list("errors", fields::MANY)?;
        let first = Fields::read(errors.first().unwrap_or(&"{}"), &["code", "message"])?;
        let parts = ["code", "message"].map(|name| shown(&first.text(name).unwrap_or_default()));
        Ok(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": "))
    };
    match first() {
        Ok(words) if !words.is_empty() => format!(" ({words})"),
        _ => String::new(),
    }
}

fn login(registry: &str) -> String {
    let registry = shell_word(registry);
    format!(
        "'docker login {registry}' or 'podman login {registry}' stores a login that banger uses"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_said_as_far_as_the_registry_explains_it() {
        for (body, want) in [
            (r#"{"errors":[{"code":"DENIED","message":"not you"}]}"#, " (DENIED: not you)"),
            (r#"{"errors":[{"code":"UNAVAILABLE","message":""}]}"#, " (UNAVAILABLE)"),
            (r#"{"errors":[{"code":"UNAVAILABLE","detail":{"a":[1]}}]}"#, " (UNAVAILABLE)"),
            (r#"{"errors":[{"code":5,"message":"no"}]}"#, " (no)"),
            (r#"{"errors":[{"message":"no \u001b[2J"}]}"#, " (no \\u{1b}[2J)"),
            (r#"{"errors":[]}"#, ""),
            (r#"{"errors":null}"#, ""),
            (r#"{"errors":"x"}"#, ""),
            ("<html>", ""),
            ("", ""),
        ] {
            assert_eq!(reason(body.as_bytes()), want, "{body}");
        }
    }

    #[test]
    fn tokens_are_read_whatever_stands_beside_them() {
        for (reply, want) in [
            (r#"{"token":"a","expires_in":"soon","issued_at":null}"#, Some("a")),
            (r#"{"token":null,"access_token":"b"}"#, Some("b")),
            (r#"{"token":"","access_token":"b","scope":["x"]}"#, Some("b")),
            (r#"{"token":5}"#, None),
            (r#"{"token":"a b"}"#, None),
            ("{}", None),
            ("[]", None),
        ] {
            assert_eq!(read_token(reply.as_bytes()).ok().as_deref(), want, "{reply}");
        }
    }
}
