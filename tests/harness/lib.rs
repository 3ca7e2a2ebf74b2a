//! A sandbox for tests: temporary state, empty environment, programs run under a timeout.
