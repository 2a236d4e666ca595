//! JSON in lines, to be read and to be compared.

use serde_json::value::RawValue;

/// Levels up to which a line is indented: a reader sees no difference beyond, and the indentation
/// of a deep text would be larger than the text by the square of its depth.
const DEEPEST: usize = 40;
/// Longest text in lines, in bytes: eight times the longest content that a page shows.
const LONGEST: usize = 512 * 1024;

/// Lays JSON out, one value a line. It changes the space between tokens alone: a number, a repeated
/// name or an escape stays as it is written.
///
/// Gives `None` for what is no JSON, and for what would be longer than 512 KiB in lines.
pub(crate) fn lay_out(json: &str) -> Option<String> {
    // Its reader does not call itself, so that no depth is too much for the stack.
    let _: &RawValue = serde_json::from_str(json).ok()?;
    let (mut out, mut depth, mut in_string, mut is_escaped) =
        (String::new(), 0_usize, false, false);
    let mut tokens = json.trim().chars().peekable();
    while let Some(c) = tokens.next() {
        if out.len() > LONGEST {
            return None;
        }
        if in_string {
            out.push(c);
            in_string = is_escaped || c != '"';
            is_escaped = c == '\\' && !is_escaped;
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                while tokens.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(close) = tokens.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    begin_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                begin_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                begin_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => {
                in_string = c == '"';
                out.push(c);
            }
        }
    }
    (out.len() <= LONGEST).then_some(out)
}

fn begin_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth.min(DEEPEST)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_laid_out_without_a_change_of_its_tokens() {
        for (json, shown) in [
            (
                "{\"a\":1.10,\"b\":[1,2],\"c\":{}}",
                Some("{\n  \"a\": 1.10,\n  \"b\": [\n    1,\n    2\n  ],\n  \"c\": {}\n}"),
            ),
            ("{\"text\":\"a,{b}\\\"c:\\\\\"}", Some("{\n  \"text\": \"a,{b}\\\"c:\\\\\"\n}")),
            ("[ ]", Some("[]")),
            (" [\t1 ,\n2 ]\n", Some("[\n  1,\n  2\n]")),
            ("12345678901234567890.0", Some("12345678901234567890.0")),
            ("no json, {at} all", None),
            ("", None),
        ] {
            assert_eq!(lay_out(json).as_deref(), shown, "{json}");
        }
    }

    #[test]
    fn json_of_any_depth_is_laid_out_in_bounds_or_not_at_all() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let deep = lay_out(&nested(1_000)).unwrap();
        let widest = deep.lines().map(str::len).max();
        assert_eq!((deep.lines().count(), widest), (1_999, Some(2 * DEEPEST + 2)));
        // 64 KiB, whose indentation alone would be two gigabytes.
        assert_eq!(lay_out(&nested(32_768)), None);
        let wide = format!("[{}1]", "1,".repeat(32_000));
        assert!(lay_out(&wide).is_some_and(|lines| lines.len() < 4 * wide.len()));
        assert_eq!(lay_out(&format!("[{}1]", "1,".repeat(200_000))), None);
    }
}
