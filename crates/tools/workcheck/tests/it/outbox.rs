//! Short checks of the outbox with real processes, on a real Postgres and a real NATS.

use std::path::PathBuf;

use runtime_workcheck::check::Promise;
use runtime_workcheck::outbox::{Broken, OutboxSettings, Outcome, run};

fn settings(folder: &tempfile::TempDir, args: &[&str]) -> OutboxSettings {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_runtime-workcheck"));
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let mut settings = OutboxSettings::parse(program, &args).unwrap();
    settings.folder = folder.path().to_path_buf();
    settings
}

async fn soak(args: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(&settings(&folder, args)).await.unwrap();
    println!("{outcome}");
    outcome
}

fn kept_its_promises(outcome: &Outcome) {
    assert!(outcome.violations.is_empty(), "{outcome}");
    assert!(outcome.added > 500 && outcome.parked > 0 && outcome.killed + outcome.frozen > 2, "{outcome}");
    // Ten times too much: the lag was real before it was gone.
    let (most, oldest) = outcome.peak;
    let added = f64::from(u32::try_from(outcome.added).unwrap());
    assert!(most > added / 3.0 && oldest > 1.0, "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_what_relays_can_send_arrives_once_and_in_order_while_they_are_killed() {
    kept_its_promises(&soak(&[]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_message_holds_its_key_and_nothing_else_where_that_is_declared() {
    kept_its_promises(&soak(&["--hold", "--seed", "2"]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn through_nats_that_is_restarted_it_arrives_once_and_in_order_too() {
    let outcome = soak(&["--nats", "--rate", "300", "--seed", "3"]).await;
    kept_its_promises(&outcome);
    assert!(outcome.restarts[1] > 0, "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_relays_and_consumers_are_found_out() {
    let found_out = async |broken: Broken, promise: Promise| {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(&folder, &["--seconds", "3", "--rate", "300"]);
        settings.broken = broken;
        let outcome = run(&settings).await.unwrap();
        let found = outcome.violations.iter().any(|violation| violation.promise == promise);
        assert!(found, "{}: {outcome}", broken.as_str());
    };
    tokio::join!(
        found_out(Broken::Hasty, Promise::NothingLost),
        found_out(Broken::Backwards, Promise::OrderPerKey),
        found_out(Broken::Forgetful, Promise::EffectOnce),
    );
}
