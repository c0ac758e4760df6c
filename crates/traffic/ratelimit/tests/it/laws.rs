//! The port's laws, for every place buckets can live. Windows are hours, so that time plays no part.

use runtime_kernel::Classify;
use runtime_ratelimit::{Buckets, Demand, LimitError, MOST_KEYS, Rate, RateLimiter};

/// Every law, on buckets nobody else uses.
pub(super) async fn hold(buckets: &dyn Buckets) {
    a_bucket_grants_what_it_holds(buckets).await;
    a_refusal_takes_nothing(buckets).await;
    together_is_all_or_nothing(buckets).await;
    what_cannot_be_is_said(buckets).await;
    a_reset_fills(buckets).await;
    a_changed_depth_keeps_what_was_taken(buckets).await;
    what_was_reserved_and_not_used_comes_back(buckets).await;
    what_was_used_beyond_is_owed_beyond_the_bucket(buckets).await;
    what_cannot_be_reserved_takes_nothing(buckets).await;
    nothing_comes_back_that_is_not_owed(buckets).await;
}

fn rate(burst: u32) -> Rate {
    Rate::per_hour(burst).unwrap()
}

async fn left(buckets: &dyn Buckets, key: &str, rate: Rate) -> u32 {
    buckets.peek(Demand::new(key, rate)).await.unwrap().remaining()
}

async fn a_bucket_grants_what_it_holds(buckets: &dyn Buckets) {
    let demand = [Demand::new("holds", rate(5)).cost(2)];
    for expected in [3, 1] {
        let tightest = buckets.take(&demand).await.unwrap().unwrap();
        assert_eq!((tightest.index, tightest.standing.remaining()), (0, expected));
    }
    let refused = buckets.take(&demand).await.unwrap_err();
    let LimitError::Exceeded { retry_after, standing } = refused.error else { panic!("{refused}") };
    assert!((700..=720).contains(&retry_after.as_secs()) && standing.remaining() == 1, "{refused:?}");
    assert_eq!(left(buckets, "holds", rate(5)).await, 1);
}

async fn a_refusal_takes_nothing(buckets: &dyn Buckets) {
    let rate = rate(3);
    assert!(buckets.take(&[Demand::new("refusal", rate).cost(2)]).await.is_ok());
    for _ in 0..5 {
        assert!(buckets.take(&[Demand::new("refusal", rate).cost(2)]).await.is_err());
    }
    assert!(buckets.take(&[Demand::new("refusal", rate)]).await.is_ok(), "the third is still there");
}

async fn together_is_all_or_nothing(buckets: &dyn Buckets) {
    let (wide, narrow) = (rate(100), rate(2));
    let all = [Demand::new("t:a", wide), Demand::new("t:b", narrow), Demand::new("t:a", wide)];
    for _ in 0..2 {
        let tightest = buckets.take(&all).await.unwrap().unwrap();
        assert_eq!((tightest.index, tightest.standing.rate()), (1, narrow));
    }
    assert_eq!(buckets.take(&all).await.unwrap_err().index, 1);
    assert_eq!(
        left(buckets, "t:a", wide).await,
        96,
        "a repeated key pays for each, a refused request for none"
    );
    assert_eq!(left(buckets, "t:b", narrow).await, 0);
    assert_eq!(buckets.take(&[]).await.unwrap(), None);
}

async fn what_cannot_be_is_said(buckets: &dyn Buckets) {
    let large = [Demand::new("x", rate(5)), Demand::new("y", rate(5)).cost(6)];
    let refused = buckets.take(&large).await.unwrap_err();
    assert_eq!((refused.index, refused.error), (1, LimitError::LargerThanBucket { cost: 6, burst: 5 }));
    assert_eq!(left(buckets, "x", rate(5)).await, 5);
    let names: Vec<_> = (0..=MOST_KEYS).map(|n| format!("many:{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| Demand::new(name, rate(5))).collect();
    assert_eq!(buckets.take(&many).await.unwrap_err().error.code(), "ratelimit.too_many_keys");
    assert!(buckets.take(&many[1..]).await.is_ok());
}

async fn a_reset_fills(buckets: &dyn Buckets) {
    assert!(buckets.take(&[Demand::new("reset", rate(5)).cost(5)]).await.is_ok());
    buckets.reset("reset").await.unwrap();
    buckets.reset("never seen").await.unwrap();
    assert_eq!(left(buckets, "reset", rate(5)).await, 5);
}

async fn a_changed_depth_keeps_what_was_taken(buckets: &dyn Buckets) {
    let (small, large) = (rate(60), rate(60).with_burst(90).unwrap());
    assert!(buckets.take(&[Demand::new("depth", small).cost(60)]).await.is_ok());
    assert_eq!(left(buckets, "depth", large).await, 30);
    assert_eq!(left(buckets, "depth", small).await, 0);
}

async fn what_was_reserved_and_not_used_comes_back(buckets: &dyn Buckets) {
    let demand = Demand::new("reserved", rate(100));
    let first = buckets.reserve(demand.cost(60)).await.unwrap();
    assert_eq!((first.tokens(), first.standing().unwrap().remaining()), (60, 40));
    assert!(buckets.take(&[demand.cost(5)]).await.is_ok());
    let second = buckets.reserve(demand.cost(30)).await.unwrap();
    drop(buckets.reserve(demand.cost(2)).await.unwrap());
    assert_eq!(left(buckets, "reserved", rate(100)).await, 3);
    assert_eq!(first.settle(10).await.unwrap().unwrap().remaining(), 53);
    assert_eq!(second.cancel().await.unwrap().unwrap().remaining(), 83, "what was dropped counts as used");
    let exact = buckets.reserve(demand.cost(20)).await.unwrap();
    assert_eq!(exact.settle(20).await.unwrap().unwrap().remaining(), 63);
    assert_eq!(left(buckets, "reserved", rate(100)).await, 63);
}

async fn what_was_used_beyond_is_owed_beyond_the_bucket(buckets: &dyn Buckets) {
    let demand = Demand::new("beyond", rate(10));
    let reserved = buckets.reserve(demand.cost(5)).await.unwrap();
    assert_eq!(reserved.settle(25).await.unwrap().unwrap().remaining(), 0);
    for cost in [0, 1] {
        let refused = buckets.take(&[demand.cost(cost)]).await.unwrap_err().error;
        let LimitError::Exceeded { retry_after, .. } = refused else { panic!("{refused}") };
        // 15 beyond what it holds, at one in 360 s.
        let expected = 360 * (15 + u64::from(cost));
        assert!((expected - 5..=expected).contains(&retry_after.as_secs()), "{retry_after:?}");
    }
}

async fn what_cannot_be_reserved_takes_nothing(buckets: &dyn Buckets) {
    let demand = Demand::new("no", rate(5));
    let refused = buckets.reserve(demand.cost(6)).await.map(drop).unwrap_err();
    assert_eq!(refused, LimitError::LargerThanBucket { cost: 6, burst: 5 });
    let held = buckets.reserve(demand.cost(3)).await.unwrap();
    let refused = buckets.reserve(demand.cost(3)).await.map(drop).unwrap_err();
    let LimitError::Exceeded { retry_after, standing } = refused else { panic!("{refused}") };
    assert!((715..=720).contains(&retry_after.as_secs()) && standing.remaining() == 2, "{refused:?}");
    assert_eq!(held.cancel().await.unwrap().unwrap().remaining(), 5);
}

async fn nothing_comes_back_that_is_not_owed(buckets: &dyn Buckets) {
    let demand = Demand::new("owed", rate(10));
    let forgiven = buckets.reserve(demand.cost(9)).await.unwrap();
    buckets.reset("owed").await.unwrap();
    assert!(buckets.take(&[demand.cost(7)]).await.is_ok());
    assert_eq!(forgiven.cancel().await.unwrap().unwrap().remaining(), 3, "the reset has paid for it");
    let nothing = buckets.reserve(demand.cost(0)).await.unwrap();
    assert_eq!(nothing.cancel().await.unwrap().unwrap().remaining(), 3);
}

#[tokio::test]
async fn the_laws_hold_in_memory() {
    hold(&RateLimiter::new(1_000)).await;
}
