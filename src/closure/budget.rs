//! How much work the texts of one image may cause.

use std::cell::Cell;

/// For one image: bytes of texts, once for each time that they are followed, and of the values made from them; what
/// else costs time counts as so many bytes as take as long.
const MOST: u64 = 24 << 20;
/// What one more script, command line or file costs beside its bytes.
pub(super) const STEP: u64 = 512;

/// Work that is left. Whoever cannot spend must say that something was not followed: nothing is hidden for want of it.
#[derive(Debug)]
pub(super) struct Budget(Cell<u64>);

impl Budget {
    /// For what the image says.
    pub(super) fn of_image() -> Self {
        Self(Cell::new(MOST))
    }

    /// For what rules and the policy say.
    pub(super) fn endless() -> Self {
        Self(Cell::new(u64::MAX))
    }

    /// Whether there was as much left; where there was not, nothing is from now on.
    pub(super) fn spend(&self, work: u64) -> bool {
        let left = self.0.get().checked_sub(work);
        self.0.set(left.unwrap_or(0));
        left.is_some()
    }

    pub(super) fn is_spent(&self) -> bool {
        self.0.get() == 0
    }
}
