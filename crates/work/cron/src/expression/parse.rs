//! Reads expressions: 5, 6 or 7 fields or a nickname, into masks.

use super::civil::LAST_YEAR;
use super::days::{Combine, Days};
use super::dialect::{DayRule, Dialect, Intervals, Syntax};
use super::error::{Field, ParseError, Problem};
use super::{Fields, YEARS_FROM, search};

/// The longest expression that is read, in bytes.
const MAX_LENGTH: usize = 512;

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const FIELDS: [Field; 7] = [
    Field::Second,
    Field::Minute,
    Field::Hour,
    Field::DayOfMonth,
    Field::Month,
    Field::DayOfWeek,
    Field::Year,
];

/// Nicknames of OCPS 1.1, and two of Cronos's.
const NICKNAMES: [(&str, &str); 9] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
    ("@every_minute", "* * * * *"),
    ("@every_second", "* * * * * *"),
];

/// A part of the expression and where it begins.
#[derive(Clone, Copy)]
struct Part<'t> {
    text: &'t str,
    at: usize,
}

impl Part<'_> {
    fn split(self, separator: char) -> impl Iterator<Item = Self> {
        let mut at = self.at;
        self.text.split(separator).map(move |text| {
            let part = Part { text, at };
            at += text.len() + 1;
            part
        })
    }

    fn split_once(self, separator: char) -> (Self, Option<Self>) {
        match self.text.split_once(separator) {
            None => (self, None),
            Some((head, tail)) => (
                Part { text: head, at: self.at },
                Some(Part { text: tail, at: self.at + head.len() + separator.len_utf8() }),
            ),
        }
    }

    fn without_first(self) -> Self {
        Part { text: self.text.get(1..).unwrap_or_default(), at: self.at + 1 }
    }
}

/// What one item of a list came to.
struct Item {
    values: Values,
    /// Begins with `*` or `?`, or is an `H` with a step.
    star: bool,
    /// `*`, a range or a step.
    many: bool,
}

#[derive(Clone, Copy)]
struct Values {
    from: u32,
    to: u32,
    step: u32,
}

struct Reader {
    dialect: Dialect,
    seed: Option<u64>,
    field: Field,
}

/// Reads an expression. `seed` is what `H` is hashed from.
pub(super) fn parse(text: &str, dialect: Dialect, seed: Option<u64>) -> Result<Fields, ParseError> {
    let whole = |problem| ParseError {
        field: None,
        position: text.len() - text.trim_start().len(),
        text: text.trim().chars().take(40).collect(),
        problem,
    };
    if text.len() > MAX_LENGTH {
        return Err(whole(Problem::TooLong));
    }
    let trimmed = text.trim_matches([' ', '\t']);
    if trimmed.starts_with('@') {
        if trimmed.eq_ignore_ascii_case("@reboot") {
            return Err(whole(Problem::Reboot));
        }
        let known = NICKNAMES.iter().find(|(name, _)| trimmed.eq_ignore_ascii_case(name));
        let (_, meaning) = known.ok_or_else(|| whole(Problem::UnknownNickname))?;
        return parse(meaning, dialect, seed);
    }
    let mut parts = [Part { text: "", at: 0 }; 7];
    let mut count = 0;
    let words = Part { text, at: 0 }.split_blank();
    for word in words {
        if let Some(part) = parts.get_mut(count) {
            *part = word;
        }
        count += 1;
    }
    if !(5..=7).contains(&count) {
        return Err(whole(Problem::FieldCount(count)));
    }
    if count == 5 {
        parts.rotate_right(1);
        parts[0] = Part { text: "0", at: 0 };
    }
    let years = (count == 7).then_some(parts[6]);
    let reader = |field| Reader { dialect, seed, field };
    let mut fields = Fields::default();
    let mut interval = false;
    for ((part, field), mask) in parts.iter().zip(FIELDS).zip([&mut fields.seconds, &mut fields.minutes]) {
        interval |= reader(field).mask(*part, mask)?;
    }
    let mut wide = 0;
    interval |= reader(Field::Hour).mask(parts[2], &mut wide)?;
    fields.hours = low(wide);
    let mut wide = 0;
    reader(Field::Month).mask(parts[4], &mut wide)?;
    fields.months = u16::try_from(wide & 0x1ffe).unwrap_or(0);
    fields.interval = interval;
    fields.days = days(&reader(Field::DayOfMonth), parts[3], &reader(Field::DayOfWeek), parts[5])?;
    if let Some(part) = years {
        fields.years = reader(Field::Year).years(part)?;
    }
    if !fields.is_possible() {
        let (first, last) = (parts[3], years.unwrap_or(parts[5]));
        return Err(ParseError {
            field: Some(Field::DayOfMonth),
            position: first.at,
            text: text.get(first.at..last.at + last.text.len()).unwrap_or(text).to_owned(),
            problem: Problem::Impossible,
        });
    }
    Ok(fields)
}

fn days(month: &Reader, dates: Part<'_>, week: &Reader, weekdays: Part<'_>) -> Result<Days, ParseError> {
    let mut days = Days::default();
    let (any_date, star_date) = month.dates(dates, &mut days)?;
    let both = weekdays.text.starts_with('+');
    let weekdays = if both { weekdays.without_first() } else { weekdays };
    let (any_weekday, star_weekday) = week.weekdays(weekdays, &mut days)?;
    days.combine = match (any_date, any_weekday) {
        (true, true) => Combine::All,
        (false, true) => Combine::Month,
        (true, false) => Combine::Week,
        (false, false) if both => Combine::Both,
        (false, false) => match month.dialect.days {
            DayRule::Both => Combine::Both,
            DayRule::EitherUnlessStar if star_date || star_weekday => Combine::Both,
            DayRule::Either | DayRule::EitherUnlessStar => Combine::Either,
        },
    };
    Ok(days)
}

impl Reader {
    const fn bounds(&self) -> (u32, u32) {
        match self.field {
            Field::Second | Field::Minute => (0, 59),
            Field::Hour => (0, 23),
            Field::DayOfMonth => (1, 31),
            Field::Month => (1, 12),
            Field::DayOfWeek => (0, 7),
            Field::Year => (YEARS_FROM.unsigned_abs(), LAST_YEAR.unsigned_abs()),
        }
    }

    fn refuse<T>(&self, part: Part<'_>, problem: Problem) -> Result<T, ParseError> {
        let problem = if part.text.is_empty() { Problem::Missing } else { problem };
        Err(ParseError { field: Some(self.field), position: part.at, text: part.text.to_owned(), problem })
    }

    const fn lenient(&self) -> bool {
        matches!(self.dialect.syntax, Syntax::Lenient)
    }

    /// A field of plain values as a mask; says whether it names an interval.
    fn mask(&self, part: Part<'_>, mask: &mut u64) -> Result<bool, ParseError> {
        let mut interval = false;
        for item in part.split(',') {
            let item = self.item(item)?;
            interval |= match self.dialect.intervals {
                Intervals::Star => item.star,
                Intervals::Steps => item.many,
            };
            self.each(item.values, |value| *mask |= 1 << value);
        }
        Ok(interval)
    }

    fn years(&self, part: Part<'_>) -> Result<Option<Box<[i32]>>, ParseError> {
        let mut items = Vec::new();
        for item in part.split(',') {
            if item.text == "*" {
                return Ok(None);
            }
            items.push(self.item(item)?.values);
        }
        Ok(Some(search::years(|year| {
            let year = year.unsigned_abs();
            let named = |item: &Values| {
                (item.from..=item.to).contains(&year) && (year - item.from).is_multiple_of(item.step)
            };
            items.iter().any(named)
        })))
    }

    /// The day of the month; says whether it is unrestricted, and whether it begins with a star.
    fn dates(&self, part: Part<'_>, days: &mut Days) -> Result<(bool, bool), ParseError> {
        if matches!(part.text, "*" | "?") {
            return Ok((true, true));
        }
        let lower = self.lenient();
        let is = |byte: u8, letter: u8| byte == letter || (lower && byte == letter.to_ascii_lowercase());
        for item in part.split(',') {
            let bytes = item.text.as_bytes();
            let last = bytes.first().is_some_and(|byte| is(*byte, b'L'));
            let near = bytes.len() > 1 && bytes.last().is_some_and(|byte| is(*byte, b'W'));
            let inner = item.text.get(usize::from(last)..item.text.len() - usize::from(near));
            let inner = Part { text: inner.unwrap_or_default(), at: item.at + usize::from(last) };
            match (last, near) {
                (false, false) => {
                    let values = self.item(item)?.values;
                    self.each(values, |day| days.dates |= 1 << day);
                }
                (false, true) => {
                    if inner.text.contains(['-', '/', '*']) {
                        return self.refuse(item, Problem::NotOneDay);
                    }
                    days.near |= 1 << self.number(inner)?;
                }
                (true, near) => {
                    let offset = self.offset(inner, item)?;
                    let mask = if near { &mut days.near_end } else { &mut days.from_end };
                    *mask |= 1 << offset;
                }
            }
        }
        Ok((false, part.text.starts_with('*')))
    }

    /// How many days before the last: `-3`, or nothing.
    fn offset(&self, part: Part<'_>, item: Part<'_>) -> Result<u32, ParseError> {
        if part.text.is_empty() {
            return Ok(0);
        }
        let Some(digits) = part.text.strip_prefix('-') else {
            return self.refuse(item, Problem::Unexpected);
        };
        let digits = Part { text: digits, at: part.at + 1 };
        match digits_of(digits.text) {
            Some(offset) if offset <= 30 => Ok(offset),
            Some(_) => self.refuse(digits, Problem::OutOfRange { least: 0, most: 30 }),
            None => self.refuse(digits, Problem::Unexpected),
        }
    }

    /// The day of the week; says whether it is unrestricted, and whether it begins with a star.
    fn weekdays(&self, part: Part<'_>, days: &mut Days) -> Result<(bool, bool), ParseError> {
        if matches!(part.text, "*" | "?") {
            return Ok((true, true));
        }
        for item in part.split(',') {
            let (day, nth) = item.split_once('#');
            let bare = item
                .text
                .strip_suffix('L')
                .or_else(|| item.text.strip_suffix('l').filter(|_| self.lenient()));
            if let Some(nth) = nth {
                let day = self.number(day)? % 7;
                match nth.text.as_bytes() {
                    [digit @ b'1'..=b'5'] => days.add_weekday(day, Some(u32::from(digit - b'0'))),
                    b"L" => days.last |= 1 << day,
                    b"l" if self.lenient() => days.last |= 1 << day,
                    _ if is_digits(nth.text) => {
                        return self.refuse(nth, Problem::OutOfRange { least: 1, most: 5 });
                    }
                    _ => return self.refuse(nth, Problem::Unexpected),
                }
            } else if let Some(day) = bare {
                days.last |= 1 << (self.number(Part { text: day, at: item.at })? % 7);
            } else {
                let values = self.item(item)?.values;
                let mut named = 0u32;
                self.each(values, |day| named |= 1 << (day % 7));
                for day in (0..7).filter(|day| named & (1 << day) != 0) {
                    days.add_weekday(day, None);
                }
            }
        }
        Ok((false, part.text.starts_with('*')))
    }

    /// `*`, a value, a range, `H`, each with a step or without.
    fn item(&self, item: Part<'_>) -> Result<Item, ParseError> {
        let (least, most) = self.bounds();
        let (base, step) = item.split_once('/');
        let stepped = step.is_some();
        let step = step.map_or(Ok(1), |step| self.step(step, item))?;
        if base.text == "*" {
            // A weekday's star does not name Sunday twice: `*/5` is Sunday and Friday.
            let to = if self.field == Field::DayOfWeek { 6 } else { most };
            return Ok(Item { values: Values { from: least, to, step }, star: true, many: true });
        }
        if base.text.starts_with('H') {
            return self.hashed(base, stepped.then_some(step));
        }
        let (from, to) = base.split_once('-');
        let first = self.number(from)?;
        let Some(to) = to else {
            if stepped && !self.lenient() {
                return self.refuse(item, Problem::BareStep);
            }
            let to = if stepped {
                if self.field == Field::DayOfWeek { 6.max(first) } else { most }
            } else {
                first
            };
            return Ok(Item { values: Values { from: first, to, step }, star: false, many: stepped });
        };
        let mut end = self.number(to)?;
        if self.field == Field::DayOfWeek && end == 0 && to.text.eq_ignore_ascii_case("SUN") && first > 0 {
            end = 7;
        }
        if end < first && (!self.lenient() || self.field == Field::Year) {
            return self.refuse(base, Problem::Backwards);
        }
        Ok(Item { values: Values { from: first, to: end, step }, star: false, many: true })
    }

    /// `H`, `H/n`, `H(a-b)`, `H(a-b)/n`: values spread by the seed (Jenkins).
    fn hashed(&self, base: Part<'_>, step: Option<u32>) -> Result<Item, ParseError> {
        let Some(seed) = self.seed else { return self.refuse(base, Problem::NoSeed) };
        let (least, most) = match self.field {
            // Every month has 28 days.
            Field::DayOfMonth => (1, 28),
            Field::DayOfWeek => (0, 6),
            Field::Year => return self.refuse(base, Problem::Unexpected),
            _ => self.bounds(),
        };
        let rest = base.without_first();
        let (from, to) = if rest.text.is_empty() {
            (least, most)
        } else {
            let inner = rest.text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
            let Some(inner) = inner else { return self.refuse(base, Problem::Unexpected) };
            let (from, to) = Part { text: inner, at: rest.at + 1 }.split_once('-');
            let Some(to) = to else { return self.refuse(base, Problem::Unexpected) };
            let (from, to) = (self.number(from)?, self.number(to)?);
            if to < from {
                return self.refuse(base, Problem::Backwards);
            }
            (from, to)
        };
        let spread = super::hash::mix(seed ^ (self.field as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let pick = |count: u32| u32::try_from(spread % u64::from(count.max(1))).unwrap_or(0);
        let values = match step {
            None => {
                let value = from + pick(to - from + 1);
                Values { from: value, to: value, step: 1 }
            }
            Some(step) => Values { from: from + pick(step.min(to - from + 1)), to, step },
        };
        Ok(Item { values, star: step.is_some(), many: step.is_some() })
    }

    fn step(&self, step: Part<'_>, item: Part<'_>) -> Result<u32, ParseError> {
        let (least, most) = self.bounds();
        let longest = if self.field == Field::Year { most - least } else { most };
        match digits_of(step.text) {
            Some(0) => self.refuse(item, Problem::ZeroStep),
            Some(step) if step <= longest || self.lenient() => Ok(step),
            Some(_) => self.refuse(step, Problem::OutOfRange { least: 1, most: longest }),
            None if self.lenient() && is_digits(step.text) => Ok(u32::MAX / 4),
            None => self.refuse(step, Problem::Unexpected),
        }
    }

    fn number(&self, part: Part<'_>) -> Result<u32, ParseError> {
        let (least, most) = self.bounds();
        let names: &[&str] = match self.field {
            Field::Month => &MONTHS,
            Field::DayOfWeek => &WEEKDAYS,
            _ => &[],
        };
        if let Some(at) = (0..).zip(names).find(|(_, name)| part.text.eq_ignore_ascii_case(name)) {
            return Ok(at.0 + least);
        }
        match digits_of(part.text) {
            Some(number) if (least..=most).contains(&number) => Ok(number),
            Some(_) => self.refuse(part, Problem::OutOfRange { least, most }),
            None => self.refuse(part, Problem::Unexpected),
        }
    }

    fn each(&self, values: Values, mut take: impl FnMut(u32)) {
        let (least, most) = self.bounds();
        let most = if self.field == Field::DayOfWeek && values.to < values.from { 6 } else { most };
        let length = most - least + 1;
        let span =
            if values.to >= values.from { values.to - values.from } else { values.to + length - values.from };
        let mut passed = 0;
        while passed <= span {
            take(least + (values.from - least + passed) % length.max(1));
            passed = passed.saturating_add(values.step);
        }
    }
}

impl Part<'_> {
    fn split_blank(self) -> impl Iterator<Item = Self> {
        let mut rest = self;
        std::iter::from_fn(move || {
            let start = rest.text.find(|c: char| c != ' ' && c != '\t')?;
            let word = rest.text.get(start..)?;
            let length = word.find([' ', '\t']).unwrap_or(word.len());
            let part = Part { text: word.get(..length)?, at: rest.at + start };
            rest = Part { text: word.get(length..)?, at: part.at + length };
            Some(part)
        })
    }
}

/// Up to nine digits as a number.
fn digits_of(text: &str) -> Option<u32> {
    (is_digits(text) && text.len() <= 9).then(|| text.parse().ok())?
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn low(mask: u64) -> u32 {
    u32::try_from(mask & u64::from(u32::MAX)).unwrap_or(0)
}
