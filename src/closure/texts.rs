//! Commands in texts of which the language is not known: configuration, and what the interpreter of a language that no
//! rule describes is given. Such a text is read line by line, for what looks like a command line.

use super::scripts::BUILTINS;
use super::shell::{self, Word};
use super::space::What;
use super::trace::{By, Trace};
use super::{Class, Origin};
use crate::tree::join;

/// Words of a line that is about starting something: a text in quotes that is the name of a command is one there.
const STARTING: &[&str] = &[
    "command", "cmd", "exec", "extend", "filter", "helper", "hook", "launch", "pipe", "popen", "process", "program",
    "run", "script", "shell", "spawn", "start", "subst", "system",
];
/// Signs behind which a line can end with a command: `UserParameter=name,command`, `SYSTEM:command`.
const BEFORE_COMMANDS: &[char] = &['=', ',', ':', '|'];
/// Words of the shell with which a text can begin.
const KEYWORDS: &[&str] = &["case", "for", "if", "until", "while"];
/// Longest line that is looked at.
const MAX_LINE: usize = 8192;
/// Deepest text inside of a text: `watch "sh -c 'date'"`.
const MAX_DEPTH: usize = 4;
/// Largest source of a language that no rule describes.
const MAX_SOURCE: u64 = 1 << 20;

impl Trace<'_> {
    /// Keeps the commands that a text names: in each line, texts in quotes and what stands behind some signs, where that
    /// reads as a command line.
    pub(super) fn search_unknown_text(&mut self, text: &str, rule: &str, origin: &Origin) {
        for line in text.lines() {
            self.search_unknown_line(line.trim(), rule, origin);
        }
    }

    /// Keeps the commands that one line names.
    pub(super) fn search_unknown_line(&mut self, line: &str, rule: &str, origin: &Origin) {
        if self.is_everything || line.len() > MAX_LINE {
            return;
        }
        let lower = line.to_ascii_lowercase();
        let is_starting = STARTING.iter().any(|word| lower.contains(word));
        for text in quoted(line) {
            self.search_command_text(&text, is_starting, rule, origin, 0);
        }
        for (at, sign) in line.match_indices(BEFORE_COMMANDS) {
            let rest = line.get(at + sign.len()..).unwrap_or("");
            self.search_command_text(rest, false, rule, origin, 0);
        }
        for rest in scheduled(line) {
            self.search_command_text(rest, true, rule, origin, 0);
        }
    }

    /// What an interpreter of which no rule knows the language is given: a file, or a text of its own.
    pub(super) fn search_unknown_argument(&mut self, value: &str, origin: &Origin, cwd: &str) {
        let rule = "what its program is given reads as a command";
        if value.contains([' ', '\t', '\n']) {
            self.search_command_text(value, false, rule, origin, 0);
            self.search_unknown_text(value, rule, origin);
            return;
        }
        let path = if value.starts_with('/') {
            value.to_owned()
        } else {
            join(cwd, value)
        };
        let Some(found) = self.space.resolve(&path) else { return };
        let is_text = matches!(self.space.what(&found.path), Some(What::File { size, .. }) if size <= MAX_SOURCE)
            && self.class(&found.path) == Class::Data
            && self.inventory.owner(&found.path).is_none();
        if !is_text || !self.scripts.insert((found.path.clone(), Some(Vec::new()))) {
            return;
        }
        if let Some(bytes) = self
            .space
            .bytes(&found.path, MAX_SOURCE)
            .filter(|bytes| !bytes.contains(&0))
        {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            self.search_unknown_text(
                &text,
                "the text that its program is given names it",
                &Origin::Path(found.path),
            );
        }
    }

    /// Whether the first word of a text, or `any`, is a command or a word of the shell.
    fn may_be_command(&self, text: &str, any: bool) -> bool {
        let known = self.commands();
        let mut words = text
            .split(|c: char| c.is_whitespace() || "|;&<>(){}!\"'".contains(c))
            .filter(|word| !word.is_empty())
            .take(if any { usize::MAX } else { 1 });
        words.any(|word| {
            known.contains(word)
                || BUILTINS.contains(&word)
                || KEYWORDS.contains(&word)
                || word.starts_with('/') && self.command(word, "/").is_some()
        })
    }

    /// Keeps the commands of a text that reads as a command line: of several words or commands, unless `is_starting`.
    pub(super) fn search_command_text(
        &mut self,
        text: &str,
        is_starting: bool,
        rule: &str,
        origin: &Origin,
        depth: usize,
    ) {
        let text = text.trim();
        // Most texts are no commands, and are told by their words: what is parsed is paid for.
        if depth > MAX_DEPTH || !self.may_be_command(text, is_starting) || !self.budget.spend(text.len() as u64) {
            return;
        }
        let script = shell::parse(text, 0);
        let is_line = script.commands.len() > 1 || !script.redirected.is_empty();
        for command in &script.commands {
            if !is_starting && !is_line && command.words.len() < 2 {
                continue;
            }
            let mut words = command.words.iter();
            while let Some(word) = words.next() {
                let Some(name) = word.literal().filter(|name| name.len() > 1) else {
                    break;
                };
                let base = name.rsplit('/').next().unwrap_or(&name);
                match self.command(&name, "/") {
                    Some(path) => {
                        self.keep(&path, rule, origin, By::Rule);
                    }
                    // `exec` and `command` start what they are given, and are no files.
                    None if self.rules.wrappers.contains(base) => {}
                    None => break,
                }
                if self.rules.shells.contains(base) {
                    let mut rest = words.clone().filter_map(Word::literal);
                    if rest.any(|option| option.starts_with('-') && option.contains('c'))
                        && let Some(inner) = rest.next()
                    {
                        self.search_command_text(&inner, true, rule, origin, depth + 1);
                    }
                    break;
                }
                if !self.rules.wrappers.contains(base) {
                    break;
                }
                // `nice -n 5 command`: the options of a command that starts others are no commands.
                let is_command = |word: &Word| word.literal().is_some_and(|name| self.command(&name, "/").is_some());
                while words.clone().next().is_some_and(|word| !is_command(word)) {
                    words.next();
                }
            }
        }
    }
}

/// The texts in quotes of a line.
fn quoted(line: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut open: Option<(char, String)> = None;
    let mut is_escaped = false;
    for c in line.chars() {
        match &mut open {
            Some((_, text)) if is_escaped => {
                is_escaped = false;
                text.push(c);
            }
            Some(_) if c == '\\' => is_escaped = true,
            Some((quote, text)) if c == *quote => {
                texts.push(std::mem::take(text));
                open = None;
            }
            Some((_, text)) => text.push(c),
            None if matches!(c, '"' | '\'' | '`') => open = Some((c, String::new())),
            None => {}
        }
    }
    texts
}

/// What a line of a table of cron starts: the command behind the times, and behind a user where there may be one.
fn scheduled(line: &str) -> Vec<&str> {
    let is_time = |word: &str| {
        word.bytes()
            .all(|byte| byte.is_ascii_digit() || b"*/,-".contains(&byte))
    };
    let mut rest = line;
    let times = if line.starts_with('@') { 1 } else { 5 };
    for number in 0..times {
        let Some((word, behind)) = rest.split_once([' ', '\t']) else {
            return Vec::new();
        };
        // Months and days of the week can have names.
        let is_named = number > 2
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b',' || byte == b'-');
        if times > 1 && !is_time(word) && !is_named {
            return Vec::new();
        }
        rest = behind.trim_start();
    }
    let behind_user = rest.split_once([' ', '\t']).map(|(_, behind)| behind);
    [Some(rest), behind_user].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_texts_and_tables_of_cron_are_told_apart() {
        assert_eq!(quoted(r#"run("echo \"a b\" | tr", 'x')"#), ["echo \"a b\" | tr", "x"]);
        assert!(quoted("no \"end").is_empty());
        assert_eq!(
            scheduled("*/5 1,2 * jan mon-fri root sh -c date"),
            ["root sh -c date", "sh -c date"]
        );
        assert_eq!(scheduled("@daily backup now"), ["backup now", "now"]);
        assert!(scheduled("listen 127.0.0.1 port 80 and more").is_empty());
    }
}
