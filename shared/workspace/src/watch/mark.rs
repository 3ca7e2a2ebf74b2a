//! Where a repository of the host stands: what a prepare sends beside files.

use crate::{
    host::HostGit,
    host::index,
    host::source::Repository,
    names::{hex, is_ref_name},
    prepare::ready::UNFINISHED,
};
use banger_doc::Result;
use sha2::{Digest, Sha256};

/// Small files that a guest's `.git` is made from, beside those of an unfinished merge.
const SMALL: &[&str] = &[
    "config",
    "config.worktree",
    "info/exclude",
    "info/attributes",
    "info/sparse-checkout",
    "shallow",
    "packed-refs",
];
/// The largest of those files, and the largest index.
const MAX_SMALL: u64 = 128 << 20;
const MAX_INDEX: u64 = 512 << 20;
/// The most references, and the longest file of one.
const MAX_REFS: usize = 500_000;
const MAX_REF: u64 = 8192;

/// Returns a digest of all that a prepare reads of repositories but their files and objects. What git only looked at
/// again, as it does of times in an index, leaves it as it is.
pub(super) fn mark<'a>(repositories: impl Iterator<Item = &'a Repository>) -> Result<String> {
    let mut sum = Sha256::new();
    for repository in repositories {
        of_one(&repository.host, &repository.format, &mut sum)?;
    }
    Ok(hex(&sum.finalize()))
}

fn of_one(host: &HostGit, format: &str, sum: &mut Sha256) -> Result<()> {
    let mut add = |name: &[u8], bytes: &[u8]| {
        sum.update((name.len() as u64).to_be_bytes());
        sum.update(name);
        sum.update((bytes.len() as u64).to_be_bytes());
        sum.update(bytes);
    };
    add(b"HEAD", &host.head()?);
    let dirs = if host.is_linked() { vec![&host.git, &host.common] } else { vec![&host.git] };
    for dir in dirs {
        for name in SMALL.iter().chain(UNFINISHED) {
            if let Some(bytes) = host.read_in(dir, name.as_bytes(), MAX_SMALL)? {
                add(name.as_bytes(), &bytes);
            }
        }
    }
    let mut left = MAX_REFS;
    let mut waiting = vec!["refs".to_owned()];
    while let Some(at) = waiting.pop() {
        let mut entries = host.list_in(&host.common, at.as_bytes(), MAX_REFS)?;
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, sort) in entries {
            let Ok(name) = String::from_utf8(name) else { continue };
            let path = format!("{at}/{name}");
            left = left.saturating_sub(1);
            if left == 0 || !is_ref_name(&path) {
                continue;
            }
            if sort == crate::host::Sort::Dir {
                waiting.push(path);
            } else if let Some(bytes) = host.read_in(&host.common, path.as_bytes(), MAX_REF)? {
                add(path.as_bytes(), &bytes);
            }
        }
    }
    let mut tables = host.list_in(&host.common, b"reftable", 10_000)?;
    tables.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, _) in tables {
        // Its tables have names that never come again.
        add(b"reftable", &name);
    }
    let bytes = host.read_in(&host.git, b"index", MAX_INDEX)?.unwrap_or_default();
    let oid_len = if format == "sha256" { 32 } else { 20 };
    match index::parse(&bytes, oid_len, index::MOST_OF_HOST) {
        Ok(index) if !index.is_partial => add(b"index", index::index_sum(&index).as_bytes()),
        _ => add(b"index", &bytes),
    }
    Ok(())
}
