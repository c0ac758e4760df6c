//! The laws every store keeps, stated once and run on each.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::{Carried, Context, Name, Source, SystemClock, TenantContext, Timestamp};

use crate::catch_up::{CatchUp, catch_up};
use crate::error::CronError;
use crate::schedule::{Overlap, Schedule};
use crate::store::{
    Claim, ClaimedTick, Filter, Key, Origin, Put, ScheduleStore, Stored, TickRecord, TickState, Verdict,
};

/// A store under test, and a way to let its time pass.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The store, empty at first.
    fn store(&self) -> Arc<dyn ScheduleStore>;
    /// Lets so much of the store's time pass.
    async fn elapse(&self, by: Duration);
}

const LEASE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

fn carried(tenant: Option<&str>) -> Carried {
    let context = Context::new(Source::Internal, &SystemClock);
    let names = tenant.and_then(|tenant| Some((Name::new("main").ok()?, Name::new(tenant).ok()?)));
    let Some((realm, tenant)) = names else { return context.carry(&SystemClock) };
    context.with_tenant(TenantContext::tenant(realm, tenant)).carry(&SystemClock)
}

/// Fires every five minutes.
fn five(name: &str) -> Schedule {
    Schedule::new(name, "@every 300s", "act")
}

fn key(name: &str) -> Key {
    Key { tenant: String::new(), name: name.to_owned() }
}

async fn put(store: &dyn ScheduleStore, schedule: Schedule) -> Stored {
    let context = carried(None);
    let put = Put { schedule, origin: Origin::Api, context, expected: None, limit: 10 };
    store.put(put).await.expect("kept")
}

async fn get(store: &dyn ScheduleStore, name: &str) -> Stored {
    store.get(&key(name)).await.expect("read").expect("there")
}

async fn history(store: &dyn ScheduleStore, name: &str) -> Vec<TickRecord> {
    store.history(&key(name), 1000).await.expect("read")
}

async fn lead(store: &dyn ScheduleStore, holder: &str) -> Option<u64> {
    store.lead(holder, LEASE).await.expect("asked")
}

async fn plan(store: &dyn ScheduleStore, seen: &Stored) -> CatchUp {
    let now = store.look(10).await.expect("looked").now;
    let timetable = seen.schedule.timetable("").expect("valid");
    catch_up(&seen.schedule, &timetable, seen.next.expect("planned"), now)
}

/// Lets fire times pass until there is a tick, and adds it.
async fn make_due<H: Harness>(harness: &H, name: &str) -> Timestamp {
    let store = harness.store();
    harness.elapse(Duration::from_mins(5)).await;
    let leader = lead(&*store, "a").await.expect("leads");
    let seen = get(&*store, name).await;
    let plan = plan(&*store, &seen).await;
    assert!(store.advance(leader, &seen, &plan).await.expect("advanced"));
    *plan.fire.last().expect("a fire time has come")
}

async fn claim(store: &dyn ScheduleStore, name: &str, at: Timestamp) -> Claim {
    store.claim(&key(name), at, LEASE).await.expect("asked")
}

async fn claimed(store: &dyn ScheduleStore, name: &str, at: Timestamp) -> Box<ClaimedTick> {
    match claim(store, name, at).await {
        Claim::Claimed(claimed) => claimed,
        other => unreachable_claim(&other),
    }
}

#[expect(clippy::panic, reason = "a broken law fails by panicking")]
fn unreachable_claim(claim: &Claim) -> ! {
    panic!("expected a claim, got {claim:?}")
}

/// Runs every law, each on a store of its own.
pub async fn all<H: Harness>(make: impl AsyncFn() -> H) {
    what_is_kept_is_got(&make().await).await;
    only_a_change_of_its_times_moves_a_schedule(&make().await).await;
    a_revision_is_taken_once(&make().await).await;
    tenants_are_apart(&make().await).await;
    a_pause_holds_and_a_resume_begins_from_now(&make().await).await;
    one_leads_until_its_lease_runs_out(&make().await).await;
    a_deposed_leader_adds_nothing(&make().await).await;
    of_racing_leaders_one_adds_a_tick_and_of_racing_claimers_one_has_it(&make().await).await;
    a_late_report_is_refused(&make().await).await;
    a_lost_tick_is_tried_again_while_attempts_are_left(&make().await).await;
    a_retry_waits_and_a_wait_is_no_attempt(&make().await).await;
    overlap_decides_about_later_ticks(&make().await).await;
    a_trigger_fires_now_even_while_paused(&make().await).await;
    the_history_keeps_so_many(&make().await).await;
    what_is_removed_is_gone(&make().await).await;
}

async fn what_is_kept_is_got<H: Harness>(harness: &H) {
    let store = harness.store();
    assert_eq!(store.get(&key("a")).await.expect("read"), None);
    let schedule = five("a").payload(serde_json::json!({ "n": 1, "text": "é \"x\"" })).zone("Europe/Berlin");
    let stored = put(&*store, schedule.clone()).await;
    assert_eq!((stored.schedule.clone(), stored.revision, stored.paused), (schedule, 1, false));
    assert_eq!(get(&*store, "a").await, stored);
    let now = store.look(10).await.expect("looked").now;
    assert!(stored.next.is_some_and(|next| next > now));
    let invalid = Put {
        schedule: Schedule::new("b", "nonsense", "act"),
        origin: Origin::Api,
        context: carried(None),
        expected: None,
        limit: 10,
    };
    assert!(matches!(store.put(invalid).await, Err(CronError::Expression { .. })));
    for name in ["c", "b", "d"] {
        put(&*store, five(name)).await;
    }
    let names = async |filter: Filter| -> Vec<String> {
        store.list(&filter).await.expect("listed").into_iter().map(|stored| stored.key.name).collect()
    };
    assert_eq!(names(Filter::default()).await, ["a", "b", "c", "d"]);
    assert_eq!(names(Filter { after: Some(key("b")), limit: 1, ..Filter::default() }).await, ["c"]);
    assert_eq!(names(Filter { origin: Some(Origin::Config), ..Filter::default() }).await, [""; 0]);
}

async fn only_a_change_of_its_times_moves_a_schedule<H: Harness>(harness: &H) {
    let store = harness.store();
    let first = put(&*store, five("a")).await;
    harness.elapse(HOUR).await;
    // A restart keeps the same schedule again: what has come meanwhile is still due.
    let due = get(&*store, "a").await.next;
    assert_eq!(put(&*store, five("a")).await.next, due);
    assert_eq!(get(&*store, "a").await.revision, first.revision);
    let changed = put(&*store, five("a").attempts(1)).await;
    assert_eq!((changed.next, changed.revision), (due, 2));
    let moved = put(&*store, Schedule::new("a", "@every 600s", "act")).await;
    assert!(moved.next > due);
}

async fn a_revision_is_taken_once<H: Harness>(harness: &H) {
    let store = harness.store();
    let with = |attempts, expected| Put {
        schedule: five("a").attempts(attempts),
        origin: Origin::Api,
        context: carried(None),
        expected: Some(expected),
        limit: 1,
    };
    assert!(matches!(store.put(with(1, 1)).await, Err(CronError::Changed { found: 0, .. })));
    let racing = (1..=4).map(|attempts| {
        let (store, put) = (harness.store(), with(attempts, 0));
        tokio::spawn(async move { store.put(put).await })
    });
    let mut kept = 0;
    for task in racing.collect::<Vec<_>>() {
        match task.await.expect("ran") {
            Ok(_) => kept += 1,
            Err(error) => assert!(matches!(error, CronError::Changed { .. }), "{error}"),
        }
    }
    assert_eq!(kept, 1);
    let full =
        Put { schedule: five("b"), origin: Origin::Api, context: carried(None), expected: None, limit: 1 };
    assert!(matches!(store.put(full).await, Err(CronError::Full(1))));
}

async fn tenants_are_apart<H: Harness>(harness: &H) {
    let store = harness.store();
    let of = |tenant| Put {
        schedule: five("a"),
        origin: Origin::Api,
        context: carried(Some(tenant)),
        expected: None,
        limit: 1,
    };
    let (one, two) = (store.put(of("one")).await.expect("kept"), store.put(of("two")).await.expect("kept"));
    assert_ne!(one.key, two.key);
    assert_eq!(store.get(&key("a")).await.expect("read"), None);
    assert!(store.remove(&one.key).await.expect("removed"));
    let filter = Filter { tenant: Some(two.key.tenant.clone()), ..Filter::default() };
    assert_eq!(store.list(&filter).await.expect("listed"), [two]);
}

async fn a_pause_holds_and_a_resume_begins_from_now<H: Harness>(harness: &H) {
    let store = harness.store();
    put(&*store, five("a")).await;
    assert!(store.pause(&key("a"), true).await.expect("paused").paused);
    harness.elapse(HOUR).await;
    let look = store.look(10).await.expect("looked");
    assert!(look.due.is_empty());
    let resumed = store.pause(&key("a"), false).await.expect("resumed");
    assert!(!resumed.paused && resumed.next.is_some_and(|next| next > look.now));
    assert!(matches!(store.pause(&key("x"), true).await, Err(CronError::NotFound(_))));
}

async fn one_leads_until_its_lease_runs_out<H: Harness>(harness: &H) {
    let store = harness.store();
    let first = lead(&*store, "a").await.expect("leads");
    assert_eq!(lead(&*store, "b").await, None);
    harness.elapse(LEASE / 2).await;
    assert_eq!(lead(&*store, "a").await, Some(first), "extending is no change of hands");
    harness.elapse(LEASE * 2).await;
    let second = lead(&*store, "b").await.expect("leads");
    assert!(second > first);
    assert_eq!(lead(&*store, "a").await, None);
    store.resign("a").await.expect("nothing happens");
    assert_eq!(lead(&*store, "a").await, None);
    store.resign("b").await.expect("resigned");
    assert!(lead(&*store, "a").await.expect("leads") > second);
}

async fn a_deposed_leader_adds_nothing<H: Harness>(harness: &H) {
    let store = harness.store();
    put(&*store, five("a")).await;
    let old = lead(&*store, "a").await.expect("leads");
    harness.elapse(Duration::from_mins(5)).await;
    let seen = get(&*store, "a").await;
    let plan = plan(&*store, &seen).await;
    assert!(!store.advance(old, &seen, &plan).await.expect("asked"), "its lease has run out");
    lead(&*store, "b").await.expect("leads");
    assert!(!store.advance(old, &seen, &plan).await.expect("asked"), "another leads");
    assert!(history(&*store, "a").await.is_empty());
    assert_eq!(get(&*store, "a").await, seen);
}

async fn of_racing_leaders_one_adds_a_tick_and_of_racing_claimers_one_has_it<H: Harness>(harness: &H) {
    let store = harness.store();
    put(&*store, five("a")).await;
    harness.elapse(Duration::from_mins(5)).await;
    let leader = lead(&*store, "a").await.expect("leads");
    let seen = get(&*store, "a").await;
    let plan = plan(&*store, &seen).await;
    let racing = (0..8).map(|_| {
        let (store, seen, plan) = (harness.store(), seen.clone(), plan.clone());
        tokio::spawn(async move { store.advance(leader, &seen, &plan).await.expect("asked") })
    });
    let mut advanced = 0;
    for task in racing.collect::<Vec<_>>() {
        advanced += usize::from(task.await.expect("ran"));
    }
    assert_eq!(advanced, 1);
    let at = *plan.fire.last().expect("a fire time has come");
    assert_eq!(history(&*store, "a").await.len(), plan.fire.len() + usize::from(plan.missed > 0));
    let racing = (0..8).map(|_| {
        let store = harness.store();
        tokio::spawn(async move { matches!(claim(&*store, "a", at).await, Claim::Claimed(_)) })
    });
    let mut won = 0;
    for task in racing.collect::<Vec<_>>() {
        won += usize::from(task.await.expect("ran"));
    }
    assert_eq!(won, 1);
}

async fn a_late_report_is_refused<H: Harness>(harness: &H) {
    let store = harness.store();
    put(&*store, five("a")).await;
    let at = make_due(harness, "a").await;
    let first = claimed(&*store, "a", at).await;
    assert!(store.extend(&first, LEASE).await.expect("asked"));
    harness.elapse(LEASE * 2).await;
    assert!(!store.extend(&first, LEASE).await.expect("asked"), "a lease that ran out is not extended");
    let second = claimed(&*store, "a", at).await;
    assert_eq!((first.attempt, second.attempt), (1, 2));
    assert!(!store.finish(&first, Verdict::Done).await.expect("asked"));
    assert!(store.finish(&second, Verdict::Done).await.expect("asked"));
    assert!(!store.finish(&second, Verdict::Failed("again".to_owned())).await.expect("asked"));
    let record = history(&*store, "a").await.into_iter().find(|tick| tick.fire_time == at).expect("kept");
    assert_eq!((record.state, record.attempt), (TickState::Done, 2));
    assert!(matches!(claim(&*store, "a", at).await, Claim::Taken));
}

async fn a_lost_tick_is_tried_again_while_attempts_are_left<H: Harness>(harness: &H) {
    let store = harness.store();
    put(&*store, five("a").attempts(2)).await;
    let at = make_due(harness, "a").await;
    for _ in 0..2 {
        claimed(&*store, "a", at).await;
        harness.elapse(LEASE * 2).await;
        assert!(store.look(10).await.expect("looked").ready.iter().any(|ready| ready.fire_time == at));
    }
    assert!(matches!(claim(&*store, "a", at).await, Claim::Lost));
    let record = history(&*store, "a").await.into_iter().find(|tick| tick.fire_time == at).expect("kept");
    assert_eq!(record.state, TickState::Failed);
    assert!(record.note.is_some());
}

async fn a_retry_waits_and_a_wait_is_no_attempt<H: Harness>(harness: &H) {
    let store = harness.store();
    put(&*store, five("a")).await;
    let at = make_due(harness, "a").await;
    let first = claimed(&*store, "a", at).await;
    let verdict = Verdict::Retry(Duration::from_secs(30), "on purpose".to_owned());
    assert!(store.finish(&first, verdict).await.expect("asked"));
    assert!(matches!(claim(&*store, "a", at).await, Claim::Taken));
    let look = store.look(10).await.expect("looked");
    assert!(look.ready.is_empty() && look.wait.is_some_and(|wait| wait <= Duration::from_secs(30)));
    harness.elapse(Duration::from_secs(31)).await;
    let second = claimed(&*store, "a", at).await;
    assert_eq!(second.attempt, 2);
    assert!(store.finish(&second, Verdict::Waits(Duration::ZERO)).await.expect("asked"));
    assert_eq!(claimed(&*store, "a", at).await.attempt, 2);
}

async fn overlap_decides_about_later_ticks<H: Harness>(harness: &H) {
    let store = harness.store();
    for (name, overlap) in
        [("allow", Overlap::Allow), ("skip", Overlap::Skip), ("wait", Overlap::Wait { up_to: 1 })]
    {
        put(&*store, five(name).overlap(overlap)).await;
        let first = make_due(harness, name).await;
        let running = store.claim(&key(name), first, HOUR).await.expect("asked");
        let Claim::Claimed(running) = running else { unreachable_claim(&running) };
        let (second, third) = (make_due(harness, name).await, make_due(harness, name).await);
        let (second_claim, third_claim) =
            (claim(&*store, name, second).await, claim(&*store, name, third).await);
        match overlap {
            Overlap::Allow => {
                assert!(
                    matches!(second_claim, Claim::Claimed(_)) && matches!(third_claim, Claim::Claimed(_))
                );
            }
            Overlap::Skip => {
                assert!(matches!(second_claim, Claim::Skipped) && matches!(third_claim, Claim::Skipped));
                assert!(store.finish(&running, Verdict::Done).await.expect("asked"));
                let fourth = make_due(harness, name).await;
                claimed(&*store, name, fourth).await;
            }
            Overlap::Wait { .. } => {
                assert!(matches!(second_claim, Claim::Waits), "one may wait");
                assert!(matches!(third_claim, Claim::Skipped), "no second one");
                assert!(store.finish(&running, Verdict::Done).await.expect("asked"));
                claimed(&*store, name, second).await;
            }
        }
    }
}

async fn a_trigger_fires_now_even_while_paused<H: Harness>(harness: &H) {
    let store = harness.store();
    put(&*store, five("a").overlap(Overlap::Allow)).await;
    store.pause(&key("a"), true).await.expect("paused");
    let first = store.trigger(&key("a")).await.expect("triggered");
    let second = store.trigger(&key("a")).await.expect("triggered");
    assert!(second > first, "two triggers are two ticks");
    let ready = store.look(10).await.expect("looked").ready;
    assert_eq!(ready.iter().map(|ready| ready.fire_time).collect::<Vec<_>>(), [first, second]);
    assert!(claimed(&*store, "a", first).await.manual);
    assert!(matches!(store.trigger(&key("x")).await, Err(CronError::NotFound(_))));
}

async fn the_history_keeps_so_many<H: Harness>(harness: &H) {
    let store = harness.store();
    let mut schedule = five("a");
    schedule.keep = 3;
    put(&*store, schedule).await;
    let mut times = Vec::new();
    for _ in 0..6 {
        let at = make_due(harness, "a").await;
        let claimed = claimed(&*store, "a", at).await;
        assert!(store.finish(&claimed, Verdict::Done).await.expect("asked"));
        times.push(at);
    }
    let kept = history(&*store, "a").await;
    assert_eq!(kept.len(), 3);
    assert_eq!(kept.first().map(|tick| tick.fire_time).map(seconds), times.last().copied().map(seconds));
}

/// Where a store's clock cannot be set its rows are moved, so that only whole seconds compare.
fn seconds(at: Timestamp) -> i64 {
    at.as_microsecond().div_euclid(1_000_000)
}

async fn what_is_removed_is_gone<H: Harness>(harness: &H) {
    let store = harness.store();
    put(&*store, five("a")).await;
    let at = make_due(harness, "a").await;
    let running = claimed(&*store, "a", at).await;
    assert!(store.remove(&key("a")).await.expect("removed"));
    assert!(!store.remove(&key("a")).await.expect("asked"));
    assert!(!store.finish(&running, Verdict::Done).await.expect("asked"));
    put(&*store, five("a")).await;
    assert!(history(&*store, "a").await.is_empty());
}
