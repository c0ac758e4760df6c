//! Commands done in one transaction with all they write, the memory of their answer included.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_db::{Database, DbError, Tx};
use runtime_kernel::Error;

use crate::call::{Answer, Call, Middleware, Next};
use crate::error::CqrsError;
use crate::idempotency::{Go, Once};
use crate::sql::SqlIdempotency;

/// When to ask again for what another transaction is doing: how long that takes cannot be known.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What becomes of a command whose key another transaction works under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repeat {
    /// It waits for the other's end, with a connection of its own, and then has its answer, or is done itself. It waits for
    /// as long as a statement may take or its deadline lets it, and is refused then.
    #[default]
    Wait,
    /// It is refused at once, as [`CqrsError::InFlight`]. On SQLite it waits all the same: there is one writer.
    Refuse,
}

/// Middleware: a command whose handler takes a transaction ([`handle_in`](crate::CommandBusBuilder::handle_in)) gets one,
/// committed when all inside of this middleware said `Ok`, undone on an error, a panic, a passed deadline and when the
/// caller goes away. After a lost race everything inside runs again, as [`Database::transaction`] says.
///
/// With an idempotency key the answer is remembered in the same transaction, in the table of [`SqlIdempotency`]: a command
/// was done and its answer is known, or neither. So there is no lease, and nothing to be given back.
///
/// Other commands pass through it.
#[derive(Clone)]
pub struct Transactional {
    db: Database,
    answers: SqlIdempotency,
    keep: Duration,
    repeat: Repeat,
}

impl Transactional {
    /// Opens transactions of this database. Answers are kept for a day; a repeat waits.
    pub fn new(db: Database) -> Self {
        let answers = SqlIdempotency::new(db.clone());
        Self { db, answers, keep: Duration::from_hours(24), repeat: Repeat::default() }
    }

    /// How long answers are kept.
    #[must_use]
    pub fn keep(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }

    /// What becomes of a command whose key another transaction works under.
    #[must_use]
    pub fn repeat(mut self, repeat: Repeat) -> Self {
        self.repeat = repeat;
        self
    }

    /// One round: all that is inside, in a transaction that the caller ends.
    async fn round(
        &self,
        mut tx: Tx,
        call: Call,
        once: Option<Arc<Once>>,
        next: Next<'_>,
    ) -> Result<Answer, Error> {
        let work = |tx: Tx| {
            let mut call = call;
            call.tx = Some(tx);
            next.run(call)
        };
        let Some(once) = once else { return work(tx).await };
        let fence = match self.take(&mut tx, &once).await? {
            Go::On(fence) => fence,
            Go::Back(answer) => return Ok(answer),
        };
        let answer = tx.lend_to(work).await?;
        let written = once.write(&answer)?;
        if !self.answers.finish_in(&mut tx, &once.key, fence, &written, self.keep).await? {
            // Only a handler that took longer than answers are kept gets here.
            return Err(CqrsError::InFlight { retry_after: ASK_AGAIN }.into());
        }
        Ok(answer)
    }

    async fn take(&self, tx: &mut Tx, once: &Once) -> Result<Go, CqrsError> {
        let busy = CqrsError::InFlight { retry_after: ASK_AGAIN };
        if self.repeat == Repeat::Refuse && !self.answers.alone(tx, &once.key).await? {
            return Err(busy);
        }
        match self.answers.begin_in(tx, &once.key, &once.fingerprint, self.keep).await {
            Err(CqrsError::Db(DbError::StatementTimeout)) => Err(busy),
            begun => once.begun(begun?),
        }
    }
}

#[async_trait]
impl Middleware for Transactional {
    async fn call(&self, call: Call, next: Next<'_>) -> Result<Answer, Error> {
        let Some(again) = call.again.filter(|_| call.tx.is_none()) else { return next.run(call).await };
        let once = Once::of(&call)?.map(Arc::new);
        let (context, name) = (call.context.clone(), call.name);
        let rounds = move |tx: Tx| {
            let round = again(&*call.payload).map(|payload| Call {
                context: call.context.clone(),
                key: call.key.clone(),
                name,
                payload,
                codec: call.codec,
                again: call.again,
                tx: None,
            });
            let (once, next) = (once.clone(), next.clone());
            async move {
                // The payload is of the type its handler was found by.
                let round = round.ok_or(CqrsError::Unknown(name))?;
                self.round(tx, round, once, next).await
            }
        };
        self.db.transaction(&context, rounds).await
    }
}

impl fmt::Debug for Transactional {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transactional")
            .field("keep", &self.keep)
            .field("repeat", &self.repeat)
            .finish_non_exhaustive()
    }
}
