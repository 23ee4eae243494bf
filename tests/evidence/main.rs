//! The evidence cache as an administrator fills and keeps it: the `assay` program against registries, tools and tars.
#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    missing_docs,
    reason = "all of this program is tests"
)]

mod fake;
mod gc;
mod node;
mod pull;
mod tools;
