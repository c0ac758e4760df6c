//! CloudEvents 1.0: the envelope, its rules and how it travels.

mod check;
mod event;
mod format;
mod headers;
#[cfg(feature = "http")]
pub mod http;
mod trace;
mod value;

pub use check::{MAX_NAME, MAX_VALUE};
pub use event::{CloudEvent, CloudEventBuilder, Data, MAX_EXTENSIONS};
#[cfg(feature = "nats")]
pub(crate) use headers::{
    decode as percent_decode, encode as percent_encode, read_attributes, write_attributes,
};
pub use value::AttributeValue;
