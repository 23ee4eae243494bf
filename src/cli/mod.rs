//! One file per `assay` command.

pub mod evidence;
