//! Events in an app: what is published to its log reaches the handler a module subscribed.

use runtime_db::DbModule;
use runtime_events::{CloudEvent, EVENT_LOG, EventsModule, Handler, Incoming, Message, SubscriptionSpec};
use runtime_kernel::app::App;
use runtime_kernel::config::Config;
use runtime_kernel::{Context, Error, Mode, Source, SystemClock};
use runtime_migrate::MigrateModule;
use tokio::sync::mpsc;

fn spec() -> SubscriptionSpec {
    SubscriptionSpec::new("s", "topic").unwrap()
}

#[test]
fn two_handlers_of_one_subscription_are_refused() {
    let nothing = || Handler::new(|_| async { Ok(()) });
    let module = EventsModule::new().subscribe(spec(), nothing()).subscribe(spec(), nothing());
    let error = App::new(Config::default()).with(module).build().unwrap_err();
    assert!(error.to_string().contains("two handlers subscribe as `s`"), "{error}");
}

#[tokio::test]
async fn a_published_event_reaches_the_handler_of_a_module() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("runtime.db").display());
    let (tell, mut told) = mpsc::channel(1);
    let handler = Handler::new(move |incoming: Incoming| {
        let tell = tell.clone();
        async move { tell.send(incoming).await.map_err(Error::internal) }
    });
    let app = App::new(Config::default()).mode(Mode::All).with(DbModule::new().default_url(url));
    let app =
        app.with(MigrateModule::new()).with(EventsModule::new().subscribe(spec(), handler)).build().unwrap();
    let (container, shutdown) = (app.container().clone(), app.shutdown().clone());
    let running = tokio::spawn(app.run_without_signals());
    let log = container.get(EVENT_LOG).await.unwrap();
    let event = CloudEvent::builder("1", "/s", "t").build().unwrap();
    let context = Context::new(Source::Internal, &SystemClock);
    let message = Message::new(&SystemClock, &context, "topic", event).unwrap();
    runtime_testkit::until("the tables", async || log.publish(std::slice::from_ref(&message)).await.is_ok())
        .await
        .unwrap();
    assert_eq!(told.recv().await.unwrap().event.id(), "1");
    shutdown.trigger("the test is over");
    running.await.unwrap();
}
