//! JSON as strict as security documents need it: what two readers could read differently is refused.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::marker::PhantomData;

use crate::diagnostic::printable;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

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
pub fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let hasher = RandomState::new();
    Strict {
        depth: 0,
        hasher: &hasher,
    }
    .deserialize(&mut reader)?;
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

/// A list of which no more than the first `MOST` items are kept, however long it is: a document must not take many times
/// its size in memory before somebody sees that it has too much.
#[derive(Debug)]
pub struct First<T, const MOST: usize> {
    /// The first items.
    pub items: Vec<T>,
    /// How many it really has.
    pub count: usize,
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for First<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T, const MOST: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
            type Value = First<T, MOST>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while items.len() < MOST {
                    match seq.next_element()? {
                        Some(item) => items.push(item),
                        None => break,
                    }
                }
                let mut count = items.len();
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(First { items, count })
            }
        }

        deserializer.deserialize_seq(List(PhantomData))
    }
}

/// An object of which no more than the first `MOST` entries are kept.
#[derive(Debug)]
pub struct FirstNamed<T, const MOST: usize> {
    /// The first entries, by name.
    pub items: BTreeMap<String, T>,
    /// How many it really has.
    pub count: usize,
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for FirstNamed<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<T, const MOST: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Object<T, MOST> {
            type Value = FirstNamed<T, MOST>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut items = BTreeMap::new();
                while items.len() < MOST {
                    match map.next_entry()? {
                        Some((name, item)) => items.insert(name, item),
                        None => break,
                    };
                }
                let mut count = items.len();
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(FirstNamed { items, count })
            }
        }

        deserializer.deserialize_map(Object(PhantomData))
    }
}

/// Walks a whole value, keeps nothing of it.
struct Strict<'a> {
    depth: usize,
    /// Of the names in objects only hashes are kept: two names with one hash would be refused as well, which nobody can
    /// bring about who does not know the hasher's secret, and a repeated name is always seen.
    hasher: &'a RandomState,
}

/// Hashes of names; they need not be hashed again.
type Names = HashSet<u64, BuildHasherDefault<AsItIs>>;

#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0 << 8 | u64::from(byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// One name of an object, after those that were seen in it.
struct Name<'a> {
    hasher: &'a RandomState,
    seen: &'a mut Names,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<(), E> {
        if self.seen.insert(self.hasher.hash_one(name)) {
            return Ok(());
        }
        let name: String = name.chars().take(80).collect();
        Err(E::custom(format_args!("the key {name:?} appears twice")))
    }
}

impl Strict<'_> {
    fn deeper<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(Self {
            depth: self.depth + 1,
            hasher: self.hasher,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
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
        let mut seen = Names::default();
        let hasher = self.hasher;
        while map
            .next_key_seed(Name {
                hasher,
                seen: &mut seen,
            })?
            .is_some()
        {
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

    #[test]
    fn of_what_is_too_long_the_rest_is_counted() {
        let list: First<u8, 2> = parse(b"[1,2,{\"a\":[]},4]").unwrap();
        assert_eq!((list.items, list.count), (vec![1, 2], 4));
        let whole: First<u8, 2> = parse(b"[1,2]").unwrap();
        assert_eq!((whole.items, whole.count), (vec![1, 2], 2));
        let object: FirstNamed<u8, 1> = parse(br#"{"b":1,"a":"x"}"#).unwrap();
        assert_eq!((object.items, object.count), (BTreeMap::from([("b".to_owned(), 1)]), 2));
        assert!(parse::<First<u8, 1>>(b"{}").is_err());
        assert!(parse::<FirstNamed<u8, 1>>(b"[]").is_err());
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
