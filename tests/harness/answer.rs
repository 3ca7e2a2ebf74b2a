//! What a program answered, and what a test expects of it.

use crate::Ended;
use serde_json::Value;
use std::{io::Write, path::Path, time::Duration};

/// What a program answered.
#[must_use]
#[derive(Debug)]
pub struct Answer {
    /// The command line.
    pub command: String,
    /// Exit status, or 128 and the signal's number.
    pub status: i32,
    /// Documents on stdout; empty after [`crate::Sandbox::raw`].
    pub documents: Vec<Value>,
    /// stdout as bytes.
    pub stdout: Vec<u8>,
    /// stderr as text.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
    raw: bool,
    dir: String,
}

impl Answer {
    pub(crate) fn new(command: String, dir: &Path, ended: Ended) -> Self {
        Self {
            command,
            status: ended.status,
            documents: Vec::new(),
            stdout: ended.stdout,
            stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
            took: ended.took,
            raw: true,
            dir: dir.display().to_string(),
        }
    }

    /// Reads stdout as documents, one a line; anything else fails the test.
    pub(crate) fn parsed(mut self) -> Self {
        self.raw = false;
        let text = self.text();
        for line in text.lines() {
            match serde_json::from_str::<Value>(line) {
                Ok(value) if value["schema"].as_str().is_some_and(|s| s.starts_with("banger.")) => {
                    self.documents.push(value);
                }
                _ => panic!("this line on stdout is no document: {line}\n{}", self.all()),
            }
        }
        assert!(
            self.stdout.is_empty() || self.stdout.ends_with(b"\n"),
            "stdout does not end with a line end\n{}",
            self.all()
        );
        self
    }

    /// Returns stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Fails the test unless the status is 0.
    pub fn ok(&self) -> &Self {
        assert_eq!(self.status, 0, "it failed\n{}", self.all());
        self
    }

    /// Fails the test unless the program failed with this status, `part` in what it said on stderr,
    /// and, if it prints documents, the same said by a `banger.error/1` as its last one.
    pub fn fails(&self, status: i32, part: &str) -> &Self {
        assert_eq!(self.status, status, "another status was expected\n{}", self.all());
        assert!(self.stderr.contains(part), "'{part}' is not on stderr\n{}", self.all());
        self.collect();
        if self.raw {
            return self;
        }
        let report = self.documents.last().unwrap_or(&Value::Null);
        assert_eq!(report["schema"], "banger.error/1", "no error document\n{}", self.all());
        let kinds = ["", "failed", "usage", "not-found", "conflict", "unavailable"];
        let kind = usize::try_from(status).ok().and_then(|status| kinds.get(status));
        assert_eq!(
            report["kind"].as_str(),
            kind.copied(),
            "kind and status differ\n{}",
            self.all()
        );
        let message = report["message"].as_str().unwrap_or_default();
        assert!(
            self.stderr.contains(message) && !message.is_empty(),
            "stderr and the document say different things\n{}",
            self.all()
        );
        self
    }

    /// Adds the error to the file that `BANGER_ERRORS` names: `docs/errors.md` is made of it.
    fn collect(&self) {
        let Some(path) = std::env::var_os("BANGER_ERRORS") else { return };
        let program = self.command.split(' ').next().unwrap_or("");
        let program = program.rsplit('/').next().unwrap_or("");
        let mut lines = self.stderr.lines().rev();
        let last = lines.next().unwrap_or("");
        let (hint, said) = match last.strip_prefix("hint: ") {
            Some(hint) => (hint, lines.next().unwrap_or("")),
            None => ("", last),
        };
        let Some(said) = said.strip_prefix(&format!("{program}: ")) else { return };
        if self.is_of_a_stand_in(said) {
            return;
        }
        let row = serde_json::json!({
            "program": program,
            "status": self.status,
            "message": self.general(said),
            "hint": self.general(hint),
        });
        // One write of one line: tests of many processes append to the file.
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(format!("{row}\n").as_bytes()));
    }

    /// Says whether a cause in a sentence was said by a stand-in for another program of banger's.
    fn is_of_a_stand_in(&self, said: &str) -> bool {
        let plain = |text: &str| text.replace('\'', "");
        let dir = Path::new(&self.dir).join("scratch/bin");
        let scripts: Vec<String> = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("banger-"))
            .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
            .map(|script| plain(&script))
            .collect();
        plain(said)
            .split(": ")
            .any(|cause| scripts.iter().any(|script| script.contains(&format!("\"{cause}\""))))
    }

    /// Takes out of a sentence what is only this test's: its folders, long numbers.
    fn general(&self, sentence: &str) -> String {
        let mut text = sentence.replace(&self.dir, "...");
        if let Some(folder) = text.find("/target/debug/") {
            let start = text[..folder].rfind(['\'', ' ']).map_or(0, |at| at + 1);
            text.replace_range(start..folder, "...");
        }
        let mut general = String::new();
        let is_hex = |c: char| c.is_ascii_hexdigit();
        while let Some(begin) = text.find(is_hex) {
            let run: String = text[begin..].chars().take_while(|c| is_hex(*c)).collect();
            // A word may end in letters of such a number, but not with as many as a sum has.
            let first =
                if run.len() < 16 { run.find(|c: char| c.is_ascii_digit()) } else { Some(0) };
            let number = first.filter(|first| run.len() - first >= 4);
            general.push_str(&text[..begin]);
            general.push_str(&run[..number.unwrap_or(run.len())]);
            general.push_str(if number.is_some() { "N" } else { "" });
            text.drain(..begin + run.len());
        }
        general.push_str(&text);
        general
    }

    /// Returns the one document, after checking that all went well.
    pub fn document(&self) -> &Value {
        self.ok();
        assert_eq!(self.documents.len(), 1, "one document was expected\n{}", self.all());
        &self.documents[0]
    }

    /// Returns everything known, for a message.
    pub fn all(&self) -> String {
        let mut stdout = self.text();
        if stdout.len() > 8000 {
            stdout = format!("({} bytes)", stdout.len());
        }
        format!(
            "$ {}\n{stdout}\n-- stderr --\n{}\n[exit {}, {:?}]",
            self.command, self.stderr, self.status, self.took
        )
    }
}
