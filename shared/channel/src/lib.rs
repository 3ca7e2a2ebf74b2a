//! The way between host and guest: handshake, streams, messages.
