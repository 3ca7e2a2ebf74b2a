//! Pages whose examples are run (`docs/contributing.md`, "Pages are tests").

use crate::{Sandbox, program};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Returns every page that may hold examples.
pub fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the root of the tree");
    let mut pages = vec![root.join("README.md")];
    for dir in ["docs", "docs/commands"] {
        for entry in fs::read_dir(root.join(dir)).expect("a folder of pages") {
            let path = entry.expect("a page").path();
            if path.extension().is_some_and(|ending| ending == "md") {
                pages.push(path);
            }
        }
    }
    pages.retain(|page| page.is_file());
    pages.sort();
    pages
}

/// A block of lines for a shell.
#[derive(Debug)]
pub struct Script {
    /// Where it is, `FILE:LINE`.
    pub place: String,
    /// What the comment before it says of how it is run; none without one.
    pub how: Option<How>,
    /// Its lines.
    pub lines: Vec<String>,
}

/// How a block of a page is run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum How {
    /// `<!-- runs: alone -->`: it makes the VMs it needs.
    Alone,
    /// `<!-- runs: in web -->`: a VM of that name runs.
    InWeb,
    /// `<!-- not run: WHY -->`.
    Not(String),
}

/// A page, line by line, and what was wrong in it.
#[derive(Debug)]
pub struct Page {
    path: PathBuf,
    lines: Vec<String>,
    complaints: Vec<String>,
    planted: (String, String),
}

/// A command of a block and the lines its output has in the page.
struct Example {
    command: String,
    from: usize,
    to: usize,
}

impl Page {
    /// Reads a page.
    pub fn open(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a page");
        Self {
            path: path.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
            complaints: Vec::new(),
            planted: ("alpine".into(), "generic-6.12".into()),
        }
    }

    /// Says whether the page has a block of this sort.
    pub fn has(&self, sort: &str) -> bool {
        let fence = format!("```{sort}");
        self.lines.contains(&fence)
    }

    /// Returns every block that begins with ` ```sh `, with the comment in the line before it.
    pub fn scripts(&self) -> Vec<Script> {
        let mut scripts = Vec::new();
        let mut at = 0;
        while at < self.lines.len() {
            if self.lines[at].starts_with("```") {
                let end = self.end_of_block(at + 1);
                if self.lines[at] == "```sh" {
                    let before = at.checked_sub(1).map_or("", |before| &self.lines[before]);
                    scripts.push(Script {
                        place: format!("{}:{}", self.path.display(), at + 1),
                        how: how(before),
                        lines: self.lines[at + 1..end].to_vec(),
                    });
                }
                at = end;
            }
            at += 1;
        }
        scripts
    }

    /// Returns the sorts of blocks that nothing is known of: neither run, nor shown as they are.
    pub fn odd_blocks(&self) -> Vec<String> {
        let known = ["", "console", "console vm", "sh", "text", "json", "toml"];
        let fences = self.lines.iter().filter_map(|line| line.strip_prefix("```"));
        fences.filter(|sort| !known.contains(sort)).map(str::to_owned).collect()
    }

    /// Runs every block of a sort (`console`, `console vm`) and the comments before them; returns
    /// how many commands ran.
    pub fn run(&mut self, sandbox: &Sandbox, sort: &str) -> usize {
        let fence = format!("```{sort}");
        let mut ran = 0;
        let mut at = 0;
        let mut waiting: Vec<String> = Vec::new();
        while at < self.lines.len() {
            let line = self.lines[at].clone();
            if let Some(words) = comment(&line, "plant:").or_else(|| comment(&line, "run:")) {
                waiting.push(if line.contains("plant:") {
                    format!("plant:{words}")
                } else {
                    words
                });
            } else if line == fence {
                for words in waiting.drain(..) {
                    self.prepare(sandbox, &words, at);
                }
                ran += self.block(sandbox, at + 1);
                at = self.end_of_block(at + 1);
            } else if line.starts_with("```") {
                // A block of another sort: what was prepared for it is not for the next one.
                waiting.clear();
                at = self.end_of_block(at + 1);
            }
            at += 1;
        }
        ran
    }

    /// Writes the page if blessing was asked for; else returns what was wrong.
    pub fn finish(self) -> Vec<String> {
        if std::env::var_os("BLESS").is_none() {
            return self.complaints;
        }
        fs::write(&self.path, self.lines.join("\n") + "\n").expect("a page");
        Vec::new()
    }

    fn prepare(&mut self, sandbox: &Sandbox, words: &str, at: usize) {
        let Some(list) = words.strip_prefix("plant:") else {
            let answer = shell(sandbox, words);
            if answer.status != 0 {
                self.complaints.push(format!("{}:{}: {}", self.path.display(), at, answer.all()));
            }
            return;
        };
        for item in list.split(',') {
            match item.split_whitespace().collect::<Vec<_>>()[..] {
                ["image", name] => {
                    sandbox.plant_image(name);
                    name.clone_into(&mut self.planted.0);
                }
                ["kernel", name] => {
                    sandbox.plant_kernel(name);
                    name.clone_into(&mut self.planted.1);
                }
                ["vm", name] => {
                    sandbox.plant_vm(name, &self.planted.0, &self.planted.1);
                }
                _ => panic!("{}:{at}: cannot plant '{item}'", self.path.display()),
            }
        }
    }

    /// Runs the commands of the block that begins at a line.
    fn block(&mut self, sandbox: &Sandbox, start: usize) -> usize {
        let mut examples: Vec<Example> = Vec::new();
        let end = self.end_of_block(start);
        for (number, line) in self.lines[..end].iter().enumerate().skip(start) {
            let last = examples.last_mut();
            if let Some(command) = line.strip_prefix("$ ") {
                let (from, to) = (number + 1, number + 1);
                examples.push(Example { command: command.to_owned(), from, to });
            } else if let Some(example) = last {
                match line.strip_prefix("> ") {
                    Some(more) if example.from == number => {
                        example.command.push('\n');
                        example.command.push_str(more);
                        example.from = number + 1;
                    }
                    _ => {}
                }
                example.to = number + 1;
            } else {
                panic!("{}:{}: output before a command", self.path.display(), number + 1);
            }
        }
        // From the end, so that a changed output does not move the lines still to come.
        let answers: Vec<Vec<String>> =
            examples.iter().map(|example| shown(sandbox, &example.command)).collect();
        for (example, printed) in examples.iter().zip(answers).rev() {
            let wanted = &self.lines[example.from..example.to];
            if !matches(wanted, &printed) {
                self.complaints.push(format!(
                    "{}:{}: $ {}\n--- the page\n{}\n--- printed\n{}\n",
                    self.path.display(),
                    example.from,
                    example.command,
                    wanted.join("\n"),
                    printed.join("\n"),
                ));
                self.lines.splice(example.from..example.to, printed);
            }
        }
        examples.len()
    }

    fn end_of_block(&self, start: usize) -> usize {
        let length = self.lines[start..].iter().position(|line| line == "```");
        start + length.unwrap_or_else(|| panic!("{}: a block has no end", self.path.display()))
    }
}

fn how(line: &str) -> Option<How> {
    match (comment(line, "runs:").as_deref(), comment(line, "not run:")) {
        (Some("alone"), _) => Some(How::Alone),
        (Some("in web"), _) => Some(How::InWeb),
        (None, Some(why)) if why.len() > 5 => Some(How::Not(why)),
        _ => None,
    }
}

fn comment(line: &str, word: &str) -> Option<String> {
    let words = line.trim().strip_prefix("<!-- ")?.strip_suffix("-->")?.strip_prefix(word)?;
    Some(words.trim().to_owned())
}

fn shell(sandbox: &Sandbox, command: &str) -> crate::Answer {
    // In colour, jq's answer would be another one on the terminal than in the page.
    let command = format!("jq() {{ command jq -M \"$@\"; }}\n{command}");
    sandbox.terminal(&command, 100, |shell| {
        let beside = program("banger");
        let beside = beside.parent().expect("a folder").display().to_string();
        shell.env("PATH", format!("{beside}:{}", crate::SYSTEM_PATH));
    })
}

/// Runs a command and returns what a person would see, line by line.
fn shown(sandbox: &Sandbox, command: &str) -> Vec<String> {
    let answer = shell(sandbox, command);
    let state = sandbox.state().display().to_string();
    let text = answer.text().replace('\r', "") + &answer.stderr;
    let text = text.replace(&state, "[STATE]");
    let mut lines: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
    if answer.status != 0 {
        lines.push(format!("[exit {}]", answer.status));
    }
    lines
}

/// Compares lines; `...` alone stands for any lines, `[..]` for anything within one.
fn matches(wanted: &[String], printed: &[String]) -> bool {
    match wanted.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == "..." => {
            (0..=printed.len()).any(|skip| matches(rest, &printed[skip..]))
        }
        Some((first, rest)) => printed
            .split_first()
            .is_some_and(|(line, more)| fits(first, line) && matches(rest, more)),
    }
}

/// Compares one line.
fn fits(wanted: &str, printed: &str) -> bool {
    match wanted.split_once("[..]") {
        None => wanted == printed,
        Some((start, rest)) => printed.strip_prefix(start).is_some_and(|printed| {
            (0..=printed.len())
                .filter(|at| printed.is_char_boundary(*at))
                .any(|at| fits(rest, &printed[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_comment_says_how_a_block_is_run() {
        assert_eq!(how("<!-- runs: alone -->"), Some(How::Alone));
        assert_eq!(how("<!-- runs: in web -->"), Some(How::InWeb));
        assert_eq!(
            how("<!-- not run: it needs docker -->"),
            Some(How::Not("it needs docker".into()))
        );
        for none in
            ["", "<!-- not run: -->", "<!-- runs: -->", "<!-- runs: elsewhere -->", "runs: alone"]
        {
            assert_eq!(how(none), None, "{none}");
        }
    }

    #[test]
    fn wildcards_stand_for_what_they_say() {
        assert!(fits("a [..] c", "a bb b c"));
        assert!(fits("web  [..]", "web  created"));
        assert!(!fits("a [..] c", "a b"));
        assert!(matches(&lines("a\n...\nz"), &lines("a\nb\nc\nz")));
        assert!(matches(&lines("...\nz"), &lines("z")));
        assert!(!matches(&lines("a"), &lines("a\nb")));
        assert!(!matches(&lines("a\nb"), &lines("a")));
    }
}
