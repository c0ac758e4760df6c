//! Why a test's surroundings could not be set up.

/// Why a test's surroundings could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestkitError {
    /// A server's program is not on this machine.
    #[error(
        "`{program}` is not installed; `apt-get install -y {package}` brings it, or set {variable} to a running one"
    )]
    Missing {
        /// The program.
        program: &'static str,
        /// Debian's package.
        package: &'static str,
        /// The variable that names a running one.
        variable: &'static str,
    },
    /// A program failed.
    #[error("{what}: {output}")]
    Failed {
        /// What was being done.
        what: String,
        /// What it said.
        output: String,
    },
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Postgres refused.
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
    /// Something was not seen in time.
    #[error("{0} was not seen in time")]
    Late(String),
}
