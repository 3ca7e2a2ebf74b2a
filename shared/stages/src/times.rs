//! Where the time went, for a closing line.

use banger_cli::Out;
use banger_doc::Name;
use std::time::{Duration, Instant};

/// What took less in all needs no word.
const SHORT: Duration = Duration::from_secs(2);
/// What took less by itself is left out.
const LITTLE: Duration = Duration::from_millis(100);

/// How long each part of something took.
#[derive(Debug)]
pub struct Times {
    last: Instant,
    parts: Vec<(&'static str, Duration)>,
}

impl Times {
    /// Begins now.
    pub fn begin() -> Self {
        Self { last: Instant::now(), parts: Vec::new() }
    }

    /// Ends a part that began where the one before it ended.
    pub fn part(&mut self, what: &'static str) {
        let now = Instant::now();
        self.parts.push((what, now - self.last));
        self.last = now;
    }

    /// Says to a person who watches where the time went, if that is worth a line.
    pub fn say(&self, vm: &Name, out: &Out) {
        if let Some(words) = self.words(vm).filter(|_| out.is_live()) {
            out.note(&words);
        }
    }

    fn words(&self, vm: &Name) -> Option<String> {
        let all: Duration = self.parts.iter().map(|(_, time)| *time).sum();
        let long = self.parts.iter().filter(|(_, time)| *time >= LITTLE);
        let long: Vec<String> =
            long.map(|(what, time)| format!("{what} {:.1}s", time.as_secs_f32())).collect();
        (all >= SHORT && long.len() > 1)
            .then(|| format!("{vm}: {:.1}s in all: {}", all.as_secs_f32(), long.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_took_long_is_said() {
        let words = |parts: &[(&'static str, u64)]| {
            let parts = parts.iter().map(|(what, ms)| (*what, Duration::from_millis(*ms)));
            let times = Times { last: Instant::now(), parts: parts.collect() };
            times.words(&"web".parse().unwrap())
        };
        assert_eq!(
            words(&[("image", 197_250), ("boot", 14_100), ("workspace", 40), ("command", 900)]),
            Some("web: 212.3s in all: image 197.2s, boot 14.1s, command 0.9s".to_owned())
        );
        assert_eq!(words(&[("image", 200), ("boot", 900)]), None);
        // One part alone was told of by whoever did it.
        assert_eq!(words(&[("image", 20), ("boot", 9000)]), None);
    }
}
