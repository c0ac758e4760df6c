//! What the tests stand on: a desk in memory whose clock the test moves, and people who act at it.

use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::{
    Clock, Context, ManualClock, Name, Principal, PrincipalKind, SharedClock, Source, TenantContext,
};
use runtime_workflow::definition::Format;
use runtime_workflow::store::WorkflowStore;
use runtime_workflow::{
    Action, Definition, Event, Guard, Instance, InstanceId, MemoryWorkflows, Order, StartRequest,
    StaticApprovers, Status, StepStatus, What, WorkflowConfig, WorkflowError, Workflows,
};
use serde_json::{Value, json};

/// Somebody of a tenant, with scopes.
pub fn person(tenant: &str, id: &str, scopes: &[&str]) -> Context {
    let mut principal = Principal::new(PrincipalKind::User, id);
    principal.scopes = scopes.iter().map(|scope| Arc::from(*scope)).collect();
    let tenant = TenantContext::tenant(Name::new("main").unwrap(), Name::new(tenant).unwrap());
    Context::new(Source::Http, &ManualClock::new()).with_principal(principal).with_tenant(tenant)
}

pub struct Desk {
    pub clock: ManualClock,
    pub workflows: Workflows,
}

pub fn people() -> StaticApprovers {
    StaticApprovers::new()
        .role("board", ["ann", "ben", "cem"])
        .role("empty", Vec::<String>::new())
        .group("finance", ["fay", "gus"])
        .role("only_rita", ["rita"])
}

impl Desk {
    pub async fn new(yaml: &str) -> Self {
        let clock = ManualClock::new();
        Self::over(Arc::new(MemoryWorkflows::new(Arc::new(clock.clone()))), clock, yaml).await
    }

    pub async fn over(store: Arc<dyn WorkflowStore>, clock: ManualClock, yaml: &str) -> Self {
        let shared: SharedClock = Arc::new(clock.clone());
        let workflows = Workflows::new(store, Arc::new(people()), WorkflowConfig::default(), shared);
        let chief = person("acme", "chief", &["workflow:*"]);
        let definition = Definition::parse(yaml, Format::Yaml).unwrap();
        let version = workflows.register(&chief, definition).await.unwrap();
        workflows.activate(&chief, &version.definition.code, version.number).await.unwrap();
        Self { clock, workflows }
    }

    /// `rita` asks for entity `e-1`.
    pub async fn start(&self, entity: Value) -> Instance {
        let request = StartRequest::new("order", "e-1", entity);
        self.workflows.start(&person("acme", "rita", &[]), request).await.unwrap()
    }

    pub async fn act(&self, who: &str, id: InstanceId, action: Action) -> Result<Instance, WorkflowError> {
        self.workflows.act(&person("acme", who, &[]), id, action, &Guard::default()).await
    }

    pub async fn approve(&self, who: &str, id: InstanceId) -> Instance {
        self.act(who, id, approve()).await.unwrap()
    }

    pub async fn reject(&self, who: &str, id: InstanceId) -> Instance {
        self.act(who, id, reject()).await.unwrap()
    }

    pub async fn order(&self, id: InstanceId, order: Order) -> Result<Instance, WorkflowError> {
        let chief = person("acme", "chief", &["workflow:admin"]);
        self.workflows.order(&chief, id, order, "because", &Guard::default()).await
    }

    pub async fn get(&self, id: InstanceId) -> Instance {
        self.workflows.get(&person("acme", "rita", &[]), id).await.unwrap()
    }

    pub async fn history(&self, id: InstanceId) -> Vec<Event> {
        self.workflows.history(&person("acme", "rita", &[]), id, 0, 1000).await.unwrap()
    }

    /// Lets time pass and what is due happen.
    pub async fn wait(&self, by: Duration) -> u64 {
        self.clock.advance(by);
        self.workflows.run_due().await.unwrap()
    }

    pub fn in_hours(&self, hours: u64) -> runtime_kernel::Timestamp {
        self.clock.utc().checked_add(Duration::from_hours(hours)).unwrap()
    }
}

pub fn approve() -> Action {
    Action::Approve { step: None, comment: None }
}

pub fn approve_in(step: &str) -> Action {
    Action::Approve { step: Some(step.to_owned()), comment: None }
}

pub fn reject() -> Action {
    Action::Reject { step: None, reason: "no".to_owned() }
}

/// Where the steps stand, in order.
pub fn steps(instance: &Instance) -> Vec<StepStatus> {
    instance.steps.iter().map(|step| step.status).collect()
}

pub fn stands(instance: &Instance, status: Status, of_steps: &[StepStatus]) {
    assert_eq!((instance.status, steps(instance)), (status, of_steps.to_vec()), "{instance:#?}");
}

/// How many events of a kind there are.
pub fn count(events: &[Event], kind: fn(&What) -> bool) -> usize {
    events.iter().filter(|event| kind(&event.what)).count()
}

/// One step with these approvers and this requirement.
pub fn one_step(requirement: &str, approvers: &str) -> String {
    format!(
        "code: order\nentity_type: order\nsteps:\n  - id: a\n    requirement: {requirement}\n    approvers: {approvers}\n"
    )
}

pub fn amount(amount: i64) -> Value {
    json!({ "amount": amount })
}
