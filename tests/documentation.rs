//! What the documentation says about the program is true of the program, its exit codes among it.
#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    missing_docs,
    reason = "all of this program is tests"
)]

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

/// Every source file of the program.
fn sources() -> Vec<String> {
    let mut sources = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                sources.push(fs::read_to_string(&path).unwrap_or_default());
            }
        }
    }
    sources
}

/// What the errors' `code` methods answer.
fn answered(source: &str) -> BTreeSet<String> {
    source
        .split("fn code(&self) -> &'static str {")
        .skip(1)
        .filter_map(|rest| rest.split("\n    }\n").next())
        .flat_map(|body| codes(body, '"'))
        .collect()
}

#[test]
fn every_refusal_has_its_line_in_the_page_on_refusals() {
    let page = codes(&read("docs/refusals.md"), '`');
    let mut known: BTreeSet<String> = sources().iter().flat_map(|source| answered(source)).collect();
    // A remark on the findings of a verdict, never a refusal's own code.
    known.remove("findings-omitted");
    assert!(
        known.len() > 50,
        "the errors' codes are not where this test looks: {known:?}"
    );
    let missing: Vec<_> = known.difference(&page).collect();
    assert!(missing.is_empty(), "docs/refusals.md lacks {missing:?}");
}

#[test]
fn the_page_on_refusals_names_no_code_that_does_not_exist() {
    let source = sources().concat();
    let unknown: Vec<String> = codes(&read("docs/refusals.md"), '`')
        .into_iter()
        .filter(|code| !source.contains(&format!("\"{code}\"")))
        .collect();
    assert!(
        unknown.is_empty(),
        "docs/refusals.md names {unknown:?}, which no source does"
    );
}

#[test]
fn every_check_of_the_doctor_has_its_line_and_no_other() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/doctor");
    let source: String = fs::read_dir(folder)
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .map(|text| text.split("#[cfg(test)]").next().unwrap().to_owned())
        .collect();
    let page: BTreeSet<String> = read("docs/doctor.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('|').next().map(str::to_owned))
        .flat_map(|cell| words(&cell))
        .collect();
    let mut known: BTreeSet<String> = source
        .split("CODE: &str = \"")
        .skip(1)
        .chain(
            source
                .split(".pass(")
                .skip(1)
                .filter_map(|rest| rest.trim_start().strip_prefix('"')),
        )
        .filter_map(|rest| rest.split('"').next().map(str::to_owned))
        .collect();
    known.extend(["state-directory", "run-directory"].map(str::to_owned));
    assert_eq!(page, known);
}

/// The words between backticks in a table's first cell.
fn words(cell: &str) -> BTreeSet<String> {
    cell.split([',', '`', ' '])
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_page_on_attacks_names_tests_that_exist() {
    let page = read("docs/attacks.md");
    let mut named = 0;
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let mut source = String::new();
        for word in row.split('`').skip(1).step_by(2) {
            if word.contains('/') {
                source = read(word);
            } else if word.contains('_') {
                assert!(
                    source.contains(&format!("fn {word}(")),
                    "docs/attacks.md names {word}, which is not where it says: {row}"
                );
                named += 1;
            }
        }
    }
    assert!(named > 95, "the tests' names are not where this test looks: {named}");
}

#[test]
fn an_argument_that_is_no_text_is_a_usage_error() {
    use std::os::unix::ffi::OsStrExt as _;
    let word = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    for arguments in [&[word][..], &["admit".as_ref(), word]] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_assay"))
            .args(arguments)
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("Usage: assay"), "{message}");
    }
}
