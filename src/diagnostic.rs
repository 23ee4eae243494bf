//! What a person reads when a file that an administrator wrote is wrong: what, where (file, line, column, caret)
//! and what to do next.
//!
//! [`strict`] reads TOML into these diagnostics. [`Diagnostic`] prints itself as plain text; `cli` draws the same
//! thing for terminals, so that the shim, which reads its configuration too, carries no drawing code.

pub mod strict;

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::Read as _;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest file of configuration, policy or trust.
pub const MAX_SOURCE_BYTES: u64 = 1 << 20;

/// Most files that one folder of policy or trust may hold.
pub const MAX_SOURCE_FILES: usize = 1024;

/// Write permission of group and others: the bits that no file of Assay's may have.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// In a folder with this bit nobody can replace what belongs to someone else.
const STICKY: u32 = 0o1000;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Stable code of a diagnostic. Users search for these; they are never renamed or reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code as it is printed.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// A file or folder cannot be read.
    Unreadable = "unreadable",
    /// A file or folder belongs to someone who must not decide, or can be written by others.
    Permissions = "permissions",
    /// A file or folder is larger than its limit.
    TooLarge = "too-large",
    /// A file is not UTF-8.
    NotUtf8 = "not-utf8",
    /// A file is not TOML.
    Syntax = "syntax",
    /// A key appears twice in a table.
    DuplicateKey = "duplicate-key",
    /// A key that no version knows.
    UnknownKey = "unknown-key",
    /// A key or table that this version does not support.
    NotSupported = "not-supported",
    /// A value of another type than expected.
    WrongType = "wrong-type",
    /// A required key is missing.
    MissingKey = "missing-key",
    /// A value is outside the set or range of values that the key knows.
    InvalidValue = "invalid-value",
    /// An empty list, text or table where something is needed.
    Empty = "empty",
    /// The same element twice in a list.
    Repeated = "repeated",
    /// A path that must be absolute is not.
    PathNotAbsolute = "path-not-absolute",
    /// A name has characters that it may not have.
    InvalidName = "invalid-name",
    /// Two keys of trust have one identifier.
    KeyIdDuplicate = "key-id-duplicate",
    /// Two identifiers name one key.
    KeyDuplicate = "key-duplicate",
    /// A key's file is not a plain name beside the file that refers to it.
    KeyFileName = "key-file-name",
    /// A key's file is not one PEM document.
    KeyNotPem = "key-not-pem",
    /// A key's file holds a private key.
    KeyPrivate = "key-private",
    /// A key's file is PEM, but not of a public key that Assay reads.
    KeyInvalid = "key-invalid",
    /// A key of an algorithm that Assay does not verify.
    KeyAlgorithm = "key-algorithm",
    /// A key that is too small or too large.
    KeySize = "key-size",
    /// A builder whose signer is not given, or given twice.
    BuilderSigner = "builder-signer",
    /// Two builders have one name.
    BuilderDuplicate = "builder-duplicate",
    /// A file that holds no certificates or revocation lists.
    CertificateFile = "certificate-file",
    /// Two trust stores have one identifier.
    StoreDuplicate = "store-duplicate",
    /// A time or duration that is none.
    /// A trusted root is neither built in nor a file, or both.
    RootSource = "root-source",
    /// A trusted root's file is not one, or nothing in it can be used.
    RootInvalid = "root-invalid",
    /// An entry of a trusted root is not used.
    RootEntry = "root-entry",
    /// Two trusted roots have one identifier.
    RootIdDuplicate = "root-id-duplicate",
    /// More trusted roots than are accepted.
    RootLimit = "root-limit",
    /// A time is not RFC 3339.
    InvalidTime = "invalid-time",
    /// A validity window that ends before it starts.
    EmptyWindow = "empty-window",
    /// The sources hold no rule.
    NoRules = "no-rules",
    /// Two rules have one name.
    RuleDuplicate = "rule-duplicate",
    /// An enforce rule that would allow by forgetting.
    RuleRequiresNothing = "rule-requires-nothing",
    /// An audit rule that has nothing to check.
    AuditRequiresNothing = "audit-requires-nothing",
    /// Further processes are bound to a view that the rule does not have.
    ClosureWithoutView = "closure-without-view",
    /// A rule that no container can reach.
    RuleUnreachable = "rule-unreachable",
    /// A pattern that matches nothing or is not understood.
    InvalidPattern = "invalid-pattern",
    /// A text that is not a digest.
    InvalidDigest = "invalid-digest",
    /// A key that trust does not hold.
    KeyUnknown = "key-unknown",
    /// A key that trust does not allow for this.
    KeyUse = "key-use",
    /// A root, builder or trust store that trust does not hold.
    TrustUnknown = "trust-unknown",
    /// A signer that is described in no known way, or in two.
    InvalidSigner = "invalid-signer",
    /// A condition that is not CEL, or asks for something that does not exist.
    InvalidCondition = "invalid-condition",
    /// A key whose signatures cannot count at present.
    KeyInactive = "key-inactive",
    /// A rule asks for log entries or times, and trust has no root to verify them under.
    RootNeeded = "root-needed",
    /// More signers are asked for than there are.
    Threshold = "threshold",
    /// A trusted root that was not refreshed for long.
    RootOld = "root-old",
    /// A refreshed trusted root that cannot be used.
    RootDamaged = "root-damaged",
    /// A tuning of seccomp profiles that does not count any more.
    TuningExpired = "tuning-expired",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A file that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it was read from.
    pub path: PathBuf,
    /// What it said.
    pub text: String,
}

/// How much a diagnostic matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The file does not count.
    Error,
    /// It counts, and is probably not what was meant.
    Warning,
}

/// Where in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub source: Arc<Source>,
    /// Bytes in its text.
    pub span: Range<usize>,
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its stable code.
    pub code: Code,
    /// How much it matters.
    pub severity: Severity,
    /// One sentence: what is wrong.
    pub message: String,
    /// Where; none when a file could not be read at all, and the message names it then.
    pub place: Option<Place>,
    /// What stands at the caret; may be empty.
    pub label: String,
    /// What to do next; may be empty.
    pub help: String,
}

/// Everything that is wrong, at least one of it an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Source {
    /// Reads a file of configuration, policy or trust.
    ///
    /// # Errors
    /// When it cannot be read, is not a plain file, is larger than [`MAX_SOURCE_BYTES`], is not UTF-8, belongs to
    /// neither root nor the user who runs this, or can be written by others.
    pub fn read(path: &Path) -> Result<Arc<Self>, Diagnostic> {
        let bytes = read_file(path, MAX_SOURCE_BYTES)?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            Diagnostic::without_place(
                Code::NotUtf8,
                format!("{} is not UTF-8: byte {at} starts no character", path.display()),
                "save the file as UTF-8",
            )
        })?;
        Ok(Arc::new(Self {
            path: path.to_owned(),
            text,
        }))
    }

    /// The place of these bytes of the text.
    #[must_use]
    pub fn at(self: &Arc<Self>, span: Range<usize>) -> Place {
        Place {
            source: Arc::clone(self),
            span,
        }
    }
}

/// Reads a file of at most `limit` bytes under the conditions of [`Source::read`].
///
/// # Errors
/// As there, except for UTF-8.
pub fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, Diagnostic> {
    let unreadable = |e: std::io::Error| {
        Diagnostic::without_place(
            Code::Unreadable,
            format!("{} cannot be read: {e}", path.display()),
            "check the path, or run as root",
        )
    };
    // Without O_NONBLOCK a fifo in place of the file would hang whoever opens it.
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Diagnostic::without_place(
            Code::Unreadable,
            format!("{} is not a plain file", path.display()),
            "put a plain file there",
        ));
    }
    check_owner(path, &metadata)?;
    check_mode(path, &metadata)?;
    check_folders(path)?;
    read_limited(file, limit).map_err(unreadable)?.ok_or_else(|| {
        Diagnostic::without_place(
            Code::TooLarge,
            format!("{} is larger than {limit} bytes", path.display()),
            "split the file, or check that it is the right one",
        )
    })
}

fn read_limited(file: File, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((read as u64 <= limit).then_some(bytes))
}

/// The `*.toml` files of a folder in the order of their names, or the file itself. Hidden files do not count.
///
/// # Errors
/// When the folder cannot be read, holds more than [`MAX_SOURCE_FILES`] entries, or is not safe from others.
pub fn toml_files(path: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let unreadable = |e: std::io::Error| {
        Diagnostic::without_place(
            Code::Unreadable,
            format!("{} cannot be read: {e}", path.display()),
            "check the path, or create it; where no argument names it, config.toml does",
        )
    };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    check_owner(path, &metadata)?;
    check_mode(path, &metadata)?;
    check_folders(path)?;
    let mut files = Vec::new();
    for (count, entry) in fs::read_dir(path).map_err(unreadable)?.enumerate() {
        let entry = entry.map_err(unreadable)?;
        if count >= MAX_SOURCE_FILES {
            return Err(Diagnostic::without_place(
                Code::TooLarge,
                format!("{} holds more than {MAX_SOURCE_FILES} files", path.display()),
                "join the files",
            ));
        }
        let name = entry.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(b".toml") && !bytes.starts_with(b".") {
            files.push(path.join(name));
        }
    }
    files.sort();
    Ok(files)
}

/// The places at which there is something, or may be.
#[must_use]
pub fn present(places: &[PathBuf]) -> Vec<PathBuf> {
    places.iter().filter(|place| !is_missing(place)).cloned().collect()
}

/// Whether certainly nothing is at a place: what cannot be looked at is not missing.
#[must_use]
pub fn is_missing(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false)) && !path.is_symlink()
}

/// Reads the files that [`toml_files`] finds in these places, all together in the order of their names; what cannot be
/// read safely is added to `faults`.
pub fn sources(places: &[PathBuf], faults: &mut Vec<Diagnostic>) -> Vec<Arc<Source>> {
    let mut files = Vec::new();
    for place in places {
        match toml_files(place) {
            Ok(found) => files.extend(found),
            Err(fault) => faults.push(fault),
        }
    }
    files.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    let read = |file: PathBuf| Source::read(&file).map_err(|fault| faults.push(fault)).ok();
    files.into_iter().filter_map(read).collect()
}

// Root may write anything anyway. The user who runs the command counts too, so that a policy can be checked in a
// checkout; activation runs as root, where both are the same.
fn check_owner(path: &Path, metadata: &fs::Metadata) -> Result<(), Diagnostic> {
    let owner = metadata.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(Diagnostic::without_place(
            Code::Permissions,
            format!("{} belongs to user {owner}, who could change it", path.display()),
            &format!("chown root {}", path.display()),
        ));
    }
    Ok(())
}

fn check_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), Diagnostic> {
    let mode = metadata.mode() & 0o7777;
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(Diagnostic::without_place(
            Code::Permissions,
            format!("{} can be written by others (mode {mode:04o})", path.display()),
            &format!("chmod go-w {}", path.display()),
        ));
    }
    Ok(())
}

/// Whoever can write to a folder on the way can put another file in the place of this one.
fn check_folders(path: &Path) -> Result<(), Diagnostic> {
    let unreadable = |e: std::io::Error| {
        Diagnostic::without_place(
            Code::Unreadable,
            format!("{} cannot be read: {e}", path.display()),
            "check the path, or run as root",
        )
    };
    // Links are followed first: it is the folders of the file itself that count.
    let real = fs::canonicalize(path).map_err(unreadable)?;
    for folder in real.ancestors().skip(1) {
        let metadata = fs::metadata(folder).map_err(unreadable)?;
        check_owner(folder, &metadata)?;
        if metadata.mode() & STICKY == 0 {
            check_mode(folder, &metadata)?;
        }
    }
    Ok(())
}

impl Place {
    /// Line and column, both from 1, the column in characters.
    #[must_use]
    pub fn line_column(&self) -> (usize, usize) {
        let before = self.source.text.get(..self.span.start).unwrap_or(&self.source.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
        (line, column)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_column();
        let path = self.source.path.display().to_string();
        write!(f, "{}:{line}:{column}", printable(&path))
    }
}

impl Diagnostic {
    /// An error at a place.
    #[must_use]
    pub fn error(code: Code, place: Place, message: String, label: &str, help: &str) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: printable(&message).into_owned(),
            place: Some(place),
            label: printable(label).into_owned(),
            help: printable(help).into_owned(),
        }
    }

    /// A warning at a place.
    #[must_use]
    pub fn warning(code: Code, place: Place, message: String, label: &str, help: &str) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, place, message, label, help)
        }
    }

    /// An error about a file or folder as a whole.
    #[must_use]
    pub fn without_place(code: Code, message: String, help: &str) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: printable(&message).into_owned(),
            place: None,
            label: String::new(),
            help: printable(help).into_owned(),
        }
    }

    /// One line: file, line, column, code, message and help, for logs and for containerd.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = String::new();
        if let Some(place) = &self.place {
            line.push_str(&format!("{place}: "));
        }
        line.push_str(&format!("{} ({})", self.message, self.code));
        if !self.help.is_empty() {
            line.push_str("; ");
            line.push_str(&self.help);
        }
        line
    }
}

impl fmt::Display for Diagnostic {
    /// Plain text over several lines, without a final line break.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}[{}]: {}", self.code, self.message)?;
        if let Some(place) = &self.place {
            let (row, column) = place.line_column();
            let number = row.to_string();
            let margin = " ".repeat(number.len());
            let text = place.source.text.lines().nth(row - 1).unwrap_or("");
            // A tab is one column in the caret line too.
            let shown = inert(text).replace('\t', " ");
            let rest = text.chars().count() + 1 - column.min(text.chars().count() + 1);
            let marked = place.source.text.get(place.span.clone()).unwrap_or("");
            let carets = marked.chars().count().min(rest).max(1);
            write!(f, "\n{margin}--> {place}")?;
            write!(f, "\n{margin} |\n{number} | {shown}")?;
            write!(f, "\n{margin} | {}{}", " ".repeat(column - 1), "^".repeat(carets))?;
            if !self.label.is_empty() {
                write!(f, " {}", self.label)?;
            }
        }
        if !self.help.is_empty() {
            write!(f, "\n help: {}", self.help)?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            fmt::Display::fmt(diagnostic, f)?;
        }
        Ok(())
    }
}

/// A text from outside (an image name, an annotation, a file's name) as it may be shown: control characters and
/// characters that reorder or hide text are spelled out, so that no name can forge a line of a log or a terminal.
///
/// Every sentence that Assay builds from such a text passes it through here.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_treacherous) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_treacherous(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// A value as JSON, in which every character that [`printable`] would change is escaped as JSON has it.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn json(value: &impl serde::Serialize) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(escaped)
}

/// As [`json`], on one line.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn json_line(value: &impl serde::Serialize) -> serde_json::Result<String> {
    serde_json::to_string(value).map(escaped)
}

fn escaped(text: String) -> String {
    if !text.contains(|c| is_treacherous(c) && c != '\n') {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        // Line breaks are those between the values; serde has escaped all others below U+0020.
        if is_treacherous(c) && c != '\n' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// A source text as it may be drawn: as [`printable`], but every character keeps its length in bytes, so that spans
/// still point where they did.
#[must_use]
pub fn inert(text: &str) -> String {
    text.chars()
        .map(|c| match (is_treacherous(c) && c != '\n' && c != '\t', c.len_utf8()) {
            (false, _) => c,
            (true, 1) => '?',
            (true, 2) => '¿',
            (true, 3) => char::REPLACEMENT_CHARACTER,
            (true, _) => '\u{1f6ab}',
        })
        .collect()
}

fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn json_means_the_same_and_holds_no_character_that_a_terminal_obeys() {
        let value = ["\u{9b}31m", "\u{202e}x\u{200b}", "\u{e0041}", "a\nb\u{1b}", "é"];
        let text = json(&value).unwrap();
        assert!(!text.contains(|c| is_treacherous(c) && c != '\n'), "{text:?}");
        assert!(text.contains("é"));
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), value);
    }

    #[test]
    fn codes_are_unique_and_kebab_case() {
        let texts: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        for text in texts {
            assert!(
                text.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{text}"
            );
        }
    }

    #[test]
    fn nothing_reaches_the_terminal_unescaped() {
        assert_eq!(
            printable("docker.io/library/nginx:1 é 图"),
            "docker.io/library/nginx:1 é 图"
        );
        assert_eq!(
            printable("x\u{1b}[2J\r\nassay allowed\u{202e}\u{9b}\u{2028}"),
            "x\\u{1b}[2J\\u{d}\\u{a}assay allowed\\u{202e}\\u{9b}\\u{2028}"
        );
    }

    proptest::proptest! {
        #[test]
        fn inert_text_keeps_every_offset(text in "\\PC*|.*|[\u{0}-\u{a0}\u{2000}-\u{2070}\u{e0000}-\u{e0010}]*") {
            let shown = inert(&text);
            proptest::prop_assert_eq!(shown.len(), text.len());
            proptest::prop_assert!(!shown.replace(['\n', '\t'], "").contains(is_treacherous));
            proptest::prop_assert!(!printable(&text).contains(is_treacherous));
        }
    }

    #[test]
    fn the_caret_stands_under_the_text() {
        let source = Arc::new(Source {
            path: "/etc/assay/config.toml".into(),
            text: "a = 1\n\té = \"\u{1b}\" # x\n".to_owned(),
        });
        let start = source.text.find('"').unwrap();
        let diagnostic = Diagnostic::error(
            Code::InvalidValue,
            source.at(start..start + 3),
            "no".to_owned(),
            "here",
            "do this",
        );
        insta::assert_snapshot!(diagnostic, @r#"
        error[invalid-value]: no
         --> /etc/assay/config.toml:2:6
          |
        2 |  é = "?" # x
          |      ^^^ here
         help: do this
        "#);
        insta::assert_snapshot!(diagnostic.line(), @"/etc/assay/config.toml:2:6: no (invalid-value); do this");
        // A place past the end of the text is shown at its end, never a panic.
        let end = Diagnostic::error(Code::Syntax, source.at(999..1000), "end".to_owned(), "", "");
        assert!(end.to_string().contains("config.toml:3:1"), "{end}");
    }

    #[test]
    fn files_that_others_may_change_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("policy.d");
        fs::create_dir(&dir).unwrap();
        let file = dir.join("a.toml");
        fs::write(&file, "x = 1").unwrap();
        fs::write(dir.join(".#a.toml"), "lock").unwrap();
        fs::write(dir.join("README"), "").unwrap();
        for path in [&dir, &file] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        }
        assert_eq!(toml_files(&dir), Ok(vec![file.clone()]));
        assert_eq!(toml_files(&file), Ok(vec![file.clone()]));
        assert_eq!(Source::read(&file).unwrap().text, "x = 1");

        for mode in [0o720, 0o702] {
            for folder in [&dir, folder.path()] {
                fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
                assert_eq!(Source::read(&file).unwrap_err().code, Code::Permissions);
                assert_eq!(toml_files(&dir).unwrap_err().code, Code::Permissions);
                fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
            }
            assert!(Source::read(&file).is_ok());
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Source::read(&file).unwrap_err().code, Code::Permissions);
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        // The sticky bit keeps files from being replaced, not from being added.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(Source::read(&file).is_ok());
        assert_eq!(toml_files(&dir).unwrap_err().code, Code::Permissions);
        // Only root can give files away.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&file, Some(1), None).unwrap();
            assert_eq!(Source::read(&file).unwrap_err().code, Code::Permissions);
        }
    }

    #[test]
    fn reading_is_bounded_and_never_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("big");
        fs::write(&file, vec![b'#'; 1 << 20]).unwrap();
        assert!(Source::read(&file).is_ok());
        fs::write(&file, vec![b'#'; (1 << 20) + 1]).unwrap();
        assert_eq!(Source::read(&file).unwrap_err().code, Code::TooLarge);
        fs::write(&file, [b'a', 0xff]).unwrap();
        assert_eq!(Source::read(&file).unwrap_err().code, Code::NotUtf8);
        assert_eq!(Source::read(folder.path()).unwrap_err().code, Code::Unreadable);
        assert_eq!(
            Source::read(&folder.path().join("none")).unwrap_err().code,
            Code::Unreadable
        );
        let fifo = folder.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        assert_eq!(Source::read(&fifo).unwrap_err().code, Code::Unreadable);
    }
}
