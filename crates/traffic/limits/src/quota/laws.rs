//! What every [`QuotaStore`] promises, stated once. Each law takes a store with nothing taken and panics when broken.

#![expect(clippy::unwrap_used, reason = "laws are tests")]

use std::sync::Arc;

use super::store::{Account, QuotaStore};

/// Every law, each on a store of its own.
pub async fn all<S, F>(mut fresh: F)
where
    S: QuotaStore,
    F: AsyncFnMut() -> S,
{
    what_is_taken_counts_and_what_is_given_back_does_not(&fresh().await).await;
    the_limit_holds_at_every_size(&fresh().await).await;
    accounts_are_apart(&fresh().await).await;
    racing_takers_never_take_more_than_the_limit(Arc::new(fresh().await)).await;
    racing_releases_give_back_once(Arc::new(fresh().await)).await;
    the_period_before_is_not_granted_anew(&fresh().await).await;
    an_old_period_is_forgotten_by_the_second_after_it(&fresh().await).await;
}

fn account(tenant: &str, name: &str, period: i64) -> Account {
    Account { tenant: tenant.to_owned(), name: name.to_owned(), period }
}

async fn what_is_taken_counts_and_what_is_given_back_does_not<S: QuotaStore>(store: &S) {
    let acme = account("main/acme", "storage", 0);
    assert_eq!(store.used(&acme).await.unwrap(), 0);
    assert_eq!(store.take(&acme, 60, 100).await.unwrap(), Ok(60));
    assert_eq!(store.take(&acme, 41, 100).await.unwrap(), Err(60), "too much, and nothing was taken");
    assert_eq!(store.take(&acme, 40, 100).await.unwrap(), Ok(100));
    assert_eq!(store.release(&acme, 101).await.unwrap(), Err(100), "more than is taken");
    assert_eq!(store.release(&acme, 70).await.unwrap(), Ok(30));
    assert_eq!(store.take(&acme, 1, 20).await.unwrap(), Err(30), "the limit was lowered below what is taken");
    assert_eq!(store.release(&acme, 30).await.unwrap(), Ok(0));
    assert_eq!(store.release(&acme, 1).await.unwrap(), Err(0));
    assert_eq!(store.used(&acme).await.unwrap(), 0);
}

async fn the_limit_holds_at_every_size<S: QuotaStore>(store: &S) {
    let most = u64::try_from(i64::MAX).unwrap();
    let acme = account("main/acme", "storage", 0);
    for (amount, limit, expected) in [
        (0, 0, Ok(0)),
        (1, 0, Err(0)),
        (u64::MAX, most, Err(0)),
        (most, most, Ok(most)),
        (0, most, Ok(most)),
        (1, most, Err(most)),
        (most, most, Err(most)),
        (0, most - 1, Err(most)),
    ] {
        assert_eq!(store.take(&acme, amount, limit).await.unwrap(), expected, "{amount} of {limit}");
    }
    assert_eq!(store.release(&acme, u64::MAX).await.unwrap(), Err(most));
    assert_eq!(store.release(&acme, 0).await.unwrap(), Ok(most));
    assert_eq!(store.release(&acme, most).await.unwrap(), Ok(0));
}

async fn accounts_are_apart<S: QuotaStore>(store: &S) {
    // No spelling of tenant and name makes two accounts one.
    let accounts =
        [account("a", "b/c", 0), account("a/b", "c", 0), account("a", "b", 0), account("a", "b", 86_400)];
    for (amount, account) in (1..).zip(&accounts) {
        assert_eq!(store.take(account, amount, 10).await.unwrap(), Ok(amount));
    }
    for (amount, account) in (1..).zip(&accounts).take(2) {
        assert_eq!(store.used(account).await.unwrap(), amount);
    }
}

async fn racing_takers_never_take_more_than_the_limit<S: QuotaStore>(store: Arc<S>) {
    let acme = account("main/acme", "storage", 0);
    let takers: Vec<_> = (0..20)
        .map(|n| {
            let (store, acme) = (Arc::clone(&store), acme.clone());
            tokio::spawn(async move {
                store.take(&acme, 5 + n % 3, 50).await.unwrap().is_ok().then_some(5 + n % 3)
            })
        })
        .collect();
    let mut taken = 0;
    for taker in takers {
        taken += taker.await.unwrap().unwrap_or(0);
    }
    assert!(taken <= 50 && taken > 43, "{taken}");
    assert_eq!(store.used(&acme).await.unwrap(), taken);
}

async fn racing_releases_give_back_once<S: QuotaStore>(store: Arc<S>) {
    let acme = account("main/acme", "storage", 0);
    store.take(&acme, 10, 10).await.unwrap().unwrap();
    let releases: Vec<_> = (0..8)
        .map(|_| {
            let (store, acme) = (Arc::clone(&store), acme.clone());
            tokio::spawn(async move { store.release(&acme, 4).await.unwrap().is_ok() })
        })
        .collect();
    let mut given = 0;
    for release in releases {
        given += u32::from(release.await.unwrap());
    }
    assert_eq!((given, store.used(&acme).await.unwrap()), (2, 2));
}

/// Another machine's clock is behind, or this one's was put back over midnight.
async fn the_period_before_is_not_granted_anew<S: QuotaStore>(store: &S) {
    let day = |n: i64| account("main/acme", "requests", 86_400 * n);
    assert_eq!(store.take(&day(1), 10, 10).await.unwrap(), Ok(10));
    assert_eq!(store.take(&day(2), 1, 10).await.unwrap(), Ok(1));
    assert_eq!(store.take(&day(1), 1, 10).await.unwrap(), Err(10));
    assert_eq!(store.release(&day(1), 4).await.unwrap(), Ok(6));
    assert_eq!(store.take(&day(1), 4, 10).await.unwrap(), Ok(10));
    assert_eq!(store.take(&day(2), 9, 10).await.unwrap(), Ok(10));
    assert_eq!(store.used(&day(1)).await.unwrap(), 10);
}

async fn an_old_period_is_forgotten_by_the_second_after_it<S: QuotaStore>(store: &S) {
    let day = |n: i64| account("main/acme", "requests", 86_400 * n);
    let (other, standing) = (account("main/acme", "other", 86_400), account("main/acme", "requests", 0));
    store.take(&other, 3, 10).await.unwrap().unwrap();
    store.take(&day(1), 10, 10).await.unwrap().unwrap();
    assert_eq!(store.take(&day(2), 4, 10).await.unwrap(), Ok(4));
    assert_eq!(store.take(&day(3), 5, 10).await.unwrap(), Ok(5));
    assert_eq!(store.used(&day(1)).await.unwrap(), 0);
    assert_eq!(store.used(&day(2)).await.unwrap(), 4);
    assert_eq!(store.used(&other).await.unwrap(), 3);
    assert_eq!(store.used(&standing).await.unwrap(), 0);
}
