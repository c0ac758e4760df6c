//! Who did what to what, when, on whose behalf, and how it ended.

use std::borrow::Cow;

use runtime_kernel::{Context, Name, Principal, PrincipalKind, Source, TenantContext, Timestamp, Uuid};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How much an event matters, and with it what happens when the queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For the record. Dropped, counted and reported when the queue is full.
    #[default]
    Info,
    /// Worth a look. Treated as `Info`.
    Warning,
    /// Must not be lost: whoever records it waits until it is durable, and learns when it is not.
    Critical,
}

impl Severity {
    /// The severity in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// How what was tried ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    #[default]
    Success,
    /// It went wrong.
    Failure,
    /// It was not allowed.
    Denied,
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// What kind of actor.
    pub kind: PrincipalKind,
    /// Its id.
    pub id: String,
    /// The realm its credentials belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<Name>,
    /// The tenant its credentials name, which need not be the one it acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Name>,
}

impl From<&Principal> for Actor {
    fn from(principal: &Principal) -> Self {
        Self {
            kind: principal.kind,
            id: principal.id.to_string(),
            realm: principal.realm.clone(),
            tenant: principal.tenant.clone(),
        }
    }
}

/// What it was done to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// What kind of thing: `api_key`, `job`.
    pub kind: Cow<'static, str>,
    /// Its id.
    pub id: String,
}

/// One thing that happened and must be answerable for.
///
/// Made with [`AuditEvent::new`]; its id and time are set when it is recorded, and what it carries is redacted then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditEvent {
    /// Unique (UUIDv7); the same when a write was tried twice.
    pub id: Uuid,
    /// When it was recorded.
    pub ts: Timestamp,
    /// What was done, dotted: `keys.created`, `auth.failed`.
    pub action: Cow<'static, str>,
    /// How much it matters.
    pub severity: Severity,
    /// How it ended.
    pub outcome: Outcome,
    /// Who did it; absent for a caller who proved nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// What it was done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Whose data it touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantContext>,
    /// The request it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The trace it belongs to, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// What set the work going.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// In words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What else is known. Values under secret names, and secrets in texts, become `***`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub meta: Map<String, Value>,
}

impl AuditEvent {
    /// Something that was done: severity info, outcome success, nothing else known.
    pub fn new(action: impl Into<Cow<'static, str>>) -> Self {
        Self {
            id: Uuid::nil(),
            ts: Timestamp::UNIX_EPOCH,
            action: action.into(),
            severity: Severity::Info,
            outcome: Outcome::Success,
            actor: None,
            target: None,
            tenant: None,
            request_id: None,
            trace_id: None,
            source: None,
            message: None,
            meta: Map::new(),
        }
    }

    /// Takes actor, tenant, request, trace and source from the work it is part of.
    #[must_use]
    pub fn context(mut self, context: &Context) -> Self {
        self.actor = context.principal.as_deref().map(Actor::from);
        self.tenant = context.tenant.as_deref().cloned();
        self.request_id = Some(context.request_id.to_string());
        self.trace_id = Some(context.trace.trace_id_hex());
        self.source = Some(context.source);
        self
    }

    /// Sets who did it.
    #[must_use]
    pub fn actor(mut self, actor: impl Into<Actor>) -> Self {
        self.actor = Some(actor.into());
        self
    }

    /// Sets what it was done to.
    #[must_use]
    pub fn target(mut self, kind: impl Into<Cow<'static, str>>, id: impl Into<String>) -> Self {
        self.target = Some(Target { kind: kind.into(), id: id.into() });
        self
    }

    /// Sets how it ended.
    #[must_use]
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// Sets how much it matters.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Says it in words.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Adds what else is known.
    #[must_use]
    pub fn meta(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.meta.insert(name.into(), value.into());
        self
    }
}
