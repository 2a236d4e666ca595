//! The command line.

use crate::Release;
use std::path::PathBuf;

/// The text of `--help`.
pub const USAGE: &str = "\
usage: cargo run -p shop -- [--orders N] [--declines N] [--no-stock N] [--faults] [--data DIR | --database URL] [--broker URL]
       cargo run -p shop -- --serve [--faults] [--data DIR | --database URL] [--broker URL]

Four services, orders, payments, stock and shipping, with a database each. An order is a saga: orders asks stock for a
piece and payments for the money, confirms the order and asks shipping for the parcel; or what was done is undone. What
the services say to each other goes by signed HTTP, or through a broker: saved in the transaction of the data, carried by
a relay, received once.

  --orders N       how many orders are placed; 100, with --faults 500
  --declines N     of them, how many are over the customer's credit: the payment is declined
  --no-stock N     of them, how many are for something that is sold out
  --faults         payments (or the broker) refuses, falls silent, loses answers and vanishes while orders come in, and
                   the process that carries their sagas dies
  --serve          places no orders: serves until Ctrl-C, also the page of the operators; with --faults some orders, and
                   payments refuses them until Enter is pressed: time to look at them there, or with the command line `outbox`
  --data DIR       keeps the SQLite files in this folder; otherwise they are gone at the end
  --database URL   a database on a PostgreSQL (postgres://..) or MySQL or MariaDB (mysql://..) server instead
  --broker URL     a RabbitMQ (amqp://.., with --features amqp), a Kafka (kafka://.., with --features kafka), a NATS
                   (nats://.., with --features nats), a Redis (redis://.., with --features redis), an MQTT server
                   (mqtt://.., with --features mqtt) or an SQS (sqs://REGION or sqs+http://.., with --features sqs) in
                   place of HTTP
  --help           this text
";

/// The least number of orders with faults: some for each of them.
const FEWEST_WITH_FAULTS: u32 = 10;
/// The largest number of orders: more belong into a benchmark.
const MOST: u32 = 100_000;

/// The command of the command line.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Print the usage.
    Help,
    /// Run.
    Run(Options),
}

/// The options of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub release: Release,
    pub orders: u32,
    pub declines: u32,
    pub no_stock: u32,
    pub faults: bool,
    pub serve: bool,
    pub data: Option<PathBuf>,
    pub database: Option<String>,
    pub broker: Option<String>,
}

/// Reads the arguments, or reports all their faults.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, Vec<String>> {
    let (mut options, mut orders, mut faults) = (Options::default(), None, Vec::new());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let (name, given) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let mut value = |example: &str| {
            let value =
                given.clone().or_else(|| arguments.next()).filter(|value| !value.is_empty());
            value.ok_or_else(|| format!("{name} needs a value, such as {name} {example}"))
        };
        let mut read = || -> Result<(), String> {
            match name {
                "--faults" => options.faults = true,
                "--serve" => options.serve = true,
                "--orders" => orders = Some(number(name, &value("250")?, 1)?),
                "--declines" => options.declines = number(name, &value("20")?, 0)?,
                "--no-stock" => options.no_stock = number(name, &value("20")?, 0)?,
                "--data" => options.data = Some(value("./data")?.into()),
                "--database" => {
                    options.database = Some(server(value("postgres://user@localhost/shop")?)?)
                }
                "--broker" => {
                    options.broker = Some(broker(value("amqp://guest:guest@127.0.0.1:5672")?)?)
                }
                _ => return Err(format!("`{argument}` is not an option")),
            }
            Ok(())
        };
        match name {
            "--help" | "-h" => return Ok(Command::Help),
            _ => faults.extend(read().err()),
        }
    }
    options.orders = orders.unwrap_or(if options.faults { 500 } else { 100 });
    faults.extend(contradictions(&options, orders.is_some()).into_iter().map(str::to_owned));
    if faults.is_empty() { Ok(Command::Run(options)) } else { Err(faults) }
}

fn number(name: &str, text: &str, least: u32) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if (least..=MOST).contains(&number) => Ok(number),
        _ => Err(format!("{name} is a number from {least} to {MOST}, not `{text}`")),
    }
}

fn server(url: String) -> Result<String, String> {
    let known = [
        ("postgres", cfg!(feature = "postgres")),
        ("postgresql", cfg!(feature = "postgres")),
        ("mysql", cfg!(feature = "mysql")),
    ];
    match known.iter().find(|(scheme, _)| url.starts_with(&format!("{scheme}://"))) {
        Some((_, true)) => Ok(url),
        Some((scheme, false)) => {
            Err(format!("this program was built without the feature for {scheme}"))
        }
        // Not quoted: it may hold a password.
        None => Err("--database is a URL that starts with postgres:// or mysql://".to_owned()),
    }
}

fn broker(url: String) -> Result<String, String> {
    let known = [
        ("amqp", cfg!(feature = "amqp")),
        ("amqps", cfg!(feature = "amqp")),
        ("kafka", cfg!(feature = "kafka")),
        ("mqtt", cfg!(feature = "mqtt")),
        ("mqtts", cfg!(feature = "mqtt")),
        ("nats", cfg!(feature = "nats")),
        ("tls", cfg!(feature = "nats")),
        ("redis", cfg!(feature = "redis")),
        ("rediss", cfg!(feature = "redis")),
        ("sqs", cfg!(feature = "sqs")),
        ("sqs+http", cfg!(feature = "sqs")),
        ("sqs+https", cfg!(feature = "sqs")),
    ];
    match known.iter().find(|(scheme, _)| url.starts_with(&format!("{scheme}://"))) {
        Some((_, true)) => Ok(url),
        Some((scheme, false)) => {
            Err(format!("this program was built without the feature for {scheme}"))
        }
        // Not quoted: it may hold a password.
        None => Err(
            "--broker is a URL that starts with amqp://, kafka://, mqtt://, nats://, redis:// or sqs://"
                .to_owned(),
        ),
    }
}

fn contradictions(options: &Options, orders_given: bool) -> Vec<&'static str> {
    [
        (options.serve && orders_given, "--serve places no orders: leave --orders out"),
        (
            !options.serve && options.declines + options.no_stock >= options.orders,
            "--declines and --no-stock leave no order that can be: raise --orders",
        ),
        (
            options.data.is_some() && options.database.is_some(),
            "--data and --database exclude one another",
        ),
        (
            options.faults && options.broker.as_ref().is_some_and(|url| url.starts_with("amqps")),
            "--faults disturbs the way to the broker, which TLS does not suffer: use amqp://",
        ),
        (
            options.faults && !options.serve && options.orders < FEWEST_WITH_FAULTS,
            "--faults needs at least 10 orders",
        ),
    ]
    .into_iter()
    .filter_map(|(wrong, fault)| wrong.then_some(fault))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, Vec<String>> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    fn run(options: Options) -> Result<Command, Vec<String>> {
        Ok(Command::Run(options))
    }

    #[test]
    fn without_arguments_a_hundred_orders_are_placed_and_with_faults_five_hundred() {
        assert_eq!(read(""), run(Options { orders: 100, ..Options::default() }));
        assert_eq!(
            read("--faults"),
            run(Options { orders: 500, faults: true, ..Options::default() })
        );
    }

    #[test]
    fn values_stand_behind_a_space_or_an_equals_sign() {
        let expected = || run(Options { orders: 7, data: Some("d".into()), ..Options::default() });
        assert_eq!(read("--orders 7 --data d"), expected());
        assert_eq!(read("--data=d --orders=7"), expected());
    }

    #[test]
    fn some_orders_cannot_be_and_at_least_one_can() {
        let expected = Options { orders: 200, declines: 20, no_stock: 30, ..Options::default() };
        assert_eq!(read("--orders 200 --declines 20 --no-stock=30"), run(expected));
        let faults = read("--orders 50 --declines 20 --no-stock 30").unwrap_err();
        assert_eq!(
            faults,
            ["--declines and --no-stock leave no order that can be: raise --orders"]
        );
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let faults = read(
            "--orders 7 --declines none --colour --serve --database ftp://x --broker q --data",
        )
        .unwrap_err();
        assert_eq!(
            faults,
            [
                "--declines is a number from 0 to 100000, not `none`",
                "`--colour` is not an option",
                "--database is a URL that starts with postgres:// or mysql://",
                "--broker is a URL that starts with amqp://, kafka://, mqtt://, nats://, redis:// or sqs://",
                "--data needs a value, such as --data ./data",
                "--serve places no orders: leave --orders out",
            ]
        );
    }

    #[test]
    fn help_wins_over_everything_before_it() {
        assert_eq!(read("--orders none --help"), Ok(Command::Help));
    }
}
