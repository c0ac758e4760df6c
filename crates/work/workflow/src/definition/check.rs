//! What makes a definition one that can be decided. Every problem is named with its place and a code.

use std::collections::BTreeSet;

use super::condition::MAX_DEPTH;
use super::operand::{compare, regex};
use super::problem::{Problem, ProblemCode};
use super::{
    Approver, Condition, Definition, EscalationAction, Operator, Quorum, Repeat, Requirement, Sla, Span,
    Step, StepKind, Test,
};
use crate::calendar::Hours;

/// Steps a definition may have.
pub const MAX_STEPS: usize = 100;
/// Entries any of its lists may have.
pub(super) const MAX_LIST: usize = 200;
/// Bytes a name may have.
const MAX_NAME: usize = 128;

impl Definition {
    /// Everything that is wrong with it; nothing when it can be registered.
    pub fn problems(&self) -> Vec<Problem> {
        let mut check = Check { found: Vec::new(), calendar: self.calendar.is_some() };
        check.name("code", &self.code);
        check.name("entity_type", &self.entity_type);
        check.condition("when", self.when.as_ref(), 0);
        if let Some(calendar) = &self.calendar
            && let Err(bad) = Hours::new(calendar)
        {
            check.add(format!("calendar.{}", bad.key), ProblemCode::BadCalendar, bad.why);
        }
        check.sla("sla", self.sla.as_ref(), false);
        check.count("steps", self.steps.len(), MAX_STEPS);
        if self.steps.is_empty() {
            check.add("steps", ProblemCode::NoSteps, "a workflow without steps decides nothing");
        }
        for (index, step) in self.steps.iter().enumerate() {
            check.step(&format!("steps[{index}]"), step);
        }
        check.order(self);
        check.found
    }
}

pub(super) struct Check {
    found: Vec<Problem>,
    calendar: bool,
}

impl Check {
    pub(super) fn add(&mut self, path: impl Into<String>, code: ProblemCode, message: impl Into<String>) {
        self.found.push(Problem { path: path.into(), code, message: message.into() });
    }

    fn name(&mut self, path: &str, text: &str) {
        let alphabet = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(alphabet) {
            let message = format!("must be 1 to {MAX_NAME} letters, digits, `_`, `-` or `.`");
            self.add(path, ProblemCode::BadName, message);
        }
    }

    pub(super) fn count(&mut self, path: &str, len: usize, most: usize) {
        if len > most {
            self.add(path, ProblemCode::TooMany, format!("has {len} entries; at most {most} are accepted"));
        }
    }

    fn step(&mut self, path: &str, step: &Step) {
        self.name(&format!("{path}.id"), &step.id);
        let at = format!("{path}.approvers");
        if step.approvers.is_empty() {
            self.add(&at, ProblemCode::NoApprovers, "nobody would ever decide it");
        }
        self.approvers(&at, &step.approvers);
        self.approvers(&format!("{path}.fallback"), &step.fallback);
        self.quorum(&format!("{path}.requirement"), step);
        let when = format!("{path}.when");
        match (step.kind, &step.when) {
            (StepKind::Conditional, None) => {
                self.add(&when, ProblemCode::MissingCondition, "a conditional step needs one");
            }
            (StepKind::Sequential | StepKind::Parallel, Some(_)) => {
                self.add(&when, ProblemCode::UselessCondition, "only a conditional step has one");
            }
            _ => {}
        }
        self.condition(&when, step.when.as_ref(), 0);
        self.condition(&format!("{path}.skip_when"), step.skip_when.as_ref(), 0);
        self.condition(&format!("{path}.auto_approve_when"), step.auto_approve_when.as_ref(), 0);
        self.sla(&format!("{path}.sla"), step.sla.as_ref(), true);
    }

    fn approvers(&mut self, path: &str, approvers: &[Approver]) {
        self.count(path, approvers.len(), MAX_LIST);
        let mut seen: Vec<&Approver> = Vec::new();
        for (index, approver) in approvers.iter().enumerate() {
            let at = format!("{path}[{index}]");
            let (Approver::User(name)
            | Approver::Role(name)
            | Approver::Group(name)
            | Approver::Field(name)
            | Approver::Dynamic(name)) = approver;
            if name.trim().is_empty() || name.len() > 2 * MAX_NAME {
                self.add(&at, ProblemCode::BadApprover, "must be 1 to 256 bytes");
            }
            if seen.contains(&approver) {
                self.add(&at, ProblemCode::BadApprover, "is listed twice");
            }
            seen.push(approver);
        }
    }

    /// Only people that are listed one by one can be counted beforehand; others are counted when they are found.
    fn quorum(&mut self, path: &str, step: &Step) {
        let Requirement::Quorum(quorum) = step.requirement else { return };
        match quorum {
            Quorum::Count(0) => {
                self.add(path, ProblemCode::BadQuorum, "a quorum of nobody is always reached");
            }
            Quorum::Percent(percent) if !(1..=100).contains(&percent) => {
                self.add(path, ProblemCode::BadQuorum, format!("{percent} % is not 1 to 100 %"));
            }
            Quorum::Count(count) => {
                let listed: BTreeSet<_> = step
                    .approvers
                    .iter()
                    .map(|approver| if let Approver::User(user) = approver { Some(user) } else { None })
                    .collect();
                let people = listed.len();
                if !listed.contains(&None) && people < usize::try_from(count).unwrap_or(usize::MAX) {
                    let message = format!("{count} must agree, and {people} are asked");
                    self.add(path, ProblemCode::QuorumUnreachable, message);
                }
            }
            Quorum::Percent(_) => {}
        }
    }

    fn condition(&mut self, path: &str, condition: Option<&Condition>, depth: usize) {
        let Some(condition) = condition else { return };
        if depth > MAX_DEPTH {
            let message = format!("is nested deeper than {MAX_DEPTH}");
            self.add(path, ProblemCode::BadCondition, message);
            return;
        }
        match condition {
            Condition::All(list) | Condition::Any(list) => {
                let key = if matches!(condition, Condition::All(_)) { "all" } else { "any" };
                if list.is_empty() {
                    self.add(path, ProblemCode::BadCondition, format!("`{key}` of nothing says nothing"));
                }
                self.count(path, list.len(), MAX_LIST);
                for (index, part) in list.iter().enumerate() {
                    self.condition(&format!("{path}.{key}[{index}]"), Some(part), depth + 1);
                }
            }
            Condition::Not(part) => self.condition(&format!("{path}.not"), Some(part), depth + 1),
            Condition::Is(test) => {
                if let Some(why) = bad_test(test) {
                    self.add(format!("{path}.is"), ProblemCode::BadCondition, why);
                }
            }
        }
    }

    fn sla(&mut self, path: &str, sla: Option<&Sla>, of_step: bool) {
        let Some(sla) = sla else { return };
        self.span(&format!("{path}.due"), sla.due, false);
        if !(1..=99).contains(&sla.warn_at) {
            self.add(format!("{path}.warn_at"), ProblemCode::BadSla, "must be 1 to 99 percent");
        }
        self.count(&format!("{path}.reminders"), sla.reminders.len(), MAX_LIST);
        self.count(&format!("{path}.escalations"), sla.escalations.len(), MAX_LIST);
        for (index, reminder) in sla.reminders.iter().enumerate() {
            let at = format!("{path}.reminders[{index}]");
            self.span(&format!("{at}.after"), reminder.after, true);
            self.repeat(&at, reminder.repeat);
        }
        for (index, escalation) in sla.escalations.iter().enumerate() {
            let at = format!("{path}.escalations[{index}]");
            self.span(&format!("{at}.after"), escalation.after, true);
            self.repeat(&at, escalation.repeat);
            let action = format!("{at}.action");
            if let Some(people) = escalation.action.people() {
                if people.is_empty() {
                    self.add(&action, ProblemCode::NoApprovers, "it names nobody");
                }
                self.approvers(&action, people);
            } else if escalation.repeat.is_some() {
                self.add(&action, ProblemCode::BadSla, "a step is decided once; it cannot be repeated");
            }
            if !of_step && !matches!(escalation.action, EscalationAction::Notify(_)) {
                self.add(&action, ProblemCode::BadSla, "the whole can only notify; the others are for steps");
            }
        }
        if let Some(expires) = sla.expires_after {
            self.span(&format!("{path}.expires_after"), expires, true);
        }
    }

    fn repeat(&mut self, path: &str, repeat: Option<Repeat>) {
        let Some(repeat) = repeat else { return };
        self.span(&format!("{path}.repeat.every"), repeat.every, false);
        if !(1..=1000).contains(&repeat.times) {
            self.add(format!("{path}.repeat.times"), ProblemCode::BadSla, "must be 1 to 1000");
        }
    }

    fn span(&mut self, path: &str, span: Span, zero: bool) {
        if span.amount == 0 && !zero {
            self.add(path, ProblemCode::BadSla, "must be longer than zero");
        }
        if span.unit.is_business() && !self.calendar {
            self.add(path, ProblemCode::CalendarMissing, "business time needs the definition's `calendar`");
        }
    }
}

fn bad_test(test: &Test) -> Option<String> {
    if test.field.is_empty() {
        return Some("`field` is empty".to_owned());
    }
    let op = test.op.as_str();
    if !test.op.takes_value() {
        return (!test.value.is_null()).then(|| format!("`{op}` takes no value"));
    }
    let list = test.value.as_array();
    match test.op {
        Operator::Eq | Operator::Ne => None,
        _ if test.value.is_null() => Some(format!("`{op}` needs a value")),
        Operator::Gt | Operator::Gte | Operator::Lt | Operator::Lte => {
            compare(&test.value, &test.value).is_none().then(|| format!("`{op}` needs a number or a text"))
        }
        Operator::Between => {
            let ordered = matches!(list.map(Vec::as_slice), Some([low, high]) if compare(low, high).is_some_and(std::cmp::Ordering::is_le));
            (!ordered).then(|| "`between` needs a list of two, the lower first".to_owned())
        }
        Operator::In | Operator::NotIn => {
            list.is_none_or(Vec::is_empty).then(|| format!("`{op}` needs a list that is not empty"))
        }
        Operator::StartsWith | Operator::EndsWith => {
            (!test.value.is_string()).then(|| format!("`{op}` needs a text"))
        }
        Operator::Matches => match test.value.as_str() {
            None => Some("`matches` needs a text".to_owned()),
            Some(pattern) => {
                regex(pattern).err().map(|error| format!("`{pattern}` is no regular expression: {error}"))
            }
        },
        _ => None,
    }
}
