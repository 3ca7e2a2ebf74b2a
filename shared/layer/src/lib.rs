//! Turns a stack of tar layers into one disk.
