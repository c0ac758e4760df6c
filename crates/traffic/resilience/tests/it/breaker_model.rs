//! The breaker beside a naive model, in a hundred thousand random histories.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the model counts small numbers"
)]

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use runtime_resilience::{BreakerConfig, BreakerState, Outcome, Window};

use super::breaker::{breaker, config, secs};

/// What the documentation promises, in the plainest form: lists of outcomes, counted anew each time.
struct Model {
    config: BreakerConfig,
    now: u64,
    state: BreakerState,
    generation: u32,
    seen: VecDeque<(u64, bool)>,
    row: u32,
    openings: u32,
    until: u64,
    probes: (u32, u32, u32),
}

const TENTH: u64 = 1_000;

impl Model {
    fn new(config: BreakerConfig) -> Self {
        let (seen, probes) = (VecDeque::new(), (0, 0, 0));
        Self {
            config,
            now: 0,
            state: BreakerState::Closed,
            generation: 0,
            seen,
            row: 0,
            openings: 0,
            until: 0,
            probes,
        }
    }

    fn go(&mut self, to: BreakerState) {
        self.generation += 1;
        self.seen.clear();
        (self.row, self.probes) = (0, (0, 0, 0));
        match to {
            BreakerState::Open => {
                let grown = 10.0 * 2f64.powi(i32::try_from(self.openings).unwrap());
                self.until = self.now + (grown.min(120.0) * 1_000.0) as u64;
                self.openings += 1;
            }
            BreakerState::HalfOpen => self.until = self.now + 30_000,
            _ => self.openings = 0,
        }
        self.state = to;
    }

    fn acquire(&mut self) -> Option<u32> {
        let due = self.now >= self.until;
        match self.state {
            BreakerState::Closed => return Some(self.generation),
            BreakerState::HalfOpen if self.probes.0 < self.config.half_open_calls => {}
            BreakerState::Open | BreakerState::HalfOpen if due => self.go(BreakerState::HalfOpen),
            _ => return None,
        }
        self.probes.0 += 1;
        Some(self.generation)
    }

    fn record(&mut self, generation: u32, outcome: Outcome) {
        if generation != self.generation {
            return;
        }
        let failed = outcome == Outcome::Failure;
        if self.state == BreakerState::HalfOpen {
            if outcome == Outcome::Ignored {
                self.probes.0 -= 1;
                return;
            }
            self.probes.1 += 1;
            self.probes.2 += u32::from(failed);
            let needed = self.config.failure_rate * f64::from(self.config.half_open_calls);
            if self.probes.2 > 0 && f64::from(self.probes.2) >= needed {
                self.go(BreakerState::Open);
            } else if self.probes.1 == self.config.half_open_calls {
                self.go(BreakerState::Closed);
            }
            return;
        }
        if outcome == Outcome::Ignored {
            return;
        }
        self.seen.push_back((self.now, failed));
        self.row = if failed { self.row + 1 } else { 0 };
        let mut minimum = self.config.minimum_calls as usize;
        match self.config.window {
            Window::Calls(calls) => {
                minimum = minimum.min(calls as usize);
                while self.seen.len() > calls as usize {
                    self.seen.pop_front();
                }
            }
            _ => self.seen.retain(|(at, _)| at / TENTH + 10 > self.now / TENTH),
        }
        let failures = self.seen.iter().filter(|(_, failed)| *failed).count();
        let by_rate = self.seen.len() >= minimum
            && failures > 0
            && failures as f64 >= self.config.failure_rate * self.seen.len() as f64;
        if by_rate || self.config.consecutive_failures.is_some_and(|most| self.row >= most) {
            self.go(BreakerState::Open);
        }
    }
}

fn history(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut config = config();
    config.window =
        if seed.is_multiple_of(2) { Window::Calls(rng.random_range(1..20)) } else { Window::Time(secs(10)) };
    config.minimum_calls = rng.random_range(1..12);
    config.failure_rate = [0.1, 0.3, 0.5, 1.0][rng.random_range(0..4)];
    config.consecutive_failures = [None, Some(2), Some(5)][rng.random_range(0..3)];
    config.half_open_calls = rng.random_range(1..5);
    let (breaker, clock) = breaker(config.clone());
    // The breaker counts nanoseconds from 1, so a tenth begins one nanosecond before it does in the model.
    let mut model = Model::new(config);
    let mut open = Vec::new();
    for step in 0..60 {
        match rng.random_range(0..10) {
            0 => {
                let ms = [300, 1_000, 4_000, 11_000, 31_000][rng.random_range(0..5)];
                clock.advance(Duration::from_millis(ms));
                model.now += ms;
            }
            1..=4 => match (breaker.acquire_owned(), model.acquire()) {
                (Ok(permit), Some(generation)) => open.push((permit, generation)),
                (Err(_), None) => {}
                (real, model) => {
                    panic!("seed {seed}, step {step}: {:?} but the model says {model:?}", real.is_ok())
                }
            },
            _ if open.is_empty() => {}
            n => {
                let (permit, generation) = open.remove(rng.random_range(0..open.len()));
                let outcome = match n {
                    5 | 6 => Outcome::Failure,
                    9 => Outcome::Ignored,
                    _ => Outcome::Success,
                };
                permit.record(outcome);
                model.record(generation, outcome);
            }
        }
        assert_eq!(breaker.state(), model.state, "seed {seed}, step {step}");
    }
}

#[test]
fn a_hundred_thousand_random_histories_are_what_the_model_says() {
    for seed in 0..100_000 {
        history(seed);
    }
}
