//! The memory store keeps the laws.

use runtime_apikey::{MemoryKeyStore, laws};

#[tokio::test]
async fn the_memory_store_keeps_the_laws() {
    laws::all(async || MemoryKeyStore::new()).await;
}
