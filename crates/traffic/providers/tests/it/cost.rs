//! What calls cost.

use runtime_providers::{Cost, Price, Usage};

#[test]
fn costs_are_exact_and_rounded_only_when_shown() {
    let price = Price { prompt: 2_500_000, completion: 10_000_000 };
    let one = price.of(Usage { prompt: 1_000, completion: 333 });
    assert_eq!((one.to_string().as_str(), one.micros(), one.cents()), ("$0.005830", 5_830, 1));
    let tiny = Price { prompt: 1, completion: 0 }.of(Usage { prompt: 1, completion: 0 });
    assert_eq!((tiny.micros(), tiny.cents()), (1, 0), "rounded up, so that a cap holds");
    let many: Cost = std::iter::repeat_n(tiny, 1_000_000).sum();
    assert_eq!(many.micros(), 1, "a million of them are no more");
}
