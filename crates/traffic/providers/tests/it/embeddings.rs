//! Embeddings: their order, batches and retries.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use runtime_kernel::{Context, Deadline, ManualClock, SharedClock, Source, SystemClock};
use runtime_providers::{EmbeddingModel, ProviderError, Target, TargetConfig, harden_embedding};
use runtime_resilience::RetryPolicy;

use super::script::{Act, PRICE, Provider, model, model_on};

fn context() -> Context {
    Context::new(Source::Internal, &SystemClock)
}

#[tokio::test]
async fn vectors_come_in_the_order_of_their_texts_in_batches_and_failures_are_tried_again() {
    let (provider, url) = Provider::start(|nth, _| match nth {
        1 => Act::Refuse(500, None, "x"),
        _ => Act::Answer(0),
    })
    .await;
    let mut priced = TargetConfig::default();
    priced.price = PRICE;
    let target = Target::new("one", model(&url) as Arc<dyn EmbeddingModel>, priced);
    let policy = RetryPolicy::constant(Duration::from_millis(1)).unwrap();
    let embedding = harden_embedding(target, policy, 2, SystemClock::shared()).unwrap();
    let texts: Vec<_> = ["a", "bb", "ccc", "dddd", "eeeee"].map(str::to_owned).to_vec();
    let found = embedding.embed(&context(), &texts).await.unwrap();
    let lengths: Vec<_> = found.vectors.iter().map(|vector| vector[0]).collect();
    assert_eq!(lengths, [1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(
        (found.usage.prompt, provider.asked()),
        (15, ["a|bb", "ccc|dddd", "ccc|dddd", "eeeee"].map(str::to_owned).to_vec())
    );
    assert_eq!((embedding.spent("").calls, embedding.spent("").cost), (3, PRICE.of(found.usage)));
    assert!(embedding.embed(&context(), &[]).await.unwrap().vectors.is_empty());
}

#[tokio::test]
async fn vectors_whose_provider_does_not_say_what_they_used_count_by_their_texts() {
    let (_, url) = Provider::start(|_, _| Act::Silent(0)).await;
    let mut limits = TargetConfig::default();
    (limits.price, limits.tokens_per_minute) = (PRICE, 20);
    let target = Target::new("one", model(&url) as Arc<dyn EmbeddingModel>, limits);
    let policy = RetryPolicy::constant(Duration::from_millis(1)).unwrap();
    let embedding = harden_embedding(target, policy, 2, SystemClock::shared()).unwrap();
    let texts = ["x".repeat(30), "xy".to_owned()];
    let found = embedding.embed(&context(), &texts).await.unwrap();
    assert_eq!((found.usage.prompt, embedding.spent("").cost), (13, PRICE.of(found.usage)));
    let soon = context().with_deadline(Deadline::after(&SystemClock, Duration::from_secs(1)));
    let error = embedding.embed(&soon, &texts).await.unwrap_err();
    assert!(matches!(error, ProviderError::Limited { .. }), "{error:?}");
}

#[tokio::test]
async fn a_target_that_hangs_has_the_clients_time_or_the_policys_and_cools_down() {
    let ten = Duration::from_secs(10);
    for (policy, time) in [
        (RetryPolicy::none(), Duration::from_secs(30)),
        (RetryPolicy::none().with_attempt_timeout(ten).unwrap(), ten),
    ] {
        cools_down(policy, time).await;
    }
}

async fn cools_down(policy: RetryPolicy, time: Duration) {
    let clock = ManualClock::new();
    let (asked, mut asks) = tokio::sync::mpsc::unbounded_channel();
    let (_, url) = Provider::start(move |nth, _| {
        asked.send(nth).unwrap();
        Act::Hang
    })
    .await;
    let shared: SharedClock = Arc::new(clock.clone());
    let model = model_on(Arc::clone(&shared), &url) as Arc<dyn EmbeddingModel>;
    let target = Target::new("one", model, TargetConfig::default());
    let embedding = harden_embedding(target, policy, 2, shared).unwrap();
    let later = Deadline::after(&clock, Duration::from_mins(10));
    let context = Context::new(Source::Internal, &clock).with_deadline(later);
    let texts = ["a".to_owned()];
    for nth in 0..3 {
        let (error, ()) = tokio::join!(embedding.embed(&context, &texts), async {
            assert_eq!(asks.recv().await, Some(nth));
            clock.advance(time);
        });
        let error = error.unwrap_err();
        assert!(matches!(error, ProviderError::TimedOut { .. }), "{error:?}");
    }
    let answer = embedding.embed(&context, &texts).now_or_never().expect("the target is left alone");
    assert!(matches!(answer, Err(ProviderError::AllCooling { .. })), "{answer:?}");
}

#[tokio::test]
async fn what_will_not_change_is_not_tried_again() {
    let (provider, url) = Provider::start(|_, _| Act::Refuse(401, None, "x")).await;
    let target = Target::new("one", model(&url) as Arc<dyn EmbeddingModel>, TargetConfig::default());
    let policy = RetryPolicy::constant(Duration::from_millis(1)).unwrap();
    let embedding = harden_embedding(target, policy, 2, SystemClock::shared()).unwrap();
    let error = embedding.embed(&context(), &["a".to_owned()]).await.unwrap_err();
    assert!(matches!(error, ProviderError::Unauthorized { .. }) && provider.asked().len() == 1, "{error}");
    let deadline = Deadline::after(&SystemClock, Duration::from_secs(1));
    let error = embedding.embed(&context().with_deadline(deadline), &["a".to_owned()]).await.unwrap_err();
    assert!(
        matches!(error, ProviderError::AllCooling { .. }) && provider.asked().len() == 1,
        "left alone: {error}"
    );
}
