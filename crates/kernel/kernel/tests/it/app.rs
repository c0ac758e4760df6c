//! Apps of modules: set-up, start, supervision, end.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::app::{
    App, CLOCK, CONFIG, ExitReport, Importance, Module, Run, SHUTDOWN, Service, ServiceEnd, SetupError,
};
use runtime_kernel::config::{Config, Invalid, Section};
use runtime_kernel::container::Token;
use runtime_kernel::lifecycle::{OsSignal, Stage, StopReason};
use runtime_kernel::{Clock, Error, ErrorKind, Mode, SystemClock};
use serde::{Deserialize, Serialize};

pub(super) type Log = Arc<Mutex<Vec<String>>>;

pub(super) fn said(log: &Log) -> Vec<String> {
    log.lock().unwrap().clone()
}

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Greeting {
    text: String,
}

impl Default for Greeting {
    fn default() -> Self {
        Self { text: "hello".into() }
    }
}

impl Section for Greeting {
    const PATH: &'static str = "greeting";

    fn validate(&self) -> Result<(), Invalid> {
        if self.text.is_empty() { Err(Invalid::new("text", "must not be empty")) } else { Ok(()) }
    }
}

const GREETING: Token<str> = Token::new("test.greeting");

/// Reads its section, offers it as a service.
struct GreetingModule;

impl Module for GreetingModule {
    fn name(&self) -> &'static str {
        "greeting"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let section: Greeting = app.section()?;
        app.services().value(GREETING, section.text);
        Ok(())
    }
}

/// A module from a closure.
struct Inline<F>(&'static str, F);

impl<F: Fn(&mut App) -> Result<(), SetupError> + Send + 'static> Module for Inline<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        (self.1)(app)
    }
}

/// A service that behaves as told.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) modes: &'static [Mode],
    pub(super) stops_at: Stage,
    pub(super) importance: Importance,
    pub(super) act: Act,
    pub(super) log: Log,
    pub(super) starts: Arc<AtomicU32>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Act {
    Behave,
    Fail,
    Panic,
    ReturnEarly,
    FailTwice,
    IgnoreStop,
    FailWhenStopped,
}

pub(super) fn part(name: &'static str, act: Act, log: &Log) -> Part {
    Part {
        name,
        modes: &[Mode::All],
        stops_at: Stage::Work,
        importance: Importance::Critical,
        act,
        log: Arc::clone(log),
        starts: Arc::default(),
    }
}

#[async_trait]
impl Service for Part {
    fn name(&self) -> &'static str {
        self.name
    }

    fn modes(&self) -> &'static [Mode] {
        self.modes
    }

    fn stops_at(&self) -> Stage {
        self.stops_at
    }

    fn importance(&self) -> Importance {
        self.importance
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let starts = self.starts.fetch_add(1, Ordering::SeqCst) + 1;
        self.log.lock().unwrap().push(format!("{} starts", self.name));
        match self.act {
            Act::Fail => return Err(Error::invalid("on purpose")),
            Act::Panic => panic!("on purpose"),
            Act::ReturnEarly => return Ok(()),
            Act::FailTwice if starts <= 2 => return Err(Error::invalid("on purpose")),
            Act::IgnoreStop => std::future::pending().await,
            _ => {}
        }
        run.stop.stopped().await;
        self.log.lock().unwrap().push(format!("{} stops", self.name));
        if self.act == Act::FailWhenStopped { Err(Error::invalid("too late")) } else { Ok(()) }
    }
}

/// An app of these parts, run until `time` has passed.
pub(super) async fn run_for(time: Duration, mode: Mode, parts: Vec<Part>) -> ExitReport {
    let mut app = App::new(Config::default()).mode(mode);
    for part in parts {
        app.service(part);
    }
    let built = app.build().unwrap();
    let shutdown = built.shutdown().clone();
    let timer = tokio::spawn(async move {
        tokio::time::sleep(time).await;
        shutdown.trigger("time is up");
    });
    let report = built.run_without_signals().await;
    timer.abort();
    report
}

pub(super) const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn modules_register_in_order_then_finish_in_order_with_all_contributions_there() {
    #[derive(Default)]
    struct Lines(Vec<&'static str>);
    struct Reader(Log);
    impl Module for Reader {
        fn name(&self) -> &'static str {
            "reader"
        }
        fn register(&self, app: &mut App) -> Result<(), SetupError> {
            app.contribute::<Lines>().0.push("reader");
            Ok(())
        }
        fn finish(&self, app: &mut App) -> Result<(), SetupError> {
            let Lines(lines) = app.take_contribution();
            self.0.lock().unwrap().extend(lines.into_iter().map(str::to_owned));
            assert!(app.contribute::<Lines>().0.is_empty());
            Ok(())
        }
    }
    let log = Log::default();
    let line = |name: &'static str| {
        Inline(name, move |app: &mut App| {
            app.contribute::<Lines>().0.push(name);
            Ok(())
        })
    };
    App::new(Config::default())
        .with(Reader(Arc::clone(&log)))
        .with(line("b"))
        .with(line("a"))
        .build()
        .unwrap();
    assert_eq!(said(&log), ["reader", "b", "a"]);
}

#[test]
fn what_is_wrong_at_set_up_names_the_module_and_the_place_and_has_an_exit_code() {
    const MISSING: Token<u8> = Token::new("test.missing");
    let greeting = |text: &str| Config::builder().set("greeting.text", text).build().unwrap();
    let unknown = Config::builder().set("greetings.text", "hi").build().unwrap();
    let refuse = |error: fn() -> SetupError| Inline("refusing", move |_: &mut App| Err(error()));
    let cases: Vec<(App, &str, u8)> = vec![
        (
            App::new(Config::default()).with(GreetingModule).with(GreetingModule),
            "module `greeting` is added twice",
            50,
        ),
        (
            App::new(greeting("")).with(GreetingModule),
            "module `greeting`: greeting.text: must not be empty",
            3,
        ),
        (App::new(unknown).with(GreetingModule), "greetings", 3),
        (
            App::new(Config::default()).with(refuse(|| SetupError::module("refusing", "no"))),
            "module `refusing`: no",
            50,
        ),
        (
            App::new(Config::default()).with(refuse(|| {
                Error::new(ErrorKind::Invalid, "tenancy.unknown_realm", "no such realm").into()
            })),
            "module `refusing`: no such realm",
            20,
        ),
        (
            App::new(Config::default()).with(Inline("graph", |app: &mut App| {
                app.services().singleton(GREETING, (MISSING,), |_| async { Ok::<_, Error>("x") });
                Ok(())
            })),
            "`test.greeting` needs `test.missing`, which nobody registers",
            50,
        ),
    ];
    for (app, text, code) in cases {
        let error = app.build().unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.exit_code(), code, "{error}");
    }
}

#[tokio::test]
async fn the_container_holds_the_modules_services_and_the_apps_own() {
    let config = Config::builder().set("greeting.text", "hoi").build().unwrap();
    let mut app = App::new(config).with(GreetingModule);
    app.services().singleton(Token::<usize>::new("test.length"), (GREETING,), |(text,)| async move {
        Ok::<_, Error>(text.len())
    });
    let built = app.build().unwrap();
    let container = built.container();
    assert_eq!(*container.get(Token::<usize>::new("test.length")).await.unwrap(), 3);
    assert_eq!(container.get(CONFIG).await.unwrap().section::<Greeting>().unwrap().text, "hoi");
    container.get(CLOCK).await.unwrap().now();
    assert!(!container.get(SHUTDOWN).await.unwrap().is_triggered());
}

#[tokio::test(start_paused = true)]
async fn a_mode_runs_the_services_bound_to_it_and_no_others() {
    for (mode, expected) in [
        (Mode::Api, vec!["api", "every"]),
        (Mode::Worker, vec!["worker", "both", "every"]),
        (Mode::Scheduler, vec!["both", "every"]),
        (Mode::All, vec!["api", "worker", "both", "every"]),
    ] {
        let log = Log::default();
        let bound = |name, modes| Part { modes, ..part(name, Act::Behave, &log) };
        let parts = vec![
            bound("api", &[Mode::Api]),
            bound("worker", &[Mode::Worker]),
            bound("both", &[Mode::Worker, Mode::Scheduler]),
            bound("every", &[Mode::All]),
        ];
        let report = run_for(SECOND, mode, parts).await;
        assert_eq!(
            report.services.iter().map(|service| service.name).collect::<Vec<_>>(),
            expected,
            "{mode}"
        );
        assert!(report.services.iter().all(|service| service.end == ServiceEnd::Stopped));
        assert_eq!(report.code(), 0, "{report}");
    }
}

#[tokio::test(start_paused = true)]
async fn start_hooks_run_in_order_before_services_and_the_container_goes_last() {
    let log = Log::default();
    let write = |line: &'static str| {
        let log = Arc::clone(&log);
        move || log.lock().unwrap().push(line.to_owned())
    };
    let mut app = App::new(Config::default());
    app.service(part("worker", Act::Behave, &log));
    app.service(Part { stops_at: Stage::Intake, ..part("http", Act::Behave, &log) });
    for name in ["migrate", "warm"] {
        let write = write(name);
        app.on_start(name, move |container| async move {
            container.get(GREETING).await?;
            tokio::time::sleep(SECOND).await;
            write();
            Ok(())
        });
    }
    let disposed = write("container");
    app.services().value(GREETING, "hi").on_dispose(move |_| {
        disposed();
        async { Ok(()) }
    });
    let closed = write("pool closed");
    app.shutdown().hook(Stage::Close, "pool", SECOND, || async move {
        closed();
        Ok(())
    });
    let built = app.build().unwrap();
    let shutdown = built.shutdown().clone();
    let (report, ()) = tokio::join!(built.run_without_signals(), async move {
        tokio::time::sleep(SECOND * 5).await;
        shutdown.trigger("done");
    });
    assert_eq!(
        said(&log),
        [
            "migrate",
            "warm",
            "worker starts",
            "http starts",
            "http stops",
            "worker stops",
            "pool closed",
            "container"
        ]
    );
    assert_eq!(report.code(), 0, "{report}");
    assert_eq!(report.container.unwrap().disposals.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_hook_that_fails_ends_the_process_before_any_service_starts() {
    for (code, exit) in [("tenancy.unknown_tenant", 21), ("db.unreachable", 50), ("config.secret_missing", 4)]
    {
        let log = Log::default();
        let mut app = App::new(Config::default());
        app.service(part("worker", Act::Behave, &log));
        app.on_start(
            "migrate",
            move |_| async move { Err(Error::new(ErrorKind::Unavailable, code, "cannot")) },
        );
        app.on_start("never", |_| async { panic!("must not run") });
        let report = app.build().unwrap().run_without_signals().await;
        assert!(
            matches!(&report.reason, StopReason::StartFailed { hook, .. } if hook == "migrate"),
            "{report}"
        );
        assert_eq!(report.code(), exit);
        assert!(said(&log).is_empty());
    }
    let mut app = App::new(Config::default());
    app.on_start("panicking", |_| async { panic!("oh") });
    let report = app.build().unwrap().run_without_signals().await;
    assert_eq!(
        (report.code(), report.reason.to_string()),
        (50, "start hook `panicking` failed: panic: oh".into())
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_hook_is_dropped_when_the_end_is_asked_for() {
    let mut app = App::new(Config::default());
    app.on_start("endless", |_| std::future::pending());
    let built = app.build().unwrap();
    let shutdown = built.shutdown().clone();
    let (report, ()) =
        tokio::join!(built.run_without_signals(), async move { shutdown.signalled(OsSignal::Terminate) });
    assert_eq!(report.code(), 0, "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_the_run_at_once_with_the_code_a_shell_expects() {
    for (signal, code) in [(OsSignal::Interrupt, 130), (OsSignal::Terminate, 143)] {
        let log = Log::default();
        let mut app = App::new(Config::default());
        app.service(part("deaf", Act::IgnoreStop, &log));
        let built = app.build().unwrap();
        let shutdown = built.shutdown().clone();
        let started = SystemClock.now();
        let (report, ()) = tokio::join!(built.run_without_signals(), async move {
            tokio::time::sleep(SECOND).await;
            shutdown.signalled(OsSignal::Terminate);
            tokio::time::sleep(SECOND).await;
            shutdown.signalled(signal);
        });
        assert_eq!(report.code(), code);
        assert_eq!(SystemClock.now() - started, SECOND * 2);
        assert_eq!(report.services[0].end, ServiceEnd::Cut);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_real_sigterm_ends_a_run_in_order() {
    let log = Log::default();
    let mut app = App::new(Config::default());
    app.service(part("worker", Act::Behave, &log));
    let running = tokio::spawn(app.build().unwrap().run());
    while said(&log).is_empty() {
        tokio::task::yield_now().await;
    }
    let me = std::process::id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &me]).status().unwrap().success());
    let report = running.await.unwrap();
    assert_eq!(report.reason, StopReason::Signal(OsSignal::Terminate));
    assert_eq!(report.code(), 0, "{report}");
    assert_eq!(said(&log), ["worker starts", "worker stops"]);
}

#[test]
fn every_exit_code_says_something_else_than_success() {
    let codes = ["config.file", "config.invalid", "tenancy.unknown_realm", "tenancy.unknown_org", "anything"];
    let exits: HashSet<u8> = codes.iter().map(|code| runtime_kernel::app::exit_code(code)).collect();
    assert_eq!(exits, HashSet::from([2, 3, 20, 22, 50]));
}
