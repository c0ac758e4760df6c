//! The laws of an event log, seen from its port.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{message, message_of};
use crate::error::EventsError;
use crate::log::{Claim, ClaimRequest, EventLog, Failure, From, Settled, SubscriptionSpec, Verdict};
use crate::message::Message;
use crate::publisher::Receipt;

/// A log under test, and a way to let its time pass.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The log, empty at first.
    fn log(&self) -> Arc<dyn EventLog>;
    /// Lets so much of the log's time pass.
    async fn elapse(&self, by: Duration);
}

const LEASE: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_mins(1);
const TOPIC: &str = "orders";

/// Runs every law, each on a log of its own.
pub async fn log<H: Harness>(make: impl AsyncFn() -> H) {
    positions_follow_each_other_and_duplicates_are_taken_once(&make().await).await;
    many_at_once_keep_their_order_and_their_receipts(&make().await).await;
    a_subscription_begins_where_it_is_told_and_is_one_thing(&make().await).await;
    a_claim_is_exclusive_fenced_and_settled_once(&make().await).await;
    what_is_not_settled_comes_again(&make().await).await;
    a_failed_event_holds_up_its_key_and_nothing_else(&make().await).await;
    what_waited_behind_keeps_its_order(&make().await).await;
    a_parked_event_lets_its_key_go_on_and_can_be_redriven_or_discarded(&make().await).await;
    a_lost_consumer_is_found_out_by_handing_out_one_by_one(&make().await).await;
    partitions_share_the_keys_and_miss_none(&make().await).await;
    tenants_have_keys_and_duplicates_of_their_own(&make().await).await;
    a_subscription_that_is_rewound_reads_again_what_is_kept(&make().await).await;
    only_what_everybody_has_done_with_is_forgotten(&make().await).await;
    lag_says_what_is_left(&make().await).await;
}

fn request(max: u32) -> ClaimRequest {
    ClaimRequest { subscription: "s".to_owned(), worker: "w".to_owned(), max, lease: LEASE, max_attempts: 3 }
}

fn spec(partitions: u32) -> SubscriptionSpec {
    SubscriptionSpec::new("s", TOPIC).and_then(|spec| spec.partitions(partitions)).expect("a spec")
}

async fn publish(log: &dyn EventLog, messages: &[Message]) -> Vec<Receipt> {
    log.publish(messages).await.expect("published")
}

async fn claim(log: &dyn EventLog, max: u32) -> Option<Claim> {
    log.claim(&request(max)).await.expect("claimed")
}

async fn settle(log: &dyn EventLog, claim: &Claim, verdicts: &[(u64, Verdict)]) -> bool {
    let settled: Vec<_> = verdicts
        .iter()
        .map(|(position, verdict)| Settled { position: *position, verdict: verdict.clone() })
        .collect();
    log.settle(claim, &settled).await.expect("settled")
}

/// Settles all of a claim as done.
async fn done(log: &dyn EventLog, claim: &Claim) -> bool {
    let verdicts: Vec<_> = claim.events.iter().map(|event| (event.stored.position, Verdict::Done)).collect();
    settle(log, claim, &verdicts).await
}

fn ids(claim: &Claim) -> Vec<&str> {
    claim.events.iter().map(|event| event.stored.message.event.id()).collect()
}

fn failure() -> Failure {
    Failure {
        kind: "unavailable".to_owned(),
        code: "test.failed".to_owned(),
        message: "on purpose".to_owned(),
    }
}

fn retry() -> Verdict {
    Verdict::Retry(MINUTE, failure())
}

async fn positions_follow_each_other_and_duplicates_are_taken_once<H: Harness>(harness: &H) {
    let log = harness.log();
    let first = [message(TOPIC, "1", "k"), message(TOPIC, "2", ""), message(TOPIC, "1", "k")];
    assert_eq!(publish(&*log, &first).await, [Receipt::New, Receipt::New, Receipt::Duplicate]);
    assert_eq!(publish(&*log, &[message(TOPIC, "2", "")]).await, [Receipt::Duplicate]);
    assert_eq!(publish(&*log, &[message("other", "1", "k")]).await, [Receipt::New], "another topic");
    publish(&*log, &[message(TOPIC, "3", "k")]).await;
    let read = log.read(TOPIC, 0, 10).await.expect("read");
    let seen: Vec<_> = read.iter().map(|it| (it.position, it.message.event.id())).collect();
    assert_eq!(seen, [(1, "1"), (2, "2"), (3, "3")]);
    assert_eq!(read[0].message, first[0], "whole: attributes, data, context");
    assert_eq!(log.read(TOPIC, 2, 10).await.expect("read").len(), 1);
    assert_eq!(log.read(TOPIC, 0, 2).await.expect("read").len(), 2);
    assert_eq!(log.bounds(TOPIC).await.expect("read").newest, 3);
    assert_eq!(log.bounds("nothing").await.expect("read").newest, 0);
}

async fn many_at_once_keep_their_order_and_their_receipts<H: Harness>(harness: &H) {
    let log = harness.log();
    let tenants = [None, Some("acme")];
    // More than one statement takes; every seventh is there before, every eleventh comes twice.
    let known = |n: usize| n.is_multiple_of(7);
    let (mut messages, mut receipts) = (Vec::new(), Vec::new());
    for n in 0..2_300_usize {
        let (tenant, topic) = (tenants[n % 2], ["orders", "others"][n / 2 % 2]);
        let message = message_of(tenant, topic, &n.to_string(), "k\u{1f5dd}\"'\\");
        if known(n) {
            assert_eq!(publish(&*log, std::slice::from_ref(&message)).await, [Receipt::New]);
        }
        let receipt = if known(n) { Receipt::Duplicate } else { Receipt::New };
        receipts.push(receipt);
        messages.push(message.clone());
        if n.is_multiple_of(11) {
            receipts.push(Receipt::Duplicate);
            messages.push(message);
        }
    }
    assert_eq!(publish(&*log, &messages).await, receipts);
    assert_eq!(publish(&*log, &messages).await, vec![Receipt::Duplicate; messages.len()]);
    assert!(publish(&*log, &[]).await.is_empty());
    for topic in ["orders", "others"] {
        let stored = log.read(topic, 0, 10_000).await.expect("read");
        let fresh = (0..2_300).filter(|n| ["orders", "others"][n / 2 % 2] == topic);
        let (before, after): (Vec<_>, Vec<_>) = fresh.partition(|n| known(*n));
        let ids: Vec<_> = stored.iter().map(|it| it.message.event.id().to_owned()).collect();
        let wanted: Vec<_> = before.into_iter().chain(after).map(|n: usize| n.to_string()).collect();
        assert_eq!(ids, wanted);
        assert!(stored.iter().zip(1..).all(|(it, place)| it.position == place), "without gaps");
        let of = |n: usize| stored.iter().find(|it| it.message.event.id() == n.to_string());
        let sent = messages.iter().find(|it| it.topic == topic && it.context.tenant.is_some());
        let got = sent.and_then(|it| it.event.id().parse().ok()).and_then(of);
        assert_eq!(got.map(|it| &it.message), sent, "as it was sent");
    }
}

async fn a_subscription_begins_where_it_is_told_and_is_one_thing<H: Harness>(harness: &H) {
    let log = harness.log();
    publish(&*log, &[message(TOPIC, "1", ""), message(TOPIC, "2", "")]).await;
    for (from, first) in [(From::Beginning, "1"), (From::After(1), "2"), (From::End, "End")] {
        assert!(log.subscribe(&spec(1).from(from)).await.expect("made"));
        assert!(!log.subscribe(&spec(1)).await.expect("there"));
        publish(&*log, &[message(TOPIC, &format!("{from:?}").replace(['(', ')'], ""), "")]).await;
        let claimed = claim(&*log, 1).await.expect("something");
        assert_eq!(ids(&claimed), [first], "{from:?}");
        assert!(log.unsubscribe("s").await.expect("forgotten"));
        assert!(!log.unsubscribe("s").await.expect("forgotten before"));
    }
    assert!(matches!(log.claim(&request(1)).await, Err(EventsError::NoSubscription(_))));
    log.subscribe(&spec(1)).await.expect("made");
    assert!(matches!(log.subscribe(&spec(2)).await, Err(EventsError::Config { .. })));
    let elsewhere =
        SubscriptionSpec::new("s", "elsewhere").and_then(|spec| spec.partitions(1)).expect("a spec");
    assert!(matches!(log.subscribe(&elsewhere).await, Err(EventsError::Config { .. })));
}

async fn a_claim_is_exclusive_fenced_and_settled_once<H: Harness>(harness: &H) {
    let log = harness.log();
    log.subscribe(&spec(1)).await.expect("made");
    publish(&*log, &[message(TOPIC, "1", ""), message(TOPIC, "2", "")]).await;
    let slow = claim(&*log, 10).await.expect("events");
    assert!(claim(&*log, 10).await.is_none(), "held");
    harness.elapse(LEASE / 2).await;
    assert!(log.renew(&slow.lease, LEASE).await.expect("renewed"));
    harness.elapse(LEASE / 2 + Duration::from_secs(1)).await;
    assert!(claim(&*log, 10).await.is_none(), "still held");
    harness.elapse(MINUTE).await;
    assert!(!log.renew(&slow.lease, LEASE).await.expect("asked"), "it does not come back to life");
    assert!(!done(&*log, &slow).await, "nor settle");
    let quick = claim(&*log, 10).await.expect("events");
    assert!(quick.lease.fence > slow.lease.fence);
    assert!(!done(&*log, &slow).await);
    assert!(done(&*log, &quick).await);
    assert!(!done(&*log, &quick).await, "once is enough");
}

async fn what_is_not_settled_comes_again<H: Harness>(harness: &H) {
    let log = harness.log();
    log.subscribe(&spec(1)).await.expect("made");
    let all: Vec<_> = ["1", "2", "3", "4"].map(|id| message(TOPIC, id, "")).into();
    publish(&*log, &all).await;
    let claimed = claim(&*log, 10).await.expect("events");
    assert_eq!(ids(&claimed), ["1", "2", "3", "4"]);
    assert!(settle(&*log, &claimed, &[(1, Verdict::Done), (3, Verdict::Done)]).await);
    let again = claim(&*log, 10).await.expect("the rest");
    assert_eq!(ids(&again), ["2", "3", "4"], "from the first without a verdict on");
    assert!(settle(&*log, &again, &[]).await, "given back");
    assert_eq!(ids(&claim(&*log, 2).await.expect("again")), ["2", "3"]);
}

async fn a_failed_event_holds_up_its_key_and_nothing_else<H: Harness>(harness: &H) {
    let log = harness.log();
    log.subscribe(&spec(1)).await.expect("made");
    publish(&*log, &[message(TOPIC, "a1", "a"), message(TOPIC, "b1", "b"), message(TOPIC, "x", "")]).await;
    let claimed = claim(&*log, 10).await.expect("events");
    assert!(settle(&*log, &claimed, &[(1, retry()), (2, Verdict::Done), (3, retry())]).await);
    publish(&*log, &[message(TOPIC, "a2", "a"), message(TOPIC, "b2", "b"), message(TOPIC, "y", "")]).await;
    let next = claim(&*log, 10).await.expect("what came since");
    assert_eq!(ids(&next), ["a2", "b2", "y"]);
    assert_eq!(next.events.iter().map(|event| event.held).collect::<Vec<_>>(), [true, false, false]);
    assert!(settle(&*log, &next, &[(4, Verdict::Behind), (5, Verdict::Done), (6, Verdict::Done)]).await);
    assert!(claim(&*log, 10).await.is_none(), "the delay has not passed");
    harness.elapse(MINUTE * 2).await;
    let again = claim(&*log, 10).await.expect("another attempt");
    let seen: Vec<_> =
        again.events.iter().map(|event| (event.stored.position, event.attempt, event.again)).collect();
    assert_eq!(seen, [(1, 2, true), (3, 2, true)]);
}

async fn what_waited_behind_keeps_its_order<H: Harness>(harness: &H) {
    let log = harness.log();
    log.subscribe(&spec(1)).await.expect("made");
    publish(&*log, &["1", "2", "3"].map(|id| message(TOPIC, id, "k"))).await;
    let claimed = claim(&*log, 10).await.expect("events");
    assert!(settle(&*log, &claimed, &[(1, retry()), (2, Verdict::Behind), (3, Verdict::Behind)]).await);
    harness.elapse(MINUTE * 2).await;
    for id in ["1", "2", "3"] {
        let next = claim(&*log, 10).await.expect("the next of the key");
        assert_eq!(ids(&next), [id], "one at a time, in order");
        assert_eq!(next.events[0].attempt, if id == "1" { 2 } else { 1 });
        assert!(done(&*log, &next).await);
    }
    assert!(claim(&*log, 10).await.is_none());
    assert_eq!(log.lag().await.expect("counted")[0].retrying, 0);
}

async fn a_parked_event_lets_its_key_go_on_and_can_be_redriven_or_discarded<H: Harness>(harness: &H) {
    let log = harness.log();
    log.subscribe(&spec(1)).await.expect("made");
    publish(&*log, &[message(TOPIC, "1", "k"), message_of(Some("acme"), TOPIC, "2", "k")]).await;
    let claimed = claim(&*log, 10).await.expect("events");
    let park = || Verdict::Park(failure());
    assert!(settle(&*log, &claimed, &[(1, park()), (2, park())]).await);
    publish(&*log, &[message(TOPIC, "3", "k")]).await;
    let next = claim(&*log, 10).await.expect("the key goes on");
    assert_eq!((ids(&next), next.events[0].held), (vec!["3"], false));
    assert!(done(&*log, &next).await);
    let parked = log.parked("s", None, 0, 10).await.expect("listed");
    assert_eq!(parked.iter().map(|it| it.stored.position).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((parked[0].attempts, parked[0].failure.clone()), (1, Some(failure())));
    assert_eq!(log.parked("s", Some("main/acme"), 0, 10).await.expect("listed").len(), 1);
    assert_eq!(log.parked("s", None, 1, 10).await.expect("listed").len(), 1);
    assert_eq!(log.redrive("s", Some(1)).await.expect("asked"), 1);
    let again = claim(&*log, 10).await.expect("handed out again");
    assert_eq!((ids(&again), again.events[0].attempt), (vec!["1"], 1), "with fresh attempts");
    assert!(done(&*log, &again).await);
    assert!(log.discard("s", 2).await.expect("asked"));
    assert!(!log.discard("s", 2).await.expect("asked"));
    assert_eq!(log.redrive("s", None).await.expect("asked"), 0);
    assert!(log.parked("nobody", None, 0, 10).await.is_err());
}

/// Three claims of many are lost to one poisonous event: it is found, used up and parked, and the rest flows.
async fn a_lost_consumer_is_found_out_by_handing_out_one_by_one<H: Harness>(harness: &H) {
    let log = harness.log();
    log.subscribe(&spec(1)).await.expect("made");
    publish(&*log, &["1", "poison", "3", "4"].map(|id| message(TOPIC, id, ""))).await;
    let (mut handled, mut deaths) = (Vec::new(), 0);
    for _ in 0..20 {
        let Some(claimed) = claim(&*log, 10).await else { break };
        if ids(&claimed).contains(&"poison") {
            deaths += 1;
            harness.elapse(LEASE * 2).await;
            continue;
        }
        handled.extend(ids(&claimed).into_iter().map(ToOwned::to_owned));
        assert!(done(&*log, &claimed).await);
    }
    handled.sort();
    assert_eq!(handled, ["1", "3", "4"]);
    assert_eq!(deaths, 4, "once among others, then alone until its three attempts are used up");
    let parked = log.parked("s", None, 0, 10).await.expect("listed");
    assert_eq!((parked[0].stored.position, parked[0].attempts), (2, 3));
    assert_eq!(parked[0].failure.as_ref().map(|it| it.code.as_str()), Some("events.lease_expired"));
}

async fn partitions_share_the_keys_and_miss_none<H: Harness>(harness: &H) {
    let log = harness.log();
    log.subscribe(&spec(8)).await.expect("made");
    let all: Vec<_> = (0..200).map(|n| message(TOPIC, &n.to_string(), &format!("k{}", n % 40))).collect();
    publish(&*log, &all).await;
    let mut seen = std::collections::HashMap::new();
    let mut held = Vec::new();
    while let Some(claimed) = claim(&*log, 1000).await {
        for event in &claimed.events {
            let key = event.stored.message.event.key().expect("a key").to_owned();
            let keys: &mut Vec<u64> = seen.entry((claimed.lease.partition, key)).or_default();
            keys.push(event.stored.position);
        }
        held.push(claimed);
    }
    assert!(held.len() > 1, "several partitions have something");
    assert_eq!(seen.len(), 40, "each key is of one partition");
    assert_eq!(seen.values().map(Vec::len).sum::<usize>(), 200);
    assert!(seen.values().all(|positions| positions.is_sorted()));
    for claimed in &held {
        assert!(done(&*log, claimed).await);
    }
    assert!(claim(&*log, 1000).await.is_none());
}

async fn tenants_have_keys_and_duplicates_of_their_own<H: Harness>(harness: &H) {
    let log = harness.log();
    log.subscribe(&spec(1)).await.expect("made");
    let of = |tenant| message_of(Some(tenant), TOPIC, "1", "k");
    assert_eq!(
        publish(&*log, &[of("acme"), of("globex"), of("acme")]).await,
        [Receipt::New, Receipt::New, Receipt::Duplicate]
    );
    let claimed = claim(&*log, 10).await.expect("events");
    assert!(settle(&*log, &claimed, &[(1, retry()), (2, Verdict::Done)]).await);
    publish(&*log, &["acme", "globex"].map(|tenant| message_of(Some(tenant), TOPIC, "2", "k"))).await;
    let next = claim(&*log, 10).await.expect("events");
    assert_eq!(next.events.iter().map(|event| event.held).collect::<Vec<_>>(), [true, false]);
}

async fn a_subscription_that_is_rewound_reads_again_what_is_kept<H: Harness>(harness: &H) {
    let log = harness.log();
    log.subscribe(&spec(1)).await.expect("made");
    let messages = ["1", "2", "3", "4"].map(|id| message(TOPIC, id, "k"));
    publish(&*log, &messages).await;
    let first = claim(&*log, 3).await.expect("events");
    assert!(settle(&*log, &first, &[(1, Verdict::Done), (2, Verdict::Park(failure())), (3, retry())]).await);
    harness.elapse(MINUTE).await;
    let held = claim(&*log, 10).await.expect("what is tried again");
    log.rewind("s", 1).await.expect("rewound");
    assert!(!done(&*log, &held).await, "a claim made before is refused");
    assert!(log.parked("s", None, 0, 10).await.expect("listed").is_empty());
    let again = claim(&*log, 10).await.expect("events");
    assert_eq!(ids(&again), ["2", "3", "4"]);
    assert!(again.events.iter().all(|event| event.attempt == 1 && !event.again));
    // What was not read yet stays unread, however far ahead one points.
    log.rewind("s", 100).await.expect("rewound");
    assert_eq!(ids(&claim(&*log, 10).await.expect("events")), ["2", "3", "4"]);
    assert!(matches!(log.rewind("nobody", 0).await, Err(EventsError::NoSubscription(_))));
}

async fn only_what_everybody_has_done_with_is_forgotten<H: Harness>(harness: &H) {
    let log = harness.log();
    log.subscribe(&spec(1)).await.expect("made");
    publish(&*log, &["1", "2", "3"].map(|id| message(TOPIC, id, ""))).await;
    publish(&*log, &[message("unread", "1", "")]).await;
    log.bounds("unread").await.expect("known");
    harness.elapse(MINUTE * 10).await;
    publish(&*log, &[message(TOPIC, "4", "")]).await;
    assert_eq!(
        log.prune(MINUTE, 10).await.expect("pruned"),
        1,
        "a topic nobody subscribes to has no reader to wait for"
    );
    let claimed = claim(&*log, 3).await.expect("events");
    assert!(settle(&*log, &claimed, &[(1, retry()), (2, Verdict::Done), (3, Verdict::Done)]).await);
    assert_eq!(log.prune(MINUTE * 5, 1).await.expect("pruned"), 1);
    assert_eq!(log.prune(MINUTE * 5, 10).await.expect("pruned"), 1);
    assert_eq!(
        log.prune(MINUTE * 5, 10).await.expect("pruned"),
        0,
        "1 waits for another attempt, 4 is young"
    );
    assert!(matches!(log.read(TOPIC, 0, 10).await, Err(EventsError::Gone(3))));
    let left = log.read(TOPIC, 3, 10).await.expect("read");
    assert_eq!(left.iter().map(|it| it.position).collect::<Vec<_>>(), [4]);
    harness.elapse(MINUTE * 2).await;
    let again = claim(&*log, 10).await.expect("still there for its attempt");
    assert!(ids(&again).contains(&"1"));
}

async fn lag_says_what_is_left<H: Harness>(harness: &H) {
    let log = harness.log();
    log.subscribe(&spec(2)).await.expect("made");
    assert_eq!(log.lag().await.expect("counted")[0].unread, 0);
    publish(&*log, &["1", "2", "3"].map(|id| message(TOPIC, id, ""))).await;
    let lag = log.lag().await.expect("counted").remove(0);
    assert_eq!((lag.unread, lag.retrying, lag.parked, lag.claimed, lag.partitions), (3, 0, 0, 0, 2));
    assert!(lag.oldest_unread.is_some());
    let claimed = claim(&*log, 10).await.expect("events");
    assert_eq!(log.lag().await.expect("counted")[0].claimed, 1);
    let verdicts: Vec<_> =
        claimed.events.iter().map(|it| (it.stored.position, Verdict::Park(failure()))).collect();
    assert!(settle(&*log, &claimed, &verdicts).await);
    let lag = log.lag().await.expect("counted").remove(0);
    assert_eq!((lag.unread, lag.parked), (3 - verdicts.len() as u64, verdicts.len() as u64));
}
