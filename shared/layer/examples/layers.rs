//! Measures how long layers take to become a disk, beside inflating and hashing them alone with the
//! same libraries and as many threads.
//!
//! `cargo run --profile bench -p banger-layer --example layers -- OUTPUT LAYER...`

use banger_layer::{Layer, Limits, Progress, build};
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};
use std::error::Error;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{channel, sync_channel};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let output = arguments.next().ok_or("an output and layers are needed")?;
    let paths: Vec<PathBuf> = arguments.collect();
    let mut times = (Vec::new(), Vec::new());
    for _ in 0..5 {
        times.0.push(measured(|| {
            inflate(&paths);
            Ok(())
        })?);
        // To give the room back of the one before is no part of it.
        let _ = std::fs::remove_file(&output);
        times.1.push(measured(|| disk(&output, &paths))?);
    }
    let best = |times: &[(Duration, Duration)]| {
        (
            times.iter().map(|time| time.0).min().unwrap_or_default().as_secs_f64(),
            times.iter().map(|time| time.1).min().unwrap_or_default().as_secs_f64(),
        )
    };
    let (alone, whole) = (best(&times.0), best(&times.1));
    let text = format!(
        "inflate and hash {:.3} s ({:.3} s of CPU), disk {:.3} s ({:.3} s of CPU): {:.2} ({:.2})\n",
        alone.0,
        alone.1,
        whole.0,
        whole.1,
        whole.0 / alone.0,
        whole.1 / alone.1
    );
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    Ok(())
}

/// Returns the time on the clock and that of the processors.
fn measured(
    work: impl FnOnce() -> Result<(), Box<dyn Error>>,
) -> Result<(Duration, Duration), Box<dyn Error>> {
    let (start, cpu) = (Instant::now(), cpu()?);
    work()?;
    Ok((start.elapsed(), self::cpu()?.saturating_sub(cpu)))
}

fn cpu() -> Result<Duration, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}

fn disk(output: &PathBuf, paths: &[PathBuf]) -> Result<(), Box<dyn Error>> {
    let output = File::options().read(true).write(true).create(true).truncate(true).open(output)?;
    let layers = paths
        .iter()
        .map(|path| {
            let size = std::fs::metadata(path)?.len();
            let path = path.clone();
            Ok(Layer {
                name: path.display().to_string(),
                diff_id: None,
                size: Some(size),
                open: Box::new(move || {
                    let file = File::open(&path).map_err(|error| {
                        banger_doc::Error::failed("cannot open the layer").because(error)
                    })?;
                    Ok(Box::new(file) as Box<dyn Read + Send>)
                }),
            })
        })
        .collect::<std::io::Result<Vec<_>>>()?;
    build(layers, &output, &Limits::default(), &Progress::default())?;
    Ok(())
}

/// Inflates four layers at a time, each in one thread, and hashes each in another.
fn inflate(paths: &[PathBuf]) {
    let queue = Mutex::new(paths.iter());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("because nobody panics").next();
                    let Some(path) = next else { return };
                    one(path);
                }
            });
        }
    });
}

fn one(path: &PathBuf) {
    let (send, receive) = sync_channel::<Vec<u8>>(4);
    let (back, empty) = channel();
    for _ in 0..4 {
        back.send(Vec::new()).expect("because the other end is here");
    }
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut input =
                BufReader::with_capacity(128 << 10, File::open(path).expect("the layer opens"));
            let magic = std::io::BufRead::fill_buf(&mut input).expect("the layer is read")[0];
            let mut input: Box<dyn Read> = if magic == 0x1f {
                Box::new(MultiGzDecoder::new(input))
            } else {
                Box::new(zstd::stream::read::Decoder::with_buffer(input).expect("zstd starts"))
            };
            loop {
                let Ok(mut piece) = empty.recv() else { return };
                piece.resize(256 << 10, 0);
                let mut done = 0;
                while done < piece.len() {
                    match input.read(&mut piece[done..]).expect("the layer is whole") {
                        0 => break,
                        count => done += count,
                    }
                }
                piece.truncate(done);
                if done == 0 || send.send(piece).is_err() {
                    return;
                }
            }
        });
        let mut digest = Sha256::new();
        for piece in receive {
            digest.update(&piece);
            let _ = back.send(piece);
        }
        digest.finalize();
    });
}
