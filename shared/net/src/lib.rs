//! Gives a VM a network namespace of its own, without root.
