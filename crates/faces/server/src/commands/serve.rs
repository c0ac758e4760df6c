//! `runtime serve`: runs the service.

use std::sync::Arc;

use runtime_db::DbConfig;
use runtime_kernel::Mode;
use runtime_kernel::config::Config;
use runtime_telemetry::{Telemetry, TelemetryConfig};

use super::{Done, Failure};
use crate::settings::ServerConfig;
use crate::{banner, house};

/// Runs until told to stop; the exit code says why it ended.
pub(super) async fn run(config: Config, mode: Option<Mode>) -> Done {
    let telemetry = TelemetryConfig::of(&config)?;
    let guard = Arc::new(Telemetry::init(telemetry).map_err(runtime_kernel::Error::from)?);

    let server: ServerConfig = config.section()?;
    let db: DbConfig = config.section()?;
    let env = config.environment();
    let data = if db.url.is_empty() {
        server.data_dir.display().to_string()
    } else {
        "the database of db.url".to_owned()
    };
    let built = house::app(config, mode, Some(guard))?.build()?;
    banner::starting(built.mode().as_str(), env.as_str(), &data);
    let report = built.run().await;
    match report.code() {
        0 => Ok(0),
        code => Err(Failure { code: "exit".to_owned(), message: report.to_string(), exit: code }),
    }
}
