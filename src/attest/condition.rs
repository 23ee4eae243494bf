//! Conditions on predicates, in CEL.

use serde::{Deserialize, Serialize};

use super::Family;

/// A `where` of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// About what kind of evidence.
    pub about: Family,
    /// The expression.
    pub cel: String,
}
