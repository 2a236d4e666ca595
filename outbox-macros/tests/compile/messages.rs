//! What the compiler said, without what differs between machines, versions of libraries, and edits of other files.
//!
//! # Source
//! The rules of [trybuild](https://docs.rs/trybuild), which recorded the first of these messages: a record of either is one of
//! the other.

use serde::Deserialize;
use std::path::Path;

/// A line of the compiler's output in JSON.
#[derive(Deserialize)]
struct Diagnostic {
    rendered: Option<String>,
    level: String,
}

/// Where a message may point.
struct Places {
    /// The case, from its package on.
    source: String,
    package: String,
    workspace: String,
}

/// Gives what was said of a case, one message behind the other.
pub(crate) fn of(stderr: &[u8], source: &Path, package: &Path, workspace: &Path) -> String {
    let folder = |path: &Path| format!("{}/", path.to_string_lossy().replace('\\', "/"));
    let places = Places {
        source: source.strip_prefix(package).unwrap_or(source).to_string_lossy().replace('\\', "/"),
        package: folder(package),
        workspace: folder(workspace),
    };
    let mut said: Vec<String> = Vec::new();
    let mut seen = Vec::new();
    for line in String::from_utf8_lossy(stderr).lines() {
        let rendered = match serde_json::from_str::<Diagnostic>(line) {
            Ok(diagnostic) if diagnostic.level == "failure-note" => None,
            Ok(diagnostic) => diagnostic.rendered,
            // The compiler's own failure is told as it is.
            Err(_) => Some(line.to_owned()),
        };
        let message =
            rendered.map(|rendered| unindented(&filtered(&rendered, &places))).unwrap_or_default();
        if !message.is_empty() && !seen.contains(&line.to_owned()) {
            seen.push(line.to_owned());
            said.push(message);
        }
    }
    said.join("\n")
}

/// Leaves lines out, and replaces what differs in the others.
fn filtered(rendered: &str, places: &Places) -> String {
    let lines: Vec<&str> = rendered.lines().collect();
    let mut text = String::new();
    let (mut numbers_hidden, mut types_listed) = (0, None);
    for (at, line) in lines.iter().enumerate() {
        let mut line = (*line).to_owned();
        if numbers_hidden > 0 {
            numbers_hidden -= 1;
            let numbered =
                line.find(|c: char| c != ' ' && !c.is_ascii_digit()).unwrap_or(line.len());
            line.replace_range(..numbered, &" ".repeat(numbered));
        }
        if line.trim_start().starts_with("--> ") || line.trim_start().starts_with("::: ") {
            if location(&mut line, places) {
                let code = |line: &&&str| {
                    line.trim_start()
                        .starts_with(|c: char| c.is_ascii_digit() || c == '|' || c == '.')
                };
                numbers_hidden = lines[at + 1..].iter().take_while(code).count();
            }
        } else if is_noise(&line) || !shortened(&mut line, lines.get(at + 1), &mut types_listed) {
            continue;
        } else {
            line.truncate(line.trim_end().len());
            line = line.replace(&places.package, "$DIR/").replace(&places.workspace, "$WORKSPACE/");
        }
        text.push_str(&line);
        if !text.ends_with("\n\n") {
            text.push('\n');
        }
    }
    text
}

/// Makes the place of a message independent of the machine. Tells whether it is outside the case, where its lines move.
fn location(line: &mut String, places: &Places) -> bool {
    let from = line.len() - line.trim_start().len() + "--> ".len();
    let path = line.split_off(from).replace('\\', "/");
    let behind =
        |text: &str, mark: &str| text.find(mark).map(|at| text[at + mark.len()..].to_owned());
    let path = if let Some(own) = path.strip_prefix(&places.package) {
        if own.starts_with(&places.source) {
            line.push_str(own);
            return false;
        }
        own.to_owned()
    } else if let Some(own) =
        path.strip_prefix(&places.workspace).or_else(|| is_of_a_member(&path).then_some(&path))
    {
        format!("$WORKSPACE/{own}")
    } else if let Some(library) = behind(&path, "/rustlib/src/rust/library/") {
        format!("$RUST/{library}")
    } else if let Some((_, library)) =
        path.strip_prefix("/rustc/").and_then(|path| path.split_once("/library/"))
    {
        format!("$RUST/{library}")
    } else if let Some((_, library)) =
        behind(&path, "/registry/src/").as_deref().and_then(|path| path.split_once('/'))
    {
        // `serde_json-1.0.64/src/de.rs`: the version begins behind the last dash before the first dot.
        let version = library.find('.').and_then(|dot| library[..dot].rfind('-'));
        match (version, library.find('/')) {
            (Some(from), Some(to)) if from < to => {
                format!("$CARGO/{}-$VERSION{}", &library[..from], &library[to..])
            }
            _ => format!("$CARGO/{library}"),
        }
    } else {
        line.push_str(&path);
        return false;
    };
    let mut path = path.as_str();
    for _ in 0..2 {
        path = path
            .rsplit_once(':')
            .filter(|(_, number)| number.parse::<u32>().is_ok())
            .map_or(path, |(path, _)| path);
    }
    line.push_str(path);
    true
}

/// Tells whether a path is from the workspace's root on, as cargo names the files of its members.
fn is_of_a_member(path: &str) -> bool {
    !Path::new(path).has_root()
        && path.split_once('/').is_some_and(|(first, _)| !first.contains([':', '<']))
}

/// Tells lines that say nothing about the case.
fn is_noise(line: &str) -> bool {
    const STARTS: [&str; 4] = [
        "error: aborting due to ",
        "For more information about this error, try `rustc --explain",
        "For more information about an error, try `rustc --explain",
        "Some errors have detailed explanations:",
    ];
    let note = line.trim_start();
    let note = note.strip_prefix("= note: ").unwrap_or(note);
    STARTS.iter().any(|start| line.starts_with(start))
        || note.starts_with("the full type name has been written to")
        || note.starts_with("the full name for the type has been written to")
}

/// Cuts the list of types that have a trait after the eighth: it grows with every library. Tells whether the line stays.
fn shortened(line: &mut String, next: Option<&&str>, listed: &mut Option<usize>) -> bool {
    const LISTS: [&str; 2] = [
        "= help: the following types implement trait ",
        "= help: the following other types implement trait ",
    ];
    let indent = |line: &str| line.len() - line.trim_start().len();
    let (trimmed, own) = (line.trim_start().to_owned(), indent(line));
    let count = trimmed.strip_prefix("and ").and_then(|rest| rest.strip_suffix(" others"));
    if count.is_some_and(|count| !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit())) {
        line.replace_range(own.., "and $N others");
    }
    if LISTS.iter().any(|list| trimmed.starts_with(list)) {
        *listed = Some(0);
        return true;
    }
    match listed {
        Some(count) if own >= 12 && line.trim_start() != "and $N others" => {
            *count += 1;
            if *count == 9 && next.is_some_and(|next| indent(next) == own) {
                line.replace_range(own - 2.., "and $N others");
            }
            *count <= 9
        }
        _ => {
            *listed = None;
            true
        }
    }
}

/// What a line of a message is.
enum Line {
    /// `error: ..`
    Heading,
    /// A line of code or a note, behind so many spaces that may be cut.
    Code(usize),
    /// `note:`, `help:` or `...` at the margin, or what goes on under it.
    Margin,
    Other(usize),
}

/// Takes away the indent that depends on how long the longest line number is.
fn unindented(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        out.push(lines[at].to_owned());
        let is_heading = matches!(kind(lines[at], true, &mut false), Line::Heading);
        at += 1;
        let Some(first) = lines.get(at).filter(|_| is_heading) else { continue };
        let Line::Code(indent) = kind(first, false, &mut false) else { continue };
        if !first[indent + 1..].starts_with("--> ") {
            continue;
        }
        let (mut least, mut end, mut under_a_note) = (indent, at + 1, false);
        for line in &lines[at + 1..] {
            match kind(line, false, &mut under_a_note) {
                Line::Heading => break,
                Line::Code(indent) => least = least.min(indent),
                Line::Other(spaces) if spaces <= 10 => break,
                Line::Margin | Line::Other(_) => {}
            }
            end += 1;
        }
        under_a_note = false;
        for line in &lines[at..end] {
            out.push(match kind(line, false, &mut under_a_note) {
                Line::Code(_) | Line::Other(_) => {
                    let space = line.find(' ').unwrap_or_default();
                    format!("{}{}", &line[..space], &line[space + least..])
                }
                Line::Heading | Line::Margin => (*line).to_owned(),
            });
        }
        at = end;
    }
    let text = out.join("\n");
    match text.trim_end() {
        "" => String::new(),
        text => format!("{text}\n"),
    }
}

fn kind(line: &str, is_first: bool, under_a_note: &mut bool) -> Line {
    let was_under_a_note = std::mem::take(under_a_note);
    let heading = line.strip_prefix("error").or_else(|| line.strip_prefix("warning"));
    if heading.is_some_and(|rest| rest.starts_with([':', '[']))
        || (is_first && line.starts_with("note: "))
    {
        return Line::Heading;
    }
    let at_the_margin = line.starts_with("note:") || line.starts_with("help:") || line == "...";
    if at_the_margin || (was_under_a_note && line.starts_with("      ")) {
        *under_a_note = true;
        return Line::Margin;
    }
    let spaces_of = |text: &str| text.len() - text.trim_start_matches(' ').len();
    if let Some(rest) = line.strip_prefix("... ") {
        return Line::Code(spaces_of(rest));
    }
    let before = spaces_of(line);
    let rest = &line[before..];
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let spaces = before + spaces_of(&rest[digits..]);
    let rest = &line[digits + spaces..];
    let sign = |sign: &str| {
        rest == sign || rest.strip_prefix(sign).is_some_and(|rest| rest.starts_with(' '))
    };
    let is_code = sign("|")
        || (digits > 0 && ["~", "+", "-"].into_iter().any(sign))
        || (digits == 0 && ["--> ", "::: ", "= "].iter().any(|start| rest.starts_with(start)));
    match is_code && spaces > 0 {
        true => Line::Code(spaces - 1),
        false => Line::Other(if digits == 0 { spaces } else { 0 }),
    }
}
