//! Prints a VM's serial console, as bytes; on a terminal what acts on one is visible. Reads only.

mod follow;

use banger_cli::{Out, Screen};
use banger_doc::{Context, Error, Name, Result};
use banger_state::{State, place};
use std::{
    fs::File,
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    process::ExitCode,
};

/// Print what a VM's guest said on its console
///
/// Kernel messages, the init's, and whatever else the guest writes to its serial port. The log of
/// one boot is at most 4 MiB; a longer one lacks its middle.
#[derive(clap::Parser)]
#[command(name = "banger-vm-logs", version)]
struct Args {
    /// Name of the VM
    #[arg(value_name = "VM")]
    vm: Name,
    /// Go on until the VM ends
    #[arg(long, short)]
    follow: bool,
    /// Print only this many of the last lines, or 'all'
    #[arg(long, short = 'n', value_name = "LINES", default_value = "all", value_parser = lines)]
    tail: u64,
    /// Which boot: 0 is the last one, 1 the one before
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    boot: u8,
    /// Print to a terminal what the guest wrote as it is; it may clear it, name its window, fill its
    /// clipboard
    #[arg(long)]
    raw: bool,
}

fn main() -> ExitCode {
    banger_cli::main_raw(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let folder = State::open_read_only()?.vm(&args.vm)?;
    let mut screen = if args.raw { Screen::raw() } else { Screen::of_console() };
    if args.follow {
        if args.boot != 0 {
            return Err(Error::usage("only the last boot can be followed")
                .hint("leave out '--follow' or '--boot'"));
        }
        return follow::follow(&folder, args.tail, screen, out);
    }
    let place =
        if args.boot == 0 { place::VM_CONSOLE.into() } else { format!("{}.1", place::VM_CONSOLE) };
    let path = folder.join(&place);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::not_found(format!("VM '{}' has no log of that boot", args.vm))
                .hint(format!("'banger vm show {}' tells how it stands", args.vm)));
        }
        Err(error) => return Err(error).context(format!("cannot open '{}'", path.display())),
    };
    skip_to_last(&mut file, args.tail)
        .with_context(|| format!("cannot read '{}'", path.display()))?;
    let mut buffer = [0; 8 << 10];
    let mut is_empty = file.metadata().is_ok_and(|meta| meta.len() == 0);
    loop {
        match file.read(&mut buffer).with_context(|| format!("cannot read '{}'", path.display()))? {
            0 => break,
            n => out.bytes(&screen.shown(&buffer[..n]))?,
        }
        is_empty = false;
    }
    out.bytes(&screen.rest())?;
    if is_empty {
        let vm = &args.vm;
        out.note(&format!(
            "note: the guest has written nothing to its console; 'banger vm restart --console {vm}' \
             makes the kernel tell all it does"
        ));
    }
    Ok(())
}

/// Reads how many lines are wanted.
fn lines(text: &str) -> Result<u64> {
    if text == "all" {
        return Ok(u64::MAX);
    }
    text.parse().map_err(|_| Error::usage(format!("'{text}' is neither a number nor 'all'")))
}

/// Goes to where the last lines of a log begin.
fn skip_to_last(file: &mut File, lines: u64) -> io::Result<()> {
    if lines == u64::MAX {
        return Ok(());
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    // The end of the last line begins no other.
    let whole = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let ends = whole.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let start = match lines.checked_sub(1) {
        None => bytes.len(),
        Some(more) => ends.map(|(at, _)| at + 1).nth(more as usize).unwrap_or(0),
    };
    file.seek(SeekFrom::Start(start as u64)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_last_lines_are_found() {
        let mut file = tempfile::tempfile().expect("a file");
        let mut last = |text: &str, lines| {
            file.set_len(0).and_then(|()| file.rewind()).expect("a file");
            file.write_all(text.as_bytes()).and_then(|()| file.rewind()).expect("a file");
            skip_to_last(&mut file, lines).expect("a place");
            let mut rest = String::new();
            file.read_to_string(&mut rest).expect("text");
            rest
        };
        for (text, lines, want) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 1, "b\n"),
            ("a\n\n\n", 2, "\n\n"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\nb\n", 0, ""),
            ("a\nb\n", u64::MAX, "a\nb\n"),
            ("", 3, ""),
        ] {
            assert_eq!(last(text, lines), want, "{text:?} {lines}");
        }
    }
}
