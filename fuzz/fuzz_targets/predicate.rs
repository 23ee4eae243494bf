#![no_main]

//! Predicates of attestations: the type, a zero byte, the predicate. What it says and whether a condition holds for it.
use assay::attest::{Condition, Details, Family, Predicate};
use assay_fuzz::two_parts;
use libfuzzer_sys::fuzz_target;

const CONDITIONS: [&str; 4] = [
    "predicate.buildDefinition.buildType == 'https://actions.github.io/buildtypes/workflow/v1'",
    "predicate.statements.all(s, s.status.matches('not_affected|fixed'))",
    "predicate.packages.exists(p, p.name.matches('^(a+)+$'))",
    "size(predicate) > 1 && string(predicate.x) + string(predicate.x) != ''",
];

fuzz_target!(|data: &[u8]| {
    let (kind, bytes) = two_parts(data);
    let Ok(kind) = std::str::from_utf8(kind) else { return };
    let _ = Details::parse(kind, bytes);
    let Ok(predicate) = Predicate::parse(kind, bytes) else {
        return;
    };
    for cel in CONDITIONS {
        let condition = Condition {
            about: Family::Provenance,
            cel: cel.to_owned(),
        };
        let _ = condition.holds(&predicate);
    }
});
