//! Guides: from the first error message to the number of round trips.

#[doc = include_str!("../docs/benchmarks.md")]
pub mod benchmarks {}
#[cfg(all(feature = "journal", feature = "pool"))]
#[doc = include_str!("../docs/bulk.md")]
pub mod bulk {}
#[doc = include_str!("../docs/comparison.md")]
pub mod comparison {}
#[cfg(feature = "dkim")]
#[doc = include_str!("../docs/dkim.md")]
pub mod dkim {}
#[cfg(feature = "mx")]
#[doc = include_str!("../docs/direct-delivery.md")]
pub mod direct_delivery {}
#[doc = include_str!("../docs/examples.md")]
pub mod examples {}
#[doc = include_str!("../docs/handover.md")]
pub mod handover {}
#[doc = include_str!("../docs/interruptions.md")]
pub mod interruptions {}
#[doc = include_str!("../docs/migration.md")]
pub mod migration {}
#[doc = include_str!("../docs/observability.md")]
pub mod observability {}
#[doc = include_str!("../docs/outbox.md")]
pub mod outbox {}
#[doc = include_str!("../docs/protocol.md")]
pub mod protocol {}
#[doc = include_str!("../docs/settings.md")]
pub mod settings {}
#[cfg(feature = "testing")]
#[doc = include_str!("../docs/testing.md")]
pub mod testing {}
#[doc = include_str!("../docs/troubleshooting.md")]
pub mod troubleshooting {}
