//! One binary for all tests.

mod it {
    mod histories;
    mod soak;
}
