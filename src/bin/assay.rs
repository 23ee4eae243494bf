//! The operator's command line: argument parsing and wiring.

use assay::cli::{self, Exit, Output};
use assay::config::Config;
use clap::{Parser, Subcommand};

/// Proves which image a container is started from and runs it only on a verified signature.
///
/// Configuration is read from /etc/assay/config.toml, or from the file that ASSAY_CONFIG names.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 3 denied by policy, 4 evidence missing, 5 signature invalid, 6 environment
/// not supported, 7 not found, 8 state corrupt, 70 internal fault.
#[derive(Debug, Parser)]
#[command(name = "assay", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the rules in policy.d and the keys in trust.d, or put them in force
    #[command(subcommand)]
    Policy(Policy),
}

#[derive(Debug, Subcommand)]
enum Policy {
    /// Validate policy and trust and put them in force; a fault changes nothing
    Apply,
    /// Validate policy and trust without putting them in force
    Check {
        /// What the findings are written as
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

fn main() -> Exit {
    let arguments = Arguments::parse();
    let config = match Config::load() {
        Ok(config) => config,
        Err(faults) => {
            cli::show(&faults.0);
            return Exit::Failed;
        }
    };
    match arguments.command {
        Command::Policy(Policy::Apply) => cli::policy::apply(&config),
        Command::Policy(Policy::Check { output }) => cli::policy::check(&config, output),
    }
}
