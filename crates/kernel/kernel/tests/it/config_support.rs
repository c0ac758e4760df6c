//! Sections and files the configuration tests share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use runtime_kernel::config::{Config, ConfigBuilder, ConfigError, Invalid, Section};
use runtime_kernel::units::ByteSize;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Style {
    #[default]
    Plain,
    Pretty,
    Custom {
        width: u8,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Http {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) offset: i32,
    pub(crate) ratio: f64,
    pub(crate) verbose: bool,
    #[serde(with = "runtime_kernel::units::duration")]
    pub(crate) timeout: Duration,
    pub(crate) max_body: ByteSize,
    pub(crate) limit: Option<u32>,
    pub(crate) tags: Vec<String>,
    pub(crate) ports: Vec<u16>,
    pub(crate) style: Style,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) tls: Tls,
    pub(crate) password: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) cert: Option<String>,
    pub(crate) min_version: u8,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            host: "localhost".into(),
            port: 3000,
            offset: 0,
            ratio: 0.5,
            verbose: false,
            timeout: Duration::from_secs(30),
            max_body: ByteSize::mib(10),
            limit: None,
            tags: vec!["a".into()],
            ports: Vec::new(),
            style: Style::Plain,
            labels: BTreeMap::new(),
            tls: Tls { cert: None, min_version: 12 },
            password: String::new(),
        }
    }
}

impl Section for Http {
    const PATH: &'static str = "http";
    const RELOADABLE: &'static [&'static str] = &["tags", "tls", "port", "limit", "password"];

    fn validate(&self) -> Result<(), Invalid> {
        if self.port == 0 {
            return Err(Invalid::new("port", "must not be 0").and("", "is not usable"));
        }
        if self.timeout < Duration::from_millis(u64::from(self.port)) {
            return Err(Invalid::new("timeout", "is shorter than the port is long"));
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Db {
    #[serde(alias = "dsn")]
    pub(crate) url: String,
    pub(crate) admin_url: Option<String>,
    pub(crate) max_connections: u32,
    pub(crate) replica: Replica,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Replica {
    pub(crate) url: Option<String>,
    pub(crate) lag: u32,
}

impl Default for Db {
    fn default() -> Self {
        Self { url: "sqlite:x.db".into(), admin_url: None, max_connections: 10, replica: Replica::default() }
    }
}

impl Section for Db {
    const PATH: &'static str = "db";
    const LOCKED: &'static [&'static str] = &["url", "admin_url", "replica.url"];
    const SECRET: &'static [&'static str] = &["url"];
    const RELOADABLE: &'static [&'static str] = &["max_connections"];
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct S3 {
    pub(crate) endpoint: Option<String>,
    pub(crate) bucket: String,
}

impl Section for S3 {
    const PATH: &'static str = "s3";
    const LOCKED: &'static [&'static str] = &["*"];
}

/// A file in a directory of its own.
pub(crate) struct Fixture {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

pub(crate) fn file(name: &str, text: &str) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    Fixture { directory, path }
}

impl Fixture {
    /// An error's text with the file's directory left out.
    pub(crate) fn short(&self, error: &ConfigError) -> String {
        error.to_string().replace(&format!("{}/", self.directory.path().display()), "")
    }

    pub(crate) fn write(&self, text: &str) {
        std::fs::write(&self.path, text).unwrap();
    }
}

pub(crate) fn env(pairs: &[(&str, &str)]) -> ConfigBuilder {
    Config::builder().env(pairs.iter().map(|(name, value)| (*name, *value)))
}
