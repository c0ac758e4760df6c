//! The next time of a cron expression, and the refusal of a date that never comes.

use std::hint::black_box;
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;
use runtime_cron::{CronExpression, Zone};
use runtime_kernel::{Clock, SystemClock, Timestamp};

use crate::measure::{interleave, nanos};
use crate::report::{Better, Row};

const WINDOW: Duration = Duration::from_millis(60);

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let now = SystemClock.utc();
    for (text, zone) in [
        ("*/5 * * * *", "UTC"),
        ("0 9 * * MON-FRI", "UTC"),
        ("0 9 * * MON-FRI", "Europe/Berlin"),
        ("30 2 1 */3 *", "America/New_York"),
        ("0 0 29 2 *", "UTC"),
    ] {
        let ours = CronExpression::parse(text).expect("sound");
        let at = Zone::get(zone).expect("a zone");
        let theirs = croner::Cron::from_str(text).expect("sound");
        let tz = TimeZone::get(zone).expect("a zone");
        let old = cron::Schedule::from_str(&format!("0 {text}")).expect("sound");
        let step = std::cell::Cell::new(0_i64);
        // From another minute each time, so that nothing is learned by heart.
        let from = || {
            step.set((step.get() + 7_919) % 500_000);
            now.as_second() + step.get() * 61
        };
        let [mine, cr, co] = interleave([
            &mut || nanos(WINDOW, || _ = black_box(ours.next_after(Timestamp::from_second(from()).expect("soon"), &at))),
            &mut || {
                nanos(WINDOW, || {
                    let at = jiff::Timestamp::from_second(from()).expect("soon").to_zoned(tz.clone());
                    drop(black_box(theirs.find_next_occurrence(&at, false)));
                })
            },
            &mut || {
                nanos(WINDOW, || {
                    let at = chrono::DateTime::from_timestamp(from(), 0).expect("soon");
                    let _ = black_box(old.after(&at).next());
                })
            },
        ]);
        let row = format!("next of `{text}` in {zone}");
        rows.push(Row::of("cron", &row, "ns", Better::Less, &mine, ("croner", &cr)));
        if zone == "UTC" {
            rows.push(Row::of("cron", &row, "ns", Better::Less, &mine, ("cron", &co)));
        }
    }
    let [mine, cr] = interleave([
        &mut || nanos(WINDOW, || _ = black_box(CronExpression::parse("0 0 31 2 *").is_err())),
        &mut || {
            let at = jiff::Timestamp::from_second(now.as_second()).expect("now").to_zoned(TimeZone::UTC);
            nanos(WINDOW, || {
                let cron = croner::Cron::from_str("0 0 31 2 *").expect("accepted");
                drop(black_box(cron.find_next_occurrence(&at, false)));
            })
        },
    ]);
    rows.push(Row::of("cron", "refusing `0 0 31 2 *`", "ns", Better::Less, &mine, ("croner", &cr)));
    rows
}
