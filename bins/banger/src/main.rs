//! Turns words into a program and becomes it. Knows how other tools spell things and no command:
//! what it finds beside itself and in `PATH` is what there is.

mod page;
mod spellings;

use banger_doc::visible_text;
use page::{PAGE, PLUMBING};
use spellings::{ANSWERS, IN_GROUP, SPELLINGS};
use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{ErrorKind, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// The most words a program's name is made of.
const DEPTH: usize = 3;
/// How many programs share a first word that is typed apart.
const GROUP: usize = 3;
/// How much room the first page has for commands of others.
const OTHERS: usize = 60;
/// How long the list of commands waits for what the programs say of themselves.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    match words.first().and_then(|word| word.to_str()) {
        None | Some("--help" | "-h") => return first_page(),
        Some("help") if words.len() == 1 => return first_page(),
        Some("help") if words.len() == 2 && (words[1] == "all" || words[1] == "--all") => {
            return overview("");
        }
        Some("help") => return become_program(&words[1..], &["--help".into()]),
        Some("--completion-words") if words.len() == 1 => {
            return complete();
        }
        Some("--version" | "-V" | "version") if words.len() == 1 => {
            return print(&format!("banger {}\n", env!("CARGO_PKG_VERSION")));
        }
        Some(_) => {}
    }
    become_program(&words, &[])
}

/// Prints the commands for the scripts of the shells, then what else may be typed, with a TAB and the
/// command it stands for.
fn complete() -> ExitCode {
    let programs = programs();
    let mut text = String::new();
    for words in programs.keys() {
        text.push_str(words);
        text.push('\n');
    }
    let groups = ["vm", "image", "kernel"];
    let in_group = groups.iter().flat_map(|group| {
        IN_GROUP
            .iter()
            .map(move |(typed, meant)| (format!("{group} {typed}"), format!("{group} {meant}")))
    });
    let alone = SPELLINGS.iter().map(|(typed, meant)| ((*typed).to_owned(), (*meant).to_owned()));
    for (typed, meant) in alone.chain(in_group) {
        if programs.contains_key(&meant) && !programs.contains_key(&typed) {
            text = text + &typed + "\t" + &meant + "\n";
        }
    }
    print(&text)
}

/// Prints text. A reader that went away is no failure.
fn print(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            fail(1, &format!("cannot write to stdout: {error}"), None)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Becomes the program that the longest run of leading words names, as they are typed or as banger
/// spells them. With `instead`, these words take the place of the rest.
fn become_program(words: &[OsString], instead: &[OsString]) -> ExitCode {
    for words in [words, &respelled(words)] {
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
    }
    let leading = words.iter().take(DEPTH).take_while(|word| is_word(word)).count();
    unknown(&words[..leading.max(1)])
}

/// Returns the words as banger spells them, the longest spelling first.
fn respelled(words: &[OsString]) -> Vec<OsString> {
    let begins = |row: &&(&str, &str)| {
        row.0.split(' ').enumerate().all(|(at, word)| words.get(at).is_some_and(|one| one == word))
    };
    let mut rows: Vec<_> = SPELLINGS.iter().filter(begins).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.0.len()));
    let row = match rows.as_slice() {
        [first, second, ..] if first.0 == second.0 && names_anything(&words[1..]) => Some(second),
        rows => rows.first(),
    };
    if let Some((typed, meant)) = row {
        let rest = &words[typed.split(' ').count()..];
        return meant.split(' ').map(OsString::from).chain(rest.iter().cloned()).collect();
    }
    let mut words = words.to_vec();
    if let Some((_, meant)) =
        words.get(1).and_then(|word| IN_GROUP.iter().find(|(typed, _)| word == typed))
    {
        words[1] = (*meant).into();
    }
    words
}

/// Says whether any of these words is more than an option that every program has.
fn names_anything(words: &[OsString]) -> bool {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--format" {
            words.next();
        } else if !word.as_encoded_bytes().starts_with(b"-") {
            return true;
        }
    }
    false
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
    near.or_else(|| which::which_in(name, env::join_paths(path_dirs()).ok(), "/").ok())
}

/// Returns the absolute directories of `PATH`. The others lead into the directory of the moment, which may be
/// a repository that somebody else wrote.
fn path_dirs() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).filter(|dir| dir.is_absolute()).collect()
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Returns the words of every program that can be found, guest programs apart, and where it is.
fn programs() -> BTreeMap<String, PathBuf> {
    let mut dirs: Vec<PathBuf> = beside().into_iter().collect();
    dirs.extend(path_dirs());
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

/// Prints what people do with banger and the commands for it.
fn first_page() -> ExitCode {
    let programs = programs();
    let mut text = "banger: development sandboxes on microVMs\n\n".to_owned();
    for (what, lines) in PAGE {
        let mut what = *what;
        let there = lines.iter().filter(|line| programs.contains_key(&page::command(line.0)));
        for (typed, purpose) in there {
            text = text + "  " + &format!("{what:<8}{typed:<20}{purpose}\n");
            what = "";
        }
    }
    let yours = others(&programs);
    if !yours.is_empty() {
        text = text + "  yours   " + &yours + "\n";
    }
    text += "\n'banger help COMMAND' explains one, 'banger help all' lists all of them\n";
    text += "start with: banger vm run\n";
    print(&text)
}

/// Returns the commands that are not banger's own, as many as a line has room for.
fn others(programs: &BTreeMap<String, PathBuf>) -> String {
    let mut line = String::new();
    for (words, _) in programs.iter().filter(|(_, path)| !is_own(path)) {
        let comma = if line.is_empty() { "" } else { ", " };
        if line.len() + words.len() + comma.len() > OTHERS {
            return line + " ...";
        }
        line = line + comma + words;
    }
    line
}

/// Lists the commands, or those of one group; those for programs come last, and only where all are
/// asked for.
fn overview(group: &str) -> ExitCode {
    let begin = if group.is_empty() { String::new() } else { format!("{group} ") };
    let mut programs = programs();
    programs.retain(|words, _| words.starts_with(&begin));
    let of_programs = |words: &String| PLUMBING.contains(&words.as_str());
    if !group.is_empty() {
        programs.retain(|words, _| !of_programs(words));
    }
    let width = programs.keys().map(String::len).max().unwrap_or(0);
    let (mut people, mut plumbing) = (String::new(), String::new());
    for (words, what) in programs.keys().zip(purposes(&programs)) {
        let text = if of_programs(words) { &mut plumbing } else { &mut people };
        let line = format!("  {words:<width$}  {what}");
        *text = std::mem::take(text) + line.trim_end() + "\n";
    }
    if !plumbing.is_empty() {
        plumbing.insert_str(0, "\nfor programs:\n");
    }
    let text = format!(
        "usage: banger {begin}COMMAND; 'banger help {begin}COMMAND' explains one\n\n{people}{plumbing}"
    );
    print(&text)
}

/// Says whether a program lies where this one does.
fn is_own(path: &Path) -> bool {
    path.parent().is_some_and(|dir| Some(dir) == beside().as_deref())
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
            if is_own(&path) {
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
    // What follows the command is its affair.
    let typed = typed[..if is_group { 2 } else { 1 }].join(" ");
    let last = typed.strip_prefix(&group).unwrap_or(&typed);
    let list = if is_group {
        format!("'banger help {}' lists the commands", group.trim_end())
    } else {
        "'banger help' lists the commands".to_owned()
    };
    let answer = ANSWERS.iter().find(|(word, _)| *word == last).map(|(_, answer)| *answer);
    let hint = match (answer, nearest(&typed, &known)) {
        (Some(answer), _) => answer.to_owned(),
        (None, Some(words)) => format!("did you mean 'banger {words}'? {list}"),
        (None, None) => list,
    };
    fail(2, &format!("no command '{}'", typed.escape_debug()), Some(&hint))
}

/// Returns the command whose spelling is nearest to what was typed: letters that are missing, wrong,
/// too many or in each other's place. A long word may have more of them.
fn nearest(typed: &str, known: &BTreeMap<String, PathBuf>) -> Option<String> {
    let last = typed.rsplit(' ').next().unwrap_or_default();
    let group = typed.strip_suffix(last).unwrap_or_default();
    let own = known.keys().map(|words| (words.as_str(), words.clone()));
    let others = SPELLINGS
        .iter()
        .filter(|row| known.contains_key(row.1))
        .map(|(typed, meant)| (*typed, (*meant).to_owned()));
    let in_group = IN_GROUP.iter().map(|(word, meant)| (*word, format!("{group}{meant}")));
    let whole = own
        .chain(others)
        .map(|(spelling, meant)| (strsim::osa_distance(spelling, typed), spelling.len(), meant));
    let within = in_group
        .filter(|(_, meant)| !group.is_empty() && known.contains_key(meant))
        .map(|(word, meant)| (strsim::osa_distance(word, last), word.len(), meant));
    // A command of a group, typed without the group.
    let alone = known.keys().filter(|_| group.is_empty()).filter_map(|words| {
        let command = words.split_once(' ')?.1;
        Some((strsim::osa_distance(command, last), command.len(), words.clone()))
    });
    whole
        .chain(within)
        .chain(alone)
        .filter(|(distance, length, _)| *distance <= (last.len().min(*length) / 3).clamp(1, 2))
        .min_by_key(|(distance, _, words)| (*distance, !words.starts_with("vm "), words.clone()))
        .map(|(_, _, words)| words)
}

fn fail(status: u8, message: &str, hint: Option<&str>) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "banger: {}", visible_text(message));
    if let Some(hint) = hint {
        let _ = writeln!(stderr, "hint: {}", visible_text(hint));
    }
    ExitCode::from(status)
}
