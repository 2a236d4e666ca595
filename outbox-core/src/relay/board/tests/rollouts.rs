//! Relays that shut down while events are confirmed on some of their routes, and relays with other
//! routes.

use super::*;

impl Model {
    /// Makes a model whose last route is new: no other route takes its topic.
    fn with_deployments(seed: u64, routes: usize) -> Self {
        let mut model = Self::new(seed, routes);
        let mut all = model.routes.to_vec();
        if let [first, .., last] = all.as_mut_slice() {
            first.selector = topic("a").or_topic("b");
            last.selector = topic("c");
        }
        model.routes = all.into();
        (model.relays_leave, model.deploys, model.has_third) = (true, true, true);
        model.config.unroutable_after = Duration::from_hours(1_000);
        model.start_next_relay(false);
        model
    }

    /// Asks the relay to shut down; the next one has all routes, or all but the last.
    pub(super) fn shut_down(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            self.board.release_all();
        }
    }

    /// Asks the relay to release a partition.
    pub(super) fn release_one(&mut self) {
        let no = PartitionNo(self.rng.u16(0..PARTITIONS));
        self.board.release(no);
    }

    /// Gives released partitions to their next owner; when the relay is drained, another one
    /// starts.
    pub(super) fn replace_when_drained(&mut self) {
        if !self.stopping {
            for (no, epoch) in self.board.take_released(self.now) {
                assert!(self.owns(no, epoch));
                self.gain(no, false);
            }
            return;
        }
        if self.board.is_drained(self.now) && self.writes.is_empty() {
            assert!(self.in_flight.is_empty(), "{:?}", self.in_flight);
            if self.deploys && self.failing {
                self.has_routes = self.routes.len() - usize::from(self.rng.bool());
            }
            self.start_next_relay(false);
        }
    }

    /// Deploys the last version, which stays.
    pub(super) fn end_deployments(&mut self) {
        if self.deploys {
            self.shut_down();
            self.has_routes = self.routes.len();
        }
    }

    fn repeats_nothing(&self, seed: u64) {
        for (number, delivered) in self.delivered.iter().enumerate() {
            let mut seen = HashSet::new();
            let twice: Vec<_> = delivered.iter().filter(|id| !seen.insert(**id)).collect();
            assert!(twice.is_empty(), "seed {seed}: {twice:?} twice on route {number}");
        }
    }
}

#[test]
fn a_relay_that_leaves_repeats_nothing_on_any_route() {
    for seed in 0..60 {
        let mut model = Model::new(seed, 2 + usize::try_from(seed % 2).expect("small"));
        (model.relays_leave, model.failing) = (true, false);
        model.run(300);
        model.repeats_nothing(seed);
        model.check();
    }
}

#[test]
fn what_waits_for_a_route_of_another_version_is_delivered_when_that_runs_again() {
    let seeds = if std::env::var_os("OUTBOX_LONG").is_some() { 2_000 } else { 60 };
    for seed in 0..seeds {
        let mut model =
            Model::with_deployments(seed, 2 + usize::try_from(seed % 2).expect("small"));
        model.run(300);
        assert!(model.unroutable.is_empty(), "seed {seed}: {:?} were given up", model.unroutable);
        model.check();
        assert_eq!(model.board.stats().unrouted, 0, "seed {seed}");
    }
}

#[test]
fn what_no_version_takes_is_given_up_after_its_time_and_stops_nobody() {
    for seed in 0..30 {
        let mut model = Model::with_deployments(seed, 2);
        model.config.unroutable_after = Duration::from_secs(1);
        model.routes = model.routes[..1].into();
        (model.has_routes, model.deploys) = (1, false);
        model.start_next_relay(false);
        model.run(100);
        let untaken = model.all.iter().filter(|(_, (_, name))| name == "c");
        let untaken: HashSet<EventId> = untaken.map(|(id, _)| *id).collect();
        assert_eq!(model.unroutable, untaken, "seed {seed}");
        model.check();
    }
}
