//! The laws every outbox and every inbox keeps, stated once and run on each.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_events::{CloudEvent, Message};
use runtime_kernel::{Context, Name, Source, SystemClock, TenantContext};

use crate::config::OnParked;
use crate::error::OutboxError;
use crate::inbox::{InboxStore, Once};
use crate::store::{Channel, Claim, ClaimRequest, Failure, OutboxStore, Settled, Verdict};

const LEASE: Duration = Duration::from_secs(30);

/// A store under test, and its time.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The outbox, empty at first.
    fn outbox(&self) -> Arc<dyn OutboxStore>;
    /// The inbox, empty at first.
    fn inbox(&self) -> Arc<dyn InboxStore>;
    /// Lets time pass for both.
    async fn elapse(&self, by: Duration);
}

/// Runs every law, each on a store of its own.
pub async fn all<H: Harness>(make: impl AsyncFn() -> H) {
    messages_of_a_key_come_in_order(&make().await).await;
    no_key_is_in_two_claims(&make().await).await;
    a_retry_holds_up_its_key_and_nothing_else(&make().await).await;
    a_parked_message_lets_its_key_go_on_or_holds_it(&make().await).await;
    what_is_parked_is_redriven_or_discarded_by_its_tenant(&make().await).await;
    a_lost_claim_comes_again_and_is_settled_by_nobody_else(&make().await).await;
    the_message_that_loses_relays_is_found_and_parked(&make().await).await;
    a_renewed_claim_stays_ones_own(&make().await).await;
    what_is_too_large_is_refused_with_all_beside_it(&make().await).await;
    channels_are_apart_and_counted(&make().await).await;
    context_and_event_come_out_as_they_went_in(&make().await).await;
    an_inbox_says_fresh_once_per_consumer_and_tenant(&make().await).await;
    an_inbox_forgets_what_is_old(&make().await).await;
}

async fn messages_of_a_key_come_in_order(harness: &impl Harness) {
    let outbox = harness.outbox();
    for round in 0..5 {
        let batch: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .flat_map(|key| [0, 1].map(|n| message(&format!("{key}{round}{n}"), key)))
            .collect();
        outbox.add(&Channel::default(), &batch).await.expect("added");
    }
    let mut seen = Vec::new();
    while let Some(claim) = outbox.claim(&request(4)).await.expect("a claim") {
        assert!(claim.messages.len() <= 4, "a claim is no larger than asked for");
        seen.extend(ids(&claim));
        settle(&*outbox, &claim, |_| Verdict::Sent).await;
    }
    assert_eq!(seen.len(), 30, "each comes once: {seen:?}");
    for key in ["a", "b", "c"] {
        let of_key: Vec<_> = seen.iter().filter(|id| id.starts_with(key)).collect();
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
    assert!(outbox.stats().await.expect("stats").is_empty());
}

async fn no_key_is_in_two_claims(harness: &impl Harness) {
    let outbox = harness.outbox();
    add(&*outbox, &[("1", "k"), ("2", "k")]).await;
    let first = claim(&*outbox, 1).await;
    assert_eq!(ids(&first), ["1"]);
    add(&*outbox, &[("3", "k")]).await;
    assert!(outbox.claim(&request(10)).await.expect("none").is_none(), "its key is held");
    settle(&*outbox, &first, |_| Verdict::Sent).await;
    assert_eq!(ids(&claim(&*outbox, 10).await), ["2", "3"]);
}

async fn a_retry_holds_up_its_key_and_nothing_else(harness: &impl Harness) {
    let outbox = harness.outbox();
    add(&*outbox, &[("1", "k"), ("2", "k"), ("x", "")]).await;
    let first = claim(&*outbox, 10).await;
    let settled = first.messages.iter().filter(|one| one.message.event.id() == "1");
    let settled: Vec<_> = settled.map(|one| Settled { seq: one.seq, verdict: retry(5) }).collect();
    assert!(outbox.settle(&first.lease, &settled).await.expect("settled"));
    add(&*outbox, &[("3", "k"), ("y", "")]).await;
    let mut others = Vec::new();
    while let Some(claim) = outbox.claim(&request(10)).await.expect("a claim") {
        others.extend(ids(&claim));
        settle(&*outbox, &claim, |_| Verdict::Sent).await;
    }
    others.sort();
    assert_eq!(others, ["x", "y"]);
    let stats = outbox.stats().await.expect("stats").remove(0);
    assert_eq!((stats.ready, stats.retrying, stats.behind, stats.unsent()), (0, 1, 2, 3));
    harness.elapse(Duration::from_secs(6)).await;
    let again = claim(&*outbox, 10).await;
    assert_eq!(
        (ids(&again), again.messages[0].attempts, again.messages[0].again),
        (vec!["1".to_owned()], 1, true)
    );
    settle(&*outbox, &again, |_| Verdict::Sent).await;
    assert_eq!(ids(&claim(&*outbox, 10).await), ["2", "3"]);
}

async fn a_parked_message_lets_its_key_go_on_or_holds_it(harness: &impl Harness) {
    let outbox = harness.outbox();
    for (on_parked, key) in [(OnParked::Continue, "c"), (OnParked::Hold, "h")] {
        add(&*outbox, &[("1", key), ("2", key)]).await;
        let first = claim(&*outbox, 1).await;
        settle(&*outbox, &first, |_| park(on_parked)).await;
        let next = outbox.claim(&request(10)).await.expect("a claim");
        match (on_parked, next) {
            (OnParked::Continue, Some(claim)) => settle(&*outbox, &claim, |_| Verdict::Sent).await,
            (OnParked::Hold, None) => {}
            (policy, next) => unreachable!("{policy:?} handed out {next:?}"),
        }
    }
    // Held on: what is added now waits as well, until an operator has spoken.
    add(&*outbox, &[("3", "h")]).await;
    assert!(outbox.claim(&request(10)).await.expect("none").is_none());
    let parked = parked(&*outbox).await;
    assert_eq!(parked.iter().map(|parked| parked.holding).collect::<Vec<_>>(), [false, true]);
    let failure = parked[1].failure.as_ref().expect("a reason");
    assert_eq!((failure.code.as_str(), parked[1].attempts), ("test.failed", 3));
    assert_eq!(outbox.redrive(&Channel::default(), None, Some(parked[1].seq)).await.expect("redriven"), 1);
    let claim = claim(&*outbox, 10).await;
    assert_eq!((ids(&claim), claim.messages[0].attempts), (vec!["1".into(), "2".into(), "3".into()], 0));
}

async fn what_is_parked_is_redriven_or_discarded_by_its_tenant(harness: &impl Harness) {
    let (outbox, channel) = (harness.outbox(), Channel::default());
    let (red, blue) = (context(Some("red")), context(Some("blue")));
    let (one, two) = (message_of(&red, "1", "k"), message_of(&blue, "2", "k"));
    let (red, blue) = (one.tenant(), two.tenant());
    outbox.add(&channel, &[one, two]).await.expect("added");
    while let Some(claim) = outbox.claim(&request(10)).await.expect("a claim") {
        settle(&*outbox, &claim, |_| park(OnParked::Hold)).await;
    }
    let of_red = outbox.parked(&channel, Some(&red), 0, 10).await.expect("parked");
    assert!(of_red.len() == 1 && of_red[0].tenant == red, "{of_red:?}");
    let seq = of_red[0].seq;
    assert!(!outbox.discard(&channel, Some(&blue), seq).await.expect("refused"), "it is another's");
    assert_eq!(outbox.redrive(&channel, Some(&blue), Some(seq)).await.expect("refused"), 0);
    assert!(outbox.discard(&channel, Some(&red), seq).await.expect("discarded"));
    assert!(!outbox.discard(&channel, Some(&red), seq).await.expect("gone"));
    assert_eq!(outbox.redrive(&channel, Some(&blue), None).await.expect("redriven"), 1);
    assert_eq!(ids(&claim(&*outbox, 10).await), ["2"]);
    assert!(parked(&*outbox).await.is_empty());
}

async fn a_lost_claim_comes_again_and_is_settled_by_nobody_else(harness: &impl Harness) {
    let outbox = harness.outbox();
    add(&*outbox, &[("1", "k"), ("2", "k")]).await;
    let lost = claim(&*outbox, 10).await;
    harness.elapse(LEASE + Duration::from_secs(1)).await;
    // One by one, because one of them may have been what lost the relay.
    let next = claim(&*outbox, 10).await;
    assert_eq!(ids(&next), ["1"]);
    assert!(!outbox.renew(&lost.lease, LEASE).await.expect("refused"));
    let all: Vec<_> = sent(&lost);
    assert!(!outbox.settle(&lost.lease, &all).await.expect("refused"), "it is another's now");
    settle(&*outbox, &next, |_| Verdict::Sent).await;
    assert_eq!(ids(&claim(&*outbox, 10).await), ["2"], "the late settlement changed nothing");
}

async fn the_message_that_loses_relays_is_found_and_parked(harness: &impl Harness) {
    let outbox = harness.outbox();
    add(&*outbox, &[("1", "k"), ("deadly", "k"), ("3", "k")]).await;
    let mut sent = Vec::new();
    for _ in 0..50 {
        let Some(claim) = outbox.claim(&request(10)).await.expect("a claim") else { break };
        let names = ids(&claim);
        if names.iter().any(|id| id == "deadly") {
            harness.elapse(LEASE + Duration::from_secs(1)).await;
            continue;
        }
        sent.extend(names);
        settle(&*outbox, &claim, |_| Verdict::Sent).await;
    }
    assert_eq!(sent, ["1", "3"]);
    let parked = parked(&*outbox).await;
    let failure = parked[0].failure.as_ref().expect("a reason");
    assert_eq!((parked.len(), parked[0].attempts, failure.code.as_str()), (1, 3, "outbox.lease_expired"));
}

async fn a_renewed_claim_stays_ones_own(harness: &impl Harness) {
    let outbox = harness.outbox();
    add(&*outbox, &[("1", "k")]).await;
    let held = claim(&*outbox, 10).await;
    for _ in 0..3 {
        harness.elapse(LEASE / 2).await;
        assert!(outbox.renew(&held.lease, LEASE).await.expect("renewed"));
        assert!(outbox.claim(&request(10)).await.expect("none").is_none());
    }
    settle(&*outbox, &held, |_| Verdict::Sent).await;
}

async fn what_is_too_large_is_refused_with_all_beside_it(harness: &impl Harness) {
    let outbox = harness.outbox();
    let text = "x".repeat(2 << 20);
    let event = CloudEvent::builder("large", "/laws", "law").json(&text).build().expect("an event");
    let large = Message::new(&SystemClock, &context(None), "topic", event).expect("a message");
    let refused = outbox.add(&Channel::default(), &[message("small", "k"), large]).await;
    assert!(matches!(refused, Err(OutboxError::TooLarge { ref id, .. }) if id == "large"), "{refused:?}");
    assert!(outbox.claim(&request(10)).await.expect("none").is_none());
}

async fn channels_are_apart_and_counted(harness: &impl Harness) {
    let outbox = harness.outbox();
    let other = Channel::new("other").expect("a channel");
    add(&*outbox, &[("1", "k")]).await;
    harness.elapse(Duration::from_mins(1)).await;
    outbox.add(&other, &[message("2", "k"), message("3", "k")]).await.expect("added");
    let stats = outbox.stats().await.expect("stats");
    let counts: Vec<_> = stats.iter().map(|stats| (stats.channel.as_str(), stats.ready)).collect();
    assert_eq!(counts, [("default", 1), ("other", 2)]);
    let age = |at: usize| stats[at].oldest_unsent.expect("an age");
    assert!(age(0) >= Duration::from_mins(1) && age(1) < Duration::from_mins(1), "{stats:?}");
    assert_eq!(ids(&claim(&*outbox, 10).await), ["1"]);
    let claim = outbox.claim(&ClaimRequest { channel: other, ..request(10) }).await.expect("a claim");
    assert_eq!(ids(&claim.expect("a claim")), ["2", "3"]);
}

async fn context_and_event_come_out_as_they_went_in(harness: &impl Harness) {
    let outbox = harness.outbox();
    let event =
        CloudEvent::builder("1", "/laws", "law").subject("s").binary("a/b", vec![0, 255]).key("\"k'\\ü");
    let event = event.extension("ext", "e").build().expect("an event");
    let message = Message::new(&SystemClock, &context(Some("red")), "topic", event).expect("a message");
    outbox.add(&Channel::default(), std::slice::from_ref(&message)).await.expect("added");
    assert_eq!(claim(&*outbox, 10).await.messages[0].message, message);
}

async fn an_inbox_says_fresh_once_per_consumer_and_tenant(harness: &impl Harness) {
    let inbox = harness.inbox();
    let (red, blue, none) = (context(Some("red")), context(Some("blue")), context(None));
    for (context, consumer, id) in [
        (&red, "billing", "1"),
        (&blue, "billing", "1"),
        (&none, "billing", "1"),
        (&red, "mail", "1"),
        (&red, "mail", "2"),
    ] {
        for expected in [Once::Fresh, Once::Seen, Once::Seen] {
            assert_eq!(inbox.mark(context, consumer, id).await.expect("marked"), expected, "{consumer} {id}");
        }
    }
    let long = "x".repeat(1025);
    for (consumer, id) in [("", "1"), ("two words", "1"), ("billing", ""), ("billing", long.as_str())] {
        let refused = inbox.mark(&red, consumer, id).await;
        assert!(matches!(refused, Err(OutboxError::Invalid { .. })), "{consumer} {id}");
    }
}

async fn an_inbox_forgets_what_is_old(harness: &impl Harness) {
    let (inbox, context) = (harness.inbox(), context(None));
    for id in ["1", "2", "3"] {
        assert!(inbox.mark(&context, "c", id).await.expect("marked").is_fresh());
        harness.elapse(Duration::from_secs(10)).await;
    }
    assert_eq!(inbox.prune(Duration::from_secs(15), 1).await.expect("pruned"), 1);
    assert_eq!(inbox.prune(Duration::from_secs(15), 10).await.expect("pruned"), 1);
    assert!(inbox.mark(&context, "c", "1").await.expect("marked").is_fresh(), "forgotten");
    assert_eq!(inbox.mark(&context, "c", "3").await.expect("marked"), Once::Seen);
}

async fn add(outbox: &dyn OutboxStore, messages: &[(&str, &str)]) {
    let messages: Vec<_> = messages.iter().map(|(id, key)| message(id, key)).collect();
    outbox.add(&Channel::default(), &messages).await.expect("added");
}

async fn claim(outbox: &dyn OutboxStore, max: u32) -> Claim {
    outbox.claim(&request(max)).await.expect("a claim").expect("something to send")
}

async fn settle(outbox: &dyn OutboxStore, claim: &Claim, verdict: impl Fn(&str) -> Verdict) {
    let settled = claim.messages.iter();
    let settled: Vec<_> =
        settled.map(|one| Settled { seq: one.seq, verdict: verdict(one.message.event.id()) }).collect();
    assert!(outbox.settle(&claim.lease, &settled).await.expect("settled"), "the claim holds");
}

fn sent(claim: &Claim) -> Vec<Settled> {
    claim.messages.iter().map(|one| Settled { seq: one.seq, verdict: Verdict::Sent }).collect()
}

async fn parked(outbox: &dyn OutboxStore) -> Vec<crate::store::Parked> {
    outbox.parked(&Channel::default(), None, 0, 100).await.expect("parked")
}

fn ids(claim: &Claim) -> Vec<String> {
    claim.messages.iter().map(|claimed| claimed.message.event.id().to_owned()).collect()
}

fn request(max: u32) -> ClaimRequest {
    ClaimRequest {
        channel: Channel::default(),
        max,
        lease: LEASE,
        max_attempts: 3,
        on_parked: OnParked::Continue,
    }
}

fn failure() -> Failure {
    Failure { kind: "invalid".to_owned(), code: "test.failed".to_owned(), message: "no".to_owned() }
}

fn retry(seconds: u64) -> Verdict {
    Verdict::Retry { delay: Duration::from_secs(seconds), attempts: 1, failure: failure() }
}

fn park(on_parked: OnParked) -> Verdict {
    Verdict::Park { attempts: 3, on_parked, failure: failure() }
}

fn context(tenant: Option<&str>) -> Context {
    let context = Context::new(Source::Internal, &SystemClock);
    let Some(tenant) = tenant else { return context };
    let name = |text: &str| Name::new(text).expect("a name");
    context.with_tenant(TenantContext::tenant(name("main"), name(tenant)))
}

fn message(id: &str, key: &str) -> Message {
    message_of(&context(None), id, key)
}

/// A message with an id and a key; an empty key is none.
fn message_of(context: &Context, id: &str, key: &str) -> Message {
    let mut event = CloudEvent::builder(id, "/laws", "law").json(&serde_json::json!({ "id": id }));
    if !key.is_empty() {
        event = event.key(key);
    }
    Message::new(&SystemClock, context, "topic", event.build().expect("an event")).expect("a message")
}
