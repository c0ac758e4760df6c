//! The disk check against the disk at hand.

use runtime_health::{DiskSpace, HealthCheck, Status};
use runtime_kernel::units::ByteSize;

#[tokio::test]
async fn free_space_is_judged_by_the_limits() {
    let most = ByteSize::bytes(u64::MAX);
    let none = ByteSize::bytes(0);
    for (degraded, unhealthy, status) in
        [(none, none, Status::Healthy), (most, none, Status::Degraded), (most, most, Status::Unhealthy)]
    {
        let outcome = DiskSpace::new(env!("CARGO_MANIFEST_DIR")).limits(degraded, unhealthy).check().await;
        assert_eq!(outcome.status, status);
        assert!(outcome.details["free_bytes"].as_u64() <= outcome.details["total_bytes"].as_u64());
    }
}

#[tokio::test]
async fn a_path_that_is_not_there_is_unhealthy() {
    assert_eq!(DiskSpace::new("/no/such/place").check().await.status, Status::Unhealthy);
}
