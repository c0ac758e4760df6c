//! A module of one's own: a typed section, a service in the container, and a route that uses it.

use std::sync::Arc;

use runtime::http::axum::extract::State;
use runtime::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct GreetingConfig {
    greeting: String,
}

impl Section for GreetingConfig {
    const PATH: &'static str = "greeting";
}

struct Greeter(String);

const GREETER: Token<Greeter> = Token::new("example.greeter");

struct GreetingModule;

impl Module for GreetingModule {
    fn name(&self) -> &'static str {
        "greeting"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config: GreetingConfig = app.section()?;
        app.services().value(GREETER, Arc::new(Greeter(config.greeting)));
        app.route(
            Route::get("/hello", hello).summary("Says hello.").public().answers_empty(200, "A greeting."),
        );
        Ok(())
    }
}

async fn hello(State(services): State<Container>) -> runtime::http::Result<Json<String>> {
    Ok(Json(services.get(GREETER).await?.0.clone()))
}

#[tokio::main]
async fn main() -> Result<runtime::app::ExitReport, Box<dyn std::error::Error>> {
    let config = Config::builder().set("greeting.greeting", "hello").process_env().build()?;
    let app = App::new(config)
        .with(runtime::telemetry::TelemetryModule::new())
        .with(GreetingModule)
        .with(HttpModule::new("greeting", "1"))
        .build()?;
    Ok(app.run().await)
}
