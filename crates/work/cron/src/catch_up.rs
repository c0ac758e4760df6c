//! Which of the fire times that have come are fired.

use std::collections::VecDeque;

use runtime_kernel::Timestamp;

use crate::schedule::{Misfire, Schedule};
use crate::timetable::Timetable;

/// How far missed fire times are counted.
const COUNTED: u32 = 10_000;

/// What is to be done about a schedule that is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatchUp {
    /// These are fired, the oldest first.
    pub fire: Vec<Timestamp>,
    /// So many were missed and are left out (no more than 10,000 are counted).
    pub missed: u32,
    /// Then this is the next fire time; `None` when it is over.
    pub next: Option<Timestamp>,
}

/// Looks at the fire times from `due` to `now`, both included.
///
/// A tick that is on time makes up for the missed ones too, as [`Misfire::Once`] has it. Those younger than `misfire_after` are all fired. Of the older ones, [`Misfire`] decides.
pub fn catch_up(schedule: &Schedule, timetable: &Timetable, due: Timestamp, now: Timestamp) -> CatchUp {
    let next = timetable.next_after(now);
    if due > now {
        return CatchUp { next: Some(due), ..CatchUp::default() };
    }
    let grace = i64::try_from(schedule.misfire_after.as_micros()).unwrap_or(i64::MAX);
    let young = now.as_microsecond().saturating_sub(grace);
    let wanted = match schedule.misfire {
        Misfire::Skip => 0,
        Misfire::Once => 1,
        Misfire::All { up_to } => up_to,
    };
    let (mut fire, mut made_up, mut missed) = (VecDeque::new(), 0, 0);
    // Backwards, so that a long absence costs no more than a short one.
    let mut at = Timestamp::from_microsecond(now.as_microsecond() + 1).ok();
    while let Some(found) = at.and_then(|at| timetable.previous_before(at)).filter(|found| *found >= due) {
        if found.as_microsecond() >= young {
            fire.push_front(found);
        } else if made_up < wanted && (schedule.misfire != Misfire::Once || fire.is_empty()) {
            made_up += 1;
            fire.push_front(found);
        } else {
            missed += 1;
        }
        if missed >= COUNTED {
            break;
        }
        at = Some(found);
    }
    CatchUp { fire: fire.into(), missed, next }
}
