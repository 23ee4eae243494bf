#![no_main]

//! What a parser says to the broker: someone who broke into it says anything.
use std::sync::LazyLock;

use assay::admission::parser;
use assay::evidence::Question;
use libfuzzer_sys::fuzz_target;

static QUESTION: LazyLock<Question> =
    LazyLock::new(|| serde_json::from_slice(include_bytes!("answer.question.json")).unwrap());

fuzz_target!(|data: &[u8]| {
    if let Ok(judged) = parser::accept(data, &QUESTION) {
        assert!(
            judged
                .answer
                .facts
                .iter()
                .all(|fact| QUESTION.subjects.contains(&fact.subject))
        );
    }
});
