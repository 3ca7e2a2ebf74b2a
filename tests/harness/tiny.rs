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

impl Sandbox {
    /// Puts a tiny kernel in the place of a planted kernel's file.
    pub fn plant_tiny(&self, kernel: &str, then: Then) {
        let path = self.state().join("kernels").join(kernel).join("vmlinux");
        fs::write(path, tiny_kernel(then)).expect("a kernel");
    }
}

/// Returns a tiny kernel's file.
pub fn tiny_kernel(then: Then) -> Vec<u8> {
    elf(&code(then))
}

/// The machine code: x86-64, as entered by the 64-bit boot protocol (Documentation/arch/x86/boot.rst
/// of Linux).
fn code(then: Then) -> Vec<u8> {
    let end: &[u8] = match then {
        Then::Halts => &[],
        // mov al, 0xfe; out 0x64, al
        Then::Resets => &[0xb0, 0xfe, 0xe6, 0x64],
        // xor eax, eax; push rax twice; lidt [rsp]; ud2: no table of interrupts, hence no way on
        Then::Faults => &[0x31, 0xc0, 0x50, 0x50, 0x0f, 0x01, 0x1c, 0x24, 0x0f, 0x0b],
    };
    // mov rsp, 0x1800000; mov dx, 0x3f8; lea rsi, [rip + to the greeting]
    let mut code =
        vec![0x48, 0xc7, 0xc4, 0, 0, 0x80, 0x01, 0x66, 0xba, 0xf8, 0x03, 0x48, 0x8d, 0x35];
    // 8 bytes of the loop below, the end, 3 bytes of the last loop.
    code.extend((8 + end.len() as u32 + 3).to_le_bytes());
    // lodsb; test al, al; jz over two; out dx, al; jmp to lodsb
    code.extend([0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8]);
    code.extend(end);
    // hlt; jmp to hlt
    code.extend([0xf4, 0xeb, 0xfd]);
    code.extend(GREETING.bytes());
    code.extend(b"\r\n\0");
    code
}

/// An ELF file with one segment (elf(5)).
fn elf(code: &[u8]) -> Vec<u8> {
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
    for half in [64_u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // Loaded, readable, writable, executable; from byte 0x1000 of the file.
    for half in [1_u32, 7] {
        file.extend(half.to_le_bytes());
    }
    let size = code.len() as u64;
    for word in [0x1000, PLACE, PLACE, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.resize(0x1000, 0);
    file.extend(code);
    file
}
