//! Starts and drives a VMM.

mod api;
mod kvm;

pub use api::{Api, BootSource, Drive, MachineConfig, NetworkInterface, Vsock};
pub use kvm::{Kvm, kvm};
