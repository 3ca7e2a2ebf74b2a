//! A repository on its way into a VM, and the work on its way out.
