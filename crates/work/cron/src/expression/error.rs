//! What is wrong with an expression, and where.

use std::fmt;

/// A field of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Field {
    /// 0 to 59; the first of six or seven fields.
    Second,
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// 1 to 31, `L`, `W`.
    DayOfMonth,
    /// 1 to 12 or `JAN` to `DEC`.
    Month,
    /// 0 to 7 (Sunday is both) or `SUN` to `SAT`, `L`, `#`, `+`.
    DayOfWeek,
    /// 1970 to 9999; the last of seven fields.
    Year,
}

impl Field {
    /// The name in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::DayOfMonth => "day of month",
            Self::Month => "month",
            Self::DayOfWeek => "day of week",
            Self::Year => "year",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// More than 5 to 7 fields, or fewer.
    FieldCount(usize),
    /// Longer than is read.
    TooLong,
    /// An `@` name nobody knows.
    UnknownNickname,
    /// `@reboot`: a schedule has times, and starting is not one.
    Reboot,
    /// A value, range end or step is missing here.
    Missing,
    /// Not a number, a name, or a character that means something in this field.
    Unexpected,
    /// Below or above what the field has.
    OutOfRange {
        /// The least allowed.
        least: u32,
        /// The most.
        most: u32,
    },
    /// The range ends before it begins.
    Backwards,
    /// A step of zero.
    ZeroStep,
    /// A step after a single value: `5/15` is to be written `5-59/15`.
    BareStep,
    /// `W` belongs to one day, not to a range or a step.
    NotOneDay,
    /// `H` without the name it is hashed from.
    NoSeed,
    /// The days, months and years named never come together.
    Impossible,
}

/// An expression that was refused: which field, where in the text, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The field, unless the whole expression is meant.
    pub field: Option<Field>,
    /// Where it begins, in bytes from the start of the expression.
    pub position: usize,
    /// The part that is wrong.
    pub text: String,
    /// Why.
    pub problem: Problem,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = self.field {
            write!(f, "{field} field, ")?;
        }
        write!(f, "at {}: ", self.position)?;
        let text = &self.text;
        match &self.problem {
            Problem::FieldCount(count) => write!(f, "5, 6 or 7 fields are needed, not {count}"),
            Problem::TooLong => write!(f, "the expression is too long"),
            Problem::UnknownNickname => write!(f, "`{text}` is not a nickname"),
            Problem::Reboot => write!(f, "`@reboot` names no time"),
            Problem::Missing => write!(f, "a value is missing"),
            Problem::Unexpected => write!(f, "`{text}` means nothing here"),
            Problem::OutOfRange { least, most } => write!(f, "`{text}` is not {least} to {most}"),
            Problem::Backwards => write!(f, "`{text}` ends before it begins"),
            Problem::ZeroStep => write!(f, "`{text}` has a step of zero"),
            Problem::BareStep => write!(f, "`{text}` has a step but no range; write `*/n` or `a-b/n`"),
            Problem::NotOneDay => write!(f, "`{text}`: `W` belongs to one day, not to a range or a step"),
            Problem::NoSeed => write!(f, "`{text}` is hashed from the schedule's name, and there is none"),
            Problem::Impossible => write!(f, "`{text}` never happens"),
        }
    }
}

impl std::error::Error for ParseError {}
