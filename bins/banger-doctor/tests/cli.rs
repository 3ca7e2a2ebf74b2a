//! The contract of `banger-doctor`.
