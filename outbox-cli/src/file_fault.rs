//! What is wrong in a file of settings, without the values that stand there: any of them may be a
//! secret.

use toml::de::Error;

/// Beginnings of messages behind which a value stands.
const QUOTING: [&str; 3] = ["invalid type: ", "invalid value: ", "unknown variant "];

/// Tells a fault with its line. It has the words of the message, and in place of a value its type.
pub(crate) fn without_value(text: &str, error: &Error) -> String {
    let line = error.span().and_then(|span| text.get(..span.start));
    let line = line.map(|before| before.matches('\n').count() + 1);
    let at = line.map(|line| format!("line {line}: ")).unwrap_or_default();
    format!("{at}{}", typed(error.message()))
}

/// Takes the value out of a message of serde, such as ``invalid type: string "..", expected u16``.
fn typed(message: &str) -> String {
    let Some(begins) = QUOTING.iter().find(|begins| message.starts_with(**begins)) else {
        return message.to_owned();
    };
    // From the end: the value may have the same words.
    let (value, expected) = message.rsplit_once(", expected ").unwrap_or((message, "another"));
    let words = value[begins.len()..].split(['"', '`']).next().unwrap_or_default();
    format!("{}, expected {expected}", format!("{begins}{words}").trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::net::SocketAddr;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct File {
        text: String,
        list: Vec<String>,
        port: u16,
        listen: Option<SocketAddr>,
        colour: Option<Colour>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Colour {
        Red,
    }

    #[test]
    fn a_fault_of_a_file_has_its_line_and_the_type_of_a_value_and_never_the_value() {
        for (line, told) in [
            ("list = 'S3CRET'", "line 2: invalid type: string, expected a sequence"),
            ("list = 'S3CRET\", expected S3CRET'", "line 2: invalid type: string, expected a seq"),
            ("list = \"S3CRET `\\n, expected \"", "line 2: invalid type: string, expected a sequ"),
            ("text = 53237", "line 2: invalid type: integer, expected a string"),
            ("text = 53.237", "line 2: invalid type: floating point, expected a string"),
            ("text = ['S3CRET']", "line 2: invalid type: sequence, expected a string"),
            ("port = 53237000", "line 2: invalid value: integer, expected u16"),
            ("colour = 'S3CRET'", "line 2: unknown variant, expected `red`"),
            ("listen = 'S3CRET'", "line 2: invalid socket address"),
            ("listen = 53237", "line 2: invalid type: integer, expected"),
            ("texts = 'S3CRET'", "line 2: unknown field `texts`, expected one of `text`"),
            ("text = 'S3CRET", "line 2: "),
            ("text = S3CRET", "line 2: "),
            ("text = 'a'\ntext = 'S3CRET'", "line 3: duplicate key"),
        ] {
            let text = format!("# a file\n{line}\n");
            let fault = without_value(&text, &toml::from_str::<File>(&text).unwrap_err());
            assert!(fault.starts_with(told), "{line}: {fault}");
            assert!(!fault.contains("S3CRET") && !fault.contains("53"), "{line}: {fault}");
        }
    }
}
