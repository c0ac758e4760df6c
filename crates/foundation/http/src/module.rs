//! Wires the HTTP server into an `App`.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use axum::Router;
use runtime_kernel::app::{App, Module, Run, Service, SetupError};
use runtime_kernel::container::Container;
use runtime_kernel::lifecycle::Stage;
use runtime_kernel::{Error, Mode};

use crate::config::HttpConfig;
use crate::metrics::HttpMetrics;
use crate::openapi::openapi;
use crate::phase::{Phase, Stack};
use crate::route::{Route, RouteInfo};
use crate::router::router;
use crate::server::Server;

/// Told the address the server listens on.
type Tell = Box<dyn Fn(&str) + Send>;

/// What modules contribute to the HTTP server. Handlers get the app's [`Container`] as their axum state.
#[derive(Default)]
pub struct HttpParts {
    routes: Vec<Route<Container>>,
    everywhere: Vec<Route<Container>>,
    stack: Stack<Container>,
    listening: Vec<Tell>,
}

/// What an app can do once it serves HTTP.
pub trait HttpApp {
    /// Adds a route, served in the modes `api` and `all`.
    fn route(&mut self, route: Route<Container>);
    /// Adds a route that every mode serves: probes and metrics.
    fn route_everywhere(&mut self, route: Route<Container>);
    /// Adds a layer in its phase: `|router, container| router.layer(MyLayer::new())`. It is put in place once every
    /// start hook has run, so what those have built can be taken from the container.
    fn layer(
        &mut self,
        phase: Phase,
        name: &'static str,
        apply: impl FnOnce(Router<Container>, &Container) -> Router<Container> + Send + 'static,
    );
    /// Called with the address once the server listens.
    fn on_listening(&mut self, tell: impl Fn(&str) + Send + 'static);
    /// What is known of the routes this process will serve.
    fn routes(&mut self) -> Vec<RouteInfo>;
    /// Phase and name of every layer, outermost first.
    fn stack(&mut self) -> Vec<(Phase, &'static str)>;
}

impl HttpApp for App {
    fn route(&mut self, route: Route<Container>) {
        self.contribute::<HttpParts>().routes.push(route);
    }

    fn route_everywhere(&mut self, route: Route<Container>) {
        self.contribute::<HttpParts>().everywhere.push(route);
    }

    fn layer(
        &mut self,
        phase: Phase,
        name: &'static str,
        apply: impl FnOnce(Router<Container>, &Container) -> Router<Container> + Send + 'static,
    ) {
        self.contribute::<HttpParts>().stack.add(phase, name, apply);
    }

    fn on_listening(&mut self, tell: impl Fn(&str) + Send + 'static) {
        self.contribute::<HttpParts>().listening.push(Box::new(tell));
    }

    fn routes(&mut self) -> Vec<RouteInfo> {
        let api = self.running_mode().includes(Mode::Api);
        let parts = self.contribute::<HttpParts>();
        let own = parts.routes.iter().filter(|_| api);
        own.chain(&parts.everywhere).map(|route| route.info.clone()).collect()
    }

    fn stack(&mut self) -> Vec<(Phase, &'static str)> {
        self.contribute::<HttpParts>().stack.describe()
    }
}

/// Serves what modules contribute: section `http`, the document at `/openapi.json`, a drain in stage `Intake`.
///
/// Every mode listens; modes other than `api` and `all` serve only what is contributed for every mode.
#[derive(Clone, Debug)]
pub struct HttpModule {
    title: &'static str,
    version: &'static str,
}

impl HttpModule {
    /// A server whose OpenAPI document has this title and version.
    pub fn new(title: &'static str, version: &'static str) -> Self {
        Self { title, version }
    }
}

impl Module for HttpModule {
    fn name(&self) -> &'static str {
        "http"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let _: HttpConfig = app.section()?;
        Ok(())
    }

    fn finish(&self, app: &mut App) -> Result<(), SetupError> {
        let config: HttpConfig = app.section()?;
        let infos = app.routes();
        let api = app.running_mode().includes(Mode::Api);
        let document =
            serde_json::to_vec(&openapi(self.title, self.version, &infos)).map_err(Error::internal)?;
        let mut parts = app.take_contribution::<HttpParts>();
        if !api {
            parts.routes.clear();
        }
        parts.routes.append(&mut parts.everywhere);
        parts.routes.push(document_route(document.into()));
        app.service(HttpService { config, parts: Mutex::new(Some(parts)) });
        Ok(())
    }
}

fn document_route(document: bytes::Bytes) -> Route<Container> {
    let answer = move || {
        let document = document.clone();
        async move { ([(http::header::CONTENT_TYPE, "application/json")], document) }
    };
    Route::get("/openapi.json", answer).summary("This document.").public().unlogged()
}

struct HttpService {
    config: HttpConfig,
    parts: Mutex<Option<HttpParts>>,
}

#[async_trait]
impl Service for HttpService {
    fn name(&self) -> &'static str {
        "http"
    }

    fn stops_at(&self) -> Stage {
        Stage::Intake
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        let parts = parts.ok_or_else(|| Error::internal("the HTTP server cannot be started twice"))?;
        #[cfg(feature = "metrics")]
        let metrics = {
            let registry = run.services.get(runtime_telemetry::METRICS).await?;
            HttpMetrics::new(&registry, parts.routes.len()).map_err(Error::internal)?
        };
        #[cfg(not(feature = "metrics"))]
        let metrics = HttpMetrics::default();
        let router = router(parts.routes, parts.stack, run.services.clone());
        let server = Server::bind_with(self.config.clone(), router, run.clock.clone(), metrics).await?;
        for tell in &parts.listening {
            tell(server.address());
        }
        drop(parts.listening);
        tracing::info!(address = server.address(), "listening");
        server.serve(run.stop.stopped()).await;
        Ok(())
    }
}
