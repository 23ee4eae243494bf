//! Conditions on predicates, in CEL: <https://github.com/google/cel-spec/blob/master/doc/langdef.md>.
//!
//! A condition sees two variables, `predicate` and `predicate_type`, and the standard functions, among which nothing
//! knows what time it is. `matches` is a full match in linear time. An evaluation has a budget of steps: every walk over
//! a list or map is charged with its length before it starts, and everything else costs at most the length of the
//! expression times the size of the predicate. Whatever goes wrong, a missing field first of all, is an error, and an
//! error is no.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo};
use cel::common::types::{CelBool, CelString, DYN_TYPE, STRING_TYPE};
use cel::common::value::CowVal;
use cel::{Context, Env, ExecutionError, Value};
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::Family;
use crate::oci::{json, shorten};

/// Longest expression in bytes.
pub const MAX_CEL: usize = 4096;
/// Most elements that one evaluation may walk over.
pub const MAX_STEPS: u64 = 1_000_000;
/// Largest predicate that conditions are evaluated on, in bytes.
pub const MAX_PREDICATE: usize = 16 << 20;
/// Largest compiled pattern of a `matches`, in bytes.
const MAX_PATTERN: usize = 1 << 20;
/// Compiled patterns that are kept during an evaluation.
const MAX_PATTERNS: usize = 64;

/// Stands around every range of a macro and charges its length.
const CHARGE: &str = "@charge";
const VARIABLES: [&str; 2] = ["predicate", "predicate_type"];
const TYPES: [&str; 10] = [
    "bool",
    "bytes",
    "double",
    "dyn",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "uint",
];
const FUNCTIONS: [&str; 14] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "type",
    "uint",
    CHARGE,
];

/// A `where` of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// About what kind of evidence.
    pub about: Family,
    /// The expression.
    pub cel: String,
}

/// What is wrong with an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidCondition {
    /// What is wrong.
    pub message: String,
    /// Bytes of the expression.
    pub at: Range<usize>,
}

/// Why a condition has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConditionError {
    /// The expression is wrong. Activation refuses it, so that it is seen only where that was gone around.
    #[error("it is not CEL: {0}")]
    Invalid(#[from] InvalidCondition),
    /// The predicate is not acceptable JSON.
    #[error("the predicate is {0}")]
    Json(#[from] json::Error),
    /// A predicate that is too large.
    #[error("the predicate has more than {MAX_PREDICATE} bytes")]
    TooLarge,
    /// An evaluation that failed.
    #[error("{0}")]
    Evaluation(String),
    /// The budget was used up.
    #[error("it walks over more than {MAX_STEPS} elements")]
    Steps,
    /// The answer is neither true nor false.
    #[error("its value is neither true nor false")]
    NotBool,
}

/// A predicate that conditions are evaluated on.
pub struct Predicate {
    value: Value,
    predicate_type: String,
}

impl fmt::Debug for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Predicate")
            .field("predicate_type", &self.predicate_type)
            .finish_non_exhaustive()
    }
}

impl Predicate {
    /// Reads a predicate; nothing at all reads as null.
    ///
    /// # Errors
    /// JSON that is not acceptable, or too much of it.
    pub fn parse(predicate_type: &str, bytes: &[u8]) -> Result<Self, ConditionError> {
        if bytes.len() > MAX_PREDICATE {
            return Err(ConditionError::TooLarge);
        }
        let json = if bytes.is_empty() {
            serde_json::Value::Null
        } else {
            json::parse(bytes)?
        };
        Ok(Self {
            value: value(json),
            predicate_type: predicate_type.to_owned(),
        })
    }
}

impl Condition {
    /// Whether it holds.
    ///
    /// # Errors
    /// See [`ConditionError`]; each counts as no.
    pub fn holds(&self, predicate: &Predicate) -> Result<bool, ConditionError> {
        let mut expression = compile(&self.cel)?;
        charge_ranges(&mut expression);
        let mut context = Context::with_env(Arc::new(environment()));
        context.add_variable_from_value("predicate", predicate.value.clone());
        context.add_variable_from_value("predicate_type", predicate.predicate_type.clone());
        STEPS.set(MAX_STEPS);
        let answer = Value::resolve(&expression, &context);
        // An operator may have hidden the error, but not that there was one.
        if STEPS.get() == 0 {
            return Err(ConditionError::Steps);
        }
        match answer {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err(ConditionError::NotBool),
            Err(error) => Err(ConditionError::Evaluation(told(&error))),
        }
    }
}

/// Checks an expression without a predicate: that it is CEL and asks for nothing that does not exist.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(cel: &str) -> Result<(), InvalidCondition> {
    compile(cel).map(|_| ())
}

fn compile(cel: &str) -> Result<IdedExpr, InvalidCondition> {
    if cel.len() > MAX_CEL {
        return Err(InvalidCondition {
            message: format!("it is longer than {MAX_CEL} bytes"),
            at: 0..cel.len(),
        });
    }
    let program = environment().compile(cel).map_err(|errors| {
        let first = errors.errors.first();
        InvalidCondition {
            message: first.map_or_else(|| "it cannot be read".to_owned(), |error| shorten(&error.msg)),
            at: first.map_or(0..cel.len(), |error| place(cel, error.pos)),
        }
    })?;
    let expression = program.expression().clone();
    let mut scope = Scope {
        cel,
        info: program.source_info(),
        bound: Vec::new(),
    };
    scope.check(&expression)?;
    Ok(expression)
}

/// The bytes at a line and column, both from 1.
fn place(cel: &str, (line, column): (isize, isize)) -> Range<usize> {
    let line = usize::try_from(line).unwrap_or(1).max(1);
    let column = usize::try_from(column).unwrap_or(1).max(1);
    let before: usize = cel.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = cel.get(before..).unwrap_or_default();
    let within: usize = rest.chars().take(column - 1).map(char::len_utf8).sum();
    // What is missing at the end is shown at the last character.
    let last = cel.char_indices().next_back().map_or(0, |(at, _)| at);
    let start = (before + within).min(last);
    let length = cel
        .get(start..)
        .and_then(|rest| rest.chars().next())
        .map_or(0, char::len_utf8);
    start..start + length
}

/// What an expression may name.
struct Scope<'a> {
    cel: &'a str,
    info: &'a SourceInfo,
    /// Variables of the macros around.
    bound: Vec<String>,
}

impl Scope<'_> {
    fn fault(&self, at: &IdedExpr, message: String) -> InvalidCondition {
        let at = self.info.offset_for(at.id).map_or(0..self.cel.len(), |(start, stop)| {
            let byte = |position: u32| {
                let position = usize::try_from(position).unwrap_or(usize::MAX);
                self.cel
                    .char_indices()
                    .nth(position)
                    .map_or(self.cel.len(), |(at, _)| at)
            };
            byte(start)..byte(stop.saturating_add(1)).max(byte(start))
        });
        InvalidCondition { message, at }
    }

    fn check(&mut self, expression: &IdedExpr) -> Result<(), InvalidCondition> {
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => {
                let name = name.trim_start_matches('.');
                let known =
                    self.bound.iter().any(|bound| bound == name) || VARIABLES.contains(&name) || TYPES.contains(&name);
                if known {
                    Ok(())
                } else {
                    let message = format!(
                        "there is no `{}`: a condition sees `predicate` and `predicate_type`",
                        shorten(name)
                    );
                    Err(self.fault(expression, message))
                }
            }
            Expr::Select(select) => self.check(&select.operand),
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.check(element)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => self.check(&entry.key).and_then(|()| self.check(&entry.value)),
                EntryExpr::StructField(field) => self.check(&field.value),
            }),
            Expr::Struct(_) => Err(self.fault(expression, "there are no messages to build".to_owned())),
            Expr::Call(call) => {
                let is_operator = !call.func_name.starts_with(|c: char| c.is_ascii_alphabetic());
                if !is_operator && !FUNCTIONS.contains(&call.func_name.as_str()) {
                    let message = format!("there is no function `{}`", shorten(&call.func_name));
                    let fault = self.fault(expression, message);
                    // A call is where its parenthesis opens; its name stands before that.
                    let name_at = self
                        .cel
                        .get(..fault.at.start)
                        .and_then(|before| before.rfind(&call.func_name));
                    let at = name_at.map_or(fault.at, |start| start..start + call.func_name.len());
                    return Err(InvalidCondition { at, ..fault });
                }
                if let Some(target) = &call.target {
                    self.check(target)?;
                }
                call.args.iter().try_for_each(|argument| self.check(argument))?;
                match (call.func_name.as_str(), call.args.last().map(|last| (&last.expr, last))) {
                    ("matches", Some((Expr::Literal(LiteralValue::String(text)), last))) => full_match(text.inner())
                        .map(|_| ())
                        .map_err(|error| self.fault(last, error)),
                    _ => Ok(()),
                }
            }
            Expr::Comprehension(inner) => {
                self.check(&inner.iter_range)?;
                self.check(&inner.accu_init)?;
                let before = self.bound.len();
                self.bound.push(inner.iter_var.clone());
                self.bound.extend(inner.iter_var2.clone());
                self.bound.push(inner.accu_var.clone());
                for part in [&inner.loop_cond, &inner.loop_step, &inner.result] {
                    self.check(part)?;
                }
                self.bound.truncate(before);
                Ok(())
            }
        }
    }
}

/// Puts a charge around the range of every macro.
fn charge_ranges(expression: &mut IdedExpr) {
    match &mut expression.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) | Expr::Struct(_) => {}
        Expr::Select(select) => charge_ranges(&mut select.operand),
        Expr::List(list) => list.elements.iter_mut().for_each(charge_ranges),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    charge_ranges(&mut entry.key);
                    charge_ranges(&mut entry.value);
                }
            }
        }
        Expr::Call(call) => {
            if let Some(target) = &mut call.target {
                charge_ranges(target);
            }
            call.args.iter_mut().for_each(charge_ranges);
        }
        Expr::Comprehension(inner) => {
            let inner = inner.as_mut();
            for part in [
                &mut inner.iter_range,
                &mut inner.accu_init,
                &mut inner.loop_cond,
                &mut inner.loop_step,
                &mut inner.result,
            ] {
                charge_ranges(part);
            }
            let range = std::mem::take(&mut inner.iter_range);
            inner.iter_range = IdedExpr {
                id: range.id,
                expr: Expr::Call(CallExpr {
                    func_name: CHARGE.to_owned(),
                    target: None,
                    args: vec![range],
                }),
            };
        }
    }
}

/// The standard library with a `matches` of our own, and without optional values.
fn environment() -> Env {
    let mut environment = Env::stdlib().with_optional_support(false);
    // Names that the library does not have: declaring them cannot fail.
    let _ = environment.add_member_overload("matches", "matches_whole", STRING_TYPE, vec![STRING_TYPE], matches);
    let _ = environment.add_overload("matches", "matches_whole_text", vec![STRING_TYPE, STRING_TYPE], matches);
    let _ = environment.add_overload(CHARGE, "charge_range", vec![DYN_TYPE], charge);
    environment
}

thread_local! {
    /// Steps that are left of the running evaluation.
    static STEPS: Cell<u64> = const { Cell::new(0) };
    static PATTERNS: RefCell<HashMap<String, Regex>> = RefCell::new(HashMap::new());
}

fn charge<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let range = arguments.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    let size = range
        .as_ref()
        .as_sizer()
        .and_then(|sizer| u64::try_from(*sizer.size().inner()).ok())
        .unwrap_or(0);
    let left = STEPS.get().saturating_sub(size.saturating_add(1));
    STEPS.set(left);
    if left == 0 {
        return Err(ExecutionError::function_error(CHARGE, "the budget of steps is used up"));
    }
    Ok(range)
}

fn matches<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let texts: Vec<&str> = arguments
        .iter()
        .filter_map(|argument| argument.as_ref().downcast_ref::<CelString<'_>>().map(CelString::inner))
        .collect();
    let [text, pattern] = texts.as_slice() else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let holds = PATTERNS.with_borrow_mut(|patterns| {
        if let Some(known) = patterns.get(*pattern) {
            return Ok(known.is_match(text));
        }
        let compiled = full_match(pattern).map_err(|error| ExecutionError::function_error("matches", error))?;
        let holds = compiled.is_match(text);
        if patterns.len() == MAX_PATTERNS {
            patterns.clear();
        }
        patterns.insert((*pattern).to_owned(), compiled);
        Ok(holds)
    })?;
    Ok(CowVal::owned(CelBool::from(holds)))
}

/// A pattern that must match a whole text.
fn full_match(pattern: &str) -> Result<Regex, String> {
    let compile = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(MAX_PATTERN)
            .dfa_size_limit(MAX_PATTERN)
            .build()
            .map_err(|error| format!("its pattern cannot be read: {}", last_line(&error.to_string())))
    };
    // First alone: a parenthesis must not close ours.
    compile(pattern)?;
    compile(&format!(r"\A(?:{pattern})\z"))
}

fn last_line(text: &str) -> String {
    shorten(text.lines().last().unwrap_or_default().trim())
}

/// What an evaluation failed of. Values of the predicate are not repeated: they can be of any size.
fn told(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(name) => format!("the field {} is missing", shorten(name)),
        ExecutionError::NoSuchOverload(overload) => format!(
            "there is no {} of {}",
            shorten(overload.function()),
            shorten(&overload.argument_types().join(" and "))
        ),
        ExecutionError::UndeclaredReference(name) => format!("there is no {}", shorten(name)),
        ExecutionError::FunctionError { function, message } => {
            format!("{}: {}", shorten(function), shorten(message))
        }
        ExecutionError::UnexpectedType { got, want } => format!("{} where {} is needed", shorten(got), shorten(want)),
        ExecutionError::IndexOutOfBounds(_) => "an index is out of bounds".to_owned(),
        ExecutionError::ValuesNotComparable(..) => "values of two types are compared".to_owned(),
        _ => "it cannot be evaluated on this predicate".to_owned(),
    }
}

/// A JSON value. Whole numbers are `int` wherever they fit, so that they can be compared with the numbers that people
/// write.
fn value(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(flag) => Value::Bool(flag),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::UInt(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::String(Arc::new(text)),
        serde_json::Value::Array(items) => Value::List(Arc::new(items.into_iter().map(value).collect())),
        serde_json::Value::Object(entries) => {
            let entries: HashMap<String, Value> = entries.into_iter().map(|(key, item)| (key, value(item))).collect();
            entries.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PREDICATE: &str = r#"{
        "builder": {"id": "https://builder.example"},
        "materials": [{"uri": "git+https://github.com/acme/app", "n": 1}, {"uri": "pkg:docker/alpine", "n": 2}],
        "count": 3, "reproducible": true, "ratio": 0.5, "empty": [], "nothing": null
    }"#;

    fn holds(cel: &str) -> Result<bool, ConditionError> {
        let predicate = Predicate::parse("https://slsa.dev/provenance/v0.2", PREDICATE.as_bytes()).unwrap();
        let condition = Condition {
            about: Family::Provenance,
            cel: cel.to_owned(),
        };
        condition.holds(&predicate)
    }

    #[test]
    fn a_condition_is_about_the_predicate() {
        for cel in [
            "predicate.builder.id == 'https://builder.example'",
            "predicate.count == 3 && predicate.count > 2 && predicate.ratio < 1.0",
            "predicate.reproducible",
            "predicate.materials.exists(m, m.uri.startsWith('git+'))",
            "predicate.materials.all(m, m.n < 3)",
            "size(predicate.materials) == 2 && predicate.materials[1].n == 2",
            "predicate.materials.filter(m, m.n == 1).map(m, m.uri) == ['git+https://github.com/acme/app']",
            "!has(predicate.missing) && has(predicate.builder.id)",
            "'pkg:docker/alpine' in predicate.materials.map(m, m.uri)",
            "predicate_type.endsWith('/v0.2')",
            "predicate.empty == [] && predicate.nothing == null",
            "has(predicate.missing) ? predicate.missing.x : true",
        ] {
            assert_eq!(holds(cel), Ok(true), "{cel}");
        }
        for cel in ["predicate.count == 4", "false", "predicate.materials.all(m, m.n == 1)"] {
            assert_eq!(holds(cel), Ok(false), "{cel}");
        }
    }

    #[test]
    fn a_condition_tells_a_vex_document_of_another_product() {
        let condition = Condition {
            about: Family::Vex,
            cel: "predicate.statements.all(s, s.products.exists(p, p['@id'] == 'pkg:oci/web'))".to_owned(),
        };
        let of = |product: &str| {
            let document =
                format!(r#"{{"statements":[{{"status":"not_affected","products":[{{"@id":"{product}"}}]}}]}}"#);
            condition.holds(&Predicate::parse("https://openvex.dev/ns/v0.2.0", document.as_bytes()).unwrap())
        };
        assert_eq!(of("pkg:oci/web"), Ok(true));
        assert_eq!(of("pkg:oci/other"), Ok(false));
        let none = Predicate::parse("https://openvex.dev/ns/v0.2.0", b"{}").unwrap();
        assert!(condition.holds(&none).is_err());
    }

    #[test]
    fn what_cannot_be_answered_is_no() {
        let error = |cel: &str| holds(cel).unwrap_err().to_string();
        insta::assert_snapshot!(error("predicate.missing == 1"), @"the field missing is missing");
        insta::assert_snapshot!(error("predicate.builder.id.deep == 1"), @"there is no _._ of string and string");
        insta::assert_snapshot!(error("predicate.materials[7].n == 1"), @"an index is out of bounds");
        insta::assert_snapshot!(error("predicate.count"), @"its value is neither true nor false");
        insta::assert_snapshot!(error("predicate.count + 'x' == ''"), @"it cannot be evaluated on this predicate");
        insta::assert_snapshot!(error("1 / (predicate.count - 3) == 1"), @"it cannot be evaluated on this predicate");
    }

    #[test]
    fn a_pattern_matches_a_whole_text_in_linear_time() {
        for (cel, expected) in [
            ("'abc'.matches('abc')", true),
            ("'abc'.matches('b')", false),
            ("'abc'.matches('a|abc')", true),
            ("matches('abc', 'a.c')", true),
            ("'x\\nabc'.matches('(?m)^abc$')", false),
            ("'abc\\n'.matches('abc')", false),
            ("'https://evil-github.com/acme'.matches('github.com/acme')", false),
        ] {
            assert_eq!(holds(cel), Ok(expected), "{cel}");
        }
        let start = std::time::Instant::now();
        let text = "a".repeat(2000);
        assert_eq!(holds(&format!("'{text}'.matches('(a+)+b')")), Ok(false));
        assert!(start.elapsed() < std::time::Duration::from_secs(5));
        // What would close the group that makes it a full match is no pattern.
        assert!(check("'x'.matches('a)|(b')").is_err());
    }

    #[test]
    fn an_evaluation_has_a_budget() {
        let run = |length: usize, cel: &str| {
            let list = format!("[{}]", vec!["1"; length].join(","));
            let condition = Condition {
                about: Family::Sbom,
                cel: cel.to_owned(),
            };
            condition.holds(&Predicate::parse("t", list.as_bytes()).unwrap())
        };
        assert_eq!(run(300, "predicate.all(a, predicate.exists(b, b == 1))"), Ok(true));
        let start = std::time::Instant::now();
        for cel in [
            "predicate.all(a, predicate.all(b, predicate.all(c, true)))",
            "predicate.all(a, predicate.all(b, a == b))",
            "predicate.map(a, predicate.map(b, b)).size() > 0",
            "predicate.exists(a, predicate.all(b, a != b)) || true",
        ] {
            assert_eq!(run(1200, cel), Err(ConditionError::Steps), "{cel}");
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(60));
    }

    #[test]
    fn what_does_not_exist_is_found_before_anything_is_evaluated() {
        let fault = |cel: &str| {
            let fault = check(cel).unwrap_err();
            format!("{} at `{}`", fault.message, &cel[fault.at])
        };
        insta::assert_snapshot!(fault("predicate.x =="), @"Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'nu at `=`");
        insta::assert_snapshot!(fault("predicat.x == 1"), @"there is no `predicat`: a condition sees `predicate` and `predicate_type` at `predicat`");
        insta::assert_snapshot!(fault("now() < 3"), @"there is no function `now` at `now`");
        insta::assert_snapshot!(fault("predicate.x.matchs('a')"), @"there is no function `matchs` at `matchs`");
        insta::assert_snapshot!(fault("predicate.x.matches('(a')"), @"its pattern cannot be read: error: unclosed group at `'(a'`");
        insta::assert_snapshot!(fault("predicate.?x == 1"), @"unsupported syntax '.?' at `.`");
        insta::assert_snapshot!(fault("timestamp(predicate.x) < 1"), @"there is no function `timestamp` at `timestamp`");
        insta::assert_snapshot!(fault("predicate.all(m, n == 1)"), @"there is no `n`: a condition sees `predicate` and `predicate_type` at `n`");
        assert!(check(&"(".repeat(2000)).is_err());
        assert!(check(&"a".repeat(MAX_CEL + 1)).is_err());
        assert!(check("").is_err());
        for cel in [
            "predicate.a.b",
            "predicate.l.all(x, x.y == 'z')",
            "type(predicate.a) == string",
        ] {
            check(cel).unwrap_or_else(|fault| panic!("{cel}: {fault}"));
        }
    }

    #[test]
    fn a_predicate_is_read_strictly() {
        assert!(Predicate::parse("t", br#"{"a":1,"a":2}"#).is_err());
        assert!(matches!(
            Predicate::parse("t", &vec![b' '; MAX_PREDICATE + 1]),
            Err(ConditionError::TooLarge)
        ));
        let empty = Predicate::parse("t", b"").unwrap();
        let condition = Condition {
            about: Family::Vex,
            cel: "predicate.x == 1".to_owned(),
        };
        assert!(condition.holds(&empty).is_err());
    }

    proptest! {
        #[test]
        fn no_expression_panics(cel in "[a-z.()\\[\\]{}'\"&|=<>!?: 0-9]{0,40}") {
            let _ = check(&cel);
        }
    }
}
