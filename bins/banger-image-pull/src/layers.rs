//! From the layers of an image to a begun disk, read while they are downloaded.

use banger_cli::Out;
use banger_doc::{Name, Result};
use banger_image::{
    Limits,
    progress::{self, Download},
};
use banger_layer::{Progress, Summary};
use banger_oci::Layer;
use banger_state::{Staged, State};

/// A layer whose download is shown.
struct Shown<'a>(&'a Layer);

impl Download for Shown<'_> {
    fn name(&self) -> String {
        let name = self.0.name();
        name.strip_prefix("sha256:").unwrap_or(name).chars().take(12).collect()
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn received(&self) -> u64 {
        self.0.progress().received()
    }

    fn is_under_way(&self) -> bool {
        let progress = self.0.progress();
        progress.has_begun() && !progress.is_whole()
    }
}

/// Writes the layers of an image to a disk nobody sees yet.
pub(crate) fn write(
    state: &State,
    name: &Name,
    layers: &[Layer],
    limits: &Limits,
    out: &Out,
) -> Result<(Staged, Summary)> {
    let stack = layers
        .iter()
        .map(|layer| {
            let source = layer.clone();
            banger_layer::Layer {
                name: layer.name().to_owned(),
                diff_id: layer.diff_id().map(|digest| digest.to_string()),
                size: Some(layer.size()),
                open: Box::new(move || source.open()),
            }
        })
        .collect();
    let shown: Vec<Shown<'_>> = layers.iter().map(Shown).collect();
    let done = Progress::default();
    let written = progress::downloads(out, &shown, &done, || {
        banger_image::write(state, name, stack, limits, &done)
    });
    match written {
        Ok((staged, summary)) => {
            // The writer may have stopped at the end of a tar, before the end of its blob.
            layers.iter().try_for_each(Layer::confirm)?;
            Ok((staged, summary))
        }
        // The reader's own error has a kind and a hint; the writer's only tells of it.
        Err(error) => Err(layers.iter().find_map(Layer::failure).unwrap_or(error)),
    }
}
