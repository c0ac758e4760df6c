//! A thousand requests decided by racing people over two handles on one real database.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use runtime_kernel::SystemClock;
use runtime_workflow::definition::Format;
use runtime_workflow::store::WorkflowStore;
use runtime_workflow::{
    Definition, Guard, MemoryWorkflows, StartRequest, Status, What, WorkflowConfig, WorkflowError, Workflows,
};
use serde_json::json;

use super::desk::*;

const PEOPLE: [&str; 5] = ["p0", "p1", "p2", "p3", "p4"];

/// Each request needs three of five; all five try at once, two of them twice under one action id, over either
/// handle.
async fn race(store: Arc<dyn WorkflowStore>, instances: usize) {
    let people: Vec<String> = PEOPLE.iter().map(|person| format!("{{ user: {person} }}")).collect();
    let yaml = one_step("{ quorum: { count: 3 } }", &format!("[{}]", people.join(", ")));
    let handle = || {
        let (config, clock) = (WorkflowConfig::default(), SystemClock::shared());
        Workflows::new(Arc::clone(&store), Arc::new(super::desk::people()), config, clock)
    };
    let handles = Arc::new([handle(), handle()]);
    let chief = person("acme", "chief", &["workflow:*"]);
    let version = handles[0].register(&chief, Definition::parse(&yaml, Format::Yaml).unwrap()).await.unwrap();
    handles[1].activate(&chief, "order", version.number).await.unwrap();

    let start = |nth: usize| {
        let handles = Arc::clone(&handles);
        async move {
            let request = || StartRequest::new("order", format!("e-{nth}"), json!({}));
            let rita = person("acme", "rita", &[]);
            // Both start it; one is told of the other's.
            let (a, b) = tokio::join!(handles[0].start(&rita, request()), handles[1].start(&rita, request()));
            match (a, b) {
                (Ok(one), Err(WorkflowError::ActiveInstance(id)))
                | (Err(WorkflowError::ActiveInstance(id)), Ok(one)) => {
                    assert_eq!(one.id, id);
                    id
                }
                other => panic!("{other:?}"),
            }
        }
    };
    let ids: Vec<_> =
        futures_util::stream::iter((0..instances).map(start)).buffer_unordered(16).collect().await;

    let decisions = ids.iter().flat_map(|id| [0, 2, 4, 6, 8, 1, 3].into_iter().map(|nth| (*id, nth)));
    let decide = |(id, nth): (_, usize)| {
        let handles = Arc::clone(&handles);
        async move {
            let who = PEOPLE[nth / 2];
            let once = Guard::once(format!("{who}-says-yes"));
            let done = handles[nth % 2].act(&person("acme", who, &[]), id, approve(), &once).await;
            match done {
                Ok(_) => (id, who, true),
                Err(WorkflowError::Ended(Status::Approved)) => (id, who, false),
                Err(other) => panic!("{other}"),
            }
        }
    };
    let taken: Vec<_> =
        futures_util::stream::iter(decisions.map(decide)).buffer_unordered(32).collect().await;

    let rita = person("acme", "rita", &[]);
    let mut counted: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for (id, who, taken) in taken {
        let voices = counted.entry(id).or_default();
        if taken && !voices.contains(&who) {
            voices.push(who);
        }
    }
    for id in ids {
        let instance = handles[0].get(&rita, id).await.unwrap();
        assert_eq!(instance.status, Status::Approved);
        let told = handles[1].history(&rita, id, 0, 1000).await.unwrap();
        assert!(told.iter().zip(1..).all(|(event, number)| event.number == number), "{told:#?}");
        assert_eq!(told.len() as u64, instance.events, "no update was lost");
        let mut voices: Vec<_> = told
            .iter()
            .filter(|event| matches!(event.what, What::DecisionApproved { .. }))
            .map(|event| event.by.clone().unwrap())
            .collect();
        voices.sort_unstable();
        let counted = counted.get_mut(&id).unwrap();
        counted.sort_unstable();
        // Exactly those who were told that their decision was taken, each once, and no more than were needed.
        assert_eq!((&voices, voices.len()), (&counted.iter().map(ToString::to_string).collect(), 3));
        assert_eq!(count(&told, |what| matches!(what, What::Approved)), 1);
        // Start and seats, and one revision for each decision.
        assert_eq!(instance.revision, 2 + 3);
    }
    assert!(handles[0].work_queue(&chief, 1000).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_are_decided_once_each_in_memory() {
    race(Arc::new(MemoryWorkflows::new(SystemClock::shared())), 1000).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_are_decided_once_each_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let db = super::stores::sqlite(&folder, runtime_kernel::ManualClock::new()).await;
    race(Arc::new(runtime_workflow::SqlWorkflows::new(db)), 1000).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_are_decided_once_each_in_postgres() {
    let (db, _database) = super::stores::postgres().await;
    race(Arc::new(runtime_workflow::SqlWorkflows::new(db)), 1000).await;
}
