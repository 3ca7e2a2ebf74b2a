//! What is to be typed again is quoted for the shell: a path or a name in a command that a hint or a
//! note shows goes through `banger_doc::shell_word`.

use crate::{code_of, none, sources};

/// What may stand in a command without it: by file, or in any for `*`, and why it is one plain word.
const PLAIN: &[(&str, &str, &str)] = &[
    ("*", "kind", "one of our own words"),
    ("*", "kind.word()", "one of our own words"),
    ("*", "command", "a program of our choice, with its options"),
    ("*", "tool", "a program of our choice, with its options"),
    ("bins/banger-doctor/src/stored.rs", "what", "'image' or 'kernel'"),
    ("bins/banger-image-delete/src/main.rs", "words", "names of VMs"),
    ("bins/banger-image-import/src/main.rs", "name", "a Name"),
    ("bins/banger-image-import/src/main.rs", "more", "quoted where it is made"),
    ("bins/banger-image-pull/src/main.rs", "image.name", "a Name"),
    ("bins/banger-kernel-delete/src/main.rs", "words", "names of VMs"),
    ("bins/banger-ssh-config/src/main.rs", "SUFFIX", "a constant"),
    ("bins/banger-ssh-config/src/main.rs", "KNOWN_TERMINALS", "a constant"),
    ("bins/banger-vm-cp/src/main.rs", "user", "no command: what was typed is said again"),
    ("bins/banger-vm-cp/src/place.rs", "from", "a Name"),
    ("bins/banger-vm-cp/src/place.rs", "to", "a Name"),
    ("bins/banger-vm-create/src/main.rs", "name", "a Name"),
    ("bins/banger-vm-create/src/room.rs", "mib", "a number"),
    ("bins/banger-vm-create/src/room.rs", "need.disk_mib()", "a number"),
    ("bins/banger-vm-create/src/room.rs", "option", "one of our own options"),
    ("bins/banger-vm-start/src/main.rs", "names", "names of VMs"),
    ("bins/banger-vm-stop/src/main.rs", "first", "a Name"),
    ("bins/banger/src/main.rs", "begin", "the name of a group of commands"),
    ("bins/banger/src/main.rs", "group.trim_end()", "the name of a group of commands"),
    ("bins/banger/src/main.rs", "words", "a command's name"),
    ("shared/cli/src/leave.rs", "back", "one of our own words"),
    ("shared/cli/src/lib.rs", "spelled(command.get_name())", "a command's name"),
    ("shared/cli/src/lib.rs", "first", "an argument as the help names it"),
    ("shared/cli/src/lib.rs", "name(last)?", "an argument as the help names it"),
    ("shared/lease/src/lib.rs", "holder", "a Name"),
    ("shared/oci/src/source.rs", "word", "quoted where it is made"),
    ("shared/state/src/shelf.rs", "noun", "one of our own words"),
    ("shared/state/src/shelf.rs", "list", "a command of ours"),
    ("shared/state/src/vm.rs", "self.name", "a Name"),
    ("shared/workspace/src/git.rs", "verb", "no command to type: which one failed is said"),
    ("shared/workspace/src/status.rs", "vm", "a Name, as text"),
    ("shared/workspace/src/status.rs", "which", "quoted where it is made"),
    ("shared/workspace/src/watch/listen.rs", "asked", "a number"),
];

/// Expressions that end so are names or numbers wherever they are.
const ENDS: &[&str] = &[".name()", ".vm", ".host_port", ".guest_port"];

#[test]
fn what_is_to_be_typed_again_is_quoted_for_the_shell() {
    let mut complaints = Vec::new();
    let mut used = vec![false; PLAIN.len()];
    for path in sources() {
        // What runs in a guest shows nothing to the host's user.
        let in_guest = ["bins/banger-guest-", "shared/guest/", "shared/agent/"];
        if in_guest.iter().any(|guest| path.starts_with(guest)) {
            continue;
        }
        for (line, expression, command) in unquoted(&code_of(&path)) {
            let row = PLAIN.iter().position(|(file, plain, _)| {
                (*file == "*" || *file == path) && *plain == expression
            });
            match row {
                Some(row) => used[row] = true,
                None => complaints.push(format!(
                    "{path}:{line}: '{command}' holds {expression}, which is not quoted by shell_word"
                )),
            }
        }
    }
    for ((file, plain, _), _) in PLAIN.iter().zip(&used).filter(|(_, used)| !**used) {
        complaints.push(format!("{file} has no '{plain}' in a command: take it out of the table"));
    }
    none(complaints);
}

/// Returns what stands in commands of a source and is not seen to be quoted: its line, the expression,
/// the command.
fn unquoted(code: &str) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((start, end)) = literal(code, at) {
        at = end + 1;
        let words = joined(&code[start..end]);
        let given = arguments(&code[at.min(code.len())..]);
        let held = interpolated(&words, &given);
        for (from, to) in commands(&words) {
            for (place, expression) in &held {
                if (from..to).contains(place) && !is_quoted(expression, &code[..start]) {
                    let line = code[..start].matches('\n').count() + 1;
                    found.push((line, expression.clone(), words[from..to].to_owned()));
                }
            }
        }
    }
    found
}

/// Finds the next string: where its content begins and ends.
fn literal(code: &str, mut at: usize) -> Option<(usize, usize)> {
    let bytes = code.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at += code[at..].find('\n')?;
            }
            // A letter, which may be a quote.
            b'\'' if bytes.get(at + 1) == Some(&b'\\') => at += 3 + code[at + 3..].find('\'')?,
            b'\'' if bytes.get(at + 2) == Some(&b'\'') => at += 2,
            b'"' => {
                let start = at + 1;
                let mut end = start;
                while *bytes.get(end)? != b'"' {
                    end += if bytes[end] == b'\\' { 2 } else { 1 };
                }
                return Some((start, end));
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Joins a string that goes on in further lines.
fn joined(content: &str) -> String {
    let mut parts = content.split("\\\n");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    parts.for_each(|part| whole.push_str(part.trim_start()));
    whole
}

/// Splits what follows a string in a macro's parentheses.
fn arguments(rest: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let (mut depth, mut inside, mut skip) = (0, false, false);
    for letter in rest.chars() {
        match letter {
            _ if skip => skip = false,
            '\\' if inside => skip = true,
            '"' => inside = !inside,
            _ if inside => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                all.push(String::new());
                continue;
            }
            _ => {}
        }
        all.last_mut().expect("one at least").push(letter);
    }
    all.iter()
        .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|part| !part.is_empty())
        .collect()
}

/// Returns what is put into a string: where, and the expression.
fn interpolated(words: &str, given: &[String]) -> Vec<(usize, String)> {
    let named = |name: &str| {
        given.iter().find_map(|part| Some(part.strip_prefix(name)?.strip_prefix(" = ")?.to_owned()))
    };
    let is_named = |part: &&String| {
        part.split_once(" = ")
            .is_some_and(|(name, _)| name.chars().all(|c| c.is_alphanumeric() || c == '_'))
    };
    let mut in_order = given.iter().filter(|part| !is_named(part));
    let by_number: Vec<&String> = in_order.clone().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(brace) = words[at..].find('{').map(|found| at + found) {
        if words[brace + 1..].starts_with('{') {
            at = brace + 2;
            continue;
        }
        let Some(end) = words[brace..].find('}').map(|end| brace + end) else { break };
        let name = words[brace + 1..end].split(':').next().unwrap_or_default();
        let expression = match name.parse::<usize>() {
            _ if name.is_empty() => in_order.next().cloned(),
            Ok(number) => by_number.get(number).map(|part| (*part).clone()),
            Err(_) => Some(named(name).unwrap_or_else(|| name.to_owned())),
        };
        found.push((brace, expression.unwrap_or_default()));
        at = end + 1;
    }
    found
}

/// Finds what is between single quotes and is more than one thing that is named: a command, a
/// reference with its kind.
fn commands(words: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(open) = words[at..].find('\'').map(|found| at + found) {
        let begins = words[..open].ends_with([' ', '(', ';', ':', ',', '[']) || open == 0;
        let Some(close) = words[open + 1..].find('\'').map(|end| open + 1 + end) else { break };
        if !begins {
            at = open + 1;
            continue;
        }
        let inside = &words[open + 1..close];
        let kinds = ["oci:", "oci-archive:", "docker-archive:", "./"];
        if inside.contains(' ') || kinds.iter().any(|kind| inside.starts_with(kind)) {
            found.push((open + 1, close));
        }
        at = close + 1;
    }
    found
}

/// Says whether an expression is seen to be one word for a shell. `before` is the code above it.
fn is_quoted(expression: &str, before: &str) -> bool {
    let expression = expression.trim_start_matches("banger_doc::");
    let calls = |text: &str| text.starts_with("shell_word(") || text.starts_with("shell_words(");
    if calls(expression) || ENDS.iter().any(|end| expression.ends_with(end)) {
        return true;
    }
    // Or each way through it is.
    if expression.starts_with("if ") && expression.contains("shell_word(") {
        return true;
    }
    if !expression.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return false;
    }
    // What the nearest line above says of the name.
    let made = before.rfind(&format!("let {expression} = "));
    let typed = before.rfind(&format!("{expression}: "));
    match (made, typed) {
        (Some(at), typed) if typed.is_none_or(|typed| typed < at) => {
            let made = before[at..].split(';').next().unwrap_or_default();
            let made = made.split_once(" = ").map_or("", |(_, made)| made).trim();
            calls(made)
                || made.contains("shell_word(") && made.starts_with("if ")
                || ENDS.iter().any(|end| made.ends_with(end))
                || made == "&self.name"
                || made.ends_with(".vm.name")
        }
        (_, Some(at)) => {
            let of = before[at + expression.len() + 2..].split([',', ')', '\n']).next();
            matches!(of.unwrap_or_default(), "&Name" | "Name" | "u16" | "u32" | "u64" | "usize")
                || of.unwrap_or_default().starts_with("Option<&Name>")
        }
        _ => false,
    }
}

#[test]
fn an_unquoted_name_is_found_however_it_is_written() {
    let finds =
        |code: &str| unquoted(code).into_iter().map(|(_, what, _)| what).collect::<Vec<_>>();
    assert_eq!(finds(r#"hint(format!("'ls -la {}' shows", path.display()))"#), ["path.display()"]);
    assert_eq!(finds(r#"hint(format!("'ls -la {path}' shows"))"#), ["path"]);
    assert_eq!(finds(r#"note(&format!("x; 'mkdir -p {p}' makes it", p = a.b()))"#), ["a.b()"]);
    assert_eq!(finds("format!(\"'a' is; 'git \\\n   -C {0} st' or\", x)"), ["x"]);
    assert_eq!(finds(r#"format!("'oci:{path}'")"#), ["path"]);
    assert_eq!(finds(r#"fn f(name: &str) { format!("'banger vm stop {name}'") }"#), ["name"]);
    assert!(finds(r#"fn f(name: &Name) { format!("'banger vm stop {name}'") }"#).is_empty());
    assert!(finds(r#"let p = shell_word(path); format!("'ls {p}' or")"#).is_empty());
    assert!(finds(r#"format!("'ls {}' or '{}' {}", shell_word(path), a, b)"#).is_empty());
    assert!(finds(r#"format!("no '{name}' in VM '{vm}'")"#).is_empty());
}
