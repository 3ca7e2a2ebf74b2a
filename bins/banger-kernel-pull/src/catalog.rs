//! The kernels banger knows by name.

use banger_doc::{Error, Name, Result};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalog {
    version: u32,
    kernels: Vec<Known>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    name: Name,
    #[expect(dead_code, reason = "for whoever reads the file")]
    description: String,
    sources: Vec<Source>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    architecture: String,
    apt: String,
    ending: String,
}

/// The packages a kernel comes as: the newest whose name begins and ends like this.
pub(crate) struct Entry {
    pub(crate) begin: String,
    pub(crate) end: String,
}

/// Finds a kernel for this processor.
pub(crate) fn find(name: &Name) -> Result<Entry> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let catalog: Catalog = serde_json::from_str(include_str!("catalog.json"))
        .expect("because a test reads the catalog");
    debug_assert_eq!(catalog.version, 1);
    let names: Vec<String> =
        catalog.kernels.iter().map(|kernel| format!("'{}'", kernel.name)).collect();
    let known = catalog.kernels.into_iter().find(|kernel| kernel.name == *name);
    let known = known.ok_or_else(|| {
        Error::not_found(format!("no kernel '{name}' in the catalog")).hint(format!(
            "the catalog has {}; 'banger kernel import' takes any other",
            names.join(", ")
        ))
    })?;
    let source = known.sources.into_iter().find(|source| source.architecture == architecture);
    let source = source.ok_or_else(|| {
        Error::not_found(format!("the catalog has no kernel '{name}' for {architecture}"))
            .hint("'banger kernel import' takes one from files")
    })?;
    Ok(Entry { begin: source.apt, end: source.ending })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_has_the_default_kernel_and_names_what_it_has() {
        let entry = find(&"generic-6.12".parse().unwrap()).unwrap();
        assert!(entry.begin.starts_with("linux-image-6.12"));
        let error = find(&"x".parse().unwrap()).err().unwrap();
        assert!(error.hint_text().unwrap().contains("'generic-6.12'"));
    }
}
