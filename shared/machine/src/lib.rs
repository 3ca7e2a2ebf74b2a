//! Starts and drives a VMM.

mod kvm;

pub use kvm::{Kvm, kvm};
