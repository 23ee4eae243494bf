//! The texts that a word of a shell script can be when the script runs, as far as they are known.

use super::pattern;

/// Most values that one word may have.
pub(super) const MAX_VALUES: usize = 64;
/// Longest value.
pub(super) const MAX_VALUE: usize = 64 << 10;
/// Most values of which a part is not known.
const MAX_HOLED: usize = 16;
/// Stands for what is not known inside of a text.
pub(super) const HOLE: char = '\u{1}';

/// What a word can be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Values {
    /// Texts of which all is known.
    pub(super) known: Vec<String>,
    /// Texts in which a hole stands for what is not: one that is nothing else can be anything.
    pub(super) holed: Vec<String>,
}

impl Values {
    pub(super) fn of(text: &str) -> Self {
        let (mut known, mut holed) = (Vec::new(), Vec::new());
        if text.contains(HOLE) { &mut holed } else { &mut known }.push(text.to_owned());
        Self { known, holed }
    }

    pub(super) fn unknown() -> Self {
        Self::of(&HOLE.to_string())
    }

    /// There are further ones than those that are known.
    pub(super) fn has_more(&self) -> bool {
        !self.holed.is_empty()
    }

    /// The only one.
    pub(super) fn only(&self) -> Option<&str> {
        match self.known.as_slice() {
            [only] if !self.has_more() => Some(only),
            _ => None,
        }
    }

    pub(super) fn add(&mut self, text: String) {
        if text.len() > MAX_VALUE {
            self.add_unknown();
        } else if text.contains(HOLE) {
            if self.holed.len() >= MAX_HOLED {
                self.add_unknown();
            } else if !self.holed.contains(&text) {
                self.holed.push(text);
            }
        } else if self.known.len() >= MAX_VALUES {
            self.add_unknown();
        } else if !self.known.contains(&text) {
            self.known.push(text);
        }
    }

    /// From now on it can be anything.
    pub(super) fn add_unknown(&mut self) {
        self.holed = vec![HOLE.to_string()];
    }

    pub(super) fn join(&mut self, other: Self) {
        for text in other.known.into_iter().chain(other.holed) {
            self.add(text);
        }
    }

    /// Each of them changed. What is cut from a text may have been cut from the hole: then nothing is known of it.
    pub(super) fn map(self, change: impl Fn(&str) -> String) -> Self {
        let mut changed = Self::default();
        for text in &self.known {
            changed.add(change(text));
        }
        for text in &self.holed {
            let text = change(text);
            if text.contains(HOLE) {
                changed.add(text);
            } else {
                changed.add_unknown();
            }
        }
        changed
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &String> {
        self.known.iter().chain(&self.holed)
    }
}

/// `%pattern`, `%%pattern`, `#pattern` or `##pattern` with a pattern that is a plain text: whether it is taken from the
/// end, whether as much as possible, and the pattern.
pub(super) fn strip(operator: &str) -> Option<(bool, bool, &str)> {
    let (from_end, rest) = match operator.strip_prefix('%') {
        Some(rest) => (true, rest),
        None => (false, operator.strip_prefix('#')?),
    };
    let mark = if from_end { '%' } else { '#' };
    let (longest, wanted) = rest.strip_prefix(mark).map_or((false, rest), |wanted| (true, wanted));
    let is_plain = wanted.len() < 256 && !wanted.contains(['$', '`', '"', '\'', '\\']);
    is_plain.then_some((from_end, longest, wanted))
}

/// A text without what a pattern takes away from it.
pub(super) fn stripped(text: &str, from_end: bool, longest: bool, wanted: &str) -> String {
    if text.len() > 4096 {
        return text.to_owned();
    }
    let ends = (0..=text.len()).filter(|at| text.is_char_boundary(*at));
    let fits = |at: &usize| {
        let part = if from_end { text.get(*at..) } else { text.get(..*at) };
        part.is_some_and(|part| pattern::component(wanted, part))
    };
    // From the end, the shortest match begins last; from the start, it ends first.
    let at = if from_end == longest {
        ends.clone().find(fits)
    } else {
        ends.rev().find(fits)
    };
    let rest = at.and_then(|at| if from_end { text.get(..at) } else { text.get(at..) });
    rest.unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_out_of_the_unknown_is_unknown() {
        let directory = |text: &str| text.rsplit_once('/').map_or(".", |(head, _)| head).to_owned();
        let holed = |text: &str| Values::of(&text.replace('?', "\u{1}"));
        assert_eq!(Values::of("/a/b").map(directory), Values::of("/a"));
        assert_eq!(holed("?/bin/x").map(directory), holed("?/bin"));
        assert_eq!(holed("/a/?").map(directory), Values::unknown());
        assert_eq!(holed("?").map(directory), Values::unknown());
    }

    #[test]
    fn too_many_values_can_be_anything() {
        let mut values = Values::default();
        (0..=MAX_VALUES).for_each(|number| values.add(number.to_string()));
        assert_eq!(values.known.len(), MAX_VALUES);
        assert_eq!(values.holed, Values::unknown().holed);
        assert_eq!(values.only(), None);
    }
}
