//! HTTP as a registry needs it: bounded waits, redirects that leak nothing, plain HTTP only where
//! it is harmless or asked for, proxies and private certificate authorities.

use crate::{digest::shown, pace::Pace};
use banger_doc::{Error, Result};
use std::{
    collections::HashMap,
    env,
    io::Read,
    net::IpAddr,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};
use ureq::{
    Agent, Body, Proxy,
    config::RedirectAuthHeaders,
    http::{HeaderMap, Response, Uri},
    tls::{Certificate, RootCerts, TlsConfig},
};

/// The most redirects that are followed (as many as browsers do).
const MAX_REDIRECTS: u32 = 10;

/// What helps where a registry, or what stands before it, answers as none should.
pub(crate) const ITS_FAULT: &str =
    "check that this is the registry you mean; else tell who runs it";

/// How to speak to registries, and how long to wait for them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Registries, `host` or `host:port`, that may be spoken to without TLS; loopback always may.
    pub insecure: Vec<String>,
    /// Registries and who is asked in their place, `host[:port][/path]`, in this order.
    pub mirrors: Vec<(String, String)>,
    /// The longest wait for a name and a connection.
    pub connect: Duration,
    /// The longest silence.
    pub idle: Duration,
    /// How many times a download may fail without getting on.
    pub attempts: u32,
    /// A download that brings less than 64 KiB in this time counts as failed.
    pub crawl: Duration,
    /// Who is told of waits.
    pub say: Say,
}

/// Tells somebody what is being waited for; nobody by default.
#[derive(Clone, Default)]
pub struct Say(Option<Arc<Teller>>);

type Teller = dyn Fn(&str) + Send + Sync;

impl Say {
    /// Tells by a function.
    pub fn by(tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    pub(crate) fn tell(&self, words: &str) {
        if let Some(tell) = &self.0 {
            tell(words);
        }
    }
}

impl std::fmt::Debug for Say {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Say" } else { "Say to nobody" })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            mirrors: Vec::new(),
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            attempts: 5,
            crawl: Duration::from_mins(1),
            say: Say::default(),
        }
    }
}

/// A request without a body, or a form.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub url: String,
    pub head: bool,
    pub accept: Vec<&'static str>,
    pub authorization: Option<String>,
    pub range_from: Option<u64>,
    pub query: Vec<(&'static str, String)>,
    pub form: Option<Vec<(&'static str, String)>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The other side does not speak TLS.
    NoTls,
    /// It may work another time.
    Passing(Error),
    /// It will not.
    Lasting(Error),
    /// Its certificate is not one to trust.
    Distrust(Error),
}

/// Connections to registries.
#[derive(Debug)]
pub(crate) struct Http {
    settings: Settings,
    /// By the proxy they go through, and whether they trust anybody.
    agents: Mutex<HashMap<(Option<String>, bool), Agent>>,
    roots: OnceLock<RootCerts>,
}

impl Http {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, agents: Mutex::default(), roots: OnceLock::new() }
    }

    /// Returns a measure of whether an answer gets on.
    pub(crate) fn pace(&self) -> Pace {
        Pace::new(self.settings.crawl)
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Says whether plain HTTP to `host` or `host:port` is harmless or asked for.
    pub(crate) fn may_be_plain(&self, authority: &str) -> bool {
        let host = bare_host(authority);
        is_loopback(host)
            || self.settings.insecure.iter().any(|one| one == authority || one == host)
    }

    /// Sends a request and follows redirects. `Authorization` goes to the first host only.
    pub(crate) fn send(&self, request: &Request) -> Result<Response<Body>, Failure> {
        let mut request = request.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.once(&request)?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let target = response
                .headers()
                .get("location")
                .and_then(|value| value.to_str().ok())
                .ok_or_else(|| lasting(&request.url, "redirects to nowhere"))?;
            let next = resolve(&request.url, target).ok_or_else(|| {
                lasting(&request.url, "redirects to something that is no address")
            })?;
            let (from, to) = (origin(&request.url), origin(&next));
            if to.0 == "http" && (from.0 == "https" || !self.may_be_plain(&to.1)) {
                return Err(lasting(
                    &request.url,
                    &format!("redirects to '{}', which is not encrypted", shown(&to.1)),
                ));
            }
            if from != to {
                request.authorization = None;
            }
            if request.form.is_some() {
                return Err(lasting(&request.url, "redirects a login"));
            }
            request.query.clear();
            request.url = next;
        }
        Err(lasting(&request.url, &format!("redirects more than {MAX_REDIRECTS} times")))
    }

    fn once(&self, request: &Request) -> Result<Response<Body>, Failure> {
        let (scheme, authority) = origin(&request.url);
        if scheme == "http" {
            return self.attempt(request, false);
        }
        // It takes long to read whom the host trusts. Who may be spoken to without TLS is asked
        // first whether it speaks TLS at all, trusting nobody.
        if self.roots.get().is_none() && self.may_be_plain(&authority) {
            match self.attempt(request, false) {
                Err(Failure::Distrust(_)) => {}
                other => return other,
            }
        }
        self.attempt(request, true)
    }

    /// Sends a request to a server that shows a certificate of somebody the host trusts, or of
    /// nobody: then only plain HTTP can come of it.
    fn attempt(&self, request: &Request, trusting: bool) -> Result<Response<Body>, Failure> {
        let (scheme, authority) = origin(&request.url);
        let agent = self.agent(&scheme, &authority, trusting).map_err(Failure::Lasting)?;
        let headers = |builder: &mut HeaderMap| -> Result<(), ureq::http::Error> {
            for accept in &request.accept {
                builder.append("accept", accept.parse()?);
            }
            if let Some(value) = &request.authorization {
                let mut value: ureq::http::HeaderValue = value.parse()?;
                value.set_sensitive(true);
                builder.insert("authorization", value);
            }
            if let Some(from) = request.range_from {
                builder.insert("range", format!("bytes={from}-").parse()?);
            }
            // Blobs are wanted as they are stored.
            builder.insert("accept-encoding", "identity".parse()?);
            Ok(())
        };
        let result = if let Some(form) = &request.form {
            let mut builder = agent.post(&request.url);
            match builder.headers_mut().map(headers).transpose() {
                Ok(_) => builder.send_form(form.iter().map(|(key, value)| (*key, value.as_str()))),
                Err(error) => Err(error.into()),
            }
        } else {
            let mut builder =
                if request.head { agent.head(&request.url) } else { agent.get(&request.url) };
            for (key, value) in &request.query {
                builder = builder.query(*key, value);
            }
            match builder.headers_mut().map(headers).transpose() {
                Ok(_) => builder.call(),
                Err(error) => Err(error.into()),
            }
        };
        result.map_err(|error| failure(&scheme, &authority, error))
    }

    /// Returns the connections that go the way the environment asks for.
    fn agent(&self, scheme: &str, authority: &str, trusting: bool) -> Result<Agent> {
        let host = bare_host(authority);
        let proxy = if is_loopback(host) { None } else { proxy_for(scheme, host) };
        let mut agents = self.agents.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = (proxy.clone(), trusting);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let parsed = proxy.as_deref().map(Proxy::new).transpose().map_err(|_| {
            Error::failed("the proxy variable holds no address of a proxy")
                .hint("set HTTPS_PROXY to 'http://host:port', or unset it")
        })?;
        let roots = if trusting {
            self.roots.get_or_init(roots).clone()
        } else {
            RootCerts::Specific(Arc::default())
        };
        let agent: Agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::Never)
            .proxy(parsed)
            .user_agent(concat!("banger/", env!("CARGO_PKG_VERSION")))
            .accept("")
            .timeout_resolve(Some(self.settings.connect))
            .timeout_connect(Some(self.settings.connect))
            .timeout_send_request(Some(self.settings.idle))
            .timeout_recv_response(Some(self.settings.idle))
            .timeout_per_read(Some(self.settings.idle))
            .timeout_per_write(Some(self.settings.idle))
            .input_buffer_size(256 << 10)
            .max_idle_connections_per_host(8)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build()
            .into();
        agents.insert(key, agent.clone());
        Ok(agent)
    }
}

/// Returns the certificate authorities the host trusts (`SSL_CERT_FILE`, `SSL_CERT_DIR` or its own
/// store), else Mozilla's.
fn roots() -> RootCerts {
    let found = rustls_native_certs::load_native_certs().certs;
    if found.is_empty() {
        return RootCerts::WebPki;
    }
    found.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned()).into()
}

/// Returns the proxy for a host (curl(1), section ENVIRONMENT).
fn proxy_for(scheme: &str, host: &str) -> Option<String> {
    let read = |names: &[&str]| {
        names.iter().find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    };
    let own: &[&str] =
        if scheme == "https" { &["https_proxy", "HTTPS_PROXY"] } else { &["http_proxy"] };
    let proxy = read(own).or_else(|| read(&["all_proxy", "ALL_PROXY"]))?;
    let direct = read(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
    (!direct.split(',').any(|entry| matches_host(entry.trim(), host))).then_some(proxy)
}

fn matches_host(entry: &str, host: &str) -> bool {
    let entry = entry.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
    !entry.is_empty() && (entry == "*" || host == entry || host.ends_with(&format!(".{entry}")))
}

/// Returns scheme and authority of an address, in lower case, without a user.
fn origin(url: &str) -> (String, String) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    (scheme.to_ascii_lowercase(), authority.to_ascii_lowercase())
}

/// Returns the host of `host:port` or `[address]:port`, without brackets.
fn bare_host(authority: &str) -> &str {
    if let Some((host, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return host;
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns where a redirect leads (RFC 3986, section 5, for what servers send).
fn resolve(base: &str, target: &str) -> Option<String> {
    let (scheme, authority) = origin(base);
    let lower = target.to_ascii_lowercase();
    let url = if lower.starts_with("https://") || lower.starts_with("http://") {
        target.to_owned()
    } else if target.starts_with("//") {
        format!("{scheme}:{target}")
    } else if target.starts_with('/') {
        format!("{scheme}://{authority}{target}")
    } else {
        return None;
    };
    let uri: Uri = url.parse().ok()?;
    let authority = uri.authority()?;
    (!authority.as_str().contains('@') && !authority.host().is_empty()).then_some(url)
}

fn lasting(url: &str, what: &str) -> Failure {
    Failure::Lasting(Error::failed(format!("'{}' {what}", shown(&origin(url).1))).hint(ITS_FAULT))
}

fn failure(scheme: &str, authority: &str, error: ureq::Error) -> Failure {
    let host = shown(authority);
    let words = error.to_string();
    match &error {
        ureq::Error::Timeout(timeout) => {
            let what = match timeout {
                ureq::Timeout::Resolve => "its name could not be looked up in time",
                ureq::Timeout::Connect => "it did not answer in time",
                _ => "it stopped answering",
            };
            Failure::Passing(
                Error::failed(format!("cannot reach '{host}': {what}")).hint(NETWORK_HINT),
            )
        }
        ureq::Error::HostNotFound => Failure::Lasting(
            Error::failed(format!("cannot reach '{host}': no such host")).hint(NETWORK_HINT),
        ),
        // Names that cannot be looked up come as an I/O error of no kind.
        ureq::Error::Io(io) if words.contains("failed to lookup address") => Failure::Lasting(
            Error::failed(format!("cannot reach '{host}': no such host: {io}")).hint(NETWORK_HINT),
        ),
        _ if words.contains("certificate") => Failure::Distrust(distrust(&host, &words)),
        ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
            Failure::Passing(
                Error::failed(format!("cannot reach '{host}': connection refused"))
                    .hint(NETWORK_HINT),
            )
        }
        _ if scheme == "https" && is_no_tls(&words) => Failure::NoTls,
        ureq::Error::ConnectProxyFailed(_) | ureq::Error::InvalidProxyUrl => Failure::Lasting(
            Error::failed(format!("cannot reach '{host}' through the proxy: {words}"))
                .hint("the proxy is taken from HTTPS_PROXY, http_proxy or ALL_PROXY"),
        ),
        _ => Failure::Passing(
            Error::failed(format!("cannot speak to '{host}': {words}")).hint(NETWORK_HINT),
        ),
    }
}

/// Says what is wrong with a certificate; the library only names its sort of it.
fn distrust(host: &str, words: &str) -> Error {
    let (why, hint) = if words.contains("UnknownIssuer") {
        (
            "its certificate is of an authority that this host does not trust",
            "set SSL_CERT_FILE to a file with its certificate authority",
        )
    } else if words.contains("Expired") || words.contains("expired") {
        ("its certificate has expired", "look at the host's clock; else tell who runs the registry")
    } else if words.contains("NotValidYet") || words.contains("not valid until") {
        ("its certificate is not valid yet", "look at the host's clock")
    } else if words.contains("NotValidForName") || words.contains("not valid for name") {
        (
            "its certificate is for another name",
            "name the registry as its certificate does; a proxy on the way may show its own",
        )
    } else {
        (
            "its certificate cannot be used",
            "set SSL_CERT_FILE to a file with its certificate authority",
        )
    };
    Error::failed(format!("cannot trust '{host}': {why}")).hint(hint)
}

const NETWORK_HINT: &str = "check the network; a proxy is taken from HTTPS_PROXY";

/// Says whether the failure is the one of speaking TLS to somebody who does not.
fn is_no_tls(words: &str) -> bool {
    [
        "InvalidContentType",
        "corrupt message",
        "invalid message",
        "UnexpectedEof",
        "tls handshake eof",
        "Connection reset",
        "Peer disconnected",
    ]
    .iter()
    .any(|sign| words.contains(sign))
}

/// Reads a body of at most `limit` bytes; one that crawls is an error.
pub(crate) fn read_body(
    body: Body,
    limit: u64,
    mut pace: Pace,
) -> std::io::Result<Option<Vec<u8>>> {
    let mut reader = body.into_reader().take(limit + 1);
    let mut bytes = Vec::new();
    let mut part = vec![0; 16 << 10];
    loop {
        let start = Instant::now();
        let n = match reader.read(&mut part) {
            Ok(0) => return Ok((bytes.len() as u64 <= limit).then_some(bytes)),
            Ok(n) => n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        bytes.extend_from_slice(&part[..n]);
        if !pace.step(start.elapsed(), n) {
            return Err(std::io::Error::other(pace.words()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved_and_odd_ones_refused() {
        let base = "https://a.example:5000/v2/x?y";
        for (target, want) in [
            ("/z?q", Some("https://a.example:5000/z?q")),
            ("//b.example/z", Some("https://b.example/z")),
            ("HTTP://b.example/z", Some("HTTP://b.example/z")),
            ("file:///etc/passwd", None),
            ("z", None),
            ("https://user:pw@b.example/z", None),
            ("https:///z", None),
            ("", None),
        ] {
            assert_eq!(resolve(base, target).as_deref(), want, "{target}");
        }
    }

    #[test]
    fn plain_http_is_for_loopback_and_named_hosts() {
        let http = Http::new(Settings {
            insecure: vec!["r.lan:5000".into(), "all.lan".into()],
            ..Settings::default()
        });
        for host in
            ["localhost", "127.0.0.1:5000", "127.9.9.9", "[::1]:80", "r.lan:5000", "all.lan:1"]
        {
            assert!(http.may_be_plain(host), "{host}");
        }
        for host in ["r.lan", "r.lan:5001", "169.254.169.254", "localhost.example", "10.0.0.1"] {
            assert!(!http.may_be_plain(host), "{host}");
        }
    }

    #[test]
    fn no_proxy_entries_match_hosts_and_their_subdomains() {
        assert!(matches_host("example.com", "a.example.com"));
        assert!(matches_host(".example.com", "a.example.com"));
        assert!(matches_host("*", "x"));
        assert!(!matches_host("ample.com", "example.com"));
        assert!(!matches_host("", "example.com"));
    }
}
