#![doc = include_str!("../README.md")]

pub mod binary;
mod clock;
mod error;
pub mod nats;
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

/// Waits until something holds, asking again every few milliseconds for a minute at most.
///
/// # Errors
/// It does not hold in time; the error says what was waited for.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Result<(), TestkitError> {
    for _ in 0..6_000 {
        if holds().await {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Err(TestkitError::Late(what.to_owned()))
}
