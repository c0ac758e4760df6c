//! `runtime doctor`: checks everything the service needs and says what is wrong.

use std::time::Duration;

use runtime_db::DB;
use runtime_http::HttpConfig;
use runtime_jobs::JOBS;
use runtime_kernel::Error;
use runtime_kernel::config::Config;
use runtime_kernel::container::Container;
use runtime_migrate::MIGRATOR;
use serde::Serialize;

use super::{Done, bare_container};
use crate::output::{GREEN, Output, RED, RESET, YELLOW};

/// How long one check may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one check found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    ok: bool,
    /// Worth a look, though the service runs.
    warning: bool,
    says: String,
}

impl Finding {
    fn of(check: &'static str, result: Result<String, String>) -> Self {
        let (ok, says) = result.map_or_else(|says| (false, says), |says| (true, says));
        Self { check, ok, warning: false, says }
    }
}

/// Runs every check; exit code 1 when one fails.
pub(super) async fn run(config: Config, output: Output) -> Done {
    let http: HttpConfig = config.section()?;
    let container = bare_container(config)?;
    let findings = vec![
        Finding::of("configuration", Ok("every key is known and valid".to_owned())),
        address(&http).await,
        Finding::of("database", timed(database(&container)).await),
        schema(&container).await,
        unhandled(&container).await,
    ];
    container.dispose().await;
    let failed = findings.iter().any(|finding| !finding.ok);
    output.print(&findings, |findings| {
        let line = |finding: &Finding| {
            let mark = match (finding.ok, finding.warning) {
                (false, _) => format!("{RED}fail{RESET}"),
                (true, true) => format!("{YELLOW}warn{RESET}"),
                (true, false) => format!("{GREEN}  ok{RESET}"),
            };
            format!("{mark}  {:<14} {}", finding.check, finding.says)
        };
        findings.iter().map(line).collect::<Vec<_>>().join("\n")
    });
    Ok(u8::from(failed))
}

async fn timed(check: impl Future<Output = Result<String, Error>>) -> Result<String, String> {
    match tokio::time::timeout(PATIENCE, check).await {
        Ok(result) => result.map_err(|error| error.report()),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}

async fn address(http: &HttpConfig) -> Finding {
    let address = std::net::SocketAddr::new(http.host, http.port);
    let mut finding = match tokio::net::TcpListener::bind(address).await {
        Ok(_) => Finding::of("address", Ok(format!("{address} is free"))),
        Err(error) => Finding::of("address", Ok(format!("{address}: {error}; a running server may have it"))),
    };
    finding.warning = !finding.says.ends_with("free");
    finding
}

async fn database(container: &Container) -> Result<String, Error> {
    let db = container.get(DB).await?;
    db.ping().await?;
    Ok(format!("{} answers", db.dialect()))
}

async fn schema(container: &Container) -> Finding {
    let pending = timed(async {
        let migrator = container.get(MIGRATOR).await?;
        Ok(migrator.dry_run().await?.len().to_string())
    });
    match Box::pin(pending).await.as_deref() {
        Ok("0") => Finding::of("schema", Ok("up to date".to_owned())),
        Ok(n) => Finding {
            warning: true,
            ..Finding::of("schema", Ok(format!("{n} migrations pending: `runtime migrate`")))
        },
        Err(error) => Finding::of("schema", Err(error.to_owned())),
    }
}

async fn unhandled(container: &Container) -> Finding {
    let stats = timed(async {
        let stats = container.get(JOBS).await?.stats().await?;
        Ok(stats.unhandled.join(", "))
    });
    match stats.await.as_deref() {
        Ok("") => Finding::of("jobs", Ok("every waiting kind has a live worker".to_owned())),
        Ok(kinds) => {
            Finding { warning: true, ..Finding::of("jobs", Ok(format!("no live worker handles {kinds}"))) }
        }
        // Before the first migration there are no tables to ask.
        Err(_) => Finding {
            warning: true,
            ..Finding::of("jobs", Ok("not known before `runtime migrate`".to_owned()))
        },
    }
}
