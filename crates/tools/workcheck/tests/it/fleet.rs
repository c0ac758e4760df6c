//! A thousand instances on two processes, of which one or the other is dead most of the time.

use std::path::PathBuf;
use std::time::Duration;

use runtime_workcheck::check::Promise;
use runtime_workcheck::fleet::{Broken, FleetSettings, Outcome, sagas, ticks, workflows};

fn settings(folder: &tempfile::TempDir) -> FleetSettings {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_runtime-workcheck"));
    let mut settings = FleetSettings::parse(program, &[]).unwrap();
    settings.folder = folder.path().to_path_buf();
    settings
}

fn kept_its_promises(outcome: &Outcome) {
    println!("{outcome}");
    assert!(outcome.violations.is_empty(), "{outcome}");
    assert!(outcome.instances == 1000 && outcome.killed > 2, "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sagas_end_as_they_should_on_two_processes_that_are_killed() {
    let folder = tempfile::tempdir().unwrap();
    kept_its_promises(&sagas(&settings(&folder)).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_workflows_are_decided_once_each_by_two_processes_that_are_killed() {
    let folder = tempfile::tempdir().unwrap();
    kept_its_promises(&workflows(&settings(&folder)).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn sagas_that_ignore_their_keys_are_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&folder);
    (settings.instances, settings.broken) = (100, Broken::Keyless);
    let outcome = sagas(&settings).await.unwrap();
    let found = outcome.violations.iter().any(|violation| violation.promise == Promise::EffectOnce);
    assert!(found, "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_that_answer_before_they_ask_are_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&folder);
    (settings.instances, settings.broken) = (100, Broken::Hasty);
    let outcome = workflows(&settings).await.unwrap();
    let found = outcome.violations.iter().any(|violation| violation.promise == Promise::NothingLost);
    assert!(found, "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_second_ticks_once_on_two_processes_that_are_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&folder);
    settings.duration = Duration::from_secs(20);
    let outcome = ticks(&settings).await.unwrap();
    println!("{outcome}");
    assert!(outcome.violations.is_empty() && outcome.killed > 2 && outcome.effects > 60, "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_outside_of_their_transaction_are_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&folder);
    (settings.duration, settings.broken) = (Duration::from_secs(10), Broken::Outside);
    let outcome = ticks(&settings).await.unwrap();
    let found = outcome.violations.iter().any(|violation| violation.promise == Promise::EffectOnce);
    assert!(found, "{outcome}");
}
