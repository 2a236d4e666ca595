//! Bodies of pages by server-sent events: one reader a page and query for all that have it open,
//! which ends when nobody looks.
//!
//! # Source
//! HTML Living Standard, section 9.2, server-sent events

use crate::{
    access::Refusal,
    act::plans,
    builder::{App, Shared},
    page::{
        audit, follow,
        given::Asked,
        layout::{Body, View},
        letters, overview, routes, saga, sagas, waiting,
    },
    visit::Visit,
};
use axum::{
    body::{Body as HttpBody, Bytes},
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use outbox_core::{
    admin::cut_text,
    runtime::{now, spawn},
};
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::watch,
    time::{sleep, sleep_until},
};

/// How often a page is read again: a person sees no difference to less, and a database should not.
const READ_EVERY: Duration = Duration::from_secs(2);
/// How many times as long as a read took its reader pauses: a database that is slow has other work.
const PAUSE_SHARE: u32 = 10;
/// Longest pause: somebody looks at the page.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// How often a comment is sent where nothing changes: proxies close what is silent for a minute.
const PING_EVERY: Duration = Duration::from_secs(15);
/// Longest time of a stream. The browser opens it again by itself, and then the rule of the route
/// asks again whether its visitor may still look.
const LONGEST_STREAM: Duration = Duration::from_mins(5);
/// When the browser opens a stream again that has ended, in milliseconds.
const REOPEN_MS: u32 = 1_000;
/// Most pages and queries that are read at once; each asks the databases every other second.
const MOST_READERS: usize = 64;
/// Most streams of one reader.
const MOST_STREAMS: usize = 500;
/// Longest way to the root that a stream may name, in bytes.
const LONGEST_ROOT: usize = 100;
/// Longest reason why a page is not as it is now, in characters: it stands in the page's head.
const LONGEST_REASON: usize = 160;
/// Longest query of a stream, in bytes.
const LONGEST_QUERY: usize = 4 * 1024;

/// What a reader reads: the page, its query, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    page: String,
    query: String,
    root: String,
    may: String,
}

/// The last state of a page.
#[derive(Debug, Clone)]
struct Frame {
    /// The hash of the body, which is the id of its event.
    id: String,
    /// The event as it is sent.
    event: Bytes,
    /// When the last read of it began, also of one that has changed nothing.
    drawn_at: Instant,
}

/// The readers of open pages.
#[derive(Debug, Default)]
pub(crate) struct LiveReaders {
    readers: Mutex<HashMap<Key, watch::Sender<Frame>>>,
}

impl LiveReaders {
    /// A reader is only inserted and removed under the lock, so that a panic leaves it whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, watch::Sender<Frame>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Streams the body of a page, each time that it has changed.
pub(crate) async fn stream(
    State(app): State<Shared>,
    visit: Visit,
    Path(page): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let asked = Asked::of(&uri)?;
    let query = uri.query().unwrap_or_default();
    if query.len() > LONGEST_QUERY {
        return Err(Refusal::bad(format!("the query has more than {LONGEST_QUERY} bytes")));
    }
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let seen = seen.or_else(|| asked.get("last")).unwrap_or_default().to_owned();
    let view = View { root: root(asked.get("root")), may: visit.grant.may.clone() };
    let key = Key {
        page,
        // What was seen last is not what is asked for.
        query: query
            .split('&')
            .filter(|part| !part.starts_with("last="))
            .collect::<Vec<_>>()
            .join("&"),
        root: view.root.clone(),
        may: format!("{:?}", view.may),
    };
    let frames = watch_page(&app, key, view).await?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // nginx would keep events back until its buffer is full.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, HttpBody::from_stream(events(frames, seen))).into_response())
}

/// Gives the way to the root, where it is one: relative, and nothing that a link could be forged
/// with.
fn root(asked: Option<&str>) -> String {
    let is_way = |way: &&str| {
        way.len() <= LONGEST_ROOT
            && way.ends_with('/')
            && !way.starts_with('/')
            && !way.contains("//")
            && way.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~%/".contains(&b))
    };
    asked.filter(is_way).unwrap_or("./").to_owned()
}

/// Joins the reader of a page, or starts it after a first read, which tells what is wrong with the
/// query. A reader that pauses is joined after a read too: its last state would turn back the page
/// that the browser has just loaded.
async fn watch_page(app: &Shared, key: Key, view: View) -> Result<watch::Receiver<Frame>, Refusal> {
    if let Some((_, frames)) = joined(&app.live.lock(), &key)?
        && is_young(&frames)
    {
        return Ok(frames);
    }
    let begun = now();
    let drawn = draw(app, &key, &view).await;
    let mut readers = app.live.lock();
    // It pauses, or another stream has started it meanwhile.
    if let Some((sender, frames)) = joined(&readers, &key)? {
        publish(sender, drawn, begun);
        return Ok(frames);
    }
    let first = frame(&drawn?, begun);
    if readers.len() >= MOST_READERS {
        return Err(too_many());
    }
    let (sender, frames) = watch::channel(first);
    readers.insert(key.clone(), sender.clone());
    spawn(read(Reader { app: Arc::clone(app), key, sender }, view)).detach();
    Ok(frames)
}

/// What a reader's task owns. Its place in the map is empty when the task has ended, also by a
/// panic: its streams end then, and whoever opens one again starts another reader.
struct Reader {
    app: Shared,
    key: Key,
    sender: watch::Sender<Frame>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut readers = self.app.live.lock();
        if readers.get(&self.key).is_some_and(|there| there.same_channel(&self.sender)) {
            readers.remove(&self.key);
        }
    }
}

/// A reader, and what one more stream of it receives.
type Joined<'a> = (&'a watch::Sender<Frame>, watch::Receiver<Frame>);

fn joined<'a>(
    readers: &'a HashMap<Key, watch::Sender<Frame>>,
    key: &Key,
) -> Result<Option<Joined<'a>>, Refusal> {
    let Some(sender) = readers.get(key) else { return Ok(None) };
    if sender.receiver_count() >= MOST_STREAMS {
        return Err(too_many());
    }
    Ok(Some((sender, sender.subscribe())))
}

/// Tells whether the last state of a page is as young as one that is read all the time.
fn is_young(frames: &watch::Receiver<Frame>) -> bool {
    now().saturating_duration_since(frames.borrow().drawn_at) <= READ_EVERY
}

fn too_many() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "Too many pages are live")
        .because("the dashboard keeps a bounded number of pages live at once")
        .advising("Close some, or load this page again to see it as it is.")
}

/// Reads a page until nobody looks.
async fn read(reader: Reader, view: View) {
    let Reader { app, key, sender } = &reader;
    let mut took = Duration::ZERO;
    loop {
        sleep(pause(took)).await;
        {
            let mut readers = app.live.lock();
            // Nobody can join while the map is locked.
            if sender.receiver_count() == 0 {
                readers.remove(key);
                return;
            }
        }
        let begun = now();
        let drawn = draw(app, key, &view).await;
        took = now().saturating_duration_since(begun);
        publish(sender, drawn, begun);
    }
}

/// Puts what a read has drawn in place of the last state, and tells the streams if it has changed.
fn publish(sender: &watch::Sender<Frame>, drawn: Result<Body, Refusal>, begun: Instant) {
    let next = match drawn {
        Ok(body) => frame(&body, begun),
        // What the page shows is gone, such as a saga after its retention: it stays as it was.
        Err(refusal) if refusal.status() == StatusCode::NOT_FOUND => return,
        Err(refusal) => stale(&refusal, begun),
    };
    sender.send_if_modified(|frame| {
        // Another read, which has begun later, has ended before.
        if next.drawn_at < frame.drawn_at {
            return false;
        }
        let is_new = frame.id != next.id;
        if is_new {
            *frame = next;
        } else {
            frame.drawn_at = next.drawn_at;
        }
        is_new
    });
}

/// Gives the pause after a read that took so long.
fn pause(took: Duration) -> Duration {
    took.saturating_mul(PAUSE_SHARE).clamp(READ_EVERY, LONGEST_PAUSE)
}

/// Draws the body of a page.
async fn draw(app: &App, key: &Key, view: &View) -> Result<Body, Refusal> {
    let uri = format!("/?{}", key.query).parse::<Uri>();
    let asked = Asked::of(&uri.map_err(|_| Refusal::bad("the query cannot be read"))?)?;
    let given = |name| asked.get(name).ok_or_else(|| Refusal::bad(format!("`{name}` is missing")));
    match &*key.page {
        "follow" => follow::body(app, view, &asked).await,
        "overview" => overview::body(app, view, &asked).await,
        "routes" => routes::body(app, view, &asked).await,
        "letters" if letters::is_list(&asked)? => letters::body(app, view, &asked).await,
        "letters" => Err(Refusal::bad("groups of letters are not live, as they read thousands")
            .advising("Ask for the list, by a condition or `list=1`.")),
        "sagas" => sagas::body(app, view, &asked).await,
        "saga" => saga::body(app, view, given("id")?, &asked).await,
        "waiting" => waiting::body(app, view, &asked).await,
        "audit" => audit::body(app, view, &asked).await,
        "plan" => plans::live_body(app, view, given("db")?, given("id")?).await,
        _ => Err(Refusal::not_found("There is no such live page")),
    }
}

/// Writes the event of a body.
fn frame(body: &Body, drawn_at: Instant) -> Frame {
    let html = body.html.to_string();
    let mut hasher = DefaultHasher::new();
    html.hash(&mut hasher);
    let id = format!("{:016x}", hasher.finish());
    let mut event = format!("event: body\nid: {id}\nretry: {REOPEN_MS}\n");
    for line in html.split(['\n', '\r']).filter(|line| !line.is_empty()) {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
    event.push('\n');
    Frame { id, event: event.into(), drawn_at }
}

/// Writes the event that says why a page is no longer as it is now. It has no id of its own: what
/// the browser has seen is the body before it.
fn stale(refusal: &Refusal, drawn_at: Instant) -> Frame {
    let why = cut_text(&refusal.told(), LONGEST_REASON);
    let event = format!("event: stale\ndata: {why}\n\n").into();
    Frame { id: format!("stale {why}"), event, drawn_at }
}

/// What a stream sends next.
struct Stream {
    frames: watch::Receiver<Frame>,
    seen: String,
    is_first: bool,
    ends_at: Instant,
}

/// Gives the events of a stream until its time is over: the present body, unless it was seen, and
/// each one after it.
fn events(
    frames: watch::Receiver<Frame>,
    seen: String,
) -> impl stream::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let state = Stream { frames, seen, is_first: true, ends_at: now() + LONGEST_STREAM };
    stream::unfold(state, |mut state| async move {
        loop {
            if !state.is_first {
                tokio::select! {
                    biased;
                    () = sleep_until(state.ends_at.into()) => return None,
                    changed = state.frames.changed() => changed.ok()?,
                    () = sleep(PING_EVERY) => return Some((Ok(Bytes::from_static(b":\n\n")), state)),
                }
            }
            let frame = state.frames.borrow_and_update().clone();
            let is_seen = frame.id == state.seen;
            // The response begins at once, also where there is nothing to say.
            if std::mem::take(&mut state.is_first) && is_seen {
                return Some((Ok(Bytes::from_static(b":\n\n")), state));
            }
            if !is_seen {
                state.seen.clone_from(&frame.id);
                return Some((Ok(frame.event), state));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dashboard, Grant, Role};
    use ::tests::{
        databases::{Database, TempDatabase},
        equals, wait_until,
    };
    use futures_util::StreamExt;
    use outbox_core::runtime::Exit;
    use outbox_sea_orm::prelude::Outbox;

    #[test]
    fn the_way_to_the_root_is_relative_or_it_is_not_taken() {
        for (asked, way) in [
            (None, "./"),
            (Some("../../"), "../../"),
            (Some("outbox/"), "outbox/"),
            (Some("/outbox/"), "./"),
            (Some("//evil/"), "./"),
            (Some("a//b/"), "./"),
            (Some("javascript:/"), "./"),
            (Some("x"), "./"),
        ] {
            assert_eq!(root(asked), way, "{asked:?}");
        }
    }

    #[test]
    fn a_slow_read_makes_its_reader_pause_for_longer_and_never_for_good() {
        for (took, expected) in [
            (Duration::ZERO, READ_EVERY),
            (Duration::from_millis(200), READ_EVERY),
            (Duration::from_millis(300), Duration::from_secs(3)),
            (Duration::from_secs(5), Duration::from_secs(50)),
            (Duration::from_secs(7), LONGEST_PAUSE),
            (Duration::MAX, LONGEST_PAUSE),
        ] {
            assert_eq!(pause(took), expected, "{took:?}");
        }
    }

    fn frame_of(id: &str) -> Frame {
        Frame { id: id.to_owned(), event: Bytes::new(), drawn_at: now() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_after_five_minutes_so_that_its_visitor_is_asked_about_again() {
        let (sender, frames) = watch::channel(frame_of(""));
        let begun = now();
        let mut stream = Box::pin(events(frames, String::new()));
        let mut seen = 0;
        while let Some(Ok(event)) = stream.next().await {
            seen += 1;
            // Also where the page changes all the time.
            sender.send_replace(Frame { event, ..frame_of(&seen.to_string()) });
            sleep(Duration::from_secs(1)).await;
        }
        let (took, second) = (now() - begun, Duration::from_secs(1));
        assert!((LONGEST_STREAM..=LONGEST_STREAM + second).contains(&took), "{took:?}");
        assert!(seen > 290, "{seen} events");
    }

    async fn app() -> (TempDatabase, Shared) {
        let temp = TempDatabase::create(Database::Sqlite).await;
        let outbox = Outbox::builder(temp.connect().await).source("/shop").install().await.unwrap();
        (temp, Dashboard::builder().database("orders", outbox).build().unwrap().app)
    }

    #[tokio::test]
    async fn a_reader_that_panics_leaves_no_place_behind_and_ends_its_streams() {
        let (_temp, app) = app().await;
        let (page, none) = ("overview".to_owned(), String::new);
        let key = Key { page, query: none(), root: none(), may: none() };
        let reader = || {
            let (sender, frames) = watch::channel(frame_of(""));
            app.live.lock().insert(key.clone(), sender.clone());
            (Reader { app: Arc::clone(&app), key: key.clone(), sender }, frames)
        };
        let (panics, mut frames) = reader();
        let task = spawn(async move {
            let _reader = panics;
            panic!("a page that cannot be drawn");
        });
        assert!(matches!(task.await, Exit::Panicked(_)));
        assert!(app.live.lock().is_empty() && frames.changed().await.is_err());
        // One that ends late does not take the place of the next one.
        let ((late, _frames), (_next, _its_frames)) = (reader(), reader());
        drop(late);
        assert_eq!(app.live.lock().len(), 1);
    }

    #[tokio::test]
    async fn a_stream_that_joins_a_reader_that_pauses_gets_the_page_as_it_is_now() {
        let (_temp, app) = app().await;
        let (page, query) = ("letters".to_owned(), "list=1".to_owned());
        let key = Key { page, query, root: "./".to_owned(), may: String::new() };
        let join = async || {
            let view = View { root: "./".to_owned(), may: Role::Reader };
            watch_page(&app, key.clone(), view).await.unwrap()
        };
        let (sender, mut others) = watch::channel(frame_of("before"));
        app.live.lock().insert(key.clone(), sender.clone());
        assert_eq!(join().await.borrow().id, "before", "it was drawn just now");
        assert!(!others.has_changed().unwrap());
        let pauses = || {
            let long_ago = now().checked_sub(LONGEST_PAUSE).unwrap();
            sender.send_if_modified(|frame| {
                frame.drawn_at = long_ago;
                false
            });
        };
        pauses();
        let frames = join().await;
        assert_ne!(frames.borrow().id, "before", "it was drawn a minute ago");
        assert!(others.has_changed().unwrap(), "the other streams get it too");
        others.mark_unchanged();
        // A read that changes nothing is sent to nobody, and the page is as young as that.
        pauses();
        assert!(!is_young(&frames) && is_young(&join().await));
        assert!(!others.has_changed().unwrap());
        assert_eq!(app.live.lock().len(), 1);
    }

    #[tokio::test]
    async fn a_hundred_open_pages_have_one_reader_and_none_has_none() {
        let (_temp, app) = app().await;
        let visit = Visit { grant: Grant::new("ann", Role::Reader), root: "./".to_owned() };
        let open = async |page: &str| {
            let uri = "/live/overview?root=.%2F".parse().unwrap();
            let (page, headers) = (Path(page.to_owned()), HeaderMap::new());
            let answer =
                stream(State(app.clone()), visit.clone(), page, uri, headers).await.unwrap();
            let mut events = answer.into_body().into_data_stream();
            assert!(events.next().await.unwrap().unwrap().starts_with(b"event: body\n"));
            events
        };
        let mut pages = Vec::new();
        for _ in 0..100 {
            pages.push(open("overview").await);
        }
        assert_eq!(app.live.lock().len(), 1);
        pages.push(open("routes").await);
        assert_eq!(app.live.lock().len(), 2);
        drop(pages);
        let soon = Duration::from_secs(30);
        wait_until(soon, "no reader is left", async || equals(app.live.lock().len(), 0)).await;
    }
}
