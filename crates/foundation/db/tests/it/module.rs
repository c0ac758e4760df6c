use runtime_db::{DB, Database, DbModule, sqlx};
use runtime_kernel::app::App;
use runtime_kernel::config::Config;

#[tokio::test]
async fn the_module_gives_one_database_and_closes_it() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("runtime.db").display());
    let app = App::new(Config::default()).with(DbModule::new().default_url(url)).build().unwrap();
    let container = app.container().clone();
    let db: std::sync::Arc<Database> = container.get(DB).await.unwrap();
    sqlx::query("CREATE TABLE t (id INTEGER)").execute(&db.sqlite().unwrap().write).await.unwrap();
    app.shutdown().trigger("the test is over");
    app.shutdown().run().await;
    assert!(db.ping().await.is_err());
}
