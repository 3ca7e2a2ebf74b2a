//! Starts and drives a VMM.
