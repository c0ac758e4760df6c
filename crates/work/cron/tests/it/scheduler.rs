//! What a scheduler does with its ticks, on a clock the test moves.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime_cron::{
    Actions, Calendar, CronConfig, CronError, MemoryStore, Misfire, Origin, Overlap, Schedule, Scheduler,
    Schedules, Tick, TickState,
};
use runtime_kernel::{Clock, Context, Error, ErrorKind, ManualClock, Name, Source, TenantContext};
use tokio::sync::Notify;

const MINUTE: Duration = Duration::from_mins(1);

struct World {
    clock: ManualClock,
    schedules: Schedules,
    context: Context,
    seen: Arc<Mutex<Vec<Tick>>>,
}

impl World {
    fn new(config: CronConfig) -> Self {
        let clock = ManualClock::new();
        let store = MemoryStore::new(Arc::new(clock.clone()));
        let schedules = Schedules::new(store, config, Arc::new(clock.clone())).unwrap();
        let context = Context::new(Source::Internal, &clock);
        Self { clock, schedules, context, seen: Arc::default() }
    }

    /// An action that notes its tick.
    fn noting(&self) -> Actions {
        let seen = Arc::clone(&self.seen);
        Actions::new().on_tick("act", move |tick| {
            seen.lock().unwrap().push(tick);
            std::future::ready(Ok(()))
        })
    }

    fn fire_times(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|tick| tick.fire_time.to_string()).collect()
    }

    async fn states(&self, name: &str) -> Vec<(TickState, u32)> {
        let history = self.schedules.history(&self.context, name, 100).await.unwrap();
        history.into_iter().map(|tick| (tick.state, tick.attempt)).collect()
    }
}

/// Lets every ready task run.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn each_fire_time_is_fired_once_and_late_ones_by_policy() {
    let world = World::new(CronConfig::default());
    let hourly =
        Schedule::new("a", "@hourly", "act").misfire(Misfire::All { up_to: 2 }).overlap(Overlap::Allow);
    world.schedules.put(&world.context, hourly).await.unwrap();
    let firing = Scheduler::new(world.schedules.clone(), world.noting());
    assert_eq!(firing.run_due().await.unwrap(), 0);
    world.clock.advance(MINUTE * 60);
    assert_eq!(firing.run_due().await.unwrap(), 1);
    assert_eq!(firing.run_due().await.unwrap(), 0);
    world.clock.advance(MINUTE * 60 * 5 + MINUTE * 10);
    assert_eq!(firing.run_due().await.unwrap(), 2);
    assert_eq!(world.fire_times(), ["2026-01-01T01:00:00Z", "2026-01-01T05:00:00Z", "2026-01-01T06:00:00Z"]);
    let history = world.schedules.history(&world.context, "a", 100).await.unwrap();
    let missed: Vec<_> = history.iter().filter(|tick| tick.state == TickState::Missed).collect();
    assert_eq!(missed.len(), 1);
    assert_eq!(missed[0].note.as_deref(), Some("3 fire times were missed and left out"));
    assert_eq!(missed[0].fire_time.to_string(), "2026-01-01T02:00:00Z");
}

#[tokio::test]
async fn a_tick_knows_its_tenant_and_has_a_trace_of_its_own() {
    let world = World::new(CronConfig::default());
    let tenant = TenantContext::tenant(Name::new("main").unwrap(), Name::new("acme").unwrap());
    let context = world.context.clone().with_tenant(tenant.clone());
    world.schedules.put(&context, Schedule::new("a", "@hourly", "act")).await.unwrap();
    assert!(matches!(world.schedules.get(&world.context, "a").await, Err(CronError::NotFound(_))));
    let firing = Scheduler::new(world.schedules.clone(), world.noting());
    for _ in 0..2 {
        world.clock.advance(MINUTE * 60);
        firing.run_due().await.unwrap();
    }
    let seen = world.seen.lock().unwrap();
    assert_eq!(seen[0].context.tenant.as_deref(), Some(&tenant));
    assert_eq!(seen[0].context.source, Source::Schedule);
    assert_ne!(seen[0].context.trace.trace_id(), seen[1].context.trace.trace_id());
}

#[tokio::test]
async fn failures_are_tried_again_up_to_the_limit_and_then_stay_on_record() {
    for (kind, attempts) in [(ErrorKind::Unavailable, 3), (ErrorKind::Internal, 3), (ErrorKind::Invalid, 1)] {
        let world = World::new(CronConfig::default());
        world.schedules.put(&world.context, Schedule::new("a", "@daily", "act")).await.unwrap();
        let actions = Actions::new()
            .on_tick("act", move |_| std::future::ready(Err(Error::new(kind, "test.failed", "on purpose"))));
        let firing = Scheduler::new(world.schedules.clone(), actions);
        world.clock.advance(MINUTE * 60 * 24);
        let mut delays = Vec::new();
        assert_eq!(firing.run_due().await.unwrap(), 1);
        // 5 s, then 10 s.
        for seconds in 1..100 {
            world.clock.advance(Duration::from_secs(1));
            if firing.run_due().await.unwrap() > 0 {
                delays.push(seconds);
            }
        }
        assert_eq!(delays, if attempts == 3 { vec![5, 15] } else { vec![] }, "{kind:?}");
        assert_eq!(world.states("a").await, [(TickState::Failed, attempts)], "{kind:?}");
        let history = world.schedules.history(&world.context, "a", 1).await.unwrap();
        assert!(history[0].note.as_deref().unwrap().contains("on purpose"));
    }
}

#[tokio::test]
async fn a_panic_and_an_unknown_action_are_failures_and_the_others_go_on() {
    let world = World::new(CronConfig::default());
    for (name, action) in [("a", "panics"), ("b", "nobody"), ("c", "act")] {
        world
            .schedules
            .put(&world.context, Schedule::new(name, "@hourly", action).attempts(1))
            .await
            .unwrap();
    }
    let actions = world.noting().on_tick("panics", |_| async { panic!("on purpose") });
    world.clock.advance(MINUTE * 60);
    Scheduler::new(world.schedules.clone(), actions).run_due().await.unwrap();
    for name in ["a", "b"] {
        assert_eq!(world.states(name).await, [(TickState::Failed, 1)], "{name}");
    }
    assert_eq!(world.states("c").await, [(TickState::Done, 1)]);
}

#[tokio::test]
async fn an_attempt_has_only_so_much_time() {
    let world = World::new(CronConfig::default());
    let schedule = Schedule::new("a", "@hourly", "act").attempts(1);
    world.schedules.put(&world.context, schedule).await.unwrap();
    let actions = Actions::new().on_tick("act", |_| std::future::pending());
    let firing = Arc::new(Scheduler::new(world.schedules.clone(), actions));
    world.clock.advance(MINUTE * 60);
    let running = tokio::spawn({
        let firing = Arc::clone(&firing);
        async move { firing.run_due().await.unwrap() }
    });
    for _ in 0..80 {
        settle().await;
        world.clock.advance(Duration::from_secs(5));
    }
    assert_eq!(running.await.unwrap(), 1);
    let history = world.schedules.history(&world.context, "a", 1).await.unwrap();
    assert_eq!((history[0].state, history[0].attempt), (TickState::Failed, 1));
    assert!(history[0].note.as_deref().unwrap().contains("longer than"));
    let took =
        history[0].finished_at.unwrap().as_microsecond() - history[0].fired_at.unwrap().as_microsecond();
    assert!(
        (300..=310).contains(&(took / 1_000_000)),
        "the claim was held for the whole five minutes: {took}"
    );
}

#[tokio::test]
async fn overlapping_ticks_run_wait_or_are_left_out() {
    for (overlap, begun, left_out) in
        [(Overlap::Allow, 3, 0), (Overlap::Skip, 1, 2), (Overlap::Wait { up_to: 1 }, 2, 1)]
    {
        let world = World::new(CronConfig::default());
        let schedule = Schedule::new("a", "* * * * *", "slow").overlap(overlap);
        world.schedules.put(&world.context, schedule).await.unwrap();
        let (release, count) = (Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
        let actions = Actions::new().on_tick("slow", {
            let (release, count) = (Arc::clone(&release), Arc::clone(&count));
            move |_| {
                let (release, count) = (Arc::clone(&release), Arc::clone(&count));
                async move {
                    count.fetch_add(1, Ordering::SeqCst);
                    release.notified().await;
                    Ok(())
                }
            }
        });
        let firing = Arc::new(Scheduler::new(world.schedules.clone(), actions));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn({
            let firing = Arc::clone(&firing);
            async move { firing.run(async move { drop(stopped.await) }).await }
        });
        // Three fire times pass, in steps short enough to keep the leases.
        for _ in 0..100 {
            settle().await;
            world.clock.advance(Duration::from_secs(2));
        }
        settle().await;
        for _ in 0..3 {
            release.notify_waiters();
            settle().await;
        }
        let states = world.states("a").await;
        let skipped = states.iter().filter(|(state, _)| *state == TickState::Skipped).count();
        assert_eq!((count.load(Ordering::SeqCst), skipped), (begun, left_out), "{overlap:?} {states:?}");
        drop(stop);
        for _ in 0..20 {
            release.notify_waiters();
            settle().await;
            world.clock.advance(Duration::from_secs(1));
        }
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_stopping_scheduler_gives_back_what_it_cuts_and_another_takes_over_at_once() {
    let world = World::new(CronConfig::default());
    world.schedules.put(&world.context, Schedule::new("a", "@hourly", "act").attempts(1)).await.unwrap();
    let stuck =
        Scheduler::new(world.schedules.clone(), Actions::new().on_tick("act", |_| std::future::pending()));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(async move { stuck.run(async move { drop(stopped.await) }).await });
    settle().await;
    for _ in 0..60 {
        world.clock.advance(MINUTE);
        settle().await;
    }
    assert_eq!(world.states("a").await, [(TickState::Running, 1)]);
    let other = Scheduler::new(world.schedules.clone(), world.noting());
    assert_eq!(other.run_due().await.unwrap(), 0, "there is one leader");
    drop(stop);
    for _ in 0..15 {
        settle().await;
        world.clock.advance(Duration::from_secs(1));
    }
    task.await.unwrap();
    assert_eq!(other.run_due().await.unwrap(), 1);
    assert_eq!(world.states("a").await, [(TickState::Done, 1)], "a cut attempt is not counted");
}

#[tokio::test]
async fn jitter_delays_each_tick_the_same_for_everybody() {
    let world = World::new(CronConfig::default());
    let mut offsets = std::collections::BTreeSet::new();
    for index in 0..20 {
        let schedule = Schedule::new(format!("s{index}"), "@hourly", "act").jitter(MINUTE * 10);
        world.schedules.put(&world.context, schedule).await.unwrap();
    }
    let firing = Scheduler::new(world.schedules.clone(), world.noting());
    world.clock.advance(MINUTE * 60);
    firing.run_due().await.unwrap();
    for index in 0..20 {
        let history = world.schedules.history(&world.context, &format!("s{index}"), 1).await.unwrap();
        let delay = history[0].due.as_microsecond() - history[0].fire_time.as_microsecond();
        assert!((0..=600_000_000).contains(&delay));
        offsets.insert(delay);
        assert_eq!(history[0].fire_time.to_string(), "2026-01-01T01:00:00Z", "the fire time stays as it is");
    }
    assert!(offsets.len() > 15, "they are spread: {offsets:?}");
    let early = world.seen.lock().unwrap().len();
    world.clock.advance(MINUTE * 10);
    firing.run_due().await.unwrap();
    assert!(early < 20 && world.seen.lock().unwrap().len() == 20);
}

#[tokio::test]
async fn a_changed_calendar_reaches_what_was_kept_before_when_a_scheduler_starts() {
    let clock = ManualClock::new();
    let store = MemoryStore::new(Arc::new(clock.clone()));
    let under = |dates: Option<&str>| {
        let mut config = CronConfig::default();
        if let Some(date) = dates {
            config.calendars.insert("bank".to_owned(), Calendar::default().without(date));
        }
        Schedules::new(store.clone(), config, Arc::new(clock.clone())).unwrap()
    };
    let context = Context::new(Source::Internal, &clock);
    let tenant = TenantContext::tenant(Name::new("main").unwrap(), Name::new("acme").unwrap());
    let theirs = context.clone().with_tenant(tenant);
    let mut schedule = Schedule::new("a", "0 9 * * *", "act").calendar(Calendar::default().without("01-04"));
    schedule.calendars = vec!["bank".to_owned()];
    let first = under(Some("01-02"));
    for context in [&context, &theirs] {
        first.put(context, schedule.clone()).await.unwrap();
        first.put(context, Schedule::new("b", "0 9 * * *", "act")).await.unwrap();
    }
    let shown = async |schedules: &Schedules, context: &Context| {
        let next = schedules.get(context, "a").await.unwrap().next.unwrap();
        let then = schedules.preview(context, "a", 4).await.unwrap();
        [vec![next], then].concat().iter().map(|at| at.to_string()[5..10].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(shown(&first, &theirs).await, ["01-01", "01-01", "01-03", "01-05", "01-06"]);
    let second = under(Some("01-01"));
    assert_eq!(second.look_up_calendars().await.unwrap(), 2);
    assert_eq!(second.look_up_calendars().await.unwrap(), 0, "what is as it was is not touched");
    for context in [&context, &theirs] {
        assert_eq!(shown(&second, context).await, ["01-02", "01-02", "01-03", "01-05", "01-06"]);
        let kept = second.get(context, "a").await.unwrap().schedule;
        assert_eq!((kept.calendar, kept.calendars), (schedule.calendar.clone(), schedule.calendars.clone()));
    }
    let gone = under(None);
    assert_eq!(gone.look_up_calendars().await.unwrap(), 0);
    assert_eq!(gone.get(&context, "a").await.unwrap().schedule.named, Calendar::default().without("01-01"));
    let third = under(Some("01-03"));
    Scheduler::new(third.clone(), Actions::new()).run(std::future::ready(())).await;
    assert_eq!(third.get(&theirs, "a").await.unwrap().schedule.named, Calendar::default().without("01-03"));
    assert_eq!(shown(&third, &theirs).await, ["01-01", "01-01", "01-02", "01-05", "01-06"]);
}

#[tokio::test]
async fn the_handle_previews_pauses_triggers_and_forgets() {
    let mut config = CronConfig::default();
    config.calendars.insert("xmas".to_owned(), Calendar::default().without("01-02"));
    let world = World::new(config);
    let (schedules, context) = (&world.schedules, &world.context);
    let mut schedule = Schedule::new("a", "0 9 * * *", "act");
    schedule.calendars = vec!["xmas".to_owned()];
    let preview = schedules.preview_of(context, &schedule, 2).unwrap();
    assert_eq!(preview[1].to_string(), "2026-01-03T09:00:00Z");
    schedules.put_at(context, schedule.clone(), 0).await.unwrap();
    assert_eq!(schedules.preview(context, "a", 2).await.unwrap(), preview);
    schedule.calendars = vec!["nobody".to_owned()];
    assert!(matches!(
        schedules.put(context, schedule).await,
        Err(CronError::Invalid { key: "calendars", .. })
    ));
    let firing = Scheduler::new(schedules.clone(), world.noting());
    schedules.pause(context, "a").await.unwrap();
    world.clock.advance(MINUTE * 60 * 24 * 3);
    assert_eq!(firing.run_due().await.unwrap(), 0);
    schedules.trigger(context, "a").await.unwrap();
    assert_eq!(firing.run_due().await.unwrap(), 1);
    assert!(world.seen.lock().unwrap()[0].manual);
    schedules.resume(context, "a").await.unwrap();
    assert_eq!(firing.run_due().await.unwrap(), 0, "what passed during the pause is left out");
    world.clock.advance(MINUTE * 60 * 24);
    assert_eq!(firing.run_due().await.unwrap(), 1);
    schedules.remove(context, "a").await.unwrap();
    assert!(matches!(schedules.remove(context, "a").await, Err(CronError::NotFound(_))));
}

#[tokio::test]
async fn what_an_origin_no_longer_names_is_removed_and_the_rest_stays() {
    let world = World::new(CronConfig::default());
    let schedules = &world.schedules;
    let daily = |name: &str| Schedule::new(name, "@daily", "act");
    schedules.put(&world.context, daily("theirs")).await.unwrap();
    schedules.sync(Origin::Config, (0..250).map(|n| daily(&format!("c{n}"))).collect()).await.unwrap();
    schedules.sync(Origin::Code, vec![daily("code")]).await.unwrap();
    schedules.sync(Origin::Config, vec![daily("c7")]).await.unwrap();
    let left = schedules.list(&world.context, None, 1000).await.unwrap();
    let names: Vec<_> = left.iter().map(|stored| stored.key.name.as_str()).collect();
    assert_eq!(names, ["c7", "code", "theirs"]);
    assert_eq!(left[0].revision, 1, "the same once more changes nothing");
    assert_eq!(world.clock.sleepers(), 0);
    let _ = world.clock.now();
}
