//! Messages that become jobs.

use std::sync::Arc;

use runtime_events::{Publisher, Receipt};
use runtime_jobs::store::Filter;
use runtime_jobs::{Jobs, JobsConfig, MemoryStore, NewJob};
use runtime_kernel::{Error, Name, SystemClock, TenantContext};
use runtime_outbox::{Channel, JobSink, MemoryOutbox, OutboxStore};

use super::common::{Running, config, context, message};

fn jobs() -> Jobs {
    let clock = SystemClock::shared();
    Jobs::new(MemoryStore::new(clock.clone()), JobsConfig::default(), clock)
}

#[tokio::test]
async fn a_message_published_twice_is_one_job_of_its_tenant() {
    let jobs = jobs();
    let sink = JobSink::new(jobs.clone(), SystemClock::shared());
    let name = |text: &str| Name::new(text).unwrap();
    let tenant = context().with_tenant(TenantContext::tenant(name("main"), name("red")));
    let event = message("1", "k").event;
    let of_red = runtime_events::Message::new(&SystemClock, &tenant, "send.mail", event).unwrap();
    for (sent, expected) in [
        (of_red.clone(), Receipt::New),
        (of_red.clone(), Receipt::Duplicate),
        (message("1", "k"), Receipt::New),
    ] {
        assert_eq!(sink.publish(&[sent]).await.unwrap(), [expected]);
    }
    let found = jobs.list(&tenant, Filter { limit: 10, ..Filter::default() }).await.unwrap();
    assert_eq!((found.len(), found[0].kind.as_str()), (1, "send.mail"));
    assert_eq!(found[0].payload["id"], "1");
    assert_eq!(found[0].context.traceparent.get(3..35), of_red.context.traceparent.get(3..35), "one trace");
}

#[tokio::test]
async fn a_message_no_job_can_be_made_of_is_parked() {
    let jobs = jobs();
    let sink = JobSink::new(jobs.clone(), SystemClock::shared()).made_by(|message| {
        if message.event.id() == "bad" {
            Err(Error::invalid("no such mail"))
        } else {
            Ok(NewJob::new("mail", 1.into()))
        }
    });
    let outbox: Arc<dyn OutboxStore> = Arc::new(MemoryOutbox::new(SystemClock::shared()));
    let _relay = Running::with(&outbox, Arc::new(sink), config(), SystemClock::shared());
    outbox.add(&Channel::default(), &[message("bad", "k"), message("2", "k")]).await.unwrap();
    let filter = || Filter { limit: 10, ..Filter::default() };
    runtime_testkit::until("the job", async || !jobs.list(&context(), filter()).await.unwrap().is_empty())
        .await
        .unwrap();
    let parked = outbox.parked(&Channel::default(), None, 0, 10).await.unwrap().remove(0);
    assert!(parked.failure.unwrap().message.contains("no such mail"));
}
