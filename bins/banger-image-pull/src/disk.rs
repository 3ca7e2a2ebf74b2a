//! From layers to a base disk nobody sees before it is whole.

use crate::{interrupt, progress};
use banger_cli::Out;
use banger_doc::{Context, Error, Image, Name, Result};
use banger_layer::{Limits, Progress, Summary};
use banger_oci::Layer;
use banger_state::{Staged, State, place};
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    time::Instant,
};

/// Writes the layers of an image, reading them while they are downloaded.
pub(crate) fn write_layers(
    state: &State,
    name: &Name,
    layers: &[Layer],
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
    let watched: Vec<_> = layers
        .iter()
        .map(|layer| (layer.name().to_owned(), layer.size(), layer.progress()))
        .collect();
    let done = Progress::default();
    let result = progress::layers(out, &watched, &done, || write(state, name, stack, &done, out));
    match result {
        Ok(written) => {
            layers.iter().try_for_each(Layer::confirm)?;
            Ok(written)
        }
        // The reader's own error has a kind and a hint; the writer's only tells of it.
        Err(error) => Err(layers.iter().find_map(Layer::failure).unwrap_or(error)),
    }
}

/// Writes layers to the disk of a begun image and syncs it.
pub(crate) fn write(
    state: &State,
    name: &Name,
    layers: Vec<banger_layer::Layer>,
    progress: &Progress,
    out: &Out,
) -> Result<(Staged, Summary)> {
    let staged = state.images().begin_over(name)?;
    interrupt::remove(staged.path());
    let path = staged.path().join(place::IMAGE_DISK);
    let file = create(&path).with_context(|| format!("cannot make '{}'", path.display()))?;
    let start = Instant::now();
    let summary = banger_layer::build(layers, &file, &Limits::default(), progress)?;
    let wrote = start.elapsed();
    file.sync_all().with_context(|| format!("cannot sync '{}'", path.display()))?;
    if out.is_live() {
        let sync = start.elapsed() - wrote;
        out.note(&format!(
            "wrote the disk in {:.1} s, synced it in {:.1} s",
            wrote.as_secs_f32(),
            sync.as_secs_f32()
        ));
    }
    Ok((staged, summary))
}

fn create(path: &std::path::Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Publishes an image, in place of one of its name that no VM uses.
pub(crate) fn publish(state: &State, staged: Staged, image: &Image) -> Result<()> {
    state.images().replace(&image.name, staged, image, |there| unused(state, there))
}

/// Refuses to touch an image that VMs are made of.
pub(crate) fn unused(state: &State, image: &Image) -> Result<()> {
    let vms = state.vms();
    let users: Vec<String> = vms
        .names()?
        .into_iter()
        .filter(|name| vms.get(name).is_ok_and(|vm| vm.image == image.name))
        .map(|name| format!("'{name}'"))
        .collect();
    if users.is_empty() {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "'{}' leads to another image now, and image '{}' is used by {}",
        image.source,
        image.name,
        users.join(", ")
    ))
    .hint("pull it under another name with --name"))
}
