//! What the judges of the outbox, of sagas and of workflows say of a good run, and of one for each way to break a promise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use runtime_kernel::{Context, Principal, PrincipalKind, Source, SystemClock};
use runtime_saga::Status;
use runtime_workcheck::check::{Promise, Violation};
use runtime_workcheck::fleet::check::{
    Decided, Ended, Expected, Ticked, judge_sagas, judge_ticks, judge_workflows,
};
use runtime_workcheck::history::Record;
use runtime_workcheck::outbox::Event;
use runtime_workcheck::outbox::check::{Ending, check};
use runtime_workflow::definition::Format;
use runtime_workflow::{
    Action, Definition, Guard, MemoryWorkflows, StartRequest, StaticApprovers, What, WorkflowConfig,
    Workflows,
};
use serde_json::json;

fn promises(found: &[Violation]) -> Vec<Promise> {
    let promises: BTreeSet<_> = found.iter().map(|found| found.promise).collect();
    promises.into_iter().collect()
}

/// Messages 1 to 4 of one key, the poisonous 397, one undone and one whose commit was not answered.
fn sent() -> (Vec<Record<Event>>, Ending) {
    let added = [1, 2, 3, 4, 397].map(|message| Event::Added { message, key: 7 });
    let others = [
        Event::Undone { message: 5 },
        Event::Unknown { message: 6, key: 7 },
        Event::Lag { oldest: 9.0, unsent: 5.0 },
        Event::Lag { oldest: 0.0, unsent: 0.0 },
    ];
    let history = added.into_iter().chain(others).zip(1..).map(|(event, at)| Record { at, event }).collect();
    let effects = BTreeMap::from([(7, vec![1, 2, 3, 4, 6])]);
    let ending = Ending {
        effects,
        parked: BTreeSet::from([397]),
        held: BTreeMap::from([(397, vec![1, 2, 3, 4])]),
        ..Ending::default()
    };
    (history, ending)
}

#[test]
fn what_the_outbox_may_not_do_is_found() {
    type Break = fn(&mut Vec<Record<Event>>, &mut Ending);
    let cases: [(&str, Break, &[Promise]); 10] = [
        ("nothing", |_, _| {}, &[]),
        (
            "lost",
            |_, ending| assert_eq!(ending.effects.get_mut(&7).unwrap().remove(1), 2),
            &[Promise::NothingLost],
        ),
        ("twice", |_, ending| ending.effects.get_mut(&7).unwrap().insert(1, 1), &[Promise::EffectOnce]),
        ("out of order", |_, ending| ending.effects.get_mut(&7).unwrap().swap(1, 2), &[Promise::OrderPerKey]),
        ("undone", |_, ending| ending.effects.get_mut(&7).unwrap().insert(4, 5), &[Promise::NothingMadeUp]),
        ("poison sent", |_, ending| ending.effects.get_mut(&7).unwrap().push(397), &[Promise::NothingMadeUp]),
        (
            "poison not parked",
            |_, ending| {
                ending.parked.clear();
                ending.held.clear();
            },
            &[Promise::OnlyPoisonParks],
        ),
        ("another parked", |_, ending| assert!(ending.parked.insert(3)), &[Promise::OnlyPoisonParks]),
        (
            "overtaken",
            |_, ending| assert!(ending.held.insert(397, vec![398]).is_some()),
            &[Promise::OrderPerKey],
        ),
        ("lag", |history, _| assert!(history.pop().is_some()), &[Promise::LagRecovers]),
    ];
    for (name, bend, expected) in cases {
        let (mut history, mut ending) = sent();
        bend(&mut history, &mut ending);
        assert_eq!(promises(&check(&history, &ending)), expected, "{name}");
    }
}

#[test]
fn what_sagas_may_not_do_is_found() {
    type Break = fn(&mut Vec<Ended>);
    let words = |text: &str| text.split(", ").filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let ended = |number, status, done: &str, undone: &str, effects: &str| Ended {
        number,
        status,
        done: words(done),
        undone: words(undone),
        effects: words(effects),
    };
    let good = || {
        vec![
            ended(0, Status::Completed, "a, c, b, e", "", "a, b, c, e"),
            ended(
                1,
                Status::Compensated,
                "a, c, b",
                "undo b, undo c, undo a",
                "a, b, c, undo b, undo c, undo a",
            ),
        ]
    };
    let expected = |number| Expected { fails: number == 1, ..Expected::default() };
    let cases: [(&str, Break, &[Promise]); 7] = [
        ("nothing", |_| {}, &[]),
        ("unfinished", |all| all[0].status = Status::Running, &[Promise::EverythingEnds]),
        ("lost effect", |all| assert_eq!(all[0].effects.remove(1), "b"), &[Promise::NothingLost]),
        ("two keys", |all| all[0].effects.push("e".to_owned()), &[Promise::EffectOnce]),
        ("not in reverse", |all| all[1].effects.swap(3, 4), &[Promise::UndoneInReverse]),
        (
            "not undone",
            |all| {
                all[1].undone.pop();
                all[1].effects.pop();
            },
            &[Promise::UndoneInReverse],
        ),
        ("step twice", |all| all[0].done.push("e".to_owned()), &[Promise::OneEnding]),
    ];
    for (name, bend, found) in cases {
        let mut all = good();
        bend(&mut all);
        assert_eq!(promises(&judge_sagas(&all, expected)), found, "{name}");
    }
}

/// Two of three have decided, and nobody else had to.
async fn decided() -> Decided {
    let who = |id: &str| {
        Context::new(Source::Internal, &SystemClock).with_principal(Principal::new(PrincipalKind::User, id))
    };
    let clock = SystemClock::shared();
    let store = Arc::new(MemoryWorkflows::new(clock.clone()));
    let workflows = Workflows::new(store, Arc::new(StaticApprovers::new()), WorkflowConfig::default(), clock);
    let definition = "
code: purchase
entity_type: order
steps:
  - id: peers
    requirement: { quorum: { count: 2 } }
    approvers: [{ user: p0 }, { user: p1 }, { user: p2 }]
  - id: board
    level: 2
    type: conditional
    when: { is: { field: late, op: eq, value: true } }
    approvers: [{ user: cfo }]
";
    workflows.install(Definition::parse(definition, Format::Yaml).unwrap()).await.unwrap();
    let request = StartRequest::new("purchase", "order-1", json!({ "late": false }));
    let id = workflows.start(&who("rita"), request).await.unwrap().id;
    for person in ["p0", "p2"] {
        let approve = Action::Approve { step: None, comment: None };
        workflows.act(&who(person), id, approve, &Guard::default()).await.unwrap();
    }
    let instance = workflows.get(&who("rita"), id).await.unwrap();
    let events = workflows.history(&who("rita"), id, 0, 1000).await.unwrap();
    Decided { instance, events, told: ["p0", "p2"].map(str::to_owned).into(), late: false }
}

#[tokio::test]
async fn what_workflows_may_not_do_is_found() {
    type Break = fn(&mut Decided);
    let good = decided().await;
    let cases: [(&str, Break, &[Promise]); 6] = [
        ("nothing", |_| {}, &[]),
        (
            "unfinished",
            |one| one.instance.status = runtime_workflow::Status::InProgress,
            &[Promise::EverythingEnds],
        ),
        (
            "an event is missing",
            |one| assert!(one.events.pop().is_some()),
            &[Promise::NothingLost, Promise::OneEnding],
        ),
        ("told and not kept", |one| assert!(one.told.insert("p1".to_owned())), &[Promise::NothingLost]),
        ("never escalated", |one| one.late = true, &[Promise::OneEnding, Promise::LimitsHold]),
        (
            "one voice twice",
            |one| {
                let voices =
                    one.events.iter_mut().filter(|event| matches!(event.what, What::DecisionApproved { .. }));
                voices.for_each(|event| event.by = Some("p0".to_owned()));
                one.told.remove("p2");
            },
            &[Promise::LimitsHold, Promise::EffectOnce],
        ),
    ];
    for (name, bend, found) in cases {
        let mut one = good.clone();
        bend(&mut one);
        assert_eq!(promises(&judge_workflows(&[one])), found, "{name}");
    }
}

#[test]
fn a_second_is_missed_fired_twice_or_neither() {
    for (seconds, found) in [
        (vec![9, 10, 11, 12, 13], vec![]),
        (vec![10, 12], vec![Promise::NothingLost]),
        (vec![10, 11, 11, 12], vec![Promise::EffectOnce]),
        (vec![], vec![Promise::NothingLost]),
    ] {
        let ticked = Ticked { from: 10, to: 12, seconds: BTreeMap::from([("a".to_owned(), seconds)]) };
        assert_eq!(promises(&judge_ticks(&ticked)), found, "{ticked:?}");
    }
}
