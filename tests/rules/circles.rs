//! Modules of one crate import each other one way: whoever reads a module finds what it builds on
//! below it, and can change it without looking at what is above.

use crate::{ending, files, none, read};
use std::{
    collections::{BTreeMap, BTreeSet},
    slice::from_ref,
};

/// Crates whose root has, beside modules, what its modules share, as a small program's `main.rs` has
/// its arguments. Their modules may name it.
const SHARING_ROOTS: &[&str] = &[
    "bins/banger-dns",
    "bins/banger-doctor",
    "bins/banger-image-pull",
    "bins/banger-vm-create",
    "bins/banger-vm-logs",
    "bins/banger-vm-set",
    "shared/agent",
    "shared/cli",
    "shared/layer",
];

/// A module, as the names that lead to it from the root of its crate.
type Module = Vec<String>;

/// What a module's text says.
#[derive(Default)]
struct Source {
    /// Modules that are declared in it.
    children: BTreeSet<String>,
    /// What it imports, by the name that the import has here.
    imports: BTreeMap<String, Vec<String>>,
    /// Every path into the crate that it names, but for what it only passes on.
    paths: Vec<Vec<String>>,
}

/// Returns the sources of every crate, by its folder.
fn crates() -> BTreeMap<String, BTreeMap<Module, String>> {
    let mut crates: BTreeMap<String, BTreeMap<Module, String>> = BTreeMap::new();
    for path in ending("rs", files()) {
        let Some((folder, file)) = path.split_once("/src/") else { continue };
        if !(folder.starts_with("bins/") || folder.starts_with("shared/")) {
            continue;
        }
        let mut module: Module =
            file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|name| ["main", "lib", "mod"].contains(&name.as_str())) {
            module.pop();
        }
        crates.entry(folder.to_owned()).or_default().insert(module, read(&path));
    }
    crates
}

/// Splits a text into words, `::` and other signs, without comments, texts and what only tests have.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let chars: Vec<char> = text.chars().collect();
    let starts = |at: usize, with: &str| {
        with.chars().enumerate().all(|(n, c)| chars.get(at + n) == Some(&c))
    };
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        if starts(at, "//") {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if c == '"' {
            at += 1;
            while at < chars.len() && chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if c == '\'' && (starts(at + 2, "'") || starts(at + 1, "\\")) {
            // A character; a lifetime has no second quote.
            at += 2;
            while at < chars.len() && chars[at] != '\'' {
                at += 1;
            }
            at += 1;
        } else if is_word(c) {
            let from = at;
            while at < chars.len() && is_word(chars[at]) {
                at += 1;
            }
            let word: String = chars[from..at].iter().collect();
            let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
            if ["r", "br", "cr"].contains(&word.as_str()) && starts(at + hashes, "\"") {
                let end = format!("\"{}", "#".repeat(hashes));
                at += hashes + 1;
                while at < chars.len() && !starts(at, &end) {
                    at += 1;
                }
                at += end.len();
            } else {
                tokens.push(word);
            }
        } else if starts(at, "::") {
            tokens.push("::".into());
            at += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.into());
            }
            at += 1;
        }
    }
    without_tests(tokens)
}

/// Leaves out what follows `#[cfg(test)]`, up to the `;` or the `}` that ends it.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut left = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].iter().take(MARK.len()).ne(MARK) {
            left.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at += MARK.len();
        let mut depth = 0;
        while at < tokens.len() {
            let token = tokens[at].as_str();
            at += 1;
            match token {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                _ => {}
            }
            if depth == 0 && (token == ";" || token == "}") {
                // `use a::{b};` goes on after its brace.
                at += usize::from(tokens.get(at).is_some_and(|next| token == "}" && next == ";"));
                break;
            }
        }
    }
    left
}

/// Reads the tree of paths at `at`, each with the name it gets here, and returns where it ends.
fn tree(
    tokens: &[String],
    mut at: usize,
    before: &[String],
    paths: &mut Vec<(Vec<String>, String)>,
) -> usize {
    let mut path = before.to_vec();
    while let Some(token) = tokens.get(at) {
        if token == "{" {
            at += 1;
            while tokens.get(at).is_some_and(|token| token != "}") {
                at = tree(tokens, at, &path, paths);
                at += usize::from(tokens.get(at).is_some_and(|token| token == ","));
            }
            return at + 1;
        }
        if !(path.len() > before.len() && token == "self") {
            path.push(token.clone());
        }
        at += 1;
        if tokens.get(at).is_some_and(|token| token == "::") {
            at += 1;
            continue;
        }
        let mut name = path.last().cloned().unwrap_or_default();
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
            name = path.last().cloned().unwrap_or_default();
        }
        if tokens.get(at).is_some_and(|token| token == "as") {
            name.clone_from(&tokens[at + 1]);
            at += 2;
        }
        paths.push((path, name));
        return at;
    }
    at
}

/// Turns a path as it stands in `module` into one from the root of the crate.
fn absolute(path: &[String], module: &Module, children: &BTreeSet<String>) -> Option<Vec<String>> {
    let mut base = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => module.clone(),
        child if children.contains(child) => {
            return Some([module.as_slice(), path].concat());
        }
        _ => return None,
    };
    let mut rest = &path[usize::from(path[0] != "super")..];
    while let Some(("super", after)) =
        rest.split_first().map(|(first, after)| (first.as_str(), after))
    {
        base.pop();
        rest = after;
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

fn source(text: &str, module: &Module) -> Source {
    let tokens = tokens(text);
    let mut source = Source::default();
    for pair in tokens.windows(3) {
        if pair[0] == "mod" && pair[2] == ";" {
            source.children.insert(pair[1].clone());
        }
    }
    let mut at = 0;
    while at < tokens.len() {
        let is_first = at == 0 || tokens[at - 1] != "::";
        let is_path = is_first
            && (["crate", "super"].contains(&tokens[at].as_str())
                || source.children.contains(&tokens[at]))
            && tokens.get(at + 1).is_some_and(|token| token == "::");
        if tokens[at] == "use" {
            // What is passed on is not built on.
            let is_passed_on = at > 0 && ["pub", ")"].contains(&tokens[at - 1].as_str());
            let mut paths = Vec::new();
            at = tree(&tokens, at + 1, &[], &mut paths);
            for (path, name) in paths {
                if let Some(path) = absolute(&path, module, &source.children) {
                    source.imports.insert(name, path.clone());
                    if !is_passed_on {
                        source.paths.push(path);
                    }
                }
            }
        } else if is_path {
            let mut paths = Vec::new();
            let mut end = at;
            while tokens.get(end + 1).is_some_and(|token| token == "::") {
                end += 2;
            }
            tree(&tokens[..=end.min(tokens.len() - 1)], at, &[], &mut paths);
            at = end + 1;
            for (path, _) in paths {
                source.paths.extend(absolute(&path, module, &source.children));
            }
        } else {
            at += 1;
        }
    }
    source
}

/// Returns the module that has what a path leads to, through what modules import.
fn home(path: &[String], sources: &BTreeMap<Module, Source>, depth: usize) -> Module {
    let mut module = Module::new();
    for (at, name) in path.iter().enumerate() {
        let mut child = module.clone();
        child.push(name.clone());
        if sources.contains_key(&child) {
            module = child;
            continue;
        }
        let import = sources.get(&module).and_then(|source| source.imports.get(name));
        return match import {
            Some(import) if depth < 16 && import.as_slice() != path => {
                let path = [import.as_slice(), &path[at + 1..]].concat();
                home(&path, sources, depth + 1)
            }
            _ => module,
        };
    }
    module
}

/// Returns which modules each builds on: those that have what it names. Declaring a module and passing
/// on what it has is not building on it.
fn builds_on(texts: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let sources: BTreeMap<Module, Source> =
        texts.iter().map(|(module, text)| (module.clone(), source(text, module))).collect();
    // The files of tests are declared by nobody who counts.
    let is_there = |module: &Module| {
        (1..=module.len()).all(|length| {
            let (name, parent) = module[..length].split_last().expect("it has a name");
            sources.get(parent).is_some_and(|source| source.children.contains(name))
        })
    };
    let there = sources.iter().filter(|(module, _)| is_there(module));
    let edges = there.map(|(module, source)| {
        let named = source.paths.iter().map(|path| home(path, &sources, 0));
        (module.clone(), named.filter(|other| other != module).collect())
    });
    edges.collect()
}

/// Returns a way from one module back to itself, if there is one.
fn circle(from: &Module, edges: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    let mut ways = vec![vec![from.clone()]];
    let mut seen = BTreeSet::new();
    let mut next = 0;
    while let Some(way) = ways.get(next).cloned() {
        next += 1;
        for to in edges.get(way.last()?).into_iter().flatten() {
            if to == from {
                return Some(way);
            }
            if seen.insert(to.clone()) {
                ways.push([way.as_slice(), from_ref(to)].concat());
            }
        }
    }
    None
}

/// Returns the circles of a crate, each once; those through its root too unless it `shares`.
fn circles(texts: &BTreeMap<Module, String>, shares: bool) -> BTreeSet<String> {
    let mut edges = builds_on(texts);
    if shares {
        edges.remove(&Module::new());
    }
    let name = |module: &Module| {
        if module.is_empty() { "crate".to_owned() } else { module.join("::") }
    };
    let shown = |way: Vec<Module>| {
        let first = (0..way.len()).min_by_key(|at| &way[*at]).unwrap_or_default();
        let names = way.iter().cycle().skip(first).take(way.len() + 1).map(name);
        names.collect::<Vec<_>>().join(" -> ")
    };
    edges.keys().filter_map(|module| circle(module, &edges)).map(shown).collect()
}

#[test]
fn modules_of_a_crate_import_each_other_one_way() {
    let mut complaints = Vec::new();
    for (folder, texts) in crates() {
        let shares = SHARING_ROOTS.contains(&folder.as_str());
        for circle in circles(&texts, shares) {
            complaints.push(format!(
                "{folder}: {circle}; what both need belongs into a module below them"
            ));
        }
        if shares && circles(&texts, false).is_empty() {
            complaints.push(format!("{folder}: its root shares nothing, it is no exception"));
        }
    }
    none(complaints);
}

/// What the rule says of files of a crate.
fn of(files: &[(&str, &str)]) -> Vec<String> {
    let module =
        |name: &str| name.split("::").filter(|n| !n.is_empty()).map(str::to_owned).collect();
    let texts = files.iter().map(|(name, text)| (module(name), (*text).to_owned())).collect();
    circles(&texts, false).into_iter().collect()
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let root = ("", "mod a; mod b;");
    for (a, b) in [
        ("use crate::b::B;", "use crate::a::A;"),
        ("use crate::{\n    b::{self, C},\n};", "use super::{a::A as X};"),
        ("fn a() { crate::b::b(); }", "fn b() -> super::a::A {}"),
        ("const A: &str = \"{\"; use crate::b;", "const B: char = '\"'; use crate::a; // '"),
    ] {
        assert_eq!(of(&[root, ("a", a), ("b", b)]), ["a -> b -> a"], "{a}, {b}");
    }
    // Through what the root exports, and what the root has.
    let root = ("", "mod a; mod b; pub use b::B; pub struct Root;");
    assert_eq!(of(&[root, ("a", "use crate::B;"), ("b", "use crate::a::A;")]), ["a -> b -> a"]);
    let root = ("", "mod a; struct Root; fn root() { a::a() }");
    assert_eq!(of(&[root, ("a", "use crate::Root;")]), ["crate -> a -> crate"]);
    let three = [("", "mod a; mod b; mod c;"), ("a", "use super::b;"), ("b", "use crate::c::*;")];
    let three = [three.as_slice(), &[("c", "use crate::a::x::y;")]].concat();
    assert_eq!(of(&three), ["a -> b -> c -> a"]);
}

#[test]
fn one_way_is_no_circle() {
    let root = ("", "mod a; mod b; pub use b::B;");
    for (a, b) in [
        ("use crate::{B, b};", "use std::crate_a;"),
        ("use crate::b::B;", "// use crate::a;\nconst B: &str = \"crate::a::A\";"),
        ("use crate::b::B;", "#[cfg(test)]\nmod tests { use crate::a::{A}; fn x() {} }"),
        ("use crate::b::B;", "#[cfg(test)]\nuse crate::a::{A};\nfn b<'a>(_: &'a str) {}"),
        ("use crate::b::B;", "const B: &str = r#\"\" crate::a::A \"#;"),
    ] {
        assert_eq!(of(&[root, ("a", a), ("b", b)]), [""; 0], "{a}, {b}");
    }
    let tests = ("b::tests", "use crate::a::A;");
    let b = ("b", "#[cfg(test)]\nmod tests;");
    assert_eq!(of(&[root, ("a", "use crate::b::B;"), b, tests]), [""; 0]);
}
