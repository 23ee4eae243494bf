#![no_main]

//! In-toto statements.
use assay::attest::{Details, Statement};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(statement) = Statement::parse(data) {
        assert!(!statement.subjects.is_empty());
        let _ = Details::parse(&statement.predicate_type, &statement.predicate);
    }
});
