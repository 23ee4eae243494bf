//! The Grafana dashboard that comes with Assay, and what an agent answers to Prometheus.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

/// Names of the figures that its panels ask for.
pub fn figures() -> BTreeSet<String> {
    let path = "packaging/kubernetes/overlays/monitoring/dashboard.json";
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    assert!(queries.len() > 20, "{queries:?}");
    let words = |query: &&str| {
        let mut words: Vec<String> = Vec::new();
        for word in query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            words.extend(word.starts_with("assay_").then(|| word.to_owned()));
        }
        assert!(!words.is_empty(), "{query}");
        words
    };
    queries.iter().flat_map(words).collect()
}

fn collect<'a>(value: &'a Value, queries: &mut Vec<&'a str>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect(value, queries)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("expr" | "definition", Value::String(query)) => queries.push(query),
                    _ => collect(value, queries),
                }
            }
        }
        _ => {}
    }
}

/// Names of the figures in an answer.
pub fn answered(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| line.starts_with("assay_"));
    lines
        .filter_map(|line| Some(line.split(['{', ' ']).next()?.to_owned()))
        .collect()
}
