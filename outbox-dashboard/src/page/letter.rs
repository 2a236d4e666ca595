//! One dead letter with its history and its content, why it stands still, and what can be done.

use super::{
    Body, Layout, Notice, Tab, View, ask_all,
    frame::json::lay_out,
    given::Asked,
    letters::reason,
    shell,
    text::{Markup, ago, cell, host_now, lines, number, query, sentence, text},
};
use crate::{
    access::Refusal,
    act::{self, forms},
    builder::{App, Shared},
    store::DashboardStore,
    visit::Visit,
};
use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use outbox_core::{
    admin::{Facts, Subject, encoded_text, explain, letter_by_id},
    event::{LetterId, Message, Timestamp},
    failure::{AttemptError, DeadLetter},
    outbox::StoreError,
};

/// Longest content that is shown, in bytes.
const LONGEST_CONTENT: usize = 64 * 1024;

/// An attempt that failed.
pub(crate) struct Failure {
    pub(crate) attempt: u32,
    pub(crate) at: Markup,
    pub(crate) class: Markup,
    pub(crate) text: Markup,
}

impl Failure {
    /// Gives the attempts of a letter.
    pub(crate) fn of(letter: &DeadLetter, now: Timestamp) -> Vec<Self> {
        let failure = |error: &AttemptError| Self {
            attempt: error.attempt,
            at: ago(error.at(), now),
            class: text(error.class.as_str()),
            text: text(&error.text),
        };
        letter.errors.iter().map(failure).collect()
    }
}

/// The content of a message.
pub(crate) struct Content {
    pub(crate) kind: Markup,
    pub(crate) bytes: String,
    /// `None` where it is not shown.
    pub(crate) text: Option<Markup>,
    /// Says that a codec has encoded it, where it has.
    pub(crate) encoded: Option<Markup>,
    pub(crate) is_cut: bool,
}

impl Content {
    /// Gives the content of a message, cut at a character.
    pub(crate) fn of(message: &Message, is_hidden: bool) -> Self {
        let payload = &message.payload;
        let is_cut = payload.len() > LONGEST_CONTENT;
        let part = &payload[..payload.len().min(LONGEST_CONTENT)];
        let encoding = message.encoding().filter(|_| !is_hidden);
        let is_shown = !is_hidden && encoding.is_none();
        Self {
            kind: cell(&message.content_type, 100),
            bytes: number(payload.len() as u64),
            text: is_shown.then(|| lines(&shown_content(part, is_cut))),
            encoded: encoding.map(|encoding| text(&encoded_text(encoding))),
            is_cut,
        }
    }
}

/// Gives the headers of a message, each with its name.
pub(crate) fn headers(message: &Message) -> Vec<(Markup, Markup)> {
    message.headers.iter().map(|(name, value)| (cell(name, 60), cell(value, 300))).collect()
}

#[derive(Template)]
#[template(path = "letter.html")]
struct LetterBody<'a> {
    view: &'a View,
    id: LetterId,
    db: Markup,
    notices: Vec<Notice>,
    state: Markup,
    sentence: Option<Markup>,
    facts: Vec<(Markup, Markup)>,
    /// What the message has beside its content.
    attributes: Vec<(&'static str, Markup)>,
    headers: Vec<(Markup, Markup)>,
    failures: Vec<Failure>,
    resolution: Option<(Markup, Markup, Markup)>,
    previous: Option<(LetterId, String)>,
    content: Option<Content>,
    /// The form by which a hidden content is shown.
    see: Markup,
    follow: Option<String>,
    acts: Markup,
    group: String,
}

/// Shows the page.
pub(crate) async fn page(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Response, Refusal> {
    let not_a_letter = || {
        Refusal::not_found("There is no such letter")
            .because("a dead letter has a number")
            .link("letters", "Dead letters")
    };
    let id = LetterId(id.parse().map_err(|_| not_a_letter())?);
    let view = View::of(&visit);
    let databases = asked.databases(&app)?;
    let app = &*app;
    let answers = ask_all(&databases, |store| async move { known(app, &*store, id).await }).await;
    let missing = answers.refusal();
    let mut found = answers.list.into_iter().filter_map(|(db, found)| Some((db, found?)));
    let Some((database, (letter, facts))) = found.next() else {
        let gone = || not_a_letter().because("it was never written, or its retention is over");
        return Err(missing.unwrap_or_else(gone));
    };
    let mut notices = answers.notices;
    for (other, _) in found {
        notices.push(Notice::info(format!("Database {} has a letter {id} too.", other.name)));
    }
    notices.extend(act::sent(&view, &letter, asked.get("sent")));
    let explanation = facts.map(|facts| explain(&facts));
    let now = host_now();
    let message = letter.message.as_ref();
    let (db, is_hidden) = (&*database.name, app.sensitive.hides(&letter));
    let of_group = [
        ("db", Some(db)),
        ("route", Some(&*letter.route).filter(|_| letter.consumer_origin.is_none())),
        ("consumer", letter.consumer_origin.as_ref().map(|by| &*by.consumer)),
        ("handler", letter.consumer_origin.as_ref().map(|by| &*by.handler)),
        ("reason", Some(letter.reason.as_str())),
    ];
    let body = LetterBody {
        view: &view,
        id,
        db: cell(db, 60),
        notices,
        state: reason(&letter),
        sentence: explanation.as_ref().map(|explanation| sentence(&explanation.sentence)),
        facts: explanation
            .iter()
            .flat_map(|explanation| &explanation.facts)
            .map(|(name, value)| (text(name), text(value)))
            .collect(),
        attributes: attributes(&letter, now),
        headers: message.map(headers).unwrap_or_default(),
        failures: Failure::of(&letter, now),
        resolution: letter
            .resolution
            .as_ref()
            .map(|r| (ago(r.at, now), cell(&r.by, 60), text(&r.reason))),
        previous: letter.previous.map(|previous| {
            (previous, format!("letters/{previous}{}", query(&[("db", Some(db))])))
        }),
        content: message.map(|message| Content::of(message, is_hidden)),
        see: if is_hidden { forms::content(&view, db, id) } else { Markup::default() },
        follow: message.map(|message| {
            let id = message.id.to_string();
            query(&[("q", Some(message.key.as_deref().unwrap_or(&id)))])
        }),
        acts: forms::letter(&view, db, &letter, act::trials(app, db, &letter).is_some()),
        group: query(&of_group),
    };
    let body = Body::draw(format!("Letter {id}"), &body);
    Ok(shell(&Layout::new(app, &visit, Tab::Letters, body.title.clone()), &body))
}

/// Reads a letter, and while it is open the facts that explain it, without what is not to be shown.
async fn known(
    app: &App,
    store: &dyn DashboardStore,
    id: LetterId,
) -> Result<Option<(DeadLetter, Option<Facts>)>, StoreError> {
    let Some(letter) = letter_by_id(store, id).await? else { return Ok(None) };
    // Its open letter is what explains it, whatever became of the event elsewhere.
    let subject = letter.message.as_ref().map(|message| Subject::Message(message.id));
    let facts = match &subject {
        Some(subject) if letter.resolution.is_none() => store.facts(subject).await?,
        _ => None,
    };
    let facts = facts.map(|facts| app.sensitive.facts_of_letter(&letter, facts));
    Ok(Some((app.sensitive.without_texts(letter), facts)))
}

fn attributes(letter: &DeadLetter, now: Timestamp) -> Vec<(&'static str, Markup)> {
    let mut all = vec![
        ("given up by", cell(&letter.given_up_by(), 200)),
        ("given up", ago(letter.dead_at, now)),
        ("attempts", text(&letter.attempts.to_string())),
    ];
    if letter.parks && letter.resolution.is_none() {
        all.push(("order", text("later events of its key wait until it is resolved")));
    }
    let Some(message) = &letter.message else { return all };
    all.extend([
        ("message", text(&message.id.to_string())),
        ("type", cell(&format!("{} v{}", message.event_type, message.event_version), 255)),
        ("topic", cell(&message.topic, 255)),
        ("source", cell(&message.source, 255)),
        ("saved", ago(message.created_at, now)),
    ]);
    if let Some(key) = &message.key {
        all.push(("key", cell(key, 255)));
    }
    if let Some(at) = message.expires_at {
        all.push(("expires", ago(at, now)));
    }
    all
}

/// Gives the text of a content: JSON that is whole and in one line is laid out in lines.
fn shown_content(part: &[u8], is_cut: bool) -> String {
    let text = String::from_utf8_lossy(part);
    let text = if is_cut { text.trim_end_matches('\u{fffd}') } else { &text };
    // Numbers keep their digits and members their order, which a parsed value would lose.
    let laid_out = (!is_cut && !text.contains('\n')).then(|| lay_out(text)).flatten();
    laid_out.unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_one_line_is_laid_out_and_other_text_stays_as_it_is() {
        for (json, shown) in [
            ("{\"a\":1.10}", "{\n  \"a\": 1.10\n}"),
            ("no json, {at} all", "no json, {at} all"),
            ("{\"a\":\n1}", "{\"a\":\n1}"),
        ] {
            assert_eq!(shown_content(json.as_bytes(), false), shown);
        }
    }

    #[test]
    fn a_content_that_is_cut_ends_at_a_character() {
        let text = "grün".as_bytes();
        assert_eq!(shown_content(&text[..3], true), "gr");
        assert_eq!(shown_content(&[b'a', 0xff, b'b'], false), "a\u{fffd}b");
    }
}
