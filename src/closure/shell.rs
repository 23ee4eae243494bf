//! Shell scripts as commands: a reader of `sh` and `bash` that is only after what a script runs, reads and assigns.
//!
//! Own code, because the parsers that exist are recursive in the text's depth, exponential on hostile text, or under a
//! licence that this program cannot take. It never runs or expands anything. It reads each text once for each level of
//! nesting, and the levels are limited.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::values::HOLE;

/// Deepest nesting of substitutions; what lies deeper is unknown.
const MAX_DEPTH: usize = 24;
/// Most commands, words and bindings of one script together.
const MAX_PIECES: usize = 200_000;
/// Longest piece of text that a delimiter is looked for in.
const MAX_DELIMITER: usize = 256;

/// A part of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Text as it is.
    Text { text: String, quoted: bool },
    /// `$name`, with what stands behind the name in braces: `:-word` and the like.
    Variable {
        name: String,
        operator: String,
        default: Option<Word>,
        quoted: bool,
    },
    /// `$(…)`: the commands of this text.
    Substitution { text: usize },
    /// Arithmetic, or something that is not read.
    Unknown,
}

/// A word before any expansion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) parts: Vec<Part>,
}

/// A simple command without its assignments and redirections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) words: Vec<Word>,
    /// Which text it stands in: 0 is the script itself.
    pub(super) text: usize,
    /// Its input is a here-document or a file.
    pub(super) has_input: bool,
    /// Its output goes into a file or another command, as far as that is seen.
    pub(super) is_written: bool,
    /// The function whose output is this command's output.
    pub(super) function: Option<Rc<str>>,
}

/// What a script says.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) commands: Vec<Command>,
    /// Names and what is assigned to them; `None` is a value that is made when the script runs.
    pub(super) bindings: Vec<(String, Option<Word>)>,
    /// What `set --` makes the arguments, each time.
    pub(super) arguments: Vec<Vec<Word>>,
    pub(super) functions: BTreeSet<String>,
    /// Targets of redirections.
    pub(super) redirected: Vec<Word>,
    /// Texts of here-documents.
    pub(super) documents: Vec<String>,
    /// Highest number of a text in it.
    pub(super) last_text: usize,
    /// Why it could not be read to its end.
    pub(super) broken: Option<&'static str>,
}

impl Word {
    /// The word's text, where all of it is text.
    pub(super) fn literal(&self) -> Option<String> {
        let mut whole = String::new();
        for part in &self.parts {
            let Part::Text { text, .. } = part else { return None };
            whole.push_str(text);
        }
        Some(whole)
    }

    /// The word's text, where it is one piece without quotes: what a keyword must be.
    fn plain(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Text { text, quoted: false }] => Some(text),
            _ => None,
        }
    }

    /// `name=value` as both; `None` where it is something else.
    fn assignment(&self) -> Option<(String, Self)> {
        let Some(Part::Text { text, quoted: false }) = self.parts.first() else {
            return None;
        };
        let Some((name, value)) = text.split_once('=') else {
            return self.element(text);
        };
        let name = name.strip_suffix('+').unwrap_or(name);
        let name = name.split_once('[').map_or(name, |(name, _)| name);
        if !is_name(name) {
            return None;
        }
        let mut parts = vec![Part::Text {
            text: value.to_owned(),
            quoted: false,
        }];
        parts.extend(self.parts.iter().skip(1).cloned());
        Some((name.to_owned(), Self { parts }))
    }

    /// `name[$number]=value`, of which `begin` is the first text.
    fn element(&self, begin: &str) -> Option<(String, Self)> {
        let (name, _) = begin
            .split_once('[')
            .filter(|(name, _)| !name.is_empty() && is_name(name))?;
        let mut rest = self.parts.iter().skip(1);
        let value = rest.find_map(|part| match part {
            Part::Text { text, quoted: false } => text.strip_prefix("]=").or_else(|| text.strip_prefix("]+=")),
            _ => None,
        })?;
        let mut parts = vec![Part::Text {
            text: value.to_owned(),
            quoted: false,
        }];
        parts.extend(rest.cloned());
        Some((name.to_owned(), Self { parts }))
    }
}

/// The name under which the elements that an array can begin with are bound.
pub(super) fn first_of(array: &str) -> String {
    format!("{array}[0]")
}

/// The name under which its other elements are bound.
pub(super) fn rest_of(array: &str) -> String {
    format!("{array}[1]")
}

/// Whether a text is a variable's name; where it is evaluated, a part of it may not be known.
fn is_name(text: &str) -> bool {
    let text = text.replace(HOLE, "_");
    text.bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Reads a script. Its own text gets the number `base`, every other one a higher number.
pub(super) fn parse(text: &str, base: usize) -> Script {
    let mut script = Script::default();
    let mut waiting = vec![(text.to_owned(), base, 0_usize)];
    let mut texts = base;
    while let Some((text, number, depth)) = waiting.pop() {
        if depth > MAX_DEPTH {
            script.broken = Some("its substitutions are nested too deep");
            continue;
        }
        let before = script.commands.len();
        let mut lexer = Lexer {
            text: text.as_bytes(),
            at: 0,
            depth: 0,
            documents: Vec::new(),
            inner: Vec::new(),
            texts: &mut texts,
            script: &mut script,
            is_unbalanced: false,
            written: 0,
            defined: None,
            braces: Vec::new(),
        };
        lexer.commands(number);
        let written = lexer.written;
        let inner = std::mem::take(&mut lexer.inner);
        let its = script.commands.iter_mut().take(written).skip(before);
        its.for_each(|command| command.is_written = true);
        waiting.extend(inner.into_iter().map(|(number, text)| (text, number, depth + 1)));
    }
    script.last_text = texts;
    script
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(Word),
    Operator(&'static str),
    /// `<`, `>` and the like; the next word is the target.
    Redirection(&'static str),
    End,
}

struct Lexer<'t> {
    text: &'t [u8],
    at: usize,
    depth: usize,
    /// Here-documents whose text begins on the next line: delimiter, whether tabs are stripped, whether it is quoted.
    documents: Vec<(String, bool, bool)>,
    /// Texts inside of this one that are scripts themselves.
    inner: Vec<(usize, String)>,
    texts: &'t mut usize,
    script: &'t mut Script,
    /// A `((` had no end; none that follows has one.
    is_unbalanced: bool,
    /// How many commands of the script may be in compound ones that are written into files.
    written: usize,
    /// The function whose body comes next.
    defined: Option<Rc<str>>,
    /// For each open brace, the function in whose body it is.
    braces: Vec<Option<Rc<str>>>,
}

const OPERATORS: &[&str] = &[";;&", ";;", ";&", "&&", "||", "|&", ";", "&", "|", "(", ")", "\n"];
const REDIRECTIONS: &[&str] = &["<<<", "<<-", "<<", "<&", "<>", "<", "&>>", "&>", ">>", ">&", ">|", ">"];

impl Lexer<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn starts(&self, with: &str) -> bool {
        self.text
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(with.as_bytes()))
    }

    fn full(&mut self) -> bool {
        let full = self.script.commands.len() + self.script.bindings.len() + self.inner.len() > MAX_PIECES;
        if full {
            self.script.broken = Some("it has too many commands");
        }
        full
    }

    fn token(&mut self) -> Token {
        loop {
            match self.peek() {
                None => return Token::End,
                Some(b' ' | b'\t' | b'\r') => self.at += 1,
                Some(b'\\') if self.starts("\\\n") => self.at += 2,
                Some(b'#') => {
                    while self.peek().is_some_and(|byte| byte != b'\n') {
                        self.at += 1;
                    }
                }
                Some(_) => break,
            }
        }
        if self.starts("<(") || self.starts(">(") {
            self.at += 1;
            return Token::Word(Word {
                parts: vec![self.parenthesis()],
            });
        }
        if let Some(operator) = REDIRECTIONS.iter().find(|operator| self.starts(operator)) {
            self.at += operator.len();
            return Token::Redirection(operator);
        }
        if let Some(operator) = OPERATORS.iter().find(|operator| self.starts(operator)) {
            self.at += operator.len();
            if *operator == "\n" {
                self.skip_documents();
            }
            return Token::Operator(operator);
        }
        let word = self.word();
        // A number before a redirection is a descriptor.
        if matches!(self.peek(), Some(b'<' | b'>'))
            && word
                .plain()
                .is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return self.token_after_descriptor();
        }
        Token::Word(word)
    }

    fn token_after_descriptor(&mut self) -> Token {
        for operator in REDIRECTIONS {
            if self.starts(operator) {
                self.at += operator.len();
                return Token::Redirection(operator);
            }
        }
        Token::End
    }

    fn skip_documents(&mut self) {
        for (delimiter, stripped, quoted) in std::mem::take(&mut self.documents) {
            let start = self.at;
            loop {
                let rest = self.text.get(self.at..).unwrap_or_default();
                if rest.is_empty() {
                    break;
                }
                let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                let line = rest.get(..length).unwrap_or_default();
                let from = self.at;
                self.at = (self.at + length + 1).min(self.text.len());
                let tabs = if stripped {
                    line.iter().take_while(|byte| **byte == b'\t').count()
                } else {
                    0
                };
                if line.get(tabs..) == Some(delimiter.as_bytes()) {
                    let document = self.text.get(start..from).unwrap_or_default();
                    let document = String::from_utf8_lossy(document).into_owned();
                    self.script.documents.push(document);
                    if !quoted {
                        self.substitutions_in(start, from);
                    }
                    break;
                }
            }
        }
    }

    /// Takes the `$(…)` out of the text of a here-document.
    fn substitutions_in(&mut self, start: usize, end: usize) {
        let after = self.at;
        self.at = start;
        while self.at < end {
            match self.peek() {
                Some(b'\\') => self.at += 2,
                Some(b'$') => {
                    self.dollar(true);
                }
                Some(b'`') => {
                    self.backtick();
                }
                _ => self.at += 1,
            }
        }
        self.at = after;
    }

    fn word(&mut self) -> Word {
        let mut word = Word::default();
        let mut text = Vec::new();
        let flush = |text: &mut Vec<u8>, word: &mut Word, quoted: bool| {
            if !text.is_empty() || quoted {
                let text = String::from_utf8_lossy(&std::mem::take(text)).into_owned();
                word.parts.push(Part::Text { text, quoted });
            }
        };
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')' => break,
                b'\\' => {
                    self.at += 1;
                    if let Some(next) = self.peek() {
                        self.at += 1;
                        if next != b'\n' {
                            flush(&mut text, &mut word, false);
                            text.push(next);
                            flush(&mut text, &mut word, true);
                        }
                    }
                }
                b'\'' => {
                    flush(&mut text, &mut word, false);
                    self.at += 1;
                    while let Some(byte) = self.peek() {
                        self.at += 1;
                        if byte == b'\'' {
                            break;
                        }
                        text.push(byte);
                    }
                    flush(&mut text, &mut word, true);
                }
                b'"' => {
                    flush(&mut text, &mut word, false);
                    self.at += 1;
                    self.double_quoted(&mut word);
                }
                b'$' => {
                    flush(&mut text, &mut word, false);
                    let part = self.dollar(false);
                    word.parts.push(part);
                }
                b'`' => {
                    flush(&mut text, &mut word, false);
                    let part = self.backtick();
                    word.parts.push(part);
                }
                _ => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
        flush(&mut text, &mut word, false);
        word
    }

    fn double_quoted(&mut self, word: &mut Word) {
        let mut text = Vec::new();
        let mut any = false;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.at += 1;
                    break;
                }
                b'\\' => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'\n') => self.at += 1,
                        Some(next) => {
                            if !b"$`\"\\".contains(&next) {
                                text.push(b'\\');
                            }
                            text.push(next);
                            self.at += 1;
                        }
                        None => {}
                    }
                }
                b'$' | b'`' => {
                    if !text.is_empty() {
                        let text = String::from_utf8_lossy(&std::mem::take(&mut text)).into_owned();
                        word.parts.push(Part::Text { text, quoted: true });
                    }
                    let part = if byte == b'$' {
                        self.dollar(true)
                    } else {
                        self.backtick()
                    };
                    word.parts.push(part);
                    any = true;
                }
                _ => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
        if !text.is_empty() || !any {
            let text = String::from_utf8_lossy(&text).into_owned();
            word.parts.push(Part::Text { text, quoted: true });
        }
    }

    /// What begins with `$`.
    fn dollar(&mut self, quoted: bool) -> Part {
        self.at += 1;
        match self.peek() {
            Some(b'(') => self.parenthesis(),
            Some(b'{') => self.brace(quoted),
            Some(b'\'') if !quoted => {
                let mut text = Vec::new();
                self.at += 1;
                while let Some(byte) = self.peek() {
                    self.at += 1;
                    match byte {
                        b'\'' => break,
                        b'\\' => {
                            let next = self.peek().unwrap_or(b'\\');
                            self.at += 1;
                            text.push(match next {
                                b'n' => b'\n',
                                b't' => b'\t',
                                other => other,
                            });
                        }
                        other => text.push(other),
                    }
                }
                let text = String::from_utf8_lossy(&text).into_owned();
                Part::Text { text, quoted: true }
            }
            Some(byte) if byte.is_ascii_alphabetic() || byte == b'_' => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let length = rest
                    .iter()
                    .position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
                    .unwrap_or(rest.len());
                let name = String::from_utf8_lossy(rest.get(..length).unwrap_or_default()).into_owned();
                self.at += length;
                variable(name, quoted)
            }
            Some(byte) if byte.is_ascii_digit() || b"@*#?$!-".contains(&byte) => {
                self.at += 1;
                variable(char::from(byte).to_string(), quoted)
            }
            _ => Part::Text {
                text: "$".to_owned(),
                quoted: true,
            },
        }
    }

    fn brace(&mut self, quoted: bool) -> Part {
        let start = self.at + 1;
        let Some(end) = close(self.text, start, b'{') else {
            self.at = self.text.len();
            self.script.broken = Some("a `${` in it has no end");
            return Part::Unknown;
        };
        self.at = end + 1;
        let inner = self.text.get(start..end).unwrap_or_default();
        let length = match inner.first() {
            Some(byte) if b"@*#?$!-".contains(byte) && inner.len() == 1 => 1,
            Some(b'!' | b'#') => return Part::Unknown,
            Some(b'@' | b'*') => 1,
            _ => inner
                .iter()
                .position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
                .unwrap_or(inner.len()),
        };
        let name = String::from_utf8_lossy(inner.get(..length).unwrap_or_default()).into_owned();
        let mut rest = inner.get(length..).unwrap_or_default();
        if rest.first() == Some(&b'[') {
            let end = rest
                .iter()
                .position(|byte| *byte == b']')
                .map_or(rest.len(), |at| at + 1);
            rest = rest.get(end..).unwrap_or_default();
        }
        if rest.is_empty() {
            return variable(name, quoted);
        }
        let text = String::from_utf8_lossy(rest).into_owned();
        let operator: String = text.chars().take_while(|c| ":-=+?".contains(*c)).take(2).collect();
        if operator.is_empty() || operator == ":" {
            return Part::Variable {
                name,
                operator: text,
                default: None,
                quoted,
            };
        }
        let default = self.nested_word(text.get(operator.len()..).unwrap_or(""));
        if operator.ends_with('=') {
            self.script.bindings.push((name.clone(), default.clone()));
        }
        Part::Variable {
            name,
            operator,
            default,
            quoted,
        }
    }

    /// A word inside of braces; `None` where it lies too deep.
    fn nested_word(&mut self, text: &str) -> Option<Word> {
        if self.depth >= MAX_DEPTH {
            self.script.broken = Some("its substitutions are nested too deep");
            return None;
        }
        let mut lexer = Lexer {
            text: text.as_bytes(),
            at: 0,
            depth: self.depth + 1,
            documents: Vec::new(),
            inner: Vec::new(),
            texts: &mut *self.texts,
            script: &mut *self.script,
            is_unbalanced: self.is_unbalanced,
            written: 0,
            defined: None,
            braces: Vec::new(),
        };
        let mut word = Word::default();
        // Blanks and operators are text in here.
        while let Some(byte) = lexer.peek() {
            let piece = lexer.word();
            if piece.parts.is_empty() {
                lexer.at += 1;
                let text = char::from(byte).to_string();
                word.parts.push(Part::Text { text, quoted: false });
            } else {
                word.parts.extend(piece.parts);
            }
        }
        let inner = std::mem::take(&mut lexer.inner);
        self.inner.extend(inner);
        Some(word)
    }

    /// `(…)` of a substitution; the position is at the parenthesis.
    fn parenthesis(&mut self) -> Part {
        let arithmetic = self.starts("((");
        let start = self.at + 1;
        let Some(end) = close(self.text, start, b'(') else {
            self.at = self.text.len();
            self.script.broken = Some("a `$(` in it has no end");
            return Part::Unknown;
        };
        self.at = end + 1;
        if arithmetic && self.text.get(end.wrapping_sub(1)) == Some(&b')') {
            return Part::Unknown;
        }
        self.inside(start, end)
    }

    fn inside(&mut self, start: usize, end: usize) -> Part {
        let text = String::from_utf8_lossy(self.text.get(start..end).unwrap_or_default()).into_owned();
        *self.texts += 1;
        self.inner.push((*self.texts, text));
        Part::Substitution { text: *self.texts }
    }

    fn backtick(&mut self) -> Part {
        let start = self.at + 1;
        let Some(end) = close(self.text, start, b'`') else {
            self.at = self.text.len();
            self.script.broken = Some("a backtick in it has no end");
            return Part::Unknown;
        };
        self.at = end + 1;
        self.inside(start, end)
    }

    /// The commands of one text.
    fn commands(&mut self, number: usize) {
        let mut words: Vec<Word> = Vec::new();
        let (mut has_input, mut is_written) = (false, false);
        // For each open `case`, whether patterns are expected.
        let mut cases: Vec<bool> = Vec::new();
        loop {
            if self.full() {
                return;
            }
            let token = if words.is_empty() && self.skip_arithmetic() {
                continue;
            } else {
                self.token()
            };
            if cases.last() == Some(&true) {
                match token {
                    Token::Word(word) if word.plain() == Some("esac") => {
                        cases.pop();
                    }
                    Token::Operator(")") => {
                        cases.pop();
                        cases.push(false);
                    }
                    Token::End => return,
                    _ => {}
                }
                continue;
            }
            match token {
                Token::Word(word) => {
                    if words.is_empty() && self.keyword(&word, &mut cases) {
                        continue;
                    }
                    if words.is_empty()
                        && let Some((name, value)) = word.assignment()
                    {
                        let adds = matches!(word.parts.first(), Some(Part::Text { text, .. })
                            if text.split('=').next().is_some_and(|name| name.ends_with('+')));
                        self.assign(name, value, adds);
                        continue;
                    }
                    words.push(word);
                }
                Token::Operator("(") => {
                    if let [name] = words.as_slice() {
                        if let Some(name) = name.literal() {
                            self.define(name);
                        }
                        words.clear();
                        if self.starts(")") {
                            self.at += 1;
                        }
                    }
                }
                Token::Operator(operator) => {
                    is_written |= operator.starts_with('|') && operator != "||";
                    self.finish(&mut words, &mut has_input, &mut is_written, number);
                    if (operator.starts_with(";;") || operator == ";&")
                        && let Some(last) = cases.last_mut()
                    {
                        *last = true;
                    }
                }
                Token::Redirection(operator) => {
                    has_input |= operator.starts_with('<');
                    self.redirect(operator);
                    if matches!(operator, ">" | ">>" | ">|" | "&>" | "&>>") && !self.is_device() {
                        is_written = true;
                        if words.is_empty() {
                            // Behind a compound command: any of those before may be in it.
                            self.written = self.script.commands.len();
                        }
                    }
                }
                Token::End => {
                    self.finish(&mut words, &mut has_input, &mut is_written, number);
                    return;
                }
            }
        }
    }

    /// Skips `((…))` where a command could begin.
    fn skip_arithmetic(&mut self) -> bool {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        if self.is_unbalanced || !self.starts("((") {
            return false;
        }
        let Some(end) = close(self.text, self.at + 1, b'(') else {
            self.is_unbalanced = true;
            return false;
        };
        if self.text.get(end.wrapping_sub(1)) != Some(&b')') {
            return false;
        }
        self.at = end + 1;
        true
    }

    fn redirect(&mut self, operator: &'static str) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        if self.starts("<(") || self.starts(">(") {
            self.at += 1;
            self.parenthesis();
            return;
        }
        let word = self.word();
        if operator == "<<" || operator == "<<-" {
            let quoted = word
                .parts
                .iter()
                .any(|part| !matches!(part, Part::Text { quoted: false, .. }));
            let delimiter = word.literal().unwrap_or_default();
            if delimiter.len() <= MAX_DELIMITER {
                self.documents.push((delimiter, operator == "<<-", quoted));
            }
        } else if operator != "<<<" {
            self.script.redirected.push(word);
        }
    }

    fn assign(&mut self, name: String, value: Word, adds: bool) {
        if self.peek() == Some(b'(') && value.literal().as_deref() == Some("") {
            self.at += 1;
            // What comes behind an element that may be nothing can be the first one as well.
            let mut is_first = !adds;
            loop {
                match self.token() {
                    Token::Word(word) => {
                        let place = if is_first { first_of(&name) } else { rest_of(&name) };
                        is_first &= word.parts.iter().all(|part| {
                            matches!(part, Part::Variable { quoted: false, .. } | Part::Substitution { .. })
                                || matches!(part, Part::Variable { name, .. } if name == "@")
                        });
                        self.script.bindings.push((place, Some(word.clone())));
                        self.script.bindings.push((name.clone(), Some(word)));
                    }
                    Token::Operator("\n") => {}
                    _ => return,
                }
                if self.full() {
                    return;
                }
            }
        }
        self.script.bindings.push((name, Some(value)));
    }

    /// Takes a keyword and what belongs to it; false where the word is none.
    fn keyword(&mut self, word: &Word, cases: &mut Vec<bool>) -> bool {
        match word.plain() {
            Some("if" | "then" | "else" | "elif" | "fi" | "while" | "until" | "do" | "done" | "!" | "coproc") => true,
            Some("{") => {
                let outer = self.braces.last().cloned().flatten();
                self.braces.push(self.defined.take().or(outer));
                true
            }
            Some("}") => {
                self.braces.pop();
                true
            }
            Some("esac") => {
                cases.pop();
                true
            }
            Some("case") => {
                while let Token::Word(word) = self.token() {
                    if word.plain() == Some("in") {
                        break;
                    }
                }
                // `in` may stand on a line of its own.
                cases.push(true);
                true
            }
            Some("for" | "select") => {
                self.for_loop();
                true
            }
            Some("function") => {
                if let Token::Word(name) = self.token()
                    && let Some(name) = name.literal()
                {
                    self.define(name);
                }
                if self.starts("()") {
                    self.at += 2;
                }
                true
            }
            Some("[[") => loop {
                match self.token() {
                    Token::Word(word) if word.plain() == Some("]]") => return true,
                    Token::End => return true,
                    _ => {}
                }
            },
            _ => false,
        }
    }

    fn define(&mut self, name: String) {
        self.defined = Some(name.as_str().into());
        self.script.functions.insert(name);
    }

    fn for_loop(&mut self) {
        let Token::Word(name) = self.token() else { return };
        let Some(name) = name.literal() else { return };
        let before = self.at;
        let mut next = self.token();
        while next == Token::Operator("\n") {
            next = self.token();
        }
        if !matches!(&next, Token::Word(word) if word.plain() == Some("in")) {
            self.at = before;
            let all = Word {
                parts: vec![variable("@".to_owned(), true)],
            };
            self.script.bindings.push((name, Some(all)));
            return;
        }
        while let Token::Word(word) = self.token() {
            if self.full() {
                return;
            }
            self.script.bindings.push((name.clone(), Some(word)));
        }
    }

    /// Whether the last redirection leads to a device.
    fn is_device(&self) -> bool {
        let target = self.script.redirected.last().and_then(Word::literal);
        target.is_some_and(|target| target.starts_with("/dev/"))
    }

    fn finish(&mut self, words: &mut Vec<Word>, has_input: &mut bool, is_written: &mut bool, number: usize) {
        let words = std::mem::take(words);
        let has_input = std::mem::take(has_input);
        let is_written = std::mem::take(is_written);
        let Some(first) = words.first() else { return };
        match first.literal().as_deref() {
            Some("export" | "local" | "readonly" | "declare" | "typeset") => {
                for (name, value) in words.iter().skip(1).filter_map(Word::assignment) {
                    self.script.bindings.push((name, Some(value)));
                }
            }
            Some("read" | "getopts" | "mapfile" | "readarray") => {
                for name in words
                    .iter()
                    .skip(1)
                    .filter_map(Word::literal)
                    .filter(|name| is_name(name))
                {
                    self.script.bindings.push((name, None));
                }
            }
            Some("set") => {
                let behind: Vec<Word> = words
                    .iter()
                    .skip(1)
                    .skip_while(|word| word.literal().as_deref() != Some("--"))
                    .skip(1)
                    .cloned()
                    .collect();
                self.script
                    .bindings
                    .extend(behind.iter().map(|word| ("@".to_owned(), Some(word.clone()))));
                self.script.arguments.push(behind);
            }
            _ => {}
        }
        // A body that is no group of braces is one that nothing is known of.
        self.defined = None;
        self.script.commands.push(Command {
            words,
            text: number,
            has_input,
            is_written,
            function: self.braces.last().cloned().flatten(),
        });
    }
}

fn variable(name: String, quoted: bool) -> Part {
    let name = match name.as_str() {
        "*" | "@" => "@".to_owned(),
        other if other != "0" && other.bytes().all(|byte| byte.is_ascii_digit()) => "@".to_owned(),
        _ => name,
    };
    Part::Variable {
        name,
        operator: String::new(),
        default: None,
        quoted,
    }
}

/// The end of what was opened with `(`, `{` or a backtick before `from`, in one pass.
fn close(text: &[u8], from: usize, opened: u8) -> Option<usize> {
    // `c` is an open `case`, whose patterns end in a parenthesis that closes nothing.
    let mut open = vec![opened];
    let mut at = from;
    let mut documents: Vec<(Vec<u8>, bool)> = Vec::new();
    while let Some(byte) = text.get(at).copied() {
        let top = open.last().copied()?;
        let next = text.get(at + 1).copied();
        match (top, byte) {
            (_, b'\\') => at += 1,
            (b'"', b'"') => {
                open.pop();
            }
            (_, b'$') if next == Some(b'(') => {
                open.push(b'(');
                at += 1;
            }
            (_, b'$') if next == Some(b'{') => {
                open.push(b'{');
                at += 1;
            }
            (b'`', b'`') => {
                open.pop();
            }
            (_, b'`') if !open.contains(&b'`') => open.push(b'`'),
            (b'"' | b'`', _) => {}
            // In braces between double quotes it is an apostrophe.
            (b'{', b'\'') if open.contains(&b'"') => {}
            (_, b'\'') => at += text.get(at + 1..)?.iter().position(|byte| *byte == b'\'')? + 1,
            (_, b'"') => open.push(b'"'),
            (b'{', b'}') => {
                open.pop();
            }
            (b'{', _) => {}
            (b'(' | b'c', b'#') if starts_word(text, at) => {
                at += text.get(at..)?.iter().position(|byte| *byte == b'\n')?;
                continue;
            }
            (b'(' | b'c', b'<') if next == Some(b'<') && text.get(at + 2) != Some(&b'<') => {
                let (document, after) = here_document(text, at + 2);
                documents.push(document);
                at = after;
                continue;
            }
            (b'(' | b'c', b'\n') if !documents.is_empty() => {
                at += 1;
                for (delimiter, stripped) in documents.drain(..) {
                    at = skip_document(text, at, &delimiter, stripped);
                }
                continue;
            }
            (b'(' | b'c', b'(') => open.push(b'('),
            (b'(', b')') => {
                open.pop();
            }
            (b'c', b')') => {}
            (b'(' | b'c', b'c') if word_at(text, at, b"case") => open.push(b'c'),
            (b'c', b'e') if word_at(text, at, b"esac") => {
                open.pop();
            }
            _ => {}
        }
        if open.is_empty() {
            return Some(at);
        }
        if open.len() > 4096 {
            return None;
        }
        at += 1;
    }
    None
}

fn starts_word(text: &[u8], at: usize) -> bool {
    at.checked_sub(1)
        .and_then(|before| text.get(before))
        .is_none_or(|byte| b" \t\n;&|()".contains(byte))
}

fn word_at(text: &[u8], at: usize, word: &[u8]) -> bool {
    starts_word(text, at)
        && text.get(at..).is_some_and(|rest| rest.starts_with(word))
        && text
            .get(at + word.len())
            .is_none_or(|byte| b" \t\n;&|()".contains(byte))
}

fn here_document(text: &[u8], from: usize) -> ((Vec<u8>, bool), usize) {
    let stripped = text.get(from) == Some(&b'-');
    let mut at = from + usize::from(stripped);
    while matches!(text.get(at), Some(b' ' | b'\t')) {
        at += 1;
    }
    let mut delimiter = Vec::new();
    while let Some(byte) = text.get(at).copied().filter(|byte| !b" \t\n;&|()<>".contains(byte)) {
        if !b"'\"\\".contains(&byte) && delimiter.len() < MAX_DELIMITER {
            delimiter.push(byte);
        }
        at += 1;
    }
    ((delimiter, stripped), at)
}

fn skip_document(text: &[u8], from: usize, delimiter: &[u8], stripped: bool) -> usize {
    let mut at = from;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let line = rest.get(..length).unwrap_or_default();
        let tabs = if stripped {
            line.iter().take_while(|byte| **byte == b'\t').count()
        } else {
            0
        };
        at = (at + length + 1).min(text.len());
        if line.get(tabs..) == Some(delimiter) {
            // Back on the newline, which ends the line of the delimiter.
            break;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First words of all commands, in the order of their names.
    fn runs(text: &str) -> Vec<String> {
        let script = parse(text, 0);
        assert_eq!(script.broken, None, "{text}");
        let first: BTreeSet<_> = script
            .commands
            .iter()
            .filter_map(|command| command.words.first()?.literal())
            .collect();
        first.into_iter().collect()
    }

    #[test]
    fn the_commands_of_a_script_are_those_that_a_shell_would_run() {
        for (text, expected) in [
            ("a b; c && d || e | f & g", vec!["a", "c", "d", "e", "f", "g"]),
            ("x=$(a \"$(b `c`)\") d >e 2>&1 <f", vec!["a", "b", "c", "d"]),
            (
                "if a; then b; elif ! c; then d; else e; fi",
                vec!["a", "b", "c", "d", "e"],
            ),
            (
                "for i in p q; do a \"$i\"; done; while b; do c; done",
                vec!["a", "b", "c"],
            ),
            ("case $x in p|q) a ;; (r) b;; *) c; esac; d", vec!["a", "b", "c", "d"]),
            ("x=$(case $y in p) a;; q) b;; esac); c", vec!["a", "b", "c"]),
            (
                "f() { a; }; function g { b; }; (c; d); { e; }",
                vec!["a", "b", "c", "d", "e"],
            ),
            ("cat <<E\nno $(a) no\n  E\nE\nb", vec!["a", "b", "cat"]),
            ("cat <<'E' | a\nno $(no)\nE\nb", vec!["a", "b", "cat"]),
            ("x=$(cat <<E\n)\nE\n); a", vec!["a", "cat"]),
            ("[[ $a =~ ^(b|c)$ && -n d ]] && e; ((i = i << 2)); f", vec!["e", "f"]),
            ("a=(b c) d; e # f; g\nh", vec!["d", "e", "h"]),
            ("a 'b; c' \"d; $(e)\" \\; f", vec!["a", "e"]),
            ("echo ${x:-$(a)} ${y#*(} $((1 + 2)); b", vec!["a", "b", "echo"]),
            ("a <(b) > >(c)", vec!["a", "b", "c"]),
            ("'quoted name' x\n\"b\"c d", vec!["bc", "quoted name"]),
        ] {
            assert_eq!(runs(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_assigned_is_known() {
        let script = parse(
            "A=/x B=\"$A/y\" c; export D=e; for F in g h; do :; done; : ${I:=j}; set -- k \"$@\"; read L",
            0,
        );
        let names: Vec<_> = script.bindings.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["A", "B", "D", "F", "F", "I", "@", "@", "L"]);
        assert_eq!(script.bindings.last(), Some(&("L".to_owned(), None)));
    }

    #[test]
    fn hostile_scripts_end_soon() {
        let started = std::time::Instant::now();
        for piece in [
            "$(",
            "${",
            "`",
            "\"$(",
            "((",
            "case a in ",
            "<<A\n",
            "${a:-",
            "$(case ",
            "f()",
            "[[ ",
            "a=(",
            "'",
            "$(<<A ",
        ] {
            parse(&piece.repeat((1 << 18) / piece.len()), 0);
        }
        assert!(
            started.elapsed() < std::time::Duration::from_secs(20),
            "{:?}",
            started.elapsed()
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[a-z $(){}`'\"\\\\;&|<>\n#=@*-]*") {
            parse(&text, 0);
        }
    }
}
