//! The operator's command line: argument parsing and wiring.

use std::path::PathBuf;
use std::process::{ExitCode, Termination as _};

use assay::admission::{analysis, needs, parser};
use assay::cli::policy::DiffArgs;
use assay::cli::{self, Exit, Output};
use assay::config::Config;
use assay::fleet::Place;
use clap::{CommandFactory as _, Parser, Subcommand};

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
    /// Decide about one container: the shim's request on standard input, the decision on standard output
    Admit,
    /// Say whether a grant opens a process that a container's rule refuses: the shim's question on standard input
    #[command(hide = true)]
    AdmitExec,
    /// Judge images in containerd's store as containers made from them would be judged, without starting anything
    Verify(cli::verify::Args),
    /// Add a handler of Assay to this node's containerd, or take it out again
    Configure(cli::configure::Args),
    /// Say whether Assay can do its work on this node, what goes past it, and what to do about it
    ///
    /// Starts a pod of the sandbox image through each handler of Assay and takes it away again. Exit codes: 0 no check
    /// failed (there may be warnings), 1 a check failed, 2 usage.
    Doctor(cli::doctor::Args),
    /// Fill the cache of signatures and attestations
    Evidence(cli::evidence::Args),
    /// Show the packages of an image, the files that they own, and how these stand against the attested SBOM
    Sbom(cli::sbom::Args),
    /// Show what was decided on this node, a line for each decision, and what became of running containers
    Decisions(cli::decisions::Args),
    /// Explain a decision, the latest decision about a container, or a code
    Explain(cli::explain::Args),
    /// Show and change whom this node trusts
    Trust(cli::trust::Args),
    /// Check the rules in policy.d and the keys in trust.d, or put them in force
    #[command(subcommand)]
    Policy(Policy),
    /// Let run for a while what the policy refuses, by an administrator's key, on record: break-glass
    ///
    /// The key is one of trust.d with use = ["grant"]. What [[deny]] lists stays refused. See docs/break-glass.md.
    Grant(cli::grant::Args),
    /// Say what of this node would be refused if every rule were enforced, and what to do about it
    ///
    /// Judged are the images and containers of containerd, now, by the active policy with its audit rules enforced.
    /// Nothing is started or recorded. Exit codes: 0 nothing would be refused, 3 something would, 1 something could not
    /// be judged.
    Rollout(cli::rollout::Args),
    /// Judge running containers again when policy, trust, evidence or the time changes, until it is told to end
    ///
    /// Meant to be started by systemd (assay-agent.service). What changed is in the decision log: assay decisions. What
    /// is done about it says [rule.reevaluate] of the container's rule: nothing, unless it says otherwise.
    Agent(cli::agent::Args),
    /// Say which files of an image a container sees, and why
    View(cli::view::Args),
    /// Write manual pages and completions for shells
    #[command(hide = true)]
    Generate {
        /// An empty folder
        folder: PathBuf,
    },
    /// Say which system calls containers can make, and why
    Seccomp(cli::seccomp::Args),
    /// Show what a container can reach of its image, in numbers, with the list behind each
    Report(cli::report::Args),
    /// Put Assay on the node of this pod, take it off again, or label the node; the installer's image starts it
    #[command(hide = true)]
    Node(cli::node::Args),
    /// Do for an image what its first container would have to wait for; the agent starts it
    #[command(hide = true)]
    Prepare(cli::prepare::Args),
    /// Watch what a container uses of the files that enforce would hide; the shim starts it and ends it
    #[command(hide = true)]
    Watch(cli::watch::Args),
    /// Verify one Sigstore bundle as the Sigstore project's conformance suite asks for it
    #[command(hide = true)]
    VerifyBundle(cli::verify_bundle::Args),
}

#[derive(Debug, Subcommand)]
enum Policy {
    /// Validate policy and trust and put them in force; a fault changes nothing
    Apply {
        /// Take the fleet's policy from an OCI image layout with its signatures, a folder or a tar, and put it in force
        /// together with this node's own
        #[arg(long, value_name = "PATH")]
        from: Option<PathBuf>,
    },
    /// Fetch the fleet's policy from the registry that policy_from in config.toml names, and put it in force
    ///
    /// Taken is only what a key with use = ["policy"] signed, what has not expired, and no lower version than before. The
    /// agent does it every 15 minutes. Logs in with what 'docker login' left.
    Pull {
        /// Speak HTTP with the registry instead of HTTPS
        #[arg(long)]
        plain_http: bool,
    },
    /// Write policy and trust for a fleet into one tar, an OCI image layout to be pushed and signed
    ///
    /// Rules and deny list may name keys of this machine's trust.d too: what nodes have of their own, such as the key that
    /// signs this. Push it with 'oras copy --from-oci-layout' or 'skopeo copy', and sign the digest that is printed with 'cosign sign'.
    Pack(cli::policy::PackArgs),
    /// Validate policy and trust without putting them in force
    Check {
        /// What the findings are written as
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Judge the images of a table of tests by policy.d and trust.d, without containerd and without the active policy
    Test {
        /// TOML with a [[test]] for each image: name, image, namespace, kind, digest, evidence, expect, code
        file: PathBuf,
    },
    /// Say which images and containers of this node another policy would decide differently about
    ///
    /// Compared are the images of the evidence cache and of containerd, and the containers of containerd, by their
    /// recorded decisions. Keys and roots of a folder or file of policy are those of trust.d; the active policy has its
    /// own. Exit codes: 0 no difference, 3 something that may run now would be refused, 1 any other difference.
    Diff(DiffArgs),
}

fn main() -> ExitCode {
    // What is no text is for the command line to complain about.
    let words: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let program = std::env::args_os().next().unwrap_or_default();
    if cli::image_verifier::is_called(&program.to_string_lossy()) {
        return cli::image_verifier::run(&words).report();
    }
    let mut arguments = words.into_iter();
    let what = arguments.next().unwrap_or_default();
    match what.as_str() {
        // Every container waits for it, and to read the whole command line first would take a good part of its time.
        "admit" if arguments.len() == 0 => return cli::admit::run().report(),
        // A parser is started by another command, never by a person, and must not do anything before it is shut in.
        parser::ARGUMENT => return parser::main(&arguments.next().unwrap_or_default()),
        needs::ARGUMENT => {
            let root = arguments.next().unwrap_or_default();
            return needs::main(&root, &arguments.collect::<Vec<_>>());
        }
        analysis::SUMMARISE | analysis::CLOSE => {
            return analysis::main(&what, &arguments.next().unwrap_or_default());
        }
        cli::sbom::EXTRACT | cli::sbom::INSPECT => {
            return cli::sbom::main(&what, &arguments.next().unwrap_or_default());
        }
        _ => {}
    }
    run(Arguments::parse().command)
}

fn run(command: Command) -> ExitCode {
    // The shim needs an answer that it can read even when the configuration cannot be.
    if let Command::Admit = command {
        return cli::admit::run().report();
    }
    if let Command::AdmitExec = command {
        return cli::admit::exec().report();
    }
    if let Command::Verify(arguments) = &command {
        return cli::verify::run(arguments, Config::load().as_ref()).report();
    }
    // Asks about nothing that is this node's.
    if let Command::VerifyBundle(arguments) = &command {
        return cli::verify_bundle::run(arguments).report();
    }
    // The files of configuration are not this node's before it has moved there.
    if let Command::Node(arguments) = &command {
        return cli::node::run(arguments).report();
    }
    if let Command::Generate { folder } = &command {
        return cli::generate::run(Arguments::command(), folder).report();
    }
    let config = match Config::load() {
        Ok(config) => config,
        Err(faults) => {
            // A program that reads JSON is told in JSON.
            if let Command::Policy(
                Policy::Check { output: Output::Json }
                | Policy::Diff(DiffArgs {
                    output: Output::Json, ..
                }),
            ) = command
            {
                return cli::policy::report(false, &faults.0).report();
            }
            cli::show(&faults.0);
            return Exit::Failed.report();
        }
    };
    let exit = match command {
        Command::Admit => cli::admit::run(),
        Command::AdmitExec => cli::admit::exec(),
        Command::Grant(arguments) => cli::grant::run(&arguments, &config),
        Command::Generate { folder } => cli::generate::run(Arguments::command(), &folder),
        Command::VerifyBundle(arguments) => cli::verify_bundle::run(&arguments),
        Command::Node(arguments) => cli::node::run(&arguments),
        Command::Verify(arguments) => cli::verify::run(&arguments, Ok(&config)),
        Command::Configure(arguments) => cli::configure::run(&arguments, &config),
        Command::Rollout(arguments) => cli::rollout::run(&arguments, &config),
        Command::Doctor(arguments) => cli::doctor::run(&arguments, &config),
        Command::Agent(arguments) => cli::agent::run(&arguments, &config),
        Command::View(arguments) => cli::view::run(&arguments, &config),
        Command::Seccomp(arguments) => cli::seccomp::run(&arguments, &config),
        Command::Prepare(arguments) => cli::prepare::run(&arguments, &config),
        Command::Watch(arguments) => cli::watch::run(&arguments, &config),
        Command::Report(arguments) => cli::report::run(&arguments, &config),
        Command::Sbom(arguments) => cli::sbom::run(&arguments, &config),
        Command::Evidence(arguments) => cli::evidence::run(&arguments, &config),
        Command::Decisions(arguments) => cli::decisions::run(&arguments, &config),
        Command::Explain(arguments) => cli::explain::run(&arguments, &config),
        Command::Trust(arguments) => cli::trust::run(&arguments, &config),
        Command::Policy(Policy::Apply { from: None }) => cli::policy::apply(&config),
        Command::Policy(Policy::Apply { from: Some(path) }) => cli::policy::take(&config, Place::File(&path)),
        Command::Policy(Policy::Pull { plain_http }) => cli::policy::pull(&config, plain_http),
        Command::Policy(Policy::Pack(arguments)) => cli::policy::pack(&config, &arguments),
        Command::Policy(Policy::Check { output }) => cli::policy::check(&config, output),
        Command::Policy(Policy::Test { file }) => cli::policy::test(&config, &file),
        Command::Policy(Policy::Diff(arguments)) => cli::policy::diff(&config, &arguments),
    };
    exit.report()
}
