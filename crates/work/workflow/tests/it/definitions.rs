//! What is registered can be decided: everything else is refused, with its place and a code.

use runtime_workflow::definition::{Change, Format, ProblemCode as Code, VersionState};
use runtime_workflow::store::VersionFilter;
use runtime_workflow::{Definition, StartRequest, WorkflowError};
use serde_json::json;

use super::desk::*;

/// A definition of these steps.
fn of_steps(steps: &str) -> String {
    format!("code: order\nentity_type: order\nsteps: {steps}\n")
}

fn with(step: &str) -> String {
    of_steps(&format!("[{{ id: a, approvers: [{{ user: ann }}], {step} }}]"))
}

type Case<'a> = (String, &'a str, Code, &'a str);

fn all_refused<'a>(cases: impl IntoIterator<Item = Case<'a>>) {
    for (yaml, path, code, says) in cases {
        let refused = Definition::parse(&yaml, Format::Yaml);
        let Err(WorkflowError::Definition(problems)) = refused else { panic!("{yaml}: {refused:?}") };
        let found = problems.iter().find(|problem| problem.path == path && problem.code == code);
        let found = found.unwrap_or_else(|| panic!("{yaml}: {problems:#?}"));
        assert!(found.message.contains(says), "{}", found.message);
    }
}

#[test]
fn steps_that_cannot_follow_each_other_are_refused_with_their_place() {
    let a = "{ id: a, approvers: [{ user: ann }] }";
    all_refused([
        (of_steps("[]"), "steps", Code::NoSteps, "decides nothing"),
        (of_steps("[{ id: a, approvers: [] }]"), "steps[0].approvers", Code::NoApprovers, "nobody"),
        (of_steps("[{ id: 'a b', approvers: [{ user: x }] }]"), "steps[0].id", Code::BadName, "letters"),
        (
            of_steps("[{ id: a, approvers: [{ user: '' }] }]"),
            "steps[0].approvers[0]",
            Code::BadApprover,
            "1 to",
        ),
        (
            of_steps("[{ id: a, approvers: [{ user: x }, { user: x }] }]"),
            "steps[0].approvers[1]",
            Code::BadApprover,
            "twice",
        ),
        (of_steps(&format!("[{a}, {a}]")), "steps[1].id", Code::DuplicateStepId, "steps[0]"),
        (
            of_steps("[{ id: a, approvers: [{ user: x }] }, { id: b, level: 3, approvers: [{ user: x }] }]"),
            "steps[1].level",
            Code::LevelGap,
            "level 3 comes where 2 should",
        ),
        (with("level: 2"), "steps[0].level", Code::LevelGap, "level 2 comes where 1 should"),
        (with("depends_on: [zz]"), "steps[0].depends_on[0]", Code::UnknownDependency, "`zz`"),
        (with("depends_on: [a]"), "steps[0].depends_on[0]", Code::SelfDependency, "itself"),
        (
            of_steps(
                "[{ id: x, approvers: [{ user: u }] },
                  { id: a, approvers: [{ user: u }], depends_on: [x, c] },
                  { id: b, approvers: [{ user: u }], depends_on: [a] },
                  { id: c, approvers: [{ user: u }], depends_on: [b] }]",
            ),
            "steps[1].depends_on",
            Code::CircularDependency,
            "a → c → b → a",
        ),
        (
            of_steps(
                "[{ id: a, approvers: [{ user: u }], depends_on: [b] },
                  { id: b, level: 2, approvers: [{ user: u }] }]",
            ),
            "steps[0].depends_on[0]",
            Code::CircularDependency,
            "a → b (level 2) → a (level 1)",
        ),
    ]);
}

#[test]
fn quorums_and_conditions_that_cannot_be_answered_are_refused_with_their_place() {
    all_refused([
        (with("requirement: { quorum: { count: 0 } }"), "steps[0].requirement", Code::BadQuorum, "nobody"),
        (with("requirement: { quorum: { percent: 101 } }"), "steps[0].requirement", Code::BadQuorum, "101 %"),
        (
            with("requirement: { quorum: { count: 2 } }"),
            "steps[0].requirement",
            Code::QuorumUnreachable,
            "2 must agree, and 1 are asked",
        ),
        (with("type: conditional"), "steps[0].when", Code::MissingCondition, "needs one"),
        (
            with("when: { is: { field: x, op: exists } }"),
            "steps[0].when",
            Code::UselessCondition,
            "conditional",
        ),
        (with("skip_when: { all: [] }"), "steps[0].skip_when", Code::BadCondition, "nothing"),
        (
            with("skip_when: { any: [{ not: { is: { field: x, op: matches, value: '(' } } }] }"),
            "steps[0].skip_when.any[0].not.is",
            Code::BadCondition,
            "regular expression",
        ),
        (
            with("skip_when: { is: { field: x, op: between, value: [5, 1] } }"),
            "steps[0].skip_when.is",
            Code::BadCondition,
            "lower first",
        ),
        (
            with("skip_when: { is: { field: x, op: exists, value: 1 } }"),
            "steps[0].skip_when.is",
            Code::BadCondition,
            "takes no value",
        ),
        (
            with("skip_when: { is: { field: x, op: in, value: [] } }"),
            "steps[0].skip_when.is",
            Code::BadCondition,
            "not empty",
        ),
    ]);
}

#[test]
fn times_that_cannot_be_kept_are_refused_with_their_place() {
    all_refused([
        (with("sla: { due: 0 hours }"), "steps[0].sla.due", Code::BadSla, "longer than zero"),
        (with("sla: { due: 1 hour, warn_at: 100 }"), "steps[0].sla.warn_at", Code::BadSla, "1 to 99"),
        (
            with(
                "sla: { due: 1 hour, reminders: [{ after: 1 hour, repeat: { every: 0 hours, times: 1 } }] }",
            ),
            "steps[0].sla.reminders[0].repeat.every",
            Code::BadSla,
            "longer",
        ),
        (
            with("sla: { due: 1 hour, escalations: [{ after: 1 hour, action: { reassign: [] } }] }"),
            "steps[0].sla.escalations[0].action",
            Code::NoApprovers,
            "nobody",
        ),
        (
            with(
                "sla: { due: 1 hour, escalations: [{ after: 1 hour, action: auto_approve, repeat: { every: 1 hour, times: 2 } }] }",
            ),
            "steps[0].sla.escalations[0].action",
            Code::BadSla,
            "once",
        ),
        (with("sla: { due: 2 business_days }"), "steps[0].sla.due", Code::CalendarMissing, "calendar"),
        (
            format!(
                "{}sla: {{ due: 1 hour, escalations: [{{ after: 1 hour, action: auto_reject }}] }}\n",
                with("")
            ),
            "sla.escalations[0].action",
            Code::BadSla,
            "only notify",
        ),
        (
            format!("{}calendar: {{ zone: Mars/Base }}\n", with("")),
            "calendar.zone",
            Code::BadCalendar,
            "Mars/Base",
        ),
        (
            format!("{}calendar: {{ zone: UTC, week: {{ monday: ['17:00-09:00'] }} }}\n", with("")),
            "calendar.week.monday[0]",
            Code::BadCalendar,
            "17:00-09:00",
        ),
        (
            format!(
                "{}calendar: {{ zone: UTC, week: {{ monday: ['09:00-13:00', '12:00-17:00'] }} }}\n",
                with("")
            ),
            "calendar.week.monday[1]",
            Code::BadCalendar,
            "before",
        ),
        (
            format!("{}calendar: {{ zone: UTC, week: {{}} }}\n", with("")),
            "calendar.week",
            Code::BadCalendar,
            "ever",
        ),
        (
            format!("{}calendar: {{ zone: UTC, holidays: ['25.12.2026'] }}\n", with("")),
            "calendar.holidays",
            Code::BadCalendar,
            "25.12.2026",
        ),
    ]);
}

#[test]
fn every_problem_is_told_at_once_and_to_the_caller() {
    let yaml = of_steps("[{ id: a, approvers: [], depends_on: [zz], sla: { due: 0 hours } }]");
    let error = runtime_kernel::Error::from(Definition::parse(&yaml, Format::Yaml).unwrap_err());
    let places: Vec<_> = error.details().iter().map(|detail| detail.at.as_str()).collect();
    assert_eq!(places, ["steps[0].approvers", "steps[0].sla.due", "steps[0].depends_on[0]"]);
    assert!(error.details()[0].message.starts_with("NO_APPROVERS: "));
}

#[test]
fn text_that_is_no_definition_is_refused_with_its_place() {
    for (text, format, at, says) in [
        ("steps: [", Format::Yaml, "line 2", ""),
        ("a: 1\na: 2\n", Format::Yaml, "line 2", "twice"),
        ("a: *x\n", Format::Yaml, "line 1", ""),
        ("code: order\n", Format::Yaml, ".", "entity_type"),
        (&with("aprovers: []"), Format::Yaml, "steps[0].aprovers", "unknown field"),
        (&with("requirement: most"), Format::Yaml, "steps[0].requirement", "unknown variant"),
        (&with("sla: { due: 3 }"), Format::Yaml, "steps[0].sla.due", "string"),
        (&with("sla: { due: 3 fortnights }"), Format::Yaml, "steps[0].sla.due", "business_days"),
        ("{", Format::Json, "line 1", ""),
        ("{\"code\": 1}", Format::Json, "code", "string"),
    ] {
        let refused = Definition::parse(text, format);
        let Err(WorkflowError::Unreadable { at: found, why }) = refused else {
            panic!("{text}: {refused:?}")
        };
        assert!(found == at && why.contains(says), "{text}: {found}: {why}");
    }
    let bomb = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, n| {
        let before = format!("*a{}", n - 1);
        format!("{text}a{n}: &a{n} [{}]\n", vec![before; 10].join(","))
    });
    let refused = Definition::parse(&bomb, Format::Yaml).unwrap_err();
    assert!(refused.to_string().contains("more than 100000 values"), "{refused}");
    let large = "x".repeat((1 << 20) + 1);
    assert!(matches!(Definition::parse(&large, Format::Yaml), Err(WorkflowError::TooLarge { .. })));
}

#[test]
fn yaml_and_json_say_the_same() {
    let yaml = format!(
        "{}calendar: {{ zone: Europe/Berlin }}\n",
        with("requirement: majority, sla: { due: 2 business_days }, fallback: [{ role: board }]")
    );
    let definition = Definition::parse(&yaml, Format::Yaml).unwrap();
    let json = serde_json::to_string(&definition).unwrap();
    assert_eq!(Definition::parse(&json, Format::Json).unwrap(), definition);
}

#[cfg(feature = "schema")]
#[test]
fn the_schema_names_what_can_be_written() {
    let schema = runtime_workflow::definition::schema();
    assert_eq!(schema["required"], json!(["code", "entity_type", "steps"]));
    let step = &schema["$defs"]["Step"];
    assert_eq!(step["additionalProperties"], json!(false));
    assert!(schema["$defs"]["Span"]["pattern"].as_str().unwrap().contains("business_"));
    let text = schema.to_string();
    for word in ["auto_reject", "not_contains", "quorum", "depends_on", "conditional", "dynamic"] {
        assert!(text.contains(word), "{word}");
    }
}

#[tokio::test]
async fn versions_are_drafted_activated_deprecated_and_retired() {
    use VersionState::{Active, Deprecated, Retired};

    let desk = Desk::new(&one_step("any", "[{ user: ann }]")).await;
    let chief = person("acme", "chief", &["workflow:define"]);
    let first = desk.start(json!({})).await;
    let second = Definition::parse(&one_step("all", "[{ user: ben }, { user: cem }]"), Format::Yaml).unwrap();
    let w = &desk.workflows;
    let version = w.register(&chief, second).await.unwrap();
    assert_eq!((version.number, version.state), (2, VersionState::Draft));
    w.activate(&chief, "order", 2).await.unwrap();

    let differences = w.diff(&chief, "order", 1, 2).await.unwrap();
    let requirement = differences.iter().find(|d| d.path == "steps.a.requirement").unwrap();
    assert_eq!(requirement.change, Change::Changed { from: json!("any"), to: json!("all") });
    assert!(requirement.breaking && differences.len() == 2, "{differences:#?}");

    // What runs goes on as it was started.
    assert_eq!(desk.approve("ann", first.id).await.version, 1);
    assert_eq!(desk.start(json!({})).await.version, 2);

    let states = async || {
        let versions = w.versions(&chief, &VersionFilter::default()).await.unwrap();
        versions.iter().map(|version| (version.number, version.state)).collect::<Vec<_>>()
    };
    assert_eq!(states().await, [(2, Active), (1, Deprecated)]);
    w.activate(&chief, "order", 1).await.unwrap();
    assert_eq!(states().await, [(2, Deprecated), (1, Active)]);
    w.retire(&chief, "order", 2).await.unwrap();
    assert_eq!(states().await, [(2, Retired), (1, Active)]);
    assert!(matches!(w.activate(&chief, "order", 2).await, Err(WorkflowError::VersionState { .. })));
    assert!(matches!(w.activate(&chief, "order", 7).await, Err(WorkflowError::NoVersion { .. })));
    w.retire(&chief, "order", 1).await.unwrap();
    let none = w.start(&person("acme", "rita", &[]), StartRequest::new("order", "e-9", json!({}))).await;
    assert!(matches!(none, Err(WorkflowError::NoDefinition(_))), "{none:?}");
    let nobody = person("acme", "rita", &["workflow:admin"]);
    assert!(matches!(w.activate(&nobody, "order", 1).await, Err(WorkflowError::NotGranted { .. })));
}

#[tokio::test]
async fn the_definition_that_fits_best_is_taken_and_the_tenants_before_the_houses() {
    let desk = Desk::new(&one_step("any", "[{ user: ann }]")).await;
    let chief = person("acme", "chief", &["workflow:define"]);
    let w = &desk.workflows;
    let large = "code: large\nentity_type: order\npriority: 5\nwhen: { is: { field: amount, op: gte, value: 1000 } }\nsteps: [{ id: b, approvers: [{ user: ben }] }]\n";
    let large = Definition::parse(large, Format::Yaml).unwrap();
    w.register(&chief, large).await.unwrap();
    w.activate(&chief, "large", 1).await.unwrap();
    let house = Definition::parse(&one_step("any", "[{ user: house }]"), Format::Yaml).unwrap();
    for _ in 0..2 {
        w.install(house.clone()).await.unwrap();
    }
    let start = async |tenant: &str, entity: serde_json::Value| {
        let request = StartRequest {
            entity_type: Some("order".to_owned()),
            entity_id: format!("{tenant}-{entity}"),
            entity,
            ..StartRequest::default()
        };
        w.start(&person(tenant, "rita", &[]), request).await
    };
    assert_eq!(start("acme", amount(5)).await.unwrap().definition, "order");
    assert_eq!(start("acme", amount(5000)).await.unwrap().definition, "large");
    assert_eq!(start("globex", amount(5000)).await.unwrap().steps[0].seats[0].holder, "house");
    let unanswered = start("acme", amount(5)).await;
    assert!(matches!(unanswered, Err(WorkflowError::ActiveInstance(_))));
    let mistyped = start("acme", json!({ "amount": "5000" })).await;
    assert!(matches!(mistyped, Err(WorkflowError::Condition(_))), "{mistyped:?}");
}
