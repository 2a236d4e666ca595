//! `top`: on a terminal a screen that is redrawn and scrolled, elsewhere the overview again and again.

use super::{
    Answers, ask_all,
    overview::{Line, Mood, lines},
};
use crate::{
    args::{Global, Top},
    error::CliError,
    output::{Output, shown},
};
use outbox_core::{
    admin::{InspectStore, Overview},
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
    if top.times.is_some() || output.json || !stdout().is_terminal() {
        return plain(global, top, output).await;
    }
    let mut terminal = ratatui::try_init()?;
    let ended = on_terminal(global, top, &mut terminal).await;
    ratatui::restore();
    ended
}

async fn ask(global: &Global) -> Result<Answers<Overview>, CliError> {
    ask_all(global, async |outbox: &Outbox| outbox.overview().await).await
}

/// Gives the lines of all databases, each under its name.
fn all_lines(answers: &Answers<Overview>) -> Vec<Line> {
    let of = |(target, overview): &(_, Overview)| {
        let heading = format!("{}  {}", shown(&format!("{target}")), overview.now);
        [Line { text: heading, mood: Mood::Heading }].into_iter().chain(lines(overview))
    };
    answers.list.iter().flat_map(of).collect()
}

async fn plain(global: &Global, top: &Top, output: &mut Output) -> Result<ExitCode, CliError> {
    let mut looks = 0;
    loop {
        let answers = ask(global).await?;
        if output.json {
            answers.write(output, |_, _, _| Ok(()))?;
        } else {
            output.next_screen()?;
            all_lines(&answers).into_iter().try_for_each(|line| output.line(line.text))?;
        }
        looks += 1;
        if top.times.is_some_and(|times| looks >= times) {
            return Ok(answers.exit_code(true));
        }
        tokio::select! {
            () = tokio::time::sleep(top.every) => {}
            _ = tokio::signal::ctrl_c() => return Ok(answers.exit_code(true)),
        }
    }
}

async fn on_terminal(
    global: &Global,
    top: &Top,
    terminal: &mut DefaultTerminal,
) -> Result<ExitCode, CliError> {
    let (mut keys, mut screen) = (keys()?, Screen::default());
    // It goes on while keys come, so that a database that is slow does not hold them up.
    let mut asking = Box::pin(ask_at(global, now()));
    loop {
        terminal.draw(|frame| screen.draw(frame))?;
        tokio::select! {
            event = keys.recv() => match event {
                Some(event) if screen.hears(&event) => {}
                _ => return Ok(ExitCode::from(if screen.failed { 3 } else { 0 })),
            },
            answers = &mut asking, if !screen.paused => {
                screen.show(answers);
                asking = Box::pin(ask_at(global, now() + top.every));
            }
        }
    }
}

async fn ask_at(global: &Global, at: Instant) -> Result<Answers<Overview>, CliError> {
    sleep_until(at.into()).await;
    ask(global).await
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
    fn show(&mut self, answers: Result<Answers<Overview>, CliError>) {
        match answers {
            Ok(answers) => {
                self.failed = answers.failed;
                self.lines = all_lines(&answers);
            }
            Err(error) => {
                self.failed = true;
                let mut text = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(error) = cause {
                    text = format!("{text}: {error}");
                    cause = error.source();
                }
                self.lines = vec![Line { text: shown(&text), mood: Mood::Alarm }];
            }
        }
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
        screen.show(Err(CliError::Usage("the database \u{1b}[2J is away".to_owned())));
        assert_eq!(drawn(&mut screen)[0], "the database \\u{1b}[2J is away");
        assert!(screen.failed);
    }
}
