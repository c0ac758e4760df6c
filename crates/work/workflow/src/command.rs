//! What can be asked of an instance. Serialisable, so that an API can take it as it is.

use runtime_kernel::{Principal, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::definition::ActionKind;
use crate::step::ParkReason;
use crate::timer::Purpose;

/// The scope to decide steps without a seat.
pub const BYPASS: &str = "workflow:bypass";
/// The scope to administer instances.
pub const ADMIN: &str = "workflow:admin";
/// The scope to register and activate definitions.
pub const DEFINE: &str = "workflow:define";
/// The scope to see every instance of the tenant.
pub const READ: &str = "workflow:read";

/// Who acts, and what beyond a participant's rights they have been proved to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The user's id.
    pub id: String,
    /// May decide steps without a seat.
    pub may_bypass: bool,
    /// May administer.
    pub may_administer: bool,
}

impl Actor {
    /// A participant.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), may_bypass: false, may_administer: false }
    }

    /// What a proven principal may do by its scopes.
    pub fn of(principal: &Principal) -> Self {
        Self {
            id: principal.id.to_string(),
            may_bypass: principal.allows(BYPASS),
            may_administer: principal.allows(ADMIN),
        }
    }
}

/// What a participant asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Agrees. The step may be left out by who is asked in one only.
    Approve {
        /// In which step.
        #[serde(default)]
        step: Option<String>,
        /// Said along with it.
        #[serde(default)]
        comment: Option<String>,
    },
    /// Does not agree.
    Reject {
        /// In which step.
        #[serde(default)]
        step: Option<String>,
        /// Why; needed.
        reason: String,
    },
    /// Asks the requester for changes. Everything decided so far is void when they come.
    RequestChanges {
        /// In which step.
        #[serde(default)]
        step: Option<String>,
        /// Which; needed.
        reason: String,
    },
    /// Answers a request for changes; the requester only.
    Resubmit {
        /// The changed entity.
        entity: Value,
    },
    /// Lets somebody else decide.
    Delegate {
        /// In which step.
        #[serde(default)]
        step: Option<String>,
        /// Who.
        to: String,
        /// Why.
        #[serde(default)]
        reason: Option<String>,
    },
    /// Runs a step's next escalation now: somebody asked there or an administrator one that asks or tells people, the
    /// requester one that tells them. None that decides is run before its time.
    Escalate {
        /// Which step.
        step: String,
        /// Why; needed.
        reason: String,
    },
    /// Stops the clock: somebody asked now, or an administrator.
    Hold {
        /// Why; needed.
        reason: String,
    },
    /// Lets it run again: who stopped it, or an administrator.
    Release {},
    /// Takes the request back; the requester only.
    Withdraw {
        /// Why.
        #[serde(default)]
        reason: Option<String>,
    },
    /// Decides a step without a seat; needs the grant.
    Bypass {
        /// Which step.
        step: String,
        /// In favour or against.
        approve: bool,
        /// Why; needed.
        reason: String,
    },
    /// Says something: the requester, anybody who is or was asked, an administrator.
    Comment {
        /// What.
        text: String,
    },
}

impl Action {
    /// What kind it is.
    pub const fn kind(&self) -> ActionKind {
        match self {
            Self::Approve { .. } => ActionKind::Approve,
            Self::Reject { .. } => ActionKind::Reject,
            Self::RequestChanges { .. } => ActionKind::RequestChanges,
            Self::Resubmit { .. } => ActionKind::Resubmit,
            Self::Delegate { .. } => ActionKind::Delegate,
            Self::Escalate { .. } => ActionKind::Escalate,
            Self::Hold { .. } => ActionKind::Hold,
            Self::Release {} => ActionKind::Release,
            Self::Withdraw { .. } => ActionKind::Withdraw,
            Self::Bypass { .. } => ActionKind::Bypass,
            Self::Comment { .. } => ActionKind::Comment,
        }
    }
}

/// What an administrator orders. Each needs a reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "order", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Approves a step, and goes on with the next; or the whole.
    ForceApprove {
        /// Which step; the whole when absent.
        #[serde(default)]
        step: Option<String>,
    },
    /// Rejects a step, and so the whole.
    ForceReject {
        /// Which step; the whole when absent.
        #[serde(default)]
        step: Option<String>,
    },
    /// Gives somebody's undecided seat to somebody else.
    Reassign {
        /// In which step.
        step: String,
        /// Whose.
        from: String,
        /// To whom.
        to: String,
    },
    /// Asks somebody too.
    AddApprover {
        /// In which step.
        step: String,
        /// Whom.
        person: String,
    },
    /// Asks somebody no longer.
    RemoveApprover {
        /// In which step.
        step: String,
        /// Whom.
        person: String,
    },
    /// Leaves a step out.
    SkipStep {
        /// Which.
        step: String,
    },
    /// Starts a step, and all that wait for it, afresh.
    RestartFrom {
        /// Which.
        step: String,
    },
    /// Sets another due time; what is due before and after it moves along.
    SetDeadline {
        /// Of which step; of the whole when absent.
        #[serde(default)]
        step: Option<String>,
        /// When.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        due: Timestamp,
    },
    /// Tries a parked step again: its conditions are read and its approvers looked for once more.
    Retry {
        /// Which.
        step: String,
    },
    /// Somebody is gone: steps that wait for them are parked.
    Deactivated {
        /// Who.
        person: String,
    },
    /// Stops the clock.
    Hold {},
    /// Lets it run again.
    Release {},
    /// Ends the instance.
    Cancel {},
}

impl Order {
    /// As errors and logs name it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ForceApprove { .. } => "force_approve",
            Self::ForceReject { .. } => "force_reject",
            Self::Reassign { .. } => "reassign",
            Self::AddApprover { .. } => "add_approver",
            Self::RemoveApprover { .. } => "remove_approver",
            Self::SkipStep { .. } => "skip_step",
            Self::RestartFrom { .. } => "restart_from",
            Self::SetDeadline { .. } => "set_deadline",
            Self::Retry { .. } => "retry",
            Self::Deactivated { .. } => "deactivated",
            Self::Hold {} => "hold",
            Self::Release {} => "release",
            Self::Cancel {} => "cancel",
        }
    }
}

/// Everything that moves an instance.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A participant acts.
    Act {
        /// Who.
        by: Actor,
        /// What.
        action: Action,
    },
    /// An administrator orders.
    Order {
        /// Who.
        by: Actor,
        /// What.
        order: Order,
        /// Why; needed.
        reason: String,
    },
    /// People that were wanted have been found.
    Found {
        /// For which step; for the whole when absent.
        step: Option<String>,
        /// For what.
        purpose: Purpose,
        /// Who.
        people: Vec<String>,
    },
    /// People that were wanted could not be found.
    NotFound {
        /// For which step; for the whole when absent.
        step: Option<String>,
        /// For what.
        purpose: Purpose,
        /// Why.
        reason: ParkReason,
        /// In words.
        message: String,
        /// Whether it may be tried again by itself.
        again: bool,
    },
    /// Time has passed.
    Tick,
}
