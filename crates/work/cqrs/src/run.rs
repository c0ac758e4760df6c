//! Statements and queries, with the error of this crate.

/// Runs a query and maps every row.
macro_rules! rows {
    ($($query:tt)*) => {
        runtime_db::rows!(CqrsError; $($query)*)
    };
}

pub(crate) use rows;
pub(crate) use runtime_db::change;
