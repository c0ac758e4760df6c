//! The smallest server: `hello [port]`, with limits short enough for tests to see them.

use std::time::Duration;

use runtime_http::{HttpConfig, Json, Result, Route, Server, Stack, router};
use runtime_kernel::SystemClock;

async fn hello() -> Result<Json<&'static str>> {
    Ok(Json("hello"))
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut config = HttpConfig::default();
    config.port = std::env::args().nth(1).map_or(Ok(0), |port| port.parse())?;
    config.header_timeout = Duration::from_secs(1);
    let routes = vec![Route::get("/hello", hello).public()];
    let server = Server::bind(config, router(routes, Stack::default(), ()), SystemClock::shared()).await?;
    println!("{}", server.address());
    server.serve(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await;
    Ok(())
}
