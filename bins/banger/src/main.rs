//! Turns words into a program and becomes it. Knows two spellings and no command: what it finds
//! beside itself and in `PATH` is what there is.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs,
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// The most words a program's name is made of.
const DEPTH: usize = 3;
/// How many programs share a first word that is typed apart.
const GROUP: usize = 3;
/// What other tools call what banger's programs do; said in a hint, never obeyed.
const SAID: &[(&str, &str)] = &[
    ("ls", "list"),
    ("rm", "delete"),
    ("remove", "delete"),
    ("inspect", "show"),
    ("shell", "ssh"),
    ("copy", "cp"),
];
/// How long the list of commands waits for what the programs say of themselves.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    match words.first().and_then(|word| word.to_str()) {
        None | Some("--help" | "-h") => return overview(""),
        Some("help") if words.len() == 1 => return overview(""),
        Some("help") => return become_program(&words[1..], &["--help".into()]),
        Some("--completion-words") if words.len() == 1 => {
            for words in programs().keys() {
                let _ = writeln!(std::io::stdout(), "{words}");
            }
            return ExitCode::SUCCESS;
        }
        Some("--version" | "-V" | "version") if words.len() == 1 => {
            let _ = writeln!(std::io::stdout(), "banger {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some(_) => {}
    }
    become_program(&words, &[])
}

/// Becomes the program that the longest run of leading words names. With `instead`, these words
/// take the place of the rest.
fn become_program(words: &[OsString], instead: &[OsString]) -> ExitCode {
    let words = &respelled(words)[..];
    let leading = words.iter().take(DEPTH).take_while(|word| is_word(word)).count();
    for depth in (1..=leading).rev() {
        let mut name = OsString::from("banger");
        for word in &words[..depth] {
            name.push("-");
            name.push(word);
        }
        let Some(path) = find(&name) else { continue };
        let rest = if instead.is_empty() { &words[depth..] } else { instead };
        let error = Command::new(&path).arg0(&name).args(rest).exec();
        return fail(1, &format!("cannot run '{}': {error}", path.display()), None);
    }
    unknown(&words[..leading.max(1)])
}

/// The two spellings: `vm workspace X` is `workspace X`, `ps` is `vm list`.
fn respelled(words: &[OsString]) -> Vec<OsString> {
    match words {
        [vm, workspace, ..] if vm == "vm" && workspace == "workspace" => words[1..].to_vec(),
        [ps, rest @ ..] if ps == "ps" => {
            [OsString::from("vm"), "list".into()].into_iter().chain(rest.iter().cloned()).collect()
        }
        _ => words.to_vec(),
    }
}

/// Only plain words name programs: never an option, never a path.
fn is_word(word: &OsStr) -> bool {
    let bytes = word.as_encoded_bytes();
    !bytes.is_empty()
        && !bytes.starts_with(b"-")
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn beside() -> Option<PathBuf> {
    Some(env::current_exe().ok()?.parent()?.to_owned())
}

fn find(name: &OsStr) -> Option<PathBuf> {
    let near = beside().map(|dir| dir.join(name)).filter(|path| is_program(path));
    near.or_else(|| which::which(name).ok())
}

fn is_program(path: &std::path::Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Returns the words of every program that can be found, guest programs apart, and where it is.
fn programs() -> BTreeMap<String, PathBuf> {
    let mut dirs: Vec<PathBuf> = beside().into_iter().collect();
    dirs.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten() {
        let name = entry.file_name();
        let Some(words) = name.to_str().and_then(|name| name.strip_prefix("banger-")) else {
            continue;
        };
        let plain = words.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        let wanted = plain && !words.starts_with("guest-") && words != "xtask";
        if wanted && !found.contains_key(words) && is_program(&entry.path()) {
            found.insert(words.to_owned(), entry.path());
        }
    }
    // A first word that several share is a group, and is typed apart: `vm run`, but `ssh-config`.
    let first = |words: &str| words.split('-').next().unwrap_or("").to_owned();
    let mut groups: BTreeMap<String, usize> = BTreeMap::new();
    for words in found.keys() {
        *groups.entry(first(words)).or_default() += 1;
    }
    let spell = |words: String| match groups[&first(&words)] {
        0..GROUP => words,
        _ => words.replacen('-', " ", 1),
    };
    found.into_iter().map(|(words, path)| (spell(words), path)).collect()
}

/// Lists the commands, or those of one group.
fn overview(group: &str) -> ExitCode {
    let begin = if group.is_empty() { String::new() } else { format!("{group} ") };
    let mut programs = programs();
    programs.retain(|words, _| words.starts_with(&begin));
    let mut text = format!(
        "banger: development sandboxes on microVMs\n\n\
         usage: banger {begin}COMMAND [OPTION]... [ARGUMENT]...\n\
         \x20      banger help {begin}COMMAND\n\n"
    );
    if group.is_empty() {
        text.push_str("start: banger vm run\n\n");
    }
    text.push_str("commands:\n");
    let width = programs.keys().map(String::len).max().unwrap_or(0);
    for (words, what) in programs.keys().zip(purposes(&programs)) {
        let line = format!("  {words:<width$}  {what}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Returns the first line of each program's help; nothing of a program that is not banger's own,
/// which may not know `--help`, and nothing of one that does not answer.
fn purposes(programs: &BTreeMap<String, PathBuf>) -> Vec<String> {
    let end = Instant::now() + PATIENCE;
    let answers: Vec<_> = programs
        .values()
        .map(|path| {
            let (sender, receiver) = mpsc::channel();
            let path = path.clone();
            if path.parent().is_some_and(|dir| Some(dir) == beside().as_deref()) {
                thread::spawn(move || {
                    let help = Command::new(path).arg("--help").stdin(Stdio::null()).output();
                    let text = help.map(|help| help.stdout).unwrap_or_default();
                    let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
                });
            }
            receiver
        })
        .collect();
    answers
        .into_iter()
        .map(|answer| {
            let left = end.saturating_duration_since(Instant::now());
            let help = answer.recv_timeout(left).unwrap_or_default();
            help.lines().next().unwrap_or_default().to_owned()
        })
        .collect()
}

/// Lists a group's commands where only the group was named; else says what might be meant.
fn unknown(words: &[OsString]) -> ExitCode {
    let typed: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let known = programs();
    let group = format!("{} ", typed[0]);
    let is_group = known.keys().any(|words| words.starts_with(&group));
    if is_group && typed.len() == 1 {
        return overview(&typed[0]);
    }
    let nearest = meant(&typed, &known);
    let typed = typed.join(" ");
    let nearest = nearest.or_else(|| {
        known
            .into_keys()
            .map(|words| (strsim::levenshtein(&words, &typed), words))
            .min()
            .filter(|(distance, words)| *distance <= words.len().max(typed.len()) / 2)
            .map(|(_, words)| words)
    });
    let list = if is_group {
        format!("'banger help {}' lists the commands", group.trim_end())
    } else {
        "'banger help' lists the commands".to_owned()
    };
    let hint = nearest
        .map_or_else(|| list.clone(), |words| format!("did you mean 'banger {words}'? {list}"));
    fail(2, &format!("no command '{}'", typed.escape_debug()), Some(&hint))
}

/// Returns the command of a group, or of another tool's words, that leading words name.
fn meant(typed: &[Cow<'_, str>], known: &BTreeMap<String, PathBuf>) -> Option<String> {
    (1..=typed.len()).rev().find_map(|count| {
        let (last, before) = typed[..count].split_last()?;
        let own = SAID.iter().find(|(said, _)| said == last).map_or(&**last, |(_, own)| own);
        let words = before.iter().map(|word| &**word).chain([own]).collect::<Vec<_>>().join(" ");
        let in_group =
            |known: &&String| known.split_once(' ').is_some_and(|(_, command)| command == words);
        let exact = known.keys().find(|known| **known == words);
        let grouped =
            || known.keys().filter(in_group).min_by_key(|known| !known.starts_with("vm "));
        exact.or_else(grouped).cloned()
    })
}

fn fail(status: u8, message: &str, hint: Option<&str>) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "banger: {message}");
    if let Some(hint) = hint {
        let _ = writeln!(stderr, "hint: {hint}");
    }
    ExitCode::from(status)
}
