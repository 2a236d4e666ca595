//! `top`: on a terminal a screen that is redrawn and scrolled, elsewhere the overview again and again.

use super::{
    Answers,
    overview::{Line, Mood, lines},
};
use crate::{
    args::{Global, Top},
    config::{self, Target},
    database,
    error::CliError,
    output::{Output, report, shown},
    signals::Signals,
};
use outbox_core::{
    admin::{InspectStore, Overview},
    failure::full_text,
    runtime::{now, thread},
};
use outbox_sea_orm::Outbox;
use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style},
    text::{self, Text},
    widgets::Paragraph,
};
use std::{
    env,
    io::{IsTerminal, stdout},
    process::ExitCode,
    time::Instant,
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::sleep_until,
};

/// What the last line of the screen says.
const KEYS: &str = "q ends   j k scroll   g G first and last line   space pauses";
/// Lines that a page key scrolls.
const PAGE: u16 = 10;

/// Shows the overview again and again.
pub(super) async fn top(
    global: &Global,
    top: &Top,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    // Before the screen is there, so that its terminal is left as it was.
    let mut signals = Signals::new()?;
    let mut watched = Watched::of(global)?;
    if top.times.is_some() || output.json || !stdout().is_terminal() {
        let mut failed = false;
        tokio::select! {
            ended = plain(&mut watched, top, output, &mut failed) => ended?,
            () = signals.stop() => {}
        }
        return Ok(exit_code(failed));
    }
    let mut terminal = ratatui::try_init()?;
    let ended = on_terminal(watched, top, &mut terminal, &mut signals).await;
    ratatui::restore();
    ended
}

fn exit_code(failed: bool) -> ExitCode {
    ExitCode::from(if failed { 3 } else { 0 })
}

/// The databases, which are opened at the first look; one that was away, at a later one.
struct Watched(Vec<(Target, Option<Outbox>)>);

/// What a look has found.
type Look = (Watched, Answers<Overview>);

impl Watched {
    fn of(global: &Global) -> Result<Self, CliError> {
        let targets = config::targets(global)?;
        targets.iter().try_for_each(database::check)?;
        Ok(Self(targets.into_iter().map(|target| (target, None)).collect()))
    }

    async fn look(&mut self) -> Answers<Overview> {
        let mut answers = Answers { list: Vec::new(), failures: Vec::new() };
        for (target, opened) in &mut self.0 {
            match overview(target, opened).await {
                Ok(overview) => answers.list.push((target.clone(), overview)),
                Err(error) => answers.failures.push((target.clone(), error)),
            }
        }
        answers
    }

    async fn look_at(mut self, at: Instant) -> Look {
        sleep_until(at.into()).await;
        let answers = self.look().await;
        (self, answers)
    }
}

async fn overview(target: &Target, opened: &mut Option<Outbox>) -> Result<Overview, CliError> {
    let outbox = match opened {
        Some(outbox) => outbox,
        None => opened.insert(database::open(target).await?),
    };
    Ok(outbox.overview().await?)
}

/// Gives the lines of all databases, each under its name, those first that are away.
fn all_lines(answers: &Answers<Overview>) -> Vec<Line> {
    let heading = |text: String| Line { text, mood: Mood::Heading };
    let away = answers.failures.iter().flat_map(|(target, error)| {
        let why = Line { text: shown(&full_text(error)), mood: Mood::Alarm };
        [heading(shown(&target.to_string())), why]
    });
    let of = |(target, overview): &(Target, Overview)| {
        let name = format!("{}  {}", shown(&target.to_string()), overview.now);
        [heading(name)].into_iter().chain(lines(overview))
    };
    away.chain(answers.list.iter().flat_map(of)).collect()
}

/// Writes the overview so many times. A database that is away is reported each time, and ends it
/// where it is the only one.
async fn plain(
    watched: &mut Watched,
    top: &Top,
    output: &mut Output,
    failed: &mut bool,
) -> Result<(), CliError> {
    let mut looks = 0;
    loop {
        let mut answers = watched.look().await;
        *failed = !answers.failures.is_empty();
        if watched.0.len() == 1
            && let Some((_, error)) = answers.failures.pop()
        {
            return Err(error);
        }
        answers.failures.drain(..).for_each(|(_, error)| report(&error));
        if output.json {
            answers.write(output, |_, _, _| Ok(()))?;
        } else {
            output.next_screen()?;
            all_lines(&answers).into_iter().try_for_each(|line| output.line(line.text))?;
        }
        looks += 1;
        if top.times.is_some_and(|times| looks >= times) {
            return Ok(());
        }
        tokio::time::sleep(top.every).await;
    }
}

async fn on_terminal(
    watched: Watched,
    top: &Top,
    terminal: &mut DefaultTerminal,
    signals: &mut Signals,
) -> Result<ExitCode, CliError> {
    let (mut keys, mut screen) = (keys()?, Screen::default());
    // It goes on while keys come, so that a database that is slow does not hold them up.
    let mut looking = Box::pin(watched.look_at(now()));
    loop {
        terminal.draw(|frame| screen.draw(frame))?;
        tokio::select! {
            event = keys.recv() => match event {
                Some(event) if screen.hears(&event) => {}
                _ => return Ok(exit_code(screen.failed)),
            },
            () = signals.stop() => return Ok(exit_code(screen.failed)),
            (watched, answers) = &mut looking, if !screen.paused => {
                screen.show(&answers);
                looking = Box::pin(watched.look_at(now() + top.every));
            }
        }
    }
}

/// Reads keys on a thread of their own: the terminal has no other way to wait for them. The thread
/// ends with the process, or with the first key after the screen.
fn keys() -> Result<UnboundedReceiver<Event>, CliError> {
    let (sender, keys) = unbounded_channel();
    let read = move || {
        while let Ok(event) = event::read() {
            if sender.send(event).is_err() {
                break;
            }
        }
    };
    drop(thread("keys", read)?);
    Ok(keys)
}

/// What is on the screen.
#[derive(Debug, Default)]
struct Screen {
    lines: Vec<Line>,
    /// Lines above the screen.
    above: u16,
    /// Lines that the screen had at the last draw.
    height: u16,
    paused: bool,
    /// Whether a database could not be asked.
    failed: bool,
}

impl Screen {
    fn show(&mut self, answers: &Answers<Overview>) {
        self.failed = !answers.failures.is_empty();
        self.lines = all_lines(answers);
    }

    /// Obeys a key; `false` for one that ends.
    fn hears(&mut self, event: &Event) -> bool {
        let Event::Key(key) = event else { return true };
        if key.kind == KeyEventKind::Release {
            return true;
        }
        let last = self.last();
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char('j') | KeyCode::Down => self.above = self.above.saturating_add(1),
            KeyCode::Char('k') | KeyCode::Up => self.above = self.above.saturating_sub(1),
            KeyCode::PageDown => self.above = self.above.saturating_add(PAGE),
            KeyCode::PageUp => self.above = self.above.saturating_sub(PAGE),
            KeyCode::Char('g') | KeyCode::Home => self.above = 0,
            KeyCode::Char('G') | KeyCode::End => self.above = last,
            KeyCode::Char(' ') => self.paused = !self.paused,
            _ => {}
        }
        self.above = self.above.min(last);
        true
    }

    /// The lines above the screen when it shows the last one.
    fn last(&self) -> u16 {
        u16::try_from(self.lines.len()).unwrap_or(u16::MAX).saturating_sub(self.height)
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let [list, keys] =
            Layout::vertical([Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
        self.height = list.height;
        self.above = self.above.min(self.last());
        let coloured = env::var_os("NO_COLOR").is_none();
        let lines = self
            .lines
            .iter()
            .map(|line| text::Line::styled(line.text.as_str(), style(line.mood, coloured)));
        let text = Text::from_iter(lines);
        frame.render_widget(Paragraph::new(text).scroll((self.above, 0)), list);
        let state = if self.paused { "paused   " } else { "" };
        let bar = Style::new().add_modifier(Modifier::REVERSED);
        frame.render_widget(Paragraph::new(format!("{state}{KEYS}")).style(bar), keys);
    }
}

fn style(mood: Mood, coloured: bool) -> Style {
    let colour = |colour| if coloured { Style::new().fg(colour) } else { Style::new() };
    match mood {
        Mood::Heading => Style::new().add_modifier(Modifier::BOLD),
        Mood::Plain => Style::new(),
        Mood::Notice => colour(Color::Yellow),
        Mood::Alarm => colour(Color::Red).add_modifier(Modifier::BOLD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::{Terminal, backend::TestBackend};

    fn screen(lines: usize) -> Screen {
        let line = |n| Line { text: format!("line {n}"), mood: Mood::Plain };
        Screen { lines: (0..lines).map(line).collect(), ..Screen::default() }
    }

    fn key(code: KeyCode) -> Event {
        Event::Key(code.into())
    }

    /// Gives the rows of the screen.
    fn drawn(screen: &mut Screen) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(70, 4)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y: u16| (0..70).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..4).map(|y| row(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn a_screen_shows_as_many_lines_as_it_has_and_scrolls_between_the_first_and_the_last() {
        let mut screen = screen(5);
        for (pressed, first) in [
            (None, 0),
            (Some(KeyCode::Char('j')), 1),
            (Some(KeyCode::Down), 2),
            (Some(KeyCode::Down), 2),
            (Some(KeyCode::Up), 1),
            (Some(KeyCode::Char('G')), 2),
            (Some(KeyCode::Home), 0),
            (Some(KeyCode::PageDown), 2),
            (Some(KeyCode::PageUp), 0),
            (Some(KeyCode::Char('x')), 0),
        ] {
            if let Some(code) = pressed {
                assert!(screen.hears(&key(code)));
            }
            let rows = drawn(&mut screen);
            let expected: Vec<String> = (first..first + 3).map(|n| format!("line {n}")).collect();
            assert_eq!((&rows[..3], &*rows[3]), (&expected[..], KEYS), "{pressed:?}");
        }
        assert!(screen.hears(&key(KeyCode::Char(' '))) && screen.paused);
        assert!(drawn(&mut screen)[3].starts_with("paused   q ends"));
        for code in [KeyCode::Char('q'), KeyCode::Esc] {
            assert!(!screen.hears(&key(code)));
        }
    }

    #[test]
    fn a_database_that_is_away_is_shown_and_does_not_end_the_screen() {
        let mut screen = screen(50);
        drawn(&mut screen);
        screen.hears(&key(KeyCode::End));
        let target = Target {
            name: "orders".to_owned(),
            url: "postgres://me:secret@db/orders".to_owned(),
            namespace: String::new(),
            production: false,
        };
        let why = CliError::NotFound("it \u{1b}[2J is away".to_owned());
        screen.show(&Answers { list: Vec::new(), failures: vec![(target, why)] });
        let rows = drawn(&mut screen);
        assert_eq!(rows[0], "orders (postgres://me:***@db/orders)");
        assert_eq!(rows[1], "it \\u{1b}[2J is away");
        assert!(screen.failed);
    }
}
