//! What the documentation says about the program is true of the program.
#![allow(clippy::tests_outside_test_module, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Words between two marks that look like a refusal's code.
fn codes(text: &str, mark: char) -> BTreeSet<String> {
    text.split(mark)
        .filter(|word| word.contains('-') && word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        .map(str::to_owned)
        .collect()
}

/// The codes of a source file: the strings that a `match` of its errors answers with.
fn answered(source: &str) -> BTreeSet<String> {
    let product = source.split("#[cfg(test)]").next().unwrap_or_default();
    product
        .lines()
        .filter(|line| line.contains("=> \""))
        .flat_map(|line| codes(line, '"'))
        .collect()
}

#[test]
fn every_refusal_has_its_line_in_the_page_on_refusals() {
    let page = codes(&read("docs/refusals.md"), '`');
    let mut missing = BTreeSet::new();
    for source in [
        "src/admission/broker.rs",
        "src/admission/parser.rs",
        "src/identity/fault.rs",
        "src/policy/activate.rs",
        "src/shim/admit.rs",
        "src/verify/mod.rs",
    ] {
        let codes = answered(&read(source));
        assert!(
            !codes.is_empty(),
            "{source} has no codes any more: look where they went"
        );
        missing.extend(codes.difference(&page).cloned());
    }
    // Written by the verdict, not about the refusal.
    missing.remove("findings-omitted");
    assert!(missing.is_empty(), "docs/refusals.md lacks {missing:?}");
}

#[test]
fn the_page_on_refusals_names_no_code_that_does_not_exist() {
    let mut source = String::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                source.push_str(&fs::read_to_string(&path).unwrap_or_default());
            }
        }
    }
    let unknown: Vec<String> = codes(&read("docs/refusals.md"), '`')
        .into_iter()
        .filter(|code| !source.contains(&format!("\"{code}\"")))
        .collect();
    assert!(
        unknown.is_empty(),
        "docs/refusals.md names {unknown:?}, which no source does"
    );
}
