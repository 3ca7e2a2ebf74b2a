//! Writes ext4 images in one pass, without root.
