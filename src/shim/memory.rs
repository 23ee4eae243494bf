//! Keeping the idle shim small: there is one per pod on the node.

use std::cell::Cell;
use std::time::Duration;

/// Calls come in bursts; memory is given back after the last of one.
const QUIET: Duration = Duration::from_millis(500);

thread_local! {
    static SCHEDULED: Cell<bool> = const { Cell::new(false) };
}

/// Makes the allocator keep to one arena, so that helper threads of the event loop do not each get their own.
pub fn frugal_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: called before any other thread exists; takes numbers only.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 10);
    }
    // SAFETY: takes numbers only. Best effort: without it the kernel may back the heap with huge pages.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
    }
}

/// Gives free memory back to the kernel once the shim has been quiet for a moment.
pub fn release_soon() {
    if SCHEDULED.replace(true) {
        return;
    }
    tokio::spawn(async {
        tokio::time::sleep(QUIET).await;
        SCHEDULED.set(false);
        #[cfg(target_env = "gnu")]
        // SAFETY: malloc_trim may be called at any time.
        unsafe {
            libc::malloc_trim(0);
        }
    });
}
