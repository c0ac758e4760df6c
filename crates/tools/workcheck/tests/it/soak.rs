//! Short checks with real processes, on a real Postgres.

use std::path::PathBuf;
use std::time::Duration;

use runtime_workcheck::check::Promise;
use runtime_workcheck::{Broken, Outcome, Settings, run};

async fn soak(seconds: u64, faults: bool, broken: Broken) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_runtime-workcheck"));
    let mut settings = Settings::parse(program, &[]).unwrap();
    settings.folder = folder.path().to_path_buf();
    settings.duration = Duration::from_secs(seconds);
    (settings.faults, settings.broken) = (faults, broken);
    run(&settings).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_keep_their_promises_under_faults() {
    let outcome = soak(20, true, Broken::No).await;
    println!("{outcome}");
    assert!(outcome.violations.is_empty(), "{outcome}");
    assert!(outcome.jobs > 500 && outcome.faults > 5, "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_workers_are_found_out() {
    let cases = [
        (Broken::Twice, 2, Promise::OneRunPerLease),
        (Broken::Unlimited, 4, Promise::LimitsHold),
        (Broken::Forgetful, 4, Promise::OneEnding),
        (Broken::Unfenced, 6, Promise::StaleRefused),
    ];
    for (broken, seconds, promise) in cases {
        let outcome = soak(seconds, false, broken).await;
        let found = outcome.violations.iter().any(|violation| violation.promise == promise);
        assert!(found, "{}: {outcome}", broken.as_str());
    }
}
