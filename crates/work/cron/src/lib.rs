#![doc = include_str!("../README.md")]

mod expression;
mod zone;

pub use expression::{
    CronExpression, DayRule, Dialect, Dst, DstGap, DstOverlap, Field, Intervals, ParseError, Problem, Syntax,
    Upcoming,
};
pub use zone::{UnknownZone, Zone};
