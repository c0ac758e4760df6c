//! Layered configuration: who set what, who may, and what may change while the process runs.
//!
//! Layers, lowest first: the sections' defaults, the file, the environment, the program and its command line,
//! super. Tables merge key by key; arrays and scalars replace; null is a value like any other and overwrites.

mod athyper;
mod builder;
mod crossbridge;
mod de;
mod declared;
mod error;
mod explain;
mod fault;
mod format;
mod layers;
mod lock;
mod module;
mod node;
mod provider;
mod read;
mod redact;
mod reload;
mod root;
mod section;
mod source;
mod state;
mod subscribe;
mod suggest;
mod vars;
mod watch;

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;

pub use builder::ConfigBuilder;
pub use error::{ConfigError, Problem, ProblemKind};
pub use explain::{Explanation, Leaf, Setting};
pub use module::ReloadModule;
pub use reload::{Change, ReloadReport};
pub use root::Environment;
pub use section::{Invalid, Section};
pub use source::{Layer, Place, Source};
pub use subscribe::{Snapshot, Subscription};
pub use watch::{ConfigWatch, WatchOptions};

use crate::Mode;
use declared::Declared;
use layers::{Loaded, Sources};
use read::{Rules, read};
use state::{Shared, State};

/// The merged configuration. Cheap to clone; clones share reloads.
///
/// `Config::default()` has no layers: every section reads as its `Default`.
///
/// ```
/// use runtime_kernel::config::{Config, Section};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// #[serde(default, deny_unknown_fields)]
/// struct Mail { host: String, port: u16 }
/// impl Default for Mail {
///     fn default() -> Self { Self { host: "localhost".into(), port: 25 } }
/// }
/// impl Section for Mail { const PATH: &'static str = "mail"; }
///
/// let config = Config::builder().env([("RUNTIME__MAIL__PORT", " 587 ")]).section::<Mail>().build()?;
/// assert_eq!(config.section::<Mail>()?.port, 587);
///
/// let error = Config::builder().env([("RUNTIME__MAIL__PROT", "587")]).section::<Mail>().build().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "mail.prot: unknown key `prot`, did you mean `port`? (env, RUNTIME__MAIL__PROT)",
/// );
/// # Ok::<(), runtime_kernel::config::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Config {
    shared: Arc<Shared>,
}

impl Config {
    /// Starts with no layers.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// The typed section: every layer merged, types read, locks and rules checked. Declares the section, so that
    /// its keys are known from now on. After a reload, the values in force.
    ///
    /// # Errors
    /// Every problem in the section, each with its path, layer and place.
    pub fn section<T: Section>(&self) -> Result<T, ConfigError> {
        let state = self.shared.with_section::<T>()?;
        let declared = Declared::of::<T>();
        let tree = state.entries.get(&declared.id).map_or(&declared.defaults, |entry| &entry.tree);
        let rules = Rules { path: &declared.path, secret: declared.secret, lenient: state.loaded.lenient };
        let outcome = read::<T>(tree, &declared.defaults, &rules);
        ConfigError::check(outcome.problems)?;
        let missing = || Problem::new(ProblemKind::Invalid, T::PATH, "the section cannot be read").into();
        outcome.value.ok_or_else(missing)
    }

    /// Any path of the merged tree as a type of your own; `None` when nothing is there. Of a section that is not
    /// declared yet, only what the layers above its defaults set. For sections use [`section`](Self::section),
    /// which checks more.
    ///
    /// # Errors
    /// The value does not fit the type.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, ConfigError> {
        let keys = node::segments(path);
        let state = self.state();
        let merged = explain::merged(&state);
        let Some(found) = merged.get(&keys) else { return Ok(None) };
        let rules = Rules { path: &keys, secret: &[], lenient: false };
        let outcome = read::<T>(found, found, &rules);
        ConfigError::check(outcome.problems)?;
        Ok(outcome.value)
    }

    /// Where the process runs (`env`). Fixed at start.
    pub fn environment(&self) -> Environment {
        self.state().root.env
    }

    /// What the process does (`mode`). Fixed at start.
    pub fn mode(&self) -> Mode {
        self.state().root.mode
    }

    /// The service's name (`service_name`), `runtime` unless set. Fixed at start.
    pub fn service_name(&self) -> String {
        self.state().root.service_name.clone()
    }

    /// Refuses top-level keys and variables that no section reads. To be called when every module has declared
    /// its sections; reloads check the same from then on.
    ///
    /// # Errors
    /// One problem for each, with the section that was probably meant.
    pub fn check_unknown(&self) -> Result<(), ConfigError> {
        let mut writer = self.shared.writer();
        ConfigError::check(unknown(&self.state(), &self.state().loaded))?;
        writer.complete = true;
        Ok(())
    }

    /// Every key with its value (secrets hidden), the layer and place that set it, and what it overrode.
    pub fn explain(&self) -> Explanation {
        explain::explain(&self.state())
    }

    /// Subscribes to a section: its value in force now, and a wake-up when a reload changes it.
    ///
    /// # Errors
    /// As [`section`](Self::section).
    pub fn subscribe<T: Section>(&self) -> Result<Subscription<T>, ConfigError> {
        Subscription::new(self.clone())
    }

    /// One consistent view of all sections: a reload never shows half of itself in it.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.state())
    }

    fn over(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    fn state(&self) -> Arc<State> {
        self.shared.state.load_full()
    }
}

impl Default for Config {
    fn default() -> Self {
        let state = State::empty();
        Self::over(Shared::new(Sources::default(), state))
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        let sections: Vec<_> = state.paths().iter().map(|path| node::dotted(path)).collect();
        f.debug_struct("Config")
            .field("version", &state.version)
            .field("sections", &sections)
            .finish_non_exhaustive()
    }
}

/// A problem for every key that no declared section reads.
fn unknown(state: &State, loaded: &Loaded) -> Vec<Problem> {
    let sections = state.declared();
    let strays = loaded.strays(&sections);
    strays.iter().filter(|stray| !stray.tolerated).map(|stray| stray.problem(&sections)).collect()
}
