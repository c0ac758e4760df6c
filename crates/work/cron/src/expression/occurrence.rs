//! Turns matching local times into instants, in order, whatever the clock does.
//!
//! The instants of an expression are a set: each matching local time adds its one instant; one that comes twice adds
//! the first, the second or both; one that is jumped over adds none, or the second before or after the gap. Next and
//! previous are the neighbours in that set.

use super::dialect::{DstGap, DstOverlap};
use super::{CronExpression, Fields};
use crate::zone::{Change, Local, Zone};

/// Two instants with the same offset that are no further apart than this have no change between them that matters: no
/// zone changes its clock twice within it (a test looks at all of them).
const NEAR: i64 = 12 * 3600;

impl CronExpression {
    /// The first second after one.
    pub(crate) fn next_second(&self, after: i64, zone: &Zone) -> Option<i64> {
        let fields = self.fields();
        let offset = zone.offset(after);
        let local = after + offset;
        let found = fields.first_from(local + 1)?;
        let resolved = zone.resolve(found);
        if let Local::Once(instant) = resolved
            && found - instant == offset
            && found - local <= NEAR
        {
            return Some(instant);
        }
        self.next_with_changes(after, local, offset, zone)
    }

    /// The last second before one.
    pub(crate) fn previous_second(&self, before: i64, zone: &Zone) -> Option<i64> {
        let fields = self.fields();
        let offset = zone.offset(before);
        let local = before + offset;
        let found = fields.last_until(local - 1)?;
        let resolved = zone.resolve(found);
        if let Local::Once(instant) = resolved
            && found - instant == offset
            && local - found <= NEAR
        {
            return Some(instant);
        }
        self.previous_with_changes(before, local, offset, zone)
    }

    fn next_with_changes(&self, after: i64, local: i64, offset: i64, zone: &Zone) -> Option<i64> {
        let (fields, dst) = (self.fields(), self.dst());
        let mut from = local + 1;
        if let Some((change, first_pass)) = overlap_at(local, offset, zone) {
            let (old, new) = (change.old - change.at, change.new - change.at);
            if first_pass
                && dst.overlap != DstOverlap::Last
                && let Some(found) = within(fields, from, change.old)
            {
                return Some(found - old);
            }
            if dst.overlap != DstOverlap::First {
                let from = if first_pass { change.new } else { from };
                if let Some(found) = within(fields, from, change.old) {
                    return Some(found - new);
                }
            }
            from = change.old;
        }
        loop {
            let found = fields.first_from(from)?;
            match zone.resolve(found) {
                Local::Once(instant) => return Some(instant),
                Local::Twice(_, later) if dst.overlap == DstOverlap::Last => return Some(later),
                Local::Twice(earlier, _) => return Some(earlier),
                Local::Never(old, new) => {
                    let change = zone.change(found - new, old, new)?;
                    let instant = match dst.gap {
                        DstGap::Skip => None,
                        DstGap::FireAfter => Some(change.at),
                        DstGap::FireBefore => Some(change.at - 1),
                    };
                    if let Some(instant) = instant.filter(|instant| *instant > after) {
                        return Some(instant);
                    }
                    from = change.new;
                }
            }
        }
    }

    fn previous_with_changes(&self, before: i64, local: i64, offset: i64, zone: &Zone) -> Option<i64> {
        let (fields, dst) = (self.fields(), self.dst());
        let mut until = local - 1;
        if let Some((change, first_pass)) = overlap_at(local, offset, zone) {
            let (old, new) = (change.old - change.at, change.new - change.at);
            if !first_pass
                && dst.overlap != DstOverlap::First
                && let Some(found) = since(fields, until, change.new)
            {
                return Some(found - new);
            }
            if dst.overlap != DstOverlap::Last {
                let until = if first_pass { until } else { change.old - 1 };
                if let Some(found) = since(fields, until, change.new) {
                    return Some(found - old);
                }
            }
            until = change.new - 1;
        }
        loop {
            let found = fields.last_until(until)?;
            match zone.resolve(found) {
                Local::Once(instant) => return Some(instant),
                Local::Twice(earlier, _) if dst.overlap == DstOverlap::First => return Some(earlier),
                Local::Twice(_, later) => return Some(later),
                Local::Never(old, new) => {
                    let change = zone.change(found - new, old, new)?;
                    let instant = match dst.gap {
                        DstGap::Skip => None,
                        DstGap::FireAfter => Some(change.at),
                        DstGap::FireBefore => Some(change.at - 1),
                    };
                    if let Some(instant) = instant.filter(|instant| *instant < before) {
                        return Some(instant);
                    }
                    until = change.old - 1;
                }
            }
        }
    }
}

/// The change whose overlap a local time lies in, and whether the clock shows it for the first time.
fn overlap_at(local: i64, offset: i64, zone: &Zone) -> Option<(Change, bool)> {
    let Local::Twice(earlier, later) = zone.resolve(local) else { return None };
    let (old, new) = (local - earlier, local - later);
    zone.change(earlier, old, new).map(|change| (change, offset == old))
}

fn within(fields: &Fields, from: i64, end: i64) -> Option<i64> {
    fields.first_from(from).filter(|found| *found < end)
}

fn since(fields: &Fields, until: i64, start: i64) -> Option<i64> {
    fields.last_until(until).filter(|found| *found >= start)
}
