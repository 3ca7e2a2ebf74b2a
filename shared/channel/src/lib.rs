//! The way between host and guest: handshake, streams, messages.
//!
//! `docs/agent-protocol.md` is the contract. The guest is hostile to the host: what it says is
//! bounded in size, in count and, where somebody waits for it, in time.

pub mod bridge;
mod connect;
pub mod control;
mod dial;
pub mod exec;
pub mod guest;
mod line;
mod meet;
mod mux;
mod pump;
pub mod relay;

pub use connect::connect;
pub use dial::{Patience, dial};
pub use line::{read_line, write_line};

/// The version of the protocol that both ends speak.
pub const PROTOCOL: u32 = 1;

/// The name of the virtio-serial port that streams share where there is no vsock.
pub const SERIAL_PORT: &str = "banger.0";

/// The host's vsock port that the agent calls where there is one; streams share that connection.
pub const VSOCK_PORT: u32 = 1024;

/// Ports of the agent's services.
pub mod port {
    /// Short questions and orders.
    pub const CONTROL: u32 = 1024;
    /// Commands.
    pub const EXEC: u32 = 1025;
    /// Connections to what listens inside the guest.
    pub const FORWARD: u32 = 1026;
    /// Files, as tar streams.
    pub const FILES: u32 = 1027;
}

pub mod files;
