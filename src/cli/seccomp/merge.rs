//! `assay seccomp merge`: one profile that lets through what any of several does.

use super::super::view::At;
use super::super::{Exit, complain, print};
use super::operand;
use crate::config::Config;
use crate::seccomp;
use crate::syscalls::Machine;

/// Arguments of `assay seccomp merge`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Profiles in files (their paths begin with / or .), images in containerd's store, or containers by their ids
    #[arg(value_name = operand::NAME, required = true)]
    operands: Vec<String>,
    #[command(flatten)]
    at: At,
}

pub(super) fn run(args: &Args, config: &Config) -> Exit {
    let profiles: Result<Vec<_>, Exit> = args
        .operands
        .iter()
        .map(|operand| operand::profile(operand, &args.at, config))
        .collect();
    let profiles = match profiles {
        Ok(profiles) => profiles,
        Err(exit) => return exit,
    };
    match seccomp::union(&profiles, Machine::native()) {
        Ok(union) => {
            print(String::from_utf8_lossy(&union.to_json()));
            Exit::Done
        }
        Err(why) => {
            complain(format!("they cannot be merged: {why}"));
            Exit::Failed
        }
    }
}
