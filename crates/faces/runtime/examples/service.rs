//! A service in thirty lines: an endpoint that enqueues a typed job, and the job's handler.

use runtime::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Greet {
    name: String,
}

impl JobKind for Greet {
    const KIND: &'static str = "greet";
}

struct Greetings;

impl Module for Greetings {
    fn name(&self) -> &'static str {
        "greetings"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        app.route(Route::post("/greet/{name}", greet).summary("Greets somebody, durably.").public());
        Ok(())
    }
}

async fn greet(
    State(services): State<Container>,
    Ctx(context): Ctx,
    Path(name): Path<String>,
) -> runtime::http::Result<Json<String>> {
    let job = services.get(JOBS).await?.enqueue_typed(&context, &Greet { name }).await?;
    Ok(Json(job.id.to_string()))
}

#[tokio::main]
async fn main() -> Result<runtime::app::ExitReport, Box<dyn std::error::Error>> {
    let jobs = JobsModule::new().handle(|_, job: Greet| async move { Ok(format!("hello, {}", job.name)) });
    let config = Config::builder().process_env().build()?;
    let app = App::new(config)
        .with(runtime::telemetry::TelemetryModule::new())
        .with(runtime::db::DbModule::new().default_url("sqlite::memory:"))
        .with(runtime::migrate::MigrateModule::new())
        .with(jobs)
        .with(Greetings)
        .with(HttpModule::new("greetings", "1"))
        .build()?;
    Ok(app.run().await)
}
