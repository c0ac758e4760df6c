#![doc = include_str!("../README.md")]

pub mod bus;
pub mod cloudevent;
mod error;
mod handling;

pub use cloudevent::{AttributeValue, CloudEvent, CloudEventBuilder, Data};
pub use error::EventsError;
