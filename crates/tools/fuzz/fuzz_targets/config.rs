//! No environment and no assignment makes configuration panic, read it twice and it says the same, and it never shows
//! a secret, neither explained nor in an error.
#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use runtime_kernel::config::{Config, Section};
use runtime_kernel::units::{self, ByteSize};
use serde::{Deserialize, Serialize};

const SECRET: &str = "hunter2-hunter2-hunter2";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Everything {
    text: String,
    maybe: Option<u32>,
    number: i64,
    size: ByteSize,
    #[serde(with = "units::duration")]
    time: Duration,
    list: Vec<String>,
    table: BTreeMap<String, f64>,
    token: String,
}

impl Section for Everything {
    const PATH: &'static str = "all";
    const SECRET: &'static [&'static str] = &["token"];
    const LOCKED: &'static [&'static str] = &["number"];
}

fuzz_target!(|text: &str| {
    let said = || {
        let mut builder = Config::builder().env([("RUNTIME__ALL__TOKEN", SECRET)]);
        for line in text.lines().take(16) {
            builder = match line.split_once('=') {
                Some((name, value)) if name.starts_with("--") => {
                    builder.assign(&format!("{}={value}", name.trim_start_matches('-')))
                }
                Some((name, value)) => builder.env([(format!("RUNTIME__{name}"), value.to_owned())]),
                None => builder.assign(line),
            };
        }
        match builder.section::<Everything>().build() {
            Ok(config) => config.explain().to_string(),
            Err(error) => error.to_string(),
        }
    };
    let (once, again) = (said(), said());
    assert_eq!(once, again);
    assert!(!once.contains(SECRET) || text.contains(SECRET), "{once}");
});
