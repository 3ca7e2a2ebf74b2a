//! The `.git` that a guest gets: made of files, ready to use, with nothing of the host in it that
//! runs or that names the user's secrets.

use crate::{
    git::{is_oid, lines},
    host::remotes::{self, Remotes},
    host::source::{Repository, lines_of_oids},
    names::{quoted, without_secrets},
    record::store::History,
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
pub(crate) const UNFINISHED: &[&str] =
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
        .filter(|(oid, name)| is_oid(oid) && crate::names::is_ref_name(name))
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
