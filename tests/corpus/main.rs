//! Runs real images from Debian packages under the stock runtime and under Assay, each with a workload by real clients,
//! and prints what Assay took away from each and whether anything broke. `docs/corpus.md` says how to use it.
//!
//! Not a test of `cargo test`: it downloads packages and takes minutes. `make corpus` runs it.
#![allow(clippy::unwrap_used, missing_docs, reason = "all of this program is a test")]

mod build;
mod definition;
mod node;
mod run;
mod surface;
mod table;
mod trace;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use definition::Definition;
use node::{Enforced, Node, Runtime};
use table::Row;

#[derive(Debug, Parser)]
#[command(
    name = "corpus",
    about = "Runs the corpus of images, all of it or those that are named"
)]
struct Arguments {
    /// Only these images.
    names: Vec<String>,
    /// Only the few images that stand for the rest.
    #[arg(long)]
    quick: bool,
    /// Only under this runtime.
    #[arg(long, value_enum)]
    runtime: Option<Runtime>,
    /// What policy enforces beside signature and SBOM.
    #[arg(long, value_enum, value_delimiter = ',')]
    enforce: Vec<Enforced>,
    /// Record the system calls again, even if nothing has changed.
    #[arg(long)]
    trace: bool,
    /// Build and sign the images only.
    #[arg(long)]
    build: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let definitions: Vec<_> = Definition::all()
        .into_iter()
        .filter(|definition| arguments.names.is_empty() || arguments.names.contains(&definition.name))
        .filter(|definition| !arguments.quick || definition.quick)
        .collect();
    if let Some(unknown) = arguments
        .names
        .iter()
        .find(|name| definitions.iter().all(|definition| definition.name != **name))
    {
        eprintln!("corpus: no image is called {unknown}: see tests/corpus/images");
        return ExitCode::FAILURE;
    }
    let mut rows: Vec<_> = definitions
        .iter()
        .map(|definition| Row::new(&definition.name))
        .collect();
    for (definition, row) in definitions.iter().zip(&mut rows) {
        if let Err(reason) = build::build(definition) {
            row.fails("build", &reason);
        }
    }
    if arguments.build {
        return outcome(&rows);
    }
    let node = Node::start(&arguments.enforce);
    for (definition, row) in definitions.iter().zip(&mut rows) {
        if row.failed() {
            continue;
        }
        println!("{}: {}", definition.name, definition.about);
        examine(&node, definition, row, &arguments);
        println!();
    }
    drop(node);
    let table = table::table(&rows);
    println!("\n{table}");
    std::fs::write(target().join("table.md"), format!("{table}\n")).unwrap();
    outcome(&rows)
}

/// Runs one image in every way that was asked for.
fn examine(node: &Node, definition: &Definition, row: &mut Row, arguments: &Arguments) {
    if let Err(reason) = node.import(definition) {
        row.fails("import", &reason);
        return;
    }
    if arguments.runtime != Some(Runtime::Assay) {
        say("stock");
        match run::run(node, definition, Runtime::Stock, None) {
            Ok(ran) => row.stock = Some(ran),
            Err(reason) => row.fails("stock", &reason),
        }
        if row.stock.is_some() && (arguments.trace || !trace::is_current(definition)) {
            say("traced");
            if let Err(reason) = trace::record(node, definition) {
                row.fails("trace", &reason);
            }
        }
    }
    if arguments.runtime != Some(Runtime::Stock) {
        say("assay");
        match run::run(node, definition, Runtime::Assay, None) {
            Ok(ran) => {
                for why in ran.told.iter().flat_map(|told| &told.unknown) {
                    print!("\n  not known: {why}");
                }
                row.assay = Some(ran);
            }
            Err(reason) => row.fails("assay", &reason),
        }
    }
    row.traced = trace::recorded(definition);
}

fn say(what: &str) {
    use std::io::Write;
    print!("  {what}");
    std::io::stdout().flush().unwrap();
}

fn outcome(rows: &[Row]) -> ExitCode {
    let failed: Vec<_> = rows.iter().filter(|row| row.failed()).collect();
    for row in &failed {
        println!("{} failed: {}", row.name, row.failure.as_deref().unwrap_or_default());
    }
    println!("{} passed, {} failed", rows.len() - failed.len(), failed.len());
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The project's folder.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where images and everything recorded about them are kept.
fn target() -> PathBuf {
    root().join("target/corpus")
}
