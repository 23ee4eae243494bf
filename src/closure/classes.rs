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

/// The texts to search for calls: the file itself, or what the classes in it that start programs have in quotes. And
/// whether that is all of it: an archive can be damaged, or too large.
pub(super) fn texts(bytes: &[u8]) -> (Vec<String>, bool) {
    if bytes.starts_with(b"\xca\xfe\xba\xbe") {
        return (constants(bytes).into_iter().collect(), true);
    }
    if !bytes.starts_with(b"PK\x03\x04") {
        return (vec![String::from_utf8_lossy(bytes).into_owned()], true);
    }
    let Ok(mut archive) = ZipArchive::new(Cursor::new(bytes)) else {
        return (Vec::new(), false);
    };
    let mut all = Vec::new();
    let mut inflated = 0;
    let mut is_whole = archive.len() <= MAX_CLASSES;
    for number in 0..archive.len().min(MAX_CLASSES) {
        let Ok(entry) = archive.by_index(number) else {
            is_whole = false;
            continue;
        };
        if !entry.name().is_ok_and(|name| name.ends_with(".class")) {
            continue;
        }
        let mut class = Vec::new();
        let is_cut = entry.size() > MAX_CLASS;
        // What is damaged is searched as far as it goes.
        is_whole &= entry.take(MAX_CLASS).read_to_end(&mut class).is_ok() && !is_cut;
        inflated += class.len();
        all.extend(constants(&class));
        if inflated > MAX_INFLATED {
            return (all, false);
        }
    }
    (all, is_whole)
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;

    #[test]
    fn an_archive_that_is_not_searched_whole_says_so() {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        archive.start_file("App.class", SimpleFileOptions::default()).unwrap();
        let mut class = b"\xca\xfe\xba\xbe".to_vec();
        for text in ["java/lang/ProcessBuilder", "/usr/bin/tool"] {
            class.push(1);
            class.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
            class.extend(text.as_bytes());
        }
        archive.write_all(&class).unwrap();
        let mut bytes = archive.finish().unwrap().into_inner();
        let (found, is_whole) = texts(&bytes);
        assert!(found.concat().contains("\"/usr/bin/tool\"") && is_whole, "{found:?}");
        // The data of the class, which its checksum no longer fits.
        bytes[45] ^= 0xff;
        assert!(!texts(&bytes).1);
        assert_eq!(texts(b"PK\x03\x04"), (Vec::new(), false));
    }
}
