//! One bucket, held for a moment: what is owed, under which rate, and what may be given back.

use std::time::Duration;

use crate::history::History;
use crate::outcome::{LimitError, Standing};
use crate::rate::{Rate, decode};
use crate::table::{Found, Table};
use crate::word::{Held, MOST_DEBT, admit, time};

/// A held bucket of the table, or the spare one.
pub(crate) struct Bucket<'a> {
    pub(crate) held: Held<'a>,
    pub(crate) found: Option<Found<'a>>,
    pub(crate) table: &'a Table,
}

impl Bucket<'_> {
    pub(crate) fn debt(&self, now: u64) -> u64 {
        self.held.time().saturating_sub(now)
    }

    /// Brings a debt made under another rate to this one, token for token, rounded against the key. Says which it was.
    pub(crate) fn reprice(&mut self, rate: Rate, now: u64) -> Option<u16> {
        let found = self.found.filter(|found| found.slot.code() != rate.code())?;
        let before = found.slot.code();
        let debt = repriced(self.debt(now), before, rate);
        // Another value than there was, so that nobody who saw that can write over it: full is full a nanosecond earlier.
        let same = u64::from(now + debt == self.held.time());
        self.set(if debt == 0 { now.saturating_sub(same) } else { now + debt + same });
        self.table.recode(found, rate.code());
        Some(before)
    }

    /// Puts so much on the debt.
    pub(crate) fn grant(&mut self, now: u64, nanos: u64) {
        if self.held.time() < now {
            self.set(now);
        }
        let full_at = self.held.time() + nanos.min(MOST_DEBT);
        if let Some(found) = self.found {
            self.table.with_history(found.index, &self.held, |history| history.grant(now, nanos));
        }
        let reserved = self.held.is_reserved();
        self.held.set(full_at, reserved);
    }

    /// What is granted from now on may be given back.
    pub(crate) fn keep_history(&mut self, now: u64, tolerance: u64) {
        if let Some(found) = self.found
            && (!self.held.is_reserved() || self.held.time() < now)
        {
            let full_at = self.held.time();
            self.table.keep_history(found.index, History::new(now, full_at, tolerance));
            self.held.set(full_at.max(now), true);
        }
    }

    /// Takes back part of what was granted at `at`, as far as time has not paid for it.
    pub(crate) fn give_back(&mut self, at: u64, nanos: u64) {
        let full_at = self.found.and_then(|found| {
            self.table.with_history(found.index, &self.held, |history| history.give_back(at, nanos)).flatten()
        });
        if let Some(full_at) = full_at {
            let lower = full_at.min(self.held.time());
            self.held.set(lower, true);
        }
    }

    /// Sets the time the bucket is full again, whatever came before.
    pub(crate) fn set(&mut self, full_at: u64) {
        if let Some(found) = self.found {
            self.table.drop_history(found.index, &self.held);
        }
        self.held.set(full_at, false);
    }
}

pub(crate) fn take_held(
    bucket: &mut Bucket<'_>,
    rate: Rate,
    increment: u64,
    now: u64,
) -> Result<Standing, LimitError> {
    let arrival = now + bucket.debt(now);
    match admit(arrival, now, increment, rate.tolerance()) {
        Ok(next) => {
            bucket.grant(now, increment);
            Ok(Standing::new(next - now, rate))
        }
        Err(wait) => Err(exceeded(wait, arrival, now, rate)),
    }
}

/// A debt made under another rate, at this one: token for token, rounded against the key.
pub(crate) fn repriced(debt: u64, from: u16, to: Rate) -> u64 {
    let debt = (u128::from(debt) * u128::from(to.nanos())).div_ceil(u128::from(decode(from)));
    u64::try_from(debt).unwrap_or(u64::MAX).min(MOST_DEBT)
}

#[cold]
pub(crate) fn exceeded(wait: u64, word: u64, now: u64, rate: Rate) -> LimitError {
    let standing = Standing::new(time(word).saturating_sub(now), rate);
    LimitError::Exceeded { retry_after: Duration::from_nanos(wait), standing }
}
