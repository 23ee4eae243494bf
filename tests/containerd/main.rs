//! Real containers through a real containerd: releases 1.6, 1.7 and 2.1, through its own API and through CRI.
//!
//! `ASSAY_TEST_RUNTIME=io.containerd.runc.v2` runs everything that is not Assay's own against the shim that containerd
//! brings along: what these tests call right is what that shim does.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "all of this program is tests"
)]

mod admission;
mod agent;
mod harness;

mod checkpoint;
mod churn;
mod command;
mod configure;
mod doctor;
mod exec;
mod failure;
mod filtering;
mod gate;
mod grant;
mod grouping;
mod journal;
mod kubelet;
mod lifecycle;
mod narrowing;
mod offline;
mod options;
mod pods;
mod profile;
mod publishing;
mod pulling;
mod refusals;
mod rejudging;
mod resources;
mod rollout;
mod sbom;
mod signals;
mod streams;
mod telemetry;
