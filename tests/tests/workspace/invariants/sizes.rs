//! Sizes of files and of functions.

use super::{
    code::{Code, Part, item_ends, lines_of_test_modules},
    lexer::Token,
    tree::{File, none, sources},
};

/// A file that is longer may hold more than one thing: the test prints it.
const LONG_FILE: usize = 350;
/// A file that is longer is two.
const LONGEST_FILE: usize = 600;
/// A function that is longer does more than one thing. Comments and blank lines do not count.
const LONGEST_FUNCTION: usize = 60;

/// Functions that are one flat list, which no split makes easier to read: where, which and what.
const FLAT: [(&str, &str, &str); 14] = [
    (
        "outbox-dashboard/src/api/mod.rs",
        "questions",
        "the questions of the JSON API, an entry for each",
    ),
    (
        "outbox-dashboard/src/api/mod.rs",
        "acts_on_letters",
        "the acts of the JSON API on letters, an entry for each",
    ),
    (
        "outbox-dashboard/src/api/schemas.rs",
        "questions",
        "the schemas of the answers, one after the other",
    ),
    (
        "outbox-dashboard/src/api/schemas.rs",
        "listed",
        "the schemas of what is listed, one after the other",
    ),
    ("outbox-dashboard/src/api/schemas.rs", "acts", "the schemas of the acts, one after the other"),
    (
        "outbox-core/src/saga/state.rs",
        "after",
        "the transitions of a saga: one match with an arm for each state and record",
    ),
    (
        "outbox-core/src/saga/tests/mod.rs",
        "every_state_with_every_record",
        "the table of all transitions, a row for each state",
    ),
    (
        "outbox-core/src/saga/tests/remote.rs",
        "the_effect_of_a_reply",
        "a table, a row for each case",
    ),
    (
        "outbox-core/src/consumer/instance/isolation.rs",
        "a_consumer_isolates_crashes_from_a_death_until_as_many_as_were_in_flight_have_settled",
        "a table, a row for each sequence of events",
    ),
    (
        "outbox-core/src/saga/definition/fault.rs",
        "faults",
        "the checks of a definition, one after another",
    ),
    (
        "outbox-macros/src/transactional/expand.rs",
        "wrap",
        "the code that the macro emits around a body, in the order in which it runs",
    ),
    (
        "outbox-sea-orm/tests/store/entities.rs",
        "every_table_can_be_read_by_its_entity",
        "a row for each table, and a read of it",
    ),
    (
        "transports/outbox-amqp/tests/amqp/strange.rs",
        "strangers",
        "a list of messages that are not ours",
    ),
    ("examples/shop/src/story/figures.rs", "fmt", "the lines of a report, one after another"),
];

/// Functions that were longer when the rule came, with their lines: none of them may grow. A file is
/// named by the end of its path.
const LONG: [(&str, &str, usize); 23] = [
    (
        "outbox-dashboard/tests/browser/strangers.rs",
        "no_text_of_a_stranger_runs_or_turns_the_page_around",
        64,
    ),
    ("outbox-dashboard/src/act/plans.rs", "draw", 61),
    ("outbox-dashboard/src/page/letter.rs", "page", 95),
    ("outbox-dashboard/src/page/overview.rs", "standing", 64),
    ("outbox-dashboard/src/page/routes.rs", "part", 79),
    ("benches/src/stages/sagas.rs", "one_step", 66),
    ("outbox-core/src/consumer/builder.rs", "start", 92),
    ("outbox-core/src/consumer/retrier/mod.rs", "run", 64),
    ("work/ack_modes.rs", "manual", 67),
    ("work/mod.rs", "handle", 95),
    ("work/run.rs", "run", 74),
    ("work/stored.rs", "run_stored", 77),
    ("outbox-core/src/relay/board/tests/mod.rs", "with_memory", 64),
    ("outbox-core/src/relay/dispatcher.rs", "run", 73),
    ("outbox-core/src/relay/incarnation.rs", "start", 114),
    ("outbox-core/src/saga/coordinator/attempt.rs", "attempt", 77),
    ("outbox-core/src/saga/reply.rs", "after_reply", 73),
    (
        "outbox-core/src/testing/store/inbox.rs",
        "a_command_is_noted_once_and_what_is_known_of_it_is_given",
        65,
    ),
    ("outbox-macros/src/handler/model.rs", "check", 67),
    ("outbox-macros/src/saga/model.rs", "step", 64),
    (
        "tests/tests/story/trial/mod.rs",
        "two_services_written_from_the_readme_alone_do_their_work",
        61,
    ),
    (
        "transports/outbox-http/tests/http/attributes.rs",
        "a_recorded_request_is_refused_with_any_attribute_changed_taken_away_added_or_repeated",
        63,
    ),
    (
        "transports/outbox-kafka/src/offsets/tests.rs",
        "order_holds_and_no_position_passes_a_record_that_is_not_done",
        65,
    ),
];

#[test]
fn no_file_is_longer_than_600_lines_without_its_tests() {
    let lines = |file: &File| file.text.lines().count() - lines_of_test_modules(&file.text);
    let told = |file: &File| format!("{}: {} lines", file.path, lines(file));
    let longer = |limit| sources().filter(move |file| lines(file) > limit);
    let long: Vec<String> = longer(LONG_FILE).map(told).collect();
    println!("files of more than {LONG_FILE} lines: {}\n  {}", long.len(), long.join("\n  "));
    none("too long: split it where an owner ends", longer(LONGEST_FILE).map(told).collect());
}

/// A function with a body, and its lines without comments and blank ones.
#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// Lists the functions of a piece of code, also those inside others.
fn functions(code: &Code) -> Vec<Function> {
    let all = code.tokens();
    let is_name = |token: &Token| token.text.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let begun = (0..all.len().saturating_sub(1))
        .filter(|at| all[*at].text == "fn" && is_name(&all[at + 1]));
    let read = |at: usize| {
        let body = &all[at..item_ends(all, at)];
        let has_body = body.last().is_some_and(|token| token.text == "}");
        let (name, line) = (all[at + 1].text.clone(), all[at].line);
        has_body.then(|| Function { name, line, lines: lines_of(body) })
    };
    begun.filter_map(read).collect()
}

/// Counts the lines on which tokens stand.
fn lines_of(tokens: &[Token]) -> usize {
    let (mut lines, mut counted) = (0, 0);
    for token in tokens {
        let last = token.line + token.text.matches('\n').count();
        lines += (last + 1).saturating_sub(token.line.max(counted + 1));
        counted = counted.max(last);
    }
    lines
}

#[test]
fn no_function_is_longer_than_60_lines() {
    let of_file = |file: &'static File| {
        functions(&file.code(Part::Whole)).into_iter().map(move |function| (file, function))
    };
    let all: Vec<(&File, Function)> = sources().flat_map(of_file).collect();
    assert!(all.len() > 1_000, "the functions were found: {}", all.len());
    let long: Vec<&(&File, Function)> =
        all.iter().filter(|(_, function)| function.lines > LONGEST_FUNCTION).collect();
    let is = |(file, function): &(&File, Function), path: &str, name: &str| {
        file.path.ends_with(path) && function.name == name
    };
    let may = |found: &(&File, Function)| {
        FLAT.iter().any(|(path, name, _)| is(found, path, name))
            || LONG
                .iter()
                .any(|(path, name, lines)| is(found, path, name) && found.1.lines <= *lines)
    };
    let wrong = long.iter().filter(|found| !may(found)).map(|(file, function)| {
        let Function { name, line, lines } = function;
        format!("{}:{line}: `{name}` has {lines} lines", file.path)
    });
    none(
        "too long: split it; one flat list may be an exception, with its reason, in \
         tests/tests/workspace/invariants/sizes.rs",
        wrong.collect(),
    );

    let listed = FLAT.iter().map(|(path, name, _)| (path, name));
    let listed = listed.chain(LONG.iter().map(|(path, name, _)| (path, name)));
    let unused = listed.filter(|(path, name)| !long.iter().any(|found| is(found, path, name)));
    none(
        "an exception that no function needs any more: delete it",
        unused.map(|(path, name)| format!("{path}: {name}")).collect(),
    );
}

#[cfg(test)]
mod tests {
    use super::{Function, functions};
    use crate::invariants::code::{Code, Part, lines_of_test_modules};

    const SAMPLE: &str = r##"
trait A { fn declared(&self) -> [u8; 3]; }
/// Text.
fn a(x: fn(u8) -> u8) -> [u8; 3] {
    // Text.

    b("one
two");
    fn inner() {}
}
macro_rules! m { ($name:ident) => { fn $name() {} } }
#[cfg(test)]
mod tests {
    fn c() {}
}
#[cfg(test)]
mod more;
"##;

    #[test]
    fn a_function_counts_its_lines_of_code_alone() {
        let found = functions(&Code::read(SAMPLE, Part::Whole));
        let function = |name: &str, line, lines| Function { name: name.to_owned(), line, lines };
        assert_eq!(found, [function("a", 4, 5), function("inner", 9, 1), function("c", 14, 1)]);
    }

    #[test]
    fn a_file_does_not_count_its_tests() {
        assert_eq!(lines_of_test_modules(SAMPLE), 6);
        assert_eq!(lines_of_test_modules("#[test]\nfn a() {}\n"), 0);
    }
}
