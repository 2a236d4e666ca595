//! Writing JSON, with an error for each value that JSON would lose in silence.
//!
//! serde_json writes NaN and the infinities as `null`; its reader refuses what is nested deeper than 127 levels, and a field that
//! is there twice, as when the key of a flattened map is the name of another field. The writer does not notice, every receiver
//! fails, and the stored text cannot be mended. So all three are refused here, with the field's name. The path is collected
//! while the error is on its way out; a value without fault costs a test for each float and for each list or object, and a hash
//! for each key of a flattened one.

mod checked;
#[cfg(test)]
mod tests;

use checked::Checked;

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
};

/// Levels of lists and objects that serde_json reads: it counts down from 128 and refuses at 0.
const MAX_DEPTH: u8 = 127;
/// Segments of a path that an error shows; a value that is nested too deep has more than anybody reads.
const SHOWN: usize = 12;

/// A value that cannot be written as JSON that reads back as the same value.
#[derive(Debug)]
pub struct JsonError {
    /// The field, such as `lines[1].price`; empty for the whole value.
    path: String,
    fault: Fault,
}

#[derive(Debug)]
enum Fault {
    NotFinite(&'static str),
    TooDeep,
    Twice,
    /// What the value's own `Serialize` or serde_json said.
    Refused(serde_json::Error),
}

impl JsonError {
    /// Gives the field, such as `lines[1].price`; a key of a map is shown as `*`, since it is data. Empty for the whole value.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Says what is wrong without the text of a `Serialize` of the user's, which may quote the value: for what is stored.
    pub(crate) fn without_values(&self) -> String {
        match &self.fault {
            Fault::Refused(error) if error.is_data() => {
                format!("{} cannot be written", self.place())
            }
            _ => self.to_string(),
        }
    }

    fn place(&self) -> String {
        if self.path.is_empty() { "the value".to_owned() } else { format!("`{}`", self.path) }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place();
        match &self.fault {
            Fault::NotFinite(what) => write!(
                f,
                "{place} is {what}, for which JSON has no number: use an `Option` that is `None`, or text, where there is none"
            ),
            Fault::TooDeep => write!(
                f,
                "{place} is nested deeper than the {MAX_DEPTH} levels that can be read back: write it flat, or as text"
            ),
            Fault::Twice => write!(
                f,
                "{place} is there twice, so that it could not be read back: a key of a flattened map is the name of another field"
            ),
            Fault::Refused(error) => write!(f, "{place} cannot be written: {error}"),
        }
    }
}

impl std::error::Error for JsonError {}

/// The serializer that payloads are written with.
pub type JsonWriter<'a, 'b> = Checked<'a, &'a mut serde_json::Serializer<&'b mut Vec<u8>>>;

/// Writes JSON into a new buffer by a function.
///
/// # Errors
/// [`JsonError`] with the field that has no form.
pub(crate) fn write(
    write: impl FnOnce(JsonWriter<'_, '_>) -> Result<(), serde_json::Error>,
) -> Result<Vec<u8>, JsonError> {
    // What serde_json itself starts with.
    let mut bytes = Vec::with_capacity(128);
    let trace = Trace::default();
    let written = write(Checked::new(&mut serde_json::Serializer::new(&mut bytes), &trace));
    written.map(|()| bytes).map_err(|error| trace.into_error(error))
}

/// Where an error comes from, filled in while it travels outwards.
#[derive(Default)]
struct Trace(RefCell<Found>);

#[derive(Default)]
struct Found {
    fault: Option<Fault>,
    /// From the innermost to the outermost.
    path: Vec<Segment>,
}

enum Segment {
    Field(&'static str),
    Named(String),
    Index(usize),
    Key,
}

impl Trace {
    /// Notes a value that is refused here.
    fn refuse<E: serde::ser::Error>(&self, fault: Fault) -> E {
        *self.0.borrow_mut() = Found { fault: Some(fault), path: Vec::new() };
        E::custom("refused")
    }

    /// Adds the place that an error has just left.
    fn leave<E>(&self, error: E, segment: Segment) -> E {
        self.0.borrow_mut().path.push(segment);
        error
    }

    fn into_error(self, error: serde_json::Error) -> JsonError {
        let Found { fault, path } = self.0.into_inner();
        let mut shown = String::new();
        for segment in path.iter().rev().take(SHOWN) {
            match segment {
                Segment::Index(at) => {
                    // A `String` takes everything.
                    let _ = write!(shown, "[{at}]");
                }
                Segment::Field(name) => join(&mut shown, name),
                Segment::Named(name) => join(&mut shown, name),
                Segment::Key => join(&mut shown, "*"),
            }
        }
        if path.len() > SHOWN {
            join(&mut shown, "..");
        }
        JsonError { path: shown, fault: fault.unwrap_or(Fault::Refused(error)) }
    }
}

fn join(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}
