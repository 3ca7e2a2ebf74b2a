//! Creating a VM costs the same whatever the image's size.

use super::{Bench, median, shell, text, time};
use crate::Result;

const ROUNDS: usize = 15;

pub(super) fn measure(bench: &mut Bench) -> Result {
    let sizes = [("small", 10), ("large", 1000)];
    for (name, mebibytes) in sizes {
        bench.once(&format!("{name}-image"), || {
            let script = format!(
                "rm -rf big; mkdir big; head -c {mebibytes}M /dev/urandom >big/data; \
                 tar -C big -cf big.tar ."
            );
            shell(&bench.dir, &script)?;
            let tar = bench.dir.join("big.tar");
            time(&mut bench.program("banger-image-import", &[text(&tar), "--name", name]))?;
            shell(&bench.dir, "rm -rf big big.tar")
        })?;
    }
    let kernel = bench.state().join("kernels/generic-6.12");
    if !kernel.exists() {
        time(&mut bench.program("banger-kernel-pull", &["generic-6.12"]))?;
    }
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for ((image, _), took) in sizes.iter().zip(&mut took) {
            let words = ["--no-start", "--image", image, "--name", "bench-create"];
            took.push(time(&mut bench.program("banger-vm-create", &words))?);
            time(&mut bench.program("banger-vm-delete", &["bench-create"]))?;
        }
    }
    let [small, large] = took.map(median);
    bench.figure("vm create --no-start, image of 10 MiB", small, "ms", Some(20.0));
    bench.figure("vm create --no-start, image of 1000 MiB", large, "ms", Some(20.0));
    bench.figure("ratio", large / small, "", Some(1.25));
    Ok(())
}
