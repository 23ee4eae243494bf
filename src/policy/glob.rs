//! Patterns for paths: `*` and `?` stay within one component, `[…]` is one character of a set, `**` stands for any
//! number of components. Rules, policies and shell scripts write them.

/// Whether `text` holds a character that makes it a pattern.
#[must_use]
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether every bracket of a pattern opens a set: one that does not stands for itself, which nobody means.
#[must_use]
pub(crate) fn is_sound(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at = match (byte, set(bytes, at, 0)) {
            (b'[', Some((_, next))) => next,
            (b'[', None) => return false,
            _ => at + 1,
        };
    }
    true
}

/// The pattern that matches just this path.
#[must_use]
pub(crate) fn escape(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for character in path.chars() {
        match character {
            '*' | '?' | '[' => pattern.extend(['[', character, ']']),
            other => pattern.push(other),
        }
    }
    pattern
}

/// Whether one component matches, in time linear in the product of both lengths.
#[must_use]
pub(crate) fn component(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star does not fit: only the last star ever has to give way.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match step(pattern, p, text.get(t).copied().unwrap_or_default()) {
            Step::Star => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Step::Matched(next) => {
                p = next;
                t += 1;
            }
            Step::Failed => {
                let Some((star, from)) = retry else { return false };
                retry = Some((star, from + 1));
                (p, t) = (star, from + 1);
            }
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

enum Step {
    Star,
    Matched(usize),
    Failed,
}

fn step(pattern: &[u8], at: usize, byte: u8) -> Step {
    match pattern.get(at) {
        Some(b'*') => Step::Star,
        Some(b'?') => Step::Matched(at + 1),
        Some(b'[') => match set(pattern, at, byte) {
            Some((true, next)) => Step::Matched(next),
            Some((false, _)) => Step::Failed,
            None if byte == b'[' => Step::Matched(at + 1),
            None => Step::Failed,
        },
        Some(expected) if *expected == byte => Step::Matched(at + 1),
        _ => Step::Failed,
    }
}

/// Whether a byte is in the set that starts at `at`, and where the set ends; `None` where it is none.
fn set(pattern: &[u8], at: usize, byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(pattern.get(at + 1), Some(b'!' | b'^'));
    let first = at + 1 + usize::from(negated);
    let length = pattern.get(first + 1..)?.iter().position(|byte| *byte == b']')? + 1;
    let members = pattern.get(first..first + length)?;
    let mut found = false;
    let mut i = 0;
    while let Some(low) = members.get(i) {
        if let (Some(b'-'), Some(high)) = (members.get(i + 1), members.get(i + 2)) {
            found |= (*low..=*high).contains(&byte);
            i += 3;
        } else {
            found |= *low == byte;
            i += 1;
        }
    }
    Some((found != negated, first + length + 1))
}

/// Whether a whole path matches. A pattern without a slash is about the last component alone.
#[must_use]
pub(crate) fn path(pattern: &str, path: &str) -> bool {
    if !pattern.contains('/') {
        return component(pattern, path.rsplit('/').next().unwrap_or(path));
    }
    // What stands before the first wildcard settles most questions without a search.
    let literal = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    let directory = pattern
        .get(..literal)
        .and_then(|head| head.rfind('/'))
        .map_or("", |at| pattern.get(..at).unwrap_or(""));
    if !path.starts_with(directory) {
        return false;
    }
    let wanted: Vec<&str> = pattern.split('/').collect();
    let given: Vec<&str> = path.split('/').collect();
    let (mut w, mut g) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(name) = given.get(g) {
        match wanted.get(w) {
            Some(&"**") => {
                retry = Some((w + 1, g));
                w += 1;
            }
            Some(part) if component(part, name) => {
                w += 1;
                g += 1;
            }
            _ => {
                let Some((star, from)) = retry else { return false };
                retry = Some((star, from + 1));
                (w, g) = (star, from + 1);
            }
        }
    }
    wanted.iter().skip(w).all(|part| *part == "**")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_its_component_and_two_stars_do_not() {
        for (pattern, text, expected) in [
            ("/etc/*.conf", "/etc/host.conf", true),
            ("/etc/*.conf", "/etc/a/host.conf", false),
            ("/etc/**", "/etc/a/host.conf", true),
            ("/usr/lib/**/*.so", "/usr/lib/x.so", true),
            ("/usr/lib/**/*.so", "/usr/lib/a/b/x.so", true),
            ("/usr/lib/**/*.so", "/usr/lib/a/b/x.so.1", false),
            ("libcrypto.so.*", "/usr/lib/x86_64-linux-gnu/libcrypto.so.3", true),
            ("python3.[0-9]*", "/usr/bin/python3.11", true),
            ("[!a-c]x", "dx", true),
            ("[!a-c]x", "bx", false),
            ("[x", "[x", true),
            ("a?c*", "abc", true),
            ("", "", true),
        ] {
            assert_eq!(path(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_bracket_opens_a_set_or_is_a_fault() {
        for sound in ["", "/a", "/a[b]", "/[!a-z]*", "/[]]", "/[[]", "/**/x?"] {
            assert!(is_sound(sound), "{sound}");
        }
        for unsound in ["/a[", "/[]", "/[!]", "/[a]/[b"] {
            assert!(!is_sound(unsound), "{unsound}");
        }
    }

    proptest::proptest! {
        #[test]
        fn an_escaped_path_matches_itself_alone(one in "(/[a-c*?\\[\\]!-]{1,4}){1,3}", other in "(/[a-c*?\\[\\]!-]{1,4}){1,3}") {
            proptest::prop_assert!(is_sound(&escape(&one)));
            proptest::prop_assert_eq!(path(&escape(&one), &other), one == other);
            proptest::prop_assert!(path(&escape(&one), &one));
        }
    }

    #[test]
    fn many_stars_end_soon() {
        let started = std::time::Instant::now();
        assert!(!component(&"*a".repeat(2000), &"a".repeat(1999)));
        assert!(!path(&"/**/a".repeat(500), &"/a".repeat(499)));
        assert!(started.elapsed() < std::time::Duration::from_secs(1));
    }
}
