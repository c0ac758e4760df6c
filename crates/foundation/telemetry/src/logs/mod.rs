//! Log lines: what is let through, how it looks, where it goes.

mod fields;
mod format;
mod layer;
mod levels;
mod writer;

#[cfg(feature = "otlp")]
pub(crate) use fields::Value;
pub(crate) use format::Style;
#[cfg(feature = "otlp")]
pub(crate) use layer::Record;
pub(crate) use layer::{LogLayer, Sink};
pub(crate) use levels::LevelFilter;
pub use levels::Levels;
pub(crate) use writer::Writer;
