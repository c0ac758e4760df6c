//! Statements and queries, with the error of this crate.

/// Runs a query and maps every row.
macro_rules! rows {
    ($($query:tt)*) => {
        runtime_db::rows!(OutboxError; $($query)*)
    };
}

pub(super) use rows;
pub(super) use runtime_db::change;
