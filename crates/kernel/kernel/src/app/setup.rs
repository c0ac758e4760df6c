//! An app being put together.

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::built::{BuiltApp, Disposed};
use super::start::StartHook;
use super::{CLOCK, CONFIG, Module, SHUTDOWN, Service, SetupError, SupervisionConfig};
use crate::config::{Config, Section};
use crate::container::{Container, Services};
use crate::lifecycle::{Shutdown, ShutdownConfig, Stage};
use crate::{Error, Mode, SharedClock, SystemClock};

/// An app being put together: modules register into it, [`build`](Self::build) checks it, nothing runs yet.
pub struct App {
    config: Config,
    mode: Mode,
    clock: SharedClock,
    services: Services,
    shutdown: Shutdown,
    disposed: Disposed,
    starting: Vec<StartHook>,
    running: Vec<Arc<dyn Service>>,
    contributions: HashMap<TypeId, Box<dyn Any + Send>>,
    modules: Vec<Box<dyn Module>>,
}

impl App {
    /// An app over a configuration, with nothing in it. Its mode is the configuration's.
    pub fn new(config: Config) -> Self {
        let shutdown = Shutdown::new();
        let disposed = Disposed::default();
        let container = disposed.clone();
        // Registered before anybody else's, so that it runs after all of them.
        shutdown.hook(Stage::Close, "container", Duration::MAX, move || container.dispose());
        Self {
            mode: config.mode(),
            config,
            clock: SystemClock::shared(),
            services: Services::new(),
            shutdown,
            disposed,
            starting: Vec::new(),
            running: Vec::new(),
            contributions: HashMap::new(),
            modules: Vec::new(),
        }
    }

    /// Sets what the process does, whatever the configuration says.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the clock. Shutdown budgets are real time whatever it says.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Adds a module. Modules are registered in the order they are added.
    #[must_use]
    pub fn with(mut self, module: impl Module) -> Self {
        self.modules.push(Box::new(module));
        self
    }

    /// The typed section a module reads: validated, with every layer merged. Declares it too, so that its keys
    /// are known when unknown ones are refused.
    ///
    /// # Errors
    /// [`ConfigError`](crate::config::ConfigError) names the path, the layer and the place of the bad value.
    pub fn section<T: Section>(&mut self) -> Result<T, SetupError> {
        Ok(self.config.section::<T>()?)
    }

    /// The whole configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What this process does.
    pub fn running_mode(&self) -> Mode {
        self.mode
    }

    /// The process's clock.
    pub fn shared_clock(&self) -> SharedClock {
        Arc::clone(&self.clock)
    }

    /// The service registry. The app itself adds [`CLOCK`], [`CONFIG`] and [`SHUTDOWN`].
    pub fn services(&mut self) -> &mut Services {
        &mut self.services
    }

    /// Where shutdown hooks are registered.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Adds a long-running part.
    pub fn service(&mut self, service: impl Service) {
        self.running.push(Arc::new(service));
    }

    /// Adds what has to be done before any service starts: migrations, warm-up. Hooks run in the order they were
    /// added, one after another; the first failure ends the process with a code of its own ([`exit_code`]).
    ///
    /// A hook is dropped when the end is asked for while it runs.
    ///
    /// [`exit_code`]: super::exit_code
    pub fn on_start<F, W>(&mut self, name: impl Into<Cow<'static, str>>, hook: F)
    where
        F: FnOnce(Container) -> W + Send + 'static,
        W: Future<Output = Result<(), Error>> + Send + 'static,
    {
        self.starting.push(StartHook::new(name.into(), hook));
    }

    /// The app's one value of a type, for modules to add to and higher crates to read: `app.contribute::<Routes>()`.
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "the map is keyed by the type it holds"
    )]
    pub fn contribute<T: Default + Send + 'static>(&mut self) -> &mut T {
        self.contributions
            .entry(TypeId::of::<T>())
            .or_insert_with(|| Box::<T>::default())
            .downcast_mut()
            .expect("keyed by its type")
    }

    /// Takes a contribution out, leaving an empty one. In [`Module::finish`] it is complete.
    pub fn take_contribution<T: Default + Send + 'static>(&mut self) -> T {
        std::mem::take(self.contribute::<T>())
    }

    /// Registers and finishes every module, refuses unknown configuration, checks the graph of services.
    ///
    /// Nothing is constructed and nothing is started.
    ///
    /// # Errors
    /// The first module that refuses, with its name; a module added twice; every unknown key; every problem of the
    /// graph.
    pub fn build(mut self) -> Result<BuiltApp, SetupError> {
        let shutdown: ShutdownConfig = self.section()?;
        self.shutdown.configure(shutdown);
        let supervision: SupervisionConfig = self.section()?;
        self.services.value(CLOCK, Arc::clone(&self.clock));
        self.services.value(CONFIG, self.config.clone());
        self.services.value(SHUTDOWN, self.shutdown.clone());

        let modules = std::mem::take(&mut self.modules);
        let mut names = HashSet::new();
        for module in &modules {
            if !names.insert(module.name()) {
                return Err(SetupError::DuplicateModule(module.name()));
            }
        }
        for module in &modules {
            module.register(&mut self).map_err(|error| error.within(module.name()))?;
        }
        for module in &modules {
            module.finish(&mut self).map_err(|error| error.within(module.name()))?;
        }
        self.config.check_unknown()?;

        let container = self.services.build()?;
        self.disposed.hold(container.clone());
        Ok(BuiltApp {
            container,
            config: self.config,
            mode: self.mode,
            clock: self.clock,
            shutdown: self.shutdown,
            supervision,
            starting: self.starting,
            running: self.running,
            disposed: self.disposed,
        })
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("mode", &self.mode)
            .field("services", &self.services)
            .field("modules", &self.modules.iter().map(|module| module.name()).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
