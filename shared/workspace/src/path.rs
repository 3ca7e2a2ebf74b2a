//! Paths below a root, as bytes: joined, taken apart, shown.

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
