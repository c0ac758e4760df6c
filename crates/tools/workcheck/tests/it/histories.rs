//! Hand-made histories: a good one, and one for each way to break a promise.

use std::collections::BTreeMap;

use runtime_workcheck::check::{Attempt, Ending, Kept, Promise, Rules, check};
use runtime_workcheck::history::{Event, Record};

/// Two jobs of one key, one after the other, each acknowledged before the next is enqueued.
fn good() -> (Vec<Record>, Ending) {
    let mut history = Vec::new();
    let mut ending = Ending::default();
    for job in [1, 2] {
        let start = i64::try_from(job).unwrap() * 100;
        let fence = job * 10;
        let events = [
            (10, Event::Enqueued { job, called: start }),
            (30, Event::Claimed { job, fence }),
            (40, Event::Began { job, fence }),
            (60, Event::Ended { job, fence, ok: true }),
            (80, Event::Reported { job, fence, last: true, accepted: true, called: start + 65 }),
        ];
        history.extend(events.map(|(after, event)| Record { at: start + after, event }));
        ending.jobs.push(Kept {
            job,
            kind: "solo".to_owned(),
            key: Some("k".to_owned()),
            unique: Some("u".to_owned()),
            scheduled: false,
            state: Some("completed".to_owned()),
            created: start + 5,
            finished: start + 70,
            attempts_used: (1, 3),
            result_fence: Some(fence),
            attempts: vec![Attempt { number: 1, began: start + 20, ended: start + 70 }],
            error: String::new(),
        });
    }
    history.push(Record { at: 5, event: Event::Undone { job: 9 } });
    history.sort_by_key(|record| record.at);
    (history, ending)
}

fn rules() -> Rules {
    Rules { limits: BTreeMap::from([("solo".to_owned(), 1)]), windows: BTreeMap::new() }
}

fn broken(history: &[Record], ending: &Ending) -> Vec<Promise> {
    let mut found: Vec<_> = check(history, ending, &rules()).iter().map(|found| found.promise).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn a_good_history_breaks_no_promise() {
    let (history, ending) = good();
    assert_eq!(broken(&history, &ending), []);
}

type Break = fn(&mut Vec<Record>, &mut Ending);

#[test]
fn each_broken_promise_is_found_by_name() {
    let cases: [(Promise, Break); 18] = [
        (Promise::NothingLost, |_, ending| drop(ending.jobs.pop())),
        (Promise::NothingMadeUp, |history, _| {
            history.push(Record { at: 900, event: Event::Began { job: 9, fence: 90 } });
        }),
        (Promise::NothingMadeUp, |_, ending| {
            let state = Some("dead".to_owned());
            ending.jobs.push(Kept { job: 9, kind: "plain".to_owned(), state, ..Kept::default() });
        }),
        (Promise::NothingMadeUp, |_, ending| {
            let twin = Kept { key: None, unique: None, ..ending.jobs[0].clone() };
            ending.jobs.push(twin);
        }),
        (Promise::EverythingEnds, |_, ending| {
            ending.jobs.truncate(2);
            let last = &mut ending.jobs[1];
            (last.state, last.result_fence) = (None, None);
        }),
        (Promise::OneEnding, |history, _| {
            let event = Event::Reported { job: 1, fence: 10, last: true, accepted: true, called: 899 };
            history.push(Record { at: 900, event });
        }),
        (Promise::StaleRefused, |history, _| {
            history.insert(0, Record { at: 160, event: Event::Claimed { job: 1, fence: 11 } });
        }),
        (Promise::StaleRefused, |history, _| {
            let event = Event::Reported { job: 2, fence: 19, last: false, accepted: true, called: 299 };
            history.push(Record { at: 300, event });
        }),
        (Promise::OneRunPerLease, |history, _| {
            history.push(Record { at: 900, event: Event::Began { job: 1, fence: 10 } });
        }),
        (Promise::CompletedWasRun, |history, _| {
            history.retain(|record| record.event != Event::Ended { job: 1, fence: 10, ok: true });
        }),
        (Promise::NoFalseEnding, |_, ending| ending.jobs[0].state = Some("cancelled".to_owned())),
        (Promise::NoFalseEnding, |_, ending| ending.jobs[0].state = Some("dead".to_owned())),
        (Promise::OneLeasePerJob, |_, ending| {
            let last = &mut ending.jobs[1];
            last.key = None;
            last.attempts.insert(0, Attempt { number: 0, began: 210, ended: 240 });
        }),
        (Promise::LimitsHold, |_, ending| ending.jobs[0].attempts[0].ended = 221),
        (Promise::FirstInFirstOut, |_, ending| {
            let later = Attempt { number: 1, began: 300, ended: 310 };
            ending.jobs[0].attempts = vec![later];
        }),
        (Promise::UniqueHolds, |_, ending| ending.jobs[0].finished = 206),
        (Promise::NothingLeaks, |_, ending| {
            ending.left.insert("leases".to_owned(), 1);
        }),
        (Promise::WorkersStop, |_, ending| ending.stuck.push("worker 1".to_owned())),
    ];
    for (promise, breaking) in cases {
        let (mut history, mut ending) = good();
        breaking(&mut history, &mut ending);
        assert_eq!(broken(&history, &ending), [promise]);
    }
}

#[test]
fn what_a_zombie_does_after_its_lease_breaks_no_promise() {
    let (mut history, mut ending) = good();
    // Job 1 was lost under lease 5 at 115, and its handler went on until 195.
    for (at, event) in [
        (112, Event::Claimed { job: 1, fence: 5 }),
        (113, Event::Began { job: 1, fence: 5 }),
        (195, Event::Ended { job: 1, fence: 5, ok: true }),
        (196, Event::Reported { job: 1, fence: 5, last: true, accepted: false, called: 195 }),
    ] {
        history.push(Record { at, event });
    }
    history.sort_by_key(|record| record.at);
    let first = &mut ending.jobs[0];
    first.attempts[0].number = 2;
    first.attempts.push(Attempt { number: 1, began: 112, ended: 115 });
    assert_eq!(broken(&history, &ending), []);
}

#[test]
fn an_answer_that_comes_late_is_no_stale_report() {
    let (mut history, ending) = good();
    // Given back under lease 5; the answer was seen after the next claim's.
    for (at, event) in [
        (112, Event::Claimed { job: 1, fence: 5 }),
        (131, Event::Reported { job: 1, fence: 5, last: false, accepted: true, called: 115 }),
    ] {
        history.push(Record { at, event });
    }
    history.sort_by_key(|record| record.at);
    assert_eq!(broken(&history, &ending), []);
}

#[test]
fn a_window_holds_a_key_beyond_the_jobs_end() {
    let (history, mut ending) = good();
    let mut rules = rules();
    rules.windows.insert("solo".to_owned(), 10_000_000);
    let found = check(&history, &ending, &rules);
    assert_eq!(found.iter().map(|found| found.promise).collect::<Vec<_>>(), [Promise::UniqueHolds]);
    ending.jobs[1].created += 10_000_000;
    assert_eq!(check(&history, &ending, &rules), []);
}
