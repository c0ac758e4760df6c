//! SIGTERM and SIGINT, where the system has them.

use std::fmt;
use std::io;

/// A request to end that came from outside the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OsSignal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: what an orchestrator sends.
    Terminate,
}

impl OsSignal {
    /// Its POSIX number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }

    /// What a shell reports for a process that this signal ended: 128 plus the number.
    pub const fn exit_code(self) -> u8 {
        128 + self.number()
    }
}

impl fmt::Display for OsSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// Listens for the signals that end a process. While one lives, they no longer kill it by themselves.
#[derive(Debug)]
pub struct OsSignals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl OsSignals {
    /// Starts listening.
    ///
    /// # Errors
    /// The system refused the handler.
    #[cfg(unix)]
    pub fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next signal. Cancel-safe.
    #[cfg(unix)]
    pub async fn next(&mut self) -> OsSignal {
        tokio::select! {
            _ = self.interrupt.recv() => OsSignal::Interrupt,
            _ = self.terminate.recv() => OsSignal::Terminate,
        }
    }

    /// Starts listening. Only Ctrl-C is known on this system.
    ///
    /// # Errors
    /// None here; the handler is installed at the first wait.
    #[cfg(not(unix))]
    pub fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next Ctrl-C. Cancel-safe.
    #[cfg(not(unix))]
    pub async fn next(&mut self) -> OsSignal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        OsSignal::Interrupt
    }
}
