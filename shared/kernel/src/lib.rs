//! Takes kernels apart: bzImage, deb, modules, cpio.
