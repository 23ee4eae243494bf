//! What command lines, shell scripts and the sources of interpreted programs start.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use super::budget::{Budget, STEP};
use super::rules::Language;
use super::shell::{self, Command, Part, Script, Word};
use super::space::What;
use super::trace::{By, Trace};
use super::values::{HOLE, MAX_VALUE, MAX_VALUES, Values, strip, stripped};
use super::{Class, Content, Mounted, Origin, classes, pattern};
use crate::diagnostic::printable;
use crate::tree::join;

/// Largest script.
const MAX_SCRIPT: u64 = 2 << 20;
/// Most values that a variable has from earlier assignments where a later one is made from them.
const MAX_EARLIER: usize = 8;
/// How many variables may lead to one another.
const MAX_CHAIN: usize = 24;
/// Most files that one script may source, and texts that it may evaluate.
const MAX_SOURCED: usize = 256;
/// Most combinations of arguments with which one script is followed.
const MAX_ARGUMENTS: usize = 16;
/// Most words of one command that are looked at.
const MAX_WORDS: usize = 4096;
/// Bytes of sources that are searched for calls, and of one file.
const MAX_SOURCES: u64 = 128 << 20;
const MAX_SOURCE: u64 = 4 << 20;
/// Bytes of archives of compiled ones.
const MAX_ARCHIVES: u64 = 48 << 20;
/// Longest interpreter line.
pub(super) const MAX_LINE: usize = 4096;
/// Most scripts of which each interprets the one before, as in Linux.
const MAX_INTERPRETERS: usize = 5;
/// Below these, the next component is what a program imports.
const MODULES: &[&str] = &[
    "/dist-packages/",
    "/site-packages/",
    "/node_modules/",
    "/nodejs/",
    "/perl5/",
    "/vendor_ruby/",
    "/gems/",
    "/share/lua/",
    "/share/php/",
];
/// Commands that a shell has built in.
pub(super) const BUILTINS: &[&str] = &[
    ".",
    ":",
    "[",
    "[[",
    "alias",
    "bg",
    "bind",
    "break",
    "builtin",
    "caller",
    "cd",
    "command",
    "compgen",
    "complete",
    "compopt",
    "continue",
    "declare",
    "dirs",
    "disown",
    "echo",
    "enable",
    "eval",
    "exec",
    "exit",
    "export",
    "false",
    "fc",
    "fg",
    "getopts",
    "hash",
    "help",
    "history",
    "jobs",
    "kill",
    "let",
    "local",
    "logout",
    "mapfile",
    "popd",
    "printf",
    "pushd",
    "pwd",
    "read",
    "readarray",
    "readonly",
    "return",
    "set",
    "shift",
    "shopt",
    "source",
    "suspend",
    "test",
    "time",
    "times",
    "trap",
    "true",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "wait",
];

/// Those of them that print nothing.
const SILENT: &[&str] = &[
    ":", "[", "[[", "break", "cd", "continue", "declare", "exit", "export", "false", "getopts", "let", "local", "read",
    "readonly", "return", "set", "shift", "test", "true", "typeset", "unset", "wait",
];

/// Whether a source is a module that is searched when it is imported.
pub(super) fn is_module(path: &str) -> bool {
    MODULES.iter().any(|mark| path.contains(mark))
}

/// What is still to be followed. Texts lead to one another without end, so none is followed inside of another.
#[derive(Default)]
pub(super) struct Waiting {
    queue: VecDeque<Next>,
    /// Texts for a shell that waited before.
    texts: BTreeSet<(String, Option<Vec<String>>, String)>,
    is_followed: bool,
}

enum Next {
    /// Words of a command line, the rule that found it, where it stands, and the directory it is started in.
    Line(Vec<String>, String, Origin, String),
    /// A text for a shell.
    Text(Text),
    /// The path of a shell's script, and its arguments.
    Script(String, Option<Vec<String>>),
}

/// A text for a shell.
struct Text {
    /// What it belongs to, in messages.
    what: String,
    text: String,
    args: Option<Vec<String>>,
    origin: Origin,
    cwd: String,
}

/// One script with what it sources and evaluates.
struct Shell {
    budget: Rc<Budget>,
    path: String,
    origin: Origin,
    cwd: String,
    args: Option<Vec<String>>,
    environment: BTreeMap<String, String>,
    commands: Vec<Command>,
    bindings: BTreeMap<String, Vec<Option<Word>>>,
    /// What its arguments can be beside its own: what `set --` makes them, and what its functions are called with.
    arguments: Vec<Vec<Word>>,
    functions: BTreeSet<String>,
    last_text: usize,
    /// Commands by the text that they stand in.
    by_text: BTreeMap<usize, Vec<usize>>,
    sourced: BTreeSet<String>,
    evaluated: usize,
    memory: BTreeMap<String, Values>,
    /// Arguments of the function whose output is asked for.
    given: Option<Values>,
    /// That function, and those that asked for its output.
    returning: Vec<String>,
    /// What it is called.
    names: Values,
    /// Where its own path ends when links are followed.
    target: String,
    /// Commands of it that the image does not have: they print nothing.
    absent: BTreeSet<String>,
    /// Words of it that are commands, and where they are.
    found: BTreeMap<String, String>,
    /// Files below the directories that a `find` or `ls` in it names: what a loop over its output reads.
    listed: Vec<String>,
}

impl Shell {
    fn add(&mut self, script: Script) {
        self.last_text = self.last_text.max(script.last_text);
        for command in script.commands {
            self.by_text.entry(command.text).or_default().push(self.commands.len());
            self.commands.push(command);
        }
        for (name, word) in script.bindings {
            self.bindings.entry(name).or_default().push(word);
        }
        for words in script.arguments {
            self.add_arguments(words);
        }
        self.functions.extend(script.functions);
        self.memory.clear();
    }

    /// What begins with the arguments that there are already is followed with these.
    fn add_arguments(&mut self, words: Vec<Word>) {
        let begins = words.first().is_some_and(|word| !is_arguments(word));
        if begins && self.arguments.len() < MAX_VALUES && !self.arguments.contains(&words) {
            self.arguments.push(words);
        }
    }

    fn values(&mut self, word: &Word, chain: usize) -> Values {
        let mut all = Values::of("");
        for part in &word.parts {
            let next = self.part(part, chain);
            let mut combined = Values::default();
            for (head, tail) in all.all().flat_map(|head| next.all().map(move |tail| (head, tail))) {
                let is_full = combined.known.len() >= MAX_VALUES;
                if is_full || !self.budget.spend((head.len() + tail.len()) as u64) {
                    combined.add_unknown();
                    break;
                }
                combined.add(format!("{head}{tail}"));
            }
            all = combined;
        }
        all
    }

    fn part(&mut self, part: &Part, chain: usize) -> Values {
        match part {
            Part::Text { text, .. } => Values::of(text),
            Part::Unknown => Values::unknown(),
            Part::Substitution { text } => self.substitution(*text, chain),
            Part::Variable {
                name,
                operator,
                default,
                ..
            } => {
                let value = self.variable(name, chain);
                match operator.as_str() {
                    "" | ":?" | "?" => value,
                    ":-" | "-" | ":=" | "=" | ":+" | "+" => {
                        let mut value = if operator.ends_with('+') { Values::of("") } else { value };
                        if !operator.ends_with('+') {
                            // Nothing is what the default stands in for.
                            value.known.retain(|text| !text.is_empty());
                        }
                        match default {
                            Some(word) => value.join(self.values(word, chain + 1)),
                            None => value.add(String::new()),
                        }
                        value
                    }
                    other => match strip(other) {
                        Some((from_end, longest, wanted)) => {
                            value.map(|text| stripped(text, from_end, longest, wanted))
                        }
                        None => Values::unknown(),
                    },
                }
            }
        }
    }

    fn variable(&mut self, name: &str, chain: usize) -> Values {
        match name {
            "0" | "BASH_SOURCE" => return self.names.clone(),
            "#" | "?" | "$" | "!" | "-" => return Values::of("0"),
            _ => {}
        }
        if let Some(known) = self.memory.get(name) {
            return known.clone();
        }
        if chain > MAX_CHAIN {
            return Values::unknown();
        }
        self.memory.insert(name.to_owned(), Values::default());
        let mut values = Values::default();
        if name == "@"
            && let Some(given) = &self.given
        {
            values.join(given.clone());
        } else if name == "@" {
            match self.args.clone() {
                Some(args) => args.into_iter().for_each(|text| values.add(text)),
                None => values.add_unknown(),
            }
        } else if let Some(value) = self.environment.get(name) {
            values.add(value.clone());
        }
        let mut bindings = self.bindings.get(name).cloned().unwrap_or_default();
        if name == "@" && self.given.is_some() {
            bindings.clear();
        }
        if bindings.is_empty() && values.known.is_empty() && !values.has_more() && name != "@" {
            values.add(String::new());
        }
        for binding in bindings {
            match binding {
                Some(word) => {
                    // What a command makes of it is made from what came before, where that is known and not much:
                    // `HERE=$(dirname "$HERE")`, but no list that grows, and nothing that is cut off word by word.
                    let is_command = word.parts.iter().any(|part| matches!(part, Part::Substitution { .. }));
                    let is_clear = is_command && name != "@" && !values.has_more() && values.known.len() <= MAX_EARLIER;
                    let earlier = if is_clear { values.clone() } else { Values::default() };
                    self.memory.insert(name.to_owned(), earlier);
                    let next = self.values(&word, chain + 1);
                    values.join(next);
                }
                None if !self.listed.is_empty() => self.listed.clone().into_iter().for_each(|path| values.add(path)),
                None => values.add_unknown(),
            }
        }
        self.memory.insert(name.to_owned(), values.clone());
        values
    }

    /// What a substitution prints, for the few commands of which that is known.
    fn substitution(&mut self, text: usize, chain: usize) -> Values {
        if chain > MAX_CHAIN {
            return Values::unknown();
        }
        let numbers = self.by_text.get(&text).cloned().unwrap_or_default();
        let commands: Vec<Command> = numbers
            .iter()
            .filter_map(|number| self.commands.get(*number).cloned())
            .collect();
        match commands.as_slice() {
            [only] => self.printed(&only.words, chain),
            [first, second]
                if second.words.len() == 1
                    && second.words.first().and_then(Word::literal).as_deref() == Some("pwd") =>
            {
                self.printed(&first.words, chain)
            }
            _ => Values::unknown(),
        }
    }

    /// What a call of a function of the script prints: what the commands of its body do.
    fn returned(&mut self, function: &str, words: &[Word], chain: usize) -> Values {
        let is_its = |command: &&Command| command.function.as_deref() == Some(function);
        let body: Vec<Command> = self.commands.iter().filter(is_its).cloned().collect();
        // Functions that share a variable and print it ask for one another in every order, each time afresh.
        let is_asked = self.returning.iter().any(|outer| outer == function);
        if is_asked || chain > MAX_CHAIN || body.is_empty() || !self.budget.spend(STEP + self.commands.len() as u64) {
            return Values::unknown();
        }
        let mut given = Values::default();
        for word in words.iter().skip(1) {
            given.join(self.values(word, chain + 1));
        }
        let outer = (self.given.replace(given), std::mem::take(&mut self.memory));
        self.returning.push(function.to_owned());
        let mut all = Values::default();
        for command in body {
            let name = command.words.first().and_then(Word::literal).unwrap_or_default();
            if !SILENT.contains(&name.as_str()) {
                all.join(self.printed(&command.words, chain + 1));
            }
        }
        self.returning.pop();
        (self.given, self.memory) = outer;
        all
    }

    /// What a command prints.
    fn printed(&mut self, words: &[Word], chain: usize) -> Values {
        let name = words.first().and_then(Word::literal).unwrap_or_default();
        if self.functions.contains(&name) {
            return self.returned(&name, words, chain);
        }
        if self.absent.contains(&name) {
            return Values::of("");
        }
        // The loop with which start scripts follow the links of their own path: `expr "$listed" : '.*-> \(.*\)$'`.
        if name == "expr"
            && words
                .last()
                .and_then(Word::literal)
                .is_some_and(|text| text.contains("-> "))
        {
            return Values::of(&self.target);
        }
        let mut rest: Vec<Word> = words
            .iter()
            .skip(1)
            .filter(|word| !word.literal().is_some_and(|text| text.starts_with('-')))
            .cloned()
            .collect();
        if name == "printf" && rest.len() == 2 {
            rest.remove(0);
        }
        let ([word], true) = (rest.as_slice(), words.len() > 1) else {
            return if name == "pwd" {
                Values::of(&self.cwd.clone())
            } else {
                Values::unknown()
            };
        };
        let value = self.values(word, chain + 1);
        match name.as_str() {
            "command" | "which" | "type" => {
                let found = |name: &str| self.found.get(name).cloned();
                value.map(|name| found(name).unwrap_or_else(|| name.to_owned()))
            }
            "echo" | "printf" | "readlink" | "realpath" | "cd" => value,
            "dirname" => value.map(|text| text.rsplit_once('/').map_or(".", |(head, _)| head).to_owned()),
            "basename" => value.map(|text| text.rsplit('/').next().unwrap_or(text).to_owned()),
            _ => Values::unknown(),
        }
    }

    /// A word as it stands in the script, shortened.
    fn describe(word: &Word) -> String {
        let mut text = String::new();
        for part in &word.parts {
            match part {
                Part::Text { text: piece, .. } => text.push_str(piece),
                Part::Variable { name, .. } => {
                    text.push('$');
                    text.push_str(name);
                }
                Part::Substitution { .. } => text.push_str("$(…)"),
                Part::Unknown => text.push('…'),
            }
        }
        text.chars().take(60).collect()
    }

    /// Words of a command with what they can be; `"$@"` becomes as many as there are, and what has blanks and no
    /// quotes is split.
    fn argv(&mut self, words: &[Word]) -> Vec<(Values, String)> {
        let mut argv = Vec::new();
        for word in words.iter().take(MAX_WORDS) {
            let described = Self::describe(word);
            // `"${array[@]}"`: a command and its arguments, where it stands first.
            if let [Part::Variable { name, operator, .. }] = word.parts.as_slice()
                && operator.is_empty()
                && self.bindings.contains_key(&shell::first_of(name))
            {
                for place in [shell::first_of(name), shell::rest_of(name)] {
                    if self.bindings.contains_key(&place) {
                        argv.push((self.variable(&place, 0), described.clone()));
                    }
                }
                continue;
            }
            let values = self.values(word, 0);
            let all = is_arguments(word);
            let splits = word
                .parts
                .iter()
                .any(|part| matches!(part, Part::Variable { quoted: false, .. } | Part::Substitution { .. }));
            if all {
                let more = values.has_more();
                argv.extend(
                    values
                        .known
                        .into_iter()
                        .map(|text| (Values::of(&text), described.clone())),
                );
                if more {
                    argv.push((Values::unknown(), described));
                }
            } else if splits && values.known.iter().any(|text| text.contains([' ', '\t', '\n'])) {
                let mut pieces: Vec<Values> = Vec::new();
                for text in &values.known {
                    for (at, piece) in text.split_ascii_whitespace().enumerate() {
                        match pieces.get_mut(at) {
                            Some(known) => known.add(piece.to_owned()),
                            None => pieces.push(Values::of(piece)),
                        }
                    }
                }
                if let Some(first) = pieces.first_mut() {
                    values.holed.into_iter().for_each(|text| first.add(text));
                }
                argv.extend(pieces.into_iter().map(|piece| (piece, described.clone())));
            } else {
                argv.push((values, described));
            }
        }
        argv
    }
}

impl Trace<'_> {
    /// The container's own command line.
    pub(super) fn arguments(&mut self, cwd: &str, origin: &Origin) {
        let args = self.roots.args.clone();
        if let Some(first) = args.first()
            && self.command(first, cwd).is_none()
        {
            if self.is_unknown(&if first.contains('/') {
                join(cwd, first)
            } else {
                join("/", first)
            }) || self.is_unknown(first)
            {
                self.closure
                    .cannot_follow(first, "lies in a mount that could not be read");
            } else {
                self.closure.note(format!(
                    "{}, which the container starts, is not in the image",
                    printable(first)
                ));
            }
        }
        self.run_words(&args, "the container starts it", origin, cwd);
    }

    /// A command line of which every word is known.
    pub(super) fn run_words(&mut self, words: &[String], rule: &str, origin: &Origin, cwd: &str) {
        let words = words.iter().take(MAX_WORDS).cloned().collect();
        self.follow(Next::Line(words, rule.to_owned(), origin.clone(), cwd.to_owned()));
    }

    /// Follows something with all that it leads to; inside of that, only takes it down.
    fn follow(&mut self, next: Next) {
        self.waiting.queue.push_back(next);
        if std::mem::replace(&mut self.waiting.is_followed, true) {
            return;
        }
        while let Some(next) = self.waiting.queue.pop_front() {
            let what = match &next {
                Next::Line(words, ..) => words.first().cloned().unwrap_or_default(),
                Next::Text(text) => text.what.clone(),
                Next::Script(path, _) => path.clone(),
            };
            if self.budget.spend(STEP) {
                self.follow_next(next);
            }
            if self.budget.is_spent() {
                self.closure.cannot_follow(
                    &what,
                    "is one text too many: the scripts and configuration of this image lead to more than is followed",
                );
                self.waiting.queue.clear();
            }
        }
        self.waiting.is_followed = false;
    }

    fn follow_next(&mut self, next: Next) {
        match next {
            Next::Line(words, rule, origin, cwd) => {
                let argv: Vec<(Values, String)> = words.into_iter().map(|word| (Values::of(&word), word)).collect();
                self.start(&argv, &rule, &origin, &cwd, false, "");
            }
            Next::Text(text) => self.follow_shell(text),
            Next::Script(path, args) => {
                let Some(bytes) = self.space.bytes(&path, MAX_SCRIPT) else {
                    self.closure
                        .cannot_follow(&path, "is a script that cannot be read, or is too large");
                    return;
                };
                let cwd = if self.roots.cwd.is_empty() {
                    "/".to_owned()
                } else {
                    self.roots.cwd.clone()
                };
                self.follow_shell(Text {
                    text: String::from_utf8_lossy(&bytes).into_owned(),
                    args,
                    origin: Origin::Path(path.clone()),
                    what: path,
                    cwd,
                });
            }
        }
    }

    /// Follows one command line. `script` is where it stands, empty for the container's own.
    fn start(
        &mut self,
        argv: &[(Values, String)],
        rule: &str,
        origin: &Origin,
        cwd: &str,
        has_input: bool,
        script: &str,
    ) {
        let mut wraps = false;
        for (at, (values, _)) in argv.iter().enumerate() {
            let mut found = false;
            for name in &values.known {
                let Some(path) = self.command(name, cwd) else { continue };
                found = true;
                let rule = if at == 0 {
                    rule
                } else {
                    "a command that starts others is given it"
                };
                let Some(end) = self.keep(&path, rule, origin, By::Command) else {
                    continue;
                };
                let base = path.rsplit('/').next().unwrap_or(&path).to_owned();
                let real = end.rsplit('/').next().unwrap_or(&end).to_owned();
                wraps |= self.rules.wrappers.contains(&base);
                let rest = argv.get(at + 1..).unwrap_or_default();
                if !self.budget.spend(STEP / 8 + rest.len() as u64) {
                    return;
                }
                let applet = (real == "busybox" && base == "busybox").then(|| rest.first()).flatten();
                let is_shell = self.rules.shells.contains(&base)
                    || applet
                        .is_some_and(|(values, _)| values.known.iter().any(|name| self.rules.shells.contains(name)));
                if is_shell {
                    let rest = if applet.is_some() {
                        rest.get(1..).unwrap_or_default()
                    } else {
                        rest
                    };
                    self.start_shell(rest, origin, cwd, has_input, script, &base);
                } else if self.class(&end) == Class::Script {
                    let known: Option<Vec<String>> = rest
                        .iter()
                        .map(|(values, _)| values.only().map(str::to_owned))
                        .collect();
                    self.script(&end, known);
                } else {
                    self.interpret(&end, &base, rest, origin, cwd);
                }
            }
            if at == 0 && !found && script.is_empty() && !wraps {
                break;
            }
            if !wraps && at == 0 {
                break;
            }
        }
        for (values, _) in argv.iter().skip(1) {
            for value in &values.known {
                self.argument(value, rule, origin, cwd);
            }
        }
    }

    /// What an argument names: a path, or one behind an equals sign or a comma.
    fn argument(&mut self, value: &str, rule: &str, origin: &Origin, cwd: &str) {
        let rule = if matches!(origin, Origin::Root(_)) {
            "an argument names it"
        } else {
            rule
        };
        if value.len() > 4096 {
            return;
        }
        if value.contains('/') || self.space.resolve(&join(cwd, value)).is_some() {
            if pattern::is_pattern(value) && value.starts_with('/') {
                for path in self.space.expand_within(value, &self.budget) {
                    self.given(&path, rule, origin, cwd);
                }
            } else {
                self.given(value, rule, origin, cwd);
            }
        }
        for part in value.split(['=', ',', ':', ' ', ';', '\'', '"', '@', '|', '\n', '\t']) {
            if part.starts_with('/') && part.len() > 1 && part != value {
                self.given(part, rule, origin, cwd);
            }
        }
    }

    /// What a command line gives to a program: it may be its configuration, or hold what it starts.
    fn given(&mut self, path: &str, rule: &str, origin: &Origin, cwd: &str) {
        self.named(path, rule, origin, By::Command, cwd);
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            join(cwd, path)
        };
        self.search_configuration(&path, "a file that the command line names names it");
        self.own_programs(&path, "in a directory that the command line names", origin);
    }

    fn start_shell(
        &mut self,
        rest: &[(Values, String)],
        origin: &Origin,
        cwd: &str,
        has_input: bool,
        script: &str,
        name: &str,
    ) {
        let what = if script.is_empty() { name } else { script };
        let mut takes_text = false;
        let mut skip = false;
        for (at, (values, described)) in rest.iter().enumerate() {
            if std::mem::take(&mut skip) {
                continue;
            }
            if let [option] = values.known.as_slice()
                && option.starts_with(['-', '+'])
                && option.len() > 1
                && !takes_text
            {
                if option == "--" {
                    continue;
                }
                if !option.starts_with("--") {
                    takes_text |= option.starts_with('-') && option.contains('c');
                    skip = option.ends_with('o') || option.ends_with('O');
                    if option.contains('s') && !takes_text {
                        self.closure
                            .cannot_follow(what, "runs a shell that reads its commands from its input");
                    }
                }
                continue;
            }
            let behind: Option<Vec<String>> = rest
                .get(at + 1..)
                .unwrap_or_default()
                .iter()
                .map(|(values, _)| values.only().map(str::to_owned))
                .collect();
            let found = self.fill(values, !takes_text, false);
            if found.is_none() && !(takes_text && values.holed.iter().all(|text| !text.starts_with(HOLE))) {
                let made = format!("runs a shell with a text or script that is made when it runs: {described}");
                self.closure.cannot_follow(what, &made);
            }
            let holed: &[String] = if takes_text { &values.holed } else { &[] };
            for value in values.known.iter().chain(&found.unwrap_or_default()).chain(holed) {
                if takes_text {
                    // The first word behind the text is `$0`.
                    let args = behind.clone().map(|words| words.into_iter().skip(1).collect());
                    self.shell_text(value, what, origin, cwd, args);
                } else {
                    self.shell_argument(value, origin, cwd, behind.clone(), what);
                }
            }
            return;
        }
        if has_input {
            self.closure
                .cannot_follow(what, "runs a shell on a here-document or file");
        } else {
            self.closure
                .cannot_follow(what, "runs a shell that reads its commands from its input");
        }
    }

    fn shell_argument(&mut self, value: &str, origin: &Origin, cwd: &str, args: Option<Vec<String>>, what: &str) {
        let path = if value.starts_with('/') {
            value.to_owned()
        } else {
            join(cwd, value)
        };
        if self
            .space
            .resolve(&path)
            .is_some_and(|found| matches!(self.space.what(&found.path), Some(What::File { .. })))
        {
            self.run_shell_file(&path, args, origin);
        } else if let Some(path) = self.command(value, cwd) {
            self.run_shell_file(&path, args, origin);
        } else if self.is_unknown(&path) {
            self.closure
                .cannot_follow(value, "is a script in a mount that could not be read");
        } else if !value.is_empty() {
            self.closure.note(format!(
                "{}: the script {} does not exist",
                printable(what),
                printable(value)
            ));
        }
    }

    /// An interpreter's script, or its inline text.
    fn interpret(&mut self, path: &str, name: &str, rest: &[(Values, String)], origin: &Origin, cwd: &str) {
        let rules = self.rules;
        let found = rules.languages.iter().find(|language| {
            language
                .interpreters
                .iter()
                .any(|wanted| pattern::path(wanted, path) || pattern::component(wanted, name))
        });
        if self.rules.unread.contains(name) && !rest.is_empty() {
            self.closure
                .cannot_follow(path, "is given commands in a language that is not read");
        }
        // Or the one that the name of a file on the command line tells.
        let by_source = || {
            let mut values = rest.iter().flat_map(|(values, _)| &values.known);
            let is_its = |language: &Language, value: &str| {
                let mut sources = language.sources.iter();
                value.starts_with('/') && sources.any(|source| pattern::path(source, value))
            };
            let name = values.find(|value| rules.languages.iter().any(|language| is_its(language, value)))?;
            rules.languages.iter().find(|language| is_its(language, name))
        };
        if found.is_none()
            && let Some(language) = by_source()
        {
            for value in rest.iter().flat_map(|(values, _)| &values.known) {
                self.search_sources(language, std::slice::from_ref(value));
            }
        }
        let Some(language) = found else {
            for value in rest.iter().flat_map(|(values, _)| &values.known) {
                self.search_unknown_argument(value, origin, cwd);
            }
            return;
        };
        let mut inline = false;
        for (values, _) in rest {
            for value in &values.known {
                self.import_name(language, value);
                // `-e TEXT`, or where an option does not say so, as awk's program.
                if inline || value.contains(['(', '{', '`']) {
                    self.search_text(language, value, origin);
                }
                let file = if value.starts_with('/') {
                    value.clone()
                } else {
                    join(cwd, value)
                };
                if !value.starts_with('-') && !value.is_empty() {
                    if let Some(found) = self.space.resolve(&file) {
                        if matches!(self.space.what(&found.path), Some(What::File { .. })) {
                            self.search_sources(language, std::slice::from_ref(&found.path));
                            // Modules beside the script belong to it.
                            if let Some((directory, _)) = found.path.rsplit_once('/') {
                                self.directory_data(directory, "beside the script", origin);
                                let beside = self.sources_below(language, directory);
                                for path in &beside {
                                    self.keep_source(path, "beside the script", origin);
                                }
                                self.search_sources(language, &beside);
                            }
                        }
                    } else if self.is_unknown(&file) && value.contains('/') {
                        self.closure
                            .cannot_follow(value, "is a script in a mount that could not be read");
                    }
                }
            }
            inline = matches!(values.known.as_slice(), [option] if matches!(option.as_str(), "-c" | "-e" | "-E" | "-r" | "--eval" | "-p"));
        }
        if cwd != "/" {
            let beside = self.sources_below(language, cwd);
            self.search_sources(language, &beside);
        }
        self.languages_of(path);
        self.search_imports(language);
    }

    pub(super) fn sources_below(&self, language: &Language, directory: &str) -> Vec<String> {
        let shared = matches!(
            directory,
            "" | "/" | "/usr/bin" | "/usr/sbin" | "/usr/local/bin" | "/bin" | "/sbin" | "/usr/local/sbin"
        );
        if shared {
            return Vec::new();
        }
        let mut found = self.space.below(directory);
        found.push(directory.to_owned());
        found.retain(|path| language.sources.iter().any(|wanted| pattern::path(wanted, path)));
        found
    }

    /// A script by its first line.
    pub(super) fn script(&mut self, path: &str, args: Option<Vec<String>>) {
        if !self.admit_script(path, args.as_ref()) {
            return;
        }
        // Only the first line of a program for a virtual machine is a text.
        let head = self.space.head(path, MAX_LINE).filter(|head| head.contains(&0));
        let Some(bytes) = head.or_else(|| self.space.bytes(path, MAX_SCRIPT)) else {
            self.closure
                .cannot_follow(path, "is a script that cannot be read, or is too large");
            return;
        };
        self.suspect_writable(path);
        let origin = Origin::Path(path.to_owned());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let line: String = text.lines().next().unwrap_or("").chars().take(MAX_LINE).collect();
        let Some(line) = line.strip_prefix("#!") else {
            self.keep(
                "/bin/sh",
                "a text without an interpreter line is run by the shell",
                &origin,
                By::Rule,
            );
            self.follow(Next::Script(path.to_owned(), args));
            return;
        };
        if self.has_endless_interpreters(path) {
            self.closure.cannot_follow(
                path,
                "is interpreted by a script, which is interpreted by one again, oftener than Linux does",
            );
            return;
        }
        let mut words: Vec<&str> = line.split_ascii_whitespace().collect();
        let first = words.first().copied().unwrap_or("");
        if self
            .keep(first, "interprets the script", &origin, By::Command)
            .is_none()
        {
            self.closure.note(format!(
                "{path} needs {}, which the image does not have",
                printable(first)
            ));
        }
        let mut interpreter = first.to_owned();
        if first.ends_with("/env") {
            words.remove(0);
            words.retain(|word| !word.starts_with('-') && !word.contains('='));
            let name = words.first().copied().unwrap_or("");
            match self.command(name, "/") {
                Some(found) => {
                    self.keep(&found, "interprets the script", &origin, By::Command);
                    interpreter = found;
                }
                None => self.closure.note(format!(
                    "{path} needs {}, which the image does not have",
                    printable(name)
                )),
            }
        }
        let name = interpreter.rsplit('/').next().unwrap_or("").to_owned();
        let end = self
            .space
            .resolve(&interpreter)
            .map_or_else(|| interpreter.clone(), |found| found.path);
        if self.rules.shells.contains(&name)
            || words
                .get(1)
                .is_some_and(|word| first.ends_with("/busybox") && self.rules.shells.contains(*word))
        {
            self.follow(Next::Script(path.to_owned(), args));
            return;
        }
        if (self.rules.wrappers.contains(&name) || self.rules.unread.contains(&name)) && !first.ends_with("/env") {
            self.closure
                .cannot_follow(path, &format!("is a script of {name}, which is not read"));
        }
        self.languages_of(&end);
        let rules = self.rules;
        let is_known = |language: &Language| {
            let mut interpreters = language.interpreters.iter();
            interpreters.any(|wanted| pattern::path(wanted, &end) || pattern::component(wanted, &name))
        };
        if !rules.languages.iter().any(is_known) {
            self.search_unknown_text(&text, "the source names it", &origin);
        }
        for language in rules.languages.iter().filter(|language| is_known(language)) {
            self.search_text(language, &text, &origin);
            for value in args.iter().flatten() {
                self.import_name(language, value);
            }
            if self.roots.cwd.len() > 1 {
                let beside = self.sources_below(language, &self.roots.cwd);
                self.search_sources(language, &beside);
            }
            self.search_imports(language);
        }
        // What comes behind a console script is for it: `gunicorn --config /etc/x app:main`.
        if let Some(args) = args {
            for value in args {
                self.argument(&value, "an argument names it", &origin, &self.roots.cwd.clone());
            }
        }
    }

    /// Whether scripts interpret one another from this one on, and no program comes soon.
    fn has_endless_interpreters(&self, path: &str) -> bool {
        let mut at = path.to_owned();
        for _ in 0..MAX_INTERPRETERS {
            let head = self.space.head(&at, MAX_LINE).unwrap_or_default();
            let text = String::from_utf8_lossy(&head);
            let line = text.lines().next().and_then(|line| line.strip_prefix("#!"));
            let interpreter = line.and_then(|line| line.split_ascii_whitespace().next());
            match interpreter.and_then(|interpreter| self.space.resolve(interpreter)) {
                Some(found) if self.class(&found.path) == Class::Script => at = found.path,
                _ => return false,
            }
        }
        true
    }

    /// Counts a script and the arguments with which it is followed.
    fn admit_script(&mut self, path: &str, args: Option<&Vec<String>>) -> bool {
        let known = self
            .scripts
            .range((path.to_owned(), None)..)
            .take_while(|(known, _)| known == path)
            .count();
        // Without arguments there is nothing that an earlier pass with some did not see.
        if args.is_none() && known > 0 {
            return false;
        }
        if known >= MAX_ARGUMENTS {
            self.closure
                .cannot_follow(path, "is started with too many different arguments");
            return false;
        }
        self.scripts.insert((path.to_owned(), args.cloned()))
    }

    fn suspect_writable(&mut self, path: &str) {
        if let Some((mount, _)) = self.space.mount(path)
            && mount.writable
            && !matches!(mount.content, Content::Unknown)
        {
            self.closure.cannot_follow(
                path,
                "is a script in a mount that can be written, and may be another one when it runs",
            );
        }
    }

    /// A file that a shell is told to run, whatever its first line says.
    pub(super) fn run_shell_file(&mut self, path: &str, args: Option<Vec<String>>, origin: &Origin) {
        let Some(end) = self.keep(path, "a shell runs it", origin, By::Command) else {
            return;
        };
        if self.class(&end) == Class::Script {
            self.script(&end, args);
            return;
        }
        if !self.admit_script(&end, args.as_ref()) {
            return;
        }
        self.suspect_writable(&end);
        self.follow(Next::Script(end, args));
    }

    /// Text for a shell on a command line.
    fn shell_text(&mut self, text: &str, what: &str, origin: &Origin, cwd: &str, args: Option<Vec<String>>) {
        let key = (text.to_owned(), args.clone(), cwd.to_owned());
        // What waits is paid for: it takes memory.
        if self.waiting.texts.insert(key) && self.budget.spend(text.len() as u64) {
            self.follow(Next::Text(Text {
                what: what.to_owned(),
                text: text.to_owned(),
                args,
                origin: origin.clone(),
                cwd: cwd.to_owned(),
            }));
        }
    }

    fn follow_shell(&mut self, script: Text) {
        let environment = self
            .roots
            .env
            .iter()
            .filter_map(|entry| entry.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut names = Values::of(&script.what);
        for name in self.called.get(&script.what).into_iter().flatten() {
            names.add(name.clone());
        }
        let target = self
            .space
            .resolve(&script.what)
            .map_or_else(|| script.what.clone(), |found| found.path);
        let mut shell = Shell {
            budget: Rc::clone(&self.budget),
            path: script.what,
            origin: script.origin,
            cwd: script.cwd,
            args: script.args,
            environment,
            commands: Vec::new(),
            bindings: BTreeMap::new(),
            arguments: Vec::new(),
            functions: BTreeSet::new(),
            last_text: 0,
            by_text: BTreeMap::new(),
            sourced: BTreeSet::new(),
            evaluated: 0,
            memory: BTreeMap::new(),
            given: None,
            returning: Vec::new(),
            names,
            target,
            absent: BTreeSet::new(),
            found: BTreeMap::new(),
            listed: Vec::new(),
        };
        self.add_text(&mut shell, &script.text);
        // Sourced files and evaluated texts first: they assign variables and define functions.
        let mut at = 0;
        while at < shell.commands.len() && !self.budget.is_spent() {
            self.gather(&mut shell, at);
            at += 1;
        }
        let directories: Vec<Word> = shell
            .bindings
            .get("PATH")
            .into_iter()
            .flatten()
            .flatten()
            .cloned()
            .collect();
        for word in directories {
            for value in shell.values(&word, 0).known {
                self.adopt_path(&value);
            }
        }
        for at in 0..shell.commands.len() {
            if self.budget.is_spent() {
                return;
            }
            self.follow_command(&mut shell, at);
        }
    }

    fn add_text(&mut self, shell: &mut Shell, text: &str) {
        if !self.budget.spend(text.len() as u64) {
            return;
        }
        let script = shell::parse(text, shell.last_text + 1);
        if let Some(why) = script.broken {
            self.closure
                .cannot_follow(&shell.path, &format!("is a script that cannot be read: {why}"));
        }
        let redirected = script.redirected.clone();
        let documents = script.documents.clone();
        self.note_commands(shell, &script);
        shell.add(script);
        for word in redirected {
            if let Some(path) = word.literal().filter(|path| path.starts_with('/')) {
                self.named(
                    &path,
                    "the script reads or writes it",
                    &shell.origin.clone(),
                    By::Command,
                    "/",
                );
            }
        }
        for document in documents {
            self.search_lines(
                &document,
                "a here-document of the script names it",
                &shell.origin.clone(),
            );
        }
    }

    /// Which commands of a script there are, as far as its own values depend on it.
    fn note_commands(&self, shell: &mut Shell, script: &Script) {
        let is_unknown = |mount: &Mounted| mount.programs && matches!(mount.content, Content::Unknown);
        let is_all_known = !self.roots.mounts.iter().any(is_unknown);
        for command in &script.commands {
            let mut words = command.words.iter().filter_map(Word::literal);
            let Some(name) = words.next() else { continue };
            if matches!(name.as_str(), "command" | "which" | "type") {
                for word in words {
                    if let Some(path) = self.command(&word, "/") {
                        shell.found.insert(word, path);
                    }
                }
            } else if is_all_known
                && !BUILTINS.contains(&name.as_str())
                && !pattern::is_pattern(&name)
                && !shell.absent.contains(&name)
                && self.command(&name, &shell.cwd).is_none()
            {
                shell.absent.insert(name);
            }
        }
    }

    /// What a command adds to the script itself.
    fn gather(&mut self, shell: &mut Shell, at: usize) {
        let Some(command) = shell.commands.get(at).cloned() else {
            return;
        };
        let words: Vec<Word> = command.words.iter().take(MAX_WORDS).cloned().collect();
        let name = words.first().and_then(Word::literal).unwrap_or_default();
        if shell.functions.contains(&name) {
            let given = shell.bindings.entry("@".to_owned()).or_default();
            if given.len() < MAX_WORDS {
                given.extend(words.iter().skip(1).cloned().map(Some));
                shell.add_arguments(words.iter().skip(1).cloned().collect());
                shell.memory.clear();
            }
            return;
        }
        match name.as_str() {
            "." | "source" => {
                let Some(word) = words.get(1) else { return };
                let values = shell.values(word, 0);
                let found = self.fill(&values, true, false);
                if found.is_none() {
                    let why = format!(
                        "reads commands from a file that is named when it runs: {}",
                        Shell::describe(word)
                    );
                    self.closure.cannot_follow(&shell.path, &why);
                }
                for value in values.known.iter().chain(&found.unwrap_or_default()) {
                    self.source(shell, value);
                }
            }
            "eval" | "trap" => {
                if name == "trap" && words.len() < 3 {
                    return;
                }
                let pieces = if name == "trap" {
                    words.get(1..2)
                } else {
                    words.get(1..)
                };
                self.evaluate(shell, pieces.unwrap_or_default());
            }
            "find" | "ls" => {
                let directory = words
                    .iter()
                    .skip(1)
                    .filter_map(Word::literal)
                    .find(|text| text.starts_with('/'));
                if let Some(found) = directory.and_then(|path| self.space.resolve(&path)) {
                    if !shell.listed.is_empty() || self.is_unknown(&found.path) {
                        return;
                    }
                    // The directory itself stands for an empty one.
                    shell.listed.push(found.path.clone());
                    shell
                        .listed
                        .extend(self.space.below(&found.path).into_iter().take(MAX_VALUES - 1));
                    shell.memory.clear();
                }
            }
            _ => {}
        }
    }

    fn source(&mut self, shell: &mut Shell, value: &str) {
        let at = if value.starts_with('/') {
            value.to_owned()
        } else {
            join(&shell.cwd, value)
        };
        let mut paths = if pattern::is_pattern(&at) {
            self.space.expand_within(&at, &self.budget)
        } else {
            vec![at.clone()]
        };
        if !value.contains('/') {
            paths.extend(self.command(value, "/"));
        }
        if self.is_unknown(&at) {
            self.closure.cannot_follow(
                &shell.path,
                &format!("reads commands from a mount that could not be read: {value}"),
            );
        }
        for path in paths {
            let Some(found) = self.space.resolve(&path) else {
                continue;
            };
            if !matches!(self.space.what(&found.path), Some(What::File { .. })) {
                continue;
            }
            self.keep(
                &path,
                "the script reads commands from it",
                &shell.origin.clone(),
                By::Command,
            );
            if !shell.sourced.insert(found.path.clone()) {
                continue;
            }
            if shell.sourced.len() > MAX_SOURCED {
                self.closure
                    .cannot_follow(&shell.path, "reads commands from too many files");
                return;
            }
            self.suspect_writable(&found.path);
            match self.space.bytes(&found.path, MAX_SCRIPT) {
                Some(bytes) => self.add_text(shell, &String::from_utf8_lossy(&bytes)),
                None => self
                    .closure
                    .cannot_follow(&found.path, "is a script that cannot be read, or is too large"),
            }
        }
    }

    fn evaluate(&mut self, shell: &mut Shell, words: &[Word]) {
        shell.evaluated += 1;
        if shell.evaluated > MAX_SOURCED {
            self.closure.cannot_follow(&shell.path, "evaluates too many texts");
            return;
        }
        let mut texts = vec![String::new()];
        for word in words {
            for text in &mut texts {
                text.push(' ');
            }
            for part in &word.parts {
                let values = shell.part(part, 0);
                let known: Vec<String> = values.known.into_iter().chain(values.holed).collect();
                if known.len() * texts.len() > MAX_ARGUMENTS || known.is_empty() {
                    texts.iter_mut().for_each(|text| text.push(HOLE));
                    continue;
                }
                if !self.budget.spend(texts.iter().map(|text| text.len() as u64).sum()) {
                    return;
                }
                texts = texts
                    .iter()
                    .flat_map(|text| known.iter().map(move |value| format!("{text}{value}")))
                    .collect();
            }
        }
        for text in texts {
            if text.len() >= MAX_VALUE {
                self.closure
                    .cannot_follow(&shell.path, "evaluates a text that is too long");
            } else if !text.trim().is_empty() && text.trim() != "-" {
                self.add_text(shell, text.trim());
            }
        }
    }

    fn follow_command(&mut self, shell: &mut Shell, at: usize) {
        let Some(command) = shell.commands.get(at).cloned() else {
            return;
        };
        let origin = shell.origin.clone();
        let cwd = shell.cwd.clone();
        if command.words.len() > MAX_WORDS {
            self.closure
                .cannot_follow(&shell.path, "has a command of too many words");
        }
        let argv = shell.argv(&command.words);
        let argv = self.follow_argv(shell, argv, command.has_input);
        // `exec "$@"` after `set -- command`, and `"$@"` in a function that is called with a command.
        let place = command.words.iter().take(MAX_WORDS).position(is_arguments);
        for words in place.map(|_| shell.arguments.clone()).into_iter().flatten() {
            let (before, behind) = command.words.split_at(place.unwrap_or_default());
            let words = [before, &words, behind.get(1..).unwrap_or_default()].concat();
            if !self.budget.spend(STEP / 8 + words.len() as u64) {
                return;
            }
            let mut argv = shell.argv(&words);
            // That it can be something else says the call itself.
            if let Some((values, _)) = argv.get_mut(before.len()) {
                values.holed.clear();
            }
            self.follow_argv(shell, argv, command.has_input);
        }
        for (values, _) in argv.iter().skip(1) {
            for value in &values.known {
                if value.starts_with('/') || command.is_written && value.contains('/') {
                    self.argument(value, "the script names it", &origin, &cwd);
                }
            }
        }
    }

    /// Follows the command that a line begins with.
    fn follow_argv(
        &mut self,
        shell: &mut Shell,
        mut argv: Vec<(Values, String)>,
        has_input: bool,
    ) -> Vec<(Values, String)> {
        // A word that is nothing leaves its place to the next one: `$SUDO command`.
        let mut first = 0;
        while first < argv.len() {
            self.find_command(shell, &mut argv, first);
            self.follow_name(shell, &mut argv, first, has_input);
            let may_be_nothing = |(values, _): &(Values, String)| values.known.iter().any(String::is_empty);
            if !argv.get(first).is_some_and(may_be_nothing) {
                break;
            }
            first += 1;
        }
        argv
    }

    /// Puts the commands that a word with holes can name in its place.
    fn find_command(&mut self, shell: &Shell, argv: &mut [(Values, String)], at: usize) {
        let Some((values, described)) = argv.get_mut(at) else {
            return;
        };
        if !values.has_more() {
            return;
        }
        // `cmd_$name`, where the script has functions of such names.
        values.holed.retain(|text| {
            let stem = text
                .strip_suffix(HOLE)
                .filter(|stem| !stem.is_empty() && !stem.contains(HOLE));
            !stem.is_some_and(|stem| shell.functions.iter().any(|name| name.starts_with(stem)))
        });
        match self.fill(values, true, true) {
            Some(found) => found.into_iter().for_each(|path| values.add(path)),
            None => {
                let why = if described.contains(HOLE) {
                    "evaluates a text whose command is made when it runs".to_owned()
                } else {
                    format!("runs a command that is named when it runs: {}", printable(described))
                };
                self.closure.cannot_follow(&shell.path, &why);
            }
        }
        values.holed.clear();
    }

    /// The files of the image that texts with holes can name: of one with an unknown directory every one with that name,
    /// of one with an unknown name all in that directory. `None` where a text says too little, or where something is
    /// mounted that is not known and may hold the file.
    fn fill(&self, values: &Values, is_path: bool, is_started: bool) -> Option<Vec<String>> {
        let mut found = Vec::new();
        for text in &values.holed {
            let is_unknown = |mount: &Mounted| mount.programs && matches!(mount.content, Content::Unknown);
            if !is_path || self.roots.mounts.iter().any(is_unknown) {
                return None;
            }
            let (_, behind) = text.rsplit_once(HOLE)?;
            let (before, _) = text.split_once(HOLE)?;
            let paths: Vec<String> = match (before.rsplit_once('/'), behind.rsplit_once('/')) {
                (_, Some((_, name))) if !name.is_empty() => self.space.named(name),
                (Some((directory, start)), None) if directory.starts_with('/') && behind.is_empty() => {
                    let directory = self.space.resolve(directory)?.path;
                    let wanted = join(&directory, start);
                    let children = self.space.children(&directory);
                    children.into_iter().filter(|path| path.starts_with(&wanted)).collect()
                }
                _ => return None,
            };
            let is_file = |path: &String| {
                let end = self.space.resolve(path);
                end.is_some_and(|end| matches!(self.space.what(&end.path), Some(What::File { .. })))
            };
            found.extend(paths.into_iter().filter(|path| {
                if is_started {
                    self.command(path, "/").is_some()
                } else {
                    is_file(path)
                }
            }));
            if found.len() > MAX_VALUES || !self.budget.spend(self.space.size) {
                return None;
            }
        }
        // A text that no file of the image fits names none; where none fits any, it is not understood.
        (values.holed.is_empty() || !found.is_empty()).then_some(found)
    }

    fn follow_name(&mut self, shell: &mut Shell, argv: &mut [(Values, String)], first: usize, has_input: bool) {
        let Some((values, _)) = argv.get(first).cloned() else {
            return;
        };
        let origin = shell.origin.clone();
        let mut started: Vec<String> = Vec::new();
        for name in &values.known {
            if name.is_empty() || shell.functions.contains(name) {
                continue;
            }
            match name.as_str() {
                "exec" | "builtin" | "time" | "command" | "coproc" => {
                    let skipped = argv
                        .iter()
                        .skip(first + 1)
                        .take_while(|(values, _)| values.known.iter().any(|text| text.starts_with('-')))
                        .count();
                    self.find_command(shell, argv, first + 1 + skipped);
                    let rest = argv.get(first + 1 + skipped..).unwrap_or_default();
                    self.start(
                        rest,
                        "the script runs it",
                        &origin,
                        &shell.cwd.clone(),
                        has_input,
                        &shell.path.clone(),
                    );
                }
                "type" | "hash" | "which" => {
                    for value in argv.iter().skip(first + 1).flat_map(|(values, _)| &values.known) {
                        if let Some(path) = self.command(value, "/") {
                            self.keep(&path, "the script asks for it", &origin, By::Command);
                        }
                    }
                    started.push(name.clone());
                }
                "run-parts" => {
                    let rest = argv.iter().skip(first + 1);
                    for directory in rest
                        .flat_map(|(values, _)| &values.known)
                        .filter(|text| text.starts_with('/'))
                    {
                        for path in self.space.children(directory) {
                            if self.command(&path, "/").is_some() {
                                self.start(
                                    &[(Values::of(&path), path.clone())],
                                    "run-parts starts it",
                                    &origin,
                                    "/",
                                    false,
                                    &shell.path.clone(),
                                );
                            }
                        }
                    }
                    started.push(name.clone());
                }
                builtin if BUILTINS.contains(&builtin) => {}
                _ if pattern::is_pattern(name) && name.contains('/') => {
                    started.extend(self.space.expand_within(name, &self.budget));
                }
                _ => started.push(name.clone()),
            }
        }
        for name in started {
            if self.is_unknown(&name) && name.starts_with('/') {
                self.closure.cannot_follow(
                    &shell.path,
                    &format!("runs a program in a mount that could not be read: {name}"),
                );
            }
            let mut line = vec![(Values::of(&name), name.clone())];
            line.extend(argv.iter().skip(first + 1).cloned());
            self.start(
                &line,
                "the script runs it",
                &origin,
                &shell.cwd.clone(),
                has_input,
                &shell.path.clone(),
            );
        }
    }

    /// Searches the sources of a language among these files for the programs that they start.
    pub(super) fn search_sources(&mut self, language: &Language, paths: &[String]) {
        let (mut read, mut archives) = (0, 0);
        for path in paths {
            let Some(found) = self.space.resolve(path) else {
                continue;
            };
            let wanted = language.sources.iter().any(|wanted| pattern::path(wanted, path)) || paths.len() == 1;
            let own = language.library.iter().any(|wanted| pattern::path(wanted, &found.path))
                && !path.contains("-packages/");
            if !wanted
                || own
                || !self
                    .scripts
                    .insert((found.path.clone(), Some(vec![language.name.clone()])))
            {
                continue;
            }
            let is_archive = found.path.ends_with(".jar") || found.path.ends_with(".war");
            let limit = if is_archive {
                MAX_ARCHIVES.saturating_sub(archives)
            } else {
                MAX_SOURCE
            };
            let Some(bytes) = self.space.bytes(&found.path, limit) else {
                if is_archive {
                    self.closure.note(format!(
                        "{path} is not searched for programs that it starts: it is too large"
                    ));
                }
                continue;
            };
            if is_archive {
                archives += bytes.len() as u64;
            }
            read += bytes.len() as u64;
            if read > MAX_SOURCES {
                self.closure
                    .cannot_follow(path, "is one source too many to search for the programs that it starts");
                return;
            }
            let (texts, is_whole) = classes::texts(&bytes);
            if !is_whole {
                self.closure.note(format!(
                    "{path} is not searched whole for programs that it starts: it is damaged or too large"
                ));
            }
            for text in texts {
                self.search_text(language, &text, &Origin::Path(found.path.clone()));
            }
        }
    }

    /// Files a module under the name by which it is imported. What no package owns and nobody imports by such a name
    /// is the application, and is searched at once.
    pub(super) fn note_module(&mut self, language: &Language, path: String) {
        let is_one_of = |wanted: &[String]| wanted.iter().any(|wanted| pattern::path(wanted, &path));
        if !is_one_of(&language.sources) || is_one_of(&language.tests) && self.inventory.owner(&path).is_some() {
            return;
        }
        let inside = MODULES
            .iter()
            .filter_map(|mark| path.rfind(mark).map(|at| at + mark.len()))
            .max();
        match inside {
            Some(at) => {
                let rest = path
                    .get(at..)
                    .unwrap_or("")
                    .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '/');
                let name = rest.split(['/', '.']).next().unwrap_or("").to_owned();
                self.modules
                    .entry((language.name.clone(), name))
                    .or_default()
                    .push(path);
            }
            None if self.inventory.owner(&path).is_none() => self.search_sources(language, &[path]),
            None => {}
        }
    }

    /// Searches the modules that were imported so far, and those that they import.
    pub(super) fn search_imports(&mut self, language: &Language) {
        if self.is_everything {
            return;
        }
        loop {
            let next: Vec<(String, String)> = self
                .imported
                .iter()
                .filter(|key| key.0 == language.name && self.modules.contains_key(key))
                .cloned()
                .collect();
            if next.is_empty() {
                return;
            }
            for key in next {
                let paths = self.modules.remove(&key).unwrap_or_default();
                for path in paths {
                    self.search_sources(language, &[path]);
                }
            }
        }
    }

    fn import(&mut self, language: &Language, text: &str) {
        for line in text.lines() {
            let line = line.trim_start();
            for word in ["import ", "from ", "use ", "require "] {
                if let Some(rest) = line.strip_prefix(word) {
                    for name in rest.split(',').take(64) {
                        self.import_name(language, name);
                    }
                }
            }
            for (at, _) in line.match_indices("require") {
                self.import_name(language, line.get(at + "require".len()..).unwrap_or(""));
            }
            for (at, _) in line.match_indices(" from ") {
                self.import_name(language, line.get(at + " from ".len()..).unwrap_or(""));
            }
        }
    }

    fn import_name(&mut self, language: &Language, text: &str) {
        let text = text.trim_start_matches([' ', '(', '"', '\'', '.', '/']);
        let end = text
            .find(|c: char| !c.is_alphanumeric() && !"_-@".contains(c))
            .unwrap_or(text.len());
        if let Some(name) = text.get(..end).filter(|name| !name.is_empty()) {
            self.imported.insert((language.name.clone(), name.to_owned()));
        }
    }

    /// Texts of the application's own source that are a command, or a command line: it starts programs, and a variable or
    /// a list leads from the text to the call.
    fn search_literals(&mut self, text: &str, origin: &Origin) {
        let rule = "a text of the application is its name, and it starts programs";
        for (at, quote) in text.match_indices(['"', '\'', '`']) {
            let Some(rest) = text.get(at + 1..) else { continue };
            let end = rest
                .bytes()
                .take(64)
                .position(|byte| !(byte.is_ascii_alphanumeric() || b"._+-[".contains(&byte)))
                .unwrap_or(0);
            let name = rest.get(..end).unwrap_or("");
            let ends = rest
                .get(end..)
                .is_some_and(|rest| rest.starts_with(' ') || rest.starts_with(quote));
            if name.len() > 1
                && ends
                && let Some(path) = self.command(name, "/")
            {
                self.keep(&path, rule, origin, By::Rule);
            }
            // `sh -c` as a list of arguments has the commands in a text of their own.
            let length = rest
                .bytes()
                .take(MAX_LINE)
                .position(|byte| Some(&byte) == quote.as_bytes().first());
            if let Some(line) = length
                .and_then(|length| rest.get(..length))
                .filter(|line| line.contains(' '))
            {
                self.search_command_text(line, false, rule, origin, 0);
            }
        }
    }

    fn search_text(&mut self, language: &Language, text: &str, origin: &Origin) {
        if self.is_everything {
            return;
        }
        self.import(language, text);
        let (Origin::Path(what) | Origin::Root(what)) = origin;
        let is_reviewed = || language.reviewed.iter().any(|known| pattern::path(known, what));
        if let Some(mark) = language.numbers.iter().find(|mark| text.contains(mark.as_str()))
            && !is_reviewed()
        {
            self.closure.cannot_see(format!(
                "{} has `{mark}`: it makes system calls by number, or by names that lie in no ELF file",
                printable(what)
            ));
        }
        if let Some(mark) = language.shell.iter().find(|mark| text.contains(mark.as_str())) {
            let rule = format!("the source has `{}`, which starts the shell", mark.trim());
            self.keep("/bin/sh", &rule, origin, By::Rule);
        }
        let mut calls = false;
        for call in &language.calls {
            for (at, _) in text.match_indices(call.as_str()) {
                let before = text.get(..at).and_then(|head| head.chars().next_back());
                let is_word = call.starts_with(|c: char| c.is_alphanumeric() || c == '_');
                if is_word && before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                    continue;
                }
                let Some(rest) = text.get(at + call.len()..) else {
                    continue;
                };
                calls = true;
                let is_bare = !call.ends_with(|c: char| c.is_alphanumeric() || c == '_');
                let Some(literal) = first_literal(rest).or_else(|| is_bare.then(|| bare(rest))) else {
                    continue;
                };
                let script = shell::parse(literal, 0);
                for command in &script.commands {
                    let Some(name) = command.words.first().and_then(Word::literal) else {
                        continue;
                    };
                    if let Some(path) = self.command(&name, "/") {
                        self.keep(&path, &format!("the source starts it with {call}"), origin, By::Command);
                    }
                }
            }
        }
        let is_own = match origin {
            Origin::Path(path) => self.inventory.owner(path).is_none(),
            Origin::Root(_) => true,
        };
        if calls && is_own {
            self.search_literals(text, origin);
        }
        // A path of a program is meant, whoever is called with it.
        for (at, _) in text.match_indices(['"', '\'']) {
            let Some(rest) = text.get(at + 1..).filter(|rest| rest.starts_with('/')) else {
                continue;
            };
            let end = rest
                .bytes()
                .take(256)
                .position(|byte| matches!(byte, b'"' | b'\'' | b' ' | b'\n'))
                .unwrap_or(0);
            let Some(path) = rest.get(..end).filter(|path| path.len() > 1) else {
                continue;
            };
            if self.command(path, "/").is_some() {
                self.keep(path, "the source names the program", origin, By::Command);
            }
        }
    }
}

/// Whether a word is all of the arguments, or one of them.
fn is_arguments(word: &Word) -> bool {
    matches!(word.parts.as_slice(), [Part::Variable { name, operator, .. }] if name == "@" && operator.is_empty())
}

/// What stands behind a call without quotes, to the end of the line or to the sign that ends it.
fn bare(rest: &str) -> &str {
    let end = rest
        .bytes()
        .take(MAX_LINE)
        .position(|byte| matches!(byte, b'\n' | b'"' | b'\'' | b'`' | b'}' | b')' | b']' | b'/' | b'!'))
        .unwrap_or(0);
    rest.get(..end).unwrap_or("")
}

/// The text in quotes with which the arguments of a call begin.
fn first_literal(rest: &str) -> Option<&str> {
    let rest = rest.trim_start_matches([' ', '\t', '\n', '(', '[']);
    let rest = rest.strip_prefix(['f', 'r', 'b']).unwrap_or(rest);
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\'' | '`' | '{'))?;
    let end = if quote == '{' { '}' } else { quote };
    let inner = rest.get(1..)?;
    let length = inner
        .bytes()
        .take(4096)
        .position(|byte| byte == u8::try_from(end).unwrap_or(b'"'))?;
    inner.get(..length)
}
