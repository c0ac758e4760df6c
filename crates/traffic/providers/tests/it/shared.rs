//! Limits in Redis: two processes, one target.

use std::sync::Arc;

use runtime_kernel::{Context, Source, SystemClock};
use runtime_providers::{
    Chains, ChatModel, ChatRequest, HardenConfig, HardenedChat, Message, ProviderError, Target, TargetConfig,
    harden_ai,
};
use runtime_ratelimit::{Buckets, RateLimiter, RedisBuckets, WhenAway};
use runtime_redis::{Redis, RedisConfig};

use super::script::{Act, Provider, model};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_what_a_target_may_and_what_was_not_used_comes_back() {
    let server = runtime_testkit::redis::server().await.unwrap();
    let (_provider, url) = Provider::start(|_, _| Act::Answer(50)).await;
    let process = || -> HardenedChat {
        let config = RedisConfig::at(server.url()).with_prefix(server.prefix().trim_end_matches(':'));
        let redis = Redis::new(&config, SystemClock::shared()).unwrap();
        let buckets = RedisBuckets::new(redis, WhenAway::Refuse, RateLimiter::new(16));
        let mut limits = TargetConfig::default();
        (limits.tokens_per_minute, limits.requests_per_minute) = (1_000, 100);
        let target = Target::new("one", model(&url) as Arc<dyn ChatModel>, limits);
        let target = target.buckets(Arc::new(buckets) as Arc<dyn Buckets>);
        let mut config = HardenConfig::default();
        config.max_wait = std::time::Duration::ZERO;
        harden_ai(vec![target], &Chains::default(), config, SystemClock::shared()).unwrap()
    };
    let [one, two] = [process(), process()];
    let context = Context::new(Source::Internal, &SystemClock);
    // Each reserves nearly half and uses a hundred.
    let request = ChatRequest::new([Message::user("hi")], 400);
    let mut answered = 0;
    let refused = loop {
        let chat = if answered % 2 == 0 { &one } else { &two };
        match chat.complete(&context, &request).await {
            Ok(_) => answered += 1,
            Err(error) => break error,
        }
        assert!(answered <= 9, "a thousand tokens are ten answers at most");
    };
    assert!(matches!(refused, ProviderError::Limited { retry_after: Some(_), .. }), "{refused}");
    // Without giving back there had been two; without sharing, twice as many.
    assert!((6..=9).contains(&answered), "{answered}");
}
