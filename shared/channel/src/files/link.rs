//! Links in a tar stream.

use std::{ffi::OsStr, io::Read, io::Write, os::unix::ffi::OsStrExt, path::Path};

/// Adds a link with its text as it is, however long: the builder takes it for a path and makes it a
/// tidy one.
pub fn append_link<W: Write>(
    builder: &mut tar::Builder<W>,
    header: &mut tar::Header,
    path: &[u8],
    target: &[u8],
) -> std::io::Result<()> {
    if header.set_link_name_literal(target).is_err() {
        let mut long = tar::Header::new_gnu();
        long.set_entry_type(tar::EntryType::GNULongLink);
        long.set_size(target.len() as u64 + 1);
        let name = Path::new("././@LongLink");
        builder.append_data(&mut long, name, target.chain(&b"\0"[..]))?;
    }
    builder.append_data(header, Path::new(OsStr::from_bytes(path)), std::io::empty())
}
