//! The latest time that someone trusted vouched for. A node whose own clock is behind it cannot tell what has expired.
//!
//! The mark is one small file of Assay's state. It moves forward only with verified times of transparency logs,
//! timestamp authorities and TUF repositories, and never past the node's own clock: whoever forges a time in the
//! future gains nothing with it. The program's own build is a time that has certainly passed.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::store::{self, StateDir};

/// How far clocks of honest machines may be apart.
pub const TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// What a mark must gain to be written again: a decision that teaches nothing new should cost no write.
const STEP: SignedDuration = SignedDuration::from_hours(6);

/// Version of the file.
const VERSION: u32 = 1;
/// Name of the file below `state`.
const FILE: &str = "clock";
/// Largest file that is read.
const MAX_BYTES: u64 = 4 << 10;

/// Seconds since 1970 of the commit that this program was built from, as the build sets them.
const BUILT: Option<&str> = option_env!("SOURCE_DATE_EPOCH");

/// The node's clock and what is known about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// What the node's clock says.
    pub now: Timestamp,
    /// A time that has certainly passed; `None` where the file with it cannot be used.
    pub mark: Option<Timestamp>,
}

/// What moved the mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    version: u32,
    /// The time.
    pub time: Timestamp,
    /// Who vouched for it.
    pub source: String,
}

/// Why the mark cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The state directory or the file cannot be used.
    #[error("{0}")]
    State(#[from] store::Error),
    /// The file is not what was written.
    #[error("the file {FILE} of Assay's state is damaged: {0}; run: assay trust clock --reset")]
    Corrupt(#[from] serde_json::Error),
    /// The file is of another version of Assay.
    #[error(
        "the file {FILE} of Assay's state has format {0}, and this version reads format {VERSION}; run: assay trust clock --reset"
    )]
    Version(u32),
}

impl Mark {
    /// A time and who vouched for it.
    #[must_use]
    pub fn new(time: Timestamp, source: String) -> Self {
        Self {
            version: VERSION,
            time,
            source,
        }
    }

    /// The highest mark of this node; its build where nothing later was ever seen, and `None` where not even that is
    /// known.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn read(state: &StateDir) -> Result<Option<Self>, ClockError> {
        let written = match state.read(FILE, MAX_BYTES)? {
            Some(bytes) => Some(Self::parse(&bytes)?),
            None => None,
        };
        let built = built().map(|time| Self::new(time, "the build of this program".to_owned()));
        Ok([written, built].into_iter().flatten().max_by_key(|mark| mark.time))
    }

    fn parse(bytes: &[u8]) -> Result<Self, ClockError> {
        let mark: Self = serde_json::from_slice(bytes)?;
        if mark.version != VERSION {
            return Err(ClockError::Version(mark.version));
        }
        Ok(mark)
    }

    /// Forgets what was seen, for a machine whose clock was ahead of the world: what is left is the build.
    ///
    /// # Errors
    /// A failing system call.
    pub fn reset(state: &StateDir) -> Result<(), store::Error> {
        state.remove(FILE)?;
        state.sync()
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.time, self.source)
    }
}

impl Clock {
    /// The node's clock, now.
    #[must_use]
    pub fn read(state: &StateDir) -> Self {
        Self {
            now: Timestamp::now(),
            // A mark that cannot be read may have been any; what depends on time cannot count then.
            mark: Mark::read(state)
                .ok()
                .map(|mark| mark.map_or(Timestamp::UNIX_EPOCH, |mark| mark.time)),
        }
    }

    /// Whether the clock was turned back, or never set.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.mark.is_some_and(|mark| mark > self.latest())
    }

    /// The latest time that can have passed already.
    #[must_use]
    pub fn latest(&self) -> Timestamp {
        self.now.saturating_add(TOLERANCE).unwrap_or(Timestamp::MAX)
    }

    /// Moves the mark to `time`, if that is worth a write and can have passed already.
    ///
    /// # Errors
    /// A failing system call.
    pub fn advance(&self, state: &StateDir, time: Timestamp, source: &str) -> Result<(), ClockError> {
        let Some(mark) = self.mark else { return Ok(()) };
        let worth = mark.saturating_add(STEP).unwrap_or(Timestamp::MAX);
        if time < worth || time > self.latest() {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&Mark::new(time, source.to_owned()))?;
        Ok(state.write(FILE, &bytes)?)
    }
}

fn built() -> Option<Timestamp> {
    Timestamp::from_second(BUILT?.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().canonicalize().unwrap().join("state")).unwrap();
        (folder, state)
    }

    fn hours(hours: i64) -> SignedDuration {
        SignedDuration::from_hours(hours)
    }

    #[test]
    fn the_mark_moves_forward_in_steps_and_never_past_now() {
        let (_folder, state) = state();
        let clock = Clock::read(&state);
        let mark = || Clock::read(&state).mark.unwrap();
        let start = mark();
        let day_ago = clock.now - hours(24);
        clock.advance(&state, day_ago, "a log").unwrap();
        assert_eq!(mark(), day_ago);
        assert_eq!(Mark::read(&state).unwrap().unwrap().source, "a log");
        for (time, why) in [
            (day_ago - hours(1), "back"),
            (day_ago + hours(5), "a small step"),
            (clock.now + hours(1), "the future"),
            (Timestamp::MAX, "the end of time"),
        ] {
            Clock::read(&state).advance(&state, time, why).unwrap();
            assert_eq!(mark(), day_ago, "{why}");
        }
        let clock = Clock::read(&state);
        clock.advance(&state, clock.now, "a timestamp").unwrap();
        assert_eq!(mark(), clock.now);
        Mark::reset(&state).unwrap();
        assert_eq!(mark(), start);
        Mark::reset(&state).unwrap();
    }

    #[test]
    fn a_clock_that_was_turned_back_is_noticed() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let at = |mark| Clock { now, mark }.is_behind();
        assert!(!at(Some(now)) && !at(Some(now - hours(1))) && !at(None));
        assert!(!at(Some(now + TOLERANCE)));
        assert!(at(Some(now + TOLERANCE + SignedDuration::from_secs(1))));
    }

    #[test]
    fn a_damaged_mark_is_no_mark_and_stays_until_it_is_reset() {
        let (_folder, state) = state();
        for (bytes, said) in [
            (&b"{"[..], "is damaged"),
            (br#"{"version":1,"time":"2026-01-01T00:00:00Z"}"#, "is damaged"),
            (
                br#"{"version":2,"time":"2026-01-01T00:00:00Z","source":""}"#,
                "has format 2",
            ),
        ] {
            state.write(FILE, bytes).unwrap();
            let clock = Clock::read(&state);
            assert_eq!(clock.mark, None);
            clock.advance(&state, clock.now, "a log").unwrap();
            let error = Mark::read(&state).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("--reset"), "{error}");
        }
        Mark::reset(&state).unwrap();
        assert!(Clock::read(&state).mark.is_some());
    }

    #[test]
    fn the_build_is_a_time_that_has_passed() {
        assert!(built().is_none_or(|built| built <= Timestamp::now()));
    }
}
