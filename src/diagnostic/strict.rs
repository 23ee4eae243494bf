//! TOML read strictly: every key is asked for by name, and what nobody asked for is an error with a place.
//!
//! Reading goes on after a fault, so that one run shows all of them.

use std::ops::Range;
use std::sync::Arc;

use jiff::{Span, SpanRelativeTo};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Code, Diagnostic, Place, Source};

/// Most syntax errors that are shown for one file; the first is nearly always the cause of the others.
const MAX_SYNTAX_ERRORS: usize = 3;

/// Longest age that can be asked for, in seconds: a hundred years.
const MAX_AGE: i64 = 100 * 366 * 24 * 3600;

/// Reads one file and gathers what is wrong with it.
#[derive(Debug)]
pub struct Reader<'s> {
    source: &'s Arc<Source>,
    faults: Vec<Diagnostic>,
}

/// A table of the file. Keys are taken out of it; [`Reader::finish`] complains about those that are left.
#[derive(Debug)]
pub struct Table<'s> {
    name: &'static str,
    span: Range<usize>,
    entries: DeTable<'s>,
}

impl Table<'_> {
    /// Whether it has this key, of whatever type.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Takes a key out unread and tells where it was.
    pub fn discard(&mut self, key: &str) -> Option<Range<usize>> {
        self.entries.remove_entry(key).map(|(key, _)| key.span())
    }

    /// Where it is: its header, or its braces.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Whether it has no key, or none any more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a time without quotes",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn quoted(keys: &[&str]) -> String {
    let quoted: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

impl<'s> Reader<'s> {
    /// Parses the file; `name` is what messages call its outermost table.
    ///
    /// # Errors
    /// When it is not TOML.
    pub fn new(source: &'s Arc<Source>, name: &'static str) -> Result<(Self, Table<'s>), Vec<Diagnostic>> {
        let mut reader = Self {
            source,
            faults: Vec::new(),
        };
        let (document, errors) = DeTable::parse_recoverable(&source.text);
        for error in errors.iter().take(MAX_SYNTAX_ERRORS) {
            // The parser tells this error from the others by its text alone; a test holds the text.
            let duplicate = error.message().starts_with("duplicate key");
            let code = if duplicate { Code::DuplicateKey } else { Code::Syntax };
            let end = source.text.len();
            let span = error.span().unwrap_or(end..end);
            let (message, help) = if duplicate {
                let key = source.text.get(span.clone()).unwrap_or("a key");
                (format!("`{key}` appears twice"), "keep one of the two")
            } else {
                (error.message().to_owned(), "")
            };
            reader.fault(code, span, message, "", help);
        }
        if !errors.is_empty() {
            return Err(reader.into_faults());
        }
        let entries = document.into_inner();
        let span = 0..0;
        Ok((reader, Table { name, span, entries }))
    }

    /// What was wrong, in the order of the file.
    #[must_use]
    pub fn into_faults(mut self) -> Vec<Diagnostic> {
        self.faults
            .sort_by_key(|fault| fault.place.as_ref().map_or(0, |place| place.span.start));
        self.faults
    }

    /// The place of these bytes of the file.
    #[must_use]
    pub fn at(&self, span: Range<usize>) -> Place {
        self.source.at(span)
    }

    /// What the file says there.
    #[must_use]
    pub fn text_of(&self, span: &Range<usize>) -> Option<&str> {
        self.source.text.get(span.clone())
    }

    /// How much was noted so far.
    #[must_use]
    pub fn count_faults(&self) -> usize {
        self.faults.len()
    }

    /// Notes an error.
    pub fn fault(&mut self, code: Code, span: Range<usize>, message: String, label: &str, help: &str) {
        let place = self.at(span);
        self.faults.push(Diagnostic::error(code, place, message, label, help));
    }

    /// Notes what was found at a place of this file.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.faults.push(diagnostic);
    }

    fn wrong_type(&mut self, what: &str, expected: &str, value: &Spanned<DeValue<'_>>, help: &str) {
        let found = type_name(value.get_ref());
        self.fault(
            Code::WrongType,
            value.span(),
            format!("{what} must be {expected}, not {found}"),
            &format!("expected {expected}"),
            help,
        );
    }

    fn check_text(&mut self, what: &str, value: Spanned<DeValue<'_>>) -> Option<Spanned<String>> {
        let span = value.span();
        match value.get_ref() {
            DeValue::String(text) if text.is_empty() => {
                self.fault(
                    Code::Empty,
                    span,
                    format!("{what} is empty"),
                    "",
                    "write a value, or leave the key out",
                );
                None
            }
            DeValue::String(text) => Some(Spanned::new(span, text.clone().into_owned())),
            DeValue::Datetime(_) => {
                self.wrong_type(what, "a string", &value, "put it in quotes");
                None
            }
            _ => {
                self.wrong_type(what, "a string", &value, "");
                None
            }
        }
    }

    /// A text that is not empty.
    pub fn text(&mut self, table: &mut Table<'_>, key: &str) -> Option<Spanned<String>> {
        let value = table.entries.remove(key)?;
        self.check_text(&format!("`{key}`"), value)
    }

    /// A text that must be there.
    pub fn required_text(&mut self, table: &mut Table<'_>, key: &str) -> Option<Spanned<String>> {
        self.require(table, key);
        self.text(table, key)
    }

    /// Complains when a key is missing.
    pub fn require(&mut self, table: &Table<'_>, key: &str) {
        if !table.has(key) {
            self.fault(
                Code::MissingKey,
                table.span(),
                format!("{} has no `{key}`", table.name),
                &format!("`{key}` is missing"),
                "",
            );
        }
    }

    /// A list of texts, none empty, none twice, at least one. An absent list is empty.
    pub fn texts(&mut self, table: &mut Table<'_>, key: &str) -> Vec<Spanned<String>> {
        let Some(value) = table.entries.remove(key) else {
            return Vec::new();
        };
        let span = value.span();
        let DeValue::Array(items) = value.get_ref() else {
            let help = format!("write {key} = [\"…\"]");
            self.wrong_type(&format!("`{key}`"), "a list of strings", &value, &help);
            return Vec::new();
        };
        if items.is_empty() {
            self.empty_list(key, span, "name at least one, or leave the key out");
        }
        let mut texts: Vec<Spanned<String>> = Vec::with_capacity(items.len());
        for item in items.iter() {
            let Some(text) = self.check_text(&format!("an element of `{key}`"), item.clone()) else {
                continue;
            };
            if texts.iter().any(|known| known.get_ref() == text.get_ref()) {
                let message = format!("`{}` appears twice in `{key}`", text.get_ref());
                self.fault(
                    Code::Repeated,
                    text.span(),
                    message,
                    "already listed",
                    "remove one of the two",
                );
            } else {
                texts.push(text);
            }
        }
        texts
    }

    /// One of the words that a key knows.
    pub fn choice<T: Copy>(&mut self, table: &mut Table<'_>, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(table, key)?;
        self.one_of(key, &text, words)
    }

    /// A list of words that a key knows. An absent list is empty.
    pub fn choices<T: Copy>(&mut self, table: &mut Table<'_>, key: &str, words: &[(&str, T)]) -> Vec<T> {
        let texts = self.texts(table, key);
        texts.iter().filter_map(|text| self.one_of(key, text, words)).collect()
    }

    fn one_of<T: Copy>(&mut self, key: &str, text: &Spanned<String>, words: &[(&str, T)]) -> Option<T> {
        let found = words.iter().find(|(word, _)| word == text.get_ref());
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.fault(
                Code::InvalidValue,
                text.span(),
                format!("`{}` is no value of `{key}`", text.get_ref()),
                "",
                &format!("one of: {}", known.join(", ")),
            );
        }
        found.map(|(_, value)| *value)
    }

    /// True or false.
    pub fn flag(&mut self, table: &mut Table<'_>, key: &str) -> Option<Spanned<bool>> {
        let value = table.entries.remove(key)?;
        let DeValue::Boolean(flag) = value.get_ref() else {
            self.wrong_type(&format!("`{key}`"), "true or false", &value, "");
            return None;
        };
        Some(Spanned::new(value.span(), *flag))
    }

    /// Where the value of a key is.
    #[must_use]
    pub fn place_of(&self, table: &Table<'_>, key: &str) -> Option<Place> {
        table.entries.get(key).map(|value| self.at(value.span()))
    }

    /// The keys and texts of a table below a table, in the order of the keys. An absent table is empty.
    pub fn text_table(
        &mut self,
        table: &mut Table<'s>,
        key: &str,
        name: &'static str,
    ) -> Vec<(Spanned<String>, Spanned<String>)> {
        let Some(inner) = self.table(table, key, name) else {
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (key, value) in inner.entries {
            let key = Spanned::new(key.span(), key.into_inner().into_owned());
            if let Some(text) = self.check_text(&format!("`{}`", key.get_ref()), value) {
                pairs.push((key, text));
            }
        }
        pairs
    }

    /// A whole number from 1 to `most`.
    pub fn count(&mut self, table: &mut Table<'_>, key: &str, most: usize) -> Option<Spanned<usize>> {
        let value = table.entries.remove(key)?;
        let span = value.span();
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type(&format!("`{key}`"), "a whole number", &value, "");
            return None;
        };
        let number = usize::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|number| (1..=most).contains(number));
        if number.is_none() {
            self.fault(
                Code::InvalidValue,
                span.clone(),
                format!("`{key}` is out of range"),
                "",
                &format!("a whole number from 1 to {most}"),
            );
        }
        number.map(|number| Spanned::new(span, number))
    }

    /// Seconds of an age such as `90d` or `12h`. A day has 24 hours; months and years have no one length.
    pub fn age(&mut self, table: &mut Table<'_>, key: &str) -> Option<i64> {
        let text = self.text(table, key)?;
        let age = text
            .get_ref()
            .parse::<Span>()
            .ok()
            .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok())
            .map(|duration| duration.as_secs())
            .filter(|seconds| (1..=MAX_AGE).contains(seconds));
        if age.is_none() {
            self.fault(
                Code::InvalidTime,
                text.span(),
                format!("`{}` is no `{key}`", text.get_ref()),
                "",
                "weeks, days, hours, minutes or seconds: \"90d\", \"12h\", \"1w 2d\"",
            );
        }
        age
    }

    /// A table below a table; `name` is what messages call it.
    pub fn table(&mut self, table: &mut Table<'s>, key: &str, name: &'static str) -> Option<Table<'s>> {
        let value = table.entries.remove(key)?;
        self.check_table(&format!("`{key}`"), value, name)
    }

    fn check_table(&mut self, what: &str, value: Spanned<DeValue<'s>>, name: &'static str) -> Option<Table<'s>> {
        let span = self.first_line(value.span());
        if !matches!(value.get_ref(), DeValue::Table(_)) {
            self.wrong_type(what, "a table", &value, "");
            return None;
        }
        match value.into_inner() {
            DeValue::Table(entries) => Some(Table { name, span, entries }),
            _ => None,
        }
    }

    /// A list of tables; `name` is what messages call one. An absent list is empty, an empty one is an error.
    pub fn tables(&mut self, table: &mut Table<'s>, key: &str, name: &'static str) -> Vec<Table<'s>> {
        let Some(value) = table.entries.remove(key) else {
            return Vec::new();
        };
        let span = value.span();
        if !matches!(value.get_ref(), DeValue::Array(_)) {
            self.wrong_type(
                &format!("`{key}`"),
                "a list of tables",
                &value,
                &format!("write it as {name}"),
            );
            return Vec::new();
        }
        let DeValue::Array(items) = value.into_inner() else {
            return Vec::new();
        };
        if items.is_empty() {
            self.empty_list(key, span, "name at least one");
        }
        items
            .into_iter()
            .filter_map(|item| self.check_table(&format!("an element of `{key}`"), item, name))
            .collect()
    }

    fn empty_list(&mut self, key: &str, span: Range<usize>, help: &str) {
        self.fault(Code::Empty, span, format!("`{key}` is an empty list"), "", help);
    }

    // A header's span is its own line; an inline table may run over several.
    fn first_line(&self, span: Range<usize>) -> Range<usize> {
        let text = self.source.text.get(span.clone()).unwrap_or("");
        let length = text.find(['\r', '\n']).unwrap_or(text.len());
        span.start..span.start + length
    }

    /// Complains about every key that was not taken. `known` are the table's keys, for the help; `later` are those
    /// that are documented but that this version does not support yet.
    pub fn finish(&mut self, table: &Table<'_>, known: &[&str], later: &[&str]) {
        let mut unsupported: Vec<(Range<usize>, &str)> = Vec::new();
        for key in table.entries.keys() {
            let text: &str = key.get_ref();
            if later.contains(&text) {
                unsupported.push((key.span(), text));
                continue;
            }
            self.fault(
                Code::UnknownKey,
                key.span(),
                format!("{} has no key `{text}`", table.name),
                "not a key of it",
                &format!("its keys are {}", quoted(known)),
            );
        }
        unsupported.sort_by_key(|(span, _)| span.start);
        if let Some((span, _)) = unsupported.first().cloned() {
            let keys: Vec<_> = unsupported.iter().map(|(_, key)| *key).collect();
            let verb = if keys.len() == 1 { "is" } else { "are" };
            self.fault(
                Code::NotSupported,
                span,
                format!(
                    "{} in {} {verb} not supported by this version of Assay",
                    quoted(&keys),
                    table.name
                ),
                "not supported yet",
                &format!("remove it; this version knows {}", quoted(known)),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Arc<Source> {
        Arc::new(Source {
            path: "x.toml".into(),
            text: text.to_owned(),
        })
    }

    fn faults(text: &str) -> String {
        let source = source(text);
        let (mut reader, mut table) = match Reader::new(&source, "x.toml") {
            Ok(read) => read,
            Err(faults) => return lines(&faults),
        };
        reader.required_text(&mut table, "text");
        reader.texts(&mut table, "texts");
        reader.choice(&mut table, "choice", &[("a", 1), ("b", 2)]);
        reader.choices(&mut table, "choices", &[("a", 1), ("b", 2)]);
        reader.count(&mut table, "count", 10);
        if let Some(mut inner) = reader.table(&mut table, "table", "[table]") {
            reader.text(&mut inner, "text");
            reader.finish(&inner, &["text"], &["later", "after"]);
        }
        for inner in reader.tables(&mut table, "tables", "[[tables]]") {
            reader.require(&inner, "text");
        }
        reader.finish(&table, &["text", "texts"], &[]);
        lines(&reader.into_faults())
    }

    fn lines(faults: &[Diagnostic]) -> String {
        let lines: Vec<_> = faults.iter().map(Diagnostic::line).collect();
        lines.join("\n")
    }

    #[test]
    fn what_is_right_is_silent() {
        assert_eq!(
            faults(
                "text='a'\ntexts=['a','b']\nchoice='b'\nchoices=['a']\ncount=0xa\ntable={text='x'}\n[[tables]]\ntext=''"
            ),
            ""
        );
    }

    #[test]
    fn syntax() {
        insta::assert_snapshot!(faults("text = \"a\"\ntext = \"b\"\n"), @"x.toml:2:1: `text` appears twice (duplicate-key); keep one of the two");
        insta::assert_snapshot!(faults("text = \"a\ntexts = 1"), @r#"x.toml:1:10: invalid basic string, expected `"` (syntax)"#);
        insta::assert_snapshot!(faults("[[a]]\n[a]\n"), @"x.toml:2:2: `a` appears twice (duplicate-key); keep one of the two");
        insta::assert_snapshot!(faults("text ="), @"x.toml:1:7: string values must be quoted, expected literal string (syntax)");
        // Nesting is bounded by the parser: an error, never a stack overflow.
        assert!(faults(&format!("text = {}", "[".repeat(100_000))).contains("(syntax)"));
    }

    #[test]
    fn types_and_values() {
        insta::assert_snapshot!(faults("text = 1\ntexts = 'a'\nchoice = 'c'\nchoices = ['a', 'a', 'd', 1, '']\ncount = 11"), @r#"
        x.toml:1:8: `text` must be a string, not a number (wrong-type)
        x.toml:2:9: `texts` must be a list of strings, not a string (wrong-type); write texts = ["…"]
        x.toml:3:10: `c` is no value of `choice` (invalid-value); one of: a, b
        x.toml:4:17: `a` appears twice in `choices` (repeated); remove one of the two
        x.toml:4:22: `d` is no value of `choices` (invalid-value); one of: a, b
        x.toml:4:27: an element of `choices` must be a string, not a number (wrong-type)
        x.toml:4:30: an element of `choices` is empty (empty); write a value, or leave the key out
        x.toml:5:9: `count` is out of range (invalid-value); a whole number from 1 to 10
        "#);
        insta::assert_snapshot!(faults("text = 2026-01-01T00:00:00Z\ntexts = []\ncount = -1\ntable = 1\ntables = {}"), @"
        x.toml:1:8: `text` must be a string, not a time without quotes (wrong-type); put it in quotes
        x.toml:2:9: `texts` is an empty list (empty); name at least one, or leave the key out
        x.toml:3:9: `count` is out of range (invalid-value); a whole number from 1 to 10
        x.toml:4:9: `table` must be a table, not a number (wrong-type)
        x.toml:5:10: `tables` must be a list of tables, not a table (wrong-type); write it as [[tables]]
        ");
        insta::assert_snapshot!(faults("count = 1.0\ntables = [1]\ntext = ''\nmore = 1"), @"
        x.toml:1:9: `count` must be a whole number, not a number (wrong-type)
        x.toml:2:11: an element of `tables` must be a table, not a number (wrong-type)
        x.toml:3:8: `text` is empty (empty); write a value, or leave the key out
        x.toml:4:1: x.toml has no key `more` (unknown-key); its keys are `text` and `texts`
        ");
    }

    #[test]
    fn tables() {
        insta::assert_snapshot!(faults("text='a'\n[[tables]]\nx = 1\n[[tables]]\ntext = 1\n[table]\nafter = 1\ntexd = 1\nlater = {}"), @"
        x.toml:2:1: [[tables]] has no `text` (missing-key)
        x.toml:7:1: `after` and `later` in [table] are not supported by this version of Assay (not-supported); remove it; this version knows `text`
        x.toml:8:1: [table] has no key `texd` (unknown-key); its keys are `text`
        ");
        insta::assert_snapshot!(faults("text='a'\ntables = [{\n x = 1\n}]\n\"a\\u001bb\" = 1"), @r"
        x.toml:2:11: [[tables]] has no `text` (missing-key)
        x.toml:5:1: x.toml has no key `a\u{1b}b` (unknown-key); its keys are `text` and `texts`
        ");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".*|([a-z\\[\\]={},.'\"# \n\\\\0-9]|\\PC)*") {
            faults(&text);
        }
    }
}
