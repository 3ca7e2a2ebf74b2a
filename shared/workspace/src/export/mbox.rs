//! Mails that `git am` reads as they were meant. What is in them is the guest's.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
};

/// What follows a commit's name in the line that begins a mail, whenever the commit was made.
const SINCE: &[u8] = b" Mon Sep 17 00:00:00 2001\n";
/// The longest line of a mail whose letters are written out.
const WIDTH: usize = 75;
/// Lines of a mail's head that say how it is written.
const FORMS: [&[u8]; 3] = [b"MIME-Version:", b"Content-Type:", b"Content-Transfer-Encoding:"];

/// Returns a message without lines that a reader of mails takes for something else, where it has some: the begin of
/// a mail, of a head or of a patch. A blank before such a line makes it one of many.
pub(crate) fn harmless(message: &[u8]) -> Option<Vec<u8>> {
    let mut harmless = Vec::with_capacity(message.len() + 8);
    // The first paragraph is the subject, which stands in the head.
    let (mut in_subject, mut in_body, mut changed) = (true, false, false);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        let is_blank = line.trim_ascii().is_empty();
        if in_subject {
            in_subject = !is_blank || harmless.iter().all(u8::is_ascii_whitespace);
        } else if !is_blank {
            let is_first = !in_body;
            in_body = true;
            if begins_something(line) || (is_first && begins_a_head(line)) {
                harmless.push(b' ');
                changed = true;
            }
        }
        harmless.extend_from_slice(line);
    }
    changed.then_some(harmless)
}

/// Says whether a line begins a mail or ends a message.
fn begins_something(line: &[u8]) -> bool {
    let is_rule = line.strip_prefix(b"---").is_some_and(|rest| {
        rest.trim_ascii().is_empty()
            || (rest[0] == b' ' && rest.get(1).is_some_and(|byte| !byte.is_ascii_whitespace()))
    });
    is_rule || [&b"From "[..], b"diff -", b"Index: "].iter().any(|start| line.starts_with(start))
}

/// Says whether a line at the begin of a message is taken for one of the head.
fn begins_a_head(line: &[u8]) -> bool {
    let names = [&b"from:"[..], b"date:", b"subject:", b"[patch", b">from"];
    names
        .iter()
        .any(|name| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)))
}

/// Returns an author with a name, where git would refuse what is written for one.
pub(crate) fn named(author: &[u8]) -> Option<Vec<u8>> {
    let end = author.iter().position(|byte| *byte == b'<')?;
    let is_letter = |byte: &u8| *byte > b' ' && !b".,:;<>\"\\'".contains(byte);
    let is_named = author[..end].iter().any(is_letter);
    (!is_named).then(|| [b"nobody ", &author[end..]].concat())
}

/// Copies mails of these commits, as git makes them, to a file, and returns how many there are; a commit that changes
/// nothing has none. Where lines of a patch end as on Windows, letters are written out, since readers of mails
/// take such an end for the plain one.
pub(crate) fn write(mut from: File, to: &File, oids: &[String]) -> io::Result<usize> {
    let mut seen: Vec<Seen> = Vec::new();
    from.seek(SeekFrom::Start(0))?;
    let mut begins = Begins::of(oids);
    each_line(&from, |line| {
        if begins.is_met(line) {
            seen.push(Seen::default());
        } else if let Some(last) = seen.last_mut() {
            last.is_marked |= line.ends_with(b"\r\n");
            last.has_patch |= line.starts_with(b"diff --git ");
        }
        Ok(())
    })?;
    from.seek(SeekFrom::Start(0))?;
    let mut to = BufWriter::new(to);
    let (mut begins, mut number) = (Begins::of(oids), 0usize);
    let (mut in_head, mut in_form) = (true, false);
    each_line(&from, |line| {
        if begins.is_met(line) {
            number += 1;
            (in_head, in_form) = (true, false);
        }
        let Some(mail) = seen.get(number.wrapping_sub(1)).filter(|mail| mail.has_patch) else {
            return Ok(());
        };
        match (mail.is_marked, in_head) {
            (false, _) => to.write_all(line),
            (true, false) => write_out(line, &mut to),
            (true, true) if line == b"\n" => {
                in_head = false;
                to.write_all(
                    b"MIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\n\
                      Content-Transfer-Encoding: quoted-printable\n\n",
                )
            }
            (true, true) => {
                let goes_on = line.starts_with(b" ") || line.starts_with(b"\t");
                in_form = FORMS.iter().any(|form| line.starts_with(form)) || (in_form && goes_on);
                if in_form { Ok(()) } else { to.write_all(line) }
            }
        }
    })?;
    to.flush()?;
    Ok(seen.iter().filter(|mail| mail.has_patch).count())
}

/// What is in a mail.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// Lines that end as on Windows.
    is_marked: bool,
    has_patch: bool,
}

/// Tells where the mails of commits begin.
struct Begins<'a>(&'a [String]);

impl<'a> Begins<'a> {
    fn of(oids: &'a [String]) -> Self {
        Self(oids)
    }

    fn is_met(&mut self, line: &[u8]) -> bool {
        let oid = line.strip_prefix(b"From ").and_then(|rest| rest.strip_suffix(SINCE));
        let at = oid.and_then(|oid| self.0.iter().position(|known| known.as_bytes() == oid));
        self.0 = at.map_or(self.0, |at| &self.0[at + 1..]);
        at.is_some()
    }
}

/// Reads lines, each with its end; a longer one than memory has room for comes in parts.
fn each_line(from: &File, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut from = BufReader::with_capacity(1 << 16, from);
    let mut line = Vec::new();
    loop {
        line.clear();
        from.by_ref().take(1 << 26).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        take(&line)?;
    }
}

/// Writes a line with other letters than plain ones written out, as RFC 2045 says in section 6.7.
fn write_out(line: &[u8], to: &mut impl Write) -> io::Result<()> {
    let (content, end) = line.strip_suffix(b"\n").map_or((line, &b"=\n"[..]), |line| (line, b"\n"));
    let mut width = 0;
    for (at, byte) in content.iter().enumerate() {
        let is_last = at + 1 == content.len();
        let is_plain = matches!(byte, b'!'..=b'~') && *byte != b'='
            || (matches!(byte, b' ' | b'\t') && !is_last);
        let size = if is_plain { 1 } else { 3 };
        if width + size > WIDTH {
            to.write_all(b"=\n")?;
            width = 0;
        }
        width += size;
        if is_plain { to.write_all(&[*byte])? } else { write!(to, "={byte:02X}")? }
    }
    to.write_all(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_out_is_read_as_it_was() {
        let read = |text: &[u8]| {
            let mut read = Vec::new();
            let text = String::from_utf8(text.to_vec()).unwrap().replace("=\n", "");
            let mut bytes = text.bytes();
            while let Some(byte) = bytes.next() {
                read.push(match byte {
                    b'=' => {
                        let two = [bytes.next().unwrap(), bytes.next().unwrap()];
                        u8::from_str_radix(std::str::from_utf8(&two).unwrap(), 16).unwrap()
                    }
                    other => other,
                });
            }
            read
        };
        let all: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
        for line in [&all[..], b"", b"a ", b"\t", b" =20\r", &[b'x'; 500], &[b'='; 99]] {
            let mut written = Vec::new();
            write_out(&[line, b"\n"].concat(), &mut written).unwrap();
            assert_eq!(read(&written), [line, b"\n"].concat());
            assert!(written.split(|byte| *byte == b'\n').all(|line| line.len() <= WIDTH + 1));
            assert!(!written.windows(2).any(|pair| pair == b" \n" || pair == b"\t\n"));
        }
    }

    #[test]
    fn only_lines_that_are_taken_for_others_are_changed() {
        for plain in [
            "subject",
            "subject\n\nbody\n",
            "--- a\n",
            "From: a\n",
            "s\n\nb\nFrom: later\n",
            "s\n\n--\n--- \n----\n---x\n",
            "",
        ] {
            let changed = harmless(plain.as_bytes());
            let has_rule = plain.contains("--- \n");
            assert_eq!(changed.is_some(), has_rule, "{plain:?}");
        }
        let changed = harmless(b"\n\ns\n\n\nFROM: x\n---\nIndex: y\n").unwrap();
        assert_eq!(changed, b"\n\ns\n\n\n FROM: x\n ---\n Index: y\n");
        assert_eq!(named(b"A <a@b> 1 +0000"), None);
        assert_eq!(named(b".,: <a@b> 1 +0000").unwrap(), b"nobody <a@b> 1 +0000");
    }
}
