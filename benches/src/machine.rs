//! The machine: its description, and the CPU and memory of processes.

use anyhow::{Context, Result, ensure};
use sea_orm::sqlx::{PgPool, Row};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Clock ticks a second in `/proc`, the same on every Linux that Rust runs on.
const TICKS: f64 = 100.0;
const KIB: f64 = 1_024.0;

/// Describes the machine and the versions, a line each.
pub(crate) async fn describe(pool: &PgPool) -> Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism()?;
    let memory = field("/proc/meminfo", "MemTotal:")? / KIB / KIB;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').take(2).collect::<Vec<_>>().join(", ");
    let server: String = sea_orm::sqlx::query("SELECT split_part(version(), ' on ', 1)")
        .fetch_one(pool)
        .await?
        .get(0);
    let mut settings = Vec::new();
    for name in ["fsync", "synchronous_commit", "shared_buffers", "max_wal_size", "autovacuum"] {
        let row =
            sea_orm::sqlx::query("SELECT current_setting($1)").bind(name).fetch_one(pool).await?;
        settings.push(format!("{name}={}", row.get::<String, _>(0)));
    }
    Ok(format!(
        "- machine: {cores} cores of {}, {memory:.0} GiB, Linux {}, load before: {load}\n- server: {server}, {}\n\
         - program: {}, release profile, revision {}\n",
        model.trim_start_matches(['\t', ' ', ':']),
        kernel.trim(),
        settings.join(", "),
        said("rustc", &["--version"]),
        said("git", &["rev-parse", "--short", "HEAD"]),
    ))
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().ok().filter(|o| o.status.success());
    output.map_or("unknown".into(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}

/// The root of the workspace that this program was built in.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The revision of the workspace; `-dirty` follows where files other than documents differ from it.
pub(crate) fn revision() -> Result<String> {
    let git = |args: &[&str]| -> Result<String> {
        let output = Command::new("git").current_dir(workspace()).args(args).output()?;
        ensure!(output.status.success(), "git {} failed", args.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let revision = git(&["rev-parse", "--short", "HEAD"])?;
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs", ":!*.md"])?;
    Ok(if changed.is_empty() { revision } else { format!("{revision}-dirty") })
}

/// CPU seconds that this process has used.
pub(crate) fn own_cpu() -> Result<f64> {
    let times = times("self")?;
    Ok(times.own)
}

/// CPU seconds that a PostgreSQL server has used, all its processes together, those that ended too.
pub(crate) fn server_cpu(postmaster: u32) -> Result<f64> {
    let mut before = times(&postmaster.to_string())?;
    loop {
        let of_children = cpu_of_children(postmaster)?;
        let main = times(&postmaster.to_string())?;
        if main.of_ended_children <= before.of_ended_children {
            return Ok(main.own + main.of_ended_children + of_children);
        }
        // A process ended meanwhile, and was counted twice or not at all.
        before = main;
    }
}

fn cpu_of_children(parent: u32) -> Result<f64> {
    let mut sum = 0.0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.bytes().all(|b| b.is_ascii_digit())
            && let Ok(times) = times(&name)
            && times.parent == parent
        {
            sum += times.own;
        }
    }
    Ok(sum)
}

/// The process that started another one: the server's main one, for a server's process of ours.
pub(crate) fn parent_of(process: u32) -> Result<u32> {
    Ok(times(&process.to_string())?.parent)
}

/// MiB of memory that this process has now.
pub(crate) fn own_memory() -> Result<f64> {
    Ok(field("/proc/self/status", "VmRSS:")? / KIB)
}

struct Times {
    parent: u32,
    own: f64,
    of_ended_children: f64,
}

fn times(process: &str) -> Result<Times> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name may contain any character; numbers follow its bracket.
    let (_, rest) = text.rsplit_once(") ").context("/proc has another form")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let seconds = |from: usize| -> Result<f64> {
        Ok((fields[from].parse::<f64>()? + fields[from + 1].parse::<f64>()?) / TICKS)
    };
    Ok(Times { parent: fields[1].parse()?, own: seconds(11)?, of_ended_children: seconds(13)? })
}

/// A number of KiB by its name.
fn field(file: &str, name: &str) -> Result<f64> {
    let text = fs::read_to_string(file)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .with_context(|| format!("{file}: no {name}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
