//! The outbox in an app: what a transaction adds reaches the sink a module named.

use std::sync::Arc;

use runtime_db::{DB, DbModule};
use runtime_events::Publisher;
use runtime_kernel::Mode;
use runtime_kernel::app::App;
use runtime_kernel::config::Config;
use runtime_migrate::MigrateModule;
use runtime_outbox::{Channel, OUTBOX, OutboxModule, SQL_INBOX, SQL_OUTBOX};

use super::common::{Recorder, context, message};

fn module(sink: &Arc<Recorder>) -> OutboxModule {
    let sink = Arc::clone(sink);
    OutboxModule::new().sink(Channel::default(), move |_| {
        let sink = Arc::clone(&sink);
        async move { Ok(sink as Arc<dyn Publisher>) }
    })
}

#[test]
fn a_channel_has_one_sink() {
    let sink = Arc::default();
    let error = App::new(Config::default()).with(module(&sink)).with(Again).build().unwrap_err();
    assert!(error.to_string().contains("channel `default` has two sinks"), "{error}");
}

/// Contributes what another module would.
#[derive(Debug)]
struct Again;

impl runtime_kernel::app::Module for Again {
    fn name(&self) -> &'static str {
        "again"
    }

    fn register(&self, app: &mut App) -> Result<(), runtime_kernel::app::SetupError> {
        let sink = Arc::new(Recorder::default()) as Arc<dyn Publisher>;
        app.contribute::<runtime_outbox::OutboxSinks>().sink(Channel::default(), move |_| {
            let sink = Arc::clone(&sink);
            async move { Ok(sink) }
        });
        Ok(())
    }
}

#[tokio::test]
async fn what_a_transaction_adds_reaches_the_sink_of_a_module() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("runtime.db").display());
    let sink = Arc::new(Recorder::default());
    let app = App::new(Config::default()).mode(Mode::All).with(DbModule::new().default_url(url));
    let app = app.with(MigrateModule::new()).with(module(&sink)).build().unwrap();
    let (container, shutdown) = (app.container().clone(), app.shutdown().clone());
    let running = tokio::spawn(app.run_without_signals());
    let (outbox, db) = (container.get(SQL_OUTBOX).await.unwrap(), container.get(DB).await.unwrap());
    let inbox = container.get(SQL_INBOX).await.unwrap();
    let relayed = container.get(OUTBOX).await.unwrap();
    runtime_testkit::until("the tables", async || relayed.stats().await.is_ok()).await.unwrap();
    for (id, commit) in [("undone", false), ("kept", true)] {
        let mut tx = db.begin(&context()).await.unwrap();
        assert!(inbox.once_in(&mut tx, &context(), "tests", id).await.unwrap().is_fresh());
        outbox.add_in(&mut tx, message(id, "k")).await.unwrap();
        if commit {
            tx.commit().await.unwrap();
        } else {
            tx.rollback().await.unwrap();
        }
    }
    sink.until(1).await;
    assert_eq!(sink.ids(), ["kept"]);
    shutdown.trigger("the test is over");
    running.await.unwrap();
}
