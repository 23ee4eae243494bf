//! The view on real kernels: this machine's and, in a virtual machine, those of Debian 12 and 13. All tests of this
//! program run again inside, as root of a machine with nothing else on it.
#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    missing_debug_implementations,
    missing_docs,
    reason = "all of this program is tests"
)]

mod image;
mod kernels;
mod semantics;
