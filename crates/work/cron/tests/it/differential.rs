//! The same expressions, read by `croner`.

use std::str::FromStr;

use proptest::prelude::*;
use runtime_cron::{CronExpression, Dialect, Zone};
use runtime_kernel::Timestamp;

fn field(least: u32, most: u32) -> impl Strategy<Value = String> {
    let pair = (least..=most, least..=most).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let item = prop_oneof![
        4 => (least..=most).prop_map(|value| value.to_string()),
        2 => pair.clone().prop_map(|(from, to)| format!("{from}-{to}")),
        1 => (pair, 1..=most / 2).prop_map(|((from, to), step)| format!("{from}-{to}/{step}")),
        1 => (1..=most / 2).prop_map(|step| format!("*/{step}")),
    ];
    prop_oneof![1 => Just("*".to_owned()), 2 => prop::collection::vec(item, 1..4).prop_map(|items| items.join(","))]
}

pub(super) fn expressions() -> impl Strategy<Value = String> {
    let dates = prop_oneof![
        6 => field(1, 31),
        1 => (1..=31u32).prop_map(|day| format!("{day}W")),
        1 => Just("L".to_owned()),
        1 => Just("LW".to_owned()),
    ];
    let weekdays = prop_oneof![
        5 => field(0, 6),
        1 => (0..=6u32, 1..=5u32).prop_map(|(day, nth)| format!("{day}#{nth}")),
        1 => (0..=6u32).prop_map(|day| format!("{day}L")),
        1 => field(0, 6).prop_map(|days| format!("+{days}")),
    ];
    let years =
        prop_oneof![3 => Just(None), 1 => (2020..2040u32).prop_map(|year| Some(format!("{year}-2045/3")))];
    (field(0, 59), field(0, 59), field(0, 23), dates, field(1, 12), weekdays, years).prop_map(
        |(second, minute, hour, date, month, weekday, year)| {
            let six = format!("{second} {minute} {hour} {date} {month} {weekday}");
            year.map_or(six.clone(), |year| format!("{six} {year}"))
        },
    )
}

pub(super) fn croner(text: &str) -> Option<croner::Cron> {
    let parser = croner::parser::CronParser::builder()
        .seconds(croner::parser::Seconds::Optional)
        .year(croner::parser::Year::Optional)
        .build();
    parser.parse(text).ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn croner_finds_the_same_times(text in expressions(), start in 1_577_836_800i64..2_208_988_800) {
        let theirs = croner(&text);
        let ours = CronExpression::parse_with(&text, Dialect::OCPS, None);
        prop_assert_eq!(theirs.is_some(), ours.is_ok() || impossible(&text), "{}", text);
        let (Some(theirs), Ok(ours)) = (theirs, ours) else { return Ok(()) };
        let zone = Zone::utc();
        let mut at = jiff::Timestamp::from_second(start).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
        let from = Timestamp::from_str(&at.timestamp().to_string()).unwrap();
        for found in ours.upcoming(from, &zone).take(5) {
            let next = theirs.find_next_occurrence(&at, false);
            let Ok(next) = next else {
                // croner gives up where we go on.
                break;
            };
            prop_assert_eq!(found.to_string(), next.timestamp().to_string(), "`{}` after {}", text, at);
            at = next;
        }
    }
}

fn impossible(text: &str) -> bool {
    matches!(CronExpression::parse(text), Err(error) if error.problem == runtime_cron::Problem::Impossible)
}
