//! A kernel of a few instructions, for what happens around a guest and not in it: it greets on the
//! serial port, whatever runs it, within microseconds.

use crate::Sandbox;
use std::fs;

/// What a tiny kernel does after its greeting.
#[derive(Clone, Copy, Debug)]
pub enum Then {
    /// Stands still for ever, without load.
    Halts,
    /// Resets the machine by its keyboard controller, as Linux does when told `reboot=k`.
    Resets,
    /// Faults until the processor gives up.
    Faults,
}

/// What it says on the serial port.
pub const GREETING: &str = "tiny kernel";

/// Where it lies in the guest's memory: 16 MiB.
const PLACE: u64 = 16 << 20;
/// Where the note of a [`pvh_kernel`] lies in its file.
const NOTE: u64 = 0x800;

impl Sandbox {
    /// Puts a kernel's file in the place of a planted kernel's.
    pub fn plant_tiny(&self, kernel: &str, file: &[u8]) {
        let path = self.state().join("kernels").join(kernel).join("vmlinux");
        fs::write(path, file).expect("a kernel");
    }
}

/// Returns a tiny kernel's file, for Firecracker: x86-64, entered by the 64-bit boot protocol
/// (Documentation/arch/x86/boot.rst of Linux).
pub fn tiny_kernel(then: Then) -> Vec<u8> {
    let end = end(then);
    // mov rsp, 0x1800000; mov dx, 0x3f8; lea rsi, [rip + to the greeting]
    let mut code =
        vec![0x48, 0xc7, 0xc4, 0, 0, 0x80, 0x01, 0x66, 0xba, 0xf8, 0x03, 0x48, 0x8d, 0x35];
    // 8 bytes of the loop, the end, 3 bytes of the last loop.
    code.extend((8 + end.len() as u32 + 3).to_le_bytes());
    elf(&greeting(code, end), &[])
}

/// Returns a tiny kernel's file, for QEMU: entered in 32 bits where its note says
/// (Documentation/arch/x86/pvh.rst of Linux and `elfnote.h` of Xen).
pub fn pvh_kernel(then: Then) -> Vec<u8> {
    let end = end(then);
    // mov esp, 0x1800000; mov dx, 0x3f8; mov esi, the greeting
    let mut code = vec![0xbc, 0, 0, 0x80, 0x01, 0x66, 0xba, 0xf8, 0x03, 0xbe];
    let at = code.len() as u32 + 4 + 8 + end.len() as u32 + 3;
    code.extend((PLACE as u32 + at).to_le_bytes());
    // A name of 4 bytes, a number of 8, of the kind that names the entry.
    let mut note: Vec<u8> = [4_u32, 8, 18].iter().flat_map(|word| word.to_le_bytes()).collect();
    note.extend(b"Xen\0");
    note.extend(PLACE.to_le_bytes());
    elf(&greeting(code, end), &note)
}

fn end(then: Then) -> &'static [u8] {
    match then {
        Then::Halts => &[],
        // mov al, 0xfe; out 0x64, al
        Then::Resets => &[0xb0, 0xfe, 0xe6, 0x64],
        // xor eax, eax; push it twice; lidt [the stack]; ud2: no table of interrupts, hence no way on
        Then::Faults => &[0x31, 0xc0, 0x50, 0x50, 0x0f, 0x01, 0x1c, 0x24, 0x0f, 0x0b],
    }
}

/// What comes after the beginning: the same bytes in 32 bits and in 64.
fn greeting(mut code: Vec<u8>, end: &[u8]) -> Vec<u8> {
    // lodsb; test al, al; jz over two; out dx, al; jmp to lodsb
    code.extend([0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8]);
    code.extend(end);
    // hlt; jmp to hlt
    code.extend([0xf4, 0xeb, 0xfd]);
    code.extend(GREETING.bytes());
    code.extend(b"\r\n\0");
    code
}

/// An ELF file with one segment and, unless it is empty, a note (elf(5)).
fn elf(code: &[u8], note: &[u8]) -> Vec<u8> {
    let segments = if note.is_empty() { 1 } else { 2 };
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    for half in [2_u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    for word in [PLACE, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, segments, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let mut segment = |kind: u32, flags: u32, words: [u64; 6]| {
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    };
    // Loaded, readable, writable, executable; from byte 0x1000 of the file.
    let size = code.len() as u64;
    segment(1, 7, [0x1000, PLACE, PLACE, size, size, 0x1000]);
    if !note.is_empty() {
        let size = note.len() as u64;
        segment(4, 4, [NOTE, 0, 0, size, size, 4]);
        file.resize(NOTE as usize, 0);
        file.extend(note);
    }
    file.resize(0x1000, 0);
    file.extend(code);
    file
}
