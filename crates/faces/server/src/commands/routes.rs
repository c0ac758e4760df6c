//! `runtime routes`: what is served, and the layers in front of it.

use runtime_http::HttpApp;
use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::config::Config;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};

use super::Done;
use crate::house;
use crate::output::{Output, table};

/// Lists routes or layers.
pub(super) fn run(config: Config, stack: bool, output: Output) -> Done {
    let seen = Arc::new(Mutex::new(Value::Null));
    let spy = Spy { stack, seen: Arc::clone(&seen) };
    // Wired in with the rest, it sees what every module has contributed before the server takes it.
    house::app_with(config, None, spy)?.build()?;
    let rows = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    let header: &[&str] = if stack { &["phase", "layer"] } else { &["method", "path", "access", "summary"] };
    output.print(&rows, |rows| {
        let cell =
            |row: &Value, name: &&str| row.get(*name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let rows: Vec<Vec<String>> = rows
            .as_array()
            .into_iter()
            .flatten()
            .map(|row| header.iter().map(|name| cell(row, name)).collect())
            .collect();
        table(header, &rows)
    });
    Ok(0)
}

struct Spy {
    stack: bool,
    seen: Arc<Mutex<Value>>,
}

impl Module for Spy {
    fn name(&self) -> &'static str {
        "routes"
    }

    fn register(&self, _: &mut App) -> Result<(), SetupError> {
        Ok(())
    }

    fn finish(&self, app: &mut App) -> Result<(), SetupError> {
        let rows: Vec<Value> = if self.stack {
            app.stack()
                .iter()
                .map(|(phase, name)| json!({ "phase": phase.as_str(), "layer": name }))
                .collect()
        } else {
            let access = |public, scope: Option<&str>| match (public, scope) {
                (true, _) => "public".to_owned(),
                (false, scope) => scope.unwrap_or("any key").to_owned(),
            };
            let row = |route: runtime_http::RouteInfo| json!({ "method": route.method.as_str(), "path": route.path, "access": access(route.public, route.scope), "summary": route.summary });
            app.routes().into_iter().map(row).collect()
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Value::Array(rows);
        Ok(())
    }
}
