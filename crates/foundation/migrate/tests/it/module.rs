use runtime_db::{DB, DbModule};
use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::config::Config;
use runtime_migrate::{MIGRATOR, MigrateApp, MigrateModule};

use super::support::{number, set, step};

struct Orders;

impl Module for Orders {
    fn name(&self) -> &'static str {
        "orders"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        app.migrations(set("orders", vec![step(1, "CREATE TABLE orders (id INTEGER)")]));
        app.on_start("orders", |container| async move {
            let db = container.get(DB).await?;
            assert_eq!(number(&db, "SELECT count(*) FROM orders").await.unwrap(), 0);
            Err(runtime_kernel::Error::invalid("seen"))
        });
        Ok(())
    }
}

#[tokio::test]
async fn migrations_of_modules_added_later_are_applied_before_anything_starts() {
    for (mode, reason) in [("auto", "seen"), ("check", "1 migrations are pending")] {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("runtime.db").display());
        let vars = [("RUNTIME__DB__MIGRATE".to_owned(), mode.to_owned())];
        let config = Config::builder().prefix("RUNTIME").env(vars).build().unwrap();
        let app = App::new(config)
            .with(DbModule::new().default_url(url))
            .with(MigrateModule::new())
            .with(Orders)
            .build()
            .unwrap();
        let container = app.container().clone();
        assert!(container.contains(MIGRATOR));
        let report = app.run_without_signals().await;
        assert!(format!("{:?}", report.reason).contains(reason), "{mode}: {:?}", report.reason);
    }
}
