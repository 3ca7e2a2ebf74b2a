//! What the program prints and leaves.
