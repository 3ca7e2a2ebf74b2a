//! Objects written by hand, as `docs/state.md` and `docs/documents.md` describe them, for tests
//! that need an image, a kernel or a VM but no real one.

use crate::Sandbox;
use serde_json::{Value, json};
use std::{
    fs::{self, DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    process::Command,
};

/// What a planted kernel's file holds.
const KERNEL: &[u8] = b"\x7fELF planted kernel\n";
const KERNEL_SHA256: &str = "fdf7bef44ca9ce668e02f60661533ecd783f572fe6158d26daf95277fd6bfd70";
/// An empty cpio archive (cpio newc: the trailer alone).
const INITRAMFS: &str = "0707010000000000000000000000000000000000000001000000000000000000000000\
                         000000000000000000000000000000000000000B00000000TRAILER!!!\0\0\0\0";

impl Sandbox {
    /// Plants an image with a base disk of 1 MiB; returns its document.
    pub fn plant_image(&self, name: &str) -> Value {
        let folder = self.folder("images", name);
        let disk = folder.join("rootfs.ext4");
        File::create(&disk).and_then(|file| file.set_len(1 << 20)).expect("a disk");
        let made = Command::new("/usr/sbin/mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal"])
            .arg(&disk)
            .status();
        assert!(made.is_ok_and(|status| status.success()), "mke2fs of e2fsprogs failed");
        let document = json!({
            "schema": "banger.image/1",
            "name": name,
            "source": format!("127.0.0.1:5000/{name}:latest"),
            "digest": format!("sha256:{}", "0".repeat(64)),
            "managed": true,
            "rootfs": "rootfs.ext4",
            "size_bytes": 1 << 20,
            "used_bytes": 1 << 16,
            "inodes": 11,
            "architecture": "amd64",
            "config": { "env": ["PATH=/usr/bin:/bin"], "cmd": ["/bin/sh"] },
            "created_unix_s": 1_700_000_000,
        });
        write(folder.join("image.json"), &document);
        document
    }

    /// Plants a kernel; returns its document.
    pub fn plant_kernel(&self, name: &str) -> Value {
        let folder = self.folder("kernels", name);
        fs::write(folder.join("vmlinux"), KERNEL).expect("a kernel");
        fs::write(folder.join("initramfs.cpio"), INITRAMFS).expect("an initramfs");
        let document = json!({
            "schema": "banger.kernel/1",
            "name": name,
            "release": "6.12.0-planted",
            "architecture": "amd64",
            "source": "file:/boot/vmlinuz",
            "format": "elf",
            "sha256": KERNEL_SHA256,
            "size_bytes": KERNEL.len(),
            "has_modules": false,
            "boot_modules": [],
            "created_unix_s": 1_700_000_000,
        });
        write(folder.join("kernel.json"), &document);
        document
    }

    /// Plants a VM that was never started; its image and kernel need not be there. Returns its
    /// fixed record.
    pub fn plant_vm(&self, name: &str, image: &str, kernel: &str) -> Value {
        let folder = self.folder("vms", name);
        let number = name.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31) ^ u64::from(byte));
        let document = json!({
            "schema": "banger.vm/1",
            "name": name,
            "id": format!("{number:032x}"),
            "image": image,
            "kernel": kernel,
            "mac": format!("02:00:00:00:{:02x}:{:02x}", number >> 8 & 0xff, number & 0xff),
            "created_unix_s": 1_700_000_000,
        });
        for disk in ["overlay.ext4", "work.ext4"] {
            File::create(folder.join(disk)).and_then(|f| f.set_len(1 << 20)).expect("a disk");
        }
        write(
            folder.join("spec.json"),
            &json!({
                "schema": "banger.spec/1",
                "vcpu": 1,
                "memory_mib": 256,
                "overlay_bytes": 1 << 20,
                "disk_bytes": 1 << 20,
                "net": "user",
                "vmm": "auto",
            }),
        );
        write(folder.join("vm.json"), &document);
        document
    }

    /// Plants the record of a run that ended: `stopped`, `killed`, `start-failed`, `vmm-ended`.
    pub fn plant_exit(&self, vm: &str, reason: &str) {
        write(
            self.vm(vm).join("last-exit.json"),
            &json!({
                "schema": "banger.exit/1",
                "reason": reason,
                "message": format!("planted: {reason}"),
                "disks_clean": true,
                "ended_unix_s": 1_700_000_100,
                "console_tail": ["planted console line"],
            }),
        );
    }

    /// Plants a state in which nothing is.
    pub fn plant_state(&self) {
        for dir in ["images", "kernels", "vms", "exports", "cache/oci", "ssh"] {
            private().create(self.state().join(dir)).expect("the state directory");
        }
        fs::write(self.state().join("layout"), "1\n").expect("the layout number");
    }

    /// Makes the folder of an object, and the state directory if it is not there.
    fn folder(&self, shelf: &str, name: &str) -> PathBuf {
        self.plant_state();
        let folder = self.state().join(shelf).join(name);
        private().create(&folder).expect("the folder of an object");
        folder
    }
}

fn private() -> DirBuilder {
    let mut private = DirBuilder::new();
    private.mode(0o700).recursive(true);
    private
}

fn write(path: PathBuf, document: &Value) {
    fs::write(&path, format!("{document}\n")).expect("a document");
}
