//! Work that keeps a crate's own house: what modules contribute, and whoever runs it takes.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::Error;
use crate::container::Container;

type Pass = dyn Fn(Container) -> Pin<Box<dyn Future<Output = Result<u64, Error>> + Send>> + Send + Sync;

/// A piece of maintenance: forgetting what is past its time, collecting what nobody refers to.
///
/// It is run again and again, by any process, and may be cut off anywhere: each pass finds out anew what there is to do.
#[derive(Clone)]
#[must_use]
pub struct MaintenanceTask {
    name: String,
    when: String,
    pass: Arc<Pass>,
}

impl MaintenanceTask {
    /// A task by its name (a lower-case word such as `events`, or some joined by hyphens), when it is run unless an
    /// operator says otherwise (a cron expression, or `@every 10m`), and what one pass does. A pass says how much it did.
    pub fn new<F, W>(name: impl Into<String>, when: impl Into<String>, pass: F) -> Self
    where
        F: Fn(Container) -> W + Send + Sync + 'static,
        W: Future<Output = Result<u64, Error>> + Send + 'static,
    {
        Self {
            name: name.into(),
            when: when.into(),
            pass: Arc::new(move |services| Box::pin(pass(services))),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it is run unless an operator says otherwise.
    pub fn when(&self) -> &str {
        &self.when
    }

    /// Does one pass and says how much was done.
    ///
    /// # Errors
    /// What the pass brings; what it had done until then is done.
    pub async fn run(&self, services: Container) -> Result<u64, Error> {
        (self.pass)(services).await
    }
}

impl fmt::Debug for MaintenanceTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaintenanceTask")
            .field("name", &self.name)
            .field("when", &self.when)
            .finish_non_exhaustive()
    }
}

/// The app's maintenance: `app.contribute::<Maintenance>()`.
///
/// A module adds its tasks in [`register`](super::Module::register). Whoever runs them by schedule (the server does) takes
/// them there too, being added after the others. In [`finish`](super::Module::finish) a module asks whether its task was
/// taken, and keeps house by itself when it was not: each task is run in one way only.
///
/// ```
/// use runtime_kernel::app::{App, Maintenance, MaintenanceTask};
/// use runtime_kernel::config::Config;
///
/// let mut app = App::new(Config::default());
/// let maintenance = app.contribute::<Maintenance>();
/// maintenance.add(MaintenanceTask::new("blobs", "H 3 * * *", |_services| async { Ok(0) }));
/// assert!(!maintenance.is_taken("blobs"));
/// assert_eq!(maintenance.take().len(), 1);
/// assert!(maintenance.is_taken("blobs"));
/// ```
#[derive(Debug, Default)]
pub struct Maintenance {
    tasks: Vec<MaintenanceTask>,
    taken: BTreeSet<String>,
}

impl Maintenance {
    /// Adds a task.
    pub fn add(&mut self, task: MaintenanceTask) {
        self.tasks.push(task);
    }

    /// Takes the tasks added so far, to run them. Of two with one name both are given: refuse them.
    pub fn take(&mut self) -> Vec<MaintenanceTask> {
        self.taken.extend(self.tasks.iter().map(|task| task.name.clone()));
        std::mem::take(&mut self.tasks)
    }

    /// Whether somebody took the task of this name.
    pub fn is_taken(&self, name: &str) -> bool {
        self.taken.contains(name)
    }
}
