//! The tables of other engines' tests, each read in its own dialect. Where we differ, a list here says so.

use runtime_cron::{CronExpression, Dialect, Dst, DstGap, DstOverlap, Zone};
use runtime_kernel::Timestamp;

/// Cronos has no year field, and lets `W` stand only alone.
const CRONOS_REFUSES_WE_TAKE: [&str; 3] = ["* * * * * * *", "* * 1,2W * *", "* * * 1,2W * *"];

/// cronsim takes a weekday's name with `#` but not with `L`, and no year field.
const CRONSIM_REFUSES_WE_TAKE: [&str; 1] = ["* * * * MONL"];

/// Rows of Cronos we answer otherwise: kind, expression and the first time of the row.
const CRONOS_OTHERWISE: [(&str, &str, &str); 8] = [
    // OCPS 1.4, section 4.2: `?` only in the day fields.
    ("at-or-after", "? ? ? ? ? ?", "2016-12-09T21:46:00Z"),
    ("at-or-after", "? ? ? ? ?", "2016-12-09T21:46:00Z"),
    // Cronos fires at the end of a gap when asked from before it, and not when asked from that very second, nor
    // backwards. Ours is one set of instants whichever way it is looked at.
    ("at-or-after", "30 0 L * *", "2017-03-30T22:00:00Z"),
    ("at-or-after", "30 0 LW * *", "2018-03-29T22:00:00Z"),
    ("before", "30 0 L * *", "2017-04-29T21:30:00Z"),
    ("before", "30 0 LW * *", "2018-04-29T21:30:00Z"),
    // Equal by what they mean, not by how they are written.
    ("differ", "* * 31 1 *", "* * L 1 *"),
    // What can never happen is refused, so there is nothing to compare.
    ("same", "* * L-3W * 0L", "* * L-3W * 0L"),
];

struct Row<'t> {
    kind: &'t str,
    zone: Zone,
    text: &'t str,
    rest: Vec<&'t str>,
}

impl Row<'_> {
    fn time(&self, index: usize) -> Timestamp {
        self.rest[index].parse().unwrap()
    }
}

fn rows(table: &str) -> impl Iterator<Item = Row<'_>> {
    table.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| {
        let mut cells = line.split('\t');
        let (kind, zone) = (cells.next().unwrap(), Zone::get(cells.next().unwrap()).unwrap());
        Row { kind, zone, text: cells.next().unwrap_or_default(), rest: cells.collect() }
    })
}

fn just_before(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond() - 1).unwrap()
}

fn start() -> Timestamp {
    "2016-01-01T00:00:00Z".parse().unwrap()
}

/// Judges one row; `None` when all is well.
fn judge(row: &Row<'_>, dialect: Dialect) -> Option<String> {
    let parsed = CronExpression::parse_with(row.text, dialect, Some("suite"));
    if row.kind == "invalid" {
        return parsed.ok().map(|_| "was taken".to_owned());
    }
    let expression = match parsed {
        Ok(expression) => expression,
        Err(_) if row.kind == "never" => return None,
        Err(error) => return Some(error.to_string()),
    };
    let times = |text: &str| -> Vec<Timestamp> {
        let other = CronExpression::parse_with(text, dialect, None);
        let days = (0..1500).map(|day| start().as_microsecond() + day * 86_400_000_000);
        // What is refused as impossible has no times.
        other.map_or(Vec::new(), |other| {
            days.filter_map(|day| other.next_after(Timestamp::from_microsecond(day).unwrap(), &row.zone))
                .collect()
        })
    };
    let (found, expected) = match row.kind {
        "valid" => return None,
        "never" => (expression.next_after(start(), &row.zone), None),
        "after" => (expression.next_after(row.time(0), &row.zone), Some(row.time(1))),
        "at-or-after" => (expression.next_after(just_before(row.time(0)), &row.zone), Some(row.time(1))),
        "before" => (expression.previous_before(row.time(0), &row.zone), Some(row.time(1))),
        "matches" => {
            let is = expression.next_after(just_before(row.time(0)), &row.zone) == Some(row.time(0));
            return (is.to_string() != row.rest[1]).then(|| format!("{is}"));
        }
        "same" | "differ" => {
            let same = times(row.text) == times(row.rest[0]);
            return (same != (row.kind == "same")).then(|| format!("same: {same}"));
        }
        "progress" => {
            let times: Vec<_> = expression.upcoming(row.time(0), &row.zone).take(100).collect();
            return (times.len() != 100 || !times.is_sorted_by(|a, b| a < b)).then(|| format!("{times:?}"));
        }
        "sequence" | "exact" => {
            let expected: Vec<Timestamp> = row.rest[1].split(' ').map(|text| text.parse().unwrap()).collect();
            let found: Vec<_> = expression.upcoming(row.time(0), &row.zone).take(expected.len()).collect();
            return (found != expected).then(|| format!("{found:?}"));
        }
        "reverse" => return forth_and_back(&expression, &row.zone),
        other => panic!("no kind `{other}`"),
    };
    (found != expected).then(|| format!("{found:?}"))
}

/// What comes forwards comes backwards, over both changes of the clock in 2021.
fn forth_and_back(expression: &CronExpression, zone: &Zone) -> Option<String> {
    for start in ["2021-03-27T12:00:00Z", "2021-10-30T12:00:00Z"] {
        let start = start.parse().unwrap();
        let forth: Vec<_> = expression.upcoming(start, zone).take(2000).collect();
        let mut at = *forth.last().unwrap();
        for expected in forth.iter().rev().skip(1) {
            let found = expression.previous_before(at, zone);
            if found != Some(*expected) {
                return Some(format!("before {at}: {found:?} instead of {expected}"));
            }
            at = *expected;
        }
    }
    None
}

fn check(table: &str, least: usize, dialect_of: impl Fn(&Row<'_>) -> Dialect, taken: &[&str]) {
    let mut wrong = Vec::new();
    let mut count = 0;
    for row in rows(table) {
        count += 1;
        let verdict = judge(&row, dialect_of(&row));
        let told = (row.kind, row.text, row.rest.first().copied().unwrap_or_default());
        if (row.kind == "invalid" && taken.contains(&row.text)) || CRONOS_OTHERWISE.contains(&told) {
            assert!(verdict.is_some(), "`{}` is as they have it after all: mend the list", row.text);
        } else if let Some(verdict) = verdict {
            wrong.push(format!("{} {} `{}` {:?}: {verdict}", row.kind, row.zone, row.text, row.rest));
        }
    }
    assert!(wrong.is_empty(), "{} of {count} rows:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= least, "only {count} rows");
}

#[test]
fn cronos_rows_hold() {
    // What Cronos refuses is refused by the strict syntax, which is also the default.
    let dialect = |row: &Row<'_>| if row.kind == "invalid" { Dialect::OCPS } else { Dialect::CRONOS };
    check(include_str!("../data/cronos.txt"), 1500, dialect, &CRONOS_REFUSES_WE_TAKE);
}

#[test]
fn cronsim_rows_hold() {
    let dialect = |row: &Row<'_>| match row.kind {
        "invalid" => Dialect::OCPS,
        "exact" => {
            let mut dialect = Dialect::VIXIE;
            dialect.fixed = Dst { gap: DstGap::Skip, overlap: DstOverlap::Both };
            dialect
        }
        _ => Dialect::VIXIE,
    };
    check(include_str!("../data/cronsim.txt"), 300, dialect, &CRONSIM_REFUSES_WE_TAKE);
}

#[test]
fn robfig_rows_hold() {
    let dialect = |row: &Row<'_>| if row.kind == "invalid" { Dialect::OCPS } else { Dialect::ROBFIG };
    check(include_str!("../data/robfig.txt"), 80, dialect, &[]);
}
