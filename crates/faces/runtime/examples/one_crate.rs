//! One crate alone: a retry policy around any call, with no app, no configuration and nothing started.

use std::time::Duration;

use runtime::kernel::SystemClock;
use runtime::prelude::*;
use runtime::resilience::{RetryPolicy, SharedRng, retry};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let policy =
        RetryPolicy::exponential(Duration::from_millis(10), Duration::from_secs(1))?.with_max_attempts(5)?;
    let context = Context::new(runtime::kernel::Source::Cli, &SystemClock);
    let mut rng = SharedRng::from_os();
    let answer = retry(&policy, &SystemClock, &context, &mut rng, |attempt| async move {
        if attempt < 3 {
            return Err(Error::new(ErrorKind::Unavailable, "demo.busy", "not yet"));
        }
        Ok(attempt)
    })
    .await?;
    println!("answered at attempt {answer}");
    Ok(())
}
