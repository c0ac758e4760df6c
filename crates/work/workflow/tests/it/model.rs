//! Random definitions and random histories: whatever is asked of an instance, the laws of the machine hold.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use runtime_kernel::{ManualClock, Timestamp};
use runtime_workflow::definition::{
    Approver, Escalation, EscalationAction, Quorum, Requirement, Sla, Span, Step, StepKind, Unit,
};
use runtime_workflow::{
    Action, Actor, Command, Definition, Event, How, Instance, InstanceId, Order, ParkReason, Priority,
    SeatState, Start, Status, StepStatus, What, WorkflowError, begin, decide,
};
use serde_json::{Value, json};

const PEOPLE: [&str; 6] = ["rita", "p1", "p2", "p3", "p4", "p5"];

fn who() -> impl Strategy<Value = String> {
    (0..PEOPLE.len()).prop_map(|nth| PEOPLE[nth].to_owned())
}

fn requirement() -> impl Strategy<Value = Requirement> {
    prop_oneof![
        Just(Requirement::Any),
        Just(Requirement::All),
        Just(Requirement::Majority),
        (1u32..4).prop_map(|count| Requirement::Quorum(Quorum::Count(count))),
        (1u32..=100).prop_map(|percent| Requirement::Quorum(Quorum::Percent(percent))),
    ]
}

fn sla() -> impl Strategy<Value = Option<Sla>> {
    let people = || vec![Approver::Role("board".to_owned())];
    let action = prop_oneof![
        Just(EscalationAction::Notify(people())),
        Just(EscalationAction::Reassign(people())),
        Just(EscalationAction::AddApprover(people())),
        Just(EscalationAction::AutoApprove),
        Just(EscalationAction::AutoReject),
    ];
    let hours = |hours| Span::new(hours, Unit::Hours);
    let sla = (action, 1u32..5, any::<bool>()).prop_map(move |(action, due, expires)| Sla {
        due: hours(due),
        warn_at: 80,
        reminders: Vec::new(),
        escalations: vec![Escalation { after: hours(1), action, repeat: None }],
        expires_after: expires.then_some(hours(6)),
    });
    proptest::option::of(sla)
}

fn definition() -> impl Strategy<Value = Definition> {
    let step = (requirement(), any::<bool>(), sla(), 0u32..3, any::<u8>());
    proptest::collection::vec(step, 1..6).prop_map(|steps| {
        let mut level = 1;
        let steps = steps.into_iter().enumerate().map(|(nth, (requirement, sequential, sla, up, on))| {
            if nth > 0 && up == 0 {
                level += 1;
            }
            // Only on earlier ones, whose level is not higher.
            let depends_on =
                if nth > 0 && up == 1 { vec![format!("s{}", usize::from(on) % nth)] } else { vec![] };
            Step {
                id: format!("s{nth}"),
                name: String::new(),
                level,
                kind: if sequential { StepKind::Sequential } else { StepKind::Parallel },
                requirement,
                approvers: vec![Approver::Role("any".to_owned())],
                fallback: Vec::new(),
                depends_on,
                when: None,
                skip_when: None,
                auto_approve_when: None,
                sla,
            }
        });
        let whole = json!({ "code": "order", "entity_type": "order", "steps": [] });
        let mut definition: Definition = serde_json::from_value(whole).unwrap();
        definition.steps = steps.collect();
        definition
    })
}

/// What is done next; a step is meant by its place among those there are.
#[derive(Clone, Debug)]
enum Next {
    Supply(Vec<String>),
    Fail(bool),
    Act(String, bool, u8, u8, String),
    Order(u8, u8, String, String),
    Tick(u64),
}

fn next() -> impl Strategy<Value = Next> {
    let group = proptest::collection::vec(who(), 0..6);
    prop_oneof![
        4 => group.prop_map(Next::Supply),
        1 => any::<bool>().prop_map(Next::Fail),
        10 => (who(), any::<bool>(), 0u8..14, any::<u8>(), who()).prop_map(|(a, b, c, d, e)| Next::Act(a, b, c, d, e)),
        2 => (0u8..13, any::<u8>(), who(), who()).prop_map(|(a, b, c, d)| Next::Order(a, b, c, d)),
        2 => (0u64..5).prop_map(Next::Tick),
    ]
}

fn action(kind: u8, step: String, to: String) -> Action {
    let reason = || "x".to_owned();
    match kind {
        0..=4 => Action::Approve { step: Some(step), comment: None },
        5 => Action::Approve { step: None, comment: None },
        6 => Action::Reject { step: Some(step), reason: reason() },
        7 => Action::RequestChanges { step: Some(step), reason: reason() },
        8 => Action::Resubmit { entity: Value::Null },
        9 => Action::Delegate { step: Some(step), to, reason: None },
        10 => Action::Escalate { step, reason: reason() },
        11 => Action::Hold { reason: reason() },
        12 => Action::Release {},
        _ => Action::Bypass { step, approve: true, reason: reason() },
    }
}

fn order(kind: u8, step: String, from: String, to: String, now: Timestamp) -> Order {
    match kind {
        0 => Order::ForceApprove { step: Some(step) },
        1 => Order::ForceReject { step: Some(step) },
        2 => Order::Reassign { step, from, to },
        3 => Order::AddApprover { step, person: to },
        4 => Order::RemoveApprover { step, person: from },
        5 => Order::SkipStep { step },
        6 => Order::RestartFrom { step },
        7 => Order::SetDeadline { step: Some(step), due: now },
        8 => Order::Retry { step },
        9 => Order::Deactivated { person: from },
        10 => Order::Hold {},
        11 => Order::Release {},
        _ => Order::Deactivated { person: to },
    }
}

struct Run {
    definition: Definition,
    instance: Instance,
    events: Vec<Event>,
    now: Timestamp,
}

impl Run {
    fn new(definition: Definition) -> Self {
        let now = Timestamp::from_microsecond(1_767_225_600_000_000).unwrap();
        let start = Start {
            id: InstanceId::new(&ManualClock::new()),
            tenant: "t".to_owned(),
            version: 1,
            entity_id: "e".to_owned(),
            entity: json!({}),
            metadata: Value::Null,
            requester: "rita".to_owned(),
            priority: Priority::Normal,
            context: None,
        };
        let (instance, events) = begin(&definition, start, now).unwrap();
        let run = Self { definition, instance, events, now };
        run.check();
        run
    }

    fn command(&mut self, next: &Next) -> Option<Command> {
        let step = |nth: u8| format!("s{}", usize::from(nth) % self.instance.steps.len());
        Some(match next.clone() {
            Next::Supply(people) => {
                let want = self.instance.wants.first()?.clone();
                Command::Found { step: want.step, purpose: want.purpose, people }
            }
            Next::Fail(again) => {
                let want = self.instance.wants.first()?.clone();
                let (reason, message) = (ParkReason::SystemError, "away".to_owned());
                Command::NotFound { step: want.step, purpose: want.purpose, reason, message, again }
            }
            Next::Act(id, may_bypass, kind, nth, to) => {
                // Mostly somebody who is asked, or little would ever happen.
                let asked = self.instance.tasks();
                let asked = asked.get(usize::from(nth) % asked.len().max(1));
                let (id, at) = match asked {
                    Some(task) if nth % 4 != 0 => (task.holder.clone(), task.step.clone()),
                    _ => (id, step(nth)),
                };
                let by = Actor { id, may_bypass, may_administer: false };
                Command::Act { by, action: action(kind, at, to) }
            }
            Next::Order(kind, nth, from, to) => {
                let by = Actor { id: "chief".to_owned(), may_bypass: false, may_administer: true };
                let order = order(kind, step(nth), from, to, self.now);
                Command::Order { by, order, reason: "x".to_owned() }
            }
            Next::Tick(hours) => {
                self.now = self.now.checked_add(Duration::from_hours(hours)).unwrap();
                Command::Tick
            }
        })
    }

    fn step(&mut self, next: &Next) {
        let Some(command) = self.command(next) else { return };
        match decide(&self.definition, &self.instance, command.clone(), self.now) {
            Ok((instance, events)) => {
                assert!(!self.instance.status.is_end(), "an end is an end: {command:?}");
                assert_eq!(instance.revision, self.instance.revision + 1);
                self.instance = instance;
                self.events.extend(events);
                self.check();
            }
            Err(WorkflowError::Ended(status)) => assert_eq!(status, self.instance.status),
            Err(WorkflowError::Corrupt(why)) => panic!("{why}"),
            Err(_) => assert!(!self.instance.status.is_end()),
        }
    }

    fn check(&self) {
        let (instance, steps) = (&self.instance, &self.instance.steps);
        assert!(self.events.iter().zip(1..).all(|(event, number)| event.number == number));
        assert_eq!(instance.events, self.events.len() as u64);
        let text = serde_json::to_string(&(instance, &self.events)).unwrap();
        assert_eq!(
            serde_json::from_str::<(Instance, Vec<Event>)>(&text).unwrap(),
            (instance.clone(), self.events.clone())
        );

        for task in instance.tasks() {
            let step = instance.step(&task.step).unwrap();
            assert!(instance.status == Status::InProgress && step.status == StepStatus::Active);
        }
        let passed = |id: &str| instance.step(id).unwrap().status.is_passed();
        for (run, step) in steps.iter().zip(&self.definition.steps) {
            let holders: Vec<_> = run.live().map(|seat| &seat.holder).collect();
            assert_eq!(holders.iter().collect::<BTreeSet<_>>().len(), holders.len(), "one person, one voice");
            assert!(holders.iter().all(|holder| *holder != "rita"), "nobody about their own request");
            let live = |state| run.live().filter(|seat| seat.state == state).count();
            if run.status.is_open() {
                let below = self.definition.steps.iter().filter(|other| other.level < step.level);
                assert!(
                    below.map(|other| &other.id).chain(&step.depends_on).all(|id| passed(id)),
                    "{run:#?}"
                );
            } else {
                assert!(run.seats.iter().all(|seat| !seat.state.is_undecided()), "{run:#?}");
                let of_step = |other: &Option<String>| other.as_ref() == Some(&run.id);
                assert!(!instance.timers.iter().any(|timer| of_step(&timer.step)));
                assert!(!instance.wants.iter().any(|want| of_step(&want.step)));
            }
            match (run.status, run.settled) {
                (StepStatus::Approved, Some(How::Requirement)) => {
                    assert!(live(SeatState::Approved) >= step.requirement.needed(holders.len()), "{run:#?}");
                }
                (StepStatus::Rejected, Some(How::Requirement)) => {
                    let (no, all) = (live(SeatState::Rejected), holders.len());
                    assert!(no > 0 && all - no < step.requirement.needed(all), "{run:#?}");
                }
                (StepStatus::Approved, Some(how)) => {
                    let told = |event: &&Event| match how {
                        How::Bypass => event.what == What::Bypassed { approved: true },
                        How::Admin => event.what == What::Forced { approved: true },
                        How::Escalation => event.what == What::EscalationDecided { approved: true },
                        How::Requirement | How::Condition | How::Expiry => false,
                    };
                    let why = self.events.iter().find(told).expect("approved otherwise, and nobody said so");
                    assert_eq!(why.by.is_none(), how == How::Escalation);
                    assert_eq!(why.reason.is_none(), how == How::Escalation);
                }
                _ => {}
            }
            // Whatever is open goes on by itself, waits for somebody, or says why it does not.
            let wanted = || instance.wants.iter().any(|want| want.step.as_ref() == Some(&run.id));
            match run.status {
                StepStatus::Seating => assert!(wanted() || run.parked.is_some(), "{run:#?}"),
                StepStatus::Active if !instance.status.is_stopped() => {
                    assert!(live(SeatState::Open) > 0 || run.parked.is_some(), "{run:#?}");
                }
                _ => {}
            }
        }
        match instance.status {
            Status::Approved => assert!(steps.iter().all(|step| step.status.is_passed())),
            Status::Rejected => assert!(
                steps.iter().any(|step| step.status == StepStatus::Rejected)
                    || self.events.iter().any(|event| event.what == What::Forced { approved: false })
            ),
            _ => {}
        }
        if instance.status.is_end() {
            assert!(instance.timers.is_empty() && instance.wants.is_empty() && instance.next_at().is_none());
            assert!(steps.iter().all(|s| !s.status.is_open() && s.status != StepStatus::Pending));
            let end = self.events.last().unwrap();
            assert_eq!(serde_json::to_value(end).unwrap()["event"], instance.status.as_str());
        } else if !instance.status.is_stopped() {
            assert!(steps.iter().any(|step| step.status.is_open()), "{instance:#?}");
        }
    }

    /// Everybody who is asked agrees; an administrator mends what is parked.
    fn finish(&mut self) {
        let chief = || Actor { id: "chief".to_owned(), may_bypass: true, may_administer: true };
        for _ in 0..200 {
            if self.instance.status.is_end() {
                return;
            }
            let order = |order| Command::Order { by: chief(), order, reason: "x".to_owned() };
            let parked = self.instance.steps.iter().find(|step| step.parked.is_some());
            let command = if self.instance.status.is_stopped() {
                order(Order::Release {})
            } else if let Some(task) = self.instance.tasks().first() {
                let action = Action::Approve { step: Some(task.step.clone()), comment: None };
                Command::Act { by: Actor::new(&task.holder), action }
            } else if let Some(want) = self.instance.wants.first().cloned() {
                Command::Found { step: want.step, purpose: want.purpose, people: vec!["p1".to_owned()] }
            } else {
                let step = parked.expect("it neither goes on nor says why").id.clone();
                order(Order::ForceApprove { step: Some(step) })
            };
            let (instance, events) = decide(&self.definition, &self.instance, command, self.now).unwrap();
            self.instance = instance;
            self.events.extend(events);
            self.check();
        }
        panic!("it does not come to an end: {:#?}", self.instance);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_the_laws_of_the_machine_hold(
        definition in definition(),
        history in proptest::collection::vec(next(), 1..60),
    ) {
        prop_assert_eq!(definition.problems(), []);
        let mut run = Run::new(definition);
        for next in &history {
            run.step(next);
        }
        run.finish();
    }

    #[test]
    fn a_majority_is_more_than_half_and_no_requirement_asks_for_nobody(seats in 0usize..500, percent in 1u32..=100) {
        prop_assert!(Requirement::Majority.needed(seats) * 2 > seats);
        prop_assert!((Requirement::Majority.needed(seats) - 1) * 2 <= seats);
        let share = Requirement::Quorum(Quorum::Percent(percent)).needed(seats);
        prop_assert!(share * 100 >= seats * percent as usize && share >= 1);
        for requirement in [Requirement::Any, Requirement::All, Requirement::Quorum(Quorum::Count(0))] {
            prop_assert!(requirement.needed(seats) >= 1);
        }
    }
}
