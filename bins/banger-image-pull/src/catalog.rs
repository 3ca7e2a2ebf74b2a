//! Images by a name of the catalog: the embedded one, and those that the configuration names.

use crate::recipe::Recipe;
use banger_config::Config;
use banger_doc::{Context, Error, Name, Result};
use banger_oci::Source;
use serde::Deserialize;
use std::path::Path;

/// The largest catalog that is read.
const MAX_CATALOG: u64 = 4 << 20;
/// How a catalog is written.
const WRITTEN: &str = r#"a catalog is JSON: {"version": 1, "images": [{"name": "NAME", "sources": [{"oci": "REFERENCE"}]}]}"#;
const EMBEDDED: &str = include_str!("catalog.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalog {
    version: u32,
    images: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    name: Name,
    #[serde(default)]
    #[expect(dead_code, reason = "said to people who read the file")]
    description: String,
    kernel: Option<Name>,
    sources: Vec<Listing>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Listing {
    Oci(String),
    Mmdebstrap(Recipe),
}

/// One way to an image.
pub(crate) enum Way {
    /// An OCI image.
    Oci(Source),
    /// A root file system made of a distribution's packages.
    Mmdebstrap(Recipe),
}

/// An image of a catalog.
pub(crate) struct Entry {
    pub name: Name,
    pub kernel: Option<Name>,
    /// Ways to it, the best first.
    pub ways: Vec<Way>,
}

/// Looks a name up in the catalogs; the user's own come first.
pub(crate) fn find(config: &Config, text: &str) -> Result<Option<Entry>> {
    let Ok(name) = text.parse::<Name>() else { return Ok(None) };
    for path in &config.catalogs {
        if let Some(entry) = look(&read(path)?, &name)
            .with_context(|| format!("cannot use the catalog '{}'", path.display()))
            .map_err(|error| error.or_hint(WRITTEN))?
        {
            return Ok(Some(entry));
        }
    }
    look(EMBEDDED.as_bytes(), &name).context("cannot use the embedded catalog")
}

/// Returns the names in all catalogs, one a line; a catalog that cannot be read has none.
pub(crate) fn names(config: &Config) -> String {
    let own = config.catalogs.iter().filter_map(|path| read(path).ok());
    let mut names: Vec<String> = own
        .chain([EMBEDDED.as_bytes().to_vec()])
        .filter_map(|bytes| serde_json::from_slice::<Catalog>(&bytes).ok())
        .flat_map(|catalog| catalog.images)
        .map(|image| format!("{}\n", image.name))
        .collect();
    names.sort();
    names.dedup();
    names.concat()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    banger_state::read_limited(path, MAX_CATALOG)
        .map_err(|error| error.hint("'catalogs' in config.toml names it"))
}

fn look(bytes: &[u8], name: &Name) -> Result<Option<Entry>> {
    let catalog: Catalog = serde_json::from_slice(bytes).context("it is not valid")?;
    if catalog.version != 1 {
        return Err(Error::unavailable(format!(
            "it has version {}; this banger knows 1",
            catalog.version
        )));
    }
    let Some(listed) = catalog.images.into_iter().find(|image| image.name == *name) else {
        return Ok(None);
    };
    let ways = listed
        .sources
        .into_iter()
        .map(|source| match source {
            Listing::Oci(text) => Ok(Way::Oci(text.parse()?)),
            Listing::Mmdebstrap(recipe) => recipe.check().map(|()| Way::Mmdebstrap(recipe)),
        })
        .collect::<Result<Vec<_>>>()
        .with_context(|| format!("entry '{name}' is wrong"))?;
    if ways.is_empty() {
        return Err(Error::failed(format!("entry '{name}' has no source")));
    }
    Ok(Some(Entry { name: listed.name, kernel: listed.kernel, ways }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_catalog_has_the_default_image_and_one_to_build_in() {
        let entry = find(&Config::default(), "debian-bookworm").unwrap().unwrap();
        assert_eq!(entry.kernel.unwrap().as_str(), banger_config::DEFAULT_KERNEL);
        assert!(matches!(entry.ways.as_slice(), [Way::Mmdebstrap(_), Way::Oci(_)]));
        // What the README runs in it.
        let entry = find(&Config::default(), "debian-bookworm-dev").unwrap().unwrap();
        assert_eq!(entry.kernel.unwrap().as_str(), banger_config::DEFAULT_KERNEL);
        let [Way::Mmdebstrap(recipe), Way::Oci(_)] = entry.ways.as_slice() else {
            panic!("a recipe and an image were expected")
        };
        for package in ["build-essential", "git", "python3", "systemd-sysv", "openssh-server"] {
            assert!(recipe.packages.iter().any(|one| one == package), "{package}");
        }
        assert_eq!(names(&Config::default()), "debian-bookworm\ndebian-bookworm-dev\n");
        assert!(find(&Config::default(), "debian:bookworm").unwrap().is_none());
        assert!(find(&Config::default(), "alpine").unwrap().is_none());
    }

    #[test]
    fn wrong_catalogs_are_refused() {
        let name: Name = "x".parse().unwrap();
        for bad in [
            "",
            r#"{"version":2,"images":[]}"#,
            r#"{"version":1,"images":[{"name":"x","sources":[]}]}"#,
            r#"{"version":1,"images":[{"name":"x","sources":[{"ftp":"y"}]}]}"#,
            r#"{"version":1,"images":[{"name":"x","sources":[{"oci":"A B"}]}]}"#,
            r#"{"version":1,"images":[{"name":"x","sources":[{"mmdebstrap":{"suite":"-x","mirror":"http://m","packages":[]}}]}]}"#,
            r#"{"version":1,"images":[{"name":"x","sources":[{"mmdebstrap":{"suite":"x","mirror":"http://m","packages":["a b"]}}]}]}"#,
        ] {
            assert!(look(bad.as_bytes(), &name).is_err(), "{bad}");
        }
    }
}
