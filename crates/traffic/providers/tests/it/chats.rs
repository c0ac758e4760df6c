//! Targets, chains, time, cooldowns, limits and the cache.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use runtime_kernel::units::ByteSize;
use runtime_kernel::{
    Classify, Clock, Context, Deadline, ErrorKind, ManualClock, Name, Retry, SharedClock, Source,
    SystemClock, TenantContext,
};
use runtime_providers::{
    CacheConfig, Chains, ChatModel, ChatRequest, HardenConfig, HardenedChat, Message, ProviderError, Target,
    TargetConfig, harden_ai,
};
use tokio::sync::Notify;

use super::script::{Act, Provider, model_on, model_with, target, target_on};

pub(crate) fn context() -> Context {
    Context::new(Source::Internal, &SystemClock)
}

pub(crate) fn question(text: &str) -> ChatRequest {
    ChatRequest::new([Message::system("be brief"), Message::user(text)], 50)
}

pub(crate) fn hardened(
    targets: Vec<Target>,
    change: impl FnOnce(&mut HardenConfig, &mut Chains),
) -> HardenedChat {
    let (mut config, mut chains) = (HardenConfig::default(), Chains::default());
    config.max_wait = Duration::ZERO;
    change(&mut config, &mut chains);
    harden_ai(targets, &chains, config, SystemClock::shared()).unwrap()
}

pub(crate) fn tenant(name: &str) -> TenantContext {
    TenantContext::tenant(Name::new("main").unwrap(), Name::new(name).unwrap())
}

#[tokio::test]
async fn each_failure_means_what_it_means() {
    type Is = fn(&ProviderError) -> bool;
    let cases: [(Act, Is, ErrorKind); 9] = [
        (
            Act::Refuse(429, Some("7"), "x"),
            |e| e.retry() == Retry::After(Duration::from_secs(7)),
            ErrorKind::RateLimited,
        ),
        (
            Act::Refuse(529, None, "x"),
            |e| matches!(e, ProviderError::Overloaded { .. }),
            ErrorKind::Unavailable,
        ),
        (
            Act::Refuse(503, Some("2"), "x"),
            |e| matches!(e, ProviderError::Overloaded { retry_after: Some(_), .. }),
            ErrorKind::Unavailable,
        ),
        (
            Act::Refuse(400, None, "context_length_exceeded"),
            |e| matches!(e, ProviderError::ContextWindow { .. }),
            ErrorKind::TooLarge,
        ),
        (
            Act::Refuse(400, None, "content_policy_violation"),
            |e| matches!(e, ProviderError::ContentPolicy { .. }),
            ErrorKind::Forbidden,
        ),
        (
            Act::Refuse(401, None, "x"),
            |e| matches!(e, ProviderError::Unauthorized { .. }),
            ErrorKind::Internal,
        ),
        (
            Act::Refuse(404, None, "model_not_found"),
            |e| matches!(e, ProviderError::Invalid { status: 404, .. }),
            ErrorKind::Invalid,
        ),
        (Act::Refuse(500, None, "x"), |e| matches!(e, ProviderError::Failed { .. }), ErrorKind::Unavailable),
        (
            Act::Refuse(413, None, "x"),
            |e| matches!(e, ProviderError::ContextWindow { .. }),
            ErrorKind::TooLarge,
        ),
    ];
    for (act, is, kind) in cases {
        let said = act.clone();
        let (_, url) = Provider::start(move |_, _| said.clone()).await;
        let chat = hardened(vec![target("one", &url, |_| {})], |config, _| config.max_attempts = 1);
        let error = chat.complete(&context(), &question("hello")).await.unwrap_err();
        assert!(is(&error) && error.kind() == kind, "{act:?}: {error:?}");
        let Err(error) = chat.stream(&context(), &question("hello")).await else { panic!("{act:?}") };
        assert!(is(&error) || matches!(error, ProviderError::AllCooling { .. }), "{act:?}: {error:?}");
    }
}

#[tokio::test]
async fn an_answer_says_who_gave_it_and_what_it_used_and_the_key_is_shown_to_the_provider_alone() {
    let (provider, url) = Provider::start(|_, _| Act::Answer(3)).await;
    let chat = hardened(vec![target("one", &url, |_| {})], |_, _| {});
    let answer = chat.complete(&context(), &question("hello")).await.unwrap();
    assert_eq!((answer.target.as_str(), answer.message.content.as_str()), ("one", "word word word "));
    assert_eq!((answer.usage.total(), chat.spent("").calls), (6, 1));
    assert_eq!(provider.ledger.lock().unwrap().keys, ["Bearer sk-secret"]);
    let words: Vec<_> = chat.stream(&context(), &question("hello")).await.unwrap().collect().await;
    assert!(words.iter().all(Result::is_ok));
    assert_eq!(chat.spent("").completion, 6);
}

#[tokio::test]
async fn the_next_target_is_asked_and_one_that_fails_is_left_alone_for_a_while() {
    let (bad, bad_url) = Provider::start(|nth, _| match nth {
        0 => Act::Refuse(429, Some("60"), "x"),
        _ => Act::Answer(1),
    })
    .await;
    let (good, good_url) = Provider::start(|_, _| Act::Answer(1)).await;
    let chat = hardened(vec![target("bad", &bad_url, |_| {}), target("good", &good_url, |_| {})], |_, _| {});
    for _ in 0..5 {
        assert_eq!(chat.complete(&context(), &question("hello")).await.unwrap().target, "good");
    }
    assert_eq!((bad.asked().len(), good.asked().len()), (1, 5));
    let cooling = chat.cooling();
    assert!(cooling[0].0 == "bad" && cooling[0].1 > Duration::from_secs(50), "{cooling:?}");
}

#[tokio::test]
async fn three_failures_in_a_row_cool_a_target_down_and_when_all_are_cool_the_error_says_for_how_long() {
    let (provider, url) = Provider::start(|_, _| Act::Refuse(500, None, "x")).await;
    let chat = hardened(vec![target("one", &url, |_| {})], |config, _| config.max_attempts = 2);
    assert!(chat.complete(&context(), &question("a")).await.is_err());
    assert!(chat.cooling().is_empty());
    assert!(chat.complete(&context(), &question("b")).await.is_err());
    assert_eq!(provider.asked().len(), 3, "the third failure cooled it down");
    let error = chat.complete(&context(), &question("c")).await.unwrap_err();
    let ProviderError::AllCooling { retry_after } = error else { panic!("{error}") };
    assert!(retry_after > Duration::from_secs(25), "{retry_after:?}");
}

#[tokio::test]
async fn long_chats_and_forbidden_ones_go_to_those_that_can_have_them() {
    let (_, small) = Provider::start(|_, text| match text {
        "long" => Act::Refuse(400, None, "context_length_exceeded"),
        "forbidden" => Act::Refuse(400, None, "content_policy_violation"),
        _ => Act::Answer(1),
    })
    .await;
    let (_, large) = Provider::start(|_, _| Act::Answer(1)).await;
    let (_, lenient) = Provider::start(|_, _| Act::Answer(1)).await;
    let targets = vec![
        target("small", &small, |_| {}),
        target("large", &large, |_| {}),
        target("lenient", &lenient, |_| {}),
    ];
    let chat = hardened(targets, |_, chains| {
        chains.order = vec!["small".into()];
        chains.context_window = vec!["large".into()];
        chains.content_policy = vec!["lenient".into()];
    });
    for (text, expected) in [("short", "small"), ("long", "large"), ("forbidden", "lenient")] {
        assert_eq!(chat.complete(&context(), &question(text)).await.unwrap().target, expected);
    }
    assert!(chat.cooling().is_empty(), "the question was the matter, not the target");
}

#[tokio::test]
async fn a_target_that_hangs_leaves_time_for_the_next() {
    let (_, hanging) = Provider::start(|_, _| Act::Hang).await;
    let (_, good) = Provider::start(|_, _| Act::Answer(1)).await;
    let chat = hardened(vec![target("hanging", &hanging, |_| {}), target("good", &good, |_| {})], |_, _| {});
    let deadline = Deadline::after(&SystemClock, Duration::from_secs(2));
    let answer = chat.complete(&context().with_deadline(deadline), &question("a")).await.unwrap();
    assert_eq!(answer.target, "good", "half of the time was the first one's");
    let passed = Deadline::after(&SystemClock, Duration::ZERO);
    let error = chat.complete(&context().with_deadline(passed), &question("a")).await.unwrap_err();
    assert!(matches!(error, ProviderError::Deadline));
}

#[tokio::test]
async fn an_attempt_has_its_share_of_the_time_however_short_the_clients_own_is() {
    let clock = ManualClock::new();
    let asked = Arc::new(Notify::new());
    let ask = Arc::clone(&asked);
    let (_, hanging) = Provider::start(move |_, _| {
        ask.notify_one();
        Act::Hang
    })
    .await;
    let (_, good) = Provider::start(|_, _| Act::Answer(1)).await;
    let shared: SharedClock = Arc::new(clock.clone());
    let targets = [("hanging", &hanging), ("good", &good)];
    let targets = targets.map(|(name, url)| target_on(Arc::clone(&shared), name, url, |_| {}));
    // Of two minutes the first one has half; the client's time is over after half a minute.
    let chat = harden_ai(targets.to_vec(), &Chains::default(), HardenConfig::default(), shared).unwrap();
    let context = Context::new(Source::Internal, &clock);
    let request = question("a");
    let (answer, ()) = tokio::join!(chat.complete(&context, &request), async {
        asked.notified().await;
        clock.advance(Duration::from_mins(1));
    });
    assert_eq!(answer.unwrap().target, "good");
}

#[tokio::test]
async fn without_a_deadline_the_clients_own_time_is_the_targets_time_out() {
    let clock = ManualClock::new();
    let asked = Arc::new(Notify::new());
    let ask = Arc::clone(&asked);
    let (_, url) = Provider::start(move |_, _| {
        ask.notify_one();
        Act::Hang
    })
    .await;
    let model = model_on(Arc::new(clock.clone()), &url);
    let context = Context::new(Source::Internal, &clock);
    let request = question("a");
    let (answer, ()) = tokio::join!(model.complete(&context, "hanging", &request), async {
        asked.notified().await;
        clock.advance(Duration::from_secs(30));
    });
    let error = answer.unwrap_err();
    assert!(
        matches!(error, ProviderError::TimedOut { after, .. } if after == Duration::from_secs(30)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_stream_may_last_as_long_as_the_call() {
    let clock = ManualClock::new();
    let go_on = Arc::new(Notify::new());
    let pausing = Act::Pausing(3, Arc::clone(&go_on));
    let (_, url) = Provider::start(move |_, _| pausing.clone()).await;
    let shared: SharedClock = Arc::new(clock.clone());
    let one = target_on(Arc::clone(&shared), "one", &url, |_| {});
    let chat = harden_ai(vec![one], &Chains::default(), HardenConfig::default(), shared).unwrap();
    let context = Context::new(Source::Internal, &clock);
    let mut words = std::pin::pin!(chat.stream(&context, &question("a")).await.unwrap());
    let mut text = words.next().await.unwrap().unwrap().content;
    // Longer than the client's own time.
    clock.advance(Duration::from_secs(90));
    go_on.notify_one();
    while let Some(delta) = words.next().await {
        text += &delta.unwrap().content;
    }
    assert_eq!(text, "word word word ");
}

#[tokio::test]
async fn a_stream_may_be_longer_than_an_answer_that_is_kept() {
    let (_, url) = Provider::start(|_, _| Act::Answer(100)).await;
    let model = model_with(SystemClock::shared(), &url, |config| config.max_response = ByteSize::kib(4));
    let model: Arc<dyn ChatModel> = model;
    let chat = hardened(vec![Target::new("one", model, TargetConfig::default())], |_, _| {});
    let words: Vec<_> = chat.stream(&context(), &question("a")).await.unwrap().collect().await;
    assert!(words.iter().all(Result::is_ok), "{:?}", words.last());
}

#[tokio::test]
async fn limits_are_kept_by_reserving_and_what_was_not_used_comes_back() {
    let (provider, url) = Provider::start(|_, _| Act::Answer(2)).await;
    let request = question("hello");
    let needed = request.estimate() + request.max_tokens;
    let limit = needed * 3 / 2;
    let chat = hardened(vec![target("one", &url, |config| config.tokens_per_minute = limit)], |_, _| {});
    // Each reserves two thirds of the limit and uses four tokens.
    for _ in 0..5 {
        chat.complete(&context(), &request).await.unwrap();
    }
    let mut large = request.clone();
    large.max_tokens = limit;
    let error = chat.complete(&context(), &large).await.unwrap_err();
    assert!(
        matches!(error, ProviderError::Limited { retry_after: None, .. }),
        "it would never fit: {error:?}"
    );
    let one = hardened(vec![target("one", &url, |config| config.requests_per_minute = 2)], |_, _| {});
    for _ in 0..2 {
        one.complete(&context(), &request).await.unwrap();
    }
    let error = one.complete(&context(), &request).await.unwrap_err();
    assert!(matches!(error, ProviderError::Limited { retry_after: Some(_), .. }), "{error:?}");
    assert_eq!(provider.asked().len(), 7);
}

#[tokio::test]
async fn the_provider_is_believed_when_it_has_less_left() {
    let headers = &[("x-ratelimit-remaining-requests", "100"), ("x-ratelimit-remaining-tokens", "10")];
    let (provider, url) = Provider::start(move |_, _| Act::Saying(1, headers)).await;
    let chat = hardened(vec![target("one", &url, |config| config.tokens_per_minute = 6_000)], |_, _| {});
    chat.complete(&context(), &question("hello")).await.unwrap();
    let error = chat.complete(&context(), &question("hello")).await.unwrap_err();
    assert!(matches!(error, ProviderError::Limited { .. }), "somebody else uses the same key: {error:?}");
    assert_eq!(provider.asked().len(), 1);
}

#[tokio::test]
async fn what_a_provider_had_left_at_a_streams_head_has_grown_at_its_end() {
    let clock = ManualClock::new();
    let headers = &[("x-ratelimit-remaining-tokens", "500")];
    let (_, url) = Provider::start(move |_, _| Act::Saying(2, headers)).await;
    let shared: SharedClock = Arc::new(clock.clone());
    let one = target_on(Arc::clone(&shared), "one", &url, |config| config.tokens_per_minute = 60_000);
    let mut config = HardenConfig::default();
    config.max_wait = Duration::ZERO;
    let chat = harden_ai(vec![one], &Chains::default(), config, shared).unwrap();
    let context = Context::new(Source::Internal, &clock);
    let mut words = std::pin::pin!(chat.stream(&context, &question("a")).await.unwrap());
    words.next().await.unwrap().unwrap();
    clock.advance(Duration::from_secs(45));
    while let Some(delta) = words.next().await {
        delta.unwrap();
    }
    // A thousand come back each second: there are 45,500, and not one more.
    let mut large = question("a");
    large.max_tokens = 45_501 - large.estimate();
    let error = chat.complete(&context, &large).await.unwrap_err();
    assert!(matches!(error, ProviderError::Limited { retry_after: Some(_), .. }), "{error:?}");
    large.max_tokens -= 1;
    chat.complete(&context, &large).await.unwrap();
}

#[tokio::test]
async fn a_target_that_breaks_off_every_stream_cools_down() {
    let (bad, bad_url) = Provider::start(|_, _| Act::BreakOff(1)).await;
    let (good, good_url) = Provider::start(|_, _| Act::Answer(1)).await;
    let chat = hardened(vec![target("bad", &bad_url, |_| {}), target("good", &good_url, |_| {})], |_, _| {});
    for asked in 1..=3 {
        assert!(chat.cooling().is_empty());
        let words: Vec<_> = chat.stream(&context(), &question("a")).await.unwrap().collect().await;
        assert!(matches!(words.last(), Some(Err(ProviderError::BrokeOff { .. }))), "{words:?}");
        assert_eq!((bad.asked().len(), good.asked().len()), (asked, 0));
    }
    assert_eq!(chat.cooling()[0].0, "bad");
    let words: Vec<_> = chat.stream(&context(), &question("a")).await.unwrap().collect().await;
    assert!(words.iter().all(Result::is_ok) && good.asked().len() == 1);
}

#[tokio::test]
async fn each_attempt_is_told_of_once_with_what_it_used() {
    let (_, url) = Provider::start(|nth, _| match nth {
        0 => Act::Refuse(500, None, "x"),
        1 => Act::BreakOff(2),
        _ => Act::Answer(3),
    })
    .await;
    let told: Arc<Mutex<Vec<_>>> = Arc::default();
    let tell = Arc::clone(&told);
    let one = target("one", &url, |_| {}).observed(move |attempted| {
        tell.lock().unwrap().push((attempted.outcome.to_owned(), attempted.usage.total()));
    });
    let chat = hardened(vec![one], |_, _| {});
    let _: Vec<_> = chat.stream(&context(), &question("a")).await.unwrap().collect().await;
    let _: Vec<_> = chat.stream(&context(), &question("a")).await.unwrap().collect().await;
    chat.complete(&context(), &question("a")).await.unwrap();
    let told = told.lock().unwrap();
    let told: Vec<_> = told.iter().map(|(outcome, tokens)| (outcome.as_str(), *tokens)).collect();
    assert_eq!(told, [("provider.failed", 0), ("provider.broke_off", 9), ("answered", 6), ("answered", 6)]);
}

#[tokio::test]
async fn the_same_question_is_asked_once_for_all_who_ask_it_and_never_for_another_tenant() {
    let (provider, url) = Provider::start(|nth, text| match (nth, text) {
        (0, "fails") => Act::Refuse(400, None, "x"),
        _ => Act::Answer(1),
    })
    .await;
    let chat =
        hardened(vec![target("one", &url, |_| {})], |config, _| config.cache = Some(CacheConfig::default()));
    let asked = |text: &'static str, context: Context| {
        let chat = chat.clone();
        tokio::spawn(async move {
            chat.complete(&context, &question(text)).await.map(|answer| answer.message.content)
        })
    };
    let mut failed = 0;
    let first: Vec<_> = (0..5).map(|_| asked("fails", context())).collect();
    for call in first {
        failed += u32::from(call.await.unwrap().is_err());
    }
    assert_eq!((failed, provider.asked().len()), (1, 2), "who waited for a failure asks again, once");
    let all: Vec<_> = (0..50).map(|_| asked("same", context())).collect();
    for call in all {
        assert_eq!(call.await.unwrap().unwrap(), "word ");
    }
    assert_eq!(provider.asked().len(), 3);
    asked("same", context().with_tenant(tenant("acme"))).await.unwrap().unwrap();
    assert_eq!(provider.asked().len(), 4);
}

#[tokio::test]
async fn who_waits_for_anothers_answer_waits_no_longer_than_a_call_may_take() {
    let clock = ManualClock::new();
    let (asked, mut asks) = tokio::sync::mpsc::unbounded_channel();
    let (_, url) = Provider::start(move |nth, _| {
        asked.send(nth).unwrap();
        Act::Hang
    })
    .await;
    let shared: SharedClock = Arc::new(clock.clone());
    let mut config = HardenConfig::default();
    (config.cache, config.attempt_timeout) = (Some(CacheConfig::default()), Duration::from_mins(10));
    let one = target_on(Arc::clone(&shared), "one", &url, |_| {});
    let chat = harden_ai(vec![one], &Chains::default(), config, shared).unwrap();
    let hundred_seconds = Deadline::after(&clock, Duration::from_secs(100));
    let (first, second) = (Context::new(Source::Internal, &clock), Context::new(Source::Internal, &clock));
    let (first, request) = (first.with_deadline(hundred_seconds), question("a"));
    let waiting = async { (chat.complete(&second, &request).await, clock.now()) };
    let (first, (second, ended), began) = tokio::join!(chat.complete(&first, &request), waiting, async {
        let began = clock.now();
        assert_eq!(asks.recv().await, Some(0));
        clock.advance(Duration::from_secs(100));
        assert_eq!(asks.recv().await, Some(1), "the second one's turn");
        // Of its two minutes the rest; then as long again.
        for wait in [20, 100] {
            clock.advance(Duration::from_secs(wait));
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
        }
        began
    });
    assert!(matches!(first, Err(ProviderError::Deadline)), "{first:?}");
    assert!(matches!(second, Err(ProviderError::Deadline)), "{second:?}");
    assert_eq!(ended - began, Duration::from_mins(2));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let harden = |targets, chains: Chains, config| harden_ai(targets, &chains, config, SystemClock::shared());
    let one = || vec![target("one", "http://127.0.0.1:1/v1", |_| {})];
    assert!(harden(vec![], Chains::default(), HardenConfig::default()).is_err());
    let mut twice = one();
    twice.extend(one());
    assert!(harden(twice, Chains::default(), HardenConfig::default()).is_err());
    let chains = Chains { context_window: vec!["nosuch".into()], ..Chains::default() };
    let error = harden(one(), chains, HardenConfig::default()).unwrap_err().to_string();
    assert!(error.contains("context_window") && error.contains("nosuch"), "{error}");
    let mut config = HardenConfig::default();
    config.max_attempts = 0;
    assert!(harden(one(), Chains::default(), config).is_err());
}
