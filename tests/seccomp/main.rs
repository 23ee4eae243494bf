//! Profiles as the kernel gets them: compiled by libseccomp, loaded by runc, and then asked about every call.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "all of this program is tests"
)]

mod bpf;
mod complain;
mod container;
mod library;
mod loaded;
mod properties;
mod record;
