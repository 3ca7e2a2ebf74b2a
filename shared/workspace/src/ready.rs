//! The `.git` that a guest gets: made of files, ready to use, with nothing of the host in it that
//! runs or that names the user's secrets.

use crate::{
    git::{is_oid, lines},
    remotes::{self, Remotes},
    source::{Repository, lines_of_oids},
    store::History,
};
use banger_doc::Result;
use std::{collections::BTreeMap, fmt::Write as _};

/// Settings that change what files mean, and who commits.
const CARRIED: &[&str] = &[
    "core.autocrlf",
    "core.eol",
    "core.safecrlf",
    "core.filemode",
    "core.symlinks",
    "core.ignorecase",
    "core.sparsecheckout",
    "core.sparsecheckoutcone",
    "user.name",
    "user.email",
];

/// Files of an unfinished merge, pick or revert.
const UNFINISHED: &[&str] =
    &["MERGE_HEAD", "MERGE_MSG", "MERGE_MODE", "SQUASH_MSG", "CHERRY_PICK_HEAD", "REVERT_HEAD"];

/// Small files of a `.git`, by path below it.
pub(crate) type Small = BTreeMap<String, Vec<u8>>;

/// Returns the commits that an unfinished merge, pick or revert is of.
pub(crate) fn unfinished_commits(repository: &Repository) -> Result<Vec<String>> {
    let mut commits = Vec::new();
    for name in ["MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD"] {
        if let Some(bytes) = repository.own_file(name)? {
            commits.extend(lines_of_oids(&bytes));
        }
    }
    Ok(commits)
}

/// Makes the small files but HEAD, references and the index. `unfinished` says whether a merge goes
/// along; `work_tree` is the way from the `.git` to a submodule's files.
pub(crate) fn small_files(
    repository: &Repository,
    history: &History,
    unfinished: bool,
    work_tree: Option<&str>,
    modules: &[String],
) -> Result<Small> {
    let mut small = Small::new();
    let remotes = remotes::named(repository, history.refs.keys());
    small.insert("config".into(), config(repository, &remotes, work_tree, modules).into_bytes());
    for head in repository.refs.iter().filter(|known| known.name.starts_with("refs/remotes/")) {
        if let Some(target) = head.target.as_ref().filter(|to| history.refs.contains_key(*to)) {
            small.insert(head.name.clone(), format!("ref: {target}\n").into_bytes());
        }
    }
    let mut exclude = repository.small_file("info/exclude")?.unwrap_or_default();
    let users = repository.excludes_file();
    if let Some(users) = users.and_then(|path| banger_state::read_limited(&path, 1 << 20).ok()) {
        exclude.extend_from_slice(b"\n");
        exclude.extend_from_slice(&users);
    }
    small.insert("info/exclude".into(), exclude);
    for name in ["info/attributes", "info/sparse-checkout"] {
        if let Some(bytes) = repository.small_file(name)? {
            small.insert(name.into(), bytes);
        }
    }
    if !history.shallow.is_empty() {
        small.insert("shallow".into(), lines(&history.shallow).into_bytes());
    }
    if unfinished {
        for name in UNFINISHED {
            if let Some(bytes) = repository.own_file(name)? {
                small.insert((*name).into(), bytes);
            }
        }
    }
    Ok(small)
}

/// Makes `packed-refs` (gitrepository-layout(5)).
pub(crate) fn packed_refs(repository: &Repository, refs: &BTreeMap<String, String>) -> Vec<u8> {
    let mut text = String::from("# pack-refs with: peeled fully-peeled sorted \n");
    for (name, oid) in refs {
        let _ = writeln!(text, "{oid} {name}");
        let peeled = repository.refs.iter().find(|r| r.name == *name && r.oid == *oid);
        if let Some(tag) = peeled.filter(|r| r.peeled != r.oid) {
            let _ = writeln!(text, "^{}", tag.peeled);
        }
    }
    text.into_bytes()
}

/// Reads `packed-refs`, whoever wrote it.
pub(crate) fn parse_packed_refs(bytes: &[u8]) -> BTreeMap<String, String> {
    String::from_utf8_lossy(bytes)
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(oid, name)| is_oid(oid) && crate::source::is_ref_name(name))
        .map(|(oid, name)| (name.to_owned(), oid.to_owned()))
        .collect()
}

fn config(
    repository: &Repository,
    remotes: &Remotes,
    work_tree: Option<&str>,
    modules: &[String],
) -> String {
    let is_sha1 = repository.format == "sha1";
    let mut text = String::from("[core]\n");
    let _ = writeln!(text, "\trepositoryformatversion = {}", i32::from(!is_sha1));
    text.push_str("\tbare = false\n\tlogallrefupdates = true\n");
    // Inodes and change times differ in the guest; what is unchanged stays so without reading it.
    text.push_str("\ttrustctime = false\n\tcheckStat = minimal\n");
    if let Some(path) = work_tree {
        let _ = writeln!(text, "\tworktree = {}", quoted(path));
    }
    if !is_sha1 {
        let _ = write!(text, "[extensions]\n\tobjectformat = {}\n", quoted(&repository.format));
    }
    for key in CARRIED {
        if let (Some(value), Some((section, name))) = (repository.setting(key), key.split_once('.'))
        {
            let _ = write!(text, "[{section}]\n\t{name} = {}\n", quoted(value));
        }
    }
    for (name, url) in &remotes.addresses {
        let _ = write!(
            text,
            "[remote {}]\n\turl = {}\n\tfetch = {}\n",
            quoted(name),
            quoted(url),
            quoted(&format!("+refs/heads/*:refs/remotes/{name}/*"))
        );
    }
    for (branch, settings) in &remotes.branches {
        let _ = writeln!(text, "[branch {}]", quoted(branch));
        for (name, value) in settings {
            let _ = writeln!(text, "\t{name} = {}", quoted(value));
        }
    }
    for module in modules {
        let url = repository.setting(&format!("submodule.{module}.url")).map(without_secrets);
        let _ = write!(text, "[submodule {}]\n\tactive = true\n", quoted(module));
        if let Some(url) = url {
            let _ = writeln!(text, "\turl = {}", quoted(&url));
        }
    }
    text
}

pub(crate) fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\0' => {}
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// Takes user and password out of an address; ssh keeps its user, which is no secret and without
/// which it does not work.
pub(crate) fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // A query or a fragment serves nothing but a token.
    let rest =
        &rest[..rest.find(['?', '#']).filter(|_| !scheme.ends_with("file")).unwrap_or(rest.len())];
    let (mut host, mut path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // A password may have a slash that nobody escaped.
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if !host.contains(['@', '[']) && host.split_once(':').is_some_and(|(_, port)| !is_port(port)) {
        let end = rest.rfind('@').unwrap_or(host.len());
        (host, path) = rest.split_at(end + rest[end..].find('/').unwrap_or(rest.len() - end));
    }
    let Some((login, host)) = host.rsplit_once('@') else {
        return format!("{scheme}://{host}{path}");
    };
    let user = login.split(':').next().unwrap_or_default();
    if scheme.contains("ssh") && !user.is_empty() {
        format!("{scheme}://{user}@{host}{path}")
    } else {
        format!("{scheme}://{host}{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_their_secrets() {
        for (url, plain) in [
            ("https://me:token@host/x.git", "https://host/x.git"),
            ("https://token@host:8443/x@y", "https://host:8443/x@y"),
            ("ssh://git:pw@host/x", "ssh://git@host/x"),
            ("git@host:me/x.git", "git@host:me/x.git"),
            ("/srv/x.git", "/srv/x.git"),
            ("https://h/x.git?private_token=S", "https://h/x.git"),
            ("https://me:pw@h/x.git?a=S#S", "https://h/x.git"),
            ("https://h?token=S", "https://h"),
            ("file:///srv/a?b#c", "file:///srv/a?b#c"),
            ("https://host/x@y", "https://host/x@y"),
            ("https://me:p/w@host/x", "https://host/x"),
            ("https://host:8443/x/y@z", "https://host:8443/x/y@z"),
            ("https://[::1]:8443/x@y", "https://[::1]:8443/x@y"),
            ("HTTPS://token@host/x", "HTTPS://host/x"),
            ("git+ssh://git:pw@host/x", "git+ssh://git@host/x"),
            ("helper::https://me:pw@host/x", "helper::https://host/x"),
        ] {
            assert_eq!(without_secrets(url), plain);
        }
    }
}
