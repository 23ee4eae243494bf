//! (to be filled)
pub mod io;
