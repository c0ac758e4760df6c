//! The other queues, each in the version and at the settings its authors publish.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

pub mod apalis;
pub mod awa;
pub mod graphile;
pub mod underway;

/// What every job carries: about forty bytes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Payload {
    n: usize,
    text: String,
}

impl Payload {
    pub fn new(n: usize) -> Self {
        Self { n, text: "forty bytes or so".to_owned() }
    }
}

/// How many handlers have been run.
#[derive(Clone, Debug, Default)]
pub struct Ran(Arc<AtomicUsize>);

impl Ran {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
