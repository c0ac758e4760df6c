//! What of a saga is under way, and what it waits for.

use runtime_kernel::Timestamp;

use crate::instance::ParkReason;
use crate::run::Run;
use crate::state::Fault;
use crate::store::Signal;

/// Something of the saga is under way until this is dropped.
pub(crate) struct Busy<'a>(&'a Run);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.lock().busy -= 1;
        self.0.look.notify_one();
    }
}

struct Waiting<'a>(&'a Run, u64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waits.remove(&self.1);
    }
}

impl Run {
    /// Lets the code do something new, unless it is to stop: then it must [`block`](Self::block).
    pub(crate) fn begin(&self) -> Option<Busy<'_>> {
        let mut state = self.lock();
        if !state.may_go_on() {
            return None;
        }
        let limit = self.shared.config.max_journal;
        if state.history.last >= limit {
            // Nothing is begun whose outcome could not be kept.
            state.fault = Some(Fault::Park(Box::new(ParkReason::JournalFull { limit })));
            return None;
        }
        state.busy += 1;
        Some(Busy(self))
    }

    /// Stays where it is: the code is to stop.
    pub(crate) async fn block<T>(&self) -> T {
        let _waiting = self.wait_from(None);
        std::future::pending().await
    }

    fn may_go_on(&self) -> bool {
        self.lock().may_go_on()
    }

    fn wait_from(&self, until: Option<Timestamp>) -> Waiting<'_> {
        let mut state = self.lock();
        state.next_wait += 1;
        let number = state.next_wait;
        state.waits.insert(number, until);
        Waiting(self, number)
    }

    /// Waits, in memory as long as something else of the saga is under way.
    pub(crate) async fn wait_until(&self, until: Timestamp) {
        let mut left = until.duration_since(self.now());
        while !left.is_zero() {
            let _waiting = self.wait_from(Some(until));
            self.shared.clock.sleep(left).await;
            left = until.duration_since(self.now());
        }
    }

    /// The same, but no longer than the code may do something new.
    pub(crate) async fn wait_for_turn(&self, until: Timestamp) {
        let mut news = self.news.subscribe();
        while self.may_go_on() && until > self.now() {
            tokio::select! {
                () = self.wait_until(until) => return,
                _ = news.changed() => {}
            }
        }
    }

    /// Waits for a signal that nobody has consumed, until a time.
    pub(crate) async fn take_signal(
        &self,
        name: &str,
        until: Option<Timestamp>,
    ) -> Option<(Busy<'_>, Signal)> {
        let mut news = self.news.subscribe();
        loop {
            {
                let mut state = self.lock();
                if state.may_go_on() {
                    let free = |signal: &&Signal| {
                        signal.name == name
                            && !state.history.received.contains(&signal.number)
                            && !state.taken.contains(&signal.number)
                    };
                    if let Some(signal) = state.signals.iter().find(free).cloned() {
                        state.taken.insert(signal.number);
                        state.busy += 1;
                        return Some((Busy(self), signal));
                    }
                    if until.is_some_and(|until| until <= self.now()) {
                        return None;
                    }
                }
            }
            let _waiting = self.wait_from(until);
            let left = until.map(|until| until.duration_since(self.now())).filter(|left| !left.is_zero());
            tokio::select! {
                _ = news.changed() => {}
                () = async {
                    match left {
                        Some(left) => self.shared.clock.sleep(left).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
        }
    }
}
