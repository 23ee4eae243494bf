#![no_main]

//! Tars with evidence, and what is found in the cache afterwards.
use std::os::fd::AsFd as _;

use assay::digest::Digest;
use assay::evidence::{self, Question};
use assay_fuzz::NOW;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let cache = assay_fuzz::state("evidence");
    assay_fuzz::in_memory(data, |path| {
        let Ok(report) = evidence::import(&cache, &[path.to_owned()]) else {
            return;
        };
        let subjects: Vec<Digest> = report
            .imported
            .iter()
            .flat_map(|item| item.subjects.clone())
            .take(4)
            .collect();
        let question = Question {
            subjects,
            now: NOW,
            ..Question::default()
        };
        assert!(
            evidence::judge(cache.as_fd(), &question).facts.is_empty(),
            "nobody is trusted"
        );
        let _ = evidence::inventory(&cache).unwrap();
    });
});
