//! When the evidence of images that a node has already is fetched again: each once a day, one after the other.
//!
//! An image gets evidence after it came: a signature by another key, a newer VEX document. A registry that does not
//! answer is asked ever less often.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::node::Picture;
use crate::digest::Digest;

/// How often the evidence of an image is fetched.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long after a fetch that failed it is tried again for the same image; each time it is twice as long, up to a day.
const RETRY: Duration = Duration::from_secs(60 * 60);
/// Shortest time between two fetches; after each that failed it is twice as long.
const PAUSE: Duration = Duration::from_secs(60);
/// Longest time between two of them.
const MAX_PAUSE: Duration = Duration::from_secs(60 * 60);

/// The images of a node, and when the evidence of each is fetched.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    images: BTreeMap<Picture, Plan>,
    /// Failures in a row, whatever the image.
    failures: u32,
    /// Not before this.
    pause: Option<Instant>,
}

#[derive(Debug)]
struct Plan {
    due: Instant,
    failures: u32,
}

impl Renewal {
    /// Takes in what the node has now. What is new has just been fetched, or was there before the agent; neither is
    /// fetched at once.
    pub(super) fn take_in(&mut self, pictures: &BTreeSet<Picture>, now: Instant) {
        self.images.retain(|picture, _| pictures.contains(picture));
        for picture in pictures {
            if !self.images.contains_key(picture) {
                let due = now + share(picture);
                self.images.insert(picture.clone(), Plan { due, failures: 0 });
            }
        }
    }

    /// An image whose turn it is. One that nothing comes of has another turn all the same.
    pub(super) fn next(&mut self, now: Instant) -> Option<Picture> {
        let (picture, _) = self.first().filter(|(_, due)| *due <= now)?;
        let picture = picture.clone();
        if let Some(plan) = self.images.get_mut(&picture) {
            plan.due = now + RETRY;
        }
        Some(picture)
    }

    /// When the next one is fetched.
    pub(super) fn due(&self) -> Option<Instant> {
        self.first().map(|(_, due)| due)
    }

    fn first(&self) -> Option<(&Picture, Instant)> {
        let (picture, plan) = self.images.iter().min_by_key(|(_, plan)| plan.due)?;
        Some((picture, self.pause.map_or(plan.due, |pause| plan.due.max(pause))))
    }

    /// What came of a fetch.
    pub(super) fn ended(&mut self, picture: &Picture, well: bool, now: Instant) {
        let wait = |first: Duration, failures: u32, most: Duration| {
            let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
            first.saturating_mul(doubled).min(most)
        };
        self.failures = if well { 0 } else { self.failures.saturating_add(1) };
        self.pause = Some(now + wait(PAUSE, self.failures.saturating_add(1), MAX_PAUSE));
        if let Some(plan) = self.images.get_mut(picture) {
            plan.failures = if well { 0 } else { plan.failures.saturating_add(1) };
            plan.due = now + if well { DAY } else { wait(RETRY, plan.failures, DAY) };
        }
    }
}

/// A part of a day that an image always has: so what came together is not fetched together.
fn share(picture: &Picture) -> Duration {
    let digest = Digest::of(picture.name.as_bytes()).hex();
    let number = digest.get(..4).and_then(|start| u16::from_str_radix(start, 16).ok());
    DAY / 2 + DAY / 2 / u32::from(u16::MAX) * u32::from(number.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictures(count: usize) -> BTreeSet<Picture> {
        let picture = |number: usize| Picture {
            namespace: "k8s.io".to_owned(),
            name: format!("registry.example/app-{number}:1"),
            target: "sha256:0".to_owned(),
        };
        (0..count).map(picture).collect()
    }

    /// Fetches for some hours; answers when what was fetched.
    fn run(renewal: &mut Renewal, hours: u64, well: impl Fn(&Picture) -> bool) -> Vec<(Duration, String)> {
        let begin = Instant::now();
        renewal.take_in(&pictures(100), begin);
        let mut fetched = Vec::new();
        while let Some(now) = renewal
            .due()
            .filter(|due| *due <= begin + Duration::from_secs(hours * 3600))
        {
            let picture = renewal.next(now).unwrap();
            fetched.push((now - begin, picture.name.clone()));
            renewal.ended(&picture, well(&picture), now);
        }
        fetched
    }

    #[test]
    fn each_image_has_its_turn_once_a_day_and_never_two_at_once() {
        let mut renewal = Renewal::default();
        let fetched = run(&mut renewal, 25, |_| true);
        let names: BTreeSet<&String> = fetched.iter().map(|(_, name)| name).collect();
        assert_eq!((fetched.len(), names.len()), (100, 100));
        assert!(fetched[0].0 >= DAY / 2);
        assert!(fetched.windows(2).all(|pair| pair[1].0 - pair[0].0 >= PAUSE));
        // What is gone is not fetched.
        renewal.take_in(&BTreeSet::new(), Instant::now());
        assert_eq!(renewal.due(), None);
    }

    #[test]
    fn a_registry_that_is_away_is_asked_less_and_less() {
        let fetched = run(&mut Renewal::default(), 24, |_| false);
        // Once an hour at last, of twelve.
        assert!((10..24).contains(&fetched.len()), "{}", fetched.len());
        // One of many that has no evidence to be had keeps none of the others waiting.
        let is_local = |name: &str| name == "registry.example/app-7:1";
        let fetched = run(&mut Renewal::default(), 36, |picture| !is_local(&picture.name));
        let local = fetched.iter().filter(|(_, name)| is_local(name)).count();
        assert!((3..6).contains(&local), "{local}");
        let names: BTreeSet<&String> = fetched.iter().map(|(_, name)| name).collect();
        assert_eq!(names.len(), 100);
    }
}
