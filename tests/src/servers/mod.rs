//! Private servers: started from the installed programs on a free loopback port, with a folder of their own.
//!
//! A test may stop, kill and freeze them as it likes; no other test uses them. Only processes that
//! were started here are ever signalled. Other tests use the shared servers through
//! [`databases`](crate::databases).

mod home;
mod probe;
mod record;

pub mod aws;
pub mod kafka;
pub mod mariadb;
pub mod mosquitto;
pub mod nats;
pub mod pgbouncer;
pub mod postgres;
pub mod rabbitmq;
pub mod redis;

use crate::{processes::Process, wait::Steps};
use home::ServerHome;
use probe::Probe;
use rustix::process::Signal;
use std::{path::Path, process::Command, time::Duration};

/// How long a server may take until it answers: RabbitMQ beside two compilations needs a sixth of it.
const READY_WITHIN: Duration = Duration::from_mins(2);

/// How long a server may take to stop when it is asked to.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);

/// How long the preparation of a data folder may take.
const PREPARED_WITHIN: Duration = Duration::from_mins(2);

/// How one kind of server is prepared, started, probed and stopped.
struct Recipe {
    name: &'static str,
    /// The user that Debian's package makes for it; it runs as that user where the tests run as root.
    account: &'static str,
    /// Commands that prepare the folder, once.
    prepare: fn(&ServerHome) -> Vec<Command>,
    /// Commands of long-lived processes; the last one is the server, those before it are what it
    /// depends on.
    serve: fn(&ServerHome) -> Vec<Command>,
    probe: Probe,
    url: fn(u16) -> String,
    /// The signal for an immediate but orderly shutdown.
    stop: Signal,
}

/// A private server. Dropped, it is killed and its folder removed.
pub struct Server {
    recipe: &'static Recipe,
    settings: Vec<String>,
    /// The server's own process is the last one. Declared before the folder, so that it ends first.
    processes: Vec<Process>,
    home: ServerHome,
}

impl Server {
    /// Prepares a folder and starts a server that has additional arguments.
    async fn launch(recipe: &'static Recipe, settings: &[&str]) -> Self {
        let home = ServerHome::new(recipe.account);
        let settings = settings.iter().map(ToString::to_string).collect();
        let mut server = Self { recipe, settings, processes: Vec::new(), home };
        for mut command in (recipe.prepare)(&server.home) {
            server.home.run_as_account(&mut command);
            let mut step = Process::start_logged(&mut command, &server.home.log());
            let status = step.wait(PREPARED_WITHIN).await;
            assert!(
                status.success(),
                "{} could not be prepared:\n{}",
                recipe.name,
                server.home.log_end()
            );
        }
        server.start().await;
        server
    }

    /// Gives its port on 127.0.0.1, which stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.home.port()
    }

    /// Gives its URL, with the user and database that every test may use.
    #[must_use]
    pub fn url(&self) -> String {
        (self.recipe.url)(self.port())
    }

    /// Gives the folder with its data.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.home.folder()
    }

    /// Tells whether it answers a client now, in its own protocol, within a second.
    pub async fn answers(&self) -> bool {
        self.recipe.probe.answers(self.port()).await
    }

    /// Starts it again on the same port and folder, and returns when it answers.
    ///
    /// # Panics
    /// When it runs already, ends at once, or does not answer within two minutes; the message shows the end of its log.
    pub async fn start(&mut self) {
        assert!(self.processes.is_empty(), "{} runs already", self.recipe.name);
        let mut commands = (self.recipe.serve)(&self.home);
        if let Some(server) = commands.last_mut() {
            server.args(&self.settings);
        }
        let program = commands.last().map(|command| command.get_program().to_owned());
        for mut command in commands {
            self.home.run_as_account(&mut command);
            self.processes.push(Process::start_logged(&mut command, &self.home.log()));
        }
        let mut steps = Steps::until(READY_WITHIN);
        while !self.answers().await {
            let in_time = steps.next().await;
            let runs = self.processes.last_mut().is_some_and(Process::is_running);
            assert!(
                in_time && runs,
                "{} does not answer:\n{}",
                self.recipe.name,
                self.home.log_end()
            );
        }
        if let Some(program) = program {
            record::add(self.recipe.name, &program);
        }
    }

    /// Stops it orderly, keeping its data, and returns when it has ended.
    ///
    /// # Panics
    /// When it has not ended within half a minute.
    pub async fn stop(&mut self) {
        self.resume();
        let mut signal = self.recipe.stop;
        while let Some(mut process) = self.processes.pop() {
            process.signal(signal);
            process.wait(STOPPED_WITHIN).await;
            signal = Signal::TERM;
        }
    }

    /// Kills it (SIGKILL to all its processes), keeping its data, and returns when it is gone.
    pub async fn kill(&mut self) {
        while let Some(mut process) = self.processes.pop() {
            process.kill().await;
        }
    }

    /// Freezes it (SIGSTOP): connections stay open, nothing is answered.
    pub fn pause(&mut self) {
        self.processes.iter_mut().rev().for_each(Process::pause);
    }

    /// Lets it go on.
    pub fn resume(&mut self) {
        self.processes.iter_mut().for_each(Process::resume);
    }
}
