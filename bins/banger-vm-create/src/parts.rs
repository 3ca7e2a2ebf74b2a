//! What a VM is made of: its image, its kernel, and what no other VM has.

use banger_cli::Program;
use banger_config::DEFAULT_KERNEL;
use banger_doc::{Context, Document, Error, Image, Kernel, Name, Result, shell_word};
use banger_state::State;
use std::{fmt::Write, fs::File, io::Read, path::Path};

/// Finds an image by its name, else pulls it.
pub(crate) fn image(state: &State, wanted: &str, quiet: bool) -> Result<Image> {
    if let Ok(name) = wanted.parse::<Name>()
        && state.images().has(&name)
    {
        return state.images().get(&name);
    }
    if is_path(wanted) {
        return Err(names_no_image(wanted));
    }
    if let Some(kind) = of_stdin(wanted) {
        return Err(Error::usage(format!("'{wanted}' is stdin, which is not read for an image"))
            .hint(format!(
                "'banger image pull {kind}:- --name NAME' takes it in, then '--image NAME' takes the image"
            )));
    }
    let near = wanted.parse::<Name>().ok().and_then(|name| state.images().nearest(&name));
    pull("banger-image-pull", wanted, quiet)
        .with_context(|| format!("cannot get the image '{wanted}'"))
        .map_err(|error| match near {
            Some(near) => error.hint(format!("did you mean the image '{near}', which is here?")),
            None => error,
        })
}

/// Says whether these words can only be a path: no name and no reference begins so, and one that ends
/// as a file does is not likely where there is that file.
fn is_path(wanted: &str) -> bool {
    let path = Path::new(wanted);
    wanted.starts_with(['.', '/', '~']) || (path.extension().is_some() && path.is_file())
}

/// Says what stdin was said to hold, where an image is to be read from there.
fn of_stdin(wanted: &str) -> Option<&str> {
    let (kind, path) = wanted.split_once(':').unwrap_or(("docker-archive", wanted));
    (matches!(kind, "docker-archive" | "oci-archive" | "oci")
        && (path == "-" || path.starts_with("-:")))
    .then_some(if kind == "oci" { "oci-archive" } else { kind })
}

fn names_no_image(path: &str) -> Error {
    let hint = if Path::new(path).join("oci-layout").is_file() {
        format!(
            "'banger image pull oci:{}' takes it in, then '--image' takes the image's name",
            shell_word(path)
        )
    } else if Path::new(path).is_dir() {
        format!(
            "'tar -C {} -c . | banger image import - --name NAME' takes a root file system in, 'banger image pull oci:PATH' an image's layout",
            shell_word(path)
        )
    } else {
        "'banger image pull docker-archive:PATH' takes in what 'docker save' wrote, 'banger image import PATH' a tar of a root file system, 'banger image register --name NAME --rootfs PATH' a disk".to_owned()
    };
    Error::usage(format!("'{path}' is a path, not the name of an image")).hint(hint)
}

/// Finds a kernel by its name, else pulls it.
pub(crate) fn kernel(state: &State, wanted: Option<Name>, quiet: bool) -> Result<Kernel> {
    let name = match wanted {
        Some(name) => name,
        None => DEFAULT_KERNEL.parse()?,
    };
    if state.kernels().has(&name) {
        return state.kernels().get(&name);
    }
    pull("banger-kernel-pull", name.as_str(), quiet)
        .with_context(|| format!("cannot get the kernel '{name}'"))
}

fn pull<D: Document>(program: &str, what: &str, quiet: bool) -> Result<D> {
    Program::new(program)?
        .args(quiet.then_some("--quiet"))
        .arg("--")
        .arg(what)
        .documents()?
        .pop()
        .ok_or_else(|| Error::failed(format!("'{program}' said nothing of '{what}'")))
}

/// What no other VM has.
#[derive(Debug)]
pub(crate) struct Random {
    id: [u8; 16],
    pub(crate) overlay: [u8; 16],
    pub(crate) work: [u8; 16],
}

impl Random {
    /// Draws it.
    pub(crate) fn read() -> Result<Self> {
        let mut random = Self { id: [0; 16], overlay: [0; 16], work: [0; 16] };
        let mut file = File::open("/dev/urandom").context("cannot open '/dev/urandom'")?;
        for part in [&mut random.id, &mut random.overlay, &mut random.work] {
            file.read_exact(part).context("cannot read '/dev/urandom'")?;
            // A random UUID, version 4 (RFC 9562, section 5.4), as machine-id(5) wants it too.
            part[6] = part[6] & 0x0f | 0x40;
            part[8] = part[8] & 0x3f | 0x80;
        }
        Ok(random)
    }

    /// The VM's identity.
    pub(crate) fn id(&self) -> String {
        self.id.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// A hardware address for one machine, locally administered (RFC 9542, section 2.1).
    pub(crate) fn mac(&self) -> String {
        self.id[..5].iter().fold("02".to_owned(), |mut text, byte| {
            let _ = write!(text, ":{byte:02x}");
            text
        })
    }

    /// A number below `end`, another one for each `turn`.
    pub(crate) fn below(&self, end: usize, turn: usize) -> usize {
        let bytes = [self.id[10], self.id[11], self.id[12], self.id[13]];
        (u32::from_le_bytes(bytes) as usize).wrapping_add(turn.wrapping_mul(7919)) % end
    }
}
