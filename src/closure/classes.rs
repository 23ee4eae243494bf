//! What the sources of an application say, also where they are compiled: the texts in Java's class files and archives.

use std::io::{Cursor, Read};

use zip::ZipArchive;

/// Most files of an archive that are looked at, largest one, and bytes of all of them.
const MAX_CLASSES: usize = 20_000;
const MAX_CLASS: u64 = 1 << 20;
const MAX_INFLATED: usize = 64 << 20;
/// A class that starts programs has one of these among its texts.
const STARTING: &[&str] = &[
    "java/lang/ProcessBuilder",
    "java/lang/Runtime",
    "scala/sys/process/",
    "ProcessGroovyMethods",
    "clojure.java.shell",
];

/// The texts to search for calls: the file itself, or what the classes in it that start programs have in quotes.
pub(super) fn texts(bytes: &[u8]) -> Vec<String> {
    if bytes.starts_with(b"\xca\xfe\xba\xbe") {
        return constants(bytes).into_iter().collect();
    }
    if !bytes.starts_with(b"PK\x03\x04") {
        return vec![String::from_utf8_lossy(bytes).into_owned()];
    }
    let Ok(mut archive) = ZipArchive::new(Cursor::new(bytes)) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    let mut inflated = 0;
    for number in 0..archive.len().min(MAX_CLASSES) {
        let Ok(entry) = archive.by_index(number) else { continue };
        if !entry.name().is_ok_and(|name| name.ends_with(".class")) {
            continue;
        }
        let mut class = Vec::new();
        // What is damaged is searched as far as it goes.
        let _ = entry.take(MAX_CLASS).read_to_end(&mut class);
        inflated += class.len();
        all.extend(constants(&class));
        if inflated > MAX_INFLATED {
            break;
        }
    }
    all
}

/// The texts of a class file that starts programs, each in quotes on a line of its own. Before each stand its kind, 1,
/// and its length in two bytes.
fn constants(class: &[u8]) -> Option<String> {
    let mut found = String::new();
    let mut rest = class;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        let ([1], Some((length, text))) = ([*first], behind.split_first_chunk::<2>()) else {
            continue;
        };
        let text = text.get(..usize::from(u16::from_be_bytes(*length)));
        let Some(text) = text
            .filter(|text| !text.is_empty())
            .and_then(|text| std::str::from_utf8(text).ok())
        else {
            continue;
        };
        found.push('"');
        found.push_str(&text.replace('"', "'"));
        found.push_str("\"\n");
        rest = behind.get(2 + text.len()..).unwrap_or_default();
    }
    STARTING.iter().any(|mark| found.contains(mark)).then_some(found)
}
