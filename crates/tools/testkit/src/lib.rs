#![doc = include_str!("../README.md")]

pub mod binary;
mod clock;
mod error;
pub mod postgres;
pub mod proxy;
pub mod redis;
mod shared;

pub use clock::PausedClock;
pub use error::TestkitError;
pub use runtime_kernel::ManualClock;

/// A TCP port nobody listens on at the moment of asking.
///
/// # Errors
/// The system has none left.
pub fn free_port() -> Result<u16, TestkitError> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}
