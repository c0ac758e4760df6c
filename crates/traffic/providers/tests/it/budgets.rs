//! What calls may cost, what they did cost, and what comes back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use runtime_db::{Database, DbConfig};
use runtime_kernel::{Classify, Context, ErrorKind, ManualClock, SharedClock, Source, SystemClock};
use runtime_limits::{MemoryQuotas, Period, QuotaConfig, Quotas, SqlQuotas};
use runtime_providers::{
    Chains, ChatRequest, HardenConfig, HardenedChat, Message, Price, ProviderError, Target, TargetConfig,
    harden_ai,
};
use serde_json::json;

use super::chats::{context, hardened, question, tenant};
use super::script::{Act, Provider, target, target_on};

/// A chat whose tenants may spend so many millionths of a dollar each.
fn capped(target: Target, micros: u64) -> (HardenedChat, Quotas) {
    let budget = [("ai".to_owned(), QuotaConfig::standing(micros))].into();
    let quotas = Quotas::new(Arc::new(MemoryQuotas::new()), budget, SystemClock::shared()).unwrap();
    let chat = hardened(vec![target], |config, _| config.quota = Some("ai".into()));
    (chat.quotas(quotas.clone()).unwrap(), quotas)
}

/// Of question and answer alike.
fn a_dollar_a_token(config: &mut TargetConfig) {
    config.price = Price { prompt: 1_000_000_000_000, completion: 1_000_000_000_000 };
}

#[tokio::test]
async fn a_tenant_spends_no_more_than_it_may_and_what_a_call_did_not_cost_comes_back() {
    let (provider, url) = Provider::start(|_, _| Act::Answer(2)).await;
    let request = question("hello");
    let most = u64::from(request.estimate() + request.max_tokens);
    let (chat, quotas) = capped(target("one", &url, a_dollar_a_token), (most + 10) * 1_000_000);
    let acme = context().with_tenant(tenant("acme"));
    for calls in 1..=3u64 {
        chat.complete(&acme, &request).await.unwrap();
        let used = quotas.usage(&tenant("acme"), "ai").await.unwrap().used;
        assert_eq!(used, calls * 4_000_000, "four tokens each");
    }
    let error = chat.complete(&acme, &request).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("provider.budget_spent", ErrorKind::RateLimited));
    assert_eq!(
        (provider.asked().len(), chat.spent("main/acme").cost.to_string().as_str()),
        (3, "$12.000000")
    );
    chat.complete(&context().with_tenant(tenant("globex")), &request).await.unwrap();
}

#[tokio::test]
async fn what_a_call_costs_beyond_its_estimate_counts_as_well() {
    // The question is forty tokens to the provider, and fewer by our estimate.
    let (_, url) = Provider::start(|_, _| Act::Answer(40)).await;
    let mut request = question("?");
    request.max_tokens = 5;
    let (chat, quotas) = capped(target("one", &url, a_dollar_a_token), 1_000_000_000);
    let acme = tenant("acme");
    chat.complete(&context().with_tenant(acme.clone()), &request).await.unwrap();
    assert!(request.estimate() + request.max_tokens < 80);
    assert_eq!(quotas.usage(&acme, "ai").await.unwrap().used, 80_000_000);
}

#[tokio::test]
async fn what_a_call_costs_beyond_what_is_left_spends_all_of_it() {
    let (provider, url) = Provider::start(|_, _| Act::Answer(4_000)).await;
    let mut request = question("?");
    request.max_tokens = 5;
    let (chat, quotas) = capped(target("one", &url, a_dollar_a_token), 8_100_000_000);
    let acme = tenant("acme");
    for used in [8_000_000_000, 8_100_000_000] {
        chat.complete(&context().with_tenant(acme.clone()), &request).await.unwrap();
        assert_eq!(quotas.usage(&acme, "ai").await.unwrap().used, used);
    }
    let error = chat.complete(&context().with_tenant(acme), &request).await.unwrap_err();
    assert!(matches!(error, ProviderError::BudgetSpent(_)), "{error:?}");
    assert_eq!(provider.asked().len(), 2);
}

#[tokio::test]
async fn what_a_question_has_beside_its_words_is_reserved_as_well() {
    let (provider, url) = Provider::start(|_, _| Act::Answer(1)).await;
    let mut request = ChatRequest::new([Message::user("hi")], 1);
    assert_eq!(request.estimate(), 9);
    request.messages[0].more.insert("tool_calls".into(), json!(["x".repeat(3_000)]));
    request.messages[0].more.insert("name".into(), json!(null));
    assert!((1_000..1_050).contains(&request.estimate()), "{}", request.estimate());
    request.more.insert("tools".into(), json!([{ "description": "x".repeat(300_000) }]));
    assert!((101_000..101_100).contains(&request.estimate()), "{}", request.estimate());
    // Fifteen cents per million tokens: more than a cent and a half, of which there is less than one.
    let (chat, quotas) = capped(target("one", &url, |_| {}), 9_999);
    let acme = tenant("acme");
    let error = chat.complete(&context().with_tenant(acme.clone()), &request).await.unwrap_err();
    assert!(matches!(error, ProviderError::BudgetSpent(_)), "{error:?}");
    assert_eq!((provider.asked().len(), quotas.usage(&acme, "ai").await.unwrap().used), (0, 0));
}

#[tokio::test]
async fn an_answer_whose_provider_does_not_say_what_it_used_counts_by_its_length() {
    let request = question("hello");
    let prompt = u64::from(request.estimate());
    // Twenty bytes, and more than the fifty tokens it may have.
    for (act, tokens) in
        [(Act::Silent(4), prompt + 20), (Act::Silent(40), prompt + 50), (Act::Calling(1), prompt + 50)]
    {
        let said = act.clone();
        let (_, url) = Provider::start(move |_, _| said.clone()).await;
        let (chat, quotas) = capped(target("one", &url, a_dollar_a_token), 1_000_000_000);
        let acme = tenant("acme");
        let context = context().with_tenant(acme.clone());
        let mut calls = 0;
        if matches!(act, Act::Silent(_)) {
            let answer = chat.complete(&context, &request).await.unwrap();
            assert_eq!(u64::from(answer.usage.total()), tokens, "{act:?}");
            calls += 1;
        }
        let words: Vec<_> = chat.stream(&context, &request).await.unwrap().collect().await;
        assert!(words.iter().all(Result::is_ok));
        calls += 1;
        let used = quotas.usage(&acme, "ai").await.unwrap().used;
        assert_eq!(used, calls * tokens * 1_000_000, "{act:?}");
        assert_eq!(chat.spent("main/acme").cost.micros(), used);
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_counts_as_used_and_one_that_was_refused_does_not() {
    let request = question("hello");
    let most = u64::from(request.estimate() + request.max_tokens) * 1_000_000;
    for (act, counts) in [
        (Act::Cut, most),
        (Act::Garbled, most),
        (Act::Refuse(500, None, "x"), 0),
        (Act::Refuse(400, None, "x"), 0),
    ] {
        let said = act.clone();
        let (_, url) = Provider::start(move |_, _| said.clone()).await;
        let (chat, quotas) = capped(target("one", &url, a_dollar_a_token), 1_000_000_000);
        let acme = tenant("acme");
        let context = context().with_tenant(acme.clone());
        let error = chat.complete(&context, &request).await.unwrap_err();
        let attempts = if matches!(error, ProviderError::Invalid { .. }) { 1 } else { 3 };
        assert_eq!(matches!(error, ProviderError::Lost { .. }), counts > 0, "{act:?}: {error:?}");
        let used = quotas.usage(&acme, "ai").await.unwrap().used;
        assert_eq!((used, chat.spent("main/acme").calls), (attempts * counts, 0), "{act:?}");
    }
    let (_, url) = Provider::start(|_, _| Act::Cut).await;
    let (chat, quotas) = capped(target("one", &url, a_dollar_a_token), 1_000_000_000);
    let acme = tenant("acme");
    assert!(chat.stream(&context().with_tenant(acme.clone()), &request).await.is_err());
    assert_eq!(quotas.usage(&acme, "ai").await.unwrap().used, 3 * most, "before its first words as well");
    // Nobody is there: nothing was sent.
    let (chat, quotas) = capped(target("one", "http://127.0.0.1:1/v1", a_dollar_a_token), 1_000_000_000);
    assert!(chat.complete(&context().with_tenant(acme.clone()), &request).await.is_err());
    assert_eq!(quotas.usage(&acme, "ai").await.unwrap().used, 0);
}

#[tokio::test]
async fn calls_that_reach_no_provider_leave_its_limits_to_others() {
    let (provider, url) = Provider::start(|_, _| Act::Answer(1)).await;
    let acme = context().with_tenant(tenant("acme"));
    let limited = target("one", &url, |config| {
        a_dollar_a_token(config);
        config.requests_per_minute = 2;
    });
    let (chat, quotas) = capped(limited, 1_000_000_000);
    quotas.take(&tenant("acme"), "ai", 1_000_000_000).await.unwrap();
    for _ in 0..2 {
        let error = chat.complete(&acme, &question("hello")).await.unwrap_err();
        assert!(matches!(error, ProviderError::BudgetSpent(_)), "{error:?}");
    }
    let globex = context().with_tenant(tenant("globex"));
    let mut several = question("hello");
    several.more.insert("n".into(), json!(2));
    for _ in 0..2 {
        let error = chat.complete(&globex, &several).await.unwrap_err();
        assert!(matches!(error, ProviderError::Config { .. }), "{error:?}");
    }
    for _ in 0..2 {
        chat.complete(&globex, &question("hello")).await.unwrap();
    }
    let error = chat.complete(&globex, &question("hello")).await.unwrap_err();
    assert!(matches!(error, ProviderError::Limited { .. }) && provider.asked().len() == 2, "{error:?}");
}

#[tokio::test]
async fn what_was_reserved_in_a_day_that_is_over_does_not_come_back_from_the_next() {
    let clock = ManualClock::new();
    let shared: SharedClock = Arc::new(clock.clone());
    let (_, url) = Provider::start(|_, _| Act::Answer(2)).await;
    let one = target_on(Arc::clone(&shared), "one", &url, a_dollar_a_token);
    let budget = [("ai".to_owned(), QuotaConfig::per(1_000_000_000, Period::Day))].into();
    let quotas = Quotas::new(Arc::new(MemoryQuotas::new()), budget, Arc::clone(&shared)).unwrap();
    let mut config = HardenConfig::default();
    config.quota = Some("ai".into());
    let chat = harden_ai(vec![one], &Chains::default(), config, shared).unwrap();
    let chat = chat.quotas(quotas.clone()).unwrap();
    let acme = tenant("acme");
    clock.advance(Duration::from_hours(24) - Duration::from_secs(30));
    let context = Context::new(Source::Internal, &clock).with_tenant(acme.clone());
    let mut words = std::pin::pin!(chat.stream(&context, &question("a")).await.unwrap());
    words.next().await.unwrap().unwrap();
    clock.advance(Duration::from_mins(1));
    quotas.take(&acme, "ai", 500_000_000).await.unwrap();
    while let Some(delta) = words.next().await {
        delta.unwrap();
    }
    assert_eq!(quotas.usage(&acme, "ai").await.unwrap().used, 500_000_000);
}

#[tokio::test]
async fn a_quota_that_cannot_be_asked_is_not_taken_for_one_that_is_spent() {
    let (provider, url) = Provider::start(|_, _| Act::Answer(1)).await;
    // Without the tables.
    let db = Database::connect(&DbConfig::at("sqlite::memory:"), SystemClock::shared()).await.unwrap();
    let budget = [("ai".to_owned(), QuotaConfig::standing(1_000_000_000))].into();
    let quotas = Quotas::new(Arc::new(SqlQuotas::new(db)), budget, SystemClock::shared()).unwrap();
    let named = |name: &str| {
        hardened(vec![target("one", &url, a_dollar_a_token)], |c, _| c.quota = Some(name.into()))
    };
    let chat = named("ai").quotas(quotas.clone()).unwrap();
    let error = chat.complete(&context().with_tenant(tenant("acme")), &question("hello")).await.unwrap_err();
    assert_eq!(
        (error.code(), error.kind(), provider.asked().len()),
        ("provider.quota", ErrorKind::Internal, 0)
    );
    let error = named("nosuch").quotas(quotas).unwrap_err();
    assert_eq!(error.to_string(), "`quota` names no quota: `nosuch`");
}
