//! What both guest programs do: modules, power, the places they share.
//!
//! Everything in a guest is the image's or the user's to change, so nothing here trusts a file of the
//! root file system, and a failure is said rather than died of.

pub mod modules;
pub mod place;
pub mod power;
pub mod user;
