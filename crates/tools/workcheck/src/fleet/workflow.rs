//! Approvals that two processes decide at the same time, while time passes for some of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use runtime_db::Database;
use runtime_kernel::{Clock as _, Context, Principal, PrincipalKind, SharedClock, Source, SystemClock};
use runtime_workflow::definition::Format;
use runtime_workflow::{
    Action, Definition, Guard, InstanceId, SqlWorkflows, StartRequest, StaticApprovers, WorkflowConfig,
    WorkflowError, Workflows, keep_time,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::check::{Decided, judge_workflows};
use super::{Broken, Event, FleetSettings, Outcome, QUIET, Stage};
use crate::check::{Promise, Violation};
use crate::error::WorkcheckError;
use crate::history::{self, History, Record};
use crate::role::{Part, Process};

/// Two of three; then, for some, somebody who never decides, until that is noticed.
const DEFINITION: &str = "
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
    approvers: [{ user: sleeper }]
    sla:
      due: 1 second
      escalations: [{ after: 1 second, action: { reassign: [{ user: cfo }] } }]
";

/// Who decides, in either process.
const PEOPLE: [&str; 4] = ["p0", "p1", "p2", "cfo"];

/// How many each looks at in one turn.
const PAGE: u32 = 40;

/// What a process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkflowPart {
    /// How it is broken.
    pub broken: Broken,
}

fn over(db: &Database, clock: SharedClock) -> Workflows {
    let mut config = WorkflowConfig::default();
    config.tick = Duration::from_millis(200);
    let store = Arc::new(SqlWorkflows::new(db.clone()));
    Workflows::new(store, Arc::new(StaticApprovers::new()), config, clock)
}

fn who(id: &str) -> Context {
    Context::new(Source::Internal, &SystemClock).with_principal(Principal::new(PrincipalKind::User, id))
}

fn is_late(number: usize) -> bool {
    number % 4 == 1
}

pub(crate) async fn run_workflows(
    part: &WorkflowPart,
    process: Process,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), WorkcheckError> {
    let workflows = over(&process.db, process.clock);
    let decide = async {
        loop {
            for person in PEOPLE {
                decide(&workflows, person, part.broken, &process.history).await;
            }
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = keep_time(&workflows, stop) => {}
        () = decide => {}
    }
    Ok(())
}

/// What one person is asked, all at once; the other process does the same.
async fn decide(workflows: &Workflows, person: &str, broken: Broken, history: &History) {
    let context = who(person);
    // The database is there all the time; what fails is asked again.
    let Ok(asked) = workflows.inbox(&context, PAGE).await else { return };
    let act = async |task: runtime_workflow::Task| {
        let once = Guard::once(format!("{person} about {}", task.step));
        let approve = Action::Approve { step: Some(task.step), comment: None };
        let told = || {
            if let Some(number) = number_of(&task.entity_id) {
                history.saw(Event::Decided { number, who: person.to_owned() });
            }
        };
        if broken == Broken::Hasty {
            told();
            // The others are enough: what this one was told is never to be found.
            if person == PEOPLE[0] {
                return;
            }
        }
        match workflows.act(&context, task.instance, approve, &once).await {
            Ok(_) => told(),
            // Others were enough, or first.
            Err(
                WorkflowError::Ended(_)
                | WorkflowError::StepState { .. }
                | WorkflowError::NotAssigned(_)
                | WorkflowError::Contended,
            ) => {}
            Err(error) => eprintln!("{person}: {error}"),
        }
    };
    stream::iter(asked.into_iter().map(|item| item.task)).for_each_concurrent(8, act).await;
}

fn number_of(entity: &str) -> Option<usize> {
    entity.strip_prefix("order-")?.parse().ok()
}

/// Runs a whole check.
///
/// # Errors
/// What kept it from being made; what it found is its outcome.
pub async fn workflows(settings: &FleetSettings) -> Result<Outcome, WorkcheckError> {
    let mut stage = Stage::set(settings, "workflows", runtime_workflow::migrations::SET).await?;
    let workflows = over(&stage.db, SystemClock::shared());
    workflows.install(Definition::parse(DEFINITION, Format::Yaml)?).await?;
    stage.populate(settings.processes, &Part::Workflows(WorkflowPart { broken: settings.broken }))?;
    let rita = who("rita");
    let begin = async |number: usize| {
        let entity = json!({ "late": is_late(number) });
        let request = StartRequest::new("purchase", format!("order-{number}"), entity);
        Ok::<_, WorkcheckError>((number, workflows.start(&rita, request).await?.id))
    };
    let started = stream::iter(0..settings.instances).map(begin).buffer_unordered(8);
    let started = started.try_collect::<Vec<(usize, InstanceId)>>();
    let started = stage.strike_during(settings.faults, started).await?;
    let mut open: Vec<InstanceId> = started.iter().map(|(_, id)| *id).collect();
    while !open.is_empty() && stage.gone() < settings.duration + QUIET {
        stage.strike(settings.faults && stage.gone() < settings.duration).await?;
        let look = async |id: InstanceId| {
            let ended = workflows.get(&rita, id).await?.status.is_end();
            Ok::<_, WorkcheckError>((id, ended))
        };
        let looked: Vec<_> = stream::iter(open).map(look).buffer_unordered(8).try_collect().await?;
        open = looked.into_iter().filter(|(_, ended)| !ended).map(|(id, _)| id).collect();
    }
    let mut outcome = Outcome { instances: settings.instances, took: stage.gone(), ..Outcome::default() };
    (outcome.killed, outcome.frozen) = (stage.herd.killed, stage.herd.frozen);
    let stuck = stage.herd.stop().await?;
    let records: Vec<Record<Event>> = history::read(&stage.folder)?;
    let mut told: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for Record { event: Event::Decided { number, who }, .. } in records {
        outcome.repeated += usize::from(!told.entry(number).or_default().insert(who));
    }
    let read = async |(number, id): (usize, InstanceId)| {
        let (instance, events) =
            (workflows.get(&rita, id).await?, workflows.history(&rita, id, 0, 1000).await?);
        let told = told.get(&number).cloned().unwrap_or_default();
        Ok::<_, WorkcheckError>(Decided { instance, events, told, late: is_late(number) })
    };
    let all: Vec<_> = stream::iter(started).map(read).buffer_unordered(8).try_collect().await?;
    for Decided { instance, events, .. } in &all {
        *outcome.ended.entry(instance.status.as_str().to_owned()).or_default() += 1;
        outcome.effects += events.len();
    }
    outcome.violations = judge_workflows(&all);
    outcome.violations.extend(stuck.into_iter().map(|who| Violation::new(Promise::WorkersStop, who)));
    Ok(outcome)
}
