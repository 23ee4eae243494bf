//! JSON as strict as security documents need it: what two readers could read differently is refused.

use std::collections::HashSet;
use std::fmt;

use crate::diagnostic::printable;
use serde::Deserialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Deepest nesting of arrays and objects.
pub const MAX_DEPTH: usize = 64;

/// Longest quotation from a document in an error, in characters.
const MAX_QUOTED: usize = 160;

/// Why a document is refused, with line and column, safe to print.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not acceptable JSON: {0}")]
#[expect(clippy::error_impl_error, reason = "always written with its module: json::Error")]
pub struct Error(String);

impl From<serde_json::Error> for Error {
    /// The reader's messages quote names from the document.
    fn from(error: serde_json::Error) -> Self {
        let message = error.to_string();
        if message.chars().nth(MAX_QUOTED).is_none() {
            return Self(printable(&message).into_owned());
        }
        let start: String = message.chars().take(MAX_QUOTED).collect();
        Self(format!(
            "{}… at line {} column {}",
            printable(&start),
            error.line(),
            error.column()
        ))
    }
}

/// Reads a document into `T`.
///
/// # Errors
/// Anything that is not JSON or not a `T`, bytes after the document, an object that holds a key twice at any
/// depth, nesting deeper than [`MAX_DEPTH`].
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Strict { depth: 0 }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(serde_json::from_slice(bytes)?)
}

/// Reads `null` as nothing, as Go does.
///
/// # Errors
/// The deserializer's.
pub fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Walks a whole value, keeps nothing of it.
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self.deeper()?)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key) {
                let key: String = key.chars().take(80).collect();
                return Err(serde::de::Error::custom(format_args!("the key {key:?} appears twice")));
            }
            keys.insert(key);
            map.next_value_seed(self.deeper()?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn refused(text: &str) -> String {
        parse::<Value>(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        insta::assert_snapshot!(refused(r#"{"a":1,"a":1}"#), @r#"not acceptable JSON: the key "a" appears twice at line 1 column 10"#);
        insta::assert_snapshot!(refused(r#"[{"x":{"b":1,"\u0062":2}}]"#), @r#"not acceptable JSON: the key "b" appears twice at line 1 column 21"#);
        insta::assert_snapshot!(refused("{} {}"), @"not acceptable JSON: trailing characters at line 1 column 4");
        insta::assert_snapshot!(refused("{}\0"), @"not acceptable JSON: trailing characters at line 1 column 3");
        insta::assert_snapshot!(refused("[NaN]"), @"not acceptable JSON: expected value at line 1 column 2");
        insta::assert_snapshot!(refused("[1e999]"), @"not acceptable JSON: number out of range at line 1 column 6");
        insta::assert_snapshot!(refused("[1,]"), @"not acceptable JSON: trailing comma at line 1 column 4");
        insta::assert_snapshot!(refused(r#"["\ud800"]"#), @"not acceptable JSON: unexpected end of hex escape at line 1 column 9");
        insta::assert_snapshot!(refused("\u{feff}{}"), @"not acceptable JSON: expected value at line 1 column 1");
        assert!(parse::<Value>(b"[\"\xff\"]").is_err());
        assert!(parse::<Value>(b"").is_err());
    }

    #[test]
    fn errors_quote_little_and_nothing_that_commands_a_terminal() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Empty {}
        let error = parse::<Empty>(br#"{"\u001b[2J\n\u202e":1}"#).unwrap_err().to_string();
        insta::assert_snapshot!(error, @r#"not acceptable JSON: unknown field `\u{1b}[2J\u{a}\u{202e}`, there are no fields at line 1 column 20"#);
        let long = format!(r#"{{"{}":1}}"#, "x".repeat(1 << 20));
        let error = parse::<Empty>(long.as_bytes()).unwrap_err().to_string();
        assert!(
            error.len() < 300 && error.ends_with("… at line 1 column 1048579"),
            "{error}"
        );
    }

    #[test]
    fn nesting_is_capped_for_arrays_and_objects() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let nested = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
            parse::<Value>(nested(MAX_DEPTH).as_bytes()).unwrap();
            assert!(refused(&nested(MAX_DEPTH + 1)).contains("nested deeper than 64 levels"));
            assert!(parse::<Value>(nested(1_000_000).as_bytes()).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse::<Value>(&bytes);
        }

        #[test]
        fn every_document_without_duplicates_is_read_as_it_is(keys in prop::collection::hash_map("[a-c\"\\\\é]{0,3}", any::<i64>(), 0..6)) {
            let text = serde_json::to_vec(&keys).unwrap();
            prop_assert_eq!(parse::<std::collections::HashMap<String, i64>>(&text).unwrap(), keys);
        }
    }
}
