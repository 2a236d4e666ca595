//! When failures that repeat are logged. Pure, fed with instants.
//!
//! | the subject | what happens | what is logged |
//! | --- | --- | --- |
//! | works | it fails, and nothing was logged of it for a minute | [`Report::First`] |
//! | failed less than a minute ago | it fails again | nothing; the failure is counted |
//! | has counted failures, a minute after the last line | it fails, or the time passes | [`Report::Repeated`] with their number |
//! | fails, and a line said so | it works again | [`Report::Recovered`] |
//! | fails, and no line said so | it works again | nothing; its failures stay counted |
//!
//! So a subject writes at most one line of failures and one of recovery a minute, whatever it does.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// At most one line of failures is logged in this time: often enough to see that a failure lasts, seldom enough for a
/// whole night.
pub const REPORT_EVERY: Duration = Duration::from_mins(1);
/// Subjects that are kept apart at once. Input from outside, such as addresses, may name any number of them.
const MOST_SUBJECTS: usize = 256;

/// A line to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// A failure of a subject that worked.
    First,
    /// Further failures, and in which time.
    Repeated {
        /// Failures since the last line, this one included.
        failures: u64,
        /// Time since the last line.
        within: Duration,
    },
    /// The subject works again.
    Recovered {
        /// Failures in a row before.
        failures: u64,
        /// Time since the first of them.
        after: Duration,
    },
}

/// The failures of one subject: a route, a subscription, a handler.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailureReports {
    /// The first of the present consecutive failures, and their number.
    streak: Option<(Instant, u64)>,
    /// Whether a line was logged of these.
    is_reported: bool,
    reported_at: Option<Instant>,
    unreported: u64,
}

impl FailureReports {
    /// Notes a failure.
    pub fn failed(&mut self, now: Instant) -> Option<Report> {
        self.streak.get_or_insert((now, 0)).1 += 1;
        self.unreported += 1;
        if self.reported_at.is_some_and(|at| now.saturating_duration_since(at) < REPORT_EVERY) {
            return None;
        }
        Some(self.report(now))
    }

    /// Notes that the subject works.
    pub fn succeeded(&mut self, now: Instant) -> Option<Report> {
        let (since, failures) = self.streak.take()?;
        if !std::mem::take(&mut self.is_reported) {
            return None;
        }
        self.unreported = 0;
        Some(Report::Recovered { failures, after: now.saturating_duration_since(since) })
    }

    /// Gives when failures that are counted are to be logged, without another one.
    #[must_use]
    pub fn due_at(&self) -> Option<Instant> {
        self.reported_at.filter(|_| self.unreported > 0).map(|at| at + REPORT_EVERY)
    }

    /// Gives the line that is due, if one is.
    pub fn due(&mut self, now: Instant) -> Option<Report> {
        self.due_at().filter(|at| *at <= now).map(|_| self.report(now))
    }

    /// Tells whether the last note was a failure.
    #[must_use]
    pub const fn is_failing(&self) -> bool {
        self.streak.is_some()
    }

    fn report(&mut self, now: Instant) -> Report {
        let before = self.reported_at.replace(now);
        self.is_reported = self.streak.is_some();
        let failures = std::mem::take(&mut self.unreported);
        match before {
            Some(before)
                if failures > 1 || now.saturating_duration_since(before) < 2 * REPORT_EVERY =>
            {
                Report::Repeated { failures, within: now.saturating_duration_since(before) }
            }
            _ => Report::First,
        }
    }
}

/// The failures of many subjects, each with its last text. Shared by the tasks that note them.
#[derive(Debug)]
pub struct ReportBook<K> {
    subjects: Mutex<HashMap<K, (FailureReports, String)>>,
}

impl<K> Default for ReportBook<K> {
    fn default() -> Self {
        Self { subjects: Mutex::default() }
    }
}

impl<K: Hash + Eq + Clone> ReportBook<K> {
    /// Notes a failure of a subject, with its text. Where the book is full, the subject that was logged longest ago is
    /// dropped.
    pub fn failed(&self, subject: K, text: &str, now: Instant) -> Option<Report> {
        let mut subjects = self.lock();
        if subjects.len() >= MOST_SUBJECTS
            && !subjects.contains_key(&subject)
            && let Some(oldest) =
                subjects.iter().min_by_key(|(_, (reports, _))| reports.reported_at)
        {
            let oldest = oldest.0.clone();
            subjects.remove(&oldest);
        }
        let (reports, last) = subjects.entry(subject).or_default();
        text.clone_into(last);
        reports.failed(now)
    }

    /// Notes that a subject works.
    pub fn succeeded(&self, subject: &K, now: Instant) -> Option<Report> {
        self.lock().get_mut(subject).and_then(|(reports, _)| reports.succeeded(now))
    }

    /// Gives the lines that are due, each with its subject and last text.
    pub fn due(&self, now: Instant) -> Vec<(K, Report, String)> {
        let mut subjects = self.lock();
        let due = |(subject, (reports, text)): (&K, &mut (FailureReports, String))| {
            reports.due(now).map(|report| (subject.clone(), report, text.clone()))
        };
        subjects.iter_mut().filter_map(due).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, (FailureReports, String)>> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens, in seconds.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        Fails(u64),
        Works(u64),
        /// Time passes up to then.
        Passes(u64),
    }
    use Event::{Fails as F, Passes as P, Works as W};

    fn story(events: &[Event]) -> Vec<Option<Report>> {
        let (start, mut reports) = (Instant::now(), FailureReports::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        let tell = |event: &Event| match *event {
            F(seconds) => reports.failed(at(seconds)),
            W(seconds) => reports.succeeded(at(seconds)),
            P(seconds) => reports.due(at(seconds)),
        };
        events.iter().map(tell).collect()
    }

    fn repeated(failures: u64, within: u64) -> Option<Report> {
        Some(Report::Repeated { failures, within: Duration::from_secs(within) })
    }

    fn recovered(failures: u64, after: u64) -> Option<Report> {
        Some(Report::Recovered { failures, after: Duration::from_secs(after) })
    }

    #[test]
    fn a_first_failure_is_logged_at_once_repeats_once_a_minute_and_a_recovery_at_once() {
        let first = Some(Report::First);
        for (events, expected) in [
            (vec![W(0)], vec![None]),
            (vec![F(0), F(1), F(59), F(60)], vec![first, None, None, repeated(3, 60)]),
            // No further failure comes: the time alone brings the line, once.
            (
                vec![F(0), F(1), P(59), P(60), P(120)],
                vec![first, None, None, repeated(1, 60), None],
            ),
            (vec![F(0), P(60)], vec![first, None]),
            (vec![F(0), F(5), W(10), W(11)], vec![first, None, recovered(2, 10), None]),
            // What recovered counts is told: nothing is due.
            (vec![F(0), F(5), W(10), P(60)], vec![first, None, recovered(2, 10), None]),
            // One that comes and goes has one line of each kind a minute.
            (
                vec![F(0), W(1), F(2), W(3), F(4), W(5), F(60), W(61)],
                vec![
                    first,
                    recovered(1, 1),
                    None,
                    None,
                    None,
                    None,
                    repeated(3, 60),
                    recovered(1, 1),
                ],
            ),
            // Long after, it is a first one again.
            (vec![F(0), W(1), F(600)], vec![first, recovered(1, 1), first]),
            (vec![F(0), F(60), F(120)], vec![first, repeated(1, 60), repeated(1, 60)]),
        ] {
            assert_eq!(story(&events), expected, "{events:?}");
        }
    }

    #[test]
    fn subjects_are_told_apart_and_the_number_of_them_is_bounded() {
        let (start, book) = (Instant::now(), ReportBook::default());
        assert_eq!(book.failed(0, "zero", start), Some(Report::First));
        assert_eq!(book.failed(0, "zero again", start), None);
        assert_eq!(book.failed(1, "one", start + Duration::from_secs(1)), Some(Report::First));
        let minute = start + REPORT_EVERY;
        let due = Report::Repeated { failures: 1, within: REPORT_EVERY };
        assert_eq!(book.due(minute), [(0, due, "zero again".to_owned())]);
        for subject in 2..10_000 {
            assert_eq!(book.failed(subject, "", minute), Some(Report::First));
        }
        assert_eq!(book.lock().len(), MOST_SUBJECTS);
    }
}
