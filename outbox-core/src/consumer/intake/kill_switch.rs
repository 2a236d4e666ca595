//! The kill switch: pauses a consumer while most runs of its handlers fail. Pure, fed with instants.

use crate::runtime::later;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// When a consumer pauses because most runs of its handlers fail, and for how long.
///
/// Without one, a handler whose dependency is down turns a whole queue into dead letters.
///
/// ```
/// # use outbox_core::consumer::KillSwitch;
/// # use std::time::Duration;
/// let switch = KillSwitch::default()
///     .window(50)
///     .threshold(0.5)
///     .pause(Duration::from_secs(10), Duration::from_mins(5));
/// assert_eq!((switch.window, switch.threshold), (50, 0.5));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct KillSwitch {
    /// Number of last runs that count, 20 unless set; with fewer it never trips.
    pub window: usize,
    /// Share of them that fails before it trips, 0 to 1; 0.8 unless set.
    pub threshold: f64,
    /// First pause, 5 s unless set; doubled after each probe that fails.
    pub pause: Duration,
    /// Longest pause, 1 min unless set.
    pub max_pause: Duration,
}

impl Default for KillSwitch {
    fn default() -> Self {
        Self {
            window: 20,
            threshold: 0.8,
            pause: Duration::from_secs(5),
            max_pause: Duration::from_mins(1),
        }
    }
}

impl KillSwitch {
    /// Sets how many of the last runs count; zero counts as one.
    #[must_use]
    pub fn window(mut self, runs: usize) -> Self {
        self.window = runs.max(1);
        self
    }

    /// Sets the share of failures that trips it, 0 to 1.
    #[must_use]
    pub fn threshold(mut self, share: f64) -> Self {
        self.threshold = if share.is_finite() { share.clamp(0.0, 1.0) } else { 1.0 };
        self
    }

    /// Sets the first pause and the longest.
    #[must_use]
    pub fn pause(mut self, first: Duration, longest: Duration) -> Self {
        (self.pause, self.max_pause) = (first, longest.max(first));
        self
    }
}

/// Whether deliveries may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::consumer) enum GateState {
    /// All of them.
    Open,
    /// One, as a probe.
    Probe,
    /// None before the instant, or while a probe is under way (`None`).
    Closed(Option<Instant>),
    /// None before the instant, or before an operator ends the pause (`None`).
    Paused(Option<Instant>),
}

/// The state of a kill switch.
#[derive(Debug)]
pub(in crate::consumer) struct Switch {
    settings: KillSwitch,
    /// Whether each of the last runs failed.
    last: VecDeque<bool>,
    tripped: Option<Tripped>,
}

#[derive(Debug, Clone, Copy)]
struct Tripped {
    until: Instant,
    pause: Duration,
    probing: bool,
}

impl Switch {
    pub(in crate::consumer) fn new(settings: KillSwitch) -> Self {
        Self { settings, last: VecDeque::new(), tripped: None }
    }

    /// Tells whether deliveries may start.
    pub(in crate::consumer) fn gate(&self, now: Instant) -> GateState {
        match self.tripped {
            None => GateState::Open,
            Some(t) if t.probing => GateState::Closed(None),
            Some(t) if now >= t.until => GateState::Probe,
            Some(t) => GateState::Closed(Some(t.until)),
        }
    }

    /// Notes that the one delivery of a probe starts.
    pub(in crate::consumer) fn probe_started(&mut self) {
        if let Some(tripped) = &mut self.tripped {
            tripped.probing = true;
        }
    }

    /// Notes that a probe ended without a run (a duplicate, a shutdown): another one may start.
    pub(in crate::consumer) fn probe_inconclusive(&mut self) {
        if let Some(tripped) = &mut self.tripped {
            tripped.probing = false;
        }
    }

    /// Notes a run; tells whether it tripped the switch.
    pub(in crate::consumer) fn note(&mut self, failed: bool, now: Instant) -> bool {
        match &mut self.tripped {
            // A run that began before it tripped is no probe.
            Some(t) if !t.probing => false,
            Some(_) if !failed => {
                (self.tripped, self.last) = (None, VecDeque::new());
                false
            }
            Some(t) => {
                t.pause = t.pause.saturating_mul(2).min(self.settings.max_pause);
                (t.until, t.probing) = (later(now, t.pause), false);
                false
            }
            None => {
                if self.last.len() >= self.settings.window {
                    self.last.pop_front();
                }
                self.last.push_back(failed);
                let failures = self.last.iter().filter(|failed| **failed).count();
                // A window is far below what a float counts exactly.
                #[expect(clippy::cast_precision_loss, reason = "windows are small")]
                let most = failures as f64 >= self.settings.threshold * self.settings.window as f64;
                let trips = failed && self.last.len() >= self.settings.window && most;
                if trips {
                    let pause = self.settings.pause;
                    let until = later(now, pause);
                    self.tripped = Some(Tripped { until, pause, probing: false });
                }
                trips
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn switch() -> Switch {
        Switch::new(KillSwitch::default().window(4).threshold(0.75).pause(SECOND, 4 * SECOND))
    }

    #[test]
    fn it_trips_when_most_of_a_whole_window_failed_at_a_failure() {
        let now = Instant::now();
        for (runs, trips) in [
            (&[true, true, true][..], false),
            (&[true, true, true, true], true),
            (&[true, false, true, true], true),
            // The last one is a success.
            (&[true, true, true, false], false),
            (&[true, false, true, false, true], false),
            (&[false, false, false, false, true, true, true], true),
            (&[false, false, false, false, true, true], false),
        ] {
            let mut switch = switch();
            let tripped = runs.iter().any(|failed| switch.note(*failed, now));
            assert_eq!((tripped, switch.gate(now) != GateState::Open), (trips, trips), "{runs:?}");
        }
    }

    #[test]
    fn pauses_double_until_a_probe_succeeds() {
        let (mut switch, mut now) = (switch(), Instant::now());
        for _ in 0..4 {
            switch.note(true, now);
        }
        for pause in [1, 2, 4, 4] {
            assert_eq!(switch.gate(now), GateState::Closed(Some(now + pause * SECOND)));
            now += pause * SECOND;
            assert_eq!(switch.gate(now), GateState::Probe);
            switch.probe_started();
            assert_eq!(switch.gate(now), GateState::Closed(None));
            switch.note(true, now);
        }
        now += 4 * SECOND;
        switch.probe_started();
        switch.note(false, now);
        assert_eq!(switch.gate(now), GateState::Open);
        assert!(!switch.note(true, now), "the window begins anew");
    }

    #[test]
    fn a_pause_without_end_stays_closed() {
        let now = Instant::now();
        let settings = KillSwitch::default().window(1).threshold(1.0);
        let mut switch = Switch::new(settings.pause(Duration::MAX, Duration::MAX));
        assert!(switch.note(true, now));
        switch.probe_started();
        switch.note(true, now);
        let year = Duration::from_hours(24 * 365);
        assert!(matches!(switch.gate(now + year), GateState::Closed(Some(_))));
    }

    #[test]
    fn runs_from_before_decide_nothing_and_an_inconclusive_probe_is_repeated() {
        let (mut switch, now) = (switch(), Instant::now());
        for _ in 0..4 {
            switch.note(true, now);
        }
        switch.note(false, now);
        assert_eq!(switch.gate(now), GateState::Closed(Some(now + SECOND)));
        let later = now + SECOND;
        switch.probe_started();
        switch.probe_inconclusive();
        assert_eq!(switch.gate(later), GateState::Probe);
    }
}
