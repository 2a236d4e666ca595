//! Code as tokens, so that what ships is told from comments, tests, and code that macros emit.

use super::lexer::{Token, tokens};

/// Which code of a file is looked at. Comments and documentation never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// What ships: no tests.
    Shipped,
    /// What ships, with the attributes that say how the documentation shows an item.
    Documented,
    /// What is the file's own: nothing that a macro would emit elsewhere.
    Unquoted,
}

/// The tokens of a part of a file.
pub(super) struct Code(Vec<Token>);

impl Code {
    /// Reads a text.
    pub(super) fn read(text: &str, part: Part) -> Self {
        let all = tokens(text);
        let mut kept = Vec::new();
        let mut at = 0;
        while at < all.len() {
            let end = match part {
                Part::Shipped | Part::Documented => test_at(&all, at),
                Part::Unquoted => emitted_at(&all, at),
                Part::Whole => None,
            };
            let documentation = || documentation_at(&all, at).filter(|_| part != Part::Documented);
            match end.or_else(documentation) {
                Some(end) => at = end,
                None => {
                    kept.push(all[at].clone());
                    at += 1;
                }
            }
        }
        Self(kept)
    }

    /// Lists the lines on which a piece of code stands, such as `Instant::now`.
    pub(super) fn lines_with(&self, piece: &str) -> Vec<usize> {
        let sought = tokens(piece);
        let same = |window: &&[Token]| {
            window.iter().zip(&sought).all(|(token, wanted)| token.text == wanted.text)
        };
        self.0.windows(sought.len()).filter(same).map(|window| window[0].line).collect()
    }

    /// Gives its tokens.
    pub(super) fn tokens(&self) -> &[Token] {
        &self.0
    }

    /// Lists the texts that stand in it, as they are written, with their lines.
    pub(super) fn texts(&self) -> impl Iterator<Item = &Token> {
        self.0.iter().filter(|token| token.text.len() > 1 && token.text.ends_with(['"', '#']))
    }
}

/// Position after the bracket that closes the one at a position.
pub(super) fn closed(all: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in all.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => (),
        }
        if depth == 0 {
            return at + 1;
        }
    }
    all.len()
}

/// The words of the attribute at a position, without spaces, whether it is an inner one, and the position after it.
fn attribute_at(all: &[Token], at: usize) -> Option<(String, bool, usize)> {
    let is = |at: usize, text: &str| all.get(at).is_some_and(|token| token.text == text);
    let inner = is(at + 1, "!");
    let open = at + 1 + usize::from(inner);
    if !is(at, "#") || !is(open, "[") {
        return None;
    }
    let end = closed(all, open);
    Some((all[open + 1..end - 1].iter().map(|token| token.text.as_str()).collect(), inner, end))
}

/// Position after the documentation at a position that is written as an attribute.
fn documentation_at(all: &[Token], at: usize) -> Option<usize> {
    attribute_at(all, at)
        .filter(|(words, ..)| words.starts_with("doc=") || words.starts_with("doc("))
        .map(|found| found.2)
}

/// Position after the item at a position that is there for tests only; all of the rest, where the attribute says so.
fn test_at(all: &[Token], at: usize) -> Option<usize> {
    let (words, inner, end) = attribute_at(all, at)?;
    let is_test = ["test", "cfg(test)", "tokio::test"].contains(&words.as_str())
        || words.starts_with("cfg(all(test,")
        || words.starts_with("tokio::test(");
    is_test.then(|| if inner { all.len() } else { item_ends(all, end) })
}

/// Counts the lines of items that are there for tests only, and are no tests themselves.
pub(super) fn lines_of_test_modules(text: &str) -> usize {
    let all = tokens(text);
    let (mut at, mut lines) = (0, 0);
    while at < all.len() {
        let is_configured =
            attribute_at(&all, at).is_some_and(|(words, ..)| words.starts_with("cfg("));
        match test_at(&all, at).filter(|_| is_configured) {
            Some(end) => {
                lines += all[end - 1].line + 1 - all[at].line;
                at = end;
            }
            None => at += 1,
        }
    }
    lines
}

/// Position after an item: after its body or its semicolon.
pub(super) fn item_ends(all: &[Token], mut at: usize) -> usize {
    while let Some(token) = all.get(at) {
        match token.text.as_str() {
            "{" => return closed(all, at),
            ";" => return at + 1,
            "(" | "[" => at = closed(all, at),
            _ => at += 1,
        }
    }
    at
}

/// Position after the code at a position that a macro emits.
fn emitted_at(all: &[Token], at: usize) -> Option<usize> {
    let [name, mark, _, ..] = all.get(at..)? else { return None };
    let emits =
        ["quote", "quote_spanned", "parse_quote"].contains(&name.text.as_str()) && mark.text == "!";
    emits.then(|| closed(all, at + 2))
}

#[cfg(test)]
mod tests {
    use super::{Code, Part};

    const SAMPLE: &str = r##"
//! Instant::now in a document
/// Instant::now
#[doc = "Instant::now"]
fn a() {
    // Instant::now
    let text = "Instant::now";
    tokio::select! { _ = async { std::time::Instant::now() } => (), }
}
#[cfg(test)]
mod tests {
    #[test]
    fn b() { Instant::now(); }
}
#[cfg(feature = "testing")]
fn c() { time::Instant ::
    now() }
#[tokio::test(start_paused = true)]
async fn d(x: [u8; 3]) { Instant::now() }
fn e() { Instant::now() }
"##;

    #[test]
    fn comments_documents_texts_and_tests_are_not_shipped_code() {
        assert_eq!(Code::read(SAMPLE, Part::Shipped).lines_with("Instant::now"), [8, 16, 20]);
        assert_eq!(Code::read(SAMPLE, Part::Whole).lines_with("Instant::now"), [8, 13, 16, 19, 20]);
        assert!(
            Code::read("#![cfg(test)]\nfn a() { Instant::now() }", Part::Shipped)
                .lines_with("fn")
                .is_empty()
        );
    }

    #[test]
    fn texts_are_given_as_they_are_written() {
        let code = Code::read("fn f() { g(\"one\", r#\"two\"#, 'c', 3, b\"four\") }", Part::Whole);
        let texts: Vec<&str> = code.texts().map(|token| token.text.as_str()).collect();
        assert_eq!(texts, ["\"one\"", "r#\"two\"#", "b\"four\""]);
    }

    #[test]
    fn what_a_macro_emits_is_not_the_files_own() {
        let text = "#[allow(a)] fn f() { quote! { #[allow(b)] fn g() {} } }";
        let allows = |part| Code::read(text, part).lines_with("#[allow").len();
        assert_eq!((allows(Part::Whole), allows(Part::Unquoted)), (2, 1));
    }
}
