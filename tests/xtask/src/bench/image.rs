//! An image becomes a disk: banger, and the usual tools one after the other.

use super::{Bench, median, shell, text, time};
use crate::Result;
use std::process::Command;

const ROUNDS: usize = 3;

pub(super) fn measure(bench: &mut Bench) -> Result {
    bench.once("debian-layout", || {
        shell(
            &bench.dir,
            "rm -rf layout; \
             mmdebstrap --quiet --variant=minbase --include=systemd-sysv,git,curl bookworm base.tar; \
             umoci init --layout layout; umoci new --image layout:latest; \
             umoci raw add-layer --image layout:latest base.tar; rm base.tar",
        )
    })?;
    let layout = bench.dir.join("layout");
    let reference = format!("oci:{}:latest", text(&layout));
    let cold = bench.dir.join("cold");
    let (mut ours, mut theirs, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        shell(&bench.dir, "rm -rf cold copy bundle disk.ext4")?;
        let pull = || {
            let mut pull = bench.program("banger-image-pull", &[&reference, "--name", "bench"]);
            pull.env("BANGER_STATE", &cold);
            pull
        };
        ours.push(time(&mut pull())?);
        again.push(time(&mut pull())?);
        let usual = format!(
            "skopeo --insecure-policy copy -q {reference} oci:copy:latest; \
             umoci unpack --image copy:latest bundle 2>/dev/null; \
             size=$(du -sm bundle | cut -f1); \
             mkfs.ext4 -q -d bundle/rootfs disk.ext4 $((size * 5 / 4 + 64))M"
        );
        theirs.push(time(Command::new("sh").args(["-euc", &usual]).current_dir(&bench.dir))?);
    }
    shell(&bench.dir, "rm -rf cold copy bundle disk.ext4")?;
    let (ours, theirs) = (median(ours), median(theirs));
    bench.figure("skopeo copy, umoci unpack, mkfs.ext4 -d", theirs, "ms", None);
    bench.figure("banger image pull", ours, "ms", None);
    bench.figure("banger's share of the usual time", ours / theirs, "", Some(0.1));
    bench.figure("the same pull again", median(again), "ms", Some(50.0));
    Ok(())
}
