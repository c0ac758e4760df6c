//! Identifiers that sort by the time they were made (UUIDv7, RFC 9562 §5.7).

use std::sync::{Mutex, PoisonError};

use uuid::{ContextV7, Timestamp, Uuid};

use crate::clock::Clock;

static COUNTER: Mutex<ContextV7> = Mutex::new(ContextV7::new());

/// A new UUIDv7 at the clock's time. Two made in the same millisecond by one process still sort in order.
pub fn uuid_v7(clock: &dyn Clock) -> Uuid {
    let now = clock.utc();
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let nanos = now.subsec_microsecond() * 1_000;
    let context = COUNTER.lock().unwrap_or_else(PoisonError::into_inner);
    Uuid::new_v7(Timestamp::from_unix(&*context, seconds, nanos))
}

/// Declares a typed id over a UUIDv7: `id!(JobId, "A job.");`
///
/// It has `new(&dyn Clock)`, `as_uuid`, `From<Uuid>`, `Display`, `FromStr` and serde as a plain string.
#[macro_export]
macro_rules! id {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::serde::Serialize, ::serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name($crate::Uuid);

        impl $name {
            /// A new id, later than every one made before it by this process.
            pub fn new(clock: &dyn $crate::Clock) -> Self {
                Self($crate::uuid_v7(clock))
            }

            /// The UUID.
            pub const fn as_uuid(self) -> $crate::Uuid {
                self.0
            }
        }

        impl From<$crate::Uuid> for $name {
            fn from(uuid: $crate::Uuid) -> Self {
                Self(uuid)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(&self.0, f)
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::UuidError;

            fn from_str(text: &str) -> ::std::result::Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn ids_made_at_the_same_instant_still_sort() {
        let clock = ManualClock::new();
        let ids: Vec<_> = (0..1000).map(|_| uuid_v7(&clock)).collect();
        assert!(ids.is_sorted());
        assert_eq!(ids[0].get_version_num(), 7);
    }
}
