//! Paths below a root, as bytes: joined, taken apart, shown.

use banger_doc::visible;

/// The most columns of a name in a sentence.
const COLUMNS: usize = 60;

/// Joins two paths, of which the first may be the root itself.
pub(crate) fn join(dir: &[u8], path: &[u8]) -> Vec<u8> {
    if dir.is_empty() { path.to_vec() } else { [dir, b"/", path].concat() }
}

/// Returns the path and all directories above it.
pub(crate) fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    ends.chain([path.len()]).map(|end| &path[..end])
}

/// Returns a path for people and documents: a backslash is two, so that it never looks like a byte that
/// is no UTF-8, which is `\xNN`.
pub(crate) fn shown(path: &[u8]) -> String {
    let parts = path.utf8_chunks().map(|part| {
        let text = part.valid().replace('\\', "\\\\");
        format!("{text}{}", part.invalid().escape_ascii())
    });
    parts.collect()
}

/// Returns a path as text; bytes that are no UTF-8 are escaped.
pub(crate) fn text(path: &[u8]) -> String {
    std::str::from_utf8(path).map_or_else(|_| path.escape_ascii().to_string(), ToOwned::to_owned)
}

/// Names the first of these paths, in brackets: all of at most `most`, of more one less and that there are
/// more.
pub(crate) fn some_of<'a>(
    paths: impl IntoIterator<Item = &'a [u8]>,
    count: usize,
    most: usize,
) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "._-+@/".contains(c);
    let name = |path: &[u8]| {
        let name = visible(&shown(path), COLUMNS);
        let is_word = !name.is_empty() && name.chars().all(is_plain);
        if is_word { name } else { format!("'{name}'") }
    };
    let few = if count <= most { count } else { most - 1 };
    let mut named: Vec<String> = paths.into_iter().take(few).map(name).collect();
    if count > few {
        named.push("...".into());
    }
    format!("({})", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_named() {
        let all: [&[u8]; 4] = [b"src/a.c", b"two words", b"a\x1b\xff", "\u{202e}ü".as_bytes()];
        let said =
            |count: usize, most: usize| some_of(all.iter().copied().take(count), count, most);
        assert_eq!(said(1, 2), "(src/a.c)");
        assert_eq!(said(2, 2), "(src/a.c, 'two words')");
        assert_eq!(said(3, 2), "(src/a.c, ...)");
        assert_eq!(said(4, 4), r"(src/a.c, 'two words', 'a\u{1b}\xff', '\u{202e}ü')");
        assert!(some_of([&[b'x'; 4000][..]], 1, 2).len() < 100);
    }
}
