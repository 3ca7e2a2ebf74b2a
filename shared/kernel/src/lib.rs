//! Takes kernels apart: finds them, unpacks them, picks the modules a guest boots with.
//!
//! [`bring()`] fills a kernel's folder: `vmlinux`, `initramfs.cpio` (the modules a guest needs before
//! it has a root) and `modules.ext4` (all of them). [`guest_archive`] makes the other part of the
//! initramfs, one per VM: the guest programs and what the guest is told.
//! A kernel package is hostile input: every size, count and depth is bounded, and only paths made
//! of plain names become files, below a folder of our own.

mod bring;
pub mod cpio;
mod deb;
pub mod depmod;
mod elf;
mod guest;
mod image;
mod inflate;
mod modules;
mod tree;

pub use bring::{Brought, Source, bring};
pub use guest::{guest_archive, guest_program};
pub use image::{Unpacked, unpack};
pub use modules::{BootModule, Modules};

/// Name of this processor in the words of the OCI image specification.
pub const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
