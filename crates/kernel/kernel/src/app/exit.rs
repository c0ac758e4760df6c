//! What is left when a process ends: a report, and the code that says why.

use std::fmt;
use std::process::{ExitCode, Termination};

use super::supervise::ServiceReport;
use crate::container::DisposeReport;
use crate::lifecycle::{OsSignal, ShutdownReport, StopReason};

/// Error codes that decide a process's exit code, as Athyper numbered them.
pub(super) const KNOWN: [(&str, u8); 14] = [
    ("config.file", 2),
    ("config.unknown_key", 3),
    ("config.invalid", 3),
    ("config.locked", 3),
    ("config.secret_missing", 4),
    ("config.default_realm_missing", 5),
    ("tenancy.unknown_realm", 20),
    ("tenancy.unknown_tenant", 21),
    ("tenancy.unknown_org", 22),
    ("tenancy.org_without_tenant", 23),
    ("app.bootstrap", 50),
    ("jobs.connect", 60),
    ("jobs.unavailable", 60),
    ("scheduler.start", 61),
];

/// The exit code of a process that cannot start because of an error with this code: 50 unless it has its own.
pub fn exit_code(code: &str) -> u8 {
    KNOWN.iter().find(|(known, _)| *known == code).map_or(50, |(_, exit)| *exit)
}

/// How a run of an app ended.
///
/// It is a [`Termination`], so `main` may return it. Its code:
///
/// | code | why |
/// |---|---|
/// | 0 | the end was wanted, and everything stopped in order |
/// | 2–5, 20–23, 60, 61 | a start hook failed with an error that has an exit code ([`exit_code`]) |
/// | 50 | a start hook failed otherwise |
/// | 70 | a critical service failed too often |
/// | 71 | the end was wanted, but a hook failed or was cut, or a service failed while stopping |
/// | 130, 143 | a second SIGINT or SIGTERM forced the end |
#[derive(Debug)]
#[non_exhaustive]
pub struct ExitReport {
    /// Why the process ended.
    pub reason: StopReason,
    /// Every service that ran, in the order of starting.
    pub services: Vec<ServiceReport>,
    /// Every shutdown hook.
    pub shutdown: ShutdownReport,
    /// Every disposal, when the container came to be disposed.
    pub container: Option<DisposeReport>,
}

impl ExitReport {
    /// The process's exit code.
    pub fn code(&self) -> u8 {
        if self.shutdown.is_forced {
            return self.shutdown.forced_by.unwrap_or(OsSignal::Interrupt).exit_code();
        }
        match &self.reason {
            StopReason::StartFailed { code, .. } => exit_code(code),
            StopReason::ServiceGaveUp { .. } => 70,
            _ if self.shutdown.is_clean() => 0,
            _ => 71,
        }
    }
}

impl Termination for ExitReport {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

impl fmt::Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}: {}", self.code(), self.shutdown)
    }
}
