//! (to be filled)
pub mod io;
pub mod mount;
pub mod oom;
pub mod stats;
