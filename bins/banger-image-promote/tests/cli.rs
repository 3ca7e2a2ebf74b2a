//! The contract of `banger-image-promote`.
