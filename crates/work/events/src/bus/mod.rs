//! The in-process bus: one ring per topic, written once per event however many subscribe.
//!
//! A publisher takes one lock, writes one slot and wakes whoever waits. A subscriber takes a batch under that lock and
//! works without it. So publishing costs the same for one subscriber and for a hundred, what a subscriber has read
//! stays in the ring as the replay window, and a subscriber that falls behind costs nobody anything but itself.

mod registry;
mod ring;
mod run;
mod subscription;
mod topic;

pub use registry::{Bus, Emitted, Event};
pub use run::{Dead, Ended, Handling};
pub use subscription::{Delivery, Overflow, RecvError, Start, SubscribeOptions, Subscription};
pub use topic::{SubscriberState, SubscriberStats, Topic, TopicOptions, TopicStats};
