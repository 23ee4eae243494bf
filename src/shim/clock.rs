//! Wall-clock time in the form of containerd's messages.

use protobuf::well_known_types::timestamp::Timestamp;

/// Now.
#[must_use]
pub fn now() -> Timestamp {
    let now = jiff::Timestamp::now();
    Timestamp {
        seconds: now.as_second(),
        nanos: now.subsec_nanosecond(),
        ..Timestamp::default()
    }
}
