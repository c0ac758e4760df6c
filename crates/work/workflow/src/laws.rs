//! What every [`WorkflowStore`] promises, stated once. Each law takes an empty store and panics when broken.

use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::{ManualClock, Timestamp};
use serde_json::{Value, json};

use crate::decide::{Start, begin};
use crate::definition::{Definition, Version, VersionState};
use crate::event::Event;
use crate::instance::{Instance, InstanceId, Priority, Status};
use crate::store::{Change, InstanceFilter, Mark, Standing, VersionFilter, WorkflowStore};
use crate::timer::Purpose;
use crate::{Action, Actor, Command, decide};

/// Every law, each on a store of its own.
pub async fn all<S, F>(mut fresh: F)
where
    S: WorkflowStore,
    F: AsyncFnMut() -> S,
{
    what_is_created_is_loaded(&fresh().await).await;
    an_entity_has_one_running_instance(Arc::new(fresh().await)).await;
    of_writers_from_one_revision_one_writes(Arc::new(fresh().await)).await;
    an_action_is_remembered(&fresh().await).await;
    tasks_follow_the_instance_and_the_most_urgent_comes_first(&fresh().await).await;
    what_is_due_is_listed_in_order(&fresh().await).await;
    a_definition_has_one_active_version(Arc::new(fresh().await)).await;
    lists_keep_to_tenant_filter_and_page(&fresh().await).await;
}

fn definition() -> Definition {
    let value = json!({
        "code": "order", "entity_type": "order",
        "steps": [{ "id": "a", "requirement": "any", "sla": { "due": "2 hours" },
                    "approvers": [{ "user": "ann" }, { "user": "ben \u{e9} \"x\"" }] }],
    });
    serde_json::from_value(value).unwrap()
}

fn start(tenant: &str, entity: &str) -> Start {
    Start {
        id: InstanceId::new(&ManualClock::new()),
        tenant: tenant.to_owned(),
        version: 1,
        entity_id: entity.to_owned(),
        entity: json!({ "amount": 5, "text": "\u{1f600} '; --" }),
        metadata: Value::Null,
        requester: "rita".to_owned(),
        priority: Priority::Normal,
        context: None,
    }
}

/// A running instance whose approvers have been asked at `now`.
fn begun(start: Start, now: Timestamp) -> Change {
    let definition = definition();
    let people = vec!["ann".to_owned(), "ben \u{e9} \"x\"".to_owned()];
    let (instance, mut events) = begin(&definition, start, now).unwrap();
    let found = Command::Found { step: Some("a".to_owned()), purpose: Purpose::Seats, people };
    let (instance, more) = decide(&definition, &instance, found, now).unwrap();
    events.extend(more);
    Change { from: 0, instance, events, mark: None }
}

fn next(from: &Instance, who: &str, action: Action, now: Timestamp) -> Change {
    let command = Command::Act { by: Actor::new(who), action };
    let (instance, events) = decide(&definition(), from, command, now).unwrap();
    Change { from: from.revision, instance, events, mark: None }
}

fn comment(text: &str) -> Action {
    Action::Comment { text: text.to_owned() }
}

async fn history(store: &dyn WorkflowStore, instance: &Instance) -> Vec<Event> {
    store.events(&instance.tenant, instance.id, 0, 1000).await.unwrap()
}

async fn what_is_created_is_loaded(store: &dyn WorkflowStore) {
    let change = begun(start("t", "e"), store.now().await.unwrap());
    let instance = &change.instance;
    assert!(store.load("t", instance.id, None).await.unwrap().is_none());
    assert_eq!(store.create(&definition(), &change).await.unwrap(), None);
    let loaded = store.load("t", instance.id, None).await.unwrap().unwrap();
    assert_eq!((&loaded.instance, &*loaded.definition), (instance, &definition()));
    assert_eq!(history(store, instance).await, change.events);
    assert!(store.load("u", instance.id, None).await.unwrap().is_none(), "another tenant's");
    let page = store.events("t", instance.id, 1, 2).await.unwrap();
    assert_eq!(page.iter().map(|event| event.number).collect::<Vec<_>>(), [2, 3]);
}

async fn an_entity_has_one_running_instance<S: WorkflowStore>(store: Arc<S>) {
    let now = store.now().await.unwrap();
    let creators: Vec<_> = (0..16)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let change = begun(start("t", "e"), now);
                (change.clone(), store.create(&definition(), &change).await.unwrap())
            })
        })
        .collect();
    let (mut created, mut others) = (Vec::new(), Vec::new());
    for creator in creators {
        match creator.await.unwrap() {
            (change, None) => created.push(change),
            (_, Some(other)) => others.push(other),
        }
    }
    let [created] = created.as_slice() else { panic_with(created.len()) };
    assert!(others.len() == 15 && others.iter().all(|other| *other == created.instance.id));
    assert_eq!(store.create(&definition(), &begun(start("u", "e"), now)).await.unwrap(), None);
    let ended = next(&created.instance, "rita", Action::Withdraw { reason: None }, now);
    assert!(store.commit(&ended).await.unwrap());
    assert_eq!(store.create(&definition(), &begun(start("t", "e"), now)).await.unwrap(), None);
}

#[expect(clippy::panic, reason = "a broken law fails by panicking")]
fn panic_with(created: usize) -> ! {
    panic!("{created} instances were created")
}

async fn of_writers_from_one_revision_one_writes<S: WorkflowStore>(store: Arc<S>) {
    let now = store.now().await.unwrap();
    let mut change = begun(start("t", "e"), now);
    store.create(&definition(), &change).await.unwrap();
    let mut expected = change.events.clone();
    for _ in 0..4 {
        let writers: Vec<_> = (0..8)
            .map(|nth| {
                let store = Arc::clone(&store);
                let own = next(&change.instance, "ann", comment(&nth.to_string()), now);
                tokio::spawn(async move { store.commit(&own).await.unwrap().then_some(own) })
            })
            .collect();
        let mut wrote = Vec::new();
        for writer in writers {
            wrote.extend(writer.await.unwrap());
        }
        assert_eq!(wrote.len(), 1);
        change = wrote.remove(0);
        expected.extend(change.events.clone());
    }
    assert_eq!(history(&*store, &change.instance).await, expected, "what lost has left nothing");
    let mut stranger = change.clone();
    "u".clone_into(&mut stranger.instance.tenant);
    assert!(!store.commit(&stranger).await.unwrap());
}

async fn an_action_is_remembered(store: &dyn WorkflowStore) {
    let now = store.now().await.unwrap();
    let created = begun(start("t", "e"), now);
    store.create(&definition(), &created).await.unwrap();
    let id = created.instance.id;
    let mut change = next(&created.instance, "ann", comment("x"), now);
    change.mark = Some(Mark { id: "m-1".to_owned(), fingerprint: "f".to_owned() });
    assert!(store.commit(&change).await.unwrap());
    for (action, done) in [(Some("m-1"), Some("f".to_owned())), (Some("m-2"), None), (None, None)] {
        assert_eq!(store.load("t", id, action).await.unwrap().unwrap().done, done);
    }
}

async fn tasks_follow_the_instance_and_the_most_urgent_comes_first(store: &dyn WorkflowStore) {
    let now = store.now().await.unwrap();
    let hours = |hours: u64| now.checked_sub(Duration::from_hours(hours)).unwrap();
    // Overdue; soon due; urgent but fresh; fresh.
    let mut changes = Vec::new();
    for (entity, at, priority) in [
        ("fresh", hours(0), Priority::Normal),
        ("soon", now.checked_sub(Duration::from_mins(110)).unwrap(), Priority::Normal),
        ("urgent", hours(0), Priority::Urgent),
        ("late", hours(3), Priority::Low),
    ] {
        let change = begun(Start { priority, ..start("t", entity) }, at);
        store.create(&definition(), &change).await.unwrap();
        changes.push(change);
    }
    let tasks = store.tasks("t", Some("ann"), 10).await.unwrap();
    let order: Vec<_> = tasks.iter().map(|(task, urgency)| (task.entity_id.as_str(), *urgency)).collect();
    assert_eq!(order, [("late", 100), ("urgent", 60), ("soon", 50), ("fresh", 0)]);
    assert_eq!(store.tasks("t", None, 1000).await.unwrap().len(), 8);
    assert_eq!(store.tasks("t", None, 3).await.unwrap().len(), 3);
    assert!(store.tasks("u", None, 10).await.unwrap().is_empty());
    assert_eq!(store.standing().await.unwrap(), Standing { open: 8, overdue: 2, parked: 0 });
    let done = next(&changes.remove(0).instance, "ann", Action::Approve { step: None, comment: None }, now);
    assert_eq!(done.instance.status, Status::Approved);
    store.commit(&done).await.unwrap();
    let left = store.tasks("t", Some("ben \u{e9} \"x\""), 10).await.unwrap();
    assert_eq!(left.len(), 3, "the task of the other is gone too");
}

async fn what_is_due_is_listed_in_order(store: &dyn WorkflowStore) {
    let now = store.now().await.unwrap();
    let mut expected = Vec::new();
    for hours in [5, 3, 4, 0] {
        let at = now.checked_sub(Duration::from_hours(hours)).unwrap();
        let change = begun(start("t", &hours.to_string()), at);
        store.create(&definition(), &change).await.unwrap();
        if hours > 0 {
            expected.push((change.instance.next_at().unwrap(), change.instance));
        }
    }
    expected.sort_by_key(|(at, _)| *at);
    let due = store.due(None, 10).await.unwrap();
    let ids = |instances: &[(Timestamp, Instance)]| instances.iter().map(|(_, i)| i.id).collect::<Vec<_>>();
    assert_eq!(due.iter().map(|due| due.id).collect::<Vec<_>>(), ids(&expected));
    let first = store.due(None, 1).await.unwrap();
    let rest = store.due(first.first(), 10).await.unwrap();
    assert_eq!((first.as_slice(), rest.as_slice()), due.split_at(1));
    // A stopped clock is not due, and neither is what has ended.
    let (held, ended) = (&expected.first().unwrap().1, &expected.last().unwrap().1);
    store.commit(&next(held, "ann", Action::Hold { reason: "x".to_owned() }, now)).await.unwrap();
    store.commit(&next(ended, "rita", Action::Withdraw { reason: None }, now)).await.unwrap();
    assert_eq!(store.due(None, 10).await.unwrap().len(), 1);
}

async fn a_definition_has_one_active_version<S: WorkflowStore>(store: Arc<S>) {
    use VersionState::{Active, Deprecated, Draft};
    let at = store.now().await.unwrap();
    let version = |number| Version { number, state: Draft, definition: definition(), by: "x".to_owned(), at };
    for number in [1, 2, 3] {
        assert!(store.add_version("t", &version(number)).await.unwrap());
    }
    assert!(!store.add_version("t", &version(2)).await.unwrap(), "the number is taken");
    assert!(store.add_version("u", &version(2)).await.unwrap());
    let activators: Vec<_> = [1, 2, 3, 1, 2, 3]
        .into_iter()
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.set_state("t", "order", number, Draft, Active).await.unwrap() })
        })
        .collect();
    for activator in activators {
        activator.await.unwrap();
    }
    let filter = VersionFilter { code: Some("order".to_owned()), ..VersionFilter::default() };
    let states: Vec<_> = store.versions("t", &filter).await.unwrap().iter().map(|v| v.state).collect();
    assert_eq!(states.iter().filter(|state| **state == Active).count(), 1, "{states:?}");
    let all = store.versions("t", &VersionFilter::default()).await.unwrap();
    assert_eq!(all.iter().map(|version| version.number).collect::<Vec<_>>(), [3, 2, 1]);
    assert!(!store.set_state("t", "order", 9, Draft, Active).await.unwrap());
    let active = all.iter().find(|version| version.state == Active).unwrap().number;
    assert!(store.set_state("t", "order", active, Active, Deprecated).await.unwrap());
    let filter = VersionFilter { state: Some(Active), ..VersionFilter::default() };
    assert!(store.versions("t", &filter).await.unwrap().is_empty());
    let other = VersionFilter { entity_type: Some("other".to_owned()), ..VersionFilter::default() };
    assert!(store.versions("t", &other).await.unwrap().is_empty());
    assert_eq!(all.first().map(|version| &version.definition), Some(&definition()));
}

async fn lists_keep_to_tenant_filter_and_page(store: &dyn WorkflowStore) {
    let now = store.now().await.unwrap();
    let mut ids = Vec::new();
    for (tenant, entity, requester) in [("t", "1", "rita"), ("t", "2", "sam"), ("u", "1", "rita")] {
        let change = begun(Start { requester: requester.to_owned(), ..start(tenant, entity) }, now);
        store.create(&definition(), &change).await.unwrap();
        ids.push(change.instance.id);
    }
    let list = async |filter: InstanceFilter| {
        let found = store.instances("t", &filter).await.unwrap();
        found.iter().map(|instance| instance.entity_id.clone()).collect::<Vec<_>>()
    };
    let none = InstanceFilter::default;
    assert_eq!(list(none()).await, ["2", "1"]);
    assert_eq!(list(InstanceFilter { requester: Some("sam".to_owned()), ..none() }).await, ["2"]);
    assert_eq!(list(InstanceFilter { status: Some(Status::Approved), ..none() }).await, [""; 0]);
    assert_eq!(
        list(InstanceFilter { status: Some(Status::InProgress), limit: Some(1), ..none() }).await,
        ["2"]
    );
    assert_eq!(list(InstanceFilter { before: ids.get(1).copied(), ..none() }).await, ["1"]);
    assert_eq!(list(InstanceFilter { parked: Some(true), ..none() }).await, [""; 0]);
    assert_eq!(
        list(InstanceFilter { parked: Some(false), entity_id: Some("1".to_owned()), ..none() }).await,
        ["1"]
    );
    assert_eq!(list(InstanceFilter { entity_type: Some("other".to_owned()), ..none() }).await, [""; 0]);
}
