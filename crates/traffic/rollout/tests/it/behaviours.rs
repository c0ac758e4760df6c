//! The behaviours of vyro's canary and blue-green helpers, each kept or deliberately different.
//!
//! Different, and why:
//! - A side is a service that gets the request, not a label.
//! - Shares are hundredths of a per cent, and a subject's place is the first eight bytes of SHA-256 scaled without bias (there
//!   four bytes modulo 100, so that 1 % is the smallest step): subjects are placed anew when a service moves over.
//! - Requests without a subject are spread one by one (there they all share one place, so they go all or none).
//! - A switch moves the traffic (there `promote` changes a field nobody reads: green is promoted and blue is served).
//! - A side that does not exist cannot be named: it is a type (there any text is a colour).

use runtime_kernel::Timestamp;
use runtime_rollout::{Kind, Plan, Rollout, Side, WHOLE};

fn rollout(kind: Kind, weight: u32) -> Rollout {
    let mut rollout = Rollout::new("checkout", kind, Plan::default(), Timestamp::UNIX_EPOCH);
    rollout.weight = weight;
    rollout
}

#[test]
fn vyro_47_primary_unless_told_pinned_at_nothing_everything_at_a_hundred_and_always_the_same() {
    let mut canary = rollout(Kind::Canary, 0);
    let users: Vec<_> = (0..1_000).map(|n| format!("user-{n}")).collect();
    assert!(users.iter().all(|user| canary.side(user) == Side::Primary));
    canary.pins.insert("user-7".to_owned(), Side::Canary);
    let chosen: Vec<_> = users.iter().filter(|user| canary.side(user) == Side::Canary).collect();
    assert_eq!(chosen, ["user-7"]);
    canary.weight = WHOLE;
    assert!(users.iter().all(|user| canary.side(user) == Side::Canary));
    canary.weight = 2_500;
    let twice = [(); 2].map(|()| users.iter().map(|user| canary.side(user)).collect::<Vec<_>>());
    assert_eq!(twice[0], twice[1]);
    let share = twice[0].iter().filter(|side| **side == Side::Canary).count();
    assert!((200..300).contains(&share), "{share}");
}

#[test]
fn vyro_48_blue_before_and_green_after_a_switch_and_pins_hold() {
    let mut colours = rollout(Kind::BlueGreen, 0);
    assert_eq!((colours.active(), colours.side("anybody")), (Side::Primary, Side::Primary));
    colours.weight = WHOLE;
    assert_eq!((colours.active(), colours.side("anybody")), (Side::Canary, Side::Canary));
    colours.pins.insert("tester".to_owned(), Side::Primary);
    assert_eq!((colours.side("tester"), colours.side("anybody")), (Side::Primary, Side::Canary));
    colours.pins.remove("tester");
    assert_eq!(colours.side("tester"), Side::Canary);
}
