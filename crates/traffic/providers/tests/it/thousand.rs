//! A thousand chats at once, streamed, through two targets of which one does what it can to spoil it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use runtime_kernel::{Context, Deadline, Source, SystemClock};
use runtime_providers::{Chains, ChatRequest, Cost, HardenConfig, Message, ProviderError, harden_ai};

use super::script::{Act, PRICE, Provider, target};

const TOKENS_PER_MINUTE: u32 = 30_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_nothing_is_said_twice_and_the_bill_is_right() {
    let (flaky, flaky_url) = Provider::start(|nth, _| match nth % 11 {
        2 => Act::Refuse(429, None, "rate_limit_exceeded"),
        4 => Act::Refuse(529, None, "overloaded"),
        6 if nth % 4 == 0 => Act::Hang,
        7 => Act::Refuse(500, None, "server_error"),
        9 => Act::BreakOff(7),
        _ => Act::Answer(20),
    })
    .await;
    let (steady, steady_url) = Provider::start(|_, _| Act::Answer(20)).await;
    let targets = [("flaky", &flaky_url), ("steady", &steady_url)].map(|(name, url)| {
        target(name, url, |config| {
            config.tokens_per_minute = TOKENS_PER_MINUTE;
            config.cooldown = Duration::from_millis(20);
        })
    });
    let mut config = HardenConfig::default();
    (config.attempt_timeout, config.max_attempts, config.max_wait) =
        (Duration::from_secs(3), 8, Duration::from_mins(1));
    let chat = harden_ai(targets.to_vec(), &Chains::default(), config, SystemClock::shared()).unwrap();

    let heard: Arc<Mutex<HashMap<String, (u32, bool)>>> = Arc::default();
    let calls: Vec<_> = (0..1_000)
        .map(|nth| {
            let (chat, heard) = (chat.clone(), Arc::clone(&heard));
            tokio::spawn(async move {
                let question = format!("question number {nth:04}, of some length");
                let deadline = Deadline::after(&SystemClock, Duration::from_mins(2));
                let context = Context::new(Source::Internal, &SystemClock).with_deadline(deadline);
                let request = ChatRequest::new([Message::user(question.clone())], 40);
                let mut words = 0;
                let mut stream = std::pin::pin!(chat.stream(&context, &request).await.unwrap());
                let mut broke = false;
                while let Some(delta) = stream.next().await {
                    match delta {
                        Ok(delta) => {
                            words += u32::try_from(delta.content.split_whitespace().count()).unwrap();
                        }
                        Err(ProviderError::BrokeOff { target, .. }) => {
                            assert_eq!(target, "flaky");
                            broke = true;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                heard.lock().unwrap().insert(question, (words, broke));
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }

    let heard = heard.lock().unwrap();
    let (flaky, steady) = (flaky.ledger.lock().unwrap(), steady.ledger.lock().unwrap());
    assert!(
        heard.values().all(|(words, broke)| *words == if *broke { 7 } else { 20 }),
        "nothing lost, nothing twice"
    );
    let broken = heard.values().filter(|(_, broke)| *broke).count();
    assert!(broken > 10 && heard.len() == 1_000, "{broken} broke off");
    for question in heard.keys() {
        let spoken = [&flaky, &steady].map(|ledger| ledger.spoken.get(question).copied().unwrap_or(0));
        assert_eq!(
            spoken.iter().sum::<u32>(),
            1,
            "once a word is said, nobody else is asked: {question} {spoken:?}"
        );
    }
    for ledger in [&flaky, &steady] {
        // Any span: no more than the bucket holds and what flows in meanwhile.
        for (first, (from, _)) in ledger.used.iter().enumerate().step_by(7) {
            let mut sum = 0.0;
            for (at, tokens) in &ledger.used[first..] {
                sum += f64::from(*tokens);
                let limit = f64::from(TOKENS_PER_MINUTE) * (1.0 + (*at - *from).as_secs_f64() / 60.0);
                assert!(sum <= limit + 1.0, "{sum} of {limit}");
            }
        }
    }
    let bill: Cost = flaky.bill.iter().chain(&steady.bill).map(|usage| PRICE.of(*usage)).sum();
    let spent = chat.spent("");
    assert_eq!((spent.cost, spent.cost.cents()), (bill, bill.cents()), "to the cent, and beyond");
    assert_eq!(spent.calls, 1_000);
}
