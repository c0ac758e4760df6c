//! Log lines: what is let through, how it looks, where it goes.

mod fields;
mod format;
mod layer;
mod levels;
mod writer;

pub(crate) use fields::{Fields, Value};
pub(crate) use format::Style;
pub(crate) use layer::{LogLayer, Record, Sink};
pub use levels::Levels;
pub(crate) use levels::LevelFilter;
pub(crate) use writer::Writer;
