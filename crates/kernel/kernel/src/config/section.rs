//! What a part of the configuration says about itself: where it lives, what is locked, secret or reloadable.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A typed part of the configuration, read from one table of the merged tree.
///
/// A section is an ordinary serde struct with `#[serde(default, deny_unknown_fields)]` and a working `Default`.
/// Leaf names in the lists are relative to [`PATH`](Self::PATH) and may be dotted (`"tls.key"`); a name covers
/// everything below it, and `"*"` covers the whole section.
///
/// Two sections must not share or nest their paths.
pub trait Section: Serialize + DeserializeOwned + Default + Send + Sync + 'static {
    /// The dotted path of the section's table: `"http"`, `"db"`.
    const PATH: &'static str;
    /// Leaves that only the super layer may set, unless `env` is `local`.
    const LOCKED: &'static [&'static str] = &[];
    /// Leaves shown as `***` wherever configuration is shown.
    ///
    /// Leaves whose names say so (`password`, `client_secret`, `access_token`, …) are hidden without being listed.
    const SECRET: &'static [&'static str] = &[];
    /// Leaves that a reload may change in a running process; every other change is reported as needing a restart.
    const RELOADABLE: &'static [&'static str] = &[];

    /// Checks what types cannot say, after every layer is merged and the types have been read.
    ///
    /// # Errors
    /// [`Invalid`] names each field that breaks a rule.
    fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// The fields of a section that break a rule. Holds at least one.
///
/// ```
/// use runtime_kernel::config::Invalid;
///
/// let invalid = Invalid::new("port", "must not be 0").and("host", "must not be empty");
/// assert_eq!(invalid.to_string(), "port: must not be 0; host: must not be empty");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    fields: Vec<(String, String)>,
}

impl Invalid {
    /// One field, relative to the section (`"tls.key"`; `""` for the section itself), and the rule it breaks.
    ///
    /// The message must not quote secret values.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { fields: vec![(field.into(), message.into())] }
    }

    /// Adds another field.
    #[must_use]
    pub fn and(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        self.fields.push((field.into(), message.into()));
        self
    }

    /// The fields and the rules they break, in the order they were added.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(field, message)| (field.as_str(), message.as_str()))
    }
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (field, message)) in self.fields.iter().enumerate() {
            let gap = if index == 0 { "" } else { "; " };
            write!(f, "{gap}{field}: {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}
