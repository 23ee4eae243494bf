//! `assay decisions`: the decision log, a line for each decision, for each container that was judged again, and for further
//! processes in containers, and for grants.

use std::io::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::{Exit, Output, complain};
use crate::admission::again::{self, Reevaluation, Step};
use crate::admission::exec::ExecRecord;
use crate::admission::log::{self, Line};
use crate::admission::{Decision, Verdict};
use crate::config::Config;
use crate::diagnostic::printable;
use crate::grant::Record;
use crate::store::{Bookmark, StateDir};

/// How often the log is looked at for more.
const INTERVAL: Duration = Duration::from_millis(500);

/// Arguments of `assay decisions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Goes on with what is decided from now on, until it is interrupted
    #[arg(long, short)]
    follow: bool,
    /// Only refusals
    #[arg(long)]
    denied: bool,
    /// What is written: lines for people, or a JSON document on each line
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// A line of the log for programs.
#[derive(Debug, Serialize)]
struct Document<'a, T: Serialize> {
    id: &'a str,
    #[serde(flatten)]
    document: &'a T,
}

/// Writes the log, the oldest line first.
#[must_use]
pub fn run(args: &Args, config: &Config) -> Exit {
    let state = match StateDir::open(&config.state) {
        Ok(state) => state,
        Err(error) => return super::explain::unreadable(&error),
    };
    let mut at = Bookmark::default();
    loop {
        // A reader that went away ends it.
        let mut is_read = true;
        let read = log::follow(&state, &mut at, |line| {
            if is_read && (!args.denied || is_refusal(&line)) {
                is_read = writeln!(std::io::stdout(), "{}", written(&line, args.output)).is_ok();
            }
        });
        match read {
            Ok(unread) => super::explain::note(unread),
            Err(error) => return super::explain::unreadable(&error),
        }
        if !is_read || !args.follow {
            return Exit::Done;
        }
        std::thread::sleep(INTERVAL);
    }
}

fn is_refusal(line: &Line) -> bool {
    let verdict = match line {
        Line::Decision(entry) => entry.decision.verdict,
        Line::Reevaluation(_, record) => record.new.verdict,
        Line::Exec(_, record) => record.verdict,
        Line::Grant(..) => return false,
    };
    verdict == Verdict::Refuse
}

/// A line of the log.
pub(super) fn written(line: &Line, output: Output) -> String {
    match (output, line) {
        (Output::Text, Line::Decision(entry)) => decided(entry.id(), &entry.decision),
        (Output::Text, Line::Reevaluation(id, record)) => again(id, record),
        (Output::Text, Line::Exec(id, record)) => executed(id, record),
        (Output::Text, Line::Grant(id, record)) => granted(id, record),
        (Output::Json, Line::Decision(entry)) => json(entry.id(), &entry.decision),
        (Output::Json, Line::Reevaluation(id, record)) => json(id, &**record),
        (Output::Json, Line::Exec(id, record)) => json(id, &**record),
        (Output::Json, Line::Grant(id, record)) => json(id, &**record),
    }
}

fn json(id: &str, document: &impl Serialize) -> String {
    crate::diagnostic::json_line(&Document { id, document }).unwrap_or_else(|error| {
        complain(format_args!("error: decision {id} cannot be written as JSON: {error}"));
        String::new()
    })
}

/// A decision on one line.
pub(super) fn decided(id: &str, decision: &Decision) -> String {
    let Decision {
        time,
        verdict,
        code,
        namespace,
        container,
        name,
        ..
    } = decision;
    row(id, time, *verdict, code, (namespace, container), name)
}

fn again(id: &str, record: &Reevaluation) -> String {
    let action = record.action.as_str();
    let at = record
        .at
        .as_ref()
        .map_or_else(String::new, |at| format!(", {action} at {at}"));
    let cause: Vec<&str> = record.cause.iter().map(|cause| cause.as_str()).collect();
    let more = match record.step {
        Step::Changed => format!("while it runs, by {}{at}", cause.join(" and ")),
        Step::Announced => format!("while it runs{at}"),
        Step::Done => format!("{action} done: {}", record.note),
        Step::Failed => format!("{action} failed: {}", record.note),
        Step::Dropped => format!("{action} not done: {}", record.note),
        Step::NotJudged => format!("not judged: {}", record.note),
    };
    let place = (record.namespace.as_str(), record.container.as_str());
    let code = if record.step == Step::NotJudged {
        ""
    } else {
        &record.new.code
    };
    let row = row(id, &record.time, record.new.verdict, code, place, &record.name);
    format!("{row}  {}", printable(&more))
}

fn executed(id: &str, record: &ExecRecord) -> String {
    let place = (record.namespace.as_str(), record.container.as_str());
    let row = row(id, &record.time, record.verdict, &record.code, place, &record.name);
    let terminal = if record.terminal { " with a terminal" } else { "" };
    let times = match record.times {
        0 | 1 => String::new(),
        times => format!(", {times} times"),
    };
    let unrecorded = match record.unrecorded {
        0 => String::new(),
        others => format!(", and {others} others that were not recorded"),
    };
    let more = format!(
        "exec by user {}{terminal}{times}{unrecorded}: {}",
        record.user, record.command
    );
    format!("{row}  {}", printable(&more))
}

fn granted(id: &str, record: &Record) -> String {
    let time = record.time.get(..19).unwrap_or(&record.time);
    printable(&format!("{id}  {time}Z  {record}")).into_owned()
}

fn row(id: &str, time: &str, verdict: Verdict, code: &str, place: (&str, &str), name: &str) -> String {
    let time = time.get(..19).unwrap_or(time);
    let verdict = again::word(verdict);
    let place = format!("{}/{}", place.0, place.1);
    let row = format!("{id}  {time}Z  {verdict:<7}  {code:<20}  {place}  {name}");
    printable(&row).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::again::{Cause, Said};
    use crate::admission::{Request, reject};
    use crate::policy::Action;

    #[test]
    fn each_line_of_the_log_is_one_line() {
        let decision = Decision {
            time: "2026-11-22T05:16:20.327630335Z".to_owned(),
            namespace: "k8s.io".to_owned(),
            container: "3f2a".to_owned(),
            name: "example.com/app:1\n".to_owned(),
            ..reject(&Request::parse(b"{").unwrap_err())
        };
        let said = Said {
            code: "key-distrusted".to_owned(),
            ..Said::from(&decision)
        };
        let record = |step, note: &str| Reevaluation {
            time: decision.time.clone(),
            note: note.to_owned(),
            ..Reevaluation::new(&decision, step, said.clone(), said.clone(), Action::Stop)
        };
        let changed = Reevaluation {
            cause: vec![Cause::Policy, Cause::Trust],
            at: Some("2026-11-22T05:16:50Z".to_owned()),
            ..record(Step::Changed, "")
        };
        let lines = [
            decided("0123456789ab", &decision),
            again("1", &changed),
            again("2", &record(Step::Done, "its first process was sent signal 15")),
            again("3", &record(Step::NotJudged, "parser-timeout: too slow")),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        0123456789ab  2026-11-22T05:16:20Z  refused  request-invalid       k8s.io/3f2a  example.com/app:1\u{a}
        1  2026-11-22T05:16:20Z  refused  key-distrusted        k8s.io/3f2a  example.com/app:1\u{a}  while it runs, by policy and trust, stop at 2026-11-22T05:16:50Z
        2  2026-11-22T05:16:20Z  refused  key-distrusted        k8s.io/3f2a  example.com/app:1\u{a}  stop done: its first process was sent signal 15
        3  2026-11-22T05:16:20Z  refused                        k8s.io/3f2a  example.com/app:1\u{a}  not judged: parser-timeout: too slow
        ");
    }
}
