//! Quotas: the laws on every store, and the periods.

use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::{Classify, ErrorKind, ManualClock, Name, TenantContext};
use runtime_limits::{MemoryQuotas, Period, QuotaConfig, QuotaError, Quotas, quota_laws};

#[tokio::test]
async fn memory_keeps_the_laws() {
    quota_laws::all(async || MemoryQuotas::new()).await;
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
async fn prepared(url: String) -> runtime_db::Database {
    use runtime_db::{Database, DbConfig};
    use runtime_kernel::SystemClock;
    use runtime_migrate::{MigrateOptions, Migrator};

    let db = Database::connect(&DbConfig::at(url), SystemClock::shared()).await.unwrap();
    let set = vec![runtime_limits::quota_migrations::SET];
    Migrator::new(db.clone(), set, MigrateOptions::default()).unwrap().run().await.unwrap();
    db
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_the_laws() {
    let folder = tempfile::tempdir().unwrap();
    let mut turn = 0;
    quota_laws::all(async || {
        turn += 1;
        let url = format!("sqlite:{}", folder.path().join(format!("{turn}.db")).display());
        runtime_limits::SqlQuotas::new(prepared(url).await)
    })
    .await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_the_laws() {
    let mut databases = Vec::new();
    quota_laws::all(async || {
        let database = runtime_testkit::postgres::database().await.unwrap();
        let db = prepared(database.url().to_owned()).await;
        databases.push(database);
        runtime_limits::SqlQuotas::new(db)
    })
    .await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn what_is_taken_in_a_transaction_that_is_rolled_back_is_not_taken_and_the_rest_outlives_the_process() {
    use runtime_kernel::{Context, Source, SystemClock};
    use runtime_limits::{Account, QuotaStore, SqlQuotas};

    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("quota.db").display());
    let acme = Account { tenant: "main/acme".to_owned(), name: "rows".to_owned(), period: 0 };
    let db = prepared(url.clone()).await;
    let context = Context::new(Source::Internal, &SystemClock);
    let mut tx = db.begin(&context).await.unwrap();
    assert_eq!(SqlQuotas::take_in(&mut tx, &acme, 5, 10).await.unwrap(), Ok(5));
    tx.rollback().await.unwrap();
    let mut tx = db.begin(&context).await.unwrap();
    assert_eq!(SqlQuotas::take_in(&mut tx, &acme, 7, 10).await.unwrap(), Ok(7));
    tx.commit().await.unwrap();
    db.close().await;
    assert_eq!(SqlQuotas::new(prepared(url).await).used(&acme).await.unwrap(), 7);
}

fn tenant(name: &str) -> TenantContext {
    TenantContext::tenant(Name::new("main").unwrap(), Name::new(name).unwrap())
}

#[tokio::test]
async fn days_and_months_begin_anew_and_single_tenants_may_have_more() {
    // 2026-01-01T00:00:00Z.
    let clock = ManualClock::new();
    let mut config = QuotaConfig::per(10, Period::Day);
    config.tenants = [("main/big".to_owned(), 1_000)].into();
    let quotas =
        [("calls".to_owned(), config), ("monthly".to_owned(), QuotaConfig::per(5, Period::Month))].into();
    let quotas = Quotas::new(Arc::new(MemoryQuotas::new()), quotas, Arc::new(clock.clone())).unwrap();
    let (acme, big) = (tenant("acme"), tenant("big"));
    assert_eq!(quotas.take(&acme, "calls", 10).await.unwrap().left(), 0);
    assert_eq!(quotas.take(&big, "calls", 11).await.unwrap().left(), 989);
    let error = quotas.take(&acme, "calls", 1).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::RateLimited, "quota.exceeded"));
    let QuotaError::Exceeded { usage, .. } = error else { panic!("{error}") };
    assert_eq!(usage.resets_at.unwrap().to_string(), "2026-01-02T00:00:00Z");
    assert_eq!(
        quotas.take(&acme, "monthly", 5).await.unwrap().resets_at.unwrap().to_string(),
        "2026-02-01T00:00:00Z"
    );
    clock.advance(Duration::from_hours(24));
    assert_eq!(quotas.take(&acme, "calls", 1).await.unwrap().used, 1);
    assert!(quotas.take(&acme, "monthly", 1).await.is_err());
    clock.advance(Duration::from_hours(30 * 24));
    assert_eq!(quotas.take(&acme, "monthly", 1).await.unwrap().used, 1);
    assert!(matches!(quotas.usage(&acme, "other").await, Err(QuotaError::Unknown(_))));
    assert!(matches!(quotas.release(&acme, "monthly", 2).await, Err(QuotaError::NotTaken { used: 1, .. })));
}

#[test]
fn a_quota_that_makes_no_sense_names_its_key() {
    for (name, config, key) in [
        ("a b", QuotaConfig::standing(1), "quotas.a b"),
        ("a", QuotaConfig::standing(u64::MAX), "quotas.a.limit"),
    ] {
        let quotas = [(name.to_owned(), config)].into();
        let made = Quotas::new(Arc::new(MemoryQuotas::new()), quotas, Arc::new(ManualClock::new()));
        assert_eq!(made.unwrap_err().key, key);
    }
}
