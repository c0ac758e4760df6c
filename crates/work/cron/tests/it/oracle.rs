//! An oracle that looks at every minute, over every zone of the database, 2020 to 2040.
//!
//! It knows nothing of the engine: it walks the instants, asks what the wall shows, and matches the text of each field
//! itself. `RUNTIME_CRON_ORACLE_CASES` widens it.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use runtime_cron::{CronExpression, DayRule, Dialect, Dst, DstGap, DstOverlap, Zone};

/// One field as the oracle reads it: items of `(from, to, step)`, by brute force.
pub(super) fn field_has(text: &str, least: u32, most: u32, value: u32) -> bool {
    text.split(',').any(|item| {
        let (range, step) = item.split_once('/').unwrap_or((item, "1"));
        let (from, to) = match range {
            "*" => (least, most),
            range => {
                let (from, to) = range.split_once('-').unwrap_or((range, range));
                (from.parse().unwrap(), to.parse().unwrap())
            }
        };
        (from..=to).step_by(step.parse().unwrap()).any(|named| named == value)
    })
}

fn last_of(date: Date) -> i8 {
    date.last_of_month().day()
}

fn is_working(date: Date) -> bool {
    date.weekday().to_sunday_zero_offset() % 6 != 0
}

/// The working day nearest to a day of a month, by looking further and further away.
fn near(date: Date, day: i8) -> bool {
    if day > last_of(date) {
        return false;
    }
    let wanted = date.with().day(day).build().unwrap();
    let mut nearest: Vec<Date> = (1..=last_of(date))
        .map(|day| date.with().day(day).build().unwrap())
        .filter(|date| is_working(*date))
        .collect();
    // Saturday is nearer to Friday, Sunday to Monday; nothing ties.
    nearest.sort_by_key(|date| (date.day() - wanted.day()).abs());
    nearest.first() == Some(&date)
}

fn month_day_has(text: &str, date: Date) -> bool {
    text.split(',').any(|item| match item {
        "L" => date.day() == last_of(date),
        "LW" => near(date, last_of(date)),
        item => match (item.strip_prefix("L-"), item.strip_suffix('W')) {
            (Some(offset), _) => date.day() == last_of(date) - offset.parse::<i8>().unwrap(),
            (None, Some(day)) => near(date, day.parse().unwrap()),
            (None, None) => field_has(item, 1, 31, u32::from(date.day().unsigned_abs())),
        },
    })
}

fn weekday_has(text: &str, date: Date) -> bool {
    let weekday = u32::from(date.weekday().to_sunday_zero_offset().unsigned_abs());
    text.split(',').any(|item| {
        if let Some((day, nth)) = item.split_once('#') {
            day.parse::<u32>().unwrap() % 7 == weekday
                && (date.day() - 1) / 7 + 1 == nth.parse::<i8>().unwrap()
        } else if let Some(day) = item.strip_suffix('L') {
            day.parse::<u32>().unwrap() % 7 == weekday && date.day() + 7 > last_of(date)
        } else {
            field_has(item, 0, 6, weekday)
                || (weekday == 0 && !item.starts_with('*') && field_has(item, 0, 7, 7))
        }
    })
}

/// Whether a day is named: by its month, its date and its weekday.
pub(super) fn day_matches(fields: &[String; 5], days: DayRule, date: Date) -> bool {
    let month = u32::from(date.month().unsigned_abs());
    let (dates, weekdays) = (&fields[2], &fields[4]);
    let day = match (dates.as_str(), weekdays.as_str()) {
        ("*", "*") => true,
        (_, "*") => month_day_has(dates, date),
        ("*", _) => weekday_has(weekdays, date),
        _ => {
            let (date, weekday) = (month_day_has(dates, date), weekday_has(weekdays, date));
            if days == DayRule::Both { date && weekday } else { date || weekday }
        }
    };
    day && field_has(&fields[3], 1, 12, month)
}

fn matches(fields: &[String; 5], days: DayRule, wall: DateTime) -> bool {
    let minute = u32::from(wall.minute().unsigned_abs());
    let hour = u32::from(wall.hour().unsigned_abs());
    wall.second() == 0
        && field_has(&fields[0], 0, 59, minute)
        && field_has(&fields[1], 0, 23, hour)
        && day_matches(fields, days, wall.date())
}

/// Every instant of a window that is in the expression's set.
fn expected(
    fields: &[String; 5],
    dialect: Dialect,
    dst: Dst,
    zone: &TimeZone,
    from: Timestamp,
    to: Timestamp,
) -> Vec<i64> {
    let mut found = std::collections::BTreeSet::new();
    let minute = 60;
    let mut at = from.as_second().div_euclid(minute) * minute;
    let wall = |second: i64| zone.to_datetime(Timestamp::from_second(second).unwrap());
    while at <= to.as_second() {
        let (here, before) = (wall(at), wall(at - minute));
        let jumped = here.duration_since(before).as_secs() - minute;
        if jumped > 0 {
            // The gap ends within this minute; every minute of it is asked for.
            let mut missing = before + 1.minute();
            let mut any = false;
            while missing < here {
                any |= matches(fields, dialect.days, missing);
                missing += 1.minute();
            }
            match dst.gap {
                DstGap::FireAfter if any => drop(found.insert(at)),
                DstGap::FireBefore if any => drop(found.insert(at - 1)),
                _ => {}
            }
        }
        if matches(fields, dialect.days, here) {
            let twin = |offset: i64| wall(at + offset) == here;
            // Overlaps are at most a few hours long: its twin, if any, is near.
            let twins = |sign: i64| (1..=3 * 60).any(|minutes| twin(sign * minutes * minute));
            let keep = match dst.overlap {
                DstOverlap::Both => true,
                DstOverlap::First => !twins(-1),
                DstOverlap::Last => !twins(1),
            };
            if keep {
                found.insert(at);
            }
        }
        at += minute;
    }
    found.into_iter().filter(|at| (from.as_second() + 1..to.as_second()).contains(at)).collect()
}

fn item(least: u32, most: u32) -> impl Strategy<Value = String> {
    let value = least..=most;
    let pair = (least..=most, least..=most).prop_map(|(a, b)| (a.min(b), a.max(b)));
    proptest::prop_oneof![
        4 => value.prop_map(|value| value.to_string()),
        2 => pair.clone().prop_map(|(from, to)| format!("{from}-{to}")),
        1 => (pair, 1..=most).prop_map(|((from, to), step)| format!("{from}-{to}/{step}")),
        2 => (1..=most).prop_map(|step| format!("*/{step}")),
    ]
}

fn list(items: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    proptest::collection::vec(items, 1..3).prop_map(|items| items.join(","))
}

pub(super) fn expressions() -> impl Strategy<Value = [String; 5]> {
    let star = || proptest::strategy::Just("*".to_owned());
    let dates = proptest::prop_oneof![
        6 => item(1, 31),
        1 => (1..=31u32).prop_map(|day| format!("{day}W")),
        1 => (0..=9u32).prop_map(|day| format!("L-{day}")),
        1 => proptest::strategy::Just("L".to_owned()),
        1 => proptest::strategy::Just("LW".to_owned()),
    ];
    let weekdays = proptest::prop_oneof![
        6 => item(0, 7),
        2 => (0..=7u32, 1..=5u32).prop_map(|(day, nth)| format!("{day}#{nth}")),
        1 => (0..=7u32).prop_map(|day| format!("{day}L")),
    ];
    (
        proptest::prop_oneof![3 => list(item(0, 59)), 1 => star()],
        // The hours in which clocks change come up often.
        proptest::prop_oneof![3 => list(item(0, 5)), 1 => list(item(0, 23)), 2 => star()],
        proptest::prop_oneof![1 => list(dates), 3 => star()],
        proptest::prop_oneof![1 => list(item(1, 12)), 4 => star()],
        proptest::prop_oneof![1 => list(weekdays), 3 => star()],
    )
        .prop_map(|(minute, hour, day, month, weekday)| [minute, hour, day, month, weekday])
}

pub(super) fn dialects() -> impl Strategy<Value = (Dialect, Dst)> {
    let gaps = [DstGap::Skip, DstGap::FireAfter, DstGap::FireBefore];
    let overlaps = [DstOverlap::First, DstOverlap::Both, DstOverlap::Last];
    (0..3usize, 0..3usize, proptest::bool::ANY).prop_map(move |(gap, overlap, both)| {
        let dst = Dst { gap: gaps[gap], overlap: overlaps[overlap] };
        let mut dialect = Dialect::OCPS;
        dialect.days = if both { DayRule::Both } else { DayRule::Either };
        (dialect.fixed, dialect.interval) = (dst, dst);
        (dialect, dst)
    })
}

pub(super) fn seconds(at: runtime_kernel::Timestamp) -> i64 {
    at.as_microsecond().div_euclid(1_000_000)
}

#[test]
fn every_minute_of_every_zone_agrees() {
    let cases: usize =
        std::env::var("RUNTIME_CRON_ORACLE_CASES").ok().map_or(250, |cases| cases.parse().unwrap());
    let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    assert!(names.len() > 400, "{} zones", names.len());
    let mut runner = TestRunner::deterministic();
    let (strategy, start) =
        ((expressions(), dialects(), 0..names.len(), 0..20 * 365i64, 0..4u8), 1_577_836_800);
    for case in 0..cases {
        let (fields, (dialect, dst), zone, day, aim) = strategy.new_tree(&mut runner).unwrap().current();
        // Each zone has its turn, and three of four windows lie over a change of its clock.
        let name = &names[(zone + case) % names.len()];
        let (zone, iana) = (Zone::get(name).unwrap(), TimeZone::get(name).unwrap());
        let mut from = Timestamp::from_second(start + day * 86_400).unwrap();
        if aim > 0
            && let Some(change) = iana.following(from).next()
        {
            from = change.timestamp() - 1.hours().minutes(30);
        }
        let to = from + 40.hours();
        let text = fields.join(" ");
        let Ok(expression) = CronExpression::parse_with(&text, dialect, None) else { continue };
        let expected = expected(&fields, dialect, dst, &iana, from, to);
        let (from, to) = (from.as_second(), to.as_second());
        let at = |second: i64| runtime_kernel::Timestamp::from_microsecond(second * 1_000_000).unwrap();
        let forth: Vec<i64> =
            expression.upcoming(at(from), &zone).map(seconds).take_while(|found| *found < to).collect();
        assert_eq!(forth, expected, "`{text}` in {name} {dialect:?} from {}", at(from));
        let mut back = Vec::new();
        let mut until = at(to);
        while let Some(found) =
            expression.previous_before(until, &zone).filter(|found| seconds(*found) > from)
        {
            back.push(seconds(found));
            until = found;
        }
        back.reverse();
        assert_eq!(back, expected, "`{text}` in {name} {dialect:?} until {}", at(to));
        // From anywhere in the window, the neighbours are the same.
        for (index, probe) in expected.windows(2).enumerate().take(40) {
            let between = at(probe[0] + (probe[1] - probe[0]) * i64::try_from(index % 7).unwrap() / 7);
            assert_eq!(
                expression.next_after(between, &zone).map(seconds),
                Some(probe[1]),
                "`{text}` {name} after {between}"
            );
        }
    }
}

#[test]
fn no_zone_changes_its_clock_twice_within_half_a_day() {
    // The engine's short cut rests on this.
    for name in jiff::tz::db().available() {
        let zone = TimeZone::get(name.as_str()).unwrap();
        let mut last: Option<(i64, i32)> = None;
        for change in zone.following("1970-01-01T00:00:00Z".parse().unwrap()).take(400) {
            let (at, offset) = (change.timestamp().as_second(), change.offset().seconds());
            if let Some((before, known)) = last {
                assert!(at - before > 13 * 3600 || known == offset, "{name} at {}", change.timestamp());
            }
            last = Some((at, offset));
        }
    }
}
