//! Does what nobody who turns layers into a disk can leave out, and nothing else: reads layers,
//! hashes them, inflates them, and hashes that, with the same libraries and as many threads.
//!
//! `cargo xtask bench image` compares a pull with it.

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{channel, sync_channel};

fn main() {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
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

/// Hashes what is read of a layer.
struct Hashed(File, Sha256);

impl Read for Hashed {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(out)?;
        self.1.update(&out[..count]);
        Ok(count)
    }
}

/// Inflates in one thread and hashes the outcome in another.
fn one(path: &PathBuf) {
    let (send, receive) = sync_channel::<Vec<u8>>(4);
    let (back, empty) = channel();
    for _ in 0..4 {
        back.send(Vec::new()).expect("because the other end is here");
    }
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let file = Hashed(File::open(path).expect("the layer opens"), Sha256::new());
            let mut input = BufReader::with_capacity(128 << 10, file);
            let magic = input.fill_buf().expect("the layer is read")[0];
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
