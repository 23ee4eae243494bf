//! Builds images that are missing or whose definition has changed.

use std::process::Command;

use serde_json::json;

use crate::definition::{Base, Definition};
use crate::root;

/// Builds the image unless it is there.
///
/// # Errors
/// The builder has said why.
pub fn build(definition: &Definition) -> Result<(), String> {
    let base = match definition.base {
        Base::Debian => "debian",
        Base::None => "none",
    };
    let status = Command::new(root().join("tests/corpus/build"))
        .args([&definition.name, base, &json!(definition.image).to_string()])
        .args(&definition.packages)
        .status()
        .unwrap();
    if status.success() {
        Ok(())
    } else {
        Err(format!("the image cannot be built: {status}"))
    }
}
