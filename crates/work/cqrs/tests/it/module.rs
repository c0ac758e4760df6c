//! The buses of an app, made of what its modules contribute.

use runtime_cqrs::{COMMANDS, Command, CqrsHandlers, CqrsModule, QUERIES, Query, Validate};
use runtime_db::{DbModule, on_connection, sqlx};
use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::config::Config;
use runtime_kernel::{Context, Error, Mode, Source, SystemClock};
use runtime_migrate::MigrateModule;
use runtime_telemetry::MetricsApp;
use serde::Serialize;

#[derive(Clone, Serialize)]
struct Note(String);
impl Command for Note {
    const NAME: &'static str = "note";
    type Reply = usize;
}

struct Length(&'static str);
impl Query for Length {
    const NAME: &'static str = "length";
    type Reply = usize;
}

#[derive(Clone, Serialize)]
struct Plain;
impl Command for Plain {
    const NAME: &'static str = "plain";
    type Reply = ();
}

struct Notes;

impl Module for Notes {
    fn name(&self) -> &'static str {
        "notes"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let handlers = app.contribute::<CqrsHandlers>();
        handlers.commands(|bus| {
            let bus = bus.layer(Validate::of(|Note(text)| match text.as_str() {
                "" => Err(Error::invalid("a note says something")),
                _ => Ok(()),
            }));
            bus.handle_in(|_, mut tx, Note(text)| async move {
                let sql =
                    "INSERT INTO cqrs_projections (name, generation, position, live) VALUES ($1, 1, 0, 1)";
                on_connection!(tx, conn => {
                    let noted = sqlx::query(sql).bind(&text).execute(&mut *conn).await;
                    noted.map(drop).map_err(runtime_db::DbError::from)?;
                })?;
                Ok(text.len())
            })
        });
        handlers.queries(|bus| bus.handle(|_, Length(text)| async move { Ok(text.len()) }));
        Ok(())
    }
}

#[test]
fn two_handlers_of_one_command_are_refused_when_the_app_is_built() {
    let plain = |_: Context, Plain| async { Ok(()) };
    let module = CqrsModule::new().commands(|bus| bus.handle(plain).handle(plain));
    let app = App::new(Config::default()).with(DbModule::new().default_url("sqlite::memory:"));
    let error = app.with(MigrateModule::new()).with(module).build().unwrap_err();
    assert!(error.to_string().contains("`plain` has two handlers"), "{error}");
}

#[tokio::test]
async fn a_contributed_command_is_validated_done_once_in_a_transaction_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("runtime.db").display());
    let mut app = App::new(Config::default()).mode(Mode::All).with(DbModule::new().default_url(url));
    let metrics = app.metrics();
    let module = CqrsModule::new().commands(|bus| bus.handle(|_, Plain| async { Ok(()) }));
    let app = app.with(MigrateModule::new()).with(Notes).with(module).build().unwrap();
    let (container, shutdown) = (app.container().clone(), app.shutdown().clone());
    let running = tokio::spawn(app.run_without_signals());
    let (commands, queries) = (container.get(COMMANDS).await.unwrap(), container.get(QUERIES).await.unwrap());
    let context = Context::new(Source::Internal, &SystemClock);
    let note = |text: &str| Note(text.to_owned());
    runtime_testkit::until("the tables", async || commands.send(&context, note("tables")).await.is_ok())
        .await
        .unwrap();
    for _ in 0..2 {
        // A second time it would break the table's key.
        assert_eq!(commands.send_once(&context, "k", note("hello")).await.unwrap(), 5);
        commands.send_once(&context, "k", Plain).await.unwrap();
    }
    assert_eq!(
        commands.send(&context, note("")).await.unwrap_err().kind(),
        runtime_kernel::ErrorKind::Invalid
    );
    assert_eq!(queries.ask(&context, Length("abc")).await.unwrap(), 3);
    let text = metrics.render();
    for line in [
        r#"runtime_cqrs_calls_total{name="plain",outcome="ok"} 2"#,
        r#"runtime_cqrs_calls_total{name="note",outcome="invalid"} 1"#,
        r#"runtime_cqrs_calls_total{name="length",outcome="ok"} 1"#,
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
    shutdown.trigger("the test is over");
    running.await.unwrap();
}
