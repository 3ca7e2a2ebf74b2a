//! Kernel images: what a boot loader gets is unpacked to what a VMM wants.

use crate::{
    elf::trim_segments,
    inflate::{compression, inflate},
};
use banger_doc::{Error, Format, Result};

/// A plain kernel is at most this large.
const MAX_KERNEL: u64 = 1 << 30;

/// A kernel as a VMM loads it.
#[derive(Debug)]
pub struct Unpacked {
    /// The plain image.
    pub bytes: Vec<u8>,
    /// How it is made.
    pub format: Format,
    /// Processor, in the OCI image specification's words.
    pub architecture: &'static str,
    /// What `uname -r` says, if the image tells.
    pub release: Option<String>,
}

/// Unpacks a `vmlinux`, a `bzImage`, an arm64 `Image`, or one of them compressed. `what` names it in
/// errors.
pub fn unpack(bytes: Vec<u8>, what: &str) -> Result<Unpacked> {
    if let Some((payload, release)) = bzimage(&bytes) {
        let payload =
            payload.ok_or_else(|| Error::failed(format!("{what} is cut short or damaged")))?;
        let plain = inflate(payload, MAX_KERNEL, what)?;
        let mut unpacked = plain_image(plain, what)?;
        unpacked.release = release.or(unpacked.release);
        return Ok(unpacked);
    }
    if is_zboot(&bytes) {
        let payload = zboot(&bytes)
            .ok_or_else(|| Error::failed(format!("{what} is cut short or damaged")))?;
        return plain_image(inflate(payload, MAX_KERNEL, what)?, what);
    }
    if compression(&bytes).is_some() {
        return plain_image(inflate(&bytes, MAX_KERNEL, what)?, what);
    }
    plain_image(bytes, what)
}

fn plain_image(mut bytes: Vec<u8>, what: &str) -> Result<Unpacked> {
    let release = banner(&bytes);
    // ELF: 64 bits, little-endian, and the machine (elf(5)).
    if bytes.starts_with(b"\x7fELF\x02\x01") {
        let architecture = match bytes.get(18..20) {
            Some([62, 0]) => "amd64",
            Some([183, 0]) => "arm64",
            _ => return Err(Error::failed(format!("{what} is for an unknown processor"))),
        };
        trim_segments(&mut bytes);
        return Ok(Unpacked { bytes, format: Format::Elf, architecture, release });
    }
    // Linux, Documentation/arch/arm64/booting.rst, section 4.
    if bytes.get(0x38..0x3c) == Some(b"ARM\x64") {
        return Ok(Unpacked { bytes, format: Format::Image, architecture: "arm64", release });
    }
    Err(Error::failed(format!(
        "{what} is no kernel: neither an ELF image, a bzImage nor an arm64 Image"
    ))
    .hint("a kernel is usually /boot/vmlinuz-RELEASE, or vmlinux at the top of a kernel's build"))
}

/// Returns the payload (nothing if it does not lie inside) and the release of a bzImage (Linux,
/// `Documentation/arch/x86/boot.rst`, "The Real-Mode Kernel Header").
fn bzimage(bytes: &[u8]) -> Option<(Option<&[u8]>, Option<String>)> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if bytes.get(0x202..0x206) != Some(b"HdrS") || u16_at(0x206)? < 0x208 {
        return None;
    }
    let sectors = match bytes[0x1f1] {
        0 => 4,
        n => usize::from(n),
    };
    let start = (sectors + 1) * 512 + u32_at(0x248)? as usize;
    let payload = bytes.get(start..start.saturating_add(u32_at(0x24c)? as usize));
    let version = match u16_at(0x20e)? {
        0 => None,
        at => bytes.get(usize::from(at) + 0x200..).and_then(release_at),
    };
    Some((payload, version))
}

/// Returns the payload of an EFI zboot image (Linux, `drivers/firmware/efi/libstub/zboot-header.S`).
fn zboot(bytes: &[u8]) -> Option<&[u8]> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let start = u32_at(8)? as usize;
    bytes.get(start..start.saturating_add(u32_at(12)? as usize))
}

fn is_zboot(bytes: &[u8]) -> bool {
    bytes.starts_with(b"MZ") && bytes.get(4..8) == Some(b"zimg")
}

/// Finds `Linux version RELEASE ` in a plain kernel.
fn banner(bytes: &[u8]) -> Option<String> {
    const BEGIN: &[u8] = b"Linux version ";
    let mut rest = bytes;
    while let Some(at) = rest.windows(BEGIN.len()).position(|window| window == BEGIN) {
        rest = &rest[at + BEGIN.len()..];
        // The same words are a format string elsewhere in the image.
        if let Some(release) = release_at(rest) {
            return Some(release);
        }
    }
    None
}

/// Reads a release up to a space: digits first, and nothing that is not safe as a folder.
fn release_at(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().take(65).position(|byte| matches!(byte, b' ' | 0))?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    is_release(text).then(|| text.to_owned())
}

/// Says whether a text can be a kernel's release; such a text is safe as the name of a folder.
pub(crate) fn is_release(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text.contains('.')
        && !text.contains("..")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    pub(crate) fn elf() -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(18, 0);
        bytes.extend_from_slice(&[62, 0]);
        bytes.extend_from_slice(b"Linux version %s (x) Linux version 6.12.1-test (gcc) #1");
        bytes.resize(5000, 7);
        bytes
    }

    fn bz(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 3 * 512 + 16];
        bytes[0x1f1] = 2;
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        bytes[0x20e..0x210].copy_from_slice(&0x200_u16.to_le_bytes());
        bytes[0x400..0x40b].copy_from_slice(b"6.12.9-x y\0");
        bytes[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        bytes[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn a_bzimage_gives_its_elf_and_its_release() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&elf()).unwrap();
        let packed = bz(&encoder.finish().unwrap());
        let kernel = unpack(packed.clone(), "'x'").unwrap();
        assert_eq!(kernel.bytes, elf());
        assert_eq!(kernel.architecture, "amd64");
        assert_eq!(kernel.release.as_deref(), Some("6.12.9-x"));
        let error = unpack(packed[..packed.len() - 9].to_vec(), "'x'").unwrap_err();
        assert_eq!(error.to_string(), "'x' is cut short or damaged");
    }

    #[test]
    fn a_plain_elf_tells_its_release_and_other_files_are_refused() {
        assert_eq!(unpack(elf(), "'x'").unwrap().release.as_deref(), Some("6.12.1-test"));
        assert!(
            unpack(b"#!/bin/sh".to_vec(), "'x'").unwrap_err().to_string().contains("no kernel")
        );
        assert!(unpack(Vec::new(), "'x'").is_err());
    }

    #[test]
    fn a_release_is_safe_as_a_folder() {
        assert!(is_release("6.12.117+deb12-cloud-amd64"));
        for bad in
            ["", "..", "6", "6/1.2", "6..1", "x6.1", "6.1 ", &format!("6.{}", "1".repeat(63))]
        {
            assert!(!is_release(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_header_ends(
            bytes in proptest::collection::vec(any::<u8>(), 0x260..0x900),
        ) {
            let mut bytes = bytes;
            bytes[0x202..0x206].copy_from_slice(b"HdrS");
            bytes[0x207] = 2;
            bytes[0x206] |= 8;
            let _ = unpack(bytes, "it");
        }

        #[test]
        fn any_zboot_ends(bytes in proptest::collection::vec(any::<u8>(), 16..200)) {
            let mut bytes = bytes;
            bytes[..2].copy_from_slice(b"MZ");
            bytes[4..8].copy_from_slice(b"zimg");
            let _ = unpack(bytes, "it");
        }
    }
}
